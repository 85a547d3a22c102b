//! Keys as wg(8) writes them: 44 characters of base64. Without branch or table on the characters: they are keys.
//! Invariant: one key has one spelling. What is decoded is encoded to the same text.
const std = @import("std");

pub const length = 44;

pub const Error = error{
    /// A character that base64 does not have, or padding in the wrong place.
    NotBase64,
    /// It says another number of bytes than 32, or bits beyond them.
    NotCanonical,
};

pub fn decode(text: *const [length]u8, out: *[32]u8) Error!void {
    var padding: usize = 0;
    for (text) |character| padding += @intFromBool(character == '='); // their places are no secret
    if (padding > 2 or !std.mem.allEqual(u8, text[length - padding ..], '=')) return error.NotBase64;
    var invalid: i32 = 0;
    var bytes: [33]u8 = undefined;
    defer std.crypto.secureZero(u8, &bytes);
    for (0..length / 4) |group| {
        var value: i32 = 0;
        for (text[group * 4 ..][0..4], group * 4..) |character, i| {
            const digit = if (i >= length - padding) 0 else decodeDigit(character);
            invalid |= digit >> 31;
            value = value << 6 | (digit & 63);
        }
        bytes[group * 3 ..][0..3].* = .{
            @truncate(@as(u32, @bitCast(value >> 16))),
            @truncate(@as(u32, @bitCast(value >> 8))),
            @truncate(@as(u32, @bitCast(value))),
        };
    }
    if (invalid != 0) return error.NotBase64;
    if (padding != 1 or bytes[32] != 0) return error.NotCanonical;
    out.* = bytes[0..32].*;
}

pub fn encode(bytes: *const [32]u8, out: *[length]u8) void {
    var padded: [33]u8 = undefined;
    defer std.crypto.secureZero(u8, &padded);
    padded[0..32].* = bytes.*;
    padded[32] = 0;
    for (0..length / 4) |group| {
        const in = padded[group * 3 ..][0..3];
        out[group * 4 ..][0..4].* = .{
            encodeDigit(in[0] >> 2),
            encodeDigit((in[0] & 3) << 4 | in[1] >> 4),
            encodeDigit((in[1] & 15) << 2 | in[2] >> 6),
            encodeDigit(in[2] & 63),
        };
    }
    out[length - 1] = '=';
}

/// Negative for what is no digit.
fn decodeDigit(character: u8) i32 {
    const c: i32 = character;
    return -1 + (within(c, 'A', 'Z') & (c - 'A' + 1)) + (within(c, 'a', 'z') & (c - 'a' + 27)) +
        (within(c, '0', '9') & (c - '0' + 53)) + (within(c, '+', '+') & 63) + (within(c, '/', '/') & 64);
}

fn encodeDigit(digit: u8) u8 {
    const d: i32 = digit;
    const character = (within(d, 0, 25) & (d + 'A')) | (within(d, 26, 51) & (d - 26 + 'a')) |
        (within(d, 52, 61) & (d - 52 + '0')) | (within(d, 62, 62) & '+') | (within(d, 63, 63) & '/');
    return @truncate(@as(u32, @bitCast(character)));
}

/// All ones when low <= value <= high, else zero.
fn within(value: i32, comptime low: i32, comptime high: i32) i32 {
    return concealed(~((value - low) | (high - value)) >> 31);
}

/// The mask itself. The optimizer knows it as any number, else it turns a mask back into a branch.
inline fn concealed(mask: i32) i32 {
    var value = mask;
    asm volatile (""
        : [value] "+r" (value),
    );
    return value;
}

const testing = std.testing;

test "keys survive both ways as std spells them" {
    var prng: std.Random.DefaultPrng = .init(7);
    for (0..2000) |_| {
        var bytes: [32]u8 = undefined;
        prng.random().bytes(&bytes);
        var text: [length]u8 = undefined;
        encode(&bytes, &text);
        var expected: [length]u8 = undefined;
        try testing.expectEqualStrings(std.base64.standard.Encoder.encode(&expected, &bytes), &text);
        var back: [32]u8 = undefined;
        try decode(&text, &back);
        try testing.expectEqual(bytes, back);
    }
}

test "every other spelling is refused" {
    const good = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/AAAAA=";
    var out: [32]u8 = undefined;
    try decode(good, &out);
    for (0..43) |place| for (0..256) |character| {
        var text = good.*;
        text[place] = @intCast(character);
        const is_digit = std.ascii.isAlphanumeric(text[place]) or text[place] == '+' or text[place] == '/';
        if (place < 42) {
            try testing.expectEqual(is_digit, if (decode(&text, &out)) |_| true else |_| false);
        } else if (!is_digit and character != '=') {
            try testing.expectError(error.NotBase64, decode(&text, &out));
        }
    };
    try testing.expectError(error.NotCanonical, decode(good[0..42] ++ "B=", &out)); // bits beyond the last byte
    try testing.expectError(error.NotCanonical, decode(good[0..42] ++ "==", &out));
    try testing.expectError(error.NotCanonical, decode(good[0..42] ++ "AA", &out));
    try testing.expectError(error.NotBase64, decode(good[0..41] ++ "===", &out));
}
