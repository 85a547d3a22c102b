//! Log lines to a file descriptor, one write each. Knows nothing of keys, and is never given one.
const std = @import("std");

pub const Level = enum(u32) { silent = 0, err = 1, verbose = 2 };

pub const Log = struct {
    fd: i32 = -1,
    level: Level = .silent,
    name: []const u8 = "",

    pub fn err(log: *const Log, comptime format: []const u8, arguments: anytype) void {
        log.print(.err, format, arguments);
    }

    pub fn verbose(log: *const Log, comptime format: []const u8, arguments: anytype) void {
        log.print(.verbose, format, arguments);
    }

    fn print(log: *const Log, level: Level, comptime format: []const u8, arguments: anytype) void {
        if (log.fd < 0 or @backingInt(level) > @backingInt(log.level)) return;
        var buffer: [512]u8 = undefined;
        var writer: std.Io.Writer = .fixed(buffer[0 .. buffer.len - 1]);
        writer.print("pywg: {s}: " ++ format, .{log.name} ++ arguments) catch {}; // a long line is cut
        const length = writer.buffered().len;
        buffer[length] = '\n';
        _ = std.os.linux.write(log.fd, &buffer, length + 1);
    }
};
