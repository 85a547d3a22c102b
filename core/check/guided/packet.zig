//! TCP and UDP packets as the targets gro and gso make them, and their checksums by plain arithmetic.
//! Knows nothing of the code that it helps to judge.
const std = @import("std");

const writeInt = std.mem.writeInt;

pub const Shape = struct {
    v6: bool,
    tcp: bool,
    /// Last byte of the source address; the flow is also decided by it.
    host: u8 = 1,
    port: u16 = 1000,
    sequence: u32 = 0,
    identification: u16 = 0,
    flags: u8 = ack,
    tos: u8 = 0,
    ttl: u8 = 64,
    dont_fragment: bool = true,
    /// Words of TCP options.
    options: u4 = 0,
    payload_length: u16,

    pub const fin = 1;
    pub const push = 8;
    pub const ack = 16;
    pub const cwr = 128;

    pub fn headerLength(shape: *const Shape) usize {
        return shape.transport() + if (shape.tcp) 20 + @as(usize, shape.options) * 4 else 8;
    }

    pub fn transport(shape: *const Shape) usize {
        return if (shape.v6) 40 else 20;
    }

    /// Where the checksum of the transport lies.
    pub fn checksumAt(shape: *const Shape) usize {
        return shape.transport() + if (shape.tcp) @as(usize, 16) else 6;
    }
};

/// A whole packet at the start of `out`, all checksums right.
pub fn write(out: []u8, shape: Shape) []u8 {
    const start = shape.transport();
    const packet = out[0 .. shape.headerLength() + shape.payload_length];
    @memset(packet[0..shape.headerLength()], 0);
    for (packet[shape.headerLength()..], 0..) |*byte, i| byte.* = @truncate(i *% 7 +% shape.sequence);
    if (shape.v6) writeIpv6(packet, shape) else writeIpv4(packet, shape);
    const header = packet[start..];
    writeInt(u16, header[0..2], shape.port, .big);
    writeInt(u16, header[2..4], 80, .big);
    if (shape.tcp) {
        writeInt(u32, header[4..8], shape.sequence, .big);
        writeInt(u32, header[8..12], 77, .big);
        header[12] = (5 + @as(u8, shape.options)) << 4;
        header[13] = shape.flags;
        writeInt(u16, header[14..16], 500, .big);
        @memset(header[20..][0 .. @as(usize, shape.options) * 4], 1);
    } else writeInt(u16, header[4..6], @intCast(header.len), .big);
    putChecksums(packet, shape);
    return packet;
}

fn writeIpv4(packet: []u8, shape: Shape) void {
    packet[0] = 0x45;
    packet[1] = shape.tos;
    writeInt(u16, packet[2..4], @intCast(packet.len), .big);
    writeInt(u16, packet[4..6], shape.identification, .big);
    packet[6] = if (shape.dont_fragment) 0x40 else 0;
    packet[8] = shape.ttl;
    packet[9] = if (shape.tcp) 6 else 17;
    packet[12..20].* = .{ 10, 0, 0, shape.host, 10, 0, 1, 1 };
}

fn writeIpv6(packet: []u8, shape: Shape) void {
    packet[0] = 0x60 | shape.tos >> 4;
    packet[1] = shape.tos << 4;
    writeInt(u16, packet[4..6], @intCast(packet.len - 40), .big);
    packet[6] = if (shape.tcp) 6 else 17;
    packet[7] = shape.ttl;
    packet[8] = 0xfd;
    packet[23] = shape.host;
    packet[24] = 0xfd;
    packet[39] = 1;
}

fn putChecksums(packet: []u8, shape: Shape) void {
    const at = shape.checksumAt();
    packet[at..][0..2].* = .{ 0, 0 };
    if (!shape.v6) {
        packet[10..12].* = .{ 0, 0 };
        writeInt(u16, packet[10..12], fold(sum(packet[0..20])), .big);
    }
    const value = fold(pseudoSum(packet, shape) + sum(packet[shape.transport()..]));
    writeInt(u16, packet[at..][0..2], if (value == 0 and !shape.tcp) 0xffff else value, .big);
}

/// What the kernel leaves in the field of a superpacket: the sum of the pseudo-header, not complemented.
pub fn putSeed(packet: []u8, shape: Shape) void {
    writeInt(u16, packet[shape.checksumAt()..][0..2], ~fold(pseudoSum(packet, shape)), .big);
}

pub fn isWhole(packet: []const u8, shape: Shape) bool {
    if (!shape.v6 and fold(sum(packet[0..20])) != 0) return false;
    return fold(pseudoSum(packet, shape) + sum(packet[shape.transport()..])) == 0;
}

fn pseudoSum(packet: []const u8, shape: Shape) u64 {
    const addresses = if (shape.v6) packet[8..40] else packet[12..20];
    const protocol: u64 = if (shape.tcp) 6 else 17;
    return sum(addresses) + protocol + (packet.len - shape.transport());
}

/// RFC 1071, two bytes at a time.
pub fn sum(bytes: []const u8) u64 {
    var total: u64 = 0;
    var at: usize = 0;
    while (at + 1 < bytes.len) : (at += 2) total += @as(u64, bytes[at]) * 256 + bytes[at + 1];
    if (at < bytes.len) total += @as(u64, bytes[at]) * 256;
    return total;
}

pub fn fold(total: u64) u16 {
    var rest = total;
    while (rest > 0xffff) rest = (rest & 0xffff) + (rest >> 16);
    return ~@as(u16, @intCast(rest));
}
