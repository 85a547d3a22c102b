//! The four WireGuard messages (whitepaper sections 5.4.2 to 5.4.7) as they lie in a datagram.
//! Every field is a byte array, so a message may start at any offset. Knows sizes, not meaning.
const std = @import("std");
const assert = @import("assert.zig").assert;

pub const Kind = enum(u8) { initiation = 1, response = 2, cookie_reply = 3, transport = 4 };

pub const tag_length = 16;

pub const Initiation = extern struct {
    kind: u8,
    reserved: [3]u8,
    sender: [4]u8,
    ephemeral: [32]u8,
    static: [32 + tag_length]u8,
    timestamp: [12 + tag_length]u8,
    mac1: [16]u8,
    mac2: [16]u8,
};

pub const Response = extern struct {
    kind: u8,
    reserved: [3]u8,
    sender: [4]u8,
    receiver: [4]u8,
    ephemeral: [32]u8,
    empty: [tag_length]u8,
    mac1: [16]u8,
    mac2: [16]u8,
};

pub const CookieReply = extern struct {
    kind: u8,
    reserved: [3]u8,
    receiver: [4]u8,
    nonce: [24]u8,
    cookie: [16 + tag_length]u8,
};

/// The head of a transport data message; ciphertext and tag follow.
pub const TransportHeader = extern struct {
    kind: u8,
    reserved: [3]u8,
    receiver: [4]u8,
    counter: [8]u8,

    pub fn init(receiver_index: u32, counter_value: u64) TransportHeader {
        var header: TransportHeader = .{
            .kind = @backingInt(Kind.transport),
            .reserved = @splat(0),
            .receiver = undefined,
            .counter = undefined,
        };
        std.mem.writeInt(u32, &header.receiver, receiver_index, .little);
        std.mem.writeInt(u64, &header.counter, counter_value, .little);
        return header;
    }
};

comptime {
    assert(@sizeOf(Initiation) == 148 and @alignOf(Initiation) == 1);
    assert(@sizeOf(Response) == 92 and @alignOf(Response) == 1);
    assert(@sizeOf(CookieReply) == 64 and @alignOf(CookieReply) == 1);
    assert(@sizeOf(TransportHeader) == 16 and @alignOf(TransportHeader) == 1);
}

/// Bytes a transport data message adds to its padded plaintext.
pub const transport_overhead = @sizeOf(TransportHeader) + tag_length;

/// A whole IP packet, sealed. No longer one can have been meant, whatever carries it.
pub const transport_length_max = std.math.maxInt(u16) + transport_overhead;

/// The largest handshake message: what a buffer for `pollTransmit` without data must hold.
pub const handshake_length_max = @sizeOf(Initiation);

/// Plaintext is padded to a multiple of this (section 5.4.6).
pub const padding_multiple = 16;

/// Length of a packet after padding to 16, never beyond the MTU; with an MTU of 0 there is no bound.
pub fn paddedLength(length: usize, mtu: usize) usize {
    // A packet longer than the MTU is padded as its last MTU-sized part would be, as the kernel does.
    if (mtu == 0) return std.mem.alignForward(usize, length, padding_multiple);
    const last = if (length > mtu) length % mtu else length;
    const padded = @min(mtu, std.mem.alignForward(usize, last, padding_multiple));
    return length + (padded - last);
}

/// What kind of message these bytes are, judged by type, reserved bytes and length alone.
pub fn classify(datagram: []const u8) ?Kind {
    if (datagram.len < @sizeOf(TransportHeader)) return null;
    // The type is a little-endian u32: its three upper bytes are the reserved ones.
    return switch (std.mem.readInt(u32, datagram[0..4], .little)) {
        1 => if (datagram.len == @sizeOf(Initiation)) .initiation else null,
        2 => if (datagram.len == @sizeOf(Response)) .response else null,
        3 => if (datagram.len == @sizeOf(CookieReply)) .cookie_reply else null,
        4 => if (datagram.len >= transport_overhead and datagram.len <= transport_length_max) .transport else null,
        else => null,
    };
}

const testing = std.testing;

test "messages are told apart by type, reserved bytes and length" {
    var datagram: [200]u8 = @splat(0);
    const lengths = [_]struct { u8, usize, Kind }{
        .{ 1, 148, .initiation },
        .{ 2, 92, .response },
        .{ 3, 64, .cookie_reply },
        .{ 4, 32, .transport },
    };
    for (lengths) |row| {
        datagram[0] = row[0];
        try testing.expectEqual(row[2], classify(datagram[0..row[1]]).?);
        try testing.expectEqual(null, classify(datagram[0 .. row[1] - 1]));
        if (row[2] != .transport) try testing.expectEqual(null, classify(datagram[0 .. row[1] + 1]));
        datagram[2] = 1;
        try testing.expectEqual(null, classify(datagram[0..row[1]]));
        datagram[2] = 0;
    }
    datagram[0] = 5;
    for (0..datagram.len) |length| try testing.expectEqual(null, classify(datagram[0..length]));
}

test "a transport message holds at most the longest IP packet" {
    var datagram: [transport_length_max + 1]u8 = @splat(0);
    datagram[0] = 4;
    try testing.expectEqual(.transport, classify(datagram[0..transport_length_max]).?);
    try testing.expectEqual(null, classify(&datagram));
}

test "padding goes to 16 and stops at the MTU" {
    try testing.expectEqual(0, paddedLength(0, 1420));
    try testing.expectEqual(16, paddedLength(1, 1420));
    try testing.expectEqual(1408, paddedLength(1408, 1420));
    try testing.expectEqual(1420, paddedLength(1409, 1420));
    try testing.expectEqual(1420, paddedLength(1420, 1420));
    try testing.expectEqual(1424, paddedLength(1420, 0));
    try testing.expectEqual(1436, paddedLength(1421, 1420));
}

test "every length and MTU is padded by less than 16, to a multiple of 16 or to the MTU" {
    for ([_]usize{ 0, 1, 15, 68, 576, 1280, 1420, 65_535 }) |mtu| for (0..65_536) |length| {
        const padded = paddedLength(length, mtu);
        try testing.expect(padded >= length and padded < length + 16);
        if (mtu == 0 or length <= mtu / 16 * 16) {
            try testing.expectEqual(0, padded % 16);
        } else if (length <= mtu) {
            try testing.expectEqual(mtu, padded);
        }
    };
}
