//! For tests/fuzzing/ and scripts/fuzz; no install has it. Judges byte strings that coverage has found, without the
//! fuzzer that found them.
//!
//!   replay TARGET [--fault NAME] FILE...
//!
//! Exit code 0: no mismatch. 1: a mismatch, a panic or a crash, described on standard output. 2: wrong arguments, or a
//! file that cannot be read. 4: there is no such fault, or nothing to run on.
const std = @import("std");
const linux = std.os.linux;
const report = @import("report");
const targets = @import("guided/targets.zig");

comptime {
    _ = @import("guided/stand_in.zig");
}

/// For the panic handler.
var running: []const u8 = "";
var bytes: [1 << 20]u8 = undefined;

pub fn main(init: std.process.Init.Minimal) u8 {
    var arguments = init.args.iterate();
    _ = arguments.skip();
    const name = arguments.next() orelse return 2;
    const target = std.meta.stringToEnum(targets.Target, name) orelse return 2;
    end.catchCrashes();
    return switch (target) {
        inline else => |known| run(targets.of(known), &arguments),
    };
}

fn run(comptime target: type, arguments: *std.process.Args.Iterator) u8 {
    var next = arguments.next() orelse return 2;
    var fault: ?[]const u8 = null;
    if (std.mem.eql(u8, next, "--fault")) {
        fault = arguments.next() orelse return 2;
        next = arguments.next() orelse return 2;
    }
    if (!target.prepare(fault)) return 4;
    var count: usize = 0;
    var path: ?[:0]const u8 = next;
    while (path) |file| : (path = arguments.next()) {
        running = file;
        const length = read(file) orelse return 2;
        target.judge(bytes[0..length]) catch {
            sayHowToReplay();
            return 1;
        };
        count += 1;
    }
    report.say("{d} inputs, no mismatch", .{count});
    return 0;
}

fn read(path: [:0]const u8) ?usize {
    const opened = linux.open(path, .{}, 0);
    if (linux.errno(opened) != .SUCCESS) return null;
    const file: i32 = @intCast(opened);
    defer _ = linux.close(file);
    const length = linux.read(file, &bytes, bytes.len);
    return if (linux.errno(length) == .SUCCESS) length else null;
}

fn sayHowToReplay() void {
    report.say("replay: --file {s}", .{running});
}

const end = report.SuddenEnd(struct {
    fn tell(what: []const u8, why: []const u8) void {
        report.say("{s}: {s}", .{ what, why });
        sayHowToReplay();
    }
}.tell);
pub const std_options = report.std_options;
pub const panic = end.panic;
