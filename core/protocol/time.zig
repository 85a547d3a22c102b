//! Times that cannot be mixed up: Instant (boot-time clock), Timestamp (TAI64N, section 5.1), Now.
//! Does not know where they come from: the loop reads both clocks once per batch and passes them in.
//! Invariant: arithmetic saturates, so no clock, however wrong, can make it trap.
const std = @import("std");

pub const ns_per_second = std.time.ns_per_s;

/// Nanoseconds on CLOCK_BOOTTIME: never set back, goes on through suspend.
pub const Instant = struct {
    ns: u64,

    pub const never: Instant = .{ .ns = std.math.maxInt(u64) };

    pub fn after(instant: Instant, duration_ns: u64) Instant {
        return .{ .ns = instant.ns +| duration_ns };
    }

    pub fn since(later: Instant, earlier: Instant) u64 {
        return later.ns -| earlier.ns;
    }

    pub fn isBefore(a: Instant, b: Instant) bool {
        return a.ns < b.ns;
    }
};

/// TAI64N label, whitened: the low 24 bits of the nanoseconds are cleared so that it is no clock oracle.
pub const Timestamp = [12]u8;

/// Bits of the nanoseconds kept back from a timestamp, as in the kernel.
const whitening_mask: u32 = 0xff_ffff;

/// Both clocks, read once per batch.
pub const Now = struct {
    boot: Instant,
    /// Nanoseconds since the Unix epoch, CLOCK_REALTIME.
    unix_ns: u64,

    pub fn timestamp(now: Now) Timestamp {
        var label: Timestamp = undefined;
        const seconds = now.unix_ns / ns_per_second;
        const nanoseconds: u32 = @intCast(now.unix_ns % ns_per_second);
        std.mem.writeInt(u64, label[0..8], 0x4000_0000_0000_000a +% seconds, .big);
        std.mem.writeInt(u32, label[8..12], nanoseconds & ~whitening_mask, .big);
        return label;
    }
};

/// The next later label that whitening can show: one step of its 2^24 ns.
pub fn next(label: Timestamp) Timestamp {
    var result = label;
    const step: u32 = whitening_mask + 1;
    const nanoseconds = std.mem.readInt(u32, label[8..12], .big);
    if (nanoseconds < ns_per_second - step) {
        std.mem.writeInt(u32, result[8..12], nanoseconds + step, .big);
    } else {
        std.mem.writeInt(u32, result[8..12], 0, .big);
        std.mem.writeInt(u64, result[0..8], std.mem.readInt(u64, label[0..8], .big) +% 1, .big);
    }
    return result;
}

/// Labels compare as big-endian numbers.
pub fn isLater(a: Timestamp, b: Timestamp) bool {
    return std.mem.order(u8, &a, &b) == .gt;
}

test "timestamps are whitened, ordered and start at the TAI64 epoch" {
    const zero: Now = .{ .boot = .{ .ns = 0 }, .unix_ns = 0 };
    try std.testing.expectEqual([12]u8{ 0x40, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0 }, zero.timestamp());
    const a: Now = .{ .boot = .{ .ns = 0 }, .unix_ns = 1_700_000_000 * ns_per_second + 0x0100_0001 };
    const b: Now = .{ .boot = .{ .ns = 0 }, .unix_ns = 1_700_000_000 * ns_per_second + 0x01ff_ffff };
    try std.testing.expectEqual(a.timestamp(), b.timestamp());
    try std.testing.expect(isLater(next(a.timestamp()), a.timestamp()));
    var label = a.timestamp();
    for (0..200) |_| {
        const later = next(label);
        try std.testing.expect(isLater(later, label));
        try std.testing.expect(std.mem.readInt(u32, later[8..12], .big) < ns_per_second);
        label = later;
    }
}
