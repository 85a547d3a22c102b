//! How the programs of fuzz/ and sim/ say what they found: a line, a mismatch, an end without a verdict.
//! Knows neither seeds nor iterations: the programs add them.
const std = @import("std");
const linux = std.os.linux;

pub const Error = error{Mismatch};

/// One line on standard output, cut if it is very long.
pub fn say(comptime format: []const u8, arguments: anytype) void {
    var buffer: [4096]u8 = undefined;
    var writer: std.Io.Writer = .fixed(buffer[0 .. buffer.len - 1]);
    writer.print(format, arguments) catch {};
    buffer[writer.end] = '\n';
    var left: []const u8 = buffer[0 .. writer.end + 1];
    while (left.len > 0) {
        const written = linux.write(1, left.ptr, left.len);
        switch (linux.errno(written)) {
            .SUCCESS => left = left[written..],
            .INTR => {},
            else => return, // nobody listens
        }
    }
}

pub fn mismatch(comptime format: []const u8, arguments: anytype) Error {
    say("mismatch: " ++ format, arguments);
    return error.Mismatch;
}

pub const std_options: std.Options = .{ .signal_stack_size = null, .enable_segfault_handler = false };

/// A panic or a crash, which ends the program with exit code 1. `tell` says what it was ("panic", "crash") with its
/// message or signal, and how to repeat it. A root has `panic` as its own: std looks for it there.
pub fn SuddenEnd(comptime tell: fn (what: []const u8, why: []const u8) void) type {
    return struct {
        /// Reads and writes beyond a packet at the edge of its memory end in `onSignal`.
        pub fn catchCrashes() void {
            const action: linux.Sigaction = .{
                .handler = .{ .handler = onSignal },
                .mask = linux.sigemptyset(),
                .flags = linux.SA.RESETHAND,
            };
            for ([_]linux.SIG{ .SEGV, .BUS, .ILL, .FPE }) |signal| _ = linux.sigaction(signal, &action, null);
        }

        fn onSignal(signal: linux.SIG) callconv(.c) void {
            var buffer: [16]u8 = undefined;
            tell("crash", std.mem.print(&buffer, "SIG{t}", .{signal}) catch "a signal");
            linux.exit_group(1);
        }

        pub const panic = std.debug.FullPanic(onPanic);

        fn onPanic(message: []const u8, _: ?usize) noreturn {
            tell("panic", message);
            linux.exit_group(1);
        }
    };
}
