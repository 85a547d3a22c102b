//! Chance: randomness that is read from a byte string first, and made from a seed when that ends. Whoever changes one
//! byte of the string changes one decision, so coverage can steer what is otherwise left to chance.
//! Invariant: the same bytes and seed make the same decisions; without bytes they are those of the seed alone.
const std = @import("std");

pub const Chance = struct {
    rest: []const u8,
    prng: std.Random.DefaultPrng,

    pub fn init(seed: u64) Chance {
        return .of("", seed);
    }

    pub fn of(bytes: []const u8, seed: u64) Chance {
        return .{ .rest = bytes, .prng = .init(seed) };
    }

    pub fn random(chance: *Chance) std.Random {
        return .init(chance, fill);
    }

    /// By the seed alone: for what must differ each time, as keys do.
    pub fn seeded(chance: *Chance) std.Random {
        return chance.prng.random();
    }

    /// From now on the seed alone decides.
    pub fn isSpent(chance: *const Chance) bool {
        return chance.rest.len == 0;
    }

    fn fill(chance: *Chance, out: []u8) void {
        const count = @min(out.len, chance.rest.len);
        @memcpy(out[0..count], chance.rest[0..count]);
        chance.rest = chance.rest[count..];
        if (count < out.len) chance.prng.fill(out[count..]);
    }
};

test "bytes come first, then the seed" {
    var mixed: Chance = .of("ab", 7);
    var seeded: Chance = .init(7);
    var out: [6]u8 = undefined;
    var expected: [4]u8 = undefined;
    mixed.random().bytes(&out);
    seeded.random().bytes(&expected);
    try std.testing.expectEqualStrings("ab", out[0..2]);
    try std.testing.expectEqualSlices(u8, &expected, out[2..]);
    try std.testing.expect(mixed.isSpent());
}

test "without bytes it is the generator of the seed" {
    var chance: Chance = .init(9);
    var prng: std.Random.DefaultPrng = .init(9);
    for (0..100) |_| try std.testing.expectEqual(prng.random().int(u64), chance.random().int(u64));
}
