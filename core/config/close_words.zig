//! "Did you mean": which of some words a mistyped one is like, by the measure of Python's difflib, so that pywg and
//! pywgd give the same advice.
//! Invariant: of words that are equally close, it is always the same one.
const std = @import("std");

/// Longer ones are like no word of ours.
const length_max = 64;

/// The closest of the words, if it is close enough. Case does not matter.
pub fn find(word: []const u8, known: []const []const u8) ?[]const u8 {
    if (word.len > length_max) return null;
    var best: ?[]const u8 = null;
    var best_matches: usize = 0;
    for (known) |name| {
        const matches = countMatches(name, word);
        const total = name.len + word.len;
        if (matches * 10 < total * 3) continue; // a ratio of 2 * matches / total below 0.6
        if (best) |other| {
            const left = matches * (other.len + word.len);
            const right = best_matches * total;
            if (left < right) continue;
            if (left == right and std.ascii.lessThanIgnoreCase(name, other)) continue;
        }
        best = name;
        best_matches = matches;
    }
    return best;
}

/// Characters in the longest common run, and in those before and behind it, and so on.
fn countMatches(a: []const u8, b: []const u8) usize {
    var start_a: usize = 0;
    var start_b: usize = 0;
    var longest: usize = 0;
    for (0..a.len) |i| for (0..b.len) |j| {
        var run: usize = 0;
        while (i + run < a.len and j + run < b.len and
            std.ascii.toLower(a[i + run]) == std.ascii.toLower(b[j + run])) run += 1;
        if (run <= longest) continue;
        longest = run;
        start_a = i;
        start_b = j;
    };
    if (longest == 0) return 0;
    return countMatches(a[0..start_a], b[0..start_b]) + longest +
        countMatches(a[start_a + longest ..], b[start_b + longest ..]);
}

const testing = std.testing;

test "a mistyped word finds its own, a strange one none" {
    const known: []const []const u8 = &.{ "PublicKey", "PresharedKey", "AllowedIPs", "Endpoint" };
    for ([_]struct { []const u8, ?[]const u8 }{
        .{ "AlowedIPs", "AllowedIPs" },
        .{ "allowed-ips", "AllowedIPs" },
        .{ "Pubkey", "PublicKey" },
        .{ "endpoints", "Endpoint" },
        .{ "PSK", null },
        .{ "Zzz", null },
        .{ "", null },
    }) |row| {
        const word, const expected = row;
        const found = find(word, known);
        if (expected) |name| try testing.expectEqualStrings(name, found.?) else try testing.expectEqual(null, found);
    }
}
