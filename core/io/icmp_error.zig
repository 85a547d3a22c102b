//! What the network answers to datagrams that were sent (ICMP, RFC 792 and RFC 4443), from the error queue of a UDP
//! socket (IP_RECVERR, ip(7)). Such a socket also fails its next call with the error, whatever that call is about: see
//! `judge` in udp_send.zig.
//! Knows addresses; not who the peers are. Anybody can forge these errors, so they are told and not obeyed.
//! Invariant: a flood of them, of whatever kind, costs a constant: beyond so many in a second the kernel is told to
//! keep them for itself.
const std = @import("std");
const control_message = @import("control_message.zig");
const Name = @import("sockaddr.zig").Name;
const sys = @import("linux.zig");
const wire = @import("wire");

const linux = std.os.linux;

pub const Reason = enum { port_unreachable, host_unreachable, net_unreachable, prohibited, too_big };

pub const IcmpError = struct {
    /// Where the datagram was to go.
    remote: wire.SocketAddress,
    reason: Reason,
    /// Who says so.
    by: ?wire.Address,
    /// Of the path, for `too_big`.
    mtu: u16,
};

/// struct sock_extended_err; the address of who sent the ICMP message follows.
const Extended = extern struct { errno: u32, origin: u8, kind: u8, code: u8, pad: u8, info: u32, data: u32 };
const origin_icmp = 2;
const origin_icmp6 = 3;

/// Room for one Extended with an address behind it, and what else is received with a datagram.
const control_capacity = control_message.receive_capacity + 128;

/// One message of the error queue.
pub const Message = union(enum) {
    told: IcmpError,
    /// One that says nothing to users: another ICMP error, or one of our own kernel's.
    other,
};

/// The next one; null when there is none.
pub fn next(calls: *const sys.Calls, socket: sys.fd_t) ?Message {
    var name: Name = undefined;
    var control: [control_capacity]u8 align(control_message.alignment) = undefined;
    var none: [1]sys.iovec = .{.{ .base = @ptrCast(&name), .len = 0 }};
    var header: linux.msghdr = .{
        .name = @ptrCast(&name),
        .namelen = @sizeOf(Name),
        .iov = &none,
        .iovlen = 1,
        .control = &control,
        .controllen = control.len,
        .flags = 0,
    };
    const rc = calls.recvmsg(socket, &header, linux.MSG.ERRQUEUE | linux.MSG.DONTWAIT);
    if (linux.errno(rc) != .SUCCESS) return null;
    if (header.namelen < @sizeOf(sys.SockaddrIn)) return .other;
    const remote = name.get() orelse return .other;
    const length = @min(header.controllen, control.len);
    return if (parse(control[0..length], remote)) |found| .{ .told = found } else .other;
}

fn parse(control: []const u8, remote: wire.SocketAddress) ?IcmpError {
    var iterator: control_message.Iterator = .{ .rest = control };
    while (iterator.next()) |message| {
        const is_error = message.level == linux.IPPROTO.IP and message.kind == linux.IP.RECVERR or
            message.level == linux.IPPROTO.IPV6 and message.kind == linux.IPV6.RECVERR;
        if (!is_error or message.data.len < @sizeOf(Extended)) continue;
        const extended = std.mem.bytesToValue(Extended, message.data[0..@sizeOf(Extended)]);
        const reason = switch (extended.origin) {
            origin_icmp => reasonOf4(extended.kind, extended.code),
            origin_icmp6 => reasonOf6(extended.kind, extended.code),
            else => null, // our own kernel's, which the call itself has told
        };
        return .{
            .remote = remote,
            .reason = reason orelse return null,
            .by = offender(message.data[@sizeOf(Extended)..]),
            .mtu = if (reason == .too_big) std.math.lossyCast(u16, extended.info) else 0,
        };
    }
    return null;
}

fn offender(bytes: []const u8) ?wire.Address {
    if (bytes.len < @sizeOf(sys.SockaddrIn)) return null;
    var name: Name = undefined;
    const length = @min(bytes.len, @sizeOf(Name));
    @memcpy(std.mem.asBytes(&name)[0..length], bytes[0..length]);
    if (name.family == linux.AF.INET6 and length < @sizeOf(sys.SockaddrIn6)) return null;
    return (name.get() orelse return null).address;
}

/// RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1.
fn reasonOf4(kind: u8, code: u8) ?Reason {
    const unreachable_kind = 3;
    const time_exceeded = 11;
    if (kind == time_exceeded) return .net_unreachable;
    if (kind != unreachable_kind) return null;
    return switch (code) {
        0, 6, 11 => .net_unreachable,
        1, 7, 8, 12 => .host_unreachable,
        3 => .port_unreachable,
        4 => .too_big,
        9, 10, 13 => .prohibited,
        else => null,
    };
}

/// RFC 4443 section 3.
fn reasonOf6(kind: u8, code: u8) ?Reason {
    return switch (kind) {
        1 => switch (code) {
            0 => .net_unreachable,
            1, 5, 6 => .prohibited,
            3 => .host_unreachable,
            4 => .port_unreachable,
            else => null,
        },
        2 => .too_big,
        3 => .net_unreachable,
        else => null,
    };
}

/// How many messages there were lately, those included that say nothing to users.
pub const Guard = struct {
    window_ns: u64 = 0,
    count: u32 = 0,
    /// The kernel was told to keep them.
    is_deaf: bool = false,

    const per_second = 256;
    const rest_ns = 10 * std.time.ns_per_s;

    /// False: it is a flood.
    pub fn allows(guard: *Guard, now_ns: u64) bool {
        if (now_ns -| guard.window_ns >= std.time.ns_per_s) {
            guard.window_ns = now_ns;
            guard.count = 0;
        }
        guard.count += 1;
        return guard.count <= per_second;
    }

    /// Whether a flood is some time ago.
    pub fn isRested(guard: *const Guard, now_ns: u64) bool {
        return guard.is_deaf and now_ns -| guard.window_ns >= rest_ns;
    }
};

const testing = std.testing;

test "what a router and a host say about a datagram is read, and what they do not say is not" {
    try testing.expectEqual(.port_unreachable, reasonOf4(3, 3).?);
    try testing.expectEqual(.prohibited, reasonOf4(3, 13).?);
    try testing.expectEqual(null, reasonOf4(3, 2));
    try testing.expectEqual(null, reasonOf4(8, 0));
    try testing.expectEqual(.too_big, reasonOf6(2, 0).?);
    try testing.expectEqual(.port_unreachable, reasonOf6(1, 4).?);
    try testing.expectEqual(null, reasonOf6(128, 0));
}

test "the kernel tells who refused a datagram, once" {
    const socket: sys.fd_t = @intCast(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0));
    defer sys.close(socket);
    const taken: sys.fd_t = @intCast(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0));
    const one: c_int = 1;
    const set = linux.setsockopt(socket, linux.IPPROTO.IP, linux.IP.RECVERR, std.mem.asBytes(&one), @sizeOf(c_int));
    try testing.expectEqual(.SUCCESS, linux.errno(set));
    // A port that nobody has any more.
    var name: Name = undefined;
    var length = name.set(.{ .address = .fromIpv4(.{ 127, 0, 0, 1 }), .port = 0 });
    try testing.expectEqual(.SUCCESS, linux.errno(linux.bind(taken, @ptrCast(&name), length)));
    try testing.expectEqual(.SUCCESS, linux.errno(linux.getsockname(taken, @ptrCast(&name), &length)));
    sys.close(taken);
    try testing.expectEqual(null, next(&sys.real, socket));
    try testing.expectEqual(1, linux.sendto(socket, "x", 1, 0, @ptrCast(&name), length));
    const message = next(&sys.real, socket) orelse return error.SkipZigTest; // no loopback here
    const found = message.told;
    try testing.expectEqual(.port_unreachable, found.reason);
    try testing.expect(found.remote.eql(name.get().?));
    try testing.expect(found.by.?.eql(.fromIpv4(.{ 127, 0, 0, 1 })));
    try testing.expectEqual(null, next(&sys.real, socket));
    // Reading it has taken it from the next call as well.
    try testing.expectEqual(1, linux.sendto(socket, "x", 1, 0, @ptrCast(&name), length));
}

test "a flood is noticed, and forgotten after a rest" {
    var guard: Guard = .{};
    for (0..Guard.per_second) |_| try testing.expect(guard.allows(5 * std.time.ns_per_s));
    try testing.expect(!guard.allows(5 * std.time.ns_per_s));
    guard.is_deaf = true;
    try testing.expect(!guard.isRested(6 * std.time.ns_per_s));
    try testing.expect(guard.isRested(15 * std.time.ns_per_s));
    try testing.expect(guard.allows(15 * std.time.ns_per_s));
}
