//! Control messages (cmsg) of UDP sockets: build what goes with a send, parse what came with a receive.
//! Knows layouts, not sockets.
//! Invariant: parsing ends and stays inside its bytes whatever they hold.
const std = @import("std");
const wire = @import("wire");
const assert = @import("wire").assert;

const linux = std.os.linux;
const IPPROTO = linux.IPPROTO;

/// CMSG_ALIGN of the kernel: the size of a long.
pub const alignment = @alignOf(usize);
const header_length = std.mem.alignForward(usize, @sizeOf(linux.cmsghdr), alignment);

/// struct in_pktinfo, as bytes in network order.
const PacketInfo4 = extern struct { interface_index: u32, local: [4]u8, destination: [4]u8 };
/// struct in6_pktinfo.
const PacketInfo6 = extern struct { destination: [16]u8, interface_index: u32 };

/// Bytes that `length` bytes of data take in a control buffer: CMSG_SPACE.
pub fn space(length: usize) usize {
    return header_length + std.mem.alignForward(usize, length, alignment);
}

/// Room for everything we send with one message: source, TOS, segment size.
pub const send_capacity = space(@sizeOf(PacketInfo6)) + space(@sizeOf(c_int)) + space(@sizeOf(u16));
/// Room for everything we ask to receive: source, TOS, segment size; the slack is for options of the future.
pub const receive_capacity = 128;

comptime {
    const wanted = space(@sizeOf(PacketInfo6)) + 2 * space(@sizeOf(c_int));
    assert(wanted <= receive_capacity);
    assert(@sizeOf(PacketInfo4) == 12 and @sizeOf(PacketInfo6) == 20);
}

/// Writes messages one behind the other into a buffer of `send_capacity`.
pub const Builder = struct {
    buffer: *align(alignment) [send_capacity]u8,
    length: usize = 0,

    /// The address to send from. The interface stays free, as in the kernel's driver: pinning it would
    /// keep a dead route in use; the kernel refuses the address (EINVAL) once no interface has it.
    pub fn putSource(builder: *Builder, source: wire.Source) void {
        switch (source.address.family) {
            .ipv4 => builder.put(IPPROTO.IP, linux.IP.PKTINFO, std.mem.asBytes(&PacketInfo4{
                .interface_index = 0,
                .local = source.address.bytes[0..4].*,
                .destination = @splat(0),
            })),
            .ipv6 => builder.put(IPPROTO.IPV6, linux.IPV6.PKTINFO, std.mem.asBytes(&PacketInfo6{
                .destination = source.address.bytes,
                // A link-local address means nothing without its link.
                .interface_index = if (source.address.isLinkLocal()) source.interface_index else 0,
            })),
        }
    }

    /// DSCP and ECN. As an int: kernels before 4.x take nothing else.
    pub fn putTos(builder: *Builder, family: wire.Family, tos: u8) void {
        const value: c_int = tos;
        switch (family) {
            .ipv4 => builder.put(IPPROTO.IP, linux.IP.TOS, std.mem.asBytes(&value)),
            .ipv6 => builder.put(IPPROTO.IPV6, linux.IPV6.TCLASS, std.mem.asBytes(&value)),
        }
    }

    /// UDP_SEGMENT: never for a single datagram, some drivers and kernels (6.11) stumble over that.
    pub fn putSegmentSize(builder: *Builder, segment_size: u16) void {
        builder.put(IPPROTO.UDP, linux.UDP.SEGMENT, std.mem.asBytes(&segment_size));
    }

    fn put(builder: *Builder, level: i32, kind: i32, data: []const u8) void {
        const whole = space(data.len);
        const place = builder.buffer[builder.length..][0..whole];
        @memset(place, 0); // padding included: no stale bytes reach the kernel
        const header: linux.cmsghdr = .{ .len = header_length + data.len, .level = level, .type = kind };
        @memcpy(place[0..@sizeOf(linux.cmsghdr)], std.mem.asBytes(&header));
        @memcpy(place[header_length..][0..data.len], data);
        builder.length += whole;
    }

    pub fn written(builder: *const Builder) []align(alignment) const u8 {
        return builder.buffer[0..builder.length];
    }
};

/// What the kernel told us about one receive. Absent messages leave the defaults.
pub const Parsed = struct {
    /// Where it arrived, for the sticky source.
    source: ?wire.Source = null,
    /// Size of every datagram in a train but the last; 0 for a single datagram.
    segment_size: u16 = 0,
    tos: u8 = 0,
};

pub fn parse(control: []const u8) Parsed {
    var parsed: Parsed = .{};
    var iterator: Iterator = .{ .rest = control };
    while (iterator.next()) |message| {
        switch (message.level) {
            IPPROTO.IP => switch (message.kind) {
                linux.IP.PKTINFO => parsed.source = parseSource4(message.data) orelse parsed.source,
                linux.IP.TOS => parsed.tos = parseTos(message.data) orelse parsed.tos,
                else => {},
            },
            IPPROTO.IPV6 => switch (message.kind) {
                linux.IPV6.PKTINFO => parsed.source = parseSource6(message.data) orelse parsed.source,
                linux.IPV6.TCLASS => parsed.tos = parseTos(message.data) orelse parsed.tos,
                else => {},
            },
            IPPROTO.UDP => if (message.kind == linux.UDP.GRO) {
                parsed.segment_size = parseSegmentSize(message.data) orelse parsed.segment_size;
            },
            else => {},
        }
    }
    return parsed;
}

fn parseSource4(data: []const u8) ?wire.Source {
    if (data.len < @sizeOf(PacketInfo4)) return null;
    const info = std.mem.bytesToValue(PacketInfo4, data[0..@sizeOf(PacketInfo4)]);
    return .{ .address = .fromIpv4(info.local), .interface_index = info.interface_index };
}

fn parseSource6(data: []const u8) ?wire.Source {
    if (data.len < @sizeOf(PacketInfo6)) return null;
    const info = std.mem.bytesToValue(PacketInfo6, data[0..@sizeOf(PacketInfo6)]);
    return .{ .address = .fromIpv6(info.destination), .interface_index = info.interface_index };
}

/// IP_TOS arrives as one byte, IPV6_TCLASS as an int; both forms are taken for both.
fn parseTos(data: []const u8) ?u8 {
    if (data.len >= @sizeOf(c_int)) {
        return @truncate(std.mem.bytesToValue(u32, data[0..4]));
    }
    return if (data.len >= 1) data[0] else null;
}

fn parseSegmentSize(data: []const u8) ?u16 {
    if (data.len < @sizeOf(c_int)) return null;
    return std.math.cast(u16, std.mem.bytesToValue(i32, data[0..4]));
}

const Message = struct { level: i32, kind: i32, data: []const u8 };

/// Every step moves on by at least a header, and ends at the first length that cannot be true.
pub const Iterator = struct {
    rest: []const u8,

    pub fn next(iterator: *Iterator) ?Message {
        if (iterator.rest.len < @sizeOf(linux.cmsghdr)) return null;
        const header = std.mem.bytesToValue(linux.cmsghdr, iterator.rest[0..@sizeOf(linux.cmsghdr)]);
        if (header.len < header_length or header.len > iterator.rest.len) return null;
        const data = iterator.rest[header_length..header.len];
        const step = std.mem.alignForward(usize, header.len, alignment);
        iterator.rest = iterator.rest[@min(step, iterator.rest.len)..];
        return .{ .level = header.level, .kind = header.type, .data = data };
    }
};

const testing = std.testing;

test "what is built parses back, for both families" {
    const sources = [_]wire.Source{
        .{ .address = .fromIpv4(.{ 10, 1, 2, 3 }), .interface_index = 7 },
        .{ .address = .fromIpv6(@splat(0x20)), .interface_index = 7 },
        .{ .address = wire.Address.parse("fe80::1").?, .interface_index = 7 },
    };
    for (sources, [_]u32{ 0, 0, 7 }) |source, interface_index| {
        var buffer: [send_capacity]u8 align(alignment) = @splat(0xaa);
        var builder: Builder = .{ .buffer = &buffer };
        builder.putSource(source);
        builder.putTos(source.address.family, 0xb9);
        builder.putSegmentSize(1452);
        try testing.expect(builder.written().len <= send_capacity);
        const parsed = parse(builder.written());
        try testing.expect(parsed.source.?.address.eql(source.address));
        try testing.expectEqual(interface_index, parsed.source.?.interface_index);
        try testing.expectEqual(0xb9, parsed.tos);
        try testing.expectEqual(0, parsed.segment_size); // UDP_SEGMENT is for sending only
    }
}

test "std's own layout agrees with ours" {
    var buffer: [send_capacity]u8 align(alignment) = undefined;
    var builder: Builder = .{ .buffer = &buffer };
    builder.putTos(.ipv4, 3);
    builder.putSegmentSize(1000);
    const cmsg = std.Io.net.cmsg;
    try testing.expectEqual(cmsg.space(4) + cmsg.space(2), builder.length);
    var iterator: cmsg.Iterator = .{ .control = buffer[0..builder.length] };
    const tos = iterator.next().?;
    try testing.expectEqual(cmsg.len(4), tos.header.len);
    const segment = iterator.next().?;
    try testing.expectEqual(linux.UDP.SEGMENT, segment.header.type);
    try testing.expectEqual(1000, std.mem.bytesToValue(u16, segment.data[0..2]));
}

test "TOS is read as a byte and as an int, the segment size only as an int that fits" {
    try testing.expectEqual(0xb9, parseTos(&.{0xb9}));
    try testing.expectEqual(3, parseTos(std.mem.asBytes(&@as(u32, 3))));
    try testing.expectEqual(null, parseTos(&.{}));
    try testing.expectEqual(1452, parseSegmentSize(std.mem.asBytes(&@as(i32, 1452))));
    try testing.expectEqual(null, parseSegmentSize(std.mem.asBytes(&@as(i32, -1))));
    try testing.expectEqual(null, parseSegmentSize(std.mem.asBytes(&@as(i32, 65536))));
    try testing.expectEqual(null, parseSegmentSize(&.{ 1, 2 }));
}

test "random bytes are parsed without end or overrun" {
    var prng: std.Random.DefaultPrng = .init(0x9e3779b97f4a7c15);
    const random = prng.random();
    var buffer: [256]u8 = undefined;
    for (0..200_000) |_| {
        const length = random.uintAtMost(usize, buffer.len);
        random.bytes(buffer[0..length]);
        // Half the time the first lengths look plausible, so that the walk goes on.
        if (random.boolean() and length >= 64) {
            std.mem.writeInt(usize, buffer[0..@sizeOf(usize)], random.uintAtMost(usize, 40), .native);
            std.mem.writeInt(usize, buffer[24..][0..@sizeOf(usize)], random.uintAtMost(usize, 300), .native);
        }
        _ = parse(buffer[0..length]);
        var iterator: Iterator = .{ .rest = buffer[0..length] };
        var steps: usize = 0;
        while (iterator.next()) |_| steps += 1;
        try testing.expect(steps <= length / header_length);
    }
}

test "lengths of zero, below a header and beyond the end stop the walk" {
    for ([_]usize{ 0, 1, header_length - 1, 1000, std.math.maxInt(usize) }) |length| {
        var buffer: [64]u8 = @splat(0);
        std.mem.writeInt(usize, buffer[0..@sizeOf(usize)], length, .native);
        var iterator: Iterator = .{ .rest = &buffer };
        try testing.expectEqual(null, iterator.next());
    }
}
