//! What there is to say of a file: each with its line and column, in the order of the file.
//! Invariant: takes as much as it has room for, and counts the rest.
const std = @import("std");
const text = @import("text.zig");

pub const Kind = enum {
    /// It is wrong: nothing of the file is used.
    problem,
    /// It can work, and is hardly meant.
    warning,
    /// Right, and not done by this program.
    left_out,
};

pub const Note = struct {
    kind: Kind,
    line: u32,
    column: u32,
    start: u32,
    length: u32,
};

/// A line of the file: columns are counted in it.
pub const Line = struct {
    number: u32 = 1,
    text: []const u8 = "",

    /// From 1, of what begins at `place`, a part of the line.
    pub fn column(line: *const Line, place: []const u8) u32 {
        return text.characters(line.text[0 .. @intFromPtr(place.ptr) - @intFromPtr(line.text.ptr)]) + 1;
    }
};

pub const Notes = struct {
    list: [capacity]Note = undefined,
    count: usize = 0,
    problems: usize = 0,
    /// Those that there was no room for.
    lost: usize = 0,
    bytes: [capacity * 100]u8 = undefined,
    used: usize = 0,

    pub const capacity = 100;

    /// `parts` are put one behind another.
    pub fn add(notes: *Notes, kind: Kind, line: u32, column: u32, parts: []const []const u8) void {
        if (kind == .problem) notes.problems += 1;
        var length: usize = 0;
        for (parts) |part| length += part.len;
        if (notes.count == capacity or length > notes.bytes.len - notes.used) {
            notes.lost += 1;
            return;
        }
        var i = notes.count;
        while (i > 0 and isBefore(line, column, &notes.list[i - 1])) : (i -= 1) notes.list[i] = notes.list[i - 1];
        notes.list[i] = .{
            .kind = kind,
            .line = line,
            .column = column,
            .start = @intCast(notes.used),
            .length = @intCast(length),
        };
        notes.count += 1;
        for (parts) |part| {
            @memcpy(notes.bytes[notes.used..][0..part.len], part);
            notes.used += part.len;
        }
    }

    fn isBefore(line: u32, column: u32, other: *const Note) bool {
        return if (line == other.line) column < other.column else line < other.line;
    }

    pub fn message(notes: *const Notes, note: *const Note) []const u8 {
        return notes.bytes[note.start..][0..note.length];
    }

    pub fn all(notes: *const Notes) []const Note {
        return notes.list[0..notes.count];
    }
};

/// A number for a message.
pub fn decimal(value: u64, buffer: *[20]u8) []const u8 {
    var rest = value;
    var start = buffer.len;
    while (start == buffer.len or rest > 0) {
        start -= 1;
        buffer[start] = '0' + @as(u8, @intCast(rest % 10));
        rest /= 10;
    }
    return buffer[start..];
}

const testing = std.testing;

test "notes are in the order of the file, and what does not fit is counted" {
    var notes: Notes = .{};
    notes.add(.problem, 3, 1, &.{"c"});
    notes.add(.warning, 1, 5, &.{ "b", "b" });
    notes.add(.left_out, 1, 1, &.{"a"});
    notes.add(.problem, 3, 1, &.{"d"});
    for (notes.all(), [_][]const u8{ "a", "bb", "c", "d" }) |*note, expected|
        try testing.expectEqualStrings(expected, notes.message(note));
    try testing.expectEqual(2, notes.problems);
    for (0..Notes.capacity) |_| notes.add(.problem, 9, 9, &.{"e"});
    try testing.expectEqual(4, notes.lost);
    try testing.expectEqual(Notes.capacity + 2, notes.problems);
}

test "numbers are written without zeros before them" {
    var buffer: [20]u8 = undefined;
    try testing.expectEqualStrings("0", decimal(0, &buffer));
    try testing.expectEqualStrings("18446744073709551615", decimal(std.math.maxInt(u64), &buffer));
}

test "columns count characters of the line" {
    const line: Line = .{ .number = 1, .text = "é = x" };
    try testing.expectEqual(1, line.column(line.text));
    try testing.expectEqual(5, line.column(line.text[5..]));
}
