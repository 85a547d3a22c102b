//! ChaCha20 (RFC 8439 §2.3), one block a lane: sixteen vectors of `lanes` words, turned into bytes at the end.
//! Knows neither packets nor tags: the caller says for each lane which block of which nonce it holds, and
//! does the double rounds itself, so that it may put other work between them.
//! Invariant: no branch and no index depends on a word of the state.
const std = @import("std");
const builtin = @import("builtin");
const mem = std.mem;

pub const block_length = 64;
pub const double_rounds = 10;
pub const rounds = 2 * double_rounds;

/// The key as the eight words every lane shares.
pub fn keyWords(key: *const [32]u8) [8]u32 {
    var words: [8]u32 = undefined;
    for (&words, 0..) |*word, i| word.* = mem.readInt(u32, key[i * 4 ..][0..4], .little);
    return words;
}

fn has(comptime feature: std.Target.x86.Feature) bool {
    return builtin.cpu.arch == .x86_64 and std.Target.x86.featureSetHas(builtin.cpu.features, feature);
}

/// A group of `lanes` blocks computed side by side. Any power of two from 4 (SSE2, NEON) to 16 (AVX-512), and 32: the
/// compiler makes two vectors of each word of these. The four chains of a round keep half of the units busy where a
/// vector instruction takes two cycles; eight keep all, and the words fill the 32 registers of AVX-512 exactly.
pub fn Group(comptime lanes: comptime_int) type {
    comptime std.debug.assert(lanes == 4 or lanes == 8 or lanes == 16 or lanes == 32);
    return struct {
        pub const Words = @Vector(lanes, u32);
        pub const State = struct {
            words: [16]Words,
            /// By hand: where words 8 and 10 are while the other one has the register.
            parked: [2]Words,

            inline fn exchange(s: *State, comptime out: usize, comptime in: usize) void {
                const parked: *volatile [2]Words = &s.parked;
                parked[out / 10] = s.words[out];
                s.words[in] = parked[in / 10];
            }
        };
        pub const length = lanes * block_length;

        /// Which block each lane holds. The first nonce word is zero in WireGuard (§5.4.6), so it has no vector.
        pub const Position = struct {
            block: Words,
            nonce_low: Words,
            nonce_high: Words,

            pub const zero: Position = .{ .block = @splat(0), .nonce_low = @splat(0), .nonce_high = @splat(0) };

            /// Lanes `lane`, lane + 1, ... to the last hold blocks `block`, block + 1, ... of `nonce`.
            /// Later calls with a greater lane take over from there.
            pub inline fn place(position: *Position, lane: usize, nonce: u64, block: u32) void {
                const index = std.simd.iota(u32, lanes);
                const first: u32 = @intCast(lane);
                const here = index >= @as(Words, @splat(first));
                const low: Words = @splat(@truncate(nonce));
                const high: Words = @splat(@truncate(nonce >> 32));
                const blocks = index +% @as(Words, @splat(block -% first));
                position.block = @select(u32, here, blocks, position.block);
                position.nonce_low = @select(u32, here, low, position.nonce_low);
                position.nonce_high = @select(u32, here, high, position.nonce_high);
            }
        };

        inline fn initial(key: *const [8]u32, position: Position) [16]Words {
            const constants = [4]u32{ 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 };
            var s: [16]Words = undefined;
            inline for (0..4) |i| s[i] = @splat(constants[i]);
            inline for (0..8) |i| s[4 + i] = @splat(key[i]);
            s[12] = position.block;
            s[13] = @splat(0);
            s[14] = position.nonce_low;
            s[15] = position.nonce_high;
            return s;
        }

        pub inline fn begin(key: *const [8]u32, position: Position) State {
            const words = initial(key, position);
            return .{ .words = words, .parked = .{ words[8], words[10] } };
        }

        /// Part `index` of the four parts of a double round (RFC 8439 §2.3), so that the caller can put other work
        /// between them. The compiler gets a whole round at once; by hand, a part is two quarter rounds.
        pub inline fn part(s: *State, comptime index: usize) void {
            if (in_registers) switch (index) {
                1 => inline for (0..4) |i| quarterInRegisters(&s.words, .{ i, 4 + i, 8 + i, 12 + i }),
                3 => inline for (0..4) |i| {
                    quarterInRegisters(&s.words, .{ i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4 });
                },
                else => {},
            } else if (!by_hand) switch (index) {
                1 => round(&s.words, .{ 0, 1, 2, 3 }, .{ 4, 5, 6, 7 }, .{ 8, 9, 10, 11 }, .{ 12, 13, 14, 15 }),
                3 => round(&s.words, .{ 0, 1, 2, 3 }, .{ 5, 6, 7, 4 }, .{ 10, 11, 8, 9 }, .{ 15, 12, 13, 14 }),
                else => {},
            } else switch (index) {
                0 => twoByHand(&s.words, .{ 0, 4, 8, 12 }, .{ 1, 5, 9, 13 }),
                1 => {
                    s.exchange(8, 10);
                    twoByHand(&s.words, .{ 2, 6, 10, 14 }, .{ 3, 7, 11, 15 });
                },
                // These two begin with what part 0 left, the last two with what part 1 left.
                2 => twoByHand(&s.words, .{ 0, 5, 10, 15 }, .{ 3, 4, 9, 14 }),
                3 => {
                    s.exchange(10, 8);
                    twoByHand(&s.words, .{ 1, 6, 11, 12 }, .{ 2, 7, 8, 13 });
                },
                else => comptime unreachable,
            }
        }

        /// Adds the initial state and writes the key stream, block after block.
        pub inline fn finish(s: *State, key: *const [8]u32, position: Position, out: *[length]u8) void {
            if (by_hand) s.words[10] = s.parked[1];
            inline for (&s.words, initial(key, position)) |*word, first| word.* +%= first;
            store(&s.words, out);
        }

        /// Adds the initial state, XORs block i of the key stream with the 64 bytes at from[i] and writes it to to[i],
        /// which is the same place or apart.
        pub inline fn xor(
            s: *State,
            key: *const [8]u32,
            position: Position,
            from: *const [lanes][*]const u8,
            to: *const [lanes][*]u8,
        ) void {
            comptime std.debug.assert(lanes % 16 == 0);
            inline for (&s.words, initial(key, position)) |*word, first| word.* +%= first;
            inline for (0..lanes / 16) |part_of| {
                var words: [16]@Vector(16, u32) = undefined;
                inline for (&words, s.words) |*word, all| word.* = std.simd.extract(all, part_of * 16, 16);
                inline for (Group(16).rows(&words), part_of * 16..) |row, i| {
                    const text: @Vector(block_length, u8) = from[i][0..block_length].*;
                    to[i][0..block_length].* = text ^ @as(@Vector(block_length, u8), @bitCast(row));
                }
            }
        }

        /// Four quarter rounds step by step, so that four independent chains are in flight.
        inline fn round(
            s: *[16]Words,
            comptime a: [4]usize,
            comptime b: [4]usize,
            comptime c: [4]usize,
            comptime d: [4]usize,
        ) void {
            inline for (.{ 16, 8 }, .{ 12, 7 }) |first, second| {
                inline for (a, b) |x, y| s[x] +%= s[y];
                inline for (d, a) |x, y| s[x] = rotate(s[x] ^ s[y], first);
                inline for (c, d) |x, y| s[x] +%= s[y];
                inline for (b, c) |x, y| s[x] = rotate(s[x] ^ s[y], second);
            }
        }

        /// AVX2 has sixteen registers, as many as there are words, and no rotation. Left to itself the compiler
        /// moves six words a round through memory, in the middle of the chains; this needs one register beside the
        /// words, and the word it displaces waits in memory for half a round: an eighth faster.
        const by_hand = builtin.zig_backend == .stage2_llvm and lanes == 8 and has(.avx2) and !has(.avx512vl);

        inline fn twoByHand(s: *[16]Words, comptime x: [4]usize, comptime y: [4]usize) void {
            var a0, var b0, var c0, var d0 = .{ s[x[0]], s[x[1]], s[x[2]], s[x[3]] };
            var a1, var b1, var c1, var d1 = .{ s[y[0]], s[y[1]], s[y[2]], s[y[3]] };
            var t: Words = undefined;
            asm (halfRounds("(%[shuffles])", 12) ++ halfRounds("32(%[shuffles])", 7)
                : [a0] "+x" (a0),
                  [b0] "+x" (b0),
                  [c0] "+x" (c0),
                  [d0] "+x" (d0),
                  [a1] "+x" (a1),
                  [b1] "+x" (b1),
                  [c1] "+x" (c1),
                  [d1] "+x" (d1),
                  [t] "=&x" (t),
                : [shuffles] "r" (&shuffles),
            );
            s[x[0]], s[x[1]], s[x[2]], s[x[3]] = .{ a0, b0, c0, d0 };
            s[y[0]], s[y[1]], s[y[2]], s[y[3]] = .{ a1, b1, c1, d1 };
        }

        /// 32 lanes fill all registers, and no step needs another one; but left to itself the compiler moves words
        /// through memory when there is other work between the rounds.
        const in_registers = builtin.zig_backend == .stage2_llvm and lanes == 32 and has(.avx512f);

        inline fn quarterInRegisters(s: *[16]Words, comptime x: [4]usize) void {
            @setEvalBranchQuota(10_000);
            var w: [4][2]@Vector(lanes / 2, u32) = undefined;
            inline for (&w, x) |*halves, i| halves.* = .{
                std.simd.extract(s[i], 0, lanes / 2),
                std.simd.extract(s[i], lanes / 2, lanes / 2),
            };
            var a0, var a1 = w[0];
            var b0, var b1 = w[1];
            var c0, var c1 = w[2];
            var d0, var d1 = w[3];
            asm (quarter_in_registers
                : [a0] "+v" (a0),
                  [b0] "+v" (b0),
                  [c0] "+v" (c0),
                  [d0] "+v" (d0),
                  [a1] "+v" (a1),
                  [b1] "+v" (b1),
                  [c1] "+v" (c1),
                  [d1] "+v" (d1),
            );
            s[x[0]] = std.simd.join(a0, a1);
            s[x[1]] = std.simd.join(b0, b1);
            s[x[2]] = std.simd.join(c0, c1);
            s[x[3]] = std.simd.join(d0, d1);
        }

        const quarter_in_registers = blk: {
            @setEvalBranchQuota(100_000);
            break :blk halfInRegisters(16, 12) ++ halfInRegisters(8, 7);
        };

        /// Half of a quarter round in both halves of the lanes.
        fn halfInRegisters(comptime first: comptime_int, comptime second: comptime_int) []const u8 {
            return both("vpaddd %[b?], %[a?], %[a?]") ++
                both("vpxord %[a?], %[d?], %[d?]") ++
                both(std.fmt.comptimePrint("vprold ${d}, %[d?], %[d?]", .{first})) ++
                both("vpaddd %[d?], %[c?], %[c?]") ++
                both("vpxord %[c?], %[b?], %[b?]") ++
                both(std.fmt.comptimePrint("vprold ${d}, %[b?], %[b?]", .{second}));
        }

        /// Half of two quarter rounds: each step for both. `shuffle` rotates by whole bytes.
        fn halfRounds(comptime shuffle: []const u8, comptime bits: comptime_int) []const u8 {
            return both("vpaddd %[b?], %[a?], %[a?]") ++
                both("vpxor %[a?], %[d?], %[d?]") ++
                both("vpshufb " ++ shuffle ++ ", %[d?], %[d?]") ++
                both("vpaddd %[d?], %[c?], %[c?]") ++
                both("vpxor %[c?], %[b?], %[b?]") ++
                both(std.fmt.comptimePrint(
                    \\vpslld ${d}, %[b?], %[t]
                    \\vpsrld ${d}, %[b?], %[b?]
                    \\vpor %[t], %[b?], %[b?]
                , .{ bits, 32 - bits }));
        }

        /// The lines with 0 and then with 1 for every question mark.
        fn both(comptime template: []const u8) []const u8 {
            @setEvalBranchQuota(10_000);
            var text: []const u8 = "";
            for ("01") |digit| {
                for (template) |char| text = text ++ .{if (char == '?') digit else char};
                text = text ++ "\n";
            }
            return text;
        }

        /// Byte shuffles that rotate every word left by 16 and by 8.
        const shuffles: [2][32]u8 align(32) = .{ rotation(2), rotation(3) };

        fn rotation(comptime first: u8) [32]u8 {
            var indices: [32]u8 = undefined;
            for (&indices, 0..) |*index, i| index.* = i % 16 / 4 * 4 + (first + i) % 4;
            return indices;
        }

        /// Where vectors of this width are registers and rotations are not instructions.
        const barrier = builtin.zig_backend == .stage2_llvm and lanes == 4 and has(.sse2) and !has(.avx512vl);

        inline fn rotate(words: Words, comptime bits: comptime_int) Words {
            const rotated = std.math.rotl(Words, words, bits);
            // By whole bytes it is a shuffle, which LLVM merges with the next one at the price of two.
            if (!barrier or bits % 8 != 0) return rotated;
            return asm (""
                : [same] "=x" (-> Words),
                : [value] "0" (rotated),
            );
        }

        /// The transpose. Four words at a time inside each 128-bit piece (the unpack instructions), then the
        /// pieces; what comes out is `lanes` consecutive words of one block a vector.
        inline fn store(s: *const [16]Words, out: *[length]u8) void {
            if (lanes == 16) {
                inline for (rows(s), 0..) |block, i| storeRow(block, out, i * block_length);
                return;
            }
            const t = quads(s);
            inline for (0..4) |j| {
                switch (lanes) {
                    4 => inline for (0..4) |q| storeRow(t[q * 4 + j], out, j * 64 + q * 16),
                    8 => inline for (0..2) |half| {
                        const a = t[half * 8 + j];
                        const b = t[half * 8 + 4 + j];
                        inline for (0..2) |l| {
                            const mask = comptime pieces(.{ l, l }, .{ 0, 1 });
                            storeRow(pick(a, b, mask), out, (l * 4 + j) * 64 + half * 32);
                        }
                    },
                    else => comptime unreachable,
                }
            }
        }

        /// Sixteen lanes have a block in a vector.
        inline fn rows(s: *const [16]Words) [16]Words {
            const t = quads(s);
            var out: [16]Words = undefined;
            inline for (0..4) |j| inline for (0..2) |pair| {
                const l = pair * 2;
                const mask = comptime pieces(.{ l, l, l + 1, l + 1 }, .{ 0, 1, 0, 1 });
                const front = pick(t[j], t[4 + j], mask);
                const back = pick(t[8 + j], t[12 + j], mask);
                inline for (0..2) |k| {
                    const join = comptime pieces(.{ 2 * k, 2 * k + 1, 2 * k, 2 * k + 1 }, .{ 0, 0, 1, 1 });
                    out[(l + k) * 4 + j] = pick(front, back, join);
                }
            };
            return out;
        }

        /// In vector 4 q + j, piece l: words 4 q to 4 q + 3 of block 4 l + j.
        inline fn quads(s: *const [16]Words) [16]Words {
            var t: [16]Words = undefined;
            inline for (0..4) |quad| {
                const q = quad * 4;
                const low01 = pick(s[q + 0], s[q + 1], comptime unpack(1, 0));
                const high01 = pick(s[q + 0], s[q + 1], comptime unpack(1, 2));
                const low23 = pick(s[q + 2], s[q + 3], comptime unpack(1, 0));
                const high23 = pick(s[q + 2], s[q + 3], comptime unpack(1, 2));
                t[q + 0] = pick(low01, low23, comptime unpack(2, 0));
                t[q + 1] = pick(low01, low23, comptime unpack(2, 2));
                t[q + 2] = pick(high01, high23, comptime unpack(2, 0));
                t[q + 3] = pick(high01, high23, comptime unpack(2, 2));
            }
            return t;
        }

        /// A vector-to-vector @bitCast is little endian on every target, as the cipher is.
        inline fn storeRow(row: Words, out: *[length]u8, comptime at: usize) void {
            out[at..][0 .. lanes * 4].* = @as(@Vector(lanes * 4, u8), @bitCast(row));
        }

        inline fn pick(a: Words, b: Words, comptime mask: [lanes]i32) Words {
            return @shuffle(u32, a, b, mask);
        }

        /// Within each 128-bit piece: `width` words of a, `width` of b, ... starting at word `start` of the piece.
        fn unpack(comptime width: i32, comptime start: i32) [lanes]i32 {
            @setEvalBranchQuota(10_000);
            var mask: [lanes]i32 = undefined;
            for (&mask, 0..) |*m, i| {
                const at: i32 = i % 4;
                const piece: i32 = i / 4 * 4;
                const source = piece + start + @divTrunc(at, 2 * width) * width + @rem(at, width);
                m.* = if (@rem(@divTrunc(at, width), 2) == 0) source else ~source;
            }
            return mask;
        }

        /// Whole 128-bit pieces: piece i of the result is piece which[i] of a (side 0) or b (side 1).
        fn pieces(comptime which: [lanes / 4]i32, comptime side: [lanes / 4]u1) [lanes]i32 {
            @setEvalBranchQuota(10_000);
            var mask: [lanes]i32 = undefined;
            for (&mask, 0..) |*m, i| {
                const source = which[i / 4] * 4 + @as(i32, i % 4);
                m.* = if (side[i / 4] == 0) source else ~source;
            }
            return mask;
        }
    };
}

fn keystream(comptime lanes: comptime_int, key: *const [32]u8, nonce: u64, block: u32) [lanes * 64]u8 {
    const G = Group(lanes);
    const words = keyWords(key);
    var position: G.Position = .zero;
    position.place(0, nonce, block);
    var s = G.begin(&words, position);
    for (0..double_rounds) |_| {
        inline for (0..4) |index| G.part(&s, index);
    }
    var out: [lanes * 64]u8 = undefined;
    G.finish(&s, &words, position, &out);
    return out;
}

test "every lane count gives std's key stream" {
    const Oracle = std.crypto.stream.chacha.ChaCha20IETF;
    var key: [32]u8 = undefined;
    for (&key, 0..) |*byte, i| byte.* = @intCast(i * 7 + 1);
    const nonce: u64 = 0x0123_4567_89ab_cdef;
    var full: [12]u8 = @splat(0);
    mem.writeInt(u64, full[4..], nonce, .little);
    inline for (.{ 4, 8, 16 }) |lanes| {
        var expected: [lanes * 64]u8 = undefined;
        Oracle.xor(&expected, &(@as([lanes * 64]u8, @splat(0))), 5, key, full);
        try std.testing.expectEqualSlices(u8, &expected, &keystream(lanes, &key, nonce, 5));
    }
}

test "blocks go straight to their places" {
    inline for (.{ 16, 32 }) |lanes| {
        const key: [32]u8 = @splat(0x31);
        const words = keyWords(&key);
        const G = Group(lanes);
        var position: G.Position = .zero;
        position.place(0, 1 << 33, 9);
        var s = G.begin(&words, position);
        for (0..double_rounds) |_| {
            inline for (0..4) |index| G.part(&s, index);
        }
        var source: [lanes * 64]u8 = undefined;
        for (&source, 0..) |*byte, i| byte.* = @truncate(i * 31);
        var out: [lanes * 65]u8 = undefined;
        var from: [lanes][*]const u8 = undefined;
        var to: [lanes][*]u8 = undefined;
        // Backwards and at odd addresses; the first half in place.
        for (0..lanes) |i| {
            to[i] = out[(lanes - 1 - i) * 65 ..].ptr;
            from[i] = if (i < lanes / 2) to[i] else source[i * 64 ..].ptr;
            if (i < lanes / 2) @memcpy(to[i][0..64], source[i * 64 ..][0..64]);
        }
        G.xor(&s, &words, position, &from, &to);
        inline for (0..lanes / 16) |half| {
            const stream = keystream(16, &key, 1 << 33, 9 + half * 16);
            for (0..16) |i| {
                const lane = half * 16 + i;
                for (to[lane][0..64], source[lane * 64 ..][0..64], stream[i * 64 ..][0..64]) |byte, plain, pad| {
                    try std.testing.expectEqual(plain ^ pad, byte);
                }
            }
        }
    }
}

test "lanes of different nonces do not disturb one another" {
    const key: [32]u8 = @splat(9);
    const words = keyWords(&key);
    const G = Group(8);
    var position: G.Position = .zero;
    position.place(0, 77, 0);
    position.place(1, 1 << 40, 3);
    position.place(6, 78, 1);
    var s = G.begin(&words, position);
    for (0..double_rounds) |_| {
        inline for (0..4) |index| G.part(&s, index);
    }
    var out: [512]u8 = undefined;
    G.finish(&s, &words, position, &out);
    try std.testing.expectEqualSlices(u8, keystream(4, &key, 77, 0)[0..64], out[0..64]);
    try std.testing.expectEqualSlices(u8, keystream(4, &key, 1 << 40, 3)[0..256], out[64..320]);
    try std.testing.expectEqualSlices(u8, keystream(4, &key, 78, 1)[0..128], out[384..512]);
}
