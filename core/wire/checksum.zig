//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//! Knows words and sums, not headers: where a checksum field lies is the caller's business.
//! Bytes in plenty are summed by loops that are compiled for several CPUs; headers are summed in place.
//! Invariant: a partial sum is the numeric sum of big-endian 16-bit words, so partial sums simply add,
//! and a folded sum is written to a packet with writeInt(.big).
const std = @import("std");
const builtin = @import("builtin");
const assert = @import("assert.zig").assert;

/// Adds the words of `bytes`, some header, to a partial sum. An odd last byte counts as if a zero followed it.
pub fn sum(bytes: []const u8, initial: u64) u64 {
    var total: u64 = 0;
    var i: usize = 0;
    while (bytes.len - i >= 4) : (i += 4) total += load(u32, bytes.ptr + i);
    return initial + finishWords(bytes, i, total);
}

/// The loops over payloads, for one CPU. Those of this module are for the CPU that it is compiled for, which every one
/// of the architecture is; a program that knows its CPU hands in others.
pub const Loops = struct {
    /// As `sum` and `copySum` without a sum to begin with.
    sum_fn: *const SumFn = sumLoop,
    copy_sum_fn: *const CopySumFn = copySumLoop,

    pub const SumFn = fn (bytes: [*]const u8, length: usize) callconv(.c) u64;
    pub const CopySumFn = fn (out: [*]u8, bytes: [*]const u8, length: usize) callconv(.c) u64;

    pub fn sum(loops: Loops, bytes: []const u8, initial: u64) u64 {
        return initial + loops.sum_fn(bytes.ptr, bytes.len);
    }

    /// Copies `bytes` to the start of `out` and adds its words to a partial sum, touching memory once.
    pub fn copySum(loops: Loops, noalias out: []u8, noalias bytes: []const u8, initial: u64) u64 {
        assert(out.len >= bytes.len);
        return initial + loops.copy_sum_fn(out.ptr, bytes.ptr, bytes.len);
    }
};

pub fn sumLoop(bytes: [*]const u8, length: usize) callconv(.c) u64 {
    return accumulate(bytes[0..length], {});
}

pub fn copySumLoop(out: [*]u8, bytes: [*]const u8, length: usize) callconv(.c) u64 {
    return accumulate(bytes[0..length], out);
}

/// Joins the sum of a part that begins `offset` bytes into the summed range.
pub fn combine(first: u64, part: u64, offset: usize) u64 {
    // At an odd offset each byte of the part sits in the other half of its word.
    return first + if (offset % 2 == 0) part else @byteSwap(fold(part));
}

/// End-around carry: the sum modulo 2^16 - 1, zero only when every word was zero.
pub fn fold(partial: u64) u16 {
    var folded = (partial & 0xffff_ffff) + (partial >> 32);
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    return @intCast((folded & 0xffff) + (folded >> 16));
}

/// What a checksum field holds: the complement of the folded sum.
pub fn finish(partial: u64) u16 {
    return ~fold(partial);
}

/// Partial sum of the TCP/UDP/ICMPv6 pseudo-header. `addresses` are source and destination as they lie
/// side by side in the header; the formula is the same for both IP versions.
pub fn pseudoHeader(addresses: []const u8, protocol: u8, length: usize) u64 {
    assert(addresses.len == 8 or addresses.len == 32);
    return sum(addresses, @as(u64, protocol) + length);
}

/// The checksum after one 16-bit word of the summed data changed (RFC 1624, equation 3).
pub fn update(checksum: u16, old: u16, new: u16) u16 {
    return finish(@as(u64, ~checksum) + @as(u64, ~old) + new);
}

/// Wider than AVX2 in code for one CPU alone: the Debug backend cannot move such vectors.
const lane_count = @min(if (builtin.mode == .fast) 8 else 4, std.simd.suggestVectorLength(u64) orelse 1);
const Lanes = @Vector(lane_count, u64);

/// Sums in native order and swaps once at the end: byte order only rotates a ones' complement sum.
/// `out` is void, or where the bytes are copied on the way.
inline fn accumulate(bytes: []const u8, out: anytype) u64 {
    const copying = @TypeOf(out) != void;
    // 32-bit words in 64-bit lanes cannot overflow below 32 GiB, hence the unchecked adds.
    var low: Lanes = @splat(0);
    var high: Lanes = @splat(0);
    const source = bytes.ptr;
    var i: usize = 0;
    while (bytes.len - i >= 4 * @sizeOf(Lanes)) {
        inline for (0..4) |_| {
            const lanes = load(Lanes, source + i);
            if (copying) store(Lanes, out + i, lanes);
            low +%= lanes & @as(Lanes, @splat(0xffff_ffff));
            high +%= lanes >> @splat(32);
            i +%= @sizeOf(Lanes);
        }
    }
    while (bytes.len - i >= @sizeOf(Lanes)) : (i +%= @sizeOf(Lanes)) {
        const lanes = load(Lanes, source + i);
        if (copying) store(Lanes, out + i, lanes);
        low +%= lanes & @as(Lanes, @splat(0xffff_ffff));
        high +%= lanes >> @splat(32);
    }
    var total = @reduce(.Add, low) +% @reduce(.Add, high);
    while (bytes.len - i >= 4) : (i +%= 4) {
        const word = load(u32, source + i);
        if (copying) store(u32, out + i, word);
        total +%= word;
    }
    if (copying) for (bytes[i..], out[i..bytes.len]) |byte, *slot| {
        slot.* = byte;
    };
    return finishWords(bytes, i, total);
}

/// Adds what comes behind the last whole four bytes, at `i`.
inline fn finishWords(bytes: []const u8, i: usize, words: u64) u64 {
    var total = words;
    var rest = bytes[i..];
    if (rest.len >= 2) {
        total +%= load(u16, rest.ptr);
        rest = rest[2..];
    }
    if (rest.len != 0) total +%= std.mem.nativeToBig(u16, @as(u16, rest[0]) << 8);
    return std.mem.bigToNative(u16, fold(total));
}

inline fn load(comptime T: type, pointer: [*]const u8) T {
    return @as(*align(1) const T, @ptrCast(pointer)).*;
}

inline fn store(comptime T: type, pointer: [*]u8, value: T) void {
    @as(*align(1) T, @ptrCast(pointer)).* = value;
}

/// The obvious sum, which checks the fast one: for tests, here and wherever packets are made up.
pub const testing = struct {
    /// Adds the words of `bytes` to a folded or partial sum and folds.
    pub fn sum(bytes: []const u8, initial: u64) u16 {
        var total = initial;
        for (bytes, 0..) |byte, i| {
            total += if (i % 2 == 0) @as(u64, byte) << 8 else byte;
        }
        while (total > 0xffff) total = (total >> 16) + (total & 0xffff);
        return @intCast(total);
    }
};

const expectEqual = std.testing.expectEqual;

test "sums and copying sums agree with the obvious sum for every length and alignment" {
    var prng: std.Random.DefaultPrng = .init(1);
    var buffer: [400]u8 = undefined;
    var copy: [408]u8 = undefined;
    for (0..3) |round| {
        if (round == 2) @memset(&buffer, 0xff) else prng.random().bytes(&buffer);
        for (0..8) |offset| for (0..buffer.len - offset) |length| {
            const bytes = buffer[offset..][0..length];
            const expected = testing.sum(bytes, 0x12345);
            try expectEqual(expected, fold(sum(bytes, 0x12345)));
            try expectEqual(expected, fold((Loops{}).sum(bytes, 0x12345)));
            @memset(&copy, 0xaa);
            const out = copy[(offset * 3) % 8 ..];
            try expectEqual(expected, fold((Loops{}).copySum(out, bytes, 0x12345)));
            try std.testing.expectEqualSlices(u8, bytes, out[0..length]);
            try expectEqual(0xaa, out[length]);
        };
    }
}

test "fold keeps zero for nothing but zero" {
    try expectEqual(0, fold(0));
    try expectEqual(0xffff, fold(0xffff));
    try expectEqual(0xffff, fold(std.math.maxInt(u64)));
    var prng: std.Random.DefaultPrng = .init(2);
    for (0..1000) |_| {
        const value = prng.random().int(u64) >> prng.random().int(u6);
        try expectEqual(testing.sum("", value), fold(value));
    }
}

test "parts combine at even and odd offsets" {
    var bytes: [97]u8 = undefined;
    var prng: std.Random.DefaultPrng = .init(3);
    prng.random().bytes(&bytes);
    for (0..bytes.len) |offset| {
        const joined = combine(sum(bytes[0..offset], 0), sum(bytes[offset..], 0), offset);
        try expectEqual(testing.sum(&bytes, 0), fold(joined));
    }
}

test "an updated checksum equals a fresh one" {
    var prng: std.Random.DefaultPrng = .init(4);
    const random = prng.random();
    for (0..2000) |_| {
        var bytes: [20]u8 = undefined;
        random.bytes(&bytes);
        const before = finish(sum(&bytes, 0));
        const old = std.mem.readInt(u16, bytes[2..4], .big);
        const new = random.int(u16);
        std.mem.writeInt(u16, bytes[2..4], new, .big);
        try expectEqual(finish(sum(&bytes, 0)), update(before, old, new));
    }
    try expectEqual(0x0000, update(0xdd2f, 0x5555, 0x3285)); // the example of RFC 1624
}

test "pseudo-headers of both versions" {
    const v4 = [_]u8{ 10, 0, 0, 1, 10, 0, 0, 2 };
    try expectEqual(testing.sum(&v4 ++ [_]u8{ 0, 17, 1, 2 }, 0), fold(pseudoHeader(&v4, 17, 0x102)));
    const v6: [32]u8 = @splat(0x7e);
    const tail = [_]u8{ 0, 1, 0x11, 0x70, 0, 0, 0, 6 };
    try expectEqual(testing.sum(&v6 ++ tail, 0), fold(pseudoHeader(&v6, 6, 0x11170)));
}
