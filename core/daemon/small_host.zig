//! Whether there is little memory here: of the machine, or of the control group that this process is in. Reads files of
//! the kernel; changes nothing.
//! Invariant: what cannot be found out is no reason for low-memory mode.
const std = @import("std");
const linux = std.os.linux;
const wire = @import("wire");

/// Less than this is little: OpenWrt's smallest routers have 32 MiB, its usual ones 128.
pub const little_bytes = 64 << 20;

/// In bytes; null where nothing says that it is little.
pub fn limit() ?u64 {
    const found = @min(machine() orelse std.math.maxInt(u64), group() orelse std.math.maxInt(u64));
    return if (found < little_bytes) found else null;
}

fn machine() ?u64 {
    var info: linux.Sysinfo = undefined;
    if (linux.errno(linux.sysinfo(&info)) != .SUCCESS) return null;
    return @as(u64, info.totalram) *| info.mem_unit;
}

/// In a container its own group is mostly the one at the top of the folder.
fn group() ?u64 {
    var buffer: [4096]u8 = undefined;
    const lines = read("/proc/self/cgroup", &buffer) orelse return null;
    var least: ?u64 = null;
    var each = std.mem.splitScalar(u8, lines, '\n');
    while (each.next()) |line| {
        const place = Place.of(line) orelse continue;
        for ([_][]const u8{ place.path, "" }) |path| {
            const bytes = limitIn(place.folder, path, place.file) orelse continue;
            least = @min(least orelse bytes, bytes);
        }
    }
    return least;
}

/// Where a line of /proc/self/cgroup leads, of either version of control groups: `0::/path`, `4:memory:/path`.
const Place = struct {
    folder: []const u8,
    path: []const u8,
    file: []const u8,

    fn of(line: []const u8) ?Place {
        var fields = std.mem.splitScalar(u8, line, ':');
        _ = fields.next();
        const controllers = fields.next() orelse return null;
        const path = fields.rest();
        if (controllers.len == 0) return .{ .folder = "/sys/fs/cgroup", .path = path, .file = "memory.max" };
        var names = std.mem.splitScalar(u8, controllers, ',');
        while (names.next()) |name| if (std.mem.eql(u8, name, "memory")) {
            return .{ .folder = "/sys/fs/cgroup/memory", .path = path, .file = "memory.limit_in_bytes" };
        };
        return null;
    }
};

fn limitIn(folder: []const u8, path: []const u8, file: []const u8) ?u64 {
    var name: [512]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&name);
    if (!wire.text.fill(&writer, "{s}{s}/{s}\x00", .{ folder, path, file })) return null;
    var buffer: [32]u8 = undefined;
    return number(read(@ptrCast(&name), &buffer) orelse return null);
}

/// Null for "max".
fn number(text: []const u8) ?u64 {
    return std.fmt.parseInt(u64, std.mem.trimEnd(u8, text, "\n"), 10) catch null;
}

/// As much as there is room for.
fn read(path: [*:0]const u8, buffer: []u8) ?[]const u8 {
    const opened = linux.open(path, .{ .CLOEXEC = true }, 0);
    if (linux.errno(opened) != .SUCCESS) return null;
    const fd: i32 = @intCast(opened);
    defer _ = linux.close(fd);
    const length = linux.read(fd, buffer.ptr, buffer.len);
    return if (linux.errno(length) == .SUCCESS) buffer[0..length] else null;
}

const testing = std.testing;

test "both versions of control groups say where the limit is" {
    const second = Place.of("0::/system.slice/wg.service").?;
    try testing.expectEqualStrings("/system.slice/wg.service", second.path);
    try testing.expectEqualStrings("memory.max", second.file);
    const first = Place.of("7:cpu,memory:/small").?;
    try testing.expectEqualStrings("/sys/fs/cgroup/memory", first.folder);
    try testing.expectEqualStrings("/small", first.path);
    for ([_][]const u8{ "", "3", "2:cpu,cpuacct:/", "5:memory_recursive:/" }) |line| {
        try testing.expectEqual(null, Place.of(line));
    }
    try testing.expectEqual(33_554_432, number("33554432\n").?);
    try testing.expectEqual(null, number("max\n"));
}
