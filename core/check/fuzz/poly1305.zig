//! Poly1305 by itself against whole numbers: keys at the limits of the clamp, blocks that fill limbs, and blocks chosen
//! so that the accumulator lands where a carry or the last reduction may be forgotten. Through the AEAD such keys
//! cannot be had. The tag is compared after every block. Whole packets, with the block of lengths, go through the form
//! that takes eight at once and through that for one.
//! Does not know how a form computes; testing.zig's Stream says how to call it.
const std = @import("std");
const mem = std.mem;
const cipher_testing = @import("cipher_testing");
const field = @import("field.zig");
const report = @import("report");

const forms = .{
    .{ "limbs of 64 bits", cipher_testing.poly1305.Limbs64 },
    .{ "limbs of 26 bits", cipher_testing.poly1305.Limbs26 },
};

const blocks_max = 40;

const Message = struct {
    key: [32]u8,
    count: u32,
    /// At an odd address, as in a packet.
    bytes: [1 + blocks_max * field.block_length]u8,
    tags: [blocks_max + 1]u128,
    accumulators: [blocks_max + 1]field.Number,

    fn block(message: *const Message, index: usize) *const field.Block {
        return message.bytes[1 + index * field.block_length ..][0..field.block_length];
    }
};

/// Every form runs on every CPU, so there is nothing to choose.
pub fn prepare(kernels: ?[]const u8) bool {
    return kernels == null;
}

pub fn iterate(random: std.Random) report.Error!void {
    var messages: [2]Message = undefined;
    for (&messages) |*message| make(message, random);
    inline for (forms) |form| {
        for (&messages) |*message| try expectTags(form[0], form[1], message);
        const lead = random.uintAtMost(u32, messages[0].count);
        try expectTagsInStep(form[0], form[1], &messages[0], &messages[1], lead);
    }
    try expectTagsOfPackets(&messages, random);
}

// ---- messages -----------------------------------------------------------------------------------------------------

fn make(message: *Message, random: std.Random) void {
    makeKey(&message.key, random);
    message.count = if (random.boolean()) random.uintAtMost(u32, 5) else random.uintAtMost(u32, blocks_max);
    const key: field.Key = .init(&message.key);
    const inverse = if (random.boolean()) field.invert(key.r) else null;
    const is_uniform = random.boolean();
    const uniform = makeBlock(random);
    var accumulator: field.Number = 0;
    message.tags[0] = key.tag(accumulator);
    message.accumulators[0] = accumulator;
    const is_packet = random.boolean();
    for (0..message.count) |i| {
        var chosen = if (is_uniform) uniform else makeBlock(random);
        if (inverse) |r_inverse| {
            const is_last = i + 1 == message.count;
            // Rarely steered before the end, so that ordinary blocks follow.
            if (is_last or random.uintLessThan(u32, 4) == 0) {
                var wanted = field.edge(random);
                // Or so that it is there behind the block of lengths.
                if (is_last and is_packet) wanted = field.retreat(wanted, r_inverse, &lengthsOf(message.count * 16));
                chosen = field.steer(accumulator, wanted, r_inverse) orelse chosen;
            }
        }
        @memcpy(message.bytes[1 + i * field.block_length ..][0..field.block_length], &chosen);
        accumulator = key.absorb(accumulator, &chosen);
        message.tags[i + 1] = key.tag(accumulator);
        message.accumulators[i + 1] = accumulator;
    }
}

fn lengthsOf(length: u32) field.Block {
    return asBytes(@as(u128, length) << 64);
}

fn makeKey(key: *[32]u8, random: std.Random) void {
    key[0..16].* = switch (random.uintLessThan(u32, 4)) {
        0 => @splat(0xff), // all that the clamp leaves
        // Small multipliers reduce nothing, so the accumulator stays where the blocks took it.
        1 => asBytes(random.uintAtMost(u128, 8)),
        else => makeBlock(random),
    };
    key[16..32].* = makeBlock(random);
}

fn makeBlock(random: std.Random) field.Block {
    return switch (random.uintLessThan(u32, 8)) {
        0 => @splat(0xff),
        1 => @splat(0),
        2 => @splat(random.int(u8)),
        3 => asBytes(@as(u128, 1) << random.int(u7)),
        4 => asBytes(~(@as(u128, 1) << random.int(u7))),
        5 => asBytes(@as(u128, random.int(u4)) -% 8),
        // Ones from one edge of limbs to another.
        6 => asBytes(@truncate(field.edge(random) ^ field.edge(random))),
        else => asBytes(random.int(u128)),
    };
}

fn asBytes(value: u128) field.Block {
    return @bitCast(mem.nativeToLittle(u128, value));
}

// ---- checks -------------------------------------------------------------------------------------------------------

fn expectTags(name: []const u8, comptime Form: type, message: *const Message) report.Error!void {
    var stream: cipher_testing.Stream(Form) = undefined;
    stream.init(&message.key);
    for (0..message.count + 1) |done| {
        if (done > 0) stream.absorb(message.block(done - 1));
        try expectTag(name, message, done, stream.finish());
    }
}

/// The first message goes ahead by `lead` blocks, the rest of both goes in step; what is longer goes on alone.
fn expectTagsInStep(
    name: []const u8,
    comptime Form: type,
    first: *const Message,
    second: *const Message,
    lead: u32,
) report.Error!void {
    var a: cipher_testing.Stream(Form) = undefined;
    var b: cipher_testing.Stream(Form) = undefined;
    a.init(&first.key);
    b.init(&second.key);
    for (0..lead) |i| a.absorb(first.block(i));
    const together = @min(first.count - lead, second.count);
    for (0..together) |i| {
        a.absorbBoth(&b, first.block(lead + i), second.block(i));
        try expectTag(name, first, lead + i + 1, a.finish());
        try expectTag(name, second, i + 1, b.finish());
    }
    for (lead + together..first.count) |i| a.absorb(first.block(i));
    for (together..second.count) |i| b.absorb(second.block(i));
    try expectTag(name, first, first.count, a.finish());
    try expectTag(name, second, second.count, b.finish());
}

fn expectTag(name: []const u8, message: *const Message, done: usize, tag: u128) report.Error!void {
    if (tag == message.tags[done]) return;
    return report.mismatch(
        "{s}, key {x}, after {d} blocks {x}: the tag is {x:0>32}, not {x:0>32} (as numbers)",
        .{ name, &message.key, done, message.bytes[1..][0 .. done * field.block_length], tag, message.tags[done] },
    );
}

// ---- whole packets ------------------------------------------------------------------------------------------------

const ifma = cipher_testing.poly1305_ifma;

/// Eight packets that are beginnings of the messages, side by side, and one of them alone.
fn expectTagsOfPackets(messages: *const [2]Message, random: std.Random) report.Error!void {
    var keys: [2]ifma.KeyBlock = undefined;
    // What is behind r and s does not count.
    for (&keys, messages) |*key, *message| key.* = message.key ++ makeBlock(random) ++ makeBlock(random);
    const shorter = @min(messages[0].count, messages[1].count) * field.block_length;
    const uniform: ?u32 = if (random.boolean()) shorter - random.uintAtMost(u32, @min(shorter, 16)) else null;
    var packets: [ifma.lanes]ifma.Packet = undefined;
    var which: [ifma.lanes]u1 = undefined;
    for (&packets, &which) |*packet, *index| {
        index.* = random.int(u1);
        const most = messages[index.*].count * field.block_length;
        const length = uniform orelse if (random.boolean()) most else random.uintAtMost(u32, most);
        packet.* = .{ .key = &keys[index.*], .data = messages[index.*].bytes[1..], .length = length };
    }
    var tags: [ifma.lanes][field.block_length]u8 align(64) = undefined;
    ifma.eight(&packets, &tags);
    for (packets, tags, which) |packet, tag, index| try expectPacketTag("eight", &messages[index], packet.length, tag);
    const lane = random.uintLessThan(u32, ifma.lanes);
    var alone: field.Block = undefined;
    ifma.one(packets[lane], &alone);
    try expectPacketTag("one", &messages[which[lane]], packets[lane].length, alone);
}

fn expectPacketTag(form: []const u8, message: *const Message, length: usize, tag: field.Block) report.Error!void {
    const key: field.Key = .init(&message.key);
    const whole = length / field.block_length;
    var accumulator = message.accumulators[whole];
    const rest = message.bytes[1 + whole * field.block_length ..][0 .. length % field.block_length];
    if (rest.len > 0) {
        var block: field.Block = @splat(0);
        @memcpy(block[0..rest.len], rest);
        accumulator = key.absorb(accumulator, &block);
    }
    const expected = key.tag(key.absorb(accumulator, &lengthsOf(@intCast(length))));
    const found = mem.readInt(u128, &tag, .little);
    if (found == expected) return;
    return report.mismatch(
        "packets of {s}, key {x}, {d} bytes {x}: the tag is {x:0>32}, not {x:0>32} (as numbers)",
        .{ form, &message.key, length, message.bytes[1..][0..length], found, expected },
    );
}
