//! Suspension: whether the host has slept since the last look, by what boot time is ahead of monotonic time, which
//! stands still then. Knows no clock.
//! Invariant: a thread that has only waited for its turn is not taken for a host that has slept.
const std = @import("std");

/// Boot time, with monotonic time from before and after it was read.
pub const Reading = struct { before_ns: u64, boot_ns: u64, after_ns: u64 };

pub const Suspension = struct {
    /// The most that boot time was ahead, for all that is known.
    ahead_max_ns: u64,

    /// Both clocks go by the same steps; this is for what their reading rounds.
    const tolerance_ns = std.time.ns_per_ms;

    pub fn init(reading: Reading) Suspension {
        return .{ .ahead_max_ns = reading.boot_ns -| reading.before_ns };
    }

    pub fn look(suspension: *Suspension, reading: Reading) bool {
        const at_most = reading.boot_ns -| reading.before_ns;
        const at_least = reading.boot_ns -| reading.after_ns;
        const has_slept = at_least > suspension.ahead_max_ns +| tolerance_ns;
        suspension.ahead_max_ns = if (has_slept) at_most else @min(at_most, suspension.ahead_max_ns);
        return has_slept;
    }
};

const testing = std.testing;
const second = std.time.ns_per_s;

test "a host that has slept is noticed once, however long the thread waited while it read the clocks" {
    var suspension: Suspension = .init(.{ .before_ns = 100, .boot_ns = 5 * second, .after_ns = 300 });
    for (1..100) |i| {
        const now = @as(u64, i) * second;
        // The thread lost its core between any two of the three.
        for ([_][2]u64{ .{ 6, 1 }, .{ 5, 0 }, .{ 5, 1 } }) |seconds| {
            const ahead, const waited = seconds;
            try testing.expect(!suspension.look(.{
                .before_ns = now,
                .boot_ns = now + ahead * second,
                .after_ns = now + waited * second,
            }));
        }
    }
    const slept: Reading = .{ .before_ns = 200 * second, .boot_ns = 206 * second, .after_ns = 200 * second + 50 };
    try testing.expect(suspension.look(slept));
    try testing.expect(!suspension.look(slept));
    const again: Reading = .{ .before_ns = 201 * second, .boot_ns = 208 * second, .after_ns = 201 * second };
    try testing.expect(suspension.look(again));
}

test "clocks that cannot be read, or go back, are no sleep" {
    var suspension: Suspension = .init(.{ .before_ns = 0, .boot_ns = 0, .after_ns = 0 });
    try testing.expect(!suspension.look(.{ .before_ns = 0, .boot_ns = 0, .after_ns = 0 }));
    suspension = .init(.{ .before_ns = 10 * second, .boot_ns = 20 * second, .after_ns = 10 * second });
    try testing.expect(!suspension.look(.{ .before_ns = 30 * second, .boot_ns = 0, .after_ns = 30 * second }));
}
