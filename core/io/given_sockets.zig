//! UDP sockets that somebody else has made and bound: with a hole in a NAT, or held to a network by the system. They
//! are used instead of sockets of our own, and outlive a link that goes down.
//! Knows sockets, not what is sent through them.
//! Invariant: what is in here is a bound UDP socket of its family, by a descriptor of its own; both have one port.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const Name = @import("sockaddr.zig").Name;

const linux = std.os.linux;
const Family = wire.Family;

pub const Error = error{
    /// Not a UDP socket of this family.
    NotUdp,
    NotBound,
    /// An IPv6 socket that takes IPv4 as well.
    BothFamilies,
    PortsDiffer,
    SystemResources,
};

pub const GivenSockets = struct {
    /// IPv4 and IPv6.
    fds: [2]?sys.fd_t = .{ null, null },
    port: u16 = 0,

    pub const none: GivenSockets = .{};

    /// Those given stay the caller's to close.
    pub fn adopt(fds: [2]?sys.fd_t) Error!GivenSockets {
        var given: GivenSockets = .{};
        errdefer given.close();
        for (fds, &given.fds, [_]Family{ .ipv4, .ipv6 }) |fd, *own, family| {
            const port = try portOf(fd orelse continue, family);
            if (given.port != 0 and given.port != port) return error.PortsDiffer;
            given.port = port;
            own.* = try duplicate(fd.?);
        }
        return given;
    }

    pub fn close(given: *GivenSockets) void {
        for (&given.fds) |*fd| {
            if (fd.*) |own| sys.close(own);
            fd.* = null;
        }
    }

    pub fn isEmpty(given: *const GivenSockets) bool {
        return given.port == 0;
    }

    /// Descriptors that may be closed when the link goes down; null in both places when there is no room for them.
    pub fn borrow(given: *const GivenSockets) Error![2]?sys.fd_t {
        var borrowed: [2]?sys.fd_t = .{ null, null };
        errdefer for (borrowed) |fd| if (fd) |own| sys.close(own);
        for (given.fds, &borrowed) |fd, *out| if (fd) |own| {
            out.* = try duplicate(own);
        };
        return borrowed;
    }
};

fn duplicate(fd: sys.fd_t) Error!sys.fd_t {
    return switch (sys.duplicate(fd)) {
        .value => |own| @intCast(own),
        .failure => error.SystemResources,
    };
}

fn portOf(fd: sys.fd_t, family: Family) Error!u16 {
    const domain: c_int = switch (family) {
        .ipv4 => linux.AF.INET,
        .ipv6 => linux.AF.INET6,
    };
    if (option(fd, linux.SOL.SOCKET, linux.SO.DOMAIN) != domain) return error.NotUdp;
    if (option(fd, linux.SOL.SOCKET, linux.SO.PROTOCOL) != linux.IPPROTO.UDP) return error.NotUdp;
    // It cannot be said any more of a socket that is bound.
    if (family == .ipv6 and option(fd, linux.IPPROTO.IPV6, linux.IPV6.V6ONLY) != 1) return error.BothFamilies;
    var name: Name = undefined;
    var length: linux.socklen_t = @sizeOf(Name);
    if (linux.errno(linux.getsockname(fd, @ptrCast(&name), &length)) != .SUCCESS) return error.NotUdp;
    const bound = name.get() orelse return error.NotUdp;
    return if (bound.port == 0) error.NotBound else bound.port;
}

fn option(fd: sys.fd_t, level: i32, name: u32) ?c_int {
    var value: c_int = 0;
    var length: linux.socklen_t = @sizeOf(c_int);
    const rc = linux.getsockopt(fd, level, name, std.mem.asBytes(&value), &length);
    return if (linux.errno(rc) == .SUCCESS) value else null;
}

const testing = std.testing;

fn socketOf(domain: u32, kind: u32) sys.fd_t {
    return @intCast(linux.socket(domain, kind | linux.SOCK.CLOEXEC, 0));
}

test "a bound socket is taken by a descriptor of our own, and what is none is refused" {
    const tcp = socketOf(linux.AF.INET, linux.SOCK.STREAM);
    defer sys.close(tcp);
    const udp = socketOf(linux.AF.INET, linux.SOCK.DGRAM);
    defer sys.close(udp);
    const other = socketOf(linux.AF.INET6, linux.SOCK.DGRAM);
    defer sys.close(other);
    try testing.expectError(error.NotUdp, GivenSockets.adopt(.{ tcp, null }));
    try testing.expectError(error.NotUdp, GivenSockets.adopt(.{ other, null }));
    try testing.expectError(error.NotUdp, GivenSockets.adopt(.{ null, udp }));
    try testing.expectError(error.NotUdp, GivenSockets.adopt(.{ -1, null }));
    try testing.expectError(error.NotBound, GivenSockets.adopt(.{ udp, null }));
    try testing.expectError(error.BothFamilies, GivenSockets.adopt(.{ null, other }));
    var name: Name = undefined;
    const length = name.set(.{ .address = .fromIpv4(.{ 127, 0, 0, 1 }), .port = 0 });
    try testing.expectEqual(.SUCCESS, linux.errno(linux.bind(udp, @ptrCast(&name), length)));
    var given = try GivenSockets.adopt(.{ udp, null });
    defer given.close();
    try testing.expect(!given.isEmpty() and given.port != 0 and given.fds[0].? != udp);
    const borrowed = try given.borrow();
    defer sys.close(borrowed[0].?);
    try testing.expect(borrowed[0].? != given.fds[0].? and borrowed[1] == null);
}
