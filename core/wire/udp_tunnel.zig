//! Ethernet frames inside UDP: VXLAN (RFC 7348) and Geneve (RFC 8926), as far as it takes to find the IP packet in one.
//! Knows headers as bytes; which port is whose is the caller's to know. Nothing is copied.
const std = @import("std");
const address = @import("address.zig");
const Family = address.Family;
const readInt = std.mem.readInt;

pub const Kind = enum { vxlan, geneve };

pub const Inner = struct {
    family: Family,
    /// Where its IP header begins, from the end of the UDP header.
    offset: usize,
};

const ethernet_length = 14;
const header_length = 8;
/// VXLAN: the network identifier is valid; and a mark of the group policy extension, which only adds to it.
const vxlan_valid: u8 = 0x08;
const vxlan_group_policy: u8 = 0x80;
/// Geneve: a message of the tunnel itself.
const geneve_control: u8 = 0x80;
const geneve_ethernet: u16 = 0x6558;

/// The IP packet in what a UDP datagram carries. Null for all else, for VLANs and for what the tunnel says to itself.
pub fn inner(kind: Kind, payload: []const u8) ?Inner {
    if (payload.len < header_length) return null;
    const length: usize = switch (kind) {
        .vxlan => blk: {
            if (payload[0] & ~vxlan_group_policy != vxlan_valid) return null;
            break :blk header_length;
        },
        .geneve => blk: {
            if (payload[0] >> 6 != 0 or payload[1] & geneve_control != 0) return null;
            if (readInt(u16, payload[2..4], .big) != geneve_ethernet) return null;
            break :blk header_length + @as(usize, payload[0] & 0x3f) * 4;
        },
    };
    const offset = length + ethernet_length;
    if (payload.len < offset) return null;
    const family: Family = switch (readInt(u16, payload[offset - 2 ..][0..2], .big)) {
        0x0800 => .ipv4,
        0x86dd => .ipv6,
        else => return null,
    };
    return .{ .family = family, .offset = offset };
}

const testing = std.testing;

test "the packet in a frame is found behind either header" {
    const frame = "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02".*;
    const vxlan = "\x08\x00\x00\x00\x00\x00\x07\x00".* ++ frame ++ "\x08\x00".*;
    try testing.expectEqual(Inner{ .family = .ipv4, .offset = 22 }, inner(.vxlan, &vxlan).?);
    const geneve = "\x02\x00\x65\x58\x00\x00\x07\x00".* ++ "12345678".* ++ frame ++ "\x86\xdd".*;
    try testing.expectEqual(Inner{ .family = .ipv6, .offset = 30 }, inner(.geneve, &geneve).?);
    try testing.expectEqual(null, inner(.vxlan, &geneve));
    try testing.expectEqual(null, inner(.geneve, &vxlan));
    for (0..vxlan.len) |length| try testing.expectEqual(null, inner(.vxlan, vxlan[0..length]));
    for (0..geneve.len) |length| try testing.expectEqual(null, inner(.geneve, geneve[0..length]));
}

test "what is no frame with an IP packet is none" {
    const good = "\x08\x00\x00\x00\x00\x00\x07\x00".* ++ @as([12]u8, @splat(2)) ++ "\x08\x00".*;
    for ([_]struct { at: usize, value: u8 }{
        .{ .at = 0, .value = 0 }, // no network identifier
        .{ .at = 0, .value = 0x0c }, // another protocol (VXLAN-GPE)
        .{ .at = 0, .value = 0x28 }, // checksums left to the receiver
        .{ .at = 20, .value = 0x81 }, // a VLAN
        .{ .at = 21, .value = 6 }, // ARP
    }) |change| {
        var bytes = good;
        bytes[change.at] = change.value;
        try testing.expectEqual(null, inner(.vxlan, &bytes));
    }
    const control = "\x00\x80\x65\x58\x00\x00\x07\x00".* ++ @as([12]u8, @splat(2)) ++ "\x08\x00".*;
    try testing.expectEqual(null, inner(.geneve, &control));
    try testing.expect(inner(.geneve, "\x00\x00".* ++ control[2..]) != null);
}
