//! Where the kernel would send a datagram now, and word that a route has changed: what tells that a sticky source is
//! stale. rtnetlink, in the thread's own namespace.
//! Knows addresses; not whose they are.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const netlink = @import("netlink.zig");
const Error = netlink.Error;

const linux = std.os.linux;

/// The interface by which the kernel would send to `remote` from `source`, or null without a route.
/// A sticky source whose interface is no longer this one is stale. `bound_index`: of the only one asked for, or 0.
pub fn interfaceTo(remote: wire.Address, source: ?wire.Address, fwmark: u32, bound_index: u32) Error!?u32 {
    const RouteMessage = extern struct {
        family: u8,
        destination_bits: u8,
        source_bits: u8 = 0,
        rest: [5]u8 = @splat(0),
        flags: u32 = 0,
    };
    var request: netlink.Request = .init(sys.RTM_GETROUTE, 0);
    request.putHeader(RouteMessage{
        .family = switch (remote.family) {
            .ipv4 => linux.AF.INET,
            .ipv6 => linux.AF.INET6,
        },
        .destination_bits = remote.family.bitLength(),
        .source_bits = if (source != null) remote.family.bitLength() else 0,
    });
    request.putAttribute(sys.RTA_DST, remote.slice());
    if (source) |from| {
        if (from.family == remote.family) request.putAttribute(rta_src, from.slice());
    }
    if (fwmark != 0) request.putAttribute(sys.RTA_MARK, std.mem.asBytes(&fwmark));
    if (bound_index != 0) request.putAttribute(sys.RTA_OIF, std.mem.asBytes(&bound_index));
    var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
    const reply = request.exchange(&buffer) catch |err| return if (err == error.PermissionDenied) err else null;
    if (reply.kind != sys.RTM_NEWROUTE or reply.body.len < @sizeOf(RouteMessage)) return null;
    return netlink.attributeInt(u32, reply.body[@sizeOf(RouteMessage)..], sys.RTA_OIF);
}

const rta_src: u16 = 2;

/// Tells that a route of the thread's namespace changed, so that sticky sources want another look.
pub const Monitor = struct {
    socket: sys.fd_t,

    pub fn open() Error!Monitor {
        return .{ .socket = try netlink.open(sys.RTMGRP_IPV4_ROUTE | sys.RTMGRP_IPV6_ROUTE) };
    }

    pub fn close(monitor: *Monitor) void {
        sys.close(monitor.socket);
        monitor.* = undefined;
    }

    pub fn fd(monitor: *const Monitor) sys.fd_t {
        return monitor.socket;
    }

    /// Takes up to a few hundred messages, so that a routing daemon's flood comes in portions; true if any
    /// route changed, or if events were lost (ENOBUFS).
    pub fn drain(monitor: *Monitor) bool {
        var changed = false;
        var byte: [1]u8 = undefined; // what changed does not matter: the rest of each message is discarded
        for (0..256) |_| {
            const rc = linux.recvfrom(monitor.socket, &byte, byte.len, 0, null, null);
            switch (linux.errno(rc)) {
                .SUCCESS, .NOBUFS => changed = true,
                .INTR => {},
                else => break,
            }
        }
        return changed;
    }
};

const testing = std.testing;

test "the route's interface is found, and a change of routes is told" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var monitor: Monitor = try .open();
    defer monitor.close();
    _ = monitor.drain();
    const loopback: wire.Address = .fromIpv4(.{ 127, 0, 0, 1 });
    try testing.expectEqual(1, try interfaceTo(loopback, null, 0, 0));
    try testing.expectEqual(1, try interfaceTo(loopback, loopback, 7, 1));
    try testing.expectEqual(null, try interfaceTo(.fromIpv4(.{ 192, 0, 2, 1 }), null, 0, 0));
    try testing.expectEqual(null, try interfaceTo(loopback, .fromIpv4(.{ 192, 0, 2, 1 }), 0, 0));
    // By an interface alone, but not from an address that is not ours, and not by one that is not there.
    try testing.expectEqual(1, try interfaceTo(.fromIpv4(.{ 192, 0, 2, 1 }), null, 0, 1));
    try testing.expectEqual(null, try interfaceTo(loopback, .fromIpv4(.{ 192, 0, 2, 1 }), 0, 1));
    try testing.expectEqual(null, try interfaceTo(loopback, null, 0, 4_000_000));
    try testing.expect(!monitor.drain());
    try sys.TestNamespace.setUp("lo", false);
    try testing.expect(monitor.drain());
    try testing.expect(!monitor.drain());
}
