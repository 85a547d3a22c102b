//! Characters, words and places in a line, as wg(8) and pywg/config count them.
//! Invariant: what `masked` gives holds nothing that could be a key, and no control character.
const std = @import("std");

/// What isspace(3) takes in the C locale.
pub const spaces = " \t\n\x0b\x0c\r";

pub fn isSpace(character: u8) bool {
    return std.mem.findScalar(u8, spaces, character) != null;
}

pub fn trim(text: []const u8) []const u8 {
    return std.mem.trim(u8, text, spaces);
}

/// How much whitespace it begins with.
pub fn indent(text: []const u8) usize {
    return text.len - std.mem.trimStart(u8, text, spaces).len;
}

/// Without any whitespace, as wg(8) reads a line. Null when that does not fit.
pub fn squeeze(text: []const u8, buffer: []u8) ?[]u8 {
    var length: usize = 0;
    for (text) |character| {
        if (isSpace(character)) continue;
        if (length == buffer.len) return null;
        buffer[length] = character;
        length += 1;
    }
    return buffer[0..length];
}

/// How many there are: a byte that is no UTF-8 is one by itself.
pub fn characters(text: []const u8) u32 {
    var count: u32 = 0;
    var rest = text;
    while (rest.len > 0) : (count += 1) rest = rest[characterLength(rest)..];
    return count;
}

fn characterLength(text: []const u8) usize {
    if (text[0] < 0x80) return 1;
    const length = std.unicode.utf8ByteSequenceLength(text[0]) catch return 1;
    if (length > text.len) return 1;
    _ = std.unicode.utf8Decode(text[0..length]) catch return 1;
    return length;
}

/// The items of a list as wg-quick splits them: by commas or spaces.
pub fn words(text: []const u8) std.mem.TokenIterator(u8, .any) {
    return std.mem.tokenizeAny(u8, text, spaces ++ ",");
}

/// What may be repeated in a message: short, and of harmless characters. What is longer may be a key in the wrong
/// place.
pub fn isWord(text: []const u8) bool {
    if (text.len < 1 or text.len > word_max) return false;
    for (text) |character| switch (character) {
        'a'...'z', 'A'...'Z', '0'...'9', '_', '-' => {},
        else => return false,
    };
    return true;
}

pub const word_max = 20;
/// Of a value that is repeated.
pub const masked_max = 64;
/// As many characters of base64 in a row may be a part of a key.
const key_like = 20;

/// The beginning of a value for a message: without whitespace, with asterisks for what could be a key.
pub fn masked(text: []const u8, buffer: *[masked_max]u8) []const u8 {
    var length: usize = 0;
    var i: usize = 0;
    while (i < text.len and length < buffer.len) {
        const run = keyRun(text[i..]);
        const is_hidden = run.characters >= key_like;
        for (text[i..][0..@max(run.length, 1)]) |character| {
            if (isSpace(character) or length == buffer.len) continue;
            buffer[length] = if (is_hidden) '*' else if (character < ' ' or character == 0x7f) '?' else character;
            length += 1;
        }
        i += @max(run.length, 1);
    }
    return buffer[0..length];
}

/// What is base64 at the beginning, spaces between or not.
fn keyRun(text: []const u8) struct { length: usize, characters: usize } {
    var count: usize = 0;
    var end: usize = 0;
    for (text, 0..) |character, i| {
        switch (character) {
            'a'...'z', 'A'...'Z', '0'...'9', '+', '/' => count += 1,
            '=' => if (count < key_like) break,
            else => if (!isSpace(character)) break,
        }
        end = i + 1;
    }
    return .{ .length = end, .characters = count };
}

const testing = std.testing;

test "characters are counted as an editor shows them, and bytes that are none count one by one" {
    try testing.expectEqual(0, characters(""));
    try testing.expectEqual(3, characters("aé€"));
    try testing.expectEqual(2, characters("\xe2\x82"));
    try testing.expectEqual(4, characters("\xff\xc3A\x80"));
    try testing.expectEqual(1, characters("😀"));
}

test "what could be a key is not repeated, nor what a terminal would obey" {
    var buffer: [masked_max]u8 = undefined;
    try testing.expectEqualStrings("10.0.0.256/8", masked(" 10.0. 0.256/8", &buffer));
    try testing.expectEqualStrings("?[31m", masked("\x1b[31m", &buffer));
    const key = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/AAAAA=";
    const hidden = masked("x." ++ key, &buffer);
    try testing.expectEqualStrings("x.", hidden[0..2]);
    try testing.expect(hidden.len == 46 and std.mem.allEqual(u8, hidden[2..], '*'));
    try testing.expect(std.mem.findScalar(u8, masked(key ++ key, &buffer), 'Q') == null);
    try testing.expect(isWord("AllowedIPs") and !isWord("") and !isWord("a b") and !isWord(key));
}

test "whitespace is what the C locale takes" {
    var buffer: [4]u8 = undefined;
    try testing.expectEqualStrings("abc", squeeze(" a\tb\x0bc\r", &buffer).?);
    try testing.expectEqual(null, squeeze("abcde", &buffer));
    try testing.expectEqual(2, indent(" \tx "));
    try testing.expectEqualStrings("x y", trim("\x0c x y\r\n"));
}
