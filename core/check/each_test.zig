//! A runner of Zig tests that gives each a process of its own, for machines that are emulated: a test that crashes or
//! hangs there costs itself and none of the others. scripts/try-targets compiles the rooms' tests with it.
//!
//!   PROGRAM [NAME...]    runs all tests but those whose names end in one of these, or begin with one that ends in a
//!                        dot (a file); a line for each: `ok`, `skipped`, `failed` or `left` (as told), and its name
//!
//! Ends with 1 if one failed, or if a name given is that of no test.
const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const testing = std.testing;

pub const std_options: std.Options = .{ .log_level = .err };

/// Long for an emulator on a busy machine; a test that takes it does not end.
const patience_s = 600;

const Verdict = enum(u8) { ok, skipped, failed, left };

pub fn main(init: std.process.Init.Minimal) u8 {
    var failed: u8 = 0;
    for (builtin.test_functions) |one| {
        const verdict: Verdict = if (isNamed(init, one.name)) .left else inChild(init, one);
        std.debug.print("{t} {s}\n", .{ verdict, one.name });
        if (verdict == .failed) failed = 1;
    }
    var names = init.args.iterate();
    _ = names.skip();
    while (names.next()) |name| {
        if (isOfATest(name)) continue;
        std.debug.print("failed no test is named {s}\n", .{name});
        failed = 1;
    }
    return failed;
}

fn isNamed(init: std.process.Init.Minimal, name: []const u8) bool {
    var given = init.args.iterate();
    _ = given.skip();
    while (given.next()) |part| if (isMeant(part, name)) return true;
    return false;
}

fn isMeant(part: []const u8, name: []const u8) bool {
    return if (std.mem.endsWith(u8, part, ".")) std.mem.startsWith(u8, name, part) else std.mem.endsWith(u8, name, part);
}

fn isOfATest(part: []const u8) bool {
    for (builtin.test_functions) |one| if (isMeant(part, one.name)) return true;
    return false;
}

fn inChild(init: std.process.Init.Minimal, one: std.lang.TestFn) Verdict {
    const child: linux.pid_t = @bitCast(@as(u32, @truncate(linux.fork())));
    if (child < 0) return .failed;
    if (child == 0) {
        _ = linux.syscall1(.exit_group, @backingInt(runHere(init, one)));
        unreachable;
    }
    var status: i32 = 0;
    var waited_ms: u64 = 0;
    while (linux.waitpid(child, &status, linux.W.NOHANG) == 0) : (waited_ms += 2) {
        if (waited_ms > patience_s * std.time.ms_per_s) _ = linux.kill(child, .KILL);
        const pause: linux.timespec = .{ .sec = 0, .nsec = 2 * std.time.ns_per_ms };
        _ = linux.nanosleep(&pause, null);
    }
    if (status & 0x7f != 0) return .failed;
    return std.enums.fromInt(Verdict, status >> 8 & 0xff) orelse .failed;
}

fn runHere(init: std.process.Init.Minimal, one: std.lang.TestFn) Verdict {
    testing.allocator_instance = .init(std.heap.page_allocator, .{ .check_write_after_free = true });
    testing.io_instance = .init(testing.allocator, .{ .argv0 = .init(init.args), .environ = init.environ });
    testing.environ = init.environ;
    one.func() catch |err| {
        if (err == error.SkipZigTest) return .skipped;
        std.debug.print("{t} in {s}\n", .{ err, one.name });
        return .failed;
    };
    testing.io_instance.deinit();
    return if (testing.allocator_instance.deinit() == 0) .ok else .failed;
}
