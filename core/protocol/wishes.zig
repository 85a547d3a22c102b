//! Wishes: the peers for which the protocol itself has something to send, a queue for each kind of datagram, the most
//! urgent kind first: so that nothing of a peer that is there waits behind handshakes with thousands that are silent.
//! Knows peers as a list whose elements have `pending` and `links`.
//! Invariant: a peer with a wish is in its queue, once. One in a queue may have lost its wish, or be gone: whoever
//! takes it from there looks.
const std = @import("std");

/// In the order in which they are sent.
pub const Wish = enum(u3) {
    /// A packet that waited, and now there is a session.
    staged,
    /// An answer to an initiation.
    response,
    keepalive,
    /// A handshake that a packet waits for, or that renews a session.
    initiation,
    /// One that nobody waits for: with a peer that has not answered before, or for the sake of a keepalive.
    attempt,

    pub const all = [_]Wish{ .staged, .response, .keepalive, .initiation, .attempt };
};

pub const Set = packed struct(u8) {
    staged: bool = false,
    response: bool = false,
    keepalive: bool = false,
    initiation: bool = false,
    attempt: bool = false,
    unused: u3 = 0,

    pub fn any(set: Set) bool {
        return @as(u8, @bitCast(set)) != 0;
    }

    pub fn has(set: Set, wish: Wish) bool {
        return @as(u8, @bitCast(set)) & bit(wish) != 0;
    }

    pub fn put(set: *Set, wish: Wish, value: bool) void {
        const others = @as(u8, @bitCast(set.*)) & ~bit(wish);
        set.* = @bitCast(others | if (value) bit(wish) else 0);
    }

    fn bit(wish: Wish) u8 {
        return @as(u8, 1) << @backingInt(wish);
    }
};

/// A peer's part. It belongs to the slot and outlives the peer, since a queue may still lead through it.
pub const Links = struct {
    next: [Wish.all.len]u32 = @splat(none),
    queued: Set = .{},
};

pub const none = std.math.maxInt(u32);

pub const Queues = struct {
    heads: [Wish.all.len]u32 = @splat(none),
    tails: [Wish.all.len]u32 = @splat(none),

    /// Puts a peer into the queues of all its wishes.
    pub fn enqueue(queues: *Queues, peers: anytype, index: u32) void {
        const peer = peers.at(index);
        for (Wish.all) |wish| {
            if (!peer.pending.has(wish) or peer.links.queued.has(wish)) continue;
            peer.links.queued.put(wish, true);
            const place = @backingInt(wish);
            peer.links.next[place] = none;
            const tail = queues.tails[place];
            if (tail == none) queues.heads[place] = index else peers.at(tail).links.next[place] = index;
            queues.tails[place] = index;
        }
    }

    pub fn isEmpty(queues: *const Queues, wish: Wish) bool {
        return queues.heads[@backingInt(wish)] == none;
    }

    /// The peer that is first in a queue.
    pub fn first(queues: *const Queues, wish: Wish) ?u32 {
        const head = queues.heads[@backingInt(wish)];
        return if (head == none) null else head;
    }

    /// Takes the first peer out of a queue, and its wish from it.
    pub fn drop(queues: *Queues, peers: anytype, wish: Wish) void {
        const place = @backingInt(wish);
        const peer = peers.at(queues.heads[place]);
        peer.pending.put(wish, false);
        peer.links.queued.put(wish, false);
        queues.heads[place] = peer.links.next[place];
        if (queues.heads[place] == none) queues.tails[place] = none;
    }
};

test "each wish has a queue of its own, in the order of the wishes" {
    const Peers = struct {
        list: [4]struct { pending: Set = .{}, links: Links = .{} } = @splat(.{}),

        fn at(peers: *@This(), index: u32) @TypeOf(&peers.list[0]) {
            return &peers.list[index];
        }
    };
    var peers: Peers = .{};
    var queues: Queues = .{};
    for ([_]u32{ 2, 0, 3 }) |index| {
        peers.at(index).pending = .{ .keepalive = true, .attempt = index == 0 };
        queues.enqueue(&peers, index);
        queues.enqueue(&peers, index); // it is there already
    }
    for ([_]?u32{ 2, 0, 3, null }) |expected| {
        try std.testing.expectEqual(expected, queues.first(.keepalive));
        if (expected != null) queues.drop(&peers, .keepalive);
    }
    try std.testing.expect(queues.isEmpty(.keepalive) and queues.isEmpty(.staged));
    try std.testing.expectEqual(0, queues.first(.attempt));
    queues.drop(&peers, .attempt);
    for (peers.list) |peer| try std.testing.expect(!peer.pending.any() and !peer.links.queued.any());
}
