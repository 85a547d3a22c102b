//! Trains: datagrams of equal stride for one peer, laid out as one UDP_SEGMENT send wants them.
//! The unit of work of the outbound path. Packets are put in as plaintext with room around them;
//! sealing happens in place. Knows layout, not keys or sockets.
//! Invariant: every datagram of a train but the last is `stride` bytes long.
const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const protocol = @import("protocol");
const wire = @import("wire");
const messages = wire.messages;

pub const header_length = @sizeOf(messages.TransportHeader);
/// What older kernels take in one UDP_SEGMENT send.
pub const packets_max = 64;
/// The largest UDP payload over IPv4.
pub const bytes_max = 65_507;
/// A train that cannot take a full MTU-sized packet more is closed, so the buffer is the payload limit.
const buffer_length = 65_536;

pub const Train = struct {
    buffer: *[buffer_length]u8,
    stride: u32,
    count: u32,
    /// Bytes in use: all strides and the last datagram.
    length: u32,
    /// Of each packet, without padding.
    plain_lengths: [packets_max]u16,
    is_closed: bool,
    /// All packets of a train go to one peer and carry one TOS outside.
    peer: protocol.PeerId,
    tos: u8,

    pub fn reset(train: *Train) void {
        train.stride = 0;
        train.count = 0;
        train.length = 0;
        train.is_closed = false;
    }

    /// Room for a packet of this padded length as the next of the train; null when it does not fit.
    pub fn next(train: *Train, plain_length: usize, padded_length: usize) ?[]u8 {
        assert(plain_length <= padded_length);
        const datagram_length: u32 = @intCast(padded_length + messages.transport_overhead);
        if (train.count == 0) {
            if (datagram_length > bytes_max) return null;
            train.stride = datagram_length;
        } else {
            if (train.is_closed or train.count == packets_max) return null;
            if (datagram_length > train.stride or train.length + datagram_length > bytes_max) return null;
        }
        if (datagram_length < train.stride) train.is_closed = true;
        const start = train.length;
        train.plain_lengths[train.count] = @intCast(plain_length);
        train.count += 1;
        train.length += datagram_length;
        const body = train.buffer[start + header_length ..][0..padded_length];
        @memset(body[plain_length..], 0);
        return body[0..plain_length];
    }

    /// Header, padded body and room for the tag of datagram `i`.
    pub fn datagram(train: *const Train, i: usize) []u8 {
        assert(i < train.count);
        const start = i * train.stride;
        const end = if (i + 1 == train.count) train.length else start + train.stride;
        return train.buffer[start..end];
    }

    pub fn plaintext(train: *const Train, i: usize) []u8 {
        return train.datagram(i)[header_length..][0..train.plain_lengths[i]];
    }

    pub fn bytes(train: *const Train) []u8 {
        return train.buffer[0..train.length];
    }
};

/// A fixed number of trains in one arena.
pub fn Yard(comptime count: usize) type {
    return struct {
        trains: [count]Train,
        arena: []align(std.heap.page_size_min) u8,

        const Self = @This();

        pub fn init(self: *Self, gpa: Allocator) Allocator.Error!void {
            self.arena = try gpa.alignedAlloc(u8, .fromByteUnits(std.heap.page_size_min), count * buffer_length);
            for (&self.trains, 0..) |*train, i| {
                train.buffer = self.arena[i * buffer_length ..][0..buffer_length];
                train.reset();
            }
        }

        pub fn deinit(self: *Self, gpa: Allocator) void {
            std.crypto.secureZero(u8, self.arena); // plaintext passed through here
            gpa.free(self.arena);
        }
    };
}

test "a train takes equal packets and closes with a shorter one" {
    var yard: Yard(1) = undefined;
    try yard.init(std.testing.allocator);
    defer yard.deinit(std.testing.allocator);
    const train = &yard.trains[0];
    for (0..3) |_| try std.testing.expectEqual(100, train.next(100, 112).?.len);
    try std.testing.expectEqual(null, train.next(200, 208));
    try std.testing.expectEqual(20, train.next(20, 32).?.len);
    try std.testing.expectEqual(null, train.next(20, 32));
    try std.testing.expectEqual(3 * (112 + 32) + 64, train.bytes().len);
    try std.testing.expectEqual(64, train.datagram(3).len);
    try std.testing.expectEqual(20, train.plaintext(3).len);
    try std.testing.expect(std.mem.allEqual(u8, train.datagram(0)[16 + 100 ..][0..12], 0));
}

test "a train holds 45 full packets of an MTU of 1420 and at most 64 small ones" {
    var yard: Yard(1) = undefined;
    try yard.init(std.testing.allocator);
    defer yard.deinit(std.testing.allocator);
    const train = &yard.trains[0];
    var count: usize = 0;
    while (train.next(1420, 1420) != null) count += 1;
    try std.testing.expectEqual(45, count);
    train.reset();
    count = 0;
    while (train.next(28, 32) != null) count += 1;
    try std.testing.expectEqual(packets_max, count);
    train.reset();
    try std.testing.expectEqual(null, train.next(65_500, 65_500));
}
