//! Window: which counters of a session have been received, by the bitmap of RFC 6479 (whitepaper section 5.4.6).
//! Knows no packet: the caller commits a counter once the tag is right, so that a forged one moves nothing.
//! Invariant: no counter is committed twice, and none that is more than `replay_window_bits` behind the newest.
const std = @import("std");
const assert = @import("wire").assert;
const constants = @import("constants.zig");

const word_bits = 64;
const word_count = constants.replay_bitmap_bits / word_bits;

pub const Window = extern struct {
    /// One more than the greatest counter committed.
    next: u64,
    /// Bit `counter % replay_bitmap_bits` tells of the one counter in the window that it can stand for.
    words: [word_count]u64,

    pub const init: Window = .{ .next = 0, .words = @splat(0) };

    /// Whether `commit` would accept this counter now; changes nothing.
    pub fn check(window: *const Window, counter: u64) bool {
        if (counter >= constants.REJECT_AFTER_MESSAGES) return false;
        if (counter >= window.next) return true;
        if (window.next - 1 - counter > constants.replay_window_bits) return false;
        return window.words[wordIndex(counter)] & bitMask(counter) == 0;
    }

    /// Marks the counter of an authentic packet. False when it is a replay.
    pub fn commit(window: *Window, counter: u64) bool {
        if (!window.check(counter)) return false;
        if (counter >= window.next) {
            window.forgetUpTo(counter);
            window.next = counter + 1;
        }
        window.words[wordIndex(counter)] |= bitMask(counter);
        return true;
    }

    /// Clears the words that now stand for newer counters, whole: so the window is one word short of the bitmap.
    fn forgetUpTo(window: *Window, counter: u64) void {
        const newest_word = (window.next -| 1) / word_bits;
        const steps = counter / word_bits - newest_word;
        if (steps >= word_count) {
            window.words = @splat(0);
            return;
        }
        for (1..@as(usize, @intCast(steps)) + 1) |step| {
            window.words[@intCast((newest_word + step) % word_count)] = 0;
        }
    }

    fn wordIndex(counter: u64) usize {
        return @intCast(counter / word_bits % word_count);
    }

    fn bitMask(counter: u64) u64 {
        return @as(u64, 1) << @intCast(counter % word_bits);
    }
};

comptime {
    assert(constants.replay_bitmap_bits % word_bits == 0);
    assert(std.math.isPowerOfTwo(word_count));
    assert(constants.replay_window_bits + word_bits <= constants.replay_bitmap_bits);
    // `counter + 1` fits.
    assert(constants.REJECT_AFTER_MESSAGES < std.math.maxInt(u64));
}

const testing = std.testing;
const reach = constants.replay_window_bits;
const limit = constants.REJECT_AFTER_MESSAGES;

const Step = struct { u64, bool };

fn expectSteps(steps: []const Step) !void {
    var window: Window = .init;
    for (steps) |step| {
        const counter, const accepted = step;
        try testing.expectEqual(accepted, window.check(counter));
        try testing.expectEqual(accepted, window.commit(counter));
        try testing.expect(!window.check(counter));
    }
}

test "counters are accepted once, in any order within the window" {
    try expectSteps(&.{
        .{ 0, true },          .{ 0, false },         .{ 2, true },          .{ 1, true },
        .{ 1, false },         .{ 2, false },         .{ 12, true },         .{ 11, true },
        .{ 10, true },         .{ 11, false },        .{ reach, true },      .{ reach - 1, true },
        .{ reach, false },     .{ reach - 1, false }, .{ 3, true },          .{ 0, false },
        .{ reach + 3, true },  .{ 2, false },         .{ 4, true },          .{ 4, false },
        .{ reach + 20, true }, .{ 19, false },        .{ 20, true },         .{ 20, false },
        .{ reach + 3, false }, .{ reach + 4, true },  .{ reach + 19, true }, .{ reach + 19, false },
    });
}

test "a jump forgets what it leaves behind, and nothing else" {
    const jumps = [_]u64{ 1, 63, 64, 65, reach - 1, reach, reach + 1, reach + 63, reach + 64, 5 * reach, 1 << 40 };
    for (jumps) |jump| {
        // Every position of a counter within its word.
        for (0..word_bits) |offset| {
            const old: u64 = (1 << 41) + @as(u64, offset);
            const new = old + jump;
            var window: Window = .init;
            try testing.expect(window.commit(old) and window.commit(new));
            for (0..reach + 2 * word_bits) |behind| {
                const expected = behind <= reach and behind != 0 and behind != jump;
                if (window.check(new - behind) != expected) return error.TestUnexpectedResult;
            }
        }
    }
}

test "the window ends at REJECT_AFTER_MESSAGES" {
    const all = std.math.maxInt(u64);
    try expectSteps(&.{
        .{ limit, false },     .{ all, false },       .{ limit - 1, true },          .{ limit - 1, false },
        .{ limit, false },     .{ limit + 1, false }, .{ all, false },               .{ limit - 2, true },
        .{ limit - 2, false }, .{ 0, false },         .{ limit - 1 - reach, true },  .{ limit - 2 - reach, false },
        .{ all - 1, false },   .{ limit - 3, true },  .{ limit - 1 - reach, false }, .{ 1 << 63, false },
    });
}

test "the whole window backwards is accepted once" {
    var window: Window = .init;
    var counter: u64 = reach + 1;
    while (counter > 0) {
        counter -= 1;
        try testing.expect(window.commit(counter));
    }
    for (0..reach + 1) |old| try testing.expect(!window.commit(old));
    window = .init;
    try testing.expect(window.commit(reach + 1));
    try testing.expect(!window.commit(0));
    try testing.expect(window.commit(1));
}

test "checking changes nothing, so a forged counter does no harm" {
    var window: Window = .init;
    try testing.expect(window.commit(4));
    const before = window;
    try testing.expect(window.check(1 << 63));
    try testing.expectEqual(before, window);
    try testing.expect(window.commit(5));
}

test "the window equals a set of all counters seen" {
    var prng: std.Random.DefaultPrng = .init(0x7077_6772);
    const random = prng.random();
    var seen: std.AutoHashMapUnmanaged(u64, void) = .empty;
    defer seen.deinit(testing.allocator);
    var window: Window = .init;
    var newest: u64 = 0;
    var accepted_count: usize = 0;
    for (0..100_000) |_| {
        const counter = switch (random.uintLessThan(u8, 16)) {
            0...5 => newest +| random.uintLessThan(u64, 4),
            6...8 => newest -| random.uintLessThan(u64, 100),
            9...12 => newest -| random.uintLessThan(u64, reach + 200),
            13 => newest -| (reach - 2 + random.uintLessThan(u64, 5)),
            14 => newest +| random.uintLessThan(u64, 200),
            15 => newest +| if (random.uintLessThan(u8, 32) == 0) random.uintLessThan(u64, 3 * reach) else 1,
            else => unreachable,
        };
        const expected = newest -| counter <= reach and !seen.contains(counter);
        try testing.expectEqual(expected, window.check(counter));
        try testing.expectEqual(expected, window.commit(counter));
        if (!expected) continue;
        try seen.put(testing.allocator, counter, {});
        newest = @max(newest, counter);
        accepted_count += 1;
    }
    try testing.expect(accepted_count > 30_000 and accepted_count < 90_000);
}
