//! What the programs of fuzz/ and sim/ have to say. Knows neither seeds nor iterations: the programs add them.
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
