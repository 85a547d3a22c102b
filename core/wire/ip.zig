//! IPv4 and IPv6 headers as views on a packet's bytes (RFC 791, RFC 8200), and ECN across a tunnel (RFC 6040).
//! Nothing is copied. Knows the network layer and the way past extension headers, nothing above.
//! Invariant: a Packet's bytes hold its whole header and are exactly as long as the header says.
const std = @import("std");
const address = @import("address.zig");
const checksum = @import("checksum.zig");
const Address = address.Address;
const Family = address.Family;
const readInt = std.mem.readInt;
const writeInt = std.mem.writeInt;

pub const ipv4_header_length_min = 20;
pub const ipv6_header_length = 40;

pub const Protocol = enum(u8) {
    hop_by_hop = 0,
    icmp = 1,
    tcp = 6,
    udp = 17,
    routing = 43,
    fragment = 44,
    authentication = 51,
    icmpv6 = 58,
    destination_options = 60,
    mobility = 135,
    host_identity = 139,
    shim6 = 140,
    _,
};

/// Version nibble of the first byte, of packets that may hold nothing else that is right.
pub fn version(bytes: []const u8) ?Family {
    if (bytes.len == 0) return null;
    return switch (bytes[0] >> 4) {
        4 => .ipv4,
        6 => .ipv6,
        else => null,
    };
}

/// IPv4 TOS or IPv6 traffic class of bytes whose version nibble was checked; lengths are not looked at.
pub fn trafficClassOf(bytes: []const u8) u8 {
    const word = readInt(u16, bytes[0..2], .big);
    return @truncate(if (bytes[0] >> 4 == 4) word else word >> 4);
}

pub const Packet = struct {
    family: Family,
    /// The packet without what followed it: a tunnel delivers this, its padding removed.
    bytes: []const u8,

    /// Null when the bytes are no IP packet or when the length inside claims more than there is.
    pub fn parse(bytes: []const u8) ?Packet {
        const family = version(bytes) orelse return null;
        const length = switch (family) {
            .ipv4 => ipv4Length(bytes) orelse return null,
            .ipv6 => ipv6Length(bytes) orelse return null,
        };
        if (length > bytes.len) return null;
        return .{ .family = family, .bytes = bytes[0..length] };
    }

    pub fn headerLength(packet: Packet) usize {
        return switch (packet.family) {
            .ipv4 => ipv4HeaderLength(packet.bytes),
            .ipv6 => ipv6_header_length,
        };
    }

    /// Source and destination side by side, as a pseudo-header wants them.
    pub fn addresses(packet: Packet) []const u8 {
        return switch (packet.family) {
            .ipv4 => packet.bytes[12..20],
            .ipv6 => packet.bytes[8..40],
        };
    }

    pub fn sourceBytes(packet: Packet) []const u8 {
        return packet.addresses()[0..packet.family.byteLength()];
    }

    pub fn destinationBytes(packet: Packet) []const u8 {
        return packet.addresses()[packet.family.byteLength()..];
    }

    pub fn source(packet: Packet) Address {
        return switch (packet.family) {
            .ipv4 => Address.fromIpv4(packet.bytes[12..16].*),
            .ipv6 => Address.fromIpv6(packet.bytes[8..24].*),
        };
    }

    pub fn destination(packet: Packet) Address {
        return switch (packet.family) {
            .ipv4 => Address.fromIpv4(packet.bytes[16..20].*),
            .ipv6 => Address.fromIpv6(packet.bytes[24..40].*),
        };
    }

    /// IPv4 protocol, or IPv6 next header, which may be an extension header: see `upper`.
    pub fn protocol(packet: Packet) Protocol {
        return @fromBackingInt(switch (packet.family) {
            .ipv4 => packet.bytes[9],
            .ipv6 => packet.bytes[6],
        });
    }

    /// TTL or hop limit.
    pub fn timeToLive(packet: Packet) u8 {
        return switch (packet.family) {
            .ipv4 => packet.bytes[8],
            .ipv6 => packet.bytes[7],
        };
    }

    /// IPv4 TOS or IPv6 traffic class; its low two bits are the ECN field.
    pub fn trafficClass(packet: Packet) u8 {
        return trafficClassOf(packet.bytes);
    }

    /// Zero for IPv4.
    pub fn flowLabel(packet: Packet) u20 {
        return switch (packet.family) {
            .ipv4 => 0,
            .ipv6 => @truncate(readInt(u32, packet.bytes[0..4], .big)),
        };
    }

    /// IPv4 identification; zero for IPv6.
    pub fn identification(packet: Packet) u16 {
        return switch (packet.family) {
            .ipv4 => readInt(u16, packet.bytes[4..6], .big),
            .ipv6 => 0,
        };
    }

    /// True for IPv6, whose routers never fragment.
    pub fn dontFragment(packet: Packet) bool {
        return switch (packet.family) {
            .ipv4 => packet.bytes[6] & 0x40 != 0,
            .ipv6 => true,
        };
    }

    /// What follows the IP header and its extensions.
    pub const Upper = struct {
        protocol: Protocol,
        /// Where the upper layer's header begins.
        offset: usize,
        fragmented: bool,
        /// In units of eight bytes; beyond zero there is no upper header to read.
        fragment_offset: u16,
    };

    /// Null when an extension header is cut short.
    pub fn upper(packet: Packet) ?Upper {
        return switch (packet.family) {
            .ipv4 => {
                const fragment = readInt(u16, packet.bytes[6..8], .big);
                return .{
                    .protocol = packet.protocol(),
                    .offset = packet.headerLength(),
                    .fragmented = fragment & 0x3fff != 0,
                    .fragment_offset = fragment & 0x1fff,
                };
            },
            .ipv6 => ipv6Upper(packet.bytes),
        };
    }
};

fn ipv4HeaderLength(bytes: []const u8) usize {
    return @as(usize, bytes[0] & 0x0f) * 4;
}

fn ipv4Length(bytes: []const u8) ?usize {
    if (bytes.len < ipv4_header_length_min) return null;
    const header_length = ipv4HeaderLength(bytes);
    const length: usize = readInt(u16, bytes[2..4], .big);
    if (header_length < ipv4_header_length_min or length < header_length) return null;
    return length;
}

fn ipv6Length(bytes: []const u8) ?usize {
    if (bytes.len < ipv6_header_length) return null;
    // In 16 bits this sum would wrap and cut a packet to nothing.
    return @as(usize, readInt(u16, bytes[4..6], .big)) + ipv6_header_length;
}

fn ipv6Upper(bytes: []const u8) ?Packet.Upper {
    var result: Packet.Upper = .{
        .protocol = @fromBackingInt(bytes[6]),
        .offset = ipv6_header_length,
        .fragmented = false,
        .fragment_offset = 0,
    };
    // Each turn moves on by eight bytes or more, so the packet's length bounds the walk.
    while (result.fragment_offset == 0) {
        const rest = bytes[result.offset..];
        const length: usize = switch (result.protocol) {
            .hop_by_hop, .routing, .destination_options, .mobility, .host_identity, .shim6 => if (rest.len < 8)
                return null
            else
                (@as(usize, rest[1]) + 1) * 8,
            .authentication => if (rest.len < 8) return null else (@as(usize, rest[1]) + 2) * 4,
            .fragment => if (rest.len < 8) return null else 8,
            else => return result,
        };
        if (length > rest.len) return null;
        if (result.protocol == .fragment) {
            result.fragmented = true;
            result.fragment_offset = readInt(u16, rest[2..4], .big) >> 3;
        }
        result.protocol = @fromBackingInt(rest[0]);
        result.offset += length;
    }
    return result;
}

/// What follows the UDP header of a packet or of its first fragment; null for all else. Lengths inside are not looked
/// at.
pub fn udpPayload(bytes: []const u8) ?[]const u8 {
    const udp_header = 8;
    const offset = switch (version(bytes) orelse return null) {
        .ipv4 => blk: {
            if (bytes.len < ipv4_header_length_min or bytes[9] != @backingInt(Protocol.udp)) return null;
            if (readInt(u16, bytes[6..8], .big) & 0x1fff != 0) return null;
            break :blk ipv4HeaderLength(bytes);
        },
        .ipv6 => blk: {
            if (bytes.len < ipv6_header_length) return null;
            const found = ipv6Upper(bytes) orelse return null;
            if (found.protocol != .udp or found.fragment_offset != 0) return null;
            break :blk found.offset;
        },
    };
    return if (offset + udp_header <= bytes.len) bytes[offset + udp_header ..] else null;
}

/// To a multicast group or to all hosts of a link. Of a packet with its whole header.
pub fn isToGroup(bytes: []const u8) bool {
    return switch (version(bytes) orelse return false) {
        .ipv4 => bytes[16] & 0xf0 == 0xe0 or std.mem.allEqual(u8, bytes[16..20], 0xff),
        .ipv6 => bytes[24] == 0xff,
    };
}

/// Writes the length of the whole packet into its header, and IPv4's header checksum anew.
pub fn setLength(packet: []u8, family: Family, length: usize) void {
    switch (family) {
        .ipv4 => {
            writeInt(u16, packet[2..4], @intCast(length), .big);
            writeInt(u16, packet[10..12], 0, .big);
            const header = packet[0..ipv4HeaderLength(packet)];
            writeInt(u16, packet[10..12], checksum.finish(checksum.sum(header, 0)), .big);
        },
        .ipv6 => writeInt(u16, packet[4..6], @intCast(length - ipv6_header_length), .big),
    }
}

/// The four codepoints of RFC 3168.
pub const Ecn = struct {
    pub const not_ect: u2 = 0;
    pub const ect_1: u2 = 1;
    pub const ect_0: u2 = 2;
    pub const ce: u2 = 3;
};

/// ECN field of the outer header, RFC 6040 normal mode: a copy of the inner one.
pub fn ecnEncapsulate(inner_tos: u8) u2 {
    return @truncate(inner_tos);
}

/// Brings the outer header's ECN field into the inner packet, by the table of RFC 6040 section 4.2.
/// An outer CE over an inner Not-ECT leaves the packet as it is: the kernel's WireGuard does not drop it.
pub fn ecnDecapsulate(packet: []u8, outer_ecn: u2) void {
    const parsed = Packet.parse(packet) orelse return;
    const inner_ecn: u2 = @truncate(parsed.trafficClass());
    const result = ecnCombine(inner_ecn, outer_ecn);
    if (result == inner_ecn) return;
    switch (parsed.family) {
        .ipv4 => {
            const old = readInt(u16, packet[0..2], .big);
            packet[1] = packet[1] & 0xfc | result;
            const new = readInt(u16, packet[0..2], .big);
            const header_checksum = readInt(u16, packet[10..12], .big);
            writeInt(u16, packet[10..12], checksum.update(header_checksum, old, new), .big);
        },
        // The traffic class straddles the first two bytes; its ECN bits are the middle of the second.
        .ipv6 => packet[1] = packet[1] & 0xcf | @as(u8, result) << 4,
    }
}

fn ecnCombine(inner: u2, outer: u2) u2 {
    if (inner == Ecn.not_ect) return inner;
    if (outer == Ecn.ce) return Ecn.ce;
    if (outer == Ecn.ect_1 and inner == Ecn.ect_0) return Ecn.ect_1;
    return inner;
}

const testing = std.testing;

fn sampleIpv4(tos: u8, length: u16) [64]u8 {
    var bytes: [64]u8 = @splat(0x5a);
    bytes[0..20].* = .{ 0x45, tos, 0, 0, 0x12, 0x34, 0x40, 0, 63, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2 };
    setLength(&bytes, .ipv4, length);
    return bytes;
}

fn sampleIpv6(class: u8, length: usize) [64]u8 {
    var bytes: [64]u8 = @splat(0x5a);
    bytes[0..8].* = .{ 0x60 | class >> 4, class << 4 | 0xa, 0xbc, 0xde, 0, 0, 59, 7 };
    for (bytes[8..40], 0..) |*byte, i| byte.* = @intCast(i);
    setLength(&bytes, .ipv6, length);
    return bytes;
}

test "views read every field" {
    const v4 = sampleIpv4(0xb9, 48);
    const four = Packet.parse(&v4).?;
    try testing.expectEqual(48, four.bytes.len);
    try testing.expectEqual(20, four.headerLength());
    try testing.expectEqual(Protocol.udp, four.protocol());
    try testing.expectEqual(0xb9, four.trafficClass());
    try testing.expectEqual(63, four.timeToLive());
    try testing.expectEqual(0x1234, four.identification());
    try testing.expect(four.dontFragment() and !four.upper().?.fragmented);
    try testing.expect(four.source().eql(Address.parse("10.0.0.1").?));
    try testing.expect(four.destination().eql(Address.parse("10.0.0.2").?));
    try testing.expectEqualSlices(u8, &.{ 10, 0, 0, 1 }, four.sourceBytes());
    try testing.expectEqualSlices(u8, &.{ 10, 0, 0, 2 }, four.destinationBytes());
    try testing.expectEqual(0xffff, checksum.fold(checksum.sum(v4[0..20], 0)));

    const v6 = sampleIpv6(0xb9, 50);
    const six = Packet.parse(&v6).?;
    try testing.expectEqual(50, six.bytes.len);
    try testing.expectEqual(0xb9, six.trafficClass());
    try testing.expectEqual(0xabcde, six.flowLabel());
    try testing.expectEqual(7, six.timeToLive());
    try testing.expect(six.source().eql(Address.parse("1:203:405:607:809:a0b:c0d:e0f").?));
    try testing.expectEqualSlices(u8, v6[24..40], six.destinationBytes());
}

test "the payload of UDP is found behind options and a fragment header, in a first fragment only" {
    var v4 = sampleIpv4(0, 64);
    try testing.expectEqual(64 - 28, udpPayload(&v4).?.len);
    v4[0] = 0x46;
    try testing.expectEqual(64 - 32, udpPayload(&v4).?.len);
    v4[6] = 0x20; // more fragments
    try testing.expectEqual(64 - 32, udpPayload(&v4).?.len);
    v4[7] = 1;
    try testing.expectEqual(null, udpPayload(&v4));
    v4[6..8].* = .{ 0, 0 };
    v4[9] = @backingInt(Protocol.tcp);
    try testing.expectEqual(null, udpPayload(&v4));

    var v6 = sampleIpv6(0, 64);
    try testing.expectEqual(null, udpPayload(&v6));
    v6[6] = @backingInt(Protocol.udp);
    try testing.expectEqual(64 - 48, udpPayload(&v6).?.len);
    v6[6] = @backingInt(Protocol.fragment);
    v6[40..48].* = .{ @backingInt(Protocol.udp), 0, 0, 1, 0, 0, 0, 9 };
    try testing.expectEqual(64 - 56, udpPayload(&v6).?.len);
    v6[43] = 9;
    try testing.expectEqual(null, udpPayload(&v6));
    for (0..64) |length| {
        _ = udpPayload(v4[0..length]);
        _ = udpPayload(v6[0..length]);
    }
}

test "lengths that lie are refused for every length field and size" {
    var v4 = sampleIpv4(0, 64);
    var v6 = sampleIpv6(0, 64);
    var field: u32 = 0;
    while (field <= 0xffff) : (field += 1) {
        writeInt(u16, v4[2..4], @intCast(field), .big);
        writeInt(u16, v6[4..6], @intCast(field), .big);
        for (0..v4.len + 1) |size| {
            const four = Packet.parse(v4[0..size]);
            try testing.expectEqual(size >= 20 and field >= 20 and field <= size, four != null);
            if (four) |packet| try testing.expectEqual(field, packet.bytes.len);
            const six = Packet.parse(v6[0..size]);
            try testing.expectEqual(size >= 40 and field + 40 <= size, six != null);
            if (six) |packet| try testing.expectEqual(field + 40, packet.bytes.len);
        }
    }
}

test "small packets of every first byte are judged without reading past them" {
    var bytes: [64]u8 = @splat(0);
    writeInt(u16, bytes[2..4], 60, .big);
    for (0..256) |first| for (0..61) |size| {
        bytes[0] = @intCast(first);
        const parsed = Packet.parse(bytes[0..size]);
        const four = first >> 4 == 4 and first & 15 >= 5 and size >= 60;
        const six = first >> 4 == 6 and size >= 40;
        try testing.expectEqual(four or six, parsed != null);
        if (parsed) |packet| _ = packet.upper();
    };
}

test "the walk past extension headers finds the upper layer or a fragment" {
    var bytes: [96]u8 = @splat(0);
    bytes[0] = 0x60;
    setLength(&bytes, .ipv6, bytes.len);
    bytes[6] = 0; // hop-by-hop, 16 bytes
    bytes[40..42].* = .{ 44, 1 };
    bytes[56..60].* = .{ 17, 0, 0, 1 }; // first fragment, more to come
    const first = Packet.parse(&bytes).?.upper().?;
    try testing.expectEqual(
        Packet.Upper{ .protocol = .udp, .offset = 64, .fragmented = true, .fragment_offset = 0 },
        first,
    );
    writeInt(u16, bytes[58..60], 5 << 3, .big);
    try testing.expectEqual(5, Packet.parse(&bytes).?.upper().?.fragment_offset);
    bytes[41] = 7; // claims 64 bytes of 56
    try testing.expectEqual(null, Packet.parse(&bytes).?.upper());
}

test "ECN crosses the tunnel by the table of RFC 6040" {
    const not, const one, const zero, const ce = .{ Ecn.not_ect, Ecn.ect_1, Ecn.ect_0, Ecn.ce };
    const inners = [4]u2{ not, zero, one, ce };
    const outers = [4]u2{ not, zero, one, ce };
    const table = [4][4]u2{
        .{ not, not, not, not },
        .{ zero, zero, one, ce },
        .{ one, one, one, ce },
        .{ ce, ce, ce, ce },
    };
    for (inners, table) |inner, row| for (outers, row) |outer, expected| {
        var v4 = sampleIpv4(0xb8 | @as(u8, inner), 48);
        ecnDecapsulate(&v4, outer);
        try testing.expectEqualSlices(u8, &sampleIpv4(0xb8 | @as(u8, expected), 48), &v4);
        var v6 = sampleIpv6(0xb8 | @as(u8, inner), 48);
        ecnDecapsulate(&v6, outer);
        try testing.expectEqualSlices(u8, &sampleIpv6(0xb8 | @as(u8, expected), 48), &v6);
        try testing.expectEqual(inner, ecnEncapsulate(0xb8 | @as(u8, inner)));
    };
}

test "ECN leaves what is no IP packet alone" {
    var bytes = [_]u8{ 0x45, 2, 0, 60 };
    ecnDecapsulate(&bytes, Ecn.ce);
    try testing.expectEqualSlices(u8, &.{ 0x45, 2, 0, 60 }, &bytes);
    ecnDecapsulate(&.{}, Ecn.ce);
}
