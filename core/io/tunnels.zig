//! The UDP tunnels that end on this machine: which port belongs to a VXLAN or Geneve interface. Only what arrives at
//! one may be handed to the kernel as a superpacket of what is inside: a program's socket would get it as one datagram.
//! rtnetlink; no allocation. Knows ports, nothing of packets.
//! Invariant: in doubt a port is nobody's. Then packets pass singly.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const netlink = @import("netlink.zig");

const linux = std.os.linux;
const Kind = wire.udp_tunnel.Kind;

const iff_up = 1;

/// enum in <linux/if_link.h>: attributes inside IFLA_INFO_DATA.
const Attributes = struct {
    port: u16,
    remote6: u16,
    local6: ?u16,
    /// Takes packets of both families (`external`).
    metadata: u16,
    /// Other headers than ours.
    foreign: ?u16,
};

fn attributesOf(kind: Kind) Attributes {
    return switch (kind) {
        .vxlan => .{ .port = 15, .remote6 = 16, .local6 = 17, .metadata = 25, .foreign = 27 },
        .geneve => .{ .port = 5, .remote6 = 7, .local6 = null, .metadata = 6, .foreign = null },
    };
}

pub const Tunnels = struct {
    entries: [entries_max]Entry = undefined,
    count: usize = 0,

    /// Different ports; all tunnels of one kind mostly share one.
    const entries_max = 16;

    pub const Entry = struct { kind: Kind, port: u16, ipv4: bool, ipv6: bool };

    /// Whose tunnel packets of this family to this port belong to.
    pub fn find(tunnels: *const Tunnels, family: wire.Family, port: u16) ?Kind {
        for (tunnels.entries[0..tunnels.count]) |entry| {
            if (entry.port != port) continue;
            return if (switch (family) {
                .ipv4 => entry.ipv4,
                .ipv6 => entry.ipv6,
            }) entry.kind else null;
        }
        return null;
    }

    pub fn clear(tunnels: *Tunnels) void {
        tunnels.count = 0;
    }

    /// Asks the kernel for those of this thread's namespace that are up.
    pub fn refresh(tunnels: *Tunnels) void {
        tunnels.clear();
        for (std.enums.values(Kind)) |kind| {
            const before = tunnels.count;
            tunnels.ask(kind) catch {
                tunnels.count = before;
            };
        }
    }

    fn ask(tunnels: *Tunnels, kind: Kind) netlink.Error!void {
        var request: netlink.Request = .init(sys.RTM_GETLINK, sys.NLM_F_DUMP);
        request.putHeader(linux.ifinfomsg{ .family = 0, .type = 0, .index = 0, .flags = 0, .change = 0 });
        const nest = request.beginNest(sys.IFLA_LINKINFO);
        request.putAttribute(sys.IFLA_INFO_KIND, @tagName(kind));
        request.endNest(nest);
        const socket = try netlink.open(0);
        defer sys.close(socket);
        try request.sendOn(socket);
        var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
        while (true) {
            const length = switch (sys.result(linux.recvfrom(socket, &buffer, buffer.len, 0, null, null))) {
                .value => |length| length,
                .failure => |code| return netlink.errorOf(code),
            };
            var messages: netlink.Iterator = .{ .rest = buffer[0..length] };
            while (messages.next()) |message| switch (message.kind) {
                sys.NLMSG_DONE, sys.NLMSG_ERROR => return,
                sys.RTM_NEWLINK => tunnels.note(message, kind),
                else => {},
            };
        }
    }

    fn note(tunnels: *Tunnels, message: netlink.Message, wanted: Kind) void {
        const tunnel = parse(message) orelse return;
        // Kernels before 4.6 answer with all interfaces.
        if (tunnel.kind != wanted) return;
        for (tunnels.entries[0..tunnels.count]) |*entry| {
            if (entry.port != tunnel.port) continue;
            // One port is one tunnel's: two kinds can share it only by different families, and that is too rare.
            if (entry.kind == tunnel.kind) {
                entry.ipv4 = entry.ipv4 or tunnel.ipv4;
                entry.ipv6 = entry.ipv6 or tunnel.ipv6;
            }
            return;
        }
        if (tunnels.count == entries_max) return;
        tunnels.entries[tunnels.count] = tunnel;
        tunnels.count += 1;
    }
};

/// Whether this message is about an interface of such a kind, whatever it says.
pub fn concerns(message: netlink.Message) bool {
    return message.body.len >= @sizeOf(linux.ifinfomsg) and kindOf(message) != null;
}

fn kindOf(message: netlink.Message) ?Kind {
    const attributes = message.body[@sizeOf(linux.ifinfomsg)..];
    const info = netlink.attribute(attributes, sys.IFLA_LINKINFO) orelse return null;
    const name = netlink.attribute(info, sys.IFLA_INFO_KIND) orelse return null;
    return std.meta.stringToEnum(Kind, std.mem.sliceTo(name, 0));
}

fn parse(message: netlink.Message) ?Tunnels.Entry {
    if (message.body.len < @sizeOf(linux.ifinfomsg)) return null;
    const kind = kindOf(message) orelse return null;
    const info = std.mem.bytesToValue(linux.ifinfomsg, message.body[0..@sizeOf(linux.ifinfomsg)]);
    const attributes = message.body[@sizeOf(linux.ifinfomsg)..];
    if (info.flags & iff_up == 0) return null;
    // It was moved here, and its socket stayed where it was made.
    if (netlink.attribute(attributes, sys.IFLA_LINK_NETNSID) != null) return null;
    const link_info = netlink.attribute(attributes, sys.IFLA_LINKINFO).?;
    const data = netlink.attribute(link_info, sys.IFLA_INFO_DATA) orelse return null;
    const names = attributesOf(kind);
    if (names.foreign) |foreign| if (netlink.attribute(data, foreign) != null) return null;
    const port = netlink.attribute(data, names.port) orelse return null;
    if (port.len != 2) return null;
    const over6 = netlink.attribute(data, names.remote6) != null or
        (names.local6 != null and netlink.attribute(data, names.local6.?) != null);
    // A byte for VXLAN, an attribute without data for Geneve.
    const metadata = netlink.attribute(data, names.metadata);
    const takes_both = if (metadata) |value| value.len == 0 or value[0] != 0 else false;
    return .{
        .kind = kind,
        .port = std.mem.readInt(u16, port[0..2], .big),
        .ipv4 = !over6 or takes_both,
        .ipv6 = over6 or takes_both,
    };
}

const testing = std.testing;

/// A link message with an interface of this kind.
const Sample = struct {
    request: netlink.Request,

    fn init(kind: []const u8, flags: u32, data: []const struct { u16, []const u8 }, outside: ?u16) Sample {
        var sample: Sample = .{ .request = .init(sys.RTM_NEWLINK, 0) };
        const request = &sample.request;
        request.putHeader(linux.ifinfomsg{ .family = 0, .type = 0, .index = 5, .flags = flags, .change = 0 });
        if (outside) |attribute| request.putAttribute(attribute, "\x00\x00\x00\x00");
        const info = request.beginNest(sys.IFLA_LINKINFO);
        request.putAttribute(sys.IFLA_INFO_KIND, kind);
        const nest = request.beginNest(sys.IFLA_INFO_DATA);
        for (data) |each| request.putAttribute(each[0], each[1]);
        request.endNest(nest);
        request.endNest(info);
        return sample;
    }

    fn message(sample: *const Sample) netlink.Message {
        const header = @sizeOf(linux.nlmsghdr);
        return .{ .kind = sys.RTM_NEWLINK, .body = sample.request.buffer[header..sample.request.length] };
    }
};

test "the ports of tunnels that end here are known, and no others" {
    const port = "\x12\xb5";
    const Case = struct { Sample, ?Tunnels.Entry };
    const v4: Tunnels.Entry = .{ .kind = .vxlan, .port = 4789, .ipv4 = true, .ipv6 = false };
    const cases = [_]Case{
        .{ .init("vxlan\x00", iff_up, &.{.{ 15, port }}, null), v4 },
        .{ .init("vxlan\x00", 0, &.{.{ 15, port }}, null), null }, // down: its socket is closed
        .{ .init("vxlan\x00", iff_up, &.{}, null), null },
        .{ .init("vxlan\x00", iff_up, &.{ .{ 15, port }, .{ 27, "" } }, null), null }, // VXLAN-GPE
        .{ .init("vxlan\x00", iff_up, &.{.{ 15, port }}, sys.IFLA_LINK_NETNSID), null }, // its socket is elsewhere
        .{ .init("bridge\x00", iff_up, &.{.{ 15, port }}, null), null },
        .{
            .init("vxlan\x00", iff_up, &.{ .{ 16, &@as([16]u8, @splat(1)) }, .{ 15, port } }, null),
            .{ .kind = .vxlan, .port = 4789, .ipv4 = false, .ipv6 = true },
        },
        .{
            .init("vxlan\x00", iff_up, &.{ .{ 15, port }, .{ 25, "\x01" } }, null),
            .{ .kind = .vxlan, .port = 4789, .ipv4 = true, .ipv6 = true },
        },
        .{ .init("vxlan\x00", iff_up, &.{ .{ 15, port }, .{ 25, "\x00" } }, null), v4 },
        .{
            .init("geneve\x00", iff_up, &.{ .{ 5, "\x17\xc1" }, .{ 6, "" } }, null),
            .{ .kind = .geneve, .port = 6081, .ipv4 = true, .ipv6 = true },
        },
        .{
            .init("geneve\x00", iff_up, &.{ .{ 5, "\x17\xc1" }, .{ 7, &@as([16]u8, @splat(1)) } }, null),
            .{ .kind = .geneve, .port = 6081, .ipv4 = false, .ipv6 = true },
        },
    };
    for (&cases, 0..) |*case, i| {
        errdefer std.debug.print("case {d}\n", .{i});
        try testing.expectEqual(case[1], parse(case[0].message()));
        try testing.expectEqual(i != 5, concerns(case[0].message()));
    }
    var tunnels: Tunnels = .{};
    for (&cases) |*case| for (std.enums.values(Kind)) |kind| tunnels.note(case[0].message(), kind);
    try testing.expectEqual(2, tunnels.count); // one for each port
    try testing.expectEqual(.vxlan, tunnels.find(.ipv6, 4789));
    try testing.expectEqual(.geneve, tunnels.find(.ipv4, 6081));
    try testing.expectEqual(null, tunnels.find(.ipv4, 4790));
}

test "a namespace without tunnels has none" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var tunnels: Tunnels = .{ .count = 1 };
    tunnels.refresh();
    try testing.expectEqual(0, tunnels.count);
}
