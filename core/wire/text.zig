//! Text with values in it: `print` as std.Io.Writer has it, in few instructions for each place that calls it. There the
//! format is compiled into code for each of them; here the values become a list, and one function reads the format.
//! For what is said now and then, not for each packet.
//! Invariant: what comes out is what std.Io.Writer.print would write.
const std = @import("std");
const Writer = std.Io.Writer;

/// A place in a format, with what stands there.
pub const Value = union(enum) {
    text: []const u8,
    number: u64,
    hexadecimal: u64,
    bytes: []const u8,
    object: struct { pointer: *const anyopaque, format: *const fn (*const anyopaque, *Writer) Writer.Error!void },
};

/// The places are {s}, {d} (not negative), {x} (of a number, or of bytes), {t} and {f}, and {} of a bool.
pub inline fn print(writer: *Writer, comptime format: []const u8, arguments: anytype) Writer.Error!void {
    return render(writer, format, &valuesOf(format, &arguments));
}

/// What fits of it, and whether all did.
pub inline fn fill(writer: *Writer, comptime format: []const u8, arguments: anytype) bool {
    return renderSome(writer, format, &valuesOf(format, &arguments));
}

/// For whoever has more to do than to print them, in a function of its own: then `render`. They lead to the arguments.
pub inline fn valuesOf(comptime format: []const u8, arguments: anytype) [kindsOf(format).len]Value {
    const kinds = comptime kindsOf(format);
    if (kinds.len != arguments.len) @compileError("so many places, so many values: " ++ format);
    var values: [kinds.len]Value = undefined;
    inline for (kinds, &values, 0..) |kind, *value, i| value.* = valueOf(kind, &arguments[i]);
    return values;
}

fn kindsOf(comptime format: []const u8) []const u8 {
    @setEvalBranchQuota(20_000);
    var kinds: []const u8 = "";
    var i: usize = 0;
    while (i < format.len) : (i += 1) {
        if (format[i] != '{') continue;
        const is_plain = format[i + 1] == '}';
        kinds = kinds ++ if (is_plain) "b" else format[i + 1 ..][0..1];
        i += if (is_plain) 1 else 2;
        if (format[i] != '}') @compileError("nothing but a letter stands in a place: " ++ format);
    }
    return kinds;
}

inline fn valueOf(comptime kind: u8, argument: anytype) Value {
    const T = @TypeOf(argument.*);
    return switch (kind) {
        's' => .{ .text = argument.* },
        'd' => .{ .number = argument.* },
        'x' => switch (@typeInfo(T)) {
            .int => .{ .hexadecimal = argument.* },
            else => .{ .bytes = argument.* },
        },
        't' => .{ .text = if (@typeInfo(T) == .error_set) @errorName(argument.*) else @tagName(argument.*) },
        'b' => .{ .text = if (argument.*) "true" else "false" },
        'f' => .{ .object = .{ .pointer = argument, .format = Format(T).write } },
        else => @compileError("no place for " ++ .{kind}),
    };
}

fn Format(comptime T: type) type {
    return struct {
        fn write(pointer: *const anyopaque, writer: *Writer) Writer.Error!void {
            const object: *const T = @ptrCast(@alignCast(pointer));
            return object.format(writer);
        }
    };
}

/// As `fill`.
pub noinline fn renderSome(writer: *Writer, format: []const u8, values: []const Value) bool {
    render(writer, format, values) catch return false;
    return true;
}

pub noinline fn render(writer: *Writer, format: []const u8, values: []const Value) Writer.Error!void {
    var rest = format;
    for (values) |*value| {
        const open = std.mem.findScalar(u8, rest, '{').?;
        try writer.writeAll(rest[0..open]);
        rest = rest[open..];
        rest = rest[std.mem.findScalar(u8, rest, '}').? + 1 ..];
        switch (value.*) {
            .text => |text| try writer.writeAll(text),
            .number => |number| try writeNumber(writer, number, 10),
            .hexadecimal => |number| try writeNumber(writer, number, 16),
            .bytes => |bytes| for (bytes) |byte| try writer.writeAll(&.{ digits[byte >> 4], digits[byte & 15] }),
            .object => |object| try object.format(object.pointer, writer),
        }
    }
    try writer.writeAll(rest);
}

const digits = "0123456789abcdef";

fn writeNumber(writer: *Writer, number: u64, base: u8) Writer.Error!void {
    var buffer: [20]u8 = undefined; // a number of 64 bits
    var start = buffer.len;
    var rest = number;
    while (true) {
        start -= 1;
        buffer[start] = digits[@intCast(rest % base)];
        rest /= base;
        if (rest == 0) break;
    }
    try writer.writeAll(buffer[start..]);
}

const testing = std.testing;

const Pair = struct {
    first: u8,
    second: u8,

    pub fn format(pair: *const Pair, writer: *Writer) Writer.Error!void {
        try print(writer, "{d}|{d}", .{ pair.first, pair.second });
    }
};

test "what comes out is what std writes" {
    const Word = enum { yes, no };
    const cases = .{
        .{ "", .{} },
        .{ "nothing in it", .{} },
        .{ "{s}", .{"text"} },
        .{ "{d} and {d}!", .{ @as(u16, 0), @as(u64, std.math.maxInt(u64)) } },
        .{ "[{x}:{x}]", .{ @as(u16, 0xfe80), @as(u8, 0) } },
        .{ "key={x}\n", .{&[_]u8{ 0, 1, 0x9a, 0xff }} },
        .{ "{t}={} {}, {t}", .{ @as(Word, .no), true, false, error.NotFound } },
        .{ "{d}", .{7} },
    };
    inline for (cases) |case| {
        var ours: [200]u8 = undefined;
        var theirs: [200]u8 = undefined;
        var our_writer: Writer = .fixed(&ours);
        try print(&our_writer, case[0], case[1]);
        try testing.expectEqualStrings(try std.mem.print(&theirs, case[0], case[1]), our_writer.buffered());
    }
    var buffer: [20]u8 = undefined;
    var writer: Writer = .fixed(&buffer);
    var pair: Pair = .{ .first = 1, .second = 20 };
    try print(&writer, "({f})", .{pair});
    pair.first = 2;
    try testing.expectEqualStrings("(1|20)", writer.buffered());
}

test "what does not fit is cut" {
    var buffer: [5]u8 = undefined;
    var writer: Writer = .fixed(&buffer);
    try testing.expect(!fill(&writer, "{d}{s}", .{ @as(u8, 12), "3456" }));
    try testing.expectEqualStrings("12345", writer.buffered());
}
