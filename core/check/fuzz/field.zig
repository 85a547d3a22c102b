//! Poly1305 (RFC 8439 §2.5) in whole numbers modulo 2^130 - 5, without limbs: what core/cipher/poly1305.zig is checked
//! against. Also finds the block that takes the accumulator to a value of choice.
//! Knows nothing of the code it checks. Invariant: every number that is handed out is less than p.
const std = @import("std");
const mem = std.mem;

pub const block_length = 16;
pub const Block = [block_length]u8;
/// Room for a product of two numbers below 2^130 and for the sums beside it.
pub const Number = u320;
pub const p: Number = (1 << 130) - 5;
/// Above every block, full or zero padded.
pub const bit: Number = 1 << 128;

pub const Key = struct {
    r: Number,
    s: u128,

    pub fn init(bytes: *const [32]u8) Key {
        const clamp = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        return .{
            .r = mem.readInt(u128, bytes[0..16], .little) & clamp,
            .s = mem.readInt(u128, bytes[16..32], .little),
        };
    }

    /// The accumulator after one more block.
    pub fn absorb(key: Key, accumulator: Number, block: *const Block) Number {
        return multiply(accumulator + number(block), key.r);
    }

    pub fn tag(key: Key, accumulator: Number) u128 {
        return @as(u128, @truncate(accumulator)) +% key.s;
    }
};

pub fn number(block: *const Block) Number {
    return bit + mem.readInt(u128, block, .little);
}

/// 2^130 = 5 (mod p).
pub fn reduce(value: Number) Number {
    var left = value;
    while (left >> 130 != 0) left = (left & ((1 << 130) - 1)) + (left >> 130) * 5;
    return if (left >= p) left - p else left;
}

fn multiply(a: Number, b: Number) Number {
    return reduce(reduce(a) * reduce(b));
}

/// Fermat: a^(p - 2). Zero has no inverse.
pub fn invert(a: Number) ?Number {
    if (reduce(a) == 0) return null;
    var result: Number = 1;
    var square = reduce(a);
    var exponent = p - 2;
    while (exponent != 0) : (exponent >>= 1) {
        if (exponent & 1 != 0) result = multiply(result, square);
        square = multiply(square, square);
    }
    return result;
}

/// The accumulator before `block`, if it is `after` behind it.
pub fn retreat(after: Number, r_inverse: Number, block: *const Block) Number {
    return reduce(multiply(after, r_inverse) + p + p - number(block));
}

/// The block that takes the accumulator from `before` to `after`. Three of four values need more than 128 bits.
pub fn steer(before: Number, after: Number, r_inverse: Number) ?Block {
    const wanted = reduce(multiply(after, r_inverse) + p + p - bit - reduce(before));
    if (wanted >= bit) return null;
    var block: Block = undefined;
    mem.writeInt(u128, &block, @intCast(wanted), .little);
    return block;
}

/// Where carries and the last reduction go wrong if they do: around p, around 2^128, around the edges of limbs of
/// 26, 32, 44 and 64 bits.
pub fn edge(random: std.Random) Number {
    const edges = [_]u8{ 26, 32, 44, 52, 64, 78, 88, 96, 104, 128, 129 };
    const offset = random.uintAtMost(u32, 6);
    return switch (random.uintLessThan(u32, 4)) {
        0 => offset,
        1 => p - 1 - offset,
        2 => reduce((@as(Number, 1) << edges[random.uintLessThan(u32, edges.len)]) + 3 - offset),
        // All ones above one of the edges, or below it.
        else => blk: {
            const low = (@as(Number, 1) << edges[random.uintLessThan(u32, edges.len)]) - 1;
            break :blk reduce(if (random.boolean()) low else ((1 << 130) - 1) ^ low);
        },
    };
}

test "the sum of RFC 8439 2.5.2" {
    var bytes: [32]u8 = undefined;
    _ = try std.fmt.hexToBytes(&bytes, "85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b");
    const key: Key = .init(&bytes);
    var accumulator: Number = 0;
    const message = "Cryptographic Forum Research Gro";
    for (0..2) |i| accumulator = key.absorb(accumulator, message[i * 16 ..][0..16]);
    // The third line of the RFC's example ends in a short block, which has its bit at 2^16.
    accumulator = multiply(accumulator + 0x1_7075, key.r);
    var tag: [16]u8 = undefined;
    mem.writeInt(u128, &tag, key.tag(accumulator), .little);
    try std.testing.expectEqualStrings("a8061dc1305136c6c22b8baf0c0127a9", &std.fmt.bytesToHex(tag, .lower));
}

test "reduction, inverses and steering are what division says" {
    var prng: std.Random.DefaultPrng = .init(130);
    const random = prng.random();
    var steered: usize = 0;
    for (0..200) |_| {
        const value = random.int(Number) >> 8;
        try std.testing.expectEqual(value % p, reduce(value));
        const inverse = invert(value).?;
        try std.testing.expectEqual(1, (value % p) * inverse % p);
        var bytes: [32]u8 = undefined;
        random.bytes(&bytes);
        const key: Key = .init(&bytes);
        const before = edge(random);
        const after = edge(random);
        try std.testing.expect(before < p and after < p);
        const block = steer(before, after, invert(key.r).?) orelse continue;
        try std.testing.expectEqual(after, key.absorb(before, &block));
        try std.testing.expectEqual(before, retreat(after, invert(key.r).?, &block));
        steered += 1;
    }
    try std.testing.expect(steered > 10);
}
