//! For tests/crypto/test_constant_time.py only, to run under valgrind's memcheck; no install has it.
//!
//!   ctgrind TASK [KERNELS]
//!
//! Secrets are marked as undefined memory. Memcheck follows them through registers and memory and reports every
//! branch and every address that depends on them: ImperialViolet's ctgrind. Packets lie between bytes that may not
//! be touched, so reads and writes out of bounds show too. Does not see instructions whose own time varies.
//! Invariant: only what an observer learns anyway is declared public, and each place says why.
const std = @import("std");
const cipher = @import("cipher");
const protocol = @import("protocol");
const runtime = @import("runtime");
const crypto = protocol.crypto;
const memcheck = std.valgrind.memcheck;
const classify = std.crypto.timing_safe.classify;
const declassify = std.crypto.timing_safe.declassify;

const Task = enum { seal, open, compare, hexadecimal, agreement, derivation, branches, indexes, overreads };

pub fn main(init: std.process.Init.Minimal) u8 {
    var arguments = init.args.iterate();
    _ = arguments.skip();
    const task = std.meta.stringToEnum(Task, arguments.next() orelse return 2) orelse return 2;
    if (std.valgrind.runningOnValgrind() == 0) return 3;
    if (arguments.next()) |kernels| {
        cipher.select(kernels);
        if (std.mem.find(u8, cipher.path(), kernels) == null) return 4;
    }
    switch (task) {
        .seal => forEachBatch(false),
        .open => forEachBatch(true),
        .compare => compareSecrets(),
        .hexadecimal => convertSecrets(),
        .agreement => agree(),
        .derivation => derive(),
        .branches => branchOnSecret(),
        .indexes => indexBySecret(),
        .overreads => readBeyond(),
    }
    return 0;
}

// ---- the AEAD -----------------------------------------------------------------------------------------------------

/// Around blocks of Poly1305 (16) and ChaCha20 (64), around groups of both lane counts, and the usual packets.
const lengths = [_]usize{
    0,   1,   2,   3,   7,   15,  16,  17,  31,  32,  33,   47,   48,   63,   64, 65, 79, 100, 127, 128, 129, 191, 192,
    255, 256, 257, 319, 448, 511, 512, 513, 575, 576, 1023, 1420, 1452, 2100,
};
/// More packets than a window of the kernels takes.
const many = 2 * lengths.len;

var arena: [1 << 18]u8 align(64) = undefined;
var seals: [many]cipher.Seal = undefined;
var opens: [many]cipher.Open = undefined;

fn forEachBatch(is_opening: bool) void {
    for (0..lengths.len) |i| runBatch(lengths[i..][0..1], is_opening);
    runBatch(&(lengths ++ lengths), is_opening);
    const small: [many]usize = @splat(1);
    runBatch(&small, is_opening);
    const empty: [many]usize = @splat(0);
    runBatch(&empty, is_opening);
}

/// Seals in place and apart. If asked to, opens both: the first as they are, the second with a wrong bit in each.
fn runBatch(batch: []const usize, is_opening: bool) void {
    for ([_]bool{ true, false }) |in_place| {
        var key: [32]u8 = @splat(0x42);
        classify(&key);
        memcheck.makeMemNoAccess(&arena);
        var end: usize = 0;
        for (batch, seals[0..batch.len]) |length, *job| {
            const destination = take(&end, length + cipher.tag_length);
            const source = if (in_place) destination else take(&end, length);
            fillSecretly(source[0..length]);
            job.* = .{ .source = source.ptr, .destination = destination.ptr, .length = length };
        }
        cipher.sealBatch(&key, 7, seals[0..batch.len]);
        if (is_opening) openBatch(&key, batch.len, in_place);
    }
}

/// What is opened is still marked: it came from the key.
fn openBatch(key: *const [32]u8, count: usize, is_whole: bool) void {
    for (seals[0..count], opens[0..count], 7..) |seal, *job, counter| {
        job.* = .{ .data = seal.destination, .length = seal.length, .counter = counter, .authentic = false };
        if (!is_whole) seal.destination[(counter * 5) % (seal.length + cipher.tag_length)] ^= 0x10;
    }
    cipher.openBatch(key, opens[0..count]);
    // The kernels declare each verdict public; here it is looked at.
    for (opens[0..count]) |job| {
        std.debug.assert(job.authentic == is_whole);
        const plain = job.data[0..job.length];
        memcheck.makeMemDefined(plain);
        std.debug.assert(std.mem.allEqual(u8, plain, if (is_whole) 0x51 else 0));
    }
}

/// The next bytes that may be touched, at an odd address. The same address is never given twice in a batch.
fn take(end: *usize, length: usize) []u8 {
    const begin = end.* + 65;
    end.* = begin + length;
    const bytes = arena[begin..][0..length];
    memcheck.makeMemUndefined(bytes);
    return bytes;
}

fn fillSecretly(bytes: []u8) void {
    @memset(bytes, 0x51);
    memcheck.makeMemUndefined(bytes);
}

// ---- the protocol -------------------------------------------------------------------------------------------------

fn compareSecrets() void {
    inline for (.{ .{ 16, crypto.eql16 }, .{ 32, crypto.eql32 } }) |row| {
        for (0..row[0] * 8 + 1) |bit| {
            var ours: [row[0]]u8 = @splat(0x77);
            var theirs = ours;
            if (bit < row[0] * 8) theirs[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
            classify(&ours);
            classify(&theirs);
            var equal = row[1](&ours, &theirs);
            // Public: what follows a comparison shows how it went, but not where the two differ.
            declassify(&equal);
            std.debug.assert(equal == (bit == row[0] * 8));
        }
    }
}

fn convertSecrets() void {
    var digits = "0123456789abcdefABCDEF0123456789fedcba9876543210FEDCBA9876543210".*;
    classify(&digits);
    var key: [32]u8 = undefined;
    var valid = protocol.uapi.decodeHex(&digits, &key);
    // Public: a key that is no key is refused with a message.
    declassify(&valid);
    std.debug.assert(valid);
    protocol.uapi.encodeHex(&key, &digits);
    declassify(&digits);
    std.debug.assert(std.mem.eql(u8, digits[16..24], "abcdef01"));
}

fn agree() void {
    var private: [32]u8 = @splat(0x39);
    classify(&private);
    var public = crypto.publicKey(&private);
    // Public by its name.
    declassify(&public);
    _ = crypto.dh(&private, &public) catch unreachable;
}

/// What a handshake does with the outcome: KDF, MAC, and the AEAD over its fields.
fn derive() void {
    var shared: [32]u8 = @splat(0x39);
    classify(&shared);
    var chaining: [32]u8 = @splat(1);
    var key: [32]u8 = undefined;
    crypto.kdf2(&chaining, &key, &chaining, &shared);
    const digest = crypto.mac(&key, &shared);
    var sealed: [32 + crypto.tag_length]u8 = undefined;
    crypto.aeadSeal(&sealed, &key, 0, &shared, &chaining);
    var opened: [32]u8 = undefined;
    // Forged, so that the refusal and what it wipes are followed too.
    sealed[0] ^= digest[0];
    _ = crypto.aeadOpen(&opened, &key, 0, &sealed, &chaining);
}

// ---- that faults are found ----------------------------------------------------------------------------------------

var sink: usize = 0;

fn touch(amount: usize) void {
    const cell: *volatile usize = &sink;
    cell.* += amount;
}

fn branchOnSecret() void {
    var secret: [1]u8 = .{3};
    classify(&secret);
    // An assembler's comment keeps the compiler from choosing without a branch.
    if (secret[0] & 1 != 0) asm volatile ("# taken" ::: .{ .memory = true });
}

fn indexBySecret() void {
    var secret: [1]u8 = .{3};
    classify(&secret);
    const table: *const volatile [256]u8 = arena[0..256];
    var found = table[secret[0]];
    declassify(&found);
    touch(found);
}

fn readBeyond() void {
    memcheck.makeMemNoAccess(&arena);
    var end: usize = 0;
    const bytes = take(&end, 16);
    const cell: *const volatile u8 = &bytes.ptr[16];
    var beyond = cell.*;
    declassify(&beyond);
    touch(beyond);
}

pub const std_options = runtime.std_options;
pub const panic = runtime.panic;
