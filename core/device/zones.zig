//! Zones: interface names in the endpoints of a set request become numbers, `endpoint=[fe80::1%eth0]:5` to
//! `[fe80::1%2]:5`. The protocol room cannot ask the kernel.
const std = @import("std");
const wire = @import("wire");
const Allocator = std.mem.Allocator;
const io = @import("io");
const Writer = std.Io.Writer;

/// Null when there is no zone. The text holds keys: give it back to `free`.
pub fn resolve(gpa: Allocator, text: []const u8) Allocator.Error!?[]u8 {
    if (std.mem.findScalar(u8, text, '%') == null) return null;
    const index_digits = 10;
    const zones = std.mem.countScalar(u8, text, '%');
    const out = try gpa.alloc(u8, text.len + zones * index_digits);
    errdefer free(gpa, out);
    var writer: Writer = .fixed(out);
    var zone: Zone = .{};
    var lines = std.mem.splitScalar(u8, text, '\n');
    while (lines.next()) |line| {
        zone.writeLine(&writer, line) catch unreachable; // sized above
        if (lines.index != null) writer.writeByte('\n') catch unreachable;
    }
    const length = writer.buffered().len;
    if (gpa.resize(out, length)) return out[0..length];
    const exact = try gpa.dupe(u8, out[0..length]);
    free(gpa, out);
    return exact;
}

pub fn free(gpa: Allocator, text: []u8) void {
    std.crypto.secureZero(u8, text);
    gpa.free(text);
}

/// The last zone asked for: many peers share one, and each question is three system calls.
const Zone = struct {
    name: []const u8 = "",
    index: ?u32 = null,

    /// A zone that the kernel does not know stays as it is: the parser names the line.
    fn writeLine(zone: *Zone, writer: *Writer, line: []const u8) Writer.Error!void {
        if (std.mem.startsWith(u8, line, "endpoint=")) {
            if (std.mem.findScalar(u8, line, '%')) |percent| {
                const rest = line[percent + 1 ..];
                const end = std.mem.findScalar(u8, rest, ']') orelse rest.len;
                if (zone.find(rest[0..end])) |index| {
                    return wire.text.print(writer, "{s}{d}{s}", .{ line[0 .. percent + 1], index, rest[end..] });
                }
            }
        }
        try writer.writeAll(line);
    }

    fn find(zone: *Zone, name: []const u8) ?u32 {
        if (!std.mem.eql(u8, name, zone.name)) zone.* = .{ .name = name, .index = io.link.index(name) catch null };
        return zone.index;
    }
};
