//! The AEAD's kernels against std's ChaCha20-Poly1305, batch by batch: sealed in place and apart, opened with forgeries
//! of many kinds among authentic packets. Packets lie in one image of memory that is compared as a whole, so a byte
//! written out of place is found; the image ends, or begins, where memory does, so a read out of place crashes.
//! Does not know how packets are spread over lanes. Every kernel sees the same cases.
const std = @import("std");
const mem = std.mem;
const linux = std.os.linux;
const cipher_testing = @import("cipher_testing");
const field = @import("field.zig");
const report = @import("report");
const cipher = cipher_testing.cipher;
const tag_length = cipher.tag_length;
const Oracle = std.crypto.aead.chacha_poly.ChaCha20Poly1305;

const packets_max = 200;
const length_max = 65535;
/// Of one batch, before its last packet.
const bytes_max = 1 << 19;
/// How much longer a forgery may be than its packet.
const longer_max = 64;
const gap_max = 96;
/// What lies between packets, and what a destination holds before.
const margin = 0x5a;
const unwritten = 0xaa;

const Packet = struct {
    length: u32,
    counter: u64,
    /// In `plain`.
    plain_at: u32,
    /// In `sealed`, with the tag behind it.
    sealed_at: u32,

    fn plaintext(packet: Packet) []u8 {
        return plain[packet.plain_at..][0..packet.length];
    }

    fn ciphertext(packet: Packet) []u8 {
        return sealed[packet.sealed_at..][0 .. packet.length + tag_length];
    }
};

var key: [cipher.key_length]u8 = undefined;
var packets_memory: [packets_max]Packet = undefined;
/// Of this iteration.
var packets: []Packet = &.{};
var plain: [bytes_max + length_max]u8 = undefined;
var sealed: [plain.len + packets_max * tag_length]u8 = undefined;

/// Suffixes of the kernels to run.
var chosen_memory: [cipher_testing.kernels.len][]const u8 = undefined;
var chosen: []const []const u8 = &.{};

/// False if the kernels asked for do not run here.
pub fn prepare(wanted: ?[]const u8) bool {
    var count: usize = 0;
    for (cipher_testing.kernels) |*kernel| {
        if (wanted) |suffix| if (!mem.eql(u8, suffix, kernel.suffix)) continue;
        if (!cipher_testing.select(kernel.suffix)) continue;
        report.say("kernels: {s} (path {s})", .{ kernel.suffix, cipher.path() });
        chosen_memory[count] = kernel.suffix;
        count += 1;
    }
    chosen = chosen_memory[0..count];
    mapWork();
    return count > 0;
}

pub fn iterate(random: std.Random) report.Error!void {
    makeBatch(random);
    try sealAll(random);
    try openAll(random);
}

// ---- a batch ------------------------------------------------------------------------------------------------------

const Lengths = enum {
    empty,
    edges,
    small,
    wire,
    ordinary,
    long,

    fn pick(lengths: Lengths, random: std.Random) u32 {
        // Around blocks of Poly1305 and ChaCha20 and groups of 4, 8 and 16 blocks.
        const units = [_]u32{ 0, 16, 32, 48, 64, 128, 192, 256, 448, 512, 576, 960, 1024, 1088 };
        return switch (lengths) {
            .empty => 0,
            .edges => (units[random.uintLessThan(u32, units.len)] + random.uintAtMost(u32, 2)) -| 1,
            .small => random.uintAtMost(u32, 80),
            .wire => random.intRangeAtMost(u32, 1419, 1452),
            .ordinary => random.uintAtMost(u32, 2100),
            .long => length_max - (random.int(u32) >> random.intRangeAtMost(u5, 16, 31)),
        };
    }
};

fn makeBatch(random: std.Random) void {
    random.bytes(&key);
    const count = pickCount(random);
    const counter_first = pickCounter(random, count);
    // A batch of equal packets, of one kind, or of all kinds.
    const kind = pickKind(random);
    const is_mixed = random.uintLessThan(u32, 4) == 0;
    const equal: ?u32 = if (random.uintLessThan(u32, 3) == 0) kind.pick(random) else null;
    const budget = @as(u32, 1) << random.intRangeAtMost(u5, 12, 19);
    packets = packets_memory[0..0];
    var plain_end: u32 = 0;
    while (packets.len < count and plain_end < budget) {
        const place = packets.len;
        packets.len += 1;
        const of = if (is_mixed) pickKind(random) else kind;
        packets[place] = .{
            .length = equal orelse of.pick(random),
            .counter = counter_first + place,
            .plain_at = plain_end,
            .sealed_at = @intCast(plain_end + place * tag_length),
        };
        plain_end += packets[place].length;
    }
    fill(random, plain[0..plain_end]);
    const is_steered = random.uintLessThan(u32, 4) == 0;
    for (packets) |packet| {
        if (is_steered and packet.length <= 1100 and random.boolean()) steer(random, packet);
        const bytes = packet.ciphertext();
        const tag = bytes[packet.length..][0..tag_length];
        Oracle.encrypt(bytes[0..packet.length], tag, packet.plaintext(), "", nonce(packet.counter), key);
    }
}

fn pickCount(random: std.Random) u32 {
    // Around groups of lanes and windows of packets.
    const edges = [_]u32{ 0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 192, packets_max };
    if (random.boolean()) return edges[random.uintLessThan(u32, edges.len)];
    return random.uintAtMost(u32, packets_max);
}

/// Long packets rarely: they take the time of a hundred others.
fn pickKind(random: std.Random) Lengths {
    return switch (random.uintLessThan(u32, 32)) {
        0 => .long,
        1...3 => .empty,
        4...11 => .edges,
        12...18 => .small,
        19...25 => .wire,
        else => .ordinary,
    };
}

/// Often so that a word carries, or counters end, inside of the batch.
fn pickCounter(random: std.Random, count: u32) u64 {
    const edges = [_]u64{ 0, 1 << 31, 1 << 32, 1 << 33, 1 << 63, 0 -% @as(u64, 1 << 32), std.math.maxInt(u64) };
    const first = if (random.boolean())
        random.int(u64) >> random.int(u6)
    else
        edges[random.uintLessThan(u32, edges.len)] -| random.uintAtMost(u32, count);
    return @min(first, @as(u64, std.math.maxInt(u64)) - (count -| 1));
}

fn fill(random: std.Random, bytes: []u8) void {
    switch (random.uintLessThan(u32, 8)) {
        0 => @memset(bytes, 0),
        1 => @memset(bytes, 0xff),
        else => random.bytes(bytes),
    }
}

/// Not by a usize, so that every architecture picks the same.
fn pickOne(random: std.Random, comptime Enum: type) Enum {
    return random.enumValueWithIndex(Enum, u32);
}

fn nonce(counter: u64) [12]u8 {
    var bytes: [12]u8 = @splat(0);
    mem.writeInt(u64, bytes[4..12], counter, .little);
    return bytes;
}

// ---- Poly1305 at its edges ----------------------------------------------------------------------------------------

/// Chooses the plaintext so that the accumulator of Poly1305 ends, or passes, at an edge of the field.
fn steer(random: std.Random, packet: Packet) void {
    const whole = packet.length / field.block_length;
    if (whole == 0) return;
    const mac = macKey(packet.counter);
    const inverse = field.invert(mac.r) orelse return;
    const bytes = packet.ciphertext()[0..packet.length];
    if (random.boolean()) @memset(bytes, 0xff) else random.bytes(bytes);
    const at = if (random.boolean()) whole - 1 else random.uintLessThan(u32, whole);

    var wanted = field.edge(random);
    if (random.boolean()) wanted = field.retreat(wanted, inverse, &lengthsOf(packet.length));
    if (bytes.len % field.block_length != 0) wanted = field.retreat(wanted, inverse, &blockOf(bytes, whole));
    var i = whole;
    while (i > at + 1) : (i -= 1) wanted = field.retreat(wanted, inverse, &blockOf(bytes, i - 1));

    var before: field.Number = 0;
    for (0..at -| 1) |earlier| before = mac.absorb(before, &blockOf(bytes, earlier));
    for (0..8) |_| {
        // A block fits one time in four; the one before it is what can be tried again.
        const entering = if (at > 0) mac.absorb(before, &blockOf(bytes, at - 1)) else before;
        if (field.steer(entering, wanted, inverse)) |block| {
            bytes[at * field.block_length ..][0..field.block_length].* = block;
            break;
        }
        if (at == 0) break;
        random.bytes(bytes[(at - 1) * field.block_length ..][0..field.block_length]);
    }
    std.crypto.stream.chacha.ChaCha20IETF.xor(packet.plaintext(), bytes, 1, key, nonce(packet.counter));
}

fn macKey(counter: u64) field.Key {
    var one_time: [32]u8 = @splat(0);
    std.crypto.stream.chacha.ChaCha20IETF.xor(&one_time, &one_time, 0, key, nonce(counter));
    return .init(&one_time);
}

fn lengthsOf(length: u32) field.Block {
    var block: field.Block = @splat(0);
    mem.writeInt(u64, block[8..16], length, .little);
    return block;
}

/// The last one padded with zeros.
fn blockOf(bytes: []const u8, index: usize) field.Block {
    const rest = bytes[index * field.block_length ..];
    const length = @min(rest.len, field.block_length);
    var block: field.Block = @splat(0);
    @memcpy(block[0..length], rest[0..length]);
    return block;
}

// ---- the image of memory ------------------------------------------------------------------------------------------

/// Two places a packet, with what surrounds them.
const image_max = 2 * (plain.len + packets_max * (tag_length + longer_max + gap_max)) + gap_max;
/// The largest page of any architecture we build for.
const page = 1 << 16;
const work_length = mem.alignForward(usize, image_max, page);

var before_memory: [image_max]u8 = undefined;
var after_memory: [image_max]u8 = undefined;
/// Where kernels work, between pages that may not be touched.
var work_memory: [*]u8 = undefined;

fn mapWork() void {
    const whole = work_length + 2 * page;
    const flags: linux.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true };
    const address = linux.mmap(null, whole, .{}, flags, -1, 0);
    std.debug.assert(linux.errno(address) == .SUCCESS);
    work_memory = @ptrFromInt(address + page);
    const opened_up = linux.mprotect(work_memory, work_length, .{ .READ = true, .WRITE = true });
    std.debug.assert(linux.errno(opened_up) == .SUCCESS);
}

const Image = struct {
    length: u32 = 0,
    gaps: enum { none, header, any },
    is_at_end: bool,

    fn init(random: std.Random) Image {
        return .{ .gaps = pickOne(random, @FieldType(Image, "gaps")), .is_at_end = random.boolean() };
    }

    /// The place of the next bytes.
    fn place(image: *Image, random: std.Random, size: usize) u32 {
        // Without a gap at either end packets lie against the forbidden pages.
        const is_first = image.length == 0 and !image.is_at_end;
        if (!is_first) image.addGap(random);
        const at = image.length;
        image.length += @intCast(size);
        return at;
    }

    fn addGap(image: *Image, random: std.Random) void {
        const size: u32 = switch (image.gaps) {
            .none => 0,
            .header => 16,
            .any => random.intRangeAtMost(u32, 1, gap_max),
        };
        @memset(before_memory[image.length..][0..size], margin);
        @memset(after_memory[image.length..][0..size], margin);
        image.length += size;
    }

    fn before(_: Image, at: u32, size: usize) []u8 {
        return before_memory[at..][0..size];
    }

    fn after(_: Image, at: u32, size: usize) []u8 {
        return after_memory[at..][0..size];
    }

    fn work(image: Image) []u8 {
        const memory = work_memory[0..work_length];
        return if (image.is_at_end) memory[work_length - image.length ..] else memory[0..image.length];
    }

    fn load(image: Image) void {
        @memcpy(image.work(), before_memory[0..image.length]);
    }

    /// The first byte that is not what it should be.
    fn wrong(image: Image) ?usize {
        return mem.findDiff(u8, image.work(), after_memory[0..image.length]);
    }
};

// ---- sealing ------------------------------------------------------------------------------------------------------

const Sealing = struct { source: u32, destination: u32 };

var sealings: [packets_max]Sealing = undefined;
var seals: [packets_max]cipher.Seal = undefined;

fn sealAll(random: std.Random) report.Error!void {
    var image: Image = .init(random);
    const usual = random.boolean();
    const is_mixed = random.uintLessThan(u32, 3) == 0;
    for (packets, sealings[0..packets.len]) |packet, *sealing| {
        const in_place = if (is_mixed) random.boolean() else usual;
        sealing.* = placeSeal(&image, random, packet, in_place);
    }
    if (!image.is_at_end) image.addGap(random);
    for (chosen) |kernels| {
        std.debug.assert(cipher_testing.select(kernels));
        image.load();
        const work = image.work();
        for (packets, sealings[0..packets.len], seals[0..packets.len]) |packet, sealing, *job| job.* = .{
            .source = work[sealing.source..].ptr,
            .destination = work[sealing.destination..].ptr,
            .length = packet.length,
        };
        const counter_first = if (packets.len > 0) packets[0].counter else std.math.maxInt(u64);
        cipher.sealBatch(&key, counter_first, seals[0..packets.len]);
        if (image.wrong()) |at| return describeSeal(kernels, image, at);
    }
}

fn placeSeal(image: *Image, random: std.Random, packet: Packet, in_place: bool) Sealing {
    const is_source_first = random.boolean();
    const early = if (!in_place and is_source_first) image.place(random, packet.length) else null;
    const destination = image.place(random, packet.length + tag_length);
    @memset(image.before(destination, packet.length + tag_length), unwritten);
    @memcpy(image.after(destination, packet.length + tag_length), packet.ciphertext());
    const source = early orelse if (in_place) destination else image.place(random, packet.length);
    @memcpy(image.before(source, packet.length), packet.plaintext());
    if (!in_place) @memcpy(image.after(source, packet.length), packet.plaintext());
    return .{ .source = source, .destination = destination };
}

fn describeSeal(kernels: []const u8, image: Image, at: usize) report.Error {
    const got = image.work()[at];
    const expected = after_memory[at];
    for (packets, sealings[0..packets.len], 0..) |packet, sealing, i| {
        const where = if (sealing.source == sealing.destination) "in place" else "apart";
        const offset = at -% sealing.destination;
        if (offset < packet.length + tag_length) return report.mismatch(
            "kernels {s}, sealing packet {d} of {d} ({d} bytes, counter {d}, {s}): byte {d} is {x:0>2}, not {x:0>2}",
            .{ kernels, i, packets.len, packet.length, packet.counter, where, offset, got, expected },
        );
        if (at -% sealing.source < packet.length) return report.mismatch(
            "kernels {s}, sealing packet {d} of {d} ({d} bytes, apart): its plaintext was written to",
            .{ kernels, i, packets.len, packet.length },
        );
    }
    return report.mismatch(
        "kernels {s}, sealing {d} packets: {x:0>2} was written outside of every packet",
        .{ kernels, packets.len, got },
    );
}

// ---- opening ------------------------------------------------------------------------------------------------------

const Forgery = enum {
    none,
    bit,
    tag_bit,
    bits,
    counter,
    shortened,
    lengthened,
    other_tag,
    zero_tag,
    one_tag,
    all_bits,
};

const Opening = struct {
    packet: u32,
    forgery: Forgery,
    length: u32,
    counter: u64,
    at: u32,
    is_authentic: bool,
};

var openings_memory: [packets_max]Opening = undefined;
var opens: [packets_max]cipher.Open = undefined;
/// Verdicts before, which must not count.
var stale: [packets_max]bool = undefined;
var opened: [length_max + longer_max]u8 = undefined;

fn openAll(random: std.Random) report.Error!void {
    var image: Image = .init(random);
    var open_key = key;
    if (random.uintLessThan(u32, 32) == 0) open_key[random.int(u5)] ^= @as(u8, 1) << random.int(u3);
    const openings = makeOpenings(&image, random, &open_key);
    if (!image.is_at_end) image.addGap(random);
    for (stale[0..openings.len]) |*verdict| verdict.* = random.boolean();
    for (chosen) |kernels| {
        std.debug.assert(cipher_testing.select(kernels));
        image.load();
        const work = image.work();
        for (openings, stale[0..openings.len], opens[0..openings.len]) |opening, verdict, *job| job.* = .{
            .data = work[opening.at..].ptr,
            .length = opening.length,
            .counter = opening.counter,
            .authentic = verdict,
        };
        cipher.openBatch(&open_key, opens[0..openings.len]);
        for (openings, opens[0..openings.len], 0..) |opening, job, i| {
            const verdict = if (job.authentic) "is accepted" else "is refused";
            if (job.authentic != opening.is_authentic) return describeOpen(kernels, openings, i, verdict);
        }
        if (image.wrong()) |at| return describeOpened(kernels, openings, image, at);
    }
}

/// Packets in another order; some of them twice, some of them not.
fn makeOpenings(image: *Image, random: std.Random, open_key: *const [cipher.key_length]u8) []Opening {
    var order: [packets_max]u32 = undefined;
    for (order[0..packets.len], 0..) |*slot, i| slot.* = @intCast(i);
    if (random.boolean()) random.shuffleWithIndex(u32, order[0..packets.len], u32);
    if (random.uintLessThan(u32, 4) == 0) {
        for (order[0..packets.len]) |*slot| slot.* = random.uintLessThan(u32, @intCast(packets.len));
    }
    const forged_of_eight = if (random.boolean()) random.uintAtMost(u32, 8) else 0;
    const is_right_key = mem.eql(u8, &key, open_key);
    var bytes: u32 = 0;
    for (order[0..packets.len], 0..) |index, i| {
        if (bytes >= bytes_max) return openings_memory[0..i];
        const is_forged = random.uintLessThan(u32, 8) < forged_of_eight;
        const opening = &openings_memory[i];
        opening.* = placeOpen(image, random, index, if (is_forged) pickOne(random, Forgery) else .none);
        const is_known = is_right_key and opening.forgery == .none;
        decide(image, opening, if (is_known) null else open_key);
        bytes += opening.length;
    }
    return openings_memory[0..packets.len];
}

/// The packet as it arrives.
fn placeOpen(image: *Image, random: std.Random, index: u32, forgery: Forgery) Opening {
    const packet = packets[index];
    const length = switch (forgery) {
        .shortened => packet.length -| random.intRangeAtMost(u32, 1, longer_max),
        .lengthened => packet.length + random.intRangeAtMost(u32, 1, longer_max),
        .none, .bit, .tag_bit, .bits, .counter, .other_tag, .zero_tag, .one_tag, .all_bits => packet.length,
    };
    const size = length + tag_length;
    const at = image.place(random, size);
    const bytes = image.before(at, size);
    const source = packet.ciphertext();
    const common = @min(size, source.len);
    @memcpy(bytes[0..common], source[0..common]);
    @memset(bytes[common..], 0);
    const tag = bytes[length..];
    var counter = packet.counter;
    switch (forgery) {
        .none, .shortened, .lengthened => {},
        .bit => flip(random, bytes),
        .tag_bit => flip(random, tag),
        .bits => for (0..random.intRangeAtMost(u32, 2, 40)) |_| flip(random, bytes),
        .counter => counter ^= @as(u64, 1) << random.int(u6),
        .other_tag => {
            const other = packets[random.uintLessThan(u32, @intCast(packets.len))];
            @memcpy(tag, other.ciphertext()[other.length..]);
        },
        .zero_tag => @memset(tag, 0),
        .one_tag => @memset(tag, 0xff),
        .all_bits => for (bytes) |*byte| {
            byte.* = ~byte.*;
        },
    }
    return .{
        .packet = index,
        .forgery = forgery,
        .length = length,
        .counter = counter,
        .at = at,
        .is_authentic = true,
    };
}

fn flip(random: std.Random, bytes: []u8) void {
    bytes[random.uintLessThan(u32, @intCast(bytes.len))] ^= @as(u8, 1) << random.int(u3);
}

/// What must be there afterwards. Without a key the packet is known to be authentic; else std is asked, because a
/// forgery may have changed nothing.
fn decide(image: *const Image, opening: *Opening, open_key: ?*const [cipher.key_length]u8) void {
    const size = opening.length + tag_length;
    const before = image.before(opening.at, size);
    const after = image.after(opening.at, size);
    const tag = before[opening.length..][0..tag_length];
    @memcpy(after[opening.length..], tag);
    const plaintext = after[0..opening.length];
    const asked = open_key orelse {
        @memcpy(plaintext, packets[opening.packet].plaintext());
        return;
    };
    const target = opened[0..opening.length];
    if (Oracle.decrypt(target, before[0..opening.length], tag.*, "", nonce(opening.counter), asked.*)) |_| {
        @memcpy(plaintext, target);
    } else |_| {
        opening.is_authentic = false;
        @memset(plaintext, 0);
    }
}

fn describeOpen(kernels: []const u8, openings: []const Opening, index: usize, what: []const u8) report.Error {
    const opening = openings[index];
    return report.mismatch(
        "kernels {s}, opening packet {d} of {d} ({d} bytes, counter {d}, forgery {t}): it {s}",
        .{ kernels, index, openings.len, opening.length, opening.counter, opening.forgery, what },
    );
}

fn describeOpened(kernels: []const u8, openings: []const Opening, image: Image, at: usize) report.Error {
    for (openings, 0..) |opening, i| {
        if (at -% opening.at >= opening.length + tag_length) continue;
        return describeOpen(kernels, openings, i, if (at - opening.at >= opening.length)
            "has another tag"
        else if (opening.is_authentic) "gives another plaintext" else "is refused and not zeroed");
    }
    return report.mismatch(
        "kernels {s}, opening {d} packets: {x:0>2} was written outside of every packet",
        .{ kernels, openings.len, image.work()[at] },
    );
}
