//! Segmentation: one superpacket read from TUN becomes packets of the size its sender asked for.
//! Pure bytes in, bytes out; follows what the kernel's tcp_gso_segment, __udp_gso_segment, inet_gso_segment and, for
//! what is inside VXLAN and Geneve, __skb_udp_tunnel_segment do. Which tunnel it is does not matter: its headers are
//! copied.
//! Knows no TUN and no buffers. Invariant: every segment but the last has the same length, and each carries
//! complete lengths and checksums.
const std = @import("std");
const wire = @import("wire");
const VnetHeader = @import("vnet_header.zig").VnetHeader;
const assert = @import("wire").assert;
const checksum = wire.checksum;
const ip = wire.ip;
const Tcp = wire.transport.Tcp;
const TcpFlags = wire.transport.TcpFlags;
const Udp = wire.transport.Udp;
const readInt = std.mem.readInt;
const writeInt = std.mem.writeInt;

pub const Splitter = struct {
    packet: []const u8,
    kind: Kind,
    /// Packets this superpacket stands for; at least one.
    count: u32,
    family: wire.Family = .ipv4,
    /// Where the transport header begins, or the bytes that a plain packet's checksum covers.
    transport_offset: usize = 0,
    /// Where the checksum field lies in the packet.
    checksum_at: usize = 0,
    /// Every segment begins with a copy of this much.
    header_length: usize = 0,
    segment_size: usize = 0,
    /// The pseudo-header's sum without the length, which differs in the last segment.
    pseudo_sum: u64 = 0,
    /// Sums of the IPv4 header and, with the pseudo-header, of the transport header, without what differs in segments:
    /// to read back what was written a moment ago is dearer than to add what is known.
    network_sum: u64 = 0,
    header_sum: u64 = 0,
    /// Where the IP header of what is segmented begins: behind the headers of a tunnel, if there is one.
    network_offset: usize = 0,
    tunnel: ?Tunnel = null,
    /// What sums the payloads.
    loops: checksum.Loops = .{},

    const Kind = enum {
        /// Complete as it is.
        plain,
        /// One packet whose checksum field holds only the pseudo-header's sum.
        partial,
        tcp,
        udp,
    };

    /// The packet that carries the one to be segmented.
    const Tunnel = struct {
        family: wire.Family,
        /// Where its UDP header begins.
        udp_offset: usize,
        /// Of its pseudo-header, without the length; null when its checksum is zero and stays so.
        pseudo_sum: ?u64,
    };

    /// Judges header and packet. The packet's bytes must stay as they are until the last write.
    pub fn init(header: VnetHeader, packet: []const u8) error{Malformed}!Splitter {
        if (header.gso_type & VnetHeader.GSO_UDP_TUNNEL != 0) return initTunnel(header, packet);
        const ecn = header.gso_type & VnetHeader.GSO_ECN != 0;
        return switch (header.gso_type & ~@as(u8, VnetHeader.GSO_ECN)) {
            VnetHeader.GSO_NONE => if (ecn) error.Malformed else initSingle(header, packet),
            else => initSuper(header, packet, 0),
        };
    }

    fn initTunnel(header: VnetHeader, bytes: []const u8) error{Malformed}!Splitter {
        const family: wire.Family = switch (header.gso_type & VnetHeader.GSO_UDP_TUNNEL) {
            VnetHeader.GSO_UDP_TUNNEL_IPV4 => .ipv4,
            VnetHeader.GSO_UDP_TUNNEL_IPV6 => .ipv6,
            else => return error.Malformed,
        };
        const outer = ip.Packet.parse(bytes) orelse return error.Malformed;
        if (outer.family != family) return error.Malformed;
        const upper = outer.upper() orelse return error.Malformed;
        if (upper.fragmented or upper.protocol != .udp) return error.Malformed;
        if (upper.offset != header.outer_transport) return error.Malformed;
        if (header.inner_network < upper.offset + Udp.header_length) return error.Malformed;
        if (header.inner_network > outer.bytes.len) return error.Malformed;
        // Behind a routing header the final destination is not known here, and no tunnel makes such packets.
        if (upper.offset != outer.headerLength()) return error.Malformed;
        var inner = header;
        inner.gso_type &= ~@as(u8, VnetHeader.GSO_UDP_TUNNEL);
        var splitter = try initSuper(inner, outer.bytes, header.inner_network);
        const has_checksum = header.flags & VnetHeader.UDP_TUNNEL_CSUM != 0;
        splitter.tunnel = .{
            .family = family,
            .udp_offset = upper.offset,
            .pseudo_sum = if (has_checksum)
                checksum.pseudoHeader(outer.addresses(), @backingInt(ip.Protocol.udp), 0)
            else
                null,
        };
        return splitter;
    }

    fn initSingle(header: VnetHeader, packet: []const u8) error{Malformed}!Splitter {
        if (header.flags & VnetHeader.NEEDS_CSUM == 0) return .{ .packet = packet, .kind = .plain, .count = 1 };
        const checksum_at = @as(usize, header.csum_start) + header.csum_offset;
        if (checksum_at + 2 > packet.len) return error.Malformed;
        return .{
            .packet = packet,
            .kind = .partial,
            .count = 1,
            .transport_offset = header.csum_start,
            .checksum_at = checksum_at,
        };
    }

    /// Begins at `network` with an IP header; what is before it is a tunnel's, and copied.
    fn initSuper(header: VnetHeader, whole: []const u8, network: usize) error{Malformed}!Splitter {
        const ecn = header.gso_type & VnetHeader.GSO_ECN != 0;
        const kind: Kind, const family: ?wire.Family = switch (header.gso_type & ~@as(u8, VnetHeader.GSO_ECN)) {
            VnetHeader.GSO_TCPV4 => .{ .tcp, .ipv4 },
            VnetHeader.GSO_TCPV6 => .{ .tcp, .ipv6 },
            VnetHeader.GSO_UDP_L4 => if (ecn) return error.Malformed else .{ .udp, null },
            else => return error.Malformed,
        };
        const parsed = ip.Packet.parse(whole[network..]) orelse return error.Malformed;
        if (family != null and family.? != parsed.family) return error.Malformed;
        // A tunnel's packet ends where the one inside does.
        if (network != 0 and network + parsed.bytes.len != whole.len) return error.Malformed;
        const upper = parsed.upper() orelse return error.Malformed;
        if (upper.fragmented or upper.protocol != protocolOf(kind)) return error.Malformed;
        const field_offset: usize = switch (kind) {
            .tcp => Tcp.checksum_offset,
            .udp => Udp.checksum_offset,
            .plain, .partial => unreachable,
        };
        const partial = header.flags & VnetHeader.NEEDS_CSUM != 0;
        // Without NEEDS_CSUM (a forwarded packet whose checksum the hardware vouched for) the two are unset.
        const says_so = header.csum_start == network + upper.offset and header.csum_offset == field_offset;
        if (partial and !says_so) return error.Malformed;
        // The vnet header's hdr_len covers too little or too much on the forward path: the packet knows better.
        const transport = parsed.bytes[upper.offset..];
        const transport_length = switch (kind) {
            .tcp => (Tcp.parse(transport) orelse return error.Malformed).headerLength(),
            .udp => if (Udp.parse(transport) == null) return error.Malformed else Udp.header_length,
            .plain, .partial => unreachable,
        };
        if (header.gso_size == 0) return error.Malformed;
        const payload_length = transport.len - transport_length;
        const pseudo_sum = pseudoSum(parsed, upper, field_offset, partial);
        return .{
            .packet = whole[0 .. network + parsed.bytes.len],
            .kind = kind,
            .count = @intCast(@max(1, (payload_length + header.gso_size - 1) / header.gso_size)),
            .family = parsed.family,
            .network_offset = network,
            .transport_offset = network + upper.offset,
            .checksum_at = network + upper.offset + field_offset,
            .header_length = network + upper.offset + transport_length,
            .segment_size = header.gso_size,
            .pseudo_sum = pseudo_sum,
            .network_sum = switch (parsed.family) {
                .ipv4 => constantSum(parsed.bytes[0..parsed.headerLength()], &.{ 2, 4, 10 }),
                .ipv6 => 0,
            },
            .header_sum = pseudo_sum + switch (kind) {
                .tcp => constantSum(transport[0..transport_length], &.{
                    Tcp.sequence_offset,
                    Tcp.sequence_offset + 2,
                    Tcp.flags_offset - 1,
                    Tcp.checksum_offset,
                }),
                .udp => constantSum(transport[0..transport_length], &.{ Udp.length_offset, Udp.checksum_offset }),
                .plain, .partial => unreachable,
            },
        };
    }

    /// Length of packet `index`.
    pub fn length(splitter: *const Splitter, index: usize) usize {
        assert(index < splitter.count);
        return switch (splitter.kind) {
            .plain, .partial => splitter.packet.len,
            .tcp, .udp => splitter.header_length + splitter.payload(index).len,
        };
    }

    /// Writes packet `index` to the start of `out`, which must hold `length(index)` bytes; returns that length.
    pub fn write(splitter: *const Splitter, index: usize, out: []u8) usize {
        assert(index < splitter.count);
        const packet = splitter.packet;
        switch (splitter.kind) {
            .plain => @memcpy(out[0..packet.len], packet),
            .partial => {
                const start = splitter.transport_offset;
                @memcpy(out[0..start], packet[0..start]);
                // The seed lies in the field itself and is summed with the rest.
                const sum = splitter.loops.copySum(out[start..packet.len], packet[start..], 0);
                // No other protocol keeps its checksum at 6, and none minds the other zero.
                const is_udp = splitter.checksum_at - start == Udp.checksum_offset;
                writeChecksum(out[splitter.checksum_at..][0..2], sum, is_udp);
            },
            .tcp, .udp => return splitter.writeSegment(index, out),
        }
        return packet.len;
    }

    fn payload(splitter: *const Splitter, index: usize) []const u8 {
        const start = splitter.header_length + index * splitter.segment_size;
        return splitter.packet[start..@min(start + splitter.segment_size, splitter.packet.len)];
    }

    fn writeSegment(splitter: *const Splitter, index: usize, out: []u8) usize {
        const part = splitter.payload(index);
        const segment = out[0 .. splitter.header_length + part.len];
        @memcpy(segment[0..splitter.header_length], splitter.packet[0..splitter.header_length]);
        splitter.writeNetwork(index, segment[splitter.network_offset..]);
        const transport = segment[splitter.transport_offset..];
        const header_sum = splitter.header_sum + transport.len + switch (splitter.kind) {
            .tcp => splitter.writeTcp(index, transport),
            .udp => writeUdpLength(transport),
            .plain, .partial => unreachable,
        };
        const sum = splitter.loops.copySum(segment[splitter.header_length..], part, header_sum);
        writeChecksum(segment[splitter.checksum_at..][0..2], sum, splitter.kind == .udp);
        if (splitter.tunnel) |*tunnel| splitter.fixTunnel(tunnel, index, segment);
        return segment.len;
    }

    fn writeNetwork(splitter: *const Splitter, index: usize, packet: []u8) void {
        switch (splitter.family) {
            .ipv4 => {
                const first_id = readInt(u16, splitter.packet[splitter.network_offset..][4..6], .big);
                const id = first_id +% @as(u16, @intCast(index));
                writeInt(u16, packet[2..4], @intCast(packet.len), .big);
                writeInt(u16, packet[4..6], id, .big);
                writeInt(u16, packet[10..12], checksum.finish(splitter.network_sum + packet.len + id), .big);
            },
            .ipv6 => ip.setLength(packet, .ipv6, packet.len),
        }
    }

    /// Of a tunnel's packet, whose headers may have been of any kind.
    fn fixNetwork(packet: []u8, family: wire.Family, index: usize) void {
        if (family == .ipv4) {
            const first_id = readInt(u16, packet[4..6], .big);
            writeInt(u16, packet[4..6], first_id +% @as(u16, @intCast(index)), .big);
        }
        ip.setLength(packet, family, packet.len);
    }

    /// After all inside is right. The payload is not summed again: with its checksum, everything from the inner
    /// transport header on adds up to the complement of its pseudo-header, whatever the bytes are.
    fn fixTunnel(splitter: *const Splitter, tunnel: *const Tunnel, index: usize, segment: []u8) void {
        fixNetwork(segment, tunnel.family, index);
        const datagram = segment[tunnel.udp_offset..];
        writeInt(u16, datagram[Udp.length_offset..][0..2], @intCast(datagram.len), .big);
        const field = datagram[Udp.checksum_offset..][0..2];
        field.* = .{ 0, 0 };
        const pseudo_sum = tunnel.pseudo_sum orelse return;
        const inner_length = segment.len - splitter.transport_offset;
        const inner_sum = ~checksum.fold(splitter.pseudo_sum + inner_length);
        const headers = datagram[0 .. splitter.transport_offset - tunnel.udp_offset];
        const sum = checksum.sum(headers, pseudo_sum + datagram.len);
        writeChecksum(field, checksum.combine(sum, inner_sum, headers.len), true);
    }

    /// Gives the sum of the words that it writes.
    fn writeTcp(splitter: *const Splitter, index: usize, header: []u8) u64 {
        const original = splitter.packet[splitter.transport_offset..];
        const advance: u32 = @intCast(index * splitter.segment_size);
        const sequence = readInt(u32, original[Tcp.sequence_offset..][0..4], .big) +% advance;
        var flags = original[Tcp.flags_offset];
        if (index != 0) flags &= ~TcpFlags.cwr;
        if (index + 1 != splitter.count) flags &= ~(TcpFlags.fin | TcpFlags.psh);
        writeInt(u32, header[Tcp.sequence_offset..][0..4], sequence, .big);
        header[Tcp.flags_offset] = flags;
        const data_offset: u64 = original[Tcp.flags_offset - 1];
        return (sequence >> 16) + (sequence & 0xffff) + (data_offset << 8) + flags;
    }
};

/// Gives the sum of the word that it writes.
fn writeUdpLength(datagram: []u8) u64 {
    writeInt(u16, datagram[Udp.length_offset..][0..2], @intCast(datagram.len), .big);
    return datagram.len;
}

/// The sum of a header as if the words at these places were zero.
fn constantSum(header: []const u8, changing: []const usize) u64 {
    var sum = checksum.sum(header, 0);
    for (changing) |offset| sum += ~readInt(u16, header[offset..][0..2], .big);
    return sum;
}

fn protocolOf(kind: Splitter.Kind) ip.Protocol {
    return switch (kind) {
        .tcp => .tcp,
        .udp => .udp,
        .plain, .partial => unreachable,
    };
}

fn pseudoSum(packet: ip.Packet, upper: ip.Packet.Upper, field_offset: usize, partial: bool) u64 {
    if (!partial or upper.offset == packet.headerLength()) {
        return checksum.pseudoHeader(packet.addresses(), @backingInt(upper.protocol), 0);
    }
    // Behind a routing header the pseudo-header names the final destination, not the one in the IP header:
    // only the sender's seed has it. Its length is taken out again.
    const seed = readInt(u16, packet.bytes[upper.offset + field_offset ..][0..2], .big);
    return @as(u64, seed) + ~checksum.fold(packet.bytes.len - upper.offset);
}

fn writeChecksum(field: *[2]u8, sum: u64, is_udp: bool) void {
    const value = checksum.finish(sum);
    // A UDP checksum of zero would mean that there is none.
    writeInt(u16, field, if (is_udp and value == 0) 0xffff else value, .big);
}

const testing = std.testing;
const obviousSum = wire.checksum.testing.sum;

/// A superpacket and what is known about it, built without the code under test.
const Sample = struct {
    buffer: [65535]u8 = undefined,
    length: usize = 0,
    network: usize = 0,
    headers: usize = 0,
    header: VnetHeader = .{},

    const Shape = struct {
        v6: bool,
        udp: bool,
        /// Multiple of 8 for IPv6, of 4 for IPv4.
        network_options: usize = 0,
        tcp_options: usize = 0,
        flags: u8 = TcpFlags.ack,
    };

    fn build(sample: *Sample, shape: Shape, payload_length: usize, gso_size: u16) void {
        const b = &sample.buffer;
        for (b, 0..) |*byte, i| byte.* = @truncate((i *% 2654435761) >> 11);
        sample.network = @as(usize, if (shape.v6) 40 else 20) + shape.network_options;
        const transport_length = if (shape.udp) 8 else 20 + shape.tcp_options;
        sample.headers = sample.network + transport_length;
        sample.length = sample.headers + payload_length;
        const protocol: u8 = if (shape.udp) 17 else 6;
        if (shape.v6) {
            b[0..8].* = .{ 0x6b, 0x81, 0x23, 0x45, 0, 0, protocol, 61 };
            writeInt(u16, b[4..6], @intCast(sample.length - 40), .big);
            if (shape.network_options != 0) {
                b[6] = 60;
                b[40..42].* = .{ protocol, @intCast(shape.network_options / 8 - 1) };
            }
        } else {
            b[0..12].* = .{ 0x45, 0xb8, 0, 0, 0xff, 0xfe, 0x40, 0, 61, protocol, 0xde, 0xad };
            b[0] += @intCast(shape.network_options / 4);
            writeInt(u16, b[2..4], @intCast(sample.length), .big);
        }
        const t = b[sample.network..];
        if (!shape.udp) {
            writeInt(u32, t[4..8], 0xffff_fff0, .big);
            t[12] = @intCast(transport_length / 4 << 4);
            t[13] = shape.flags;
        }
        const field: usize = if (shape.udp) 6 else 16;
        const seed = obviousSum(sample.addresses(), @intCast(protocol + sample.length - sample.network));
        writeInt(u16, t[field..][0..2], seed, .big);
        const tcp_type: u8 = if (shape.v6) VnetHeader.GSO_TCPV6 else VnetHeader.GSO_TCPV4;
        sample.header = .{
            .flags = VnetHeader.NEEDS_CSUM,
            .gso_type = if (shape.udp) VnetHeader.GSO_UDP_L4 else tcp_type,
            .hdr_len = @intCast(sample.network), // too small, as on the forward path
            .gso_size = gso_size,
            .csum_start = @intCast(sample.network),
            .csum_offset = @intCast(field),
        };
    }

    fn addresses(sample: *const Sample) []const u8 {
        return if (sample.buffer[0] >> 4 == 4) sample.buffer[12..20] else sample.buffer[8..40];
    }

    fn bytes(sample: *const Sample) []const u8 {
        return sample.buffer[0..sample.length];
    }
};

/// Judges every segment of a sample by its own arithmetic.
fn judge(sample: *const Sample, shape: Sample.Shape) !void {
    const splitter: Splitter = try .init(sample.header, sample.bytes());
    const payload_total = sample.length - sample.headers;
    const size: usize = sample.header.gso_size;
    try testing.expectEqual(@max(1, std.math.divCeil(usize, payload_total, size) catch unreachable), splitter.count);
    var out: [65536]u8 = undefined;
    var done: usize = 0;
    for (0..splitter.count) |i| {
        const last = i + 1 == splitter.count;
        const end = @min(payload_total, done + size);
        const expected_payload = sample.buffer[sample.headers + done .. sample.headers + end];
        out[sample.headers + expected_payload.len] = 0xee;
        try testing.expectEqual(splitter.length(i), splitter.write(i, &out));
        try testing.expectEqual(0xee, out[sample.headers + expected_payload.len]);
        const segment = out[0..splitter.length(i)];
        try testing.expectEqualSlices(u8, expected_payload, segment[sample.headers..]);
        try judgeSegment(sample, shape, segment, i, last);
        done += expected_payload.len;
    }
    try testing.expectEqual(payload_total, done);
}

fn judgeSegment(sample: *const Sample, shape: Sample.Shape, segment: []const u8, i: usize, last: bool) !void {
    const original = sample.bytes();
    const t = segment[sample.network..];
    if (shape.v6) {
        try testing.expectEqual(segment.len - 40, readInt(u16, segment[4..6], .big));
        try testing.expectEqualSlices(u8, original[0..4], segment[0..4]);
        try testing.expectEqualSlices(u8, original[6..sample.network], segment[6..sample.network]);
    } else {
        try testing.expectEqual(segment.len, readInt(u16, segment[2..4], .big));
        try testing.expectEqual(0xfffe +% @as(u16, @intCast(i)), readInt(u16, segment[4..6], .big));
        try testing.expectEqual(0xffff, obviousSum(segment[0..sample.network], 0));
        try testing.expectEqualSlices(u8, original[0..2], segment[0..2]);
        try testing.expectEqualSlices(u8, original[6..10], segment[6..10]);
        try testing.expectEqualSlices(u8, original[12..sample.network], segment[12..sample.network]);
    }
    const protocol: u32 = if (shape.udp) 17 else 6;
    const pseudo = obviousSum(sample.addresses(), protocol + @as(u32, @intCast(t.len)));
    try testing.expectEqual(0xffff, obviousSum(t, pseudo));
    const was = original[sample.network..];
    try testing.expectEqualSlices(u8, was[0..4], t[0..4]);
    if (shape.udp) {
        try testing.expectEqual(t.len, readInt(u16, t[4..6], .big));
        try testing.expect(readInt(u16, t[6..8], .big) != 0);
    } else {
        const advance: u32 = @intCast(i * sample.header.gso_size);
        try testing.expectEqual(0xffff_fff0 +% advance, readInt(u32, t[4..8], .big));
        var flags = shape.flags;
        if (i != 0) flags &= ~TcpFlags.cwr;
        if (!last) flags &= ~(TcpFlags.fin | TcpFlags.psh);
        try testing.expectEqual(flags, t[13]);
        try testing.expectEqualSlices(u8, was[8..13], t[8..13]);
        try testing.expectEqualSlices(u8, was[14..16], t[14..16]);
        const length = sample.headers - sample.network - 18;
        try testing.expectEqualSlices(u8, was[18..][0..length], t[18..][0..length]);
    }
}

const shapes = [_]Sample.Shape{
    .{ .v6 = false, .udp = false, .tcp_options = 12 },
    .{ .v6 = false, .udp = false, .network_options = 8, .tcp_options = 40, .flags = 0xff & ~TcpFlags.syn },
    .{ .v6 = true, .udp = false, .flags = TcpFlags.ack | TcpFlags.psh | TcpFlags.fin },
    .{
        .v6 = true,
        .udp = false,
        .network_options = 16,
        .tcp_options = 12,
        .flags = TcpFlags.ack | TcpFlags.cwr | TcpFlags.ece,
    },
    .{ .v6 = false, .udp = true },
    .{ .v6 = false, .udp = true, .network_options = 4 },
    .{ .v6 = true, .udp = true },
    .{ .v6 = true, .udp = true, .network_options = 8 },
};

test "segments of every shape have right lengths, order and checksums" {
    var sample: Sample = .{};
    for (shapes) |shape| {
        for ([_]usize{ 0, 1, 2, 99, 100, 101, 199, 200, 201, 1000 }) |payload_length| {
            for ([_]u16{ 1, 2, 99, 100, 101, 999, 1000, 1001, 0xffff }) |gso_size| {
                sample.build(shape, payload_length, gso_size);
                try judge(&sample, shape);
            }
        }
        sample.build(shape, 65535 - 140, 1368);
        try judge(&sample, shape);
    }
}

/// The sample as what a tunnel carries; judged by the numbers in each segment alone.
fn wrap(sample: *Sample, out: []u8, v6: bool, has_checksum: bool) struct { VnetHeader, []u8 } {
    const udp: usize = if (v6) 40 else 20;
    const inner = udp + 8 + 8 + 14;
    const packet = out[0 .. inner + sample.length];
    @memcpy(packet[inner..], sample.bytes());
    @memset(packet[0..inner], 0x11);
    if (v6) {
        packet[0..8].* = .{ 0x60, 0, 0, 0, 0, 0, 17, 64 };
        writeInt(u16, packet[4..6], @intCast(packet.len - 40), .big);
    } else {
        packet[0..12].* = .{ 0x45, 0, 0, 0, 0xff, 0xff, 0, 0, 64, 17, 0, 0 };
        writeInt(u16, packet[2..4], @intCast(packet.len), .big);
    }
    writeInt(u16, packet[udp + 4 ..][0..2], @intCast(packet.len - udp), .big);
    const addresses = if (v6) packet[8..40] else packet[12..20];
    const seed = obviousSum(addresses, 17 + packet.len - udp);
    writeInt(u16, packet[udp + 6 ..][0..2], if (has_checksum) seed else 0, .big);
    var header = sample.header;
    header.gso_type |= if (v6) VnetHeader.GSO_UDP_TUNNEL_IPV6 else VnetHeader.GSO_UDP_TUNNEL_IPV4;
    if (has_checksum) header.flags |= VnetHeader.UDP_TUNNEL_CSUM;
    header.csum_start += @intCast(inner);
    header.outer_transport = @intCast(udp);
    header.inner_network = @intCast(inner);
    return .{ header, packet };
}

test "segments in a tunnel are those without it, in packets of right lengths and checksums, and zero stays zero" {
    var sample: Sample = .{};
    var buffer: [65535]u8 = undefined;
    var out: [4000]u8 = undefined;
    var plain_out: [4000]u8 = undefined;
    for (shapes) |shape| for ([_]usize{ 1, 1000, 2999, 5001 }) |payload_length| for (0..4) |bits| {
        const v6 = bits & 1 != 0;
        const has_checksum = bits & 2 != 0;
        sample.build(shape, payload_length, 1000);
        const header, const packet = wrap(&sample, &buffer, v6, has_checksum);
        const plain: Splitter = try .init(sample.header, sample.bytes());
        const splitter: Splitter = try .init(header, packet);
        try testing.expectEqual(plain.count, splitter.count);
        for (0..plain.count) |i| {
            const segment = out[0..splitter.write(i, &out)];
            try testing.expectEqual(segment.len, splitter.length(i));
            const expected = plain_out[0..plain.write(i, &plain_out)];
            try testing.expectEqualSlices(u8, expected, segment[header.inner_network..]);
            const udp = header.outer_transport;
            try testing.expectEqual(segment.len - udp, readInt(u16, segment[udp + 4 ..][0..2], .big));
            const carried = header.inner_network;
            try testing.expectEqualSlices(u8, packet[udp + 8 .. carried], segment[udp + 8 .. carried]);
            if (v6) {
                try testing.expectEqual(segment.len - 40, readInt(u16, segment[4..6], .big));
            } else {
                try testing.expectEqual(segment.len, readInt(u16, segment[2..4], .big));
                try testing.expectEqual(0xffff +% @as(u16, @intCast(i)), readInt(u16, segment[4..6], .big));
                try testing.expectEqual(0xffff, obviousSum(segment[0..20], 0));
            }
            const field = readInt(u16, segment[udp + 6 ..][0..2], .big);
            try testing.expectEqual(has_checksum, field != 0);
            if (!has_checksum) continue;
            const addresses = if (v6) segment[8..40] else segment[12..20];
            try testing.expectEqual(0xffff, obviousSum(segment[udp..], obviousSum(addresses, 17 + segment.len - udp)));
        }
    };
}

test "a tunnel that is none is malformed" {
    var sample: Sample = .{};
    var buffer: [65535]u8 = undefined;
    sample.build(shapes[0], 3000, 1000);
    const good, const packet = wrap(&sample, &buffer, false, true);
    _ = try Splitter.init(good, packet);
    var bad = good;
    bad.gso_type |= VnetHeader.GSO_UDP_TUNNEL;
    try testing.expectError(error.Malformed, Splitter.init(bad, packet));
    bad = good;
    bad.gso_type ^= VnetHeader.GSO_UDP_TUNNEL;
    try testing.expectError(error.Malformed, Splitter.init(bad, packet));
    bad = good;
    bad.gso_type &= VnetHeader.GSO_UDP_TUNNEL;
    try testing.expectError(error.Malformed, Splitter.init(bad, packet));
    for ([_]u16{ 0, 19, 21, 50, 65535 }) |offset| {
        bad = good;
        bad.outer_transport = offset;
        try testing.expectError(error.Malformed, Splitter.init(bad, packet));
        bad = good;
        bad.inner_network = if (offset == 50) 49 else offset;
        try testing.expectError(error.Malformed, Splitter.init(bad, packet));
    }
    try testing.expectError(error.Malformed, Splitter.init(good, packet[0 .. packet.len - 1]));
    packet[9] = 6;
    try testing.expectError(error.Malformed, Splitter.init(good, packet));
    packet[9] = 17;
    packet[6] = 0x20; // a fragment
    try testing.expectError(error.Malformed, Splitter.init(good, packet));
}

test "a gso_size of one brings out every segment of a full superpacket" {
    var sample: Sample = .{};
    sample.build(.{ .v6 = false, .udp = true }, 65535 - 28, 1);
    try judge(&sample, .{ .v6 = false, .udp = true });
}

test "a forwarded superpacket without NEEDS_CSUM is split all the same" {
    var sample: Sample = .{};
    for (shapes) |shape| {
        sample.build(shape, 5000, 1000);
        sample.header.flags = VnetHeader.DATA_VALID;
        sample.header.csum_start = 0;
        sample.header.csum_offset = 0;
        try judge(&sample, shape);
    }
}

test "behind a routing header the sender's seed names the final destination" {
    var sample: Sample = .{};
    const shape: Sample.Shape = .{ .v6 = true, .udp = false, .network_options = 24 };
    sample.build(shape, 3000, 1000);
    sample.buffer[6] = 43;
    const final = sample.addresses()[0..32].*;
    sample.buffer[24..40].* = @splat(0x33); // the next hop; the seed was made for the final destination
    const splitter: Splitter = try .init(sample.header, sample.bytes());
    var out: [2000]u8 = undefined;
    for (0..3) |i| {
        const transport = out[0..splitter.write(i, &out)][64..];
        try testing.expectEqual(0xffff, obviousSum(transport, obviousSum(&final, @intCast(6 + transport.len))));
    }
}

test "a packet without GSO is copied, its checksum finished when asked" {
    var sample: Sample = .{};
    var out: [4000]u8 = undefined;
    sample.build(shapes[0], 777, 1);
    const plain: Splitter = try .init(.{}, sample.bytes());
    try testing.expectEqual(1, plain.count);
    try testing.expectEqual(sample.length, plain.length(0));
    try testing.expectEqualSlices(u8, sample.bytes(), out[0..plain.write(0, &out)]);

    for (shapes) |shape| {
        sample.build(shape, 777, 0);
        sample.header.gso_type = VnetHeader.GSO_NONE;
        const splitter: Splitter = try .init(sample.header, sample.bytes());
        const packet = out[0..splitter.write(0, &out)];
        const transport = packet[sample.network..];
        const pseudo = obviousSum(sample.addresses(), @intCast(@as(usize, if (shape.udp) 17 else 6) + transport.len));
        try testing.expectEqual(0xffff, obviousSum(transport, pseudo));
        const field = sample.network + sample.header.csum_offset;
        try testing.expectEqualSlices(u8, sample.bytes()[0..field], packet[0..field]);
        try testing.expectEqualSlices(u8, sample.bytes()[field + 2 ..], packet[field + 2 ..]);
    }
}

test "a UDP checksum that comes out as zero is sent as 0xffff" {
    var sample: Sample = .{};
    var out: [200]u8 = undefined;
    for ([_]bool{ false, true }) |single| {
        sample.build(.{ .v6 = false, .udp = true }, 20, 10);
        if (single) sample.header.gso_type = VnetHeader.GSO_NONE;
        var splitter: Splitter = try .init(sample.header, sample.bytes());
        _ = splitter.write(0, &out);
        // Adding the checksum to a payload word makes the sum 0xffff and its complement zero.
        const word = sample.buffer[28..30];
        const sum = @as(u32, readInt(u16, word, .big)) + readInt(u16, out[26..28], .big);
        writeInt(u16, word, @intCast((sum & 0xffff) + (sum >> 16)), .big);
        splitter = try .init(sample.header, sample.bytes());
        _ = splitter.write(0, &out);
        try testing.expectEqual(0xffff, readInt(u16, out[26..28], .big));
    }
}

test "what does not fit together is malformed" {
    var sample: Sample = .{};
    const Change = enum {
        type_family,
        type_protocol,
        legacy,
        unknown,
        ecn_udp,
        size_zero,
        start,
        start_end,
        offset,
        truncated,
        headers_only,
        data_offset_small,
        data_offset_big,
        fragment,
        empty,
        garbage,
    };
    for (std.enums.values(Change)) |change| {
        sample.build(shapes[0], 1000, 100);
        const h = &sample.header;
        const b = &sample.buffer;
        switch (change) {
            .type_family => h.gso_type = VnetHeader.GSO_TCPV6,
            .type_protocol => h.gso_type = VnetHeader.GSO_UDP_L4,
            .legacy => h.gso_type = VnetHeader.GSO_UDP,
            .unknown => h.gso_type = 2,
            .ecn_udp => {
                sample.build(shapes[4], 1000, 100);
                h.gso_type |= VnetHeader.GSO_ECN;
            },
            .size_zero => h.gso_size = 0,
            .start => h.csum_start += 2,
            .start_end => h.csum_start = 0xffff,
            .offset => h.csum_offset = 6,
            .truncated => sample.length -= 1,
            .headers_only => {
                sample.length = 39;
                writeInt(u16, b[2..4], 39, .big);
            },
            .data_offset_small => b[32] = 0x40,
            .data_offset_big => {
                sample.build(shapes[0], 0, 100);
                b[32] = 0xf0;
            },
            .fragment => b[6] = 0x20,
            .empty => sample.length = 0,
            .garbage => b[0] = 0x95,
        }
        try testing.expectError(error.Malformed, Splitter.init(h.*, sample.bytes()));
    }
    sample.build(shapes[0], 10, 0);
    sample.header.gso_type = VnetHeader.GSO_NONE;
    sample.header.csum_offset = @intCast(sample.length - sample.header.csum_start - 1);
    try testing.expectError(error.Malformed, Splitter.init(sample.header, sample.bytes()));
    sample.header.csum_offset = 0xffff;
    sample.header.csum_start = 0xffff;
    try testing.expectError(error.Malformed, Splitter.init(sample.header, sample.bytes()));
}

test "random headers over random packets never read or write out of bounds" {
    errdefer std.debug.print("--seed 0x{x}\n", .{testing.random_seed});
    var prng: std.Random.DefaultPrng = .init(testing.random_seed);
    const random = prng.random();
    var packet: [300]u8 = undefined;
    var out: [300]u8 = undefined;
    for (0..20_000) |_| {
        random.bytes(&packet);
        const size = random.uintAtMost(usize, packet.len);
        const v6 = random.boolean();
        packet[0] = if (v6) 0x60 else 0x40 | random.intRangeAtMost(u8, 4, 7);
        packet[if (v6) 6 else 9] = ([_]u8{ 6, 17, 0 })[random.uintLessThan(usize, 3)];
        if (!v6) packet[6..8].* = .{ 0, 0 };
        const at: usize = if (v6) 4 else 2;
        const claimed = size -| if (v6) @as(usize, 40) else 0;
        if (random.uintLessThan(u8, 8) != 0) writeInt(u16, packet[at..][0..2], @intCast(claimed), .big);
        const header: VnetHeader = .{
            .flags = random.uintAtMost(u8, 1),
            .gso_type = random.uintAtMost(u8, 5),
            .hdr_len = random.int(u16),
            .gso_size = random.uintAtMost(u16, 100),
            .csum_start = random.uintAtMost(u16, 60),
            .csum_offset = if (random.boolean()) 16 else 6,
        };
        const splitter = Splitter.init(header, packet[0..size]) catch continue;
        for (0..splitter.count) |i| _ = splitter.write(i, out[0..splitter.length(i)]);
    }
}
