//! Sweep: a look at each peer, asked for by events that come alone or in swarms. The first one is acted on at once. The
//! work is done in slices, so that packets need not wait for it; and all of it takes a tenth of the time at most, so
//! that a swarm, or many peers, cost a tenth of a core and no more.
//! Knows no peers, only numbers up to which it has come.
//! Invariant: every request is followed by a whole sweep that begins after it.
const std = @import("std");
const protocol = @import("protocol");
const Instant = protocol.Instant;

/// What a slice takes, and the portion that is looked at between two looks at the clock.
pub const slice_ns = 300 * std.time.ns_per_us;
pub const portion = 8;
/// How long to rest after a sweep, in its own lengths.
const rest_factor = 9;

pub const Sweep = struct {
    is_wanted: bool = false,
    /// The number to go on from; null between sweeps.
    next: ?u32 = null,
    spent_ns: u64 = 0,
    not_before: Instant = .{ .ns = 0 },

    pub fn request(sweep: *Sweep) void {
        sweep.is_wanted = true;
    }

    /// When the next slice is due.
    pub fn due(sweep: *const Sweep) Instant {
        if (sweep.next != null) return .{ .ns = 0 };
        return if (sweep.is_wanted) sweep.not_before else .never;
    }

    pub fn isDue(sweep: *const Sweep, now: Instant) bool {
        return !now.isBefore(sweep.due()) and sweep.due().ns != Instant.never.ns;
    }

    /// One slice. `look` takes up to `portion` numbers from `first` on and answers where to go on, null at the end.
    pub fn run(
        sweep: *Sweep,
        context: anytype,
        comptime look: fn (@TypeOf(context), first: u32) ?u32,
        comptime clock: fn (@TypeOf(context)) Instant,
    ) void {
        const began = clock(context);
        if (sweep.next == null) {
            sweep.is_wanted = false;
            sweep.next = 0;
            sweep.spent_ns = 0;
        }
        while (sweep.next) |first| {
            sweep.next = look(context, first);
            const now = clock(context);
            const spent_ns = now.since(began);
            if (sweep.next != null and spent_ns < slice_ns) continue;
            sweep.spent_ns += spent_ns;
            if (sweep.next == null) sweep.not_before = now.after(sweep.spent_ns * rest_factor);
            return;
        }
    }
};

const testing = std.testing;

/// Peers whose look takes a while each, and a clock that it moves.
const Peers = struct {
    count: u32,
    cost_ns: u64,
    now: Instant = .{ .ns = std.time.ns_per_hour },
    looks: u32 = 0,

    fn look(peers: *Peers, first: u32) ?u32 {
        const end = @min(first + portion, peers.count);
        peers.looks += end - first;
        peers.now = peers.now.after((end - first) * peers.cost_ns);
        return if (end < peers.count) end else null;
    }

    fn clock(peers: *Peers) Instant {
        return peers.now;
    }

    /// Slices until nothing is due; how long the longest was.
    fn finish(peers: *Peers, sweep: *Sweep) u64 {
        var longest: u64 = 0;
        while (sweep.isDue(peers.now)) {
            const began = peers.now;
            sweep.run(peers, Peers.look, Peers.clock);
            longest = @max(longest, peers.now.since(began));
        }
        return longest;
    }
};

test "a request after a quiet time is followed at once, and one that comes in between is not lost" {
    var peers: Peers = .{ .count = 20, .cost_ns = 20 * std.time.ns_per_us };
    var sweep: Sweep = .{};
    try testing.expect(!sweep.isDue(peers.now));
    try testing.expectEqual(Instant.never, sweep.due());
    sweep.request();
    try testing.expect(sweep.isDue(peers.now));
    sweep.run(&peers, Peers.look, Peers.clock);
    try testing.expectEqual(16, peers.looks);
    sweep.request(); // those before have been looked at already
    _ = peers.finish(&sweep);
    try testing.expectEqual(20, peers.looks);
    try testing.expect(!sweep.isDue(peers.now));
    try testing.expectEqual(9 * 400 * std.time.ns_per_us, sweep.due().since(peers.now));
    peers.now = sweep.due();
    _ = peers.finish(&sweep);
    try testing.expectEqual(40, peers.looks);
    try testing.expectEqual(Instant.never, sweep.due());
}

test "10 000 peers are looked at in slices of less than a millisecond, and a swarm of requests costs a tenth" {
    var peers: Peers = .{ .count = 10_000, .cost_ns = 20 * std.time.ns_per_us };
    var sweep: Sweep = .{};
    const began = peers.now;
    while (peers.now.since(began) < 60 * std.time.ns_per_s) {
        sweep.request();
        try testing.expect(peers.finish(&sweep) < std.time.ns_per_ms);
        peers.now = peers.now.after(std.time.ns_per_ms);
    }
    const busy_ns = peers.looks * peers.cost_ns;
    try testing.expect(busy_ns >= 200 * std.time.ns_per_ms);
    try testing.expect(busy_ns < 60 * std.time.ns_per_s / 9);
}
