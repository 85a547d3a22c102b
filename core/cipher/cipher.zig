//! The fast AEAD: ChaCha20-Poly1305 over batches of packets (whitepaper §5.4.6), on the best code this CPU runs.
//! The door of the room: checks what callers promise and calls the kernels, which check nothing.
//! Does not know peers, keypairs, headers or replay. Invariant: after openBatch a job holds either authentic
//! plaintext or zeros.
const std = @import("std");
const aead = @import("aead.zig");
const dispatch = @import("dispatch.zig");

pub const tag_length = aead.tag_length;
pub const key_length = 32;
pub const length_max = aead.length_max;
pub const Seal = aead.Seal;
pub const Open = aead.Open;

/// Picks the kernels: "baseline", "v3", "v4", "v4ifma" (the value of PYWG_CPU), or null for the best supported. Names
/// that are unknown, not built or not supported count as null. Call once, before the first batch.
pub fn select(name: ?[]const u8) void {
    _ = dispatch.decide(name);
}

/// What runs: "x86-64-v3", "baseline", "neon", "portable".
pub fn path() [:0]const u8 {
    return dispatch.active().path();
}

/// The Internet checksum's loops over payloads, as wire.checksum.Loops takes them, for this CPU: they are compiled
/// beside the kernels.
pub fn checksumLoops() struct { *const dispatch.Sum, *const dispatch.CopySum } {
    const kernel = dispatch.active();
    return .{ kernel.sum, kernel.copySum };
}

/// Seals job i under counter_first + i. No counter may ever be used twice with one key.
pub fn sealBatch(key: *const [key_length]u8, counter_first: u64, jobs: []const Seal) void {
    if (jobs.len == 0) return;
    assert(jobs.len - 1 <= std.math.maxInt(u64) - counter_first);
    for (jobs) |job| {
        assert(job.length <= length_max);
        assert(sameOrApart(job));
    }
    dispatch.active().seal(key, counter_first, jobs.ptr, jobs.len);
}

/// Opens every job in place and sets its verdict. The packets must not overlap one another.
pub fn openBatch(key: *const [key_length]u8, jobs: []Open) void {
    if (jobs.len == 0) return;
    for (jobs) |*job| {
        assert(job.length <= length_max);
        job.authentic = false;
    }
    dispatch.active().open(key, jobs.ptr, jobs.len);
}

/// std's has no checks in pywgd: see core/wire/assert.zig, which this room does not import.
fn assert(ok: bool) void {
    if (!ok) unreachable;
}

/// Overwrites the stack below the caller. The compiler keeps key words there while the kernels run, and nobody else
/// can wipe them: to be called when keys are gone, from no deeper than the batches were.
pub noinline fn scrubStack() void {
    var below: [scrub_length]u8 = undefined;
    std.crypto.secureZero(u8, &below);
}

/// The deepest frames of the kernels take 15 KiB (v4ifma), those between them and the loop of a device less than 6.
const scrub_length = 24 << 10;

fn sameOrApart(job: Seal) bool {
    const source = @intFromPtr(job.source);
    const destination = @intFromPtr(job.destination);
    if (source == destination) return true;
    return source + job.length <= destination or destination + job.length + tag_length <= source;
}

const testing = std.testing;
const mem = std.mem;
const Oracle = std.crypto.aead.chacha_poly.ChaCha20Poly1305;

fn nonceOf(counter: u64) [12]u8 {
    var nonce: [12]u8 = @splat(0);
    mem.writeInt(u64, nonce[4..12], counter, .little);
    return nonce;
}

/// Runs `check` once for every flavour this CPU supports.
fn forEachFlavour(comptime check: fn (random: std.Random) anyerror!void) !void {
    defer select(null);
    for (&dispatch.kernels) |*kernel| {
        if (!kernel.supported()) continue;
        select(kernel.suffix);
        try testing.expectEqualStrings(kernel.path(), path());
        var prng: std.Random.DefaultPrng = .init(44);
        try check(prng.random());
    }
}

/// A batch in one arena of bytes: each packet has its plaintext, its sealed form and std's, at odd addresses.
const Batch = struct {
    key: [32]u8,
    counter_first: u64,
    lengths: []const usize,
    plain: [][]u8,
    sealed: [][]u8,
    expected: [][]u8,

    fn init(arena: std.mem.Allocator, random: std.Random, lengths: []const usize) !Batch {
        var batch: Batch = .{
            .key = undefined,
            .counter_first = random.int(u64) >> random.int(u6),
            .lengths = lengths,
            .plain = try arena.alloc([]u8, lengths.len),
            .sealed = try arena.alloc([]u8, lengths.len),
            .expected = try arena.alloc([]u8, lengths.len),
        };
        batch.counter_first -|= lengths.len;
        random.bytes(&batch.key);
        for (lengths, 0..) |length, i| {
            // A margin of 0x5a on both sides shows writes out of bounds.
            const shift: usize = random.int(u4);
            const room = try arena.alloc(u8, length + tag_length + 64);
            @memset(room, 0x5a);
            batch.sealed[i] = room[16 + shift ..][0 .. length + tag_length];
            batch.plain[i] = (try arena.alloc(u8, length + 16))[shift..][0..length];
            random.bytes(batch.plain[i]);
            batch.expected[i] = try arena.alloc(u8, length + tag_length);
            const nonce = nonceOf(batch.counter_first + i);
            const tag = batch.expected[i][length..][0..tag_length];
            Oracle.encrypt(batch.expected[i][0..length], tag, batch.plain[i], "", nonce, batch.key);
        }
        return batch;
    }

    fn expectSealsAndOpens(batch: *Batch, arena: std.mem.Allocator) !void {
        const seals = try arena.alloc(Seal, batch.lengths.len);
        for ([_]bool{ false, true }) |in_place| {
            for (seals, batch.plain, batch.sealed) |*job, plain, sealed| {
                if (in_place) @memcpy(sealed[0..plain.len], plain) else @memset(sealed, 0xaa);
                const source = if (in_place) sealed.ptr else plain.ptr;
                job.* = .{ .source = source, .destination = sealed.ptr, .length = plain.len };
            }
            sealBatch(&batch.key, batch.counter_first, seals);
            for (batch.expected, batch.sealed) |expected, sealed| try testing.expectEqualSlices(u8, expected, sealed);
            try batch.expectMarginsWhole();
        }
        const opens = try batch.opensAll(arena);
        openBatch(&batch.key, opens);
        for (opens, batch.plain) |job, plain| {
            try testing.expect(job.authentic);
            try testing.expectEqualSlices(u8, plain, job.data[0..job.length]);
        }
        try batch.expectMarginsWhole();
    }

    fn opensAll(batch: *Batch, arena: std.mem.Allocator) ![]Open {
        const opens = try arena.alloc(Open, batch.lengths.len);
        for (opens, batch.sealed, 0..) |*job, sealed, i| job.* = .{
            .data = sealed.ptr,
            .length = sealed.len - tag_length,
            .counter = batch.counter_first + i,
            .authentic = false,
        };
        return opens;
    }

    fn expectMarginsWhole(batch: *Batch) !void {
        for (batch.sealed) |sealed| {
            try testing.expect(mem.allEqual(u8, (sealed.ptr - 16)[0..16], 0x5a));
            try testing.expect(mem.allEqual(u8, (sealed.ptr + sealed.len)[0..16], 0x5a));
        }
    }
};

test "the sums of every level are those of the words" {
    const Check = struct {
        fn run(random: std.Random) anyerror!void {
            var bytes: [700]u8 = undefined;
            var copy: [708]u8 = undefined;
            random.bytes(&bytes);
            const sum, const copySum = checksumLoops();
            for (0..8) |offset| for (0..bytes.len - offset) |length| {
                const part = bytes[offset..][0..length];
                var expected: u64 = 0;
                for (part, 0..) |byte, i| expected += if (i % 2 == 0) @as(u64, byte) << 8 else byte;
                @memset(&copy, 0xaa);
                const to = copy[(offset * 3) % 8 ..];
                try testing.expectEqual(expected % 0xffff, sum(part.ptr, length) % 0xffff);
                try testing.expectEqual(expected % 0xffff, copySum(to.ptr, part.ptr, length) % 0xffff);
                try testing.expectEqualSlices(u8, part, to[0..length]);
                try testing.expectEqual(0xaa, to[length]);
            };
        }
    };
    try forEachFlavour(Check.run);
}

test "the packet of RFC 8439 2.8.2 without its associated data gives the known answer" {
    // Its key and text, WireGuard's nonce shape; the bytes were made by OpenSSL.
    const Check = struct {
        fn run(_: std.Random) anyerror!void {
            var key: [32]u8 = undefined;
            for (&key, 0x80..) |*byte, i| byte.* = @intCast(i);
            const text = "Ladies and Gentlemen of the class of '99: If I could offer you " ++
                "only one tip for the future, sunscreen would be it.";
            var buffer: [text.len + tag_length]u8 = undefined;
            const job: Seal = .{ .source = text, .destination = &buffer, .length = text.len };
            sealBatch(&key, 0x4746_4544_4342_4140, &.{job});
            var expected: [text.len + tag_length]u8 = undefined;
            _ = try std.fmt.hexToBytes(&expected, known_answer);
            try testing.expectEqualSlices(u8, &expected, &buffer);
        }
    };
    try forEachFlavour(Check.run);
}

const known_answer =
    "a479cb54628946d6f4042a8e384ef4bd2fbc7330b8be55eb2d8dc18aaa51d66a8ec1f8d3619a258db0ac56956015b7b4" ++
    "937e9b8e6aa957b3dc0214d803d77660aabc913092971da8f207171ce7843608162e2e759d8efc25d8d0936990af63c8" ++
    "20ba87e8a955b5c8274ef7d10f6fafd04647fa6775577a1a250dcc2df37e95e46c4a";

test "the Poly1305 key of RFC 8439 2.6.2 authenticates an empty packet" {
    // Its nonce begins with four zero bytes, as WireGuard's do. An empty packet's tag is the MAC of one zero
    // block, the lengths, under the vector's r and s.
    const Check = struct {
        fn run(_: std.Random) anyerror!void {
            var key: [32]u8 = undefined;
            for (&key, 0x80..) |*byte, i| byte.* = @intCast(i);
            var one_time: [32]u8 = undefined;
            _ = try std.fmt.hexToBytes(&one_time, "8ad5a08b905f81cc815040274ab29471a833b637e3fd0da508dbb8e2fdd1a646");
            var expected: [16]u8 = undefined;
            std.crypto.onetimeauth.Poly1305.create(&expected, &@as([16]u8, @splat(0)), &one_time);
            var tag: [tag_length]u8 = undefined;
            sealBatch(&key, 0x0706_0504_0302_0100, &.{.{ .source = &tag, .destination = &tag, .length = 0 }});
            try testing.expectEqualSlices(u8, &expected, &tag);
        }
    };
    try forEachFlavour(Check.run);
}

test "every length from 0 to 2100, in batches" {
    const Check = struct {
        fn run(random: std.Random) anyerror!void {
            var arena: std.heap.ArenaAllocator = .init(testing.allocator);
            defer arena.deinit();
            var length: usize = 0;
            while (length <= 2100) {
                _ = arena.reset(.retain_capacity);
                var lengths: [97]usize = undefined;
                const count = 1 + random.uintLessThan(usize, lengths.len);
                for (lengths[0..count]) |*slot| {
                    slot.* = length;
                    length += 1;
                }
                random.shuffle(usize, lengths[0..count]);
                var batch: Batch = try .init(arena.allocator(), random, lengths[0..count]);
                try batch.expectSealsAndOpens(arena.allocator());
            }
        }
    };
    try forEachFlavour(Check.run);
}

test "one packet alone, of every length from 0 to 600" {
    const Check = struct {
        fn run(random: std.Random) anyerror!void {
            var arena: std.heap.ArenaAllocator = .init(testing.allocator);
            defer arena.deinit();
            for (0..601) |length| {
                _ = arena.reset(.retain_capacity);
                var batch: Batch = try .init(arena.allocator(), random, &.{length});
                try batch.expectSealsAndOpens(arena.allocator());
            }
        }
    };
    try forEachFlavour(Check.run);
}

test "random batches of lengths up to 65535, small ones, equal ones, and many empty ones" {
    const Check = struct {
        fn run(random: std.Random) anyerror!void {
            var arena: std.heap.ArenaAllocator = .init(testing.allocator);
            defer arena.deinit();
            var lengths: [140]usize = undefined;
            for (0..120) |round| {
                _ = arena.reset(.retain_capacity);
                const most: usize = switch (round % 4) {
                    0 => 65535,
                    1 => 80,
                    2 => 1452,
                    else => 16,
                };
                const count = if (most == 65535) random.uintAtMost(usize, 5) else random.uintAtMost(usize, lengths.len);
                const equal = random.boolean();
                const same = random.uintAtMost(usize, most);
                for (lengths[0..count]) |*slot| {
                    slot.* = if (equal) same else random.uintAtMost(usize, most) * @intFromBool(random.int(u3) != 0);
                }
                var batch: Batch = try .init(arena.allocator(), random, lengths[0..count]);
                try batch.expectSealsAndOpens(arena.allocator());
            }
        }
    };
    try forEachFlavour(Check.run);
}

test "a flip of any bit of a packet or its tag is detected and nothing of it is left" {
    const Check = struct {
        fn run(random: std.Random) anyerror!void {
            var arena: std.heap.ArenaAllocator = .init(testing.allocator);
            defer arena.deinit();
            const lengths: [9]usize = @splat(100);
            var batch: Batch = try .init(arena.allocator(), random, &lengths);
            const opens = try batch.opensAll(arena.allocator());
            for (0..(100 + tag_length) * 8) |bit| {
                const victim = bit % lengths.len;
                for (batch.sealed, batch.expected) |sealed, expected| @memcpy(sealed, expected);
                batch.sealed[victim][bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
                openBatch(&batch.key, opens);
                for (opens, batch.plain, 0..) |job, plain, i| {
                    try testing.expectEqual(i != victim, job.authentic);
                    if (i == victim) {
                        try testing.expect(mem.allEqual(u8, job.data[0..job.length], 0));
                    } else {
                        try testing.expectEqualSlices(u8, plain, job.data[0..job.length]);
                    }
                }
            }
            // The wrong counter and the wrong key.
            for (batch.sealed, batch.expected) |sealed, expected| @memcpy(sealed, expected);
            opens[3].counter ^= 1 << 63;
            openBatch(&batch.key, opens);
            for (opens, 0..) |job, i| try testing.expectEqual(i != 3, job.authentic);
            for (batch.sealed, batch.expected) |sealed, expected| @memcpy(sealed, expected);
            batch.key[31] ^= 0x80;
            openBatch(&batch.key, opens);
            for (opens) |job| try testing.expect(!job.authentic and mem.allEqual(u8, job.data[0..job.length], 0));
        }
    };
    try forEachFlavour(Check.run);
}

test "in mixed batches every packet gets its own verdict, whatever its counter and its neighbours" {
    const Check = struct {
        fn run(random: std.Random) anyerror!void {
            var arena: std.heap.ArenaAllocator = .init(testing.allocator);
            defer arena.deinit();
            var lengths: [100]usize = undefined;
            for (0..100) |_| {
                _ = arena.reset(.retain_capacity);
                const most: usize = if (random.boolean()) 200 else 1500;
                for (&lengths) |*slot| slot.* = random.uintAtMost(usize, most);
                const count = random.intRangeAtMost(usize, 1, lengths.len);
                var batch: Batch = try .init(arena.allocator(), random, lengths[0..count]);
                for (batch.sealed, batch.expected) |sealed, expected| @memcpy(sealed, expected);
                const opens = try batch.opensAll(arena.allocator());
                random.shuffle(Open, opens);
                var forged: std.StaticBitSet(100) = .empty;
                for (opens, 0..) |job, i| {
                    if (random.int(u2) != 0) continue;
                    forged.set(i);
                    job.data[random.uintLessThan(usize, job.length + tag_length)] ^= @as(u8, 1) << random.int(u3);
                }
                openBatch(&batch.key, opens);
                for (opens, 0..) |job, i| {
                    try testing.expectEqual(!forged.isSet(i), job.authentic);
                    const plain = batch.plain[@intCast(job.counter - batch.counter_first)];
                    if (job.authentic) {
                        try testing.expectEqualSlices(u8, plain, job.data[0..job.length]);
                    } else {
                        try testing.expect(mem.allEqual(u8, job.data[0..job.length], 0));
                    }
                }
                try batch.expectMarginsWhole();
            }
        }
    };
    try forEachFlavour(Check.run);
}

test "after a scrub no word of the key is on the stack" {
    const Check = struct {
        fn run(random: std.Random) anyerror!void {
            var key: [32]u8 = undefined;
            random.bytes(&key);
            var buffer: [1420 + tag_length]u8 = undefined;
            random.bytes(&buffer);
            sealBatch(&key, 7, &.{.{ .source = &buffer, .destination = &buffer, .length = 1420 }});
            scrubStack();
            try testing.expectEqual(0, wordsBelow(&key));
        }
    };
    try forEachFlavour(Check.run);
}

test "after a batch and a scrub no word of a Poly1305 key is on the stack" {
    const Check = struct {
        fn run(random: std.Random) anyerror!void {
            var key: [32]u8 = undefined;
            random.bytes(&key);
            const count = 20;
            var buffers: [count][600 + tag_length]u8 = undefined;
            var seals: [count]Seal = undefined;
            var opens: [count]Open = undefined;
            var one_time: [count][32]u8 = @splat(@splat(0));
            for (&buffers, &seals, &opens, &one_time, 0..) |*buffer, *sealing, *opening, *mac_key, i| {
                const length: usize = if (i % 2 == 0) 600 else 570;
                sealing.* = .{ .source = buffer, .destination = buffer, .length = length };
                opening.* = .{ .data = buffer, .length = length, .counter = 7 + i, .authentic = false };
                std.crypto.stream.chacha.ChaCha20IETF.xor(mac_key, mac_key, 0, key, nonceOf(7 + i));
            }
            sealBatch(&key, 7, &seals);
            scrubStack();
            for (&one_time) |*mac_key| try testing.expectEqual(0, wordsBelow(mac_key));
            openBatch(&key, &opens);
            scrubStack();
            for (&one_time) |*mac_key| try testing.expectEqual(0, wordsBelow(mac_key));
        }
    };
    try forEachFlavour(Check.run);
}

/// Words of the key in what calls have left on the stack. Reads without calling anything, which would overwrite it.
fn wordsBelow(key: *const [32]u8) usize {
    const words: *align(1) const [8]u32 = @ptrCast(key);
    const top = @frameAddress() & ~@as(usize, 3);
    var found: usize = 0;
    var at = top - (scrub_length - 1024);
    while (at < top - 256) : (at += 4) {
        const left = @as(*const volatile u32, @ptrFromInt(at)).*;
        for (words) |word| found += @intFromBool(left == word);
    }
    return found;
}

test {
    _ = dispatch;
    _ = aead;
    _ = @import("poly1305_ifma.zig");
}
