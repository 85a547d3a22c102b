//! rtnetlink (rtnetlink(7)) as bytes: a request under construction, and a walk over what the kernel answers.
//! Knows messages and attributes; not what they say.
//! Invariant: any bytes are walked safely and to an end. No allocation.
const std = @import("std");
const sys = @import("linux.zig");

const linux = std.os.linux;

pub const Error = error{
    PermissionDenied,
    NotFound,
    SystemResources,
};

pub fn errorOf(errno: sys.E) Error {
    return switch (errno) {
        .PERM, .ACCES => error.PermissionDenied,
        .NODEV, .NXIO, .NOENT => error.NotFound,
        else => error.SystemResources,
    };
}

/// Longest message we read whole. Link messages with all their statistics take about 2 KiB; one that is
/// longer is cut, and what is cut off are attributes that we do not read.
pub const reply_capacity = 16 << 10;

const header_length = @sizeOf(linux.nlmsghdr);

/// One request under construction: header, fixed part, attributes.
pub const Request = struct {
    buffer: [256]u8 align(4) = @splat(0),
    length: usize = header_length,

    const sequence = 1;

    pub fn init(kind: u16, flags: u16) Request {
        var request: Request = .{};
        std.mem.writeInt(u16, request.buffer[4..6], kind, .native);
        std.mem.writeInt(u16, request.buffer[6..8], flags | sys.NLM_F_REQUEST, .native);
        std.mem.writeInt(u32, request.buffer[8..12], sequence, .native);
        return request;
    }

    pub fn putHeader(request: *Request, header: anytype) void {
        const bytes = std.mem.asBytes(&header);
        @memcpy(request.buffer[request.length..][0..bytes.len], bytes);
        request.length = std.mem.alignForward(usize, request.length + bytes.len, 4);
    }

    pub fn putAttribute(request: *Request, kind: u16, data: []const u8) void {
        const place = request.buffer[request.length..];
        std.mem.writeInt(u16, place[0..2], @intCast(4 + data.len), .native);
        std.mem.writeInt(u16, place[2..4], kind, .native);
        @memcpy(place[4..][0..data.len], data);
        request.length = std.mem.alignForward(usize, request.length + 4 + data.len, 4);
    }

    /// What is put from here until `endNest` is inside this attribute. Answers where it began.
    pub fn beginNest(request: *Request, kind: u16) usize {
        const start = request.length;
        request.putAttribute(kind, &.{});
        return start;
    }

    pub fn endNest(request: *Request, start: usize) void {
        std.mem.writeInt(u16, request.buffer[start..][0..2], @intCast(request.length - start), .native);
    }

    /// Sends it on a socket of its own and returns the answer; the kernel has it ready when send returns.
    pub fn exchange(request: *Request, buffer: *align(4) [reply_capacity]u8) Error!Message {
        const socket = try open(0);
        defer sys.close(socket);
        return request.exchangeOn(socket, buffer);
    }

    /// The same on a socket that has no answer waiting, and has none after it.
    pub fn exchangeOn(request: *Request, socket: sys.fd_t, buffer: *align(4) [reply_capacity]u8) Error!Message {
        try request.sendOn(socket);
        const length = switch (sys.result(linux.recvfrom(socket, buffer, buffer.len, 0, null, null))) {
            .value => |length| length,
            .failure => |code| return errorOf(code),
        };
        var messages: Iterator = .{ .rest = buffer[0..length] };
        const message = messages.next() orelse return error.SystemResources;
        if (message.kind == sys.NLMSG_ERROR) {
            if (message.body.len < 4) return error.SystemResources;
            const code = std.mem.readInt(i32, message.body[0..4], .native);
            if (code != 0) return errorOf(linux.errno(@as(usize, @bitCast(@as(isize, code)))));
        }
        return message;
    }

    /// The same for a request with many answers, which the caller receives.
    pub fn sendOn(request: *Request, socket: sys.fd_t) Error!void {
        std.mem.writeInt(u32, request.buffer[0..4], @intCast(request.length), .native);
        const sent = linux.errno(linux.sendto(socket, &request.buffer, request.length, 0, null, 0));
        if (sent != .SUCCESS) return errorOf(sent);
    }
};

pub fn open(groups: u32) Error!sys.fd_t {
    const kind = linux.SOCK.RAW | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
    const socket: sys.fd_t = switch (sys.result(linux.socket(linux.AF.NETLINK, kind, linux.NETLINK.ROUTE))) {
        .value => |fd| @intCast(fd),
        .failure => |code| return errorOf(code),
    };
    errdefer sys.close(socket);
    const address: linux.sockaddr.nl = .{ .pid = 0, .groups = groups };
    const errno = linux.errno(linux.bind(socket, @ptrCast(&address), @sizeOf(linux.sockaddr.nl)));
    return if (errno == .SUCCESS) socket else errorOf(errno);
}

pub const Message = struct { kind: u16, body: []const u8 };

/// Stops at the first length that cannot be true; a last message that is cut short is given as it is.
pub const Iterator = struct {
    rest: []const u8,

    pub fn next(iterator: *Iterator) ?Message {
        const rest = iterator.rest;
        if (rest.len < header_length) return null;
        const length = std.mem.readInt(u32, rest[0..4], .native);
        if (length < header_length) return null;
        const step = std.mem.alignForward(u64, length, 4);
        iterator.rest = rest[@intCast(@min(step, rest.len))..];
        return .{
            .kind = std.mem.readInt(u16, rest[4..6], .native),
            .body = rest[header_length..@min(length, rest.len)],
        };
    }
};

/// The data of the attribute, or null. Any bytes are walked safely.
pub fn attribute(bytes: []const u8, wanted: u16) ?[]const u8 {
    var rest = bytes;
    while (rest.len >= 4) {
        const length = std.mem.readInt(u16, rest[0..2], .native);
        const kind = std.mem.readInt(u16, rest[2..4], .native) & 0x3fff; // without the nesting flags
        if (length < 4 or length > rest.len) return null;
        if (kind == wanted) return rest[4..length];
        rest = rest[@min(std.mem.alignForward(usize, length, 4), rest.len)..];
    }
    return null;
}

pub fn attributeInt(comptime T: type, bytes: []const u8, wanted: u16) ?T {
    const data = attribute(bytes, wanted) orelse return null;
    if (data.len < @sizeOf(T)) return null;
    return std.mem.readInt(T, data[0..@sizeOf(T)], .native);
}

const testing = std.testing;

test "bytes of any kind are walked without end or overrun" {
    var prng: std.Random.DefaultPrng = .init(0x2545f4914f6cdd1d);
    const random = prng.random();
    var buffer: [200]u8 = undefined;
    for (0..100_000) |_| {
        const length = random.uintAtMost(usize, buffer.len);
        random.bytes(buffer[0..length]);
        if (length > 20) std.mem.writeInt(u32, buffer[0..4], random.uintAtMost(u32, 250), .native);
        var messages: Iterator = .{ .rest = buffer[0..length] };
        while (messages.next()) |message| std.mem.doNotOptimizeAway(message.body.len);
        if (length > 8) std.mem.writeInt(u16, buffer[0..2], random.uintAtMost(u16, 40), .native);
        _ = attributeInt(u32, buffer[0..length], sys.IFLA_MTU);
    }
}
