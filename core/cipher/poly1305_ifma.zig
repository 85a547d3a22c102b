//! Poly1305 (RFC 8439 §2.5) of whole packets as the AEAD construction has it without associated data (§2.8): the
//! ciphertext padded with zeros, then the block of lengths. Eight numbers mod p = 2^130 - 5 side by side, in limbs of
//! 44, 44 and 42 bits, for the 52-bit multiply-add of AVX-512 IFMA.
//!
//! Two forms. `eight`: as many packets, one a lane, four blocks of each a step: h = (h + m0) r^4 + m1 r^3 + m2 r^2 +
//! m3 r. `one`: a packet whose blocks lie across the lanes, sixteen a step: h = (h + m0..7) r^16 + m8..15 r^8, and in
//! the last step each lane its own powers. Packets end where a step ends, so that what is missing is missing at the
//! front: zero blocks without the bit 2^128 leave h zero, and packets of different lengths go together.
//!
//! Does not know ciphers, verdicts or the order of packets. Invariants: no branch and no address depends on a key or
//! on data, only on lengths; outside of a packet nothing is read.
//!
//! Three instructions are written by hand. Where there is no IFMA they are functions that also check their operands:
//! that is for tests, which so hold the bounds given here on every machine and under valgrind.
const std = @import("std");
const builtin = @import("builtin");
const mem = std.mem;

pub const block_length = 16;
/// r and s, and as much that does not count: a row, so that it takes no mask to load.
pub const KeyBlock = [row_length]u8;

/// Packets that `eight` takes.
pub const lanes = 8;

pub const Packet = struct {
    key: *const KeyBlock,
    data: [*]const u8,
    length: usize,

    /// The block of lengths among them.
    inline fn blocks(packet: Packet) usize {
        return (packet.length + block_length - 1) / block_length + 1;
    }
};

/// Is the code the real one? False in programs for any CPU.
pub const is_native = builtin.zig_backend == .stage2_llvm and builtin.cpu.arch == .x86_64 and
    std.Target.x86.featureSetHas(builtin.cpu.features, .avx512ifma) and
    std.Target.x86.featureSetHas(builtin.cpu.features, .avx512bw);

const V = @Vector(lanes, u64);
const Row = @Vector(64, u8);

/// How much of a row is there: the bytes of one step of a lane.
const row_length = 64;
const row_blocks = row_length / block_length;

// ---- numbers ------------------------------------------------------------------------------------------------------

/// limb[0] + 2^44 limb[1] + 2^88 limb[2] in each lane. Between steps the limbs are less than `limits`.
const Number = [3]V;

const widths = [3]u6{ 44, 44, 42 };
/// What `Sums.reduced` leaves; its bounds are there.
const limits = [3]u64{ (1 << 44) + (1 << 17), (1 << 44) + (1 << 12), (1 << 42) + (1 << 12) };
const zero: Number = @splat(@as(V, @splat(0)));

/// Bit 2^128 in the third limb: every block that is there carries it.
const block_bit = 1 << 40;

inline fn low(comptime limb: usize, of: V) V {
    return of & @as(V, @splat((1 << widths[limb]) - 1));
}

inline fn above(comptime limb: usize, of: V) V {
    return of >> @splat(widths[limb]);
}

inline fn sum(a: Number, b: Number) Number {
    return .{ a[0] +% b[0], a[1] +% b[1], a[2] +% b[2] };
}

/// A factor: the number, and its upper limbs times 20, because 2^132 = 20 mod p. Times 20 they are less than 2^48.4.
const Factor = struct {
    limb: [3]V,
    twenty: [3]V,

    inline fn of(n: Number) Factor {
        expectBelow(n, limits);
        var factor: Factor = .{ .limb = n, .twenty = undefined };
        inline for (1..3) |i| factor.twenty[i] = multiplyAdd(.lower, @splat(0), n[i], @splat(20));
        return factor;
    }

    /// std.crypto.secureZero in whole vectors.
    inline fn wipe(f: *Factor) void {
        inline for (&f.limb, &f.twenty) |*a, *b| {
            @as(*volatile V, a).* = @splat(0);
            @as(*volatile V, b).* = @splat(0);
        }
    }

    /// What limb `i` of the other number is multiplied by to become a part of limb `j` of the product.
    inline fn against(f: *const Factor, comptime i: usize, comptime j: usize) V {
        return if (j >= i) f.limb[j - i] else f.twenty[j + 3 - i];
    }
};

/// Sums of products before their carries: the low 52 bits of each product, and what is above them.
///
/// Bounds, for the most that is ever summed: h + m times a factor, and three blocks m times factors. Limbs of h + m are
/// less than 2^45.1, 2^45.1, 2^42.7, those of m less than 2^44, 2^44, 2^41, those of factors less than 2^44.1, 2^44.1,
/// 2^42.1. Each limb takes three products a factor, so its low sum is less than 12 x 2^52 < 2^55.6; the upper sums are
/// less than 2^41.7, 2^40 and 2^39.
const Sums = struct {
    lower: Number = zero,
    upper: Number = zero,

    inline fn add(s: *Sums, n: Number, f: *const Factor) void {
        @setEvalBranchQuota(10_000);
        inline for (0..3) |i| inline for (0..3) |j| s.addPart(n, f, i, j);
    }

    /// Two additions in turns: twelve chains keep both multipliers busy, six do not.
    inline fn addTwo(a: *Sums, n: Number, f: *const Factor, b: *Sums, m: Number, g: *const Factor) void {
        @setEvalBranchQuota(10_000);
        inline for (0..3) |i| inline for (0..3) |j| {
            a.addPart(n, f, i, j);
            b.addPart(m, g, i, j);
        };
    }

    inline fn addPart(s: *Sums, n: Number, f: *const Factor, comptime i: usize, comptime j: usize) void {
        s.lower[j] = multiplyAdd(.lower, s.lower[j], n[i], f.against(i, j));
        s.upper[j] = multiplyAdd(.upper, s.upper[j], n[i], f.against(i, j));
    }

    inline fn plus(a: Sums, b: Sums) Sums {
        return .{ .lower = sum(a.lower, b.lower), .upper = sum(a.upper, b.upper) };
    }

    /// One round of carries, every limb by what was in the one below before. An upper sum weighs 2^52, which is 2^8 of
    /// the next limb; that of the last limb weighs 2^140 = 20 x 2^8, and 20 x 2^8 x 2^39 is less than 2^52. So d[i] is
    /// less than 2^55.8, and what is carried is less than 2^11.8 into limbs 1 and 2, and 5 x 2^13.8 < 2^17 into limb 0.
    inline fn reduced(s: *const Sums) Number {
        expectBelow(s.lower, @splat(12 << 52));
        expectBelow(s.upper, .{ 1 << 42, 1 << 40, 1 << 39 });
        const d: Number = .{
            multiplyAdd(.lower, s.lower[0], s.upper[2], @splat(20 << 8)),
            s.lower[1] +% (s.upper[0] << @splat(8)),
            s.lower[2] +% (s.upper[1] << @splat(8)),
        };
        const n: Number = .{
            multiplyAdd(.lower, low(0, d[0]), above(2, d[2]), @splat(5)),
            low(1, d[1]) +% above(0, d[0]),
            low(2, d[2]) +% above(1, d[1]),
        };
        expectBelow(n, limits);
        return n;
    }
};

inline fn product(n: Number, f: *const Factor) Number {
    var s: Sums = .{};
    s.add(n, f);
    return s.reduced();
}

/// Blocks by their halves of eight bytes, plus `bit`.
inline fn number(halves: [2]V, bit: V) Number {
    const first, const second = halves;
    return .{
        low(0, first),
        low(1, (first >> @splat(44)) | (second << @splat(20))),
        (second >> @splat(24)) | bit,
    };
}

inline fn whole(halves: [2]V) Number {
    return number(halves, @splat(block_bit));
}

/// r, clamped (RFC 8439 §2.5.1).
inline fn clamped(halves: [2]V) Number {
    const first: V = @splat(0x0ffffffc0fffffff);
    const second: V = @splat(0x0ffffffc0ffffffc);
    return number(.{ halves[0] & first, halves[1] & second }, @splat(0));
}

/// The tags by their halves: h mod p, plus s mod 2^128. Takes limbs less than 2^48.
inline fn finish(h: Number, s: [2]V) [2]V {
    expectBelow(h, @splat(1 << 48));
    var n = h;
    n[1] +%= above(0, n[0]);
    n[2] +%= above(1, n[1]);
    n[0] = multiplyAdd(.lower, low(0, n[0]), above(2, n[2]), @splat(5));
    n[1] = low(1, n[1]);
    n[2] = low(2, n[2]);
    // Less than 2^130 + 2^9 now, so one more round for it and for it plus 5, which reaches 2^130 exactly when n >= p.
    var more = n;
    more[0] +%= @as(V, @splat(5));
    inline for (.{ &n, &more }) |x| {
        x[1] +%= above(0, x[0]);
        x[2] +%= above(1, x[1]);
        x[0] = low(0, x[0]);
        x[1] = low(1, x[1]);
    }
    // A mask, not a branch: h is secret.
    const reached = @as(V, @splat(0)) -% above(2, more[2]);
    inline for (&n, more) |*limb, other| limb.* ^= (limb.* ^ other) & reached;
    // Bit 130 is shifted out.
    const first = n[0] | n[1] << @splat(44);
    const second = n[1] >> @splat(20) | n[2] << @splat(24);
    const total = first +% s[0];
    const carry = ((first & s[0]) | ((first | s[0]) & ~total)) >> @splat(63);
    return .{ total, second +% s[1] +% carry };
}

inline fn expectBelow(n: Number, bounds: [3]u64) void {
    if (!has_checks) return;
    inline for (n, bounds) |limb, bound| std.debug.assert(@reduce(.And, limb < @as(V, @splat(bound))));
}

const has_checks = std.debug.runtime_safety;

// ---- eight packets ------------------------------------------------------------------------------------------------

/// Packets with lanes in common may be one and the same.
pub noinline fn eight(packets: *const [lanes]Packet, tags: *[lanes][block_length]u8) void {
    var rows: [lanes]V = undefined;
    inline for (&rows, packets) |*row, packet| row.* = load(packet.key);
    const key = transposed(&rows);
    // r^4 first.
    var powers: [4]Factor = undefined;
    defer inline for (&powers) |*power| power.wipe();
    const r = clamped(key[0]);
    powers[3] = .of(r);
    const square = product(r, &powers[3]);
    powers[2] = .of(square);
    powers[1] = .of(product(square, &powers[3]));
    powers[0] = .of(product(square, &powers[2]));

    const group: Group = .of(packets);
    var h = zero;
    var step: usize = 0;
    while (step < group.full_from) : (step += 1) h = group.atEdge(step, h, &powers);
    if (step < group.steps - 1) h = group.inside(h, &powers);
    h = group.atEdge(group.steps - 1, h, &powers);
    storeTags(finish(h, key[1]), tags);
}

/// Eight packets laid out so that they end together.
const Group = struct {
    packets: *const [lanes]Packet,
    lengths: V,
    steps: usize,
    /// Steps from here to the last but one have all blocks of all packets.
    full_from: usize,
    is_uniform: bool,

    inline fn of(packets: *const [lanes]Packet) Group {
        var longest: usize = 0;
        var shortest: usize = std.math.maxInt(usize);
        inline for (packets) |packet| {
            longest = @max(longest, packet.blocks());
            shortest = @min(shortest, packet.blocks());
        }
        var lengths: V = undefined;
        inline for (packets, 0..) |packet, i| lengths[i] = packet.length;
        const steps = (longest + row_blocks - 1) / row_blocks;
        const full_from = @min(steps - shortest / row_blocks, steps - 1);
        return .{
            .packets = packets,
            .lengths = lengths,
            .steps = steps,
            .full_from = full_from,
            .is_uniform = @reduce(.And, lengths == @as(V, @splat(packets[0].length))),
        };
    }

    /// All steps that need no mask. The sums that lack h are made while the last step's carries run.
    inline fn inside(group: *const Group, before: Number, powers: *const [4]Factor) Number {
        var at: [lanes][*]const u8 = undefined;
        inline for (&at, group.packets) |*from, packet| {
            const missing = group.steps * row_blocks - packet.blocks();
            from.* = packet.data + (group.full_from * row_blocks - missing) * block_length;
        }
        var h = before;
        var blocks = loadBlocks(&at, 0);
        var ahead: Sums = .{};
        inline for (1..4) |i| ahead.add(whole(blocks[i]), &powers[i]);
        var first = whole(blocks[0]);
        const count = group.steps - 1 - group.full_from;
        for (1..count) |i| {
            blocks = loadBlocks(&at, i * row_length);
            var next: Sums = .{};
            var more: Sums = .{};
            ahead.addTwo(sum(h, first), &powers[0], &next, whole(blocks[1]), &powers[1]);
            next.addTwo(whole(blocks[2]), &powers[2], &more, whole(blocks[3]), &powers[3]);
            h = ahead.reduced();
            ahead = next.plus(more);
            first = whole(blocks[0]);
        }
        ahead.add(sum(h, first), &powers[0]);
        return ahead.reduced();
    }

    /// A step in which packets begin or end.
    noinline fn atEdge(group: *const Group, step: usize, before: Number, powers: *const [4]Factor) Number {
        var rows: [lanes]V = undefined;
        if (group.is_uniform) {
            const part = group.partOf(group.packets[0], step);
            inline for (&rows, group.packets) |*row, packet| {
                row.* = loadPart(packet.data + part.at, part.length, part.gap);
            }
        } else inline for (&rows, group.packets) |*row, packet| {
            const part = group.partOf(packet, step);
            row.* = loadPart(packet.data + part.at, part.length, part.gap);
        }
        var blocks = transposed(&rows);
        if (step == group.steps - 1) blocks[row_blocks - 1] = .{ @splat(0), group.lengths };
        // A lane's first block, counted from the beginning of this step.
        const present = ((group.lengths +% @as(V, @splat(block_length - 1))) >> @splat(4)) +% @as(V, @splat(1));
        const end: V = @splat((group.steps - step) * row_blocks);
        var s: Sums = .{};
        inline for (.{ 1, 2, 3, 0 }) |i| {
            const is_present = present +% @as(V, @splat(i)) >= end;
            const m = number(blocks[i], @select(u64, is_present, @as(V, @splat(block_bit)), @as(V, @splat(0))));
            s.add(if (i == 0) sum(before, m) else m, &powers[i]);
        }
        return s.reduced();
    }

    /// Where a packet's bytes of this step are, and how many bytes of the step come before them.
    inline fn partOf(group: *const Group, packet: Packet, step: usize) Part {
        return .of(packet, (group.steps * row_blocks - packet.blocks()) * block_length, step * row_length);
    }

    inline fn loadBlocks(at: *const [lanes][*]const u8, offset: usize) [row_blocks][2]V {
        var rows: [lanes]V = undefined;
        inline for (&rows, at) |*row, from| row.* = load(from + offset);
        return transposed(&rows);
    }
};

/// What there is of a packet in a row.
const Part = struct {
    /// In the packet.
    at: usize,
    length: usize,
    /// Bytes of the row before it.
    gap: usize,

    /// The row is at `begin` of a layout in which the packet is at `missing`.
    inline fn of(packet: Packet, missing: usize, begin: usize) Part {
        const gap = @min(missing -| begin, row_length);
        const at = @min(begin -| missing, packet.length);
        return .{ .at = at, .length = @min(row_length - gap, packet.length - at), .gap = gap };
    }
};

/// Rows of packets turned into blocks: of each of a row's four blocks the halves, in the packets' order.
inline fn transposed(rows: *const [lanes]V) [row_blocks][2]V {
    // Block j of the even packets and of the odd ones.
    var blocks: [2][row_blocks]V = undefined;
    inline for (0..2) |odd| {
        var front: [2]V = undefined;
        var back: [2]V = undefined;
        inline for (0..2) |half| {
            front[half] = pieces(rows[odd], rows[odd + 2], .{ 2 * half, 2 * half + 1 });
            back[half] = pieces(rows[odd + 4], rows[odd + 6], .{ 2 * half, 2 * half + 1 });
        }
        inline for (&blocks[odd], 0..) |*block, j| {
            block.* = pieces(front[j / 2], back[j / 2], .{ j % 2, j % 2 + 2 });
        }
    }
    var halves: [row_blocks][2]V = undefined;
    inline for (&halves, blocks[0], blocks[1]) |*pair, even, odd| pair.* = interleaved(even, odd);
    return halves;
}

/// Two pieces of 128 bits of a, then the same of b.
inline fn pieces(a: V, b: V, comptime which: [2]i32) V {
    @setEvalBranchQuota(10_000);
    comptime var mask: [lanes]i32 = undefined;
    comptime for (&mask, 0..) |*m, i| {
        const source = 2 * which[i / 2 % 2] + i % 2;
        m.* = if (i < 4) source else ~@as(i32, source);
    };
    return @shuffle(u64, a, b, mask);
}

/// The lower halves of all pieces of 128 bits, of a and b in turns, and the upper ones.
inline fn interleaved(a: V, b: V) [2]V {
    return .{
        @shuffle(u64, a, b, [lanes]i32{ 0, -1, 2, -3, 4, -5, 6, -7 }),
        @shuffle(u64, a, b, [lanes]i32{ 1, -2, 3, -4, 5, -6, 7, -8 }),
    };
}

inline fn storeTags(halves: [2]V, tags: *[lanes][block_length]u8) void {
    const even, const odd = interleaved(halves[0], halves[1]);
    const bytes: *[2]Row = @ptrCast(@alignCast(tags));
    const front = @shuffle(u64, even, odd, [lanes]i32{ 0, 1, -1, -2, 2, 3, -3, -4 });
    const back = @shuffle(u64, even, odd, [lanes]i32{ 4, 5, -5, -6, 6, 7, -7, -8 });
    bytes.* = .{ @bitCast(front), @bitCast(back) };
}

// ---- one packet ---------------------------------------------------------------------------------------------------

/// Blocks of a step, as four rows: the lanes hold blocks 0, 4, 1, 5, 2, 6, 3, 7 of the step, as `interleaved` leaves
/// them, and then 8 more in the same order.
const step_rows = 4;
const step_blocks = step_rows * row_blocks;
const lane_blocks: V = .{ 0, 4, 1, 5, 2, 6, 3, 7 };

/// The tag of one packet, or of each of a few: faster than `eight` for up to three.
pub noinline fn one(packet: Packet, tag: *[block_length]u8) void {
    const key = load(packet.key);
    var powers: Powers = .of(clamped(.{ each(key, 0), each(key, 1) }));
    defer inline for (.{ &powers.r8, &powers.r16, &powers.last8, &powers.last16 }) |power| power.wipe();
    const across: Across = .of(packet);
    var h = zero;
    if (across.steps > 1) {
        h = across.atEdge(0, h, &powers.r16, &powers.r8);
        for (1..across.steps - 1) |step| h = across.inside(step, h, &powers);
    }
    h = across.atEdge(across.steps - 1, h, &powers.last16, &powers.last8);
    // Eight limbs less than 2^45 are less than 2^48.
    inline for (&h) |*limb| limb.* = @splat(@reduce(.Add, limb.*));
    const halves = finish(h, .{ each(key, 2), each(key, 3) });
    const joined: @Vector(2, u64) = .{ halves[0][0], halves[1][0] };
    tag.* = @as(@Vector(block_length, u8), @bitCast(joined));
}

inline fn each(key: V, comptime word: i32) V {
    return @shuffle(u64, key, undefined, @as([lanes]i32, @splat(word)));
}

const Powers = struct {
    r8: Factor,
    r16: Factor,
    /// In the order of `lane_blocks`: r^8 for block 0 to r for block 7, and the same times r^8.
    last8: Factor,
    last16: Factor,

    inline fn of(r: Number) Powers {
        const unit: Number = .{ @splat(1), @splat(0), @splat(0) };
        const r1: Factor = .of(r);
        const square = product(r, &r1);
        const r2: Factor = .of(square);
        const fourth = product(square, &r2);
        const r4: Factor = .of(fourth);
        // A lane's exponent less one is 7 less its block: bits 1, 2 and 4 of it choose r, r^2 and r^4.
        var last = select(1, square, r);
        last = product(last, &.of(select(2, square, unit)));
        last = product(last, &.of(select(4, fourth, unit)));
        const eighth = product(fourth, &r4);
        const r8: Factor = .of(eighth);
        return .{
            .r8 = r8,
            .r16 = .of(product(eighth, &r8)),
            .last8 = .of(last),
            .last16 = .of(product(last, &r8)),
        };
    }

    /// `a` in lanes whose exponent has the bit, else `b`.
    inline fn select(comptime bit: u64, a: Number, b: Number) Number {
        const has_bit = comptime (@as(V, @splat(7)) - lane_blocks) & @as(V, @splat(bit)) != @as(V, @splat(0));
        var n: Number = undefined;
        inline for (&n, a, b) |*limb, x, y| limb.* = @select(u64, has_bit, x, y);
        return n;
    }
};

/// A packet laid across the lanes so that it ends with a step.
const Across = struct {
    packet: Packet,
    steps: usize,
    /// Bytes of the first step before the packet.
    missing: usize,

    inline fn of(packet: Packet) Across {
        const steps = (packet.blocks() + step_blocks - 1) / step_blocks;
        return .{ .packet = packet, .steps = steps, .missing = (steps * step_blocks - packet.blocks()) * block_length };
    }

    inline fn inside(across: *const Across, step: usize, h: Number, powers: *const Powers) Number {
        const from = across.packet.data + (step * step_blocks * block_length - across.missing);
        var rows: [step_rows]V = undefined;
        inline for (&rows, 0..) |*row, i| row.* = load(from + i * row_length);
        const first = whole(interleaved(rows[0], rows[1]));
        const second = whole(interleaved(rows[2], rows[3]));
        return absorbed(h, first, &powers.r16, second, &powers.r8);
    }

    inline fn atEdge(
        across: *const Across,
        step: usize,
        h: Number,
        first_factor: *const Factor,
        second_factor: *const Factor,
    ) Number {
        var rows: [step_rows]V = undefined;
        inline for (&rows, 0..) |*row, i| {
            const begin = (step * step_rows + i) * row_length;
            const part: Part = .of(across.packet, across.missing, begin);
            row.* = loadPart(across.packet.data + part.at, part.length, part.gap);
        }
        if (step == across.steps - 1) {
            const lengths: V = @splat(across.packet.length);
            // The last block has nothing else in it.
            rows[step_rows - 1] |= lengths & @as(V, .{ 0, 0, 0, 0, 0, 0, 0, std.math.maxInt(u64) });
        }
        var m: [2]Number = undefined;
        inline for (&m, 0..) |*n, i| {
            const block = lane_blocks +% @as(V, @splat(step * step_blocks + i * lanes));
            const is_present = block >= @as(V, @splat(across.missing / block_length));
            const bit = @select(u64, is_present, @as(V, @splat(block_bit)), @as(V, @splat(0)));
            n.* = number(interleaved(rows[2 * i], rows[2 * i + 1]), bit);
        }
        return absorbed(h, m[0], first_factor, m[1], second_factor);
    }

    inline fn absorbed(h: Number, first: Number, f: *const Factor, second: Number, g: *const Factor) Number {
        var a: Sums = .{};
        var b: Sums = .{};
        a.addTwo(sum(h, first), f, &b, second, g);
        return a.plus(b).reduced();
    }
};

// ---- instructions -------------------------------------------------------------------------------------------------

const Half = enum { lower, upper };

/// `total` plus the lower or the upper 52 bits of a product of numbers of 52 bits.
inline fn multiplyAdd(comptime half: Half, total: V, a: V, b: V) V {
    if (!is_native) return modelMultiplyAdd(half, total, a, b);
    var result = total;
    asm (if (half == .lower) "vpmadd52luq %[b], %[a], %[result]" else "vpmadd52huq %[b], %[a], %[result]"
        : [result] "+v" (result),
        : [a] "v" (a),
          [b] "v" (b),
    );
    return result;
}

/// The instruction takes 52 bits of its operands; we never give it more.
fn modelMultiplyAdd(comptime half: Half, total: V, a: V, b: V) V {
    const limit = 1 << 52;
    var result: V = undefined;
    inline for (0..lanes) |i| {
        if (has_checks) std.debug.assert(a[i] < limit and b[i] < limit);
        const whole_product = @as(u128, a[i]) * b[i];
        const part: u64 = @truncate(if (half == .lower) whole_product % limit else whole_product / limit);
        result[i] = if (has_checks) total[i] + part else total[i] +% part;
    }
    return result;
}

inline fn load(from: [*]const u8) V {
    return @bitCast(@as(Row, from[0..row_length].*));
}

/// A row of `gap` bytes of zeros, `length` bytes from memory and zeros again. `gap` is whole blocks. Nothing else is
/// read; where a packet ends close to a page that is not there, this takes a CPU some hundred cycles.
inline fn loadPart(from: [*]const u8, length: usize, gap: usize) V {
    if (!is_native) return modelLoadPart(from, length, gap);
    const present = ones(u64, length);
    if (gap == 0) return asm volatile ("vmovdqu8 (%[from]), %[row]{%[present]}{z}"
        : [row] "=v" (-> V),
        : [from] "r" (from),
          [present] "^Yk" (present),
        : .{ .memory = true });
    const moved = ~ones(u64, gap / 8);
    return asm volatile (
        \\vmovdqu8 (%[from]), %[row]{%[present]}{z}
        \\vpexpandq %[row], %[row]{%[moved]}{z}
        : [row] "=&v" (-> V),
        : [from] "r" (from),
          [present] "^Yk" (present),
          [moved] "^Yk" (moved),
        : .{ .memory = true });
}

inline fn ones(comptime Mask: type, count: usize) Mask {
    return if (count >= @bitSizeOf(Mask)) ~@as(Mask, 0) else (@as(Mask, 1) << @intCast(count)) - 1;
}

fn modelLoadPart(from: [*]const u8, length: usize, gap: usize) V {
    if (has_checks) std.debug.assert(gap % block_length == 0 and gap + length <= row_length);
    var row: [row_length]u8 = @splat(0);
    for (row[gap..][0..length], from[0..length]) |*byte, source| byte.* = source;
    return @bitCast(@as(Row, row));
}

// ---- tests --------------------------------------------------------------------------------------------------------

const testing = std.testing;

fn expectedTag(packet: Packet) [block_length]u8 {
    const zeros: [block_length]u8 = @splat(0);
    var mac: std.crypto.onetimeauth.Poly1305 = .init(packet.key[0..32]);
    mac.update(packet.data[0..packet.length]);
    mac.update(zeros[0 .. (block_length - packet.length % block_length) % block_length]);
    var lengths: [block_length]u8 = @splat(0);
    mem.writeInt(u64, lengths[8..16], packet.length, .little);
    mac.update(&lengths);
    var tag: [block_length]u8 = undefined;
    mac.final(&tag);
    return tag;
}

fn expectLikeStd(packets: *const [lanes]Packet) !void {
    var tags: [lanes][block_length]u8 align(64) = undefined;
    eight(packets, &tags);
    for (packets, tags) |packet, tag| {
        const expected = expectedTag(packet);
        try testing.expectEqualSlices(u8, &expected, &tag);
        var alone: [block_length]u8 = undefined;
        one(packet, &alone);
        try testing.expectEqualSlices(u8, &expected, &alone);
    }
}

/// Keys at the limits of the clamp, and others.
fn limitKey(random: std.Random) KeyBlock {
    var key: KeyBlock = undefined;
    random.bytes(&key);
    switch (random.uintLessThan(u8, 5)) {
        0 => key[0..16].* = @splat(0xff),
        1 => key[0..16].* = .{random.int(u3)} ++ @as([15]u8, @splat(0)),
        2 => key[0..16].* = @splat(0xfc),
        else => {},
    }
    switch (random.uintLessThan(u8, 3)) {
        0 => key[16..32].* = @splat(0xff),
        1 => key[16..32].* = @splat(0),
        else => {},
    }
    return key;
}

test "packets of one length, of every length from 0 to 600" {
    var prng: std.Random.DefaultPrng = .init(130);
    const random = prng.random();
    var keys: [lanes]KeyBlock = undefined;
    var data: [lanes][640]u8 = undefined;
    var packets: [lanes]Packet = undefined;
    for (0..601) |length| {
        for (&keys, &data, &packets, 0..) |*key, *bytes, *packet, i| {
            key.* = limitKey(random);
            if (random.int(u2) == 0) @memset(bytes, 0xff) else random.bytes(bytes);
            packet.* = .{ .key = key, .data = bytes[i..].ptr, .length = length };
        }
        try expectLikeStd(&packets);
    }
}

test "packets of different lengths, keys at the limits of the clamp, blocks of ones" {
    var prng: std.Random.DefaultPrng = .init(1305);
    const random = prng.random();
    var keys: [lanes]KeyBlock = undefined;
    var data: [lanes][1600]u8 = undefined;
    var packets: [lanes]Packet = undefined;
    for (0..300) |_| {
        const most: usize = if (random.boolean()) 1500 else 100;
        for (&keys, &data, &packets) |*key, *bytes, *packet| {
            key.* = limitKey(random);
            switch (random.uintLessThan(u8, 3)) {
                0 => @memset(bytes, 0xff),
                1 => @memset(bytes, 0),
                else => random.bytes(bytes),
            }
            const length = random.uintAtMost(usize, most) * @intFromBool(random.int(u3) != 0);
            packet.* = .{ .key = key, .data = bytes[random.uintAtMost(usize, 64)..].ptr, .length = length };
        }
        try expectLikeStd(&packets);
    }
}

test "accumulators on both sides of 2^130 - 5 and of its multiples" {
    // With r = 1 the accumulator is the sum of the blocks, each plus 2^128. The first block chooses its lower 128 bits,
    // and how many of the others are zeros the upper two; the rest are ones.
    const p: u256 = (1 << 130) - 5;
    const ones_value: u256 = (1 << 129) - 1;
    const counts = [_]usize{ 4, 5, 7, 8, 11, 15, 16, 17, 31 };
    var data: [32 * block_length]u8 = undefined;
    var key: KeyBlock = @splat(0);
    key[0] = 1;
    var reached: usize = 0;
    for (counts) |count| for (0..24) |i| {
        const wanted: u256 = p - 12 + i;
        const lengths = (@as(u256, count * block_length) << 64) + (1 << 128);
        for (0..4) |zero_count| {
            const others = ones_value * (count - 1 - zero_count) + (@as(u256, zero_count) << 128) + lengths;
            const first = (wanted % p + p * 64 - others - (1 << 128)) % p;
            if (first >= 1 << 128) continue;
            @memset(&data, 0xff);
            @memset(data[block_length..][0 .. zero_count * block_length], 0);
            mem.writeInt(u128, data[0..block_length], @truncate(first), .little);
            try expectLikeStd(&@splat(.{ .key = &key, .data = &data, .length = count * block_length }));
            reached += 1;
        }
    };
    // About one of four.
    try testing.expect(reached > counts.len * 12);
}

test "nothing outside of a packet is read, at the ends of memory" {
    const page = std.heap.page_size_max;
    const linux = std.os.linux;
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    const flags: linux.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true };
    const address = linux.mmap(null, 3 * page, .{}, flags, -1, 0);
    try testing.expectEqual(.SUCCESS, linux.errno(address));
    defer _ = linux.munmap(@ptrFromInt(address), 3 * page);
    const middle: [*]u8 = @ptrFromInt(address + page);
    try testing.expectEqual(.SUCCESS, linux.errno(linux.mprotect(middle, page, .{ .READ = true, .WRITE = true })));
    @memset(middle[0..page], 0xa5);
    const key = middle[page - row_length ..][0..row_length];
    for (0..300) |length| {
        try expectLikeStd(&@splat(.{ .key = key, .data = middle, .length = length }));
        try expectLikeStd(&@splat(.{ .key = middle[0..row_length], .data = middle + page - length, .length = length }));
    }
}
