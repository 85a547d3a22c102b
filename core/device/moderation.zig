//! Moderation: how long a worker that comes before the programs it serves waits for them to say more. A realtime thread
//! runs as soon as there is one packet, in the place of whoever would have sent the next: then each packet costs a
//! wake-up and a system call of its own. So turns that follow closely begin at most every `interval_ns`. Whoever was
//! idle for longer, had more to do, or left something lying waits for nothing. Knows no clock.
//! Invariant: a turn is put off by less than `interval_ns`.
const std = @import("std");

pub const Moderation = struct {
    /// When the last turn began, or its pause was over.
    last_ns: u64 = 0,

    /// Measured (docs/performance.md): longer carries more small packets, but a ping under load waits longer.
    pub const interval_ns = 200_000;

    /// How long to wait now that a turn is over, and it is `now_ns`; 0 for not at all. The wait begins at once.
    pub fn pause(moderation: *Moderation, now_ns: u64) u64 {
        const wait = interval_ns -| (now_ns -| moderation.last_ns);
        moderation.last_ns = now_ns + wait;
        return wait;
    }
};

test "only turns that follow closely are put off" {
    var moderation: Moderation = .{};
    const interval = Moderation.interval_ns;
    try std.testing.expectEqual(0, moderation.pause(1_000_000_000));
    try std.testing.expectEqual(interval - 10_000, moderation.pause(1_000_010_000));
    // The pause counts: a turn that took as long as the interval is followed by the next at once.
    try std.testing.expectEqual(0, moderation.pause(1_000_000_000 + 2 * interval));
    try std.testing.expectEqual(interval, moderation.pause(1_000_000_000 + 2 * interval));
    try std.testing.expectEqual(0, moderation.pause(2_000_000_000));
}

test "a clock that goes back, or is far in the future, does no harm" {
    var moderation: Moderation = .{ .last_ns = 5_000_000_000 };
    try std.testing.expectEqual(Moderation.interval_ns, moderation.pause(1_000));
    try std.testing.expectEqual(0, moderation.pause(std.math.maxInt(u64) - Moderation.interval_ns));
}
