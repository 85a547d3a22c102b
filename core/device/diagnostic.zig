//! Why a call failed, in one line for a human: what, where, and what to do. Never holds a key.
const std = @import("std");
const wire = @import("wire");

pub const Diagnostic = struct {
    errno: u16 = 0,
    /// Of the UAPI text, from 1; 0 for none.
    line: u32 = 0,
    column: u32 = 0,
    buffer: [text_max]u8 = undefined,
    length: usize = 0,

    pub const text_max = 255;

    pub inline fn set(diagnostic: *Diagnostic, comptime format: []const u8, arguments: anytype) void {
        diagnostic.setValues(format, &wire.text.valuesOf(format, &arguments));
    }

    noinline fn setValues(diagnostic: *Diagnostic, format: []const u8, values: []const wire.text.Value) void {
        var writer: std.Io.Writer = .fixed(&diagnostic.buffer);
        _ = wire.text.renderSome(&writer, format, values); // too long: cut
        diagnostic.length = writer.buffered().len;
        for (writer.buffered()) |*byte| {
            if (std.ascii.isControl(byte.*)) byte.* = '?'; // names come from outside, and one line is promised
        }
    }

    pub fn text(diagnostic: *const Diagnostic) []const u8 {
        return diagnostic.buffer[0..diagnostic.length];
    }
};

test "a text that is too long is cut, not lost" {
    var diagnostic: Diagnostic = .{};
    diagnostic.set("{s}", .{&@as([300]u8, @splat('x'))});
    try std.testing.expectEqual(Diagnostic.text_max, diagnostic.text().len);
}

test "a text is one line, whatever it quotes" {
    var diagnostic: Diagnostic = .{};
    diagnostic.set("name '{s}'", .{"a\nb\x1b\x00"});
    try std.testing.expectEqualStrings("name 'a?b??'", diagnostic.text());
}
