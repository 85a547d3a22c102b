//! The entry that libFuzzer calls with byte strings, for the one target that this program was compiled with. The rooms
//! are compiled with counters (zig's -ffuzz), which libFuzzer reads; this file and the targets are not.
//!
//!   guided [--fault=NAME] [libFuzzer's options] [CORPUS...]
//!
//! A mismatch, a panic or a crash ends the program by a signal, and libFuzzer keeps the byte string.
const std = @import("std");
const options = @import("guided_options");
const report = @import("report");
const targets = @import("guided/targets.zig");

comptime {
    _ = @import("guided/stand_in.zig");
}

const target = targets.of(@field(targets.Target, options.target));

extern fn abort() noreturn;
extern fn __sanitizer_cov_8bit_counters_init(start: [*]u8, end: [*]u8) void;
extern fn __sanitizer_cov_pcs_init(start: [*]const Place, end: [*]const Place) void;

extern var __start___sancov_cntrs: u8;
extern const __start___sancov_pcs1: usize;
extern const __stop___sancov_pcs1: usize;

/// As LLVM's own instrumentation tells it; zig's has the address alone.
const Place = extern struct { address: usize, is_function: usize };
var places: [1 << 17]Place = undefined;

export fn LLVMFuzzerInitialize(count: *c_int, arguments: *[*][*:0]const u8) callconv(.c) c_int {
    const first: [*]const usize = @ptrCast(&__start___sancov_pcs1);
    const addresses = first[0 .. (@intFromPtr(&__stop___sancov_pcs1) - @intFromPtr(first)) / @sizeOf(usize)];
    for (addresses, places[0..addresses.len]) |address, *place| place.* = .{ .address = address, .is_function = 0 };
    const counters: [*]u8 = @ptrCast(&__start___sancov_cntrs);
    __sanitizer_cov_8bit_counters_init(counters, counters + addresses.len);
    __sanitizer_cov_pcs_init(&places, places[addresses.len..].ptr);
    for (arguments.*[0..@intCast(count.*)]) |argument| {
        const word = std.mem.span(argument);
        if (std.mem.startsWith(u8, word, "--fault=")) fault = word["--fault=".len..];
    }
    if (!target.prepare(fault)) {
        report.say("no such fault, or nothing to run on", .{});
        std.os.linux.exit_group(4);
    }
    return 0;
}

var fault: ?[]const u8 = null;

export fn LLVMFuzzerTestOneInput(bytes: [*]const u8, length: usize) callconv(.c) c_int {
    target.judge(bytes[0..length]) catch abort();
    return 0;
}

pub const std_options = report.std_options;
pub const panic = std.debug.FullPanic(onPanic);

fn onPanic(message: []const u8, _: ?usize) noreturn {
    report.say("panic: {s}", .{message});
    abort();
}
