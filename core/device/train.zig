//! Trains: datagrams of equal stride for one peer, laid out as one UDP_SEGMENT send wants them.
//! The unit of work of the outbound path. Packets are put in as plaintext with room around them;
//! sealing happens in place. Knows layout, not keys or sockets.
//! Invariant: every datagram of a train but the last is `stride` bytes long.
const std = @import("std");
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;
const protocol = @import("protocol");
const wire = @import("wire");
const messages = wire.messages;
const Manner = @import("train_watch.zig").Manner;

pub const header_length = @sizeOf(messages.TransportHeader);
/// What older kernels take in one UDP_SEGMENT send.
pub const packets_max = 64;
/// The largest UDP payload over IPv4.
pub const bytes_max = 65_507;

pub const Train = struct {
    buffer: [*]u8,
    stride: u32,
    count: u32,
    /// Bytes in use: all strides and the last datagram.
    length: u32,
    /// Of each packet, without padding.
    plain_lengths: [packets_max]u16,
    is_closed: bool,
    /// All packets of a train go to one peer, and have in common how they look outside.
    peer: protocol.PeerId,
    outside: Outside,

    pub const Outside = struct { tos: u8 = 0, manner: Manner = .{} };

    fn begin(train: *Train, buffer: *[bytes_max]u8, peer: protocol.PeerId, outside: Outside) void {
        train.buffer = buffer;
        train.stride = 0;
        train.count = 0;
        train.length = 0;
        train.is_closed = false;
        train.peer = peer;
        train.outside = outside;
    }

    /// Room for a packet of this padded length as the next of the train; null when it does not fit.
    fn next(train: *Train, plain_length: usize, padded_length: usize) ?[]u8 {
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

/// Trains one behind the other in one arena, however short: packets for many peers lie as close as those for one.
pub const Trains = struct {
    /// As many as one turn sends; each takes what it needs of the arena.
    pub const count_max = 256;
    /// Trains begin at a cache line.
    const alignment = 64;

    list: [count_max]Train,
    count: usize,
    /// Its length bounds a turn of the loop.
    arena: []align(std.heap.page_size_min) u8,

    pub fn init(trains: *Trains, gpa: Allocator, length: usize) Allocator.Error!void {
        assert(length >= bytes_max);
        trains.arena = try gpa.alignedAlloc(u8, .fromByteUnits(std.heap.page_size_min), length);
        trains.count = 0;
    }

    pub fn deinit(trains: *Trains, gpa: Allocator) void {
        std.crypto.secureZero(u8, trains.arena); // plaintext passed through here
        gpa.free(trains.arena);
    }

    pub fn all(trains: *Trains) []Train {
        return trains.list[0..trains.count];
    }

    pub fn clear(trains: *Trains) void {
        trains.count = 0;
    }

    /// Whether there may be no room for another train.
    pub fn isFull(trains: *const Trains) bool {
        return trains.count == count_max or trains.end() + bytes_max > trains.arena.len;
    }

    fn end(trains: *const Trains) usize {
        if (trains.count == 0) return 0;
        const last = &trains.list[trains.count - 1];
        const used = @intFromPtr(last.buffer) - @intFromPtr(trains.arena.ptr) + last.length;
        return std.mem.alignForward(usize, used, alignment);
    }

    pub const Room = union(enum) {
        plaintext: []u8,
        /// Send what is there first.
        full,
        /// It fits no datagram.
        too_long,
    };

    /// A place for a packet: in the last train if that is for the same peer and has room, else in a new one.
    pub fn add(
        trains: *Trains,
        peer: protocol.PeerId,
        outside: Train.Outside,
        plain_length: usize,
        padded_length: usize,
    ) Room {
        if (trains.count != 0) {
            const last = &trains.list[trains.count - 1];
            if (last.peer.eql(peer) and std.meta.eql(last.outside, outside)) {
                if (last.next(plain_length, padded_length)) |plaintext| return .{ .plaintext = plaintext };
            }
        }
        if (trains.isFull()) return .full;
        const start = trains.end();
        const train = &trains.list[trains.count];
        train.begin(trains.arena[start..][0..bytes_max], peer, outside);
        const plaintext = train.next(plain_length, padded_length) orelse return .too_long;
        trains.count += 1;
        return .{ .plaintext = plaintext };
    }
};

const testing = std.testing;
const some_peer: protocol.PeerId = .{ .index = 1, .generation = 1 };
const other_peer: protocol.PeerId = .{ .index = 2, .generation = 1 };

test "a train takes equal packets and closes with a shorter one" {
    var trains: Trains = undefined;
    try trains.init(testing.allocator, 16 << 16);
    defer trains.deinit(testing.allocator);
    for (0..3) |_| try testing.expectEqual(100, trains.add(some_peer, .{}, 100, 112).plaintext.len);
    const train = &trains.all()[0];
    try testing.expectEqual(null, train.next(200, 208));
    try testing.expectEqual(20, train.next(20, 32).?.len);
    try testing.expectEqual(null, train.next(20, 32));
    try testing.expectEqual(3 * (112 + 32) + 64, train.bytes().len);
    try testing.expectEqual(64, train.datagram(3).len);
    try testing.expectEqual(20, train.plaintext(3).len);
    try testing.expect(std.mem.allEqual(u8, train.datagram(0)[16 + 100 ..][0..12], 0));
}

test "what is sent in another manner shares no train" {
    var trains: Trains = undefined;
    try trains.init(testing.allocator, 16 << 16);
    defer trains.deinit(testing.allocator);
    const manners = [_]Manner{ .{}, .{ .form = .singles }, .{ .mark = 1 }, .{ .mark = 2 }, .{} };
    for (manners) |manner| for (0..2) |_| {
        _ = trains.add(some_peer, .{ .manner = manner }, 100, 112).plaintext;
    };
    try testing.expectEqual(manners.len, trains.all().len);
    for (trains.all(), manners) |*train, manner| {
        try testing.expectEqual(manner, train.outside.manner);
        try testing.expectEqual(2, train.count);
    }
}

test "a train holds 45 full packets of an MTU of 1420 and at most 64 small ones" {
    var trains: Trains = undefined;
    try trains.init(testing.allocator, 16 << 16);
    defer trains.deinit(testing.allocator);
    for (0..46) |_| _ = trains.add(some_peer, .{}, 1420, 1420).plaintext;
    try testing.expectEqual(45, trains.all()[0].count);
    trains.clear();
    for (0..packets_max + 1) |_| _ = trains.add(some_peer, .{}, 28, 32).plaintext;
    try testing.expectEqual(packets_max, trains.all()[0].count);
    trains.clear();
    try testing.expect(trains.add(some_peer, .{}, 65_500, 65_500) == .too_long);
    try testing.expectEqual(0, trains.all().len);
}

test "sixteen whole trains fit, or 256 short ones side by side" {
    var trains: Trains = undefined;
    try trains.init(testing.allocator, 16 << 16);
    defer trains.deinit(testing.allocator);
    var packets: usize = 0;
    while (trains.add(some_peer, .{}, 1420, 1420) == .plaintext) packets += 1;
    try testing.expectEqual(16 * 45, packets);
    trains.clear();
    for (0..Trains.count_max) |i| {
        const peer = if (i % 2 == 0) some_peer else other_peer;
        @memset(trains.add(peer, .{}, 60, 64).plaintext, @truncate(i));
    }
    try testing.expect(trains.isFull());
    try testing.expect(trains.add(other_peer, .{}, 60, 64) == .plaintext); // in the last train
    try testing.expect(trains.add(some_peer, .{}, 60, 64) == .full);
    for (trains.all(), 0..) |*train, i| {
        try testing.expect(std.mem.allEqual(u8, train.plaintext(0), @truncate(i)));
        try testing.expect(@intFromPtr(train.buffer) - @intFromPtr(trains.arena.ptr) < Trains.count_max * 192);
    }
}
