//! Log lines to a file descriptor, one write each, by any thread. Knows nothing of secrets, and is never given one.
//! Invariant: nobody waits for whoever reads them. A line that finds no room is lost, and the next one that finds room
//! says how many were.
const std = @import("std");
const io = @import("io");
const wire = @import("wire");

pub const Level = enum(u32) { silent = 0, err = 1, verbose = 2 };

pub const Log = struct {
    fd: i32 = -1,
    level: Level = .silent,
    name: []const u8 = "",
    lost: std.atomic.Value(u32) = .init(0),

    pub inline fn err(log: *Log, comptime format: []const u8, arguments: anytype) void {
        log.print(.err, format, &wire.text.valuesOf(format, &arguments));
    }

    pub inline fn verbose(log: *Log, comptime format: []const u8, arguments: anytype) void {
        log.print(.verbose, format, &wire.text.valuesOf(format, &arguments));
    }

    noinline fn print(log: *Log, level: Level, format: []const u8, values: []const wire.text.Value) void {
        if (log.fd < 0 or @backingInt(level) > @backingInt(log.level)) return;
        const lost = log.lost.swap(0, .monotonic);
        if (lost != 0 and !log.line("{d} lines of this log were lost: nobody read them", &.{.{ .number = lost }})) {
            _ = log.lost.fetchAdd(lost +| 1, .monotonic);
            return;
        }
        if (!log.line(format, values)) _ = log.lost.fetchAdd(1, .monotonic);
    }

    fn line(log: *const Log, format: []const u8, values: []const wire.text.Value) bool {
        var buffer: [512]u8 = undefined;
        var writer: std.Io.Writer = .fixed(buffer[0 .. buffer.len - 1]);
        _ = wire.text.fill(&writer, "pywg: {s}: ", .{log.name});
        _ = wire.text.renderSome(&writer, format, values); // a long line is cut
        const length = writer.buffered().len;
        buffer[length] = '\n';
        return io.line_writer.write(log.fd, buffer[0 .. length + 1]);
    }
};

test "lines that find no room are counted, and the count is told" {
    const linux = std.os.linux;
    var ends: [2]i32 = undefined;
    if (linux.errno(linux.pipe2(&ends, .{ .CLOEXEC = true })) != .SUCCESS) return error.SkipZigTest;
    defer for (ends) |fd| io.linux.close(fd);
    var log: Log = .{ .fd = ends[1], .level = .err, .name = "wg0" };
    while (log.lost.load(.monotonic) < 3) log.err("{s}", .{&@as([400]u8, @splat('0'))});
    log.verbose("not at this level", .{});
    var buffer: [1 << 17]u8 = undefined;
    _ = linux.read(ends[0], &buffer, buffer.len);
    log.err("last", .{});
    const length = linux.read(ends[0], &buffer, buffer.len);
    try std.testing.expectEqualStrings(
        "pywg: wg0: 3 lines of this log were lost: nobody read them\npywg: wg0: last\n",
        buffer[0..length],
    );
}
