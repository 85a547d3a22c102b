//! Where the kernel would send a datagram now, and word that a route has changed: what tells that a sticky source is
//! stale. rtnetlink, in the thread's own namespace.
//! Knows addresses; not whose they are.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const link = @import("link.zig");
const netlink = @import("netlink.zig");
const Error = netlink.Error;

const linux = std.os.linux;

/// Questions to the kernel, on one socket: opening one for each would take six times as long.
pub const Lookup = struct {
    socket: sys.fd_t,

    pub fn open() Error!Lookup {
        return .{ .socket = try netlink.open(0) };
    }

    pub fn close(lookup: *Lookup) void {
        sys.close(lookup.socket);
        lookup.* = undefined;
    }

    /// The interface by which the kernel would send to `remote` from `source`, or null without a route.
    /// A sticky source whose interface is no longer this one is stale. `bound_index`: of the only one asked for, or 0.
    pub fn interfaceTo(
        lookup: *const Lookup,
        remote: wire.Address,
        source: ?wire.Address,
        fwmark: u32,
        bound_index: u32,
    ) Error!?u32 {
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
        const reply = request.exchangeOn(lookup.socket, &buffer) catch |err|
            return if (err == error.PermissionDenied) err else null;
        if (reply.kind != sys.RTM_NEWROUTE or reply.body.len < @sizeOf(RouteMessage)) return null;
        return netlink.attributeInt(u32, reply.body[@sizeOf(RouteMessage)..], sys.RTA_OIF);
    }
};

/// A route to the network through the interface, if there is none like it in the table.
pub fn add(interface_index: u32, prefix: wire.Prefix, table: u32) Error!void {
    var request: netlink.Request = .init(sys.RTM_NEWROUTE, sys.NLM_F_ACK | nlm_f_excl | nlm_f_create);
    request.putHeader(RouteMessage{
        .family = switch (prefix.address.family) {
            .ipv4 => linux.AF.INET,
            .ipv6 => linux.AF.INET6,
        },
        .destination_bits = prefix.length,
        .protocol = rtprot_boot,
        .scope = rt_scope_link,
        .kind = rtn_unicast,
    });
    request.putAttribute(sys.RTA_DST, prefix.address.slice());
    request.putAttribute(sys.RTA_OIF, std.mem.asBytes(&interface_index));
    request.putAttribute(rta_table, std.mem.asBytes(&table));
    var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
    _ = try request.exchange(&buffer);
}

/// struct rtmsg of <linux/rtnetlink.h>.
const RouteMessage = extern struct {
    family: u8,
    destination_bits: u8,
    source_bits: u8 = 0,
    type_of_service: u8 = 0,
    table: u8 = 0,
    protocol: u8 = 0,
    scope: u8 = 0,
    kind: u8 = 0,
    flags: u32 = 0,
};

const rta_table: u16 = 15;
const rtprot_boot = 3;
const rt_scope_link = 253;
const rtn_unicast = 1;
const nlm_f_excl = 0x200;
const nlm_f_create = 0x400;

const rta_src: u16 = 2;

/// Tells that routes of the thread's namespace changed, so that sticky sources want another look: a route, a rule, or a
/// link that went down, whose IPv4 routes go without a word.
pub const Monitor = struct {
    socket: sys.fd_t,

    pub fn open() Error!Monitor {
        return .{ .socket = try netlink.open(sys.RTMGRP_IPV4_ROUTE | sys.RTMGRP_IPV6_ROUTE |
            sys.RTMGRP_IPV4_RULE | sys.RTMGRP_IPV6_RULE | sys.RTMGRP_LINK) };
    }

    pub fn close(monitor: *Monitor) void {
        sys.close(monitor.socket);
        monitor.* = undefined;
    }

    pub fn fd(monitor: *const Monitor) sys.fd_t {
        return monitor.socket;
    }

    /// Takes up to a few hundred messages, so that a routing daemon's flood comes in portions; true if anything
    /// changed, or if events were lost (ENOBUFS).
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
    var lookup: Lookup = try .open();
    defer lookup.close();
    const loopback: wire.Address = .fromIpv4(.{ 127, 0, 0, 1 });
    try testing.expectEqual(1, try lookup.interfaceTo(loopback, null, 0, 0));
    try testing.expectEqual(1, try lookup.interfaceTo(loopback, loopback, 7, 1));
    try testing.expectEqual(null, try lookup.interfaceTo(.fromIpv4(.{ 192, 0, 2, 1 }), null, 0, 0));
    try testing.expectEqual(null, try lookup.interfaceTo(loopback, .fromIpv4(.{ 192, 0, 2, 1 }), 0, 0));
    // By an interface alone, but not from an address that is not ours, and not by one that is not there.
    try testing.expectEqual(1, try lookup.interfaceTo(.fromIpv4(.{ 192, 0, 2, 1 }), null, 0, 1));
    try testing.expectEqual(null, try lookup.interfaceTo(loopback, .fromIpv4(.{ 192, 0, 2, 1 }), 0, 1));
    try testing.expectEqual(null, try lookup.interfaceTo(loopback, null, 0, 4_000_000));
    try testing.expect(!monitor.drain());
    try sys.TestNamespace.setUp("lo", false);
    try testing.expect(monitor.drain());
    try testing.expect(!monitor.drain());
}

test "a route is there once it was added, and is not added over another" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var lookup: Lookup = try .open();
    defer lookup.close();
    for ([_][]const u8{ "192.0.2.0/24", "fd00:1::/64" }) |text| {
        const network = wire.Prefix.parse(text).?;
        try testing.expectEqual(null, try lookup.interfaceTo(network.address, null, 0, 0));
        add(1, network, 254) catch |err| switch (err) {
            error.PermissionDenied => return error.SkipZigTest, // a kernel without IPv6
            else => return err,
        };
        try testing.expectEqual(1, try lookup.interfaceTo(network.address, null, 0, 0));
        try testing.expectError(error.SystemResources, add(1, network, 254));
        try add(1, network, 1_000_000);
    }
}

test "a rule, or a link whose routes go without a word, is told as a change of routes" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var monitor: Monitor = try .open();
    defer monitor.close();
    for ([_]u8{ linux.AF.INET, linux.AF.INET6 }) |family| {
        const to_table = 1;
        const Rule = extern struct { bytes: [8]u8, flags: u32 = 0 };
        var request: netlink.Request = .init(sys.RTM_NEWRULE, sys.NLM_F_ACK);
        request.putHeader(Rule{ .bytes = .{ family, 0, 0, 0, 100, 0, 0, to_table } });
        var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
        _ = try request.exchange(&buffer);
        try testing.expect(monitor.drain());
        try testing.expect(!monitor.drain());
    }
    var request = sys.Ifreq.init("pywgtest0").?;
    const flags: linux.O = .{ .ACCMODE = .RDWR, .CLOEXEC = true };
    const tun_fd: sys.fd_t = switch (sys.result(linux.open("/dev/net/tun", flags, 0))) {
        .value => |fd| @intCast(fd),
        .failure => return error.SkipZigTest,
    };
    defer sys.close(tun_fd);
    request.value.flags = sys.IFF_TUN | sys.IFF_NO_PI;
    if (linux.errno(linux.ioctl(tun_fd, sys.TUNSETIFF, @intFromPtr(&request))) != .SUCCESS) return error.SkipZigTest;
    link.setMtu("pywgtest0", 1000) catch {}; // no IPv6, whose routes would be told
    try sys.TestNamespace.setUp("pywgtest0", true);
    _ = monitor.drain();
    try sys.TestNamespace.setUp("pywgtest0", false);
    try testing.expect(monitor.drain());
}
