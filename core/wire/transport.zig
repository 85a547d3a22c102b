//! TCP (RFC 9293) and UDP (RFC 768) headers as views on bytes. Nothing is copied.
//! Knows field positions, not state: used by segmenting and coalescing.
//! Invariant: a view's bytes hold the whole header, options included.
const std = @import("std");
const readInt = std.mem.readInt;

pub const TcpFlags = struct {
    pub const fin: u8 = 0x01;
    pub const syn: u8 = 0x02;
    pub const rst: u8 = 0x04;
    pub const psh: u8 = 0x08;
    pub const ack: u8 = 0x10;
    pub const urg: u8 = 0x20;
    pub const ece: u8 = 0x40;
    pub const cwr: u8 = 0x80;
};

pub const Tcp = struct {
    bytes: []const u8,

    pub const header_length_min = 20;
    pub const header_length_max = 60;
    pub const sequence_offset = 4;
    pub const flags_offset = 13;
    pub const checksum_offset = 16;

    /// Null when the bytes do not hold the header they announce.
    pub fn parse(bytes: []const u8) ?Tcp {
        if (bytes.len < header_length_min) return null;
        const tcp: Tcp = .{ .bytes = bytes };
        if (tcp.headerLength() < header_length_min or tcp.headerLength() > bytes.len) return null;
        return tcp;
    }

    pub fn sourcePort(tcp: Tcp) u16 {
        return readInt(u16, tcp.bytes[0..2], .big);
    }

    pub fn destinationPort(tcp: Tcp) u16 {
        return readInt(u16, tcp.bytes[2..4], .big);
    }

    pub fn sequence(tcp: Tcp) u32 {
        return readInt(u32, tcp.bytes[4..8], .big);
    }

    pub fn acknowledgment(tcp: Tcp) u32 {
        return readInt(u32, tcp.bytes[8..12], .big);
    }

    /// The data offset field, in bytes.
    pub fn headerLength(tcp: Tcp) usize {
        return @as(usize, tcp.bytes[12] >> 4) * 4;
    }

    /// The four bits between data offset and flags; the lowest is the old NS, now AE.
    pub fn reserved(tcp: Tcp) u4 {
        return @truncate(tcp.bytes[12]);
    }

    pub fn flags(tcp: Tcp) u8 {
        return tcp.bytes[flags_offset];
    }

    pub fn window(tcp: Tcp) u16 {
        return readInt(u16, tcp.bytes[14..16], .big);
    }

    pub fn checksum(tcp: Tcp) u16 {
        return readInt(u16, tcp.bytes[16..18], .big);
    }

    pub fn urgentPointer(tcp: Tcp) u16 {
        return readInt(u16, tcp.bytes[18..20], .big);
    }

    pub fn options(tcp: Tcp) []const u8 {
        return tcp.bytes[header_length_min..tcp.headerLength()];
    }

    pub fn payload(tcp: Tcp) []const u8 {
        return tcp.bytes[tcp.headerLength()..];
    }
};

pub const Udp = struct {
    bytes: []const u8,

    pub const header_length = 8;
    pub const length_offset = 4;
    pub const checksum_offset = 6;

    /// Null when the bytes do not hold a header; the length field is the caller's to judge.
    pub fn parse(bytes: []const u8) ?Udp {
        return if (bytes.len < header_length) null else .{ .bytes = bytes };
    }

    pub fn sourcePort(udp: Udp) u16 {
        return readInt(u16, udp.bytes[0..2], .big);
    }

    pub fn destinationPort(udp: Udp) u16 {
        return readInt(u16, udp.bytes[2..4], .big);
    }

    /// Header and payload together, as the field says.
    pub fn length(udp: Udp) u16 {
        return readInt(u16, udp.bytes[4..6], .big);
    }

    /// Zero means none was computed, which only IPv4 allows.
    pub fn checksum(udp: Udp) u16 {
        return readInt(u16, udp.bytes[6..8], .big);
    }

    pub fn payload(udp: Udp) []const u8 {
        return udp.bytes[header_length..];
    }
};

const testing = std.testing;

test "a TCP header is read field by field" {
    const bytes = [_]u8{
        0x12, 0x34, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x61, 0x18, 0xff, 0xfe, 0xab, 0xcd, 0, 9, 1, 1, 1, 0, 'h', 'i',
    };
    const tcp = Tcp.parse(&bytes).?;
    try testing.expectEqual(0x1234, tcp.sourcePort());
    try testing.expectEqual(80, tcp.destinationPort());
    try testing.expectEqual(0x01020304, tcp.sequence());
    try testing.expectEqual(0x05060708, tcp.acknowledgment());
    try testing.expectEqual(24, tcp.headerLength());
    try testing.expectEqual(1, tcp.reserved());
    try testing.expectEqual(TcpFlags.ack | TcpFlags.psh, tcp.flags());
    try testing.expectEqual(0xfffe, tcp.window());
    try testing.expectEqual(0xabcd, tcp.checksum());
    try testing.expectEqual(9, tcp.urgentPointer());
    try testing.expectEqualSlices(u8, &.{ 1, 1, 1, 0 }, tcp.options());
    try testing.expectEqualStrings("hi", tcp.payload());
}

test "TCP headers that do not fit are refused" {
    var bytes: [60]u8 = @splat(0);
    for (0..16) |offset| for (0..bytes.len + 1) |size| {
        bytes[12] = @intCast(offset << 4);
        const fits = size >= 20 and offset >= 5 and offset * 4 <= size;
        try testing.expectEqual(fits, Tcp.parse(bytes[0..size]) != null);
    };
}

test "a UDP header is read field by field" {
    const bytes = [_]u8{ 0, 53, 0xca, 0x6c, 0, 10, 0xbe, 0xef, 'o', 'k' };
    const udp = Udp.parse(&bytes).?;
    try testing.expectEqual(53, udp.sourcePort());
    try testing.expectEqual(51820, udp.destinationPort());
    try testing.expectEqual(10, udp.length());
    try testing.expectEqual(0xbeef, udp.checksum());
    try testing.expectEqualStrings("ok", udp.payload());
    try testing.expectEqual(null, Udp.parse(bytes[0..7]));
}
