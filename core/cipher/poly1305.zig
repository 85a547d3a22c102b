//! Poly1305 (RFC 8439 §2.5) over whole blocks, as the AEAD construction feeds it: every block is full or zero
//! padded, so every block carries the bit 2^128. Two forms of one type: 64-bit limbs where the machine
//! multiplies 64 by 64 bits, 26-bit limbs elsewhere.
//! Does not know messages, lengths or padding. Invariant: no branch and no index depends on r, s or the blocks.
const std = @import("std");
const builtin = @import("builtin");
const mem = std.mem;

pub const block_length = 16;
pub const key_length = 32;

/// The form that suits the target.
pub const Poly1305 = if (@bitSizeOf(usize) >= 64) Limbs64 else Limbs26;

/// The accumulator is h[0] + 2^64 h[1] + 2^128 h[2]. h[2] is less than 2^63 between blocks: what lies above bit 130
/// is folded back when the next block comes, beside its addition.
pub const Limbs64 = struct {
    h: [3]u64,
    key: *const Key,

    /// r, and s as RFC 8439 calls them; r times 5/4 beside.
    pub const Key = extern struct {
        r: [2]u64,
        r_times_five_quarters: u64,
        s: [2]u64,

        pub inline fn init(bytes: *const [key_length]u8) Key {
            const r1 = word(bytes[8..16]) & 0x0ffffffc0ffffffc;
            return .{
                .r = .{ word(bytes[0..8]) & 0x0ffffffc0fffffff, r1 },
                // 2^128 r1 = 5 (r1 / 4) mod p, and clamping made r1 a multiple of four.
                .r_times_five_quarters = r1 + (r1 >> 2),
                .s = .{ word(bytes[16..24]), word(bytes[24..32]) },
            };
        }
    };

    pub inline fn init(key: *const Key) Limbs64 {
        return .{ .h = .{ 0, 0, 0 }, .key = key };
    }

    /// h = (h + block) r mod 2^130 - 5, partly reduced.
    pub inline fn absorb(poly: *Limbs64, block: *const [block_length]u8) void {
        if (by_hand) return poly.absorbByHand(block);
        const h0, const h1, const h2 = poly.folded();
        const low = @addWithOverflow(
            @as(u128, h1) << 64 | h0,
            @as(u128, word(block[8..16])) << 64 | word(block[0..8]),
        );
        const a: u64 = @truncate(low[0]);
        const b: u64 = @truncate(low[0] >> 64);
        const c = h2 +% 1 +% low[1];
        const r0 = poly.key.r[0];
        const r1 = poly.key.r[1];
        const s1 = poly.key.r_times_five_quarters;
        const d0 = @as(u128, a) * r0 +% @as(u128, b) * s1;
        const d1 = @as(u128, a) * r1 +% @as(u128, b) * r0 +% (c *% s1 +% @as(u64, @truncate(d0 >> 64)));
        poly.h = .{ @truncate(d0), @truncate(d1), c *% r0 +% @as(u64, @truncate(d1 >> 64)) };
    }

    /// What lies above bit 130 comes back times five; h[2] <= 4 after it.
    inline fn folded(poly: *const Limbs64) [3]u64 {
        const low = @as(u128, poly.h[1]) << 64 | poly.h[0];
        const sum = @addWithOverflow(low, (poly.h[2] >> 2) *% 5);
        return .{ @truncate(sum[0]), @truncate(sum[0] >> 64), (poly.h[2] & 3) +% sum[1] };
    }

    /// The same, with the fewest instructions we know: 26, where the compiler takes 33 and forgets that the sums of
    /// small numbers have no carry. Bounds: the third limb is at most 6 before the products, r0 and r1 are less
    /// than 2^60, r1 times 5/4 less than 1.25 x 2^60.
    const by_hand = builtin.zig_backend == .stage2_llvm and builtin.cpu.arch == .x86_64 and
        std.Target.x86.featureSetHas(builtin.cpu.features, .bmi2);

    inline fn absorbByHand(poly: *Limbs64, block: *const [block_length]u8) void {
        var h0 = poly.h[0];
        var h1 = poly.h[1];
        var h2 = poly.h[2];
        var a0: u64 = undefined;
        var a1: u64 = undefined;
        var b0: u64 = undefined;
        var b1: u64 = undefined;
        var c: u64 = undefined;
        var e: u64 = undefined;
        asm volatile (
            \\mov %[h2], %[a0]
            \\shr $2, %[a0]
            \\lea (%[a0],%[a0],4), %[a0]
            \\and $3, %[h2]
            \\add (%[block]), %[h0]
            \\adc 8(%[block]), %[h1]
            \\adc $1, %[h2]
            \\add %[a0], %[h0]
            \\adc $0, %[h1]
            \\adc $0, %[h2]
            \\mulx (%[key]), %[a0], %[a1]
            \\mulx 8(%[key]), %[b0], %[b1]
            \\mov %[h1], %%rdx
            \\mulx (%[key]), %[h1], %[c]
            \\mulx 16(%[key]), %%rdx, %[e]
            \\add %[a0], %%rdx
            \\adc %[a1], %[e]
            \\mov %[h2], %[a0]
            \\imul 16(%[key]), %[a0]
            \\imul (%[key]), %[h2]
            \\add %[a0], %[e]
            \\add %[b1], %[h2]
            \\add %[b0], %[h1]
            \\adc %[c], %[h2]
            \\add %[e], %[h1]
            \\adc $0, %[h2]
            : [h0] "+{rdx}" (h0),
              [h1] "+&r" (h1),
              [h2] "+&r" (h2),
              [a0] "=&r" (a0),
              [a1] "=&r" (a1),
              [b0] "=&r" (b0),
              [b1] "=&r" (b1),
              [c] "=&r" (c),
              [e] "=&r" (e),
            : [block] "r" (block),
              [key] "r" (poly.key),
            : .{ .memory = true });
        poly.h = .{ h0, h1, h2 };
    }

    /// The tag as a little-endian number: h mod 2^130 - 5, plus s mod 2^128.
    pub inline fn finish(poly: *const Limbs64) u128 {
        const h0, const h1, const h2 = poly.folded();
        const h = @as(u128, h1) << 64 | h0;
        const plus5 = @addWithOverflow(h, 5);
        // h >= p exactly when h + 5 reaches bit 130. A mask, not a branch: h is secret.
        const reached: u64 = (h2 +% plus5[1]) >> 2;
        const half: u64 = 0 -% reached;
        const mask = @as(u128, half) << 64 | half;
        const reduced = h ^ ((h ^ plus5[0]) & mask);
        return reduced +% (@as(u128, poly.key.s[1]) << 64 | poly.key.s[0]);
    }

    /// One load; mem.readInt compiles to one a byte.
    inline fn word(bytes: *const [8]u8) u64 {
        return mem.littleToNative(u64, @as(*align(1) const u64, @ptrCast(bytes)).*);
    }
};

/// The accumulator is the sum of 2^(26 i) h[i]; products of limbs fit 64 bits with room for the sums.
pub const Limbs26 = struct {
    h: [5]u32,
    key: *const Key,

    const limb_mask = (1 << 26) - 1;

    pub const Key = struct {
        r: [5]u32,
        s: [4]u32,

        pub inline fn init(bytes: *const [key_length]u8) Key {
            return .{
                .r = .{
                    word(bytes[0..4]) & 0x3ffffff,
                    word(bytes[3..7]) >> 2 & 0x3ffff03,
                    word(bytes[6..10]) >> 4 & 0x3ffc0ff,
                    word(bytes[9..13]) >> 6 & 0x3f03fff,
                    word(bytes[12..16]) >> 8 & 0x00fffff,
                },
                .s = .{ word(bytes[16..20]), word(bytes[20..24]), word(bytes[24..28]), word(bytes[28..32]) },
            };
        }
    };

    pub inline fn init(key: *const Key) Limbs26 {
        return .{ .h = @splat(0), .key = key };
    }

    pub inline fn absorb(poly: *Limbs26, block: *const [block_length]u8) void {
        const r = poly.key.r;
        const h: [5]u32 = .{
            poly.h[0] +% (word(block[0..4]) & limb_mask),
            poly.h[1] +% (word(block[3..7]) >> 2 & limb_mask),
            poly.h[2] +% (word(block[6..10]) >> 4 & limb_mask),
            poly.h[3] +% (word(block[9..13]) >> 6 & limb_mask),
            poly.h[4] +% (word(block[12..16]) >> 8 | 1 << 24),
        };
        var d: [5]u64 = @splat(0);
        inline for (0..5) |i| inline for (0..5) |j| {
            // Limb 5 and above comes back times five.
            const factor = if (i + j < 5) r[j] else r[j] * 5;
            d[(i + j) % 5] +%= @as(u64, h[i]) * factor;
        };
        var carry: u64 = 0;
        inline for (&poly.h, d) |*limb, sum| {
            const total = sum +% carry;
            limb.* = @truncate(total & limb_mask);
            carry = total >> 26;
        }
        const back = poly.h[0] +% @as(u32, @truncate(carry)) *% 5;
        poly.h[0] = back & limb_mask;
        poly.h[1] +%= back >> 26;
    }

    pub inline fn finish(poly: *const Limbs26) u128 {
        // Two passes of carries make every limb 26 bits wide.
        var h = poly.h;
        inline for (0..2) |_| {
            var carry: u32 = 0;
            inline for (&h) |*limb| {
                const total = limb.* +% carry;
                limb.* = total & limb_mask;
                carry = total >> 26;
            }
            h[0] +%= carry *% 5;
        }
        // g = h + 5; h >= p exactly when g reaches bit 130.
        var g: [5]u32 = undefined;
        var carry: u32 = 5;
        inline for (&g, h) |*limb, old| {
            const total = old +% carry;
            limb.* = total & limb_mask;
            carry = total >> 26;
        }
        const mask = 0 -% carry;
        inline for (&h, g) |*limb, new| limb.* ^= (limb.* ^ new) & mask;
        const packed_words = [4]u32{
            h[0] | h[1] << 26,
            h[1] >> 6 | h[2] << 20,
            h[2] >> 12 | h[3] << 14,
            h[3] >> 18 | h[4] << 8,
        };
        var tag: u128 = 0;
        var sum: u64 = 0;
        inline for (packed_words, poly.key.s, 0..) |w, s, i| {
            sum = (sum >> 32) + w + s;
            tag |= @as(u128, sum & 0xffff_ffff) << (32 * i);
        }
        return tag;
    }

    inline fn word(bytes: *const [4]u8) u32 {
        return mem.littleToNative(u32, @as(*align(1) const u32, @ptrCast(bytes)).*);
    }
};

fn expectLikeStd(key: *const [32]u8, message: []const u8) !void {
    std.debug.assert(message.len % block_length == 0);
    var expected: [16]u8 = undefined;
    std.crypto.onetimeauth.Poly1305.create(&expected, message, key);
    inline for (.{ Limbs64, Limbs26 }) |Form| {
        const form_key: Form.Key = .init(key);
        var poly: Form = .init(&form_key);
        var i: usize = 0;
        while (i < message.len) : (i += block_length) poly.absorb(message[i..][0..block_length]);
        try std.testing.expectEqual(mem.readInt(u128, &expected, .little), poly.finish());
    }
}

test "blocks of all ones with r at the limits of the clamp" {
    const limits = [_][16]u8{
        @splat(0xff),
        @splat(0),
        @splat(0xfc),
        @splat(0x0f),
        .{1} ++ @as([15]u8, @splat(0)),
        .{2} ++ @as([15]u8, @splat(0)),
        @as([15]u8, @splat(0)) ++ .{0x0f},
        .{0xfb} ++ @as([15]u8, @splat(0xff)),
    };
    const fills = [_]u8{ 0xff, 0, 0xfe, 0x80, 0x7f, 1 };
    for (limits) |r| for (limits) |s| for (fills) |fill| {
        const message: [16 * 9]u8 = @splat(fill);
        for (0..10) |blocks| try expectLikeStd(&(r ++ s), message[0 .. blocks * 16]);
    };
}

test "accumulators on both sides of 2^130 - 5 and of its multiples" {
    // With r = 1 the accumulator is the plain sum of the blocks, each plus 2^128; three full blocks of ones plus
    // a last one choose it freely: 4 x 2^128 + (last - 3) = 2^130 + (last - 3).
    const one: [16]u8 = .{1} ++ @as([15]u8, @splat(0));
    const ones: [16]u8 = @splat(0xff);
    const pads = [_][16]u8{ @splat(0), @splat(0xff), one };
    for (pads) |s| for (0..40) |low| {
        var last: [16]u8 = @splat(0);
        last[0] = @intCast(low);
        // 2^130 - 3 + low
        try expectLikeStd(&(one ++ s), &(ones ++ ones ++ ones ++ last));
        // 2^130 - 3 + low - 20, reached from below
        const near: [16]u8 = .{@as(u8, @intCast(0xff - low))} ++ @as([15]u8, @splat(0xff));
        const zero: [16]u8 = @splat(0);
        try expectLikeStd(&(one ++ s), &(zero ++ zero ++ near));
        try expectLikeStd(&(one ++ s), &(zero ++ zero ++ zero ++ last));
        try expectLikeStd(&(one ++ s), &(ones ++ ones ++ near));
        try expectLikeStd(&(one ++ s), &(ones ++ ones ++ near ++ near ++ near ++ near ++ near ++ last));
    };
    // RFC 8439 A.3, vectors 6 to 9: sums that carry out of 2^128, and one that ends just below p.
    const two: [16]u8 = .{2} ++ @as([15]u8, @splat(0));
    const none: [16]u8 = @splat(0);
    const f0: [16]u8 = .{0xf0} ++ @as([15]u8, @splat(0xff));
    const fb: [16]u8 = .{0xfb} ++ @as([15]u8, @splat(0xfe));
    const fd: [16]u8 = .{0xfd} ++ @as([15]u8, @splat(0xff));
    const x11: [16]u8 = .{0x11} ++ @as([15]u8, @splat(0));
    try expectLikeStd(&(two ++ ones), &two);
    try expectLikeStd(&(one ++ none), &(ones ++ f0 ++ x11));
    try expectLikeStd(&(one ++ none), &(ones ++ fb ++ @as([16]u8, @splat(1))));
    try expectLikeStd(&(two ++ none), &fd);
}

test "random keys and messages give std's tag" {
    var prng: std.Random.DefaultPrng = .init(1305);
    const random = prng.random();
    var key: [32]u8 = undefined;
    var message: [16 * 40]u8 = undefined;
    for (0..2000) |_| {
        random.bytes(&key);
        random.bytes(&message);
        try expectLikeStd(&key, message[0 .. random.uintAtMost(usize, 40) * 16]);
    }
}
