//! The asking end of the configuration socket of an interface, whoever serves it. Blocks, but never for longer than
//! `patience_s` without news. What is read may be keys: it is zeroed before its memory is given back.
const std = @import("std");
const sys = @import("linux.zig");

const linux = std.os.linux;
const Allocator = std.mem.Allocator;

pub const patience_s = 5;
/// Of one answer: beyond it nobody sane is at the other end.
const answer_max = 1 << 30;

pub const Error = error{
    /// There is no socket of that name.
    NotFound,
    /// There is one, and nobody listens on it.
    NobodyThere,
    PermissionDenied,
    /// Folder and name make a path that does not fit a socket address.
    NameTooLong,
    /// Connected, and then no answer, or only a part of one.
    Silent,
    SystemResources,
};

pub const Connection = struct {
    fd: sys.fd_t,

    pub fn open(folder: []const u8, name: []const u8) Error!Connection {
        var address: linux.sockaddr.un = .{ .path = @splat(0) };
        const path: [3][]const u8 = .{ folder, "/", name };
        var length: usize = 0;
        for (path ++ .{".sock"}) |part| {
            if (part.len >= address.path.len - length) return error.NameTooLong;
            @memcpy(address.path[length..][0..part.len], part);
            length += part.len;
        }
        const rc = linux.socket(linux.AF.UNIX, linux.SOCK.STREAM | linux.SOCK.CLOEXEC, 0);
        const fd: sys.fd_t = if (linux.errno(rc) == .SUCCESS) @intCast(rc) else return error.SystemResources;
        errdefer sys.close(fd);
        const patience: linux.timeval = .{ .sec = patience_s, .usec = 0 };
        for ([_]u32{ linux.SO.RCVTIMEO, linux.SO.SNDTIMEO }) |option| {
            _ = linux.setsockopt(fd, linux.SOL.SOCKET, option, std.mem.asBytes(&patience), @sizeOf(linux.timeval));
        }
        return switch (linux.errno(linux.connect(fd, @ptrCast(&address), @sizeOf(linux.sockaddr.un)))) {
            .SUCCESS => .{ .fd = fd },
            .NOENT, .NOTDIR => error.NotFound,
            .CONNREFUSED, .PROTOTYPE => error.NobodyThere,
            .ACCES, .PERM => error.PermissionDenied,
            .AGAIN => error.Silent, // as many wait already as may
            else => error.SystemResources,
        };
    }

    pub fn close(connection: *Connection) void {
        sys.close(connection.fd);
        connection.* = undefined;
    }

    pub fn send(connection: *const Connection, text: []const u8) Error!void {
        var rest = text;
        while (rest.len > 0) {
            const rc = linux.sendto(connection.fd, rest.ptr, rest.len, linux.MSG.NOSIGNAL, null, 0);
            switch (linux.errno(rc)) {
                .SUCCESS => rest = rest[rc..],
                .INTR => {},
                else => return error.Silent,
            }
        }
    }

    /// One answer, to its last line, `errno=N`.
    pub fn receive(connection: *const Connection, gpa: Allocator) Error!Answer {
        var answer: Answer = .{ .memory = &.{} };
        errdefer answer.deinit(gpa);
        while (!answer.isComplete()) {
            if (answer.length == answer.memory.len) try answer.grow(gpa);
            const room = answer.memory[answer.length..];
            const rc = linux.read(connection.fd, room.ptr, room.len);
            switch (linux.errno(rc)) {
                .SUCCESS => if (rc == 0) return error.Silent else {
                    answer.length += rc;
                },
                .INTR => {},
                else => return error.Silent,
            }
        }
        return answer;
    }
};

pub const Answer = struct {
    memory: []u8,
    length: usize = 0,

    pub fn deinit(answer: *Answer, gpa: Allocator) void {
        std.crypto.secureZero(u8, answer.memory);
        gpa.free(answer.memory);
        answer.* = undefined;
    }

    /// With a newline behind each line, the empty one too.
    pub fn text(answer: *const Answer) []const u8 {
        return answer.memory[0..answer.length];
    }

    fn isComplete(answer: *const Answer) bool {
        return std.mem.endsWith(u8, answer.text(), "\n\n");
    }

    fn grow(answer: *Answer, gpa: Allocator) Error!void {
        if (answer.memory.len >= answer_max) return error.SystemResources;
        const grown = gpa.alloc(u8, @max(16 << 10, answer.memory.len * 2)) catch return error.SystemResources;
        @memcpy(grown[0..answer.length], answer.text());
        std.crypto.secureZero(u8, answer.memory);
        gpa.free(answer.memory);
        answer.memory = grown;
    }
};

const testing = std.testing;

test "an answer is had whole, and silence ends" {
    const listener_file = @import("uapi_listener.zig");
    var folder: [64]u8 = undefined;
    const place = try std.mem.print(&folder, "/tmp/pywg-connection-{d}", .{linux.getpid()});
    var failure: sys.Failure = .{};
    try testing.expectError(error.NotFound, Connection.open(place, "wg0"));
    var listener: listener_file.Listener = try .listen(place, "wg0", &failure);
    var connection: Connection = try .open(place, "wg0");
    const long: [100]u8 = @splat('x');
    try testing.expectError(error.NameTooLong, Connection.open(place, &long));
    const accepted = linux.accept4(listener.fd, null, null, 0);
    const other: Connection = .{ .fd = @intCast(accepted) };
    try connection.send("get=1\n\n");
    try other.send("private_key=");
    try other.send("00\nerrno=0\n\n");
    var answer = try connection.receive(testing.allocator);
    try testing.expectEqualStrings("private_key=00\nerrno=0\n\n", answer.text());
    answer.deinit(testing.allocator);
    sys.close(other.fd);
    try testing.expectError(error.Silent, connection.receive(testing.allocator));
    connection.close();
    listener.close();
    try testing.expectError(error.NotFound, Connection.open(place, "wg0"));
    var path: [80]u8 = undefined;
    _ = linux.rmdir(try std.mem.printSentinel(&path, "{s}", .{place}, 0));
}
