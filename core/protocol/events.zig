//! Events: what a program that has a device wants to be told of without asking, as values in a ring of fixed size.
//! The protocol notes what becomes of peers; who has the sockets adds what becomes of those. No packet that only passes
//! notes anything.
//! Knows who is noting and who is reading only as two sides: those that note come one after another, as all that change
//! an Interface, and one reads, at any time.
//! Invariant: to note takes no memory and never waits. What finds no room is counted, and the count takes its place.
const std = @import("std");
const notices = @import("notices.zig");
const wire = @import("wire");
const assert = @import("wire").assert;

pub const Key = [32]u8;

pub const Event = union(enum) {
    /// There is a session: the response came, or as responder the first packet of the initiator.
    handshake: Key,
    /// The peer spoke from somewhere else than where it was known to be.
    endpoint: struct { peer: Key, remote: wire.SocketAddress },
    /// The peer does not answer: initiations for REKEY_ATTEMPT_TIME had no response, or nothing was exchanged for so
    /// long that its keys were forgotten. Told once until there is a session again.
    stale: Key,
    /// Handshakes with the peer come to nothing, and why. Told when it begins, and when it is for another reason, until
    /// there is a session again.
    trouble: struct { peer: Key, kind: notices.Kind },
    /// The peer was removed.
    gone: Key,
    /// An offload, as its bit, is not used any more: at all, or towards one remote for a while.
    stepped_down: struct { offload: u32, errno: u16, remote: ?wire.SocketAddress = null },
    /// The link is up, and the port could not be had. It is tried again.
    port_failed: struct { port: u16, errno: u16 },
    /// What had failed works again: the sockets are open on this port.
    healed: struct { port: u16 },
    /// The interface, or the socket that it is configured by, was removed: the device ends.
    removed,
    /// So many events found no room here.
    lost: u64,
};

pub const Ring = struct {
    slots: []Event,
    /// Events ever noted, and ever read, modulo 2^32. A slot belongs to the reader from the one to the other.
    written: std.atomic.Value(u32) = .init(0),
    read: std.atomic.Value(u32) = .init(0),
    lost: std.atomic.Value(u32) = .init(0),

    /// For the count of those that are lost, and for the event that is noted after that.
    pub const slots_min = 2;

    /// As many slots as a power of two: so places go on through the end of the numbers.
    pub fn init(slots: []Event) Ring {
        assert(slots.len >= slots_min and std.math.isPowerOfTwo(slots.len));
        return .{ .slots = slots };
    }

    pub fn note(ring: *Ring, event: Event) void {
        const wanted: u32 = if (ring.lost.load(.monotonic) == 0) 1 else 2;
        if (ring.slots.len - ring.length() < wanted) {
            _ = ring.lost.fetchAdd(1, .monotonic);
            return;
        }
        // The reader may have told of them meanwhile.
        const lost = if (wanted == 2) ring.lost.swap(0, .monotonic) else 0;
        if (lost != 0) ring.put(.{ .lost = lost });
        ring.put(event);
    }

    fn put(ring: *Ring, event: Event) void {
        const place = ring.written.load(.monotonic);
        ring.slots[place % ring.slots.len] = event;
        ring.written.store(place +% 1, .release);
    }

    fn length(ring: *const Ring) u32 {
        const read = ring.read.load(.acquire); // first: it never overtakes what is written
        return ring.written.load(.acquire) -% read;
    }

    /// The next event; null when there is none.
    pub fn take(ring: *Ring) ?Event {
        const place = ring.read.load(.monotonic);
        if (place == ring.written.load(.acquire)) {
            if (ring.lost.load(.monotonic) == 0) return null;
            const lost = ring.lost.swap(0, .monotonic);
            return if (lost == 0) null else .{ .lost = lost };
        }
        const event = ring.slots[place % ring.slots.len];
        ring.read.store(place +% 1, .release);
        return event;
    }

    /// For the reader: whether `take` has something.
    pub fn isEmpty(ring: *const Ring) bool {
        return ring.length() == 0 and ring.lost.load(.monotonic) == 0;
    }
};

const testing = std.testing;

test "events come out in the order in which they were noted, through the end of the numbers as well" {
    var slots: [4]Event = undefined;
    var ring: Ring = .init(&slots);
    for ([_]*std.atomic.Value(u32){ &ring.written, &ring.read }) |counter| counter.* = .init(std.math.maxInt(u32) - 6);
    for (0..10) |i| {
        try testing.expect(ring.isEmpty());
        ring.note(.{ .handshake = @splat(@intCast(i)) });
        ring.note(.removed);
        try testing.expectEqual(Event{ .handshake = @splat(@intCast(i)) }, ring.take().?);
        try testing.expectEqual(Event.removed, ring.take().?);
        try testing.expectEqual(null, ring.take());
    }
}

test "what finds no room is counted, and told where it is missing" {
    var slots: [4]Event = undefined;
    var ring: Ring = .init(&slots);
    for (0..6) |i| ring.note(.{ .healed = .{ .port = @intCast(i) } });
    try testing.expectEqual(0, ring.take().?.healed.port);
    ring.note(.removed); // there is one slot, and two are wanted
    try testing.expectEqual(1, ring.take().?.healed.port);
    ring.note(.{ .healed = .{ .port = 9 } });
    for (2..4) |i| try testing.expectEqual(i, ring.take().?.healed.port);
    try testing.expectEqual(3, ring.take().?.lost);
    try testing.expectEqual(9, ring.take().?.healed.port);
    try testing.expect(ring.isEmpty());
    // Nothing need come after it.
    for (0..5) |_| ring.note(.removed);
    for (0..4) |_| try testing.expectEqual(Event.removed, ring.take().?);
    try testing.expect(!ring.isEmpty());
    try testing.expectEqual(1, ring.take().?.lost);
    try testing.expectEqual(null, ring.take());
}

test "one thread notes and another reads: each event is read in order, or counted" {
    const count = 100_000;
    const Noting = struct {
        fn run(ring: *Ring) void {
            for (0..count) |i| ring.note(.{ .stepped_down = .{ .offload = @intCast(i), .errno = 0 } });
        }
    };
    var slots: [16]Event = undefined;
    var ring: Ring = .init(&slots);
    const thread = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, Noting.run, .{&ring});
    var next: u64 = 0;
    var accounted: u64 = 0;
    while (accounted < count) switch (ring.take() orelse continue) {
        .stepped_down => |event| {
            try testing.expect(event.offload >= next);
            next = event.offload + 1;
            accounted += 1;
        },
        .lost => |lost| accounted += lost,
        .handshake, .endpoint, .stale, .trouble, .gone, .port_failed, .healed, .removed => unreachable,
    };
    thread.join();
    try testing.expectEqual(count, accounted);
    try testing.expect(ring.isEmpty());
}
