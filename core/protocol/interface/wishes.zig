//! Wishes: the peers for which the protocol itself has something to send, a queue for each kind of datagram, the most
//! urgent kind first: so that nothing of a peer that is there waits behind handshakes with thousands that are silent.
//! Invariant: a peer with a wish is in its queue, once. One in a queue may have lost its wish, or be gone: whoever
//! takes it from there looks.
const interface_file = @import("../interface.zig");
const Interface = interface_file.Interface;

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

pub const none = @import("std").math.maxInt(u32);

pub const Queues = struct {
    heads: [Wish.all.len]u32 = @splat(none),
    tails: [Wish.all.len]u32 = @splat(none),

    pub fn isEmpty(queues: *const Queues, wish: Wish) bool {
        return queues.heads[@backingInt(wish)] == none;
    }
};

/// Puts a peer into the queues of all its wishes.
pub fn enqueue(interface: *Interface, index: u32) void {
    const peer = interface.peers.at(index);
    for (Wish.all) |wish| {
        if (!peer.pending.has(wish) or peer.links.queued.has(wish)) continue;
        peer.links.queued.put(wish, true);
        const place = @backingInt(wish);
        peer.links.next[place] = none;
        const tail = interface.queues.tails[place];
        if (tail == none) {
            interface.queues.heads[place] = index;
        } else {
            interface.peers.at(tail).links.next[place] = index;
        }
        interface.queues.tails[place] = index;
    }
}

/// The peer that is first in a queue.
pub fn first(interface: *const Interface, wish: Wish) ?u32 {
    const head = interface.queues.heads[@backingInt(wish)];
    return if (head == none) null else head;
}

/// Takes the first peer out of a queue, and its wish from it.
pub fn drop(interface: *Interface, wish: Wish) void {
    const place = @backingInt(wish);
    const peer = interface.peers.at(interface.queues.heads[place]);
    peer.pending.put(wish, false);
    peer.links.queued.put(wish, false);
    interface.queues.heads[place] = peer.links.next[place];
    if (interface.queues.heads[place] == none) interface.queues.tails[place] = none;
}
