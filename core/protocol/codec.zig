//! Plain values as bytes and back, by their types: how one process tells another what it knows. Integers are little
//! endian, an enum is its number, an optional is a byte and perhaps its value, a struct is its fields in order.
//! Knows no meaning. What is read is checked as far as types go, so nothing that comes in can be a wrong value of one.
//! Invariant: what `describe` says of a type is all that its bytes depend on.
const std = @import("std");
const Io = std.Io;

pub const ReadError = error{
    /// The bytes end too early, or whoever brings them failed.
    Incomplete,
    /// Bytes that stand for no value of the type.
    Malformed,
};

pub fn write(writer: *Io.Writer, value: anytype) Io.Writer.Error!void {
    try writeFrom(writer, &value);
}

pub fn read(reader: *Io.Reader, comptime T: type) ReadError!T {
    var out: T = undefined;
    try readInto(reader, T, &out);
    return out;
}

/// One function for each struct, and one for all numbers, called and not repeated: nothing here is in a hurry, and what
/// is built for small hosts has no room for it.
fn writeFrom(writer: *Io.Writer, value: anytype) Io.Writer.Error!void {
    const T = @TypeOf(value.*);
    switch (@typeInfo(T)) {
        .bool => try writeNumber(writer, @intFromBool(value.*), 1),
        .int => try writeNumber(writer, value.*, @sizeOf(Whole(T))),
        .@"enum" => |info| try writeNumber(writer, @backingInt(value.*), @sizeOf(Whole(info.tag_type))),
        .optional => {
            try writeNumber(writer, @intFromBool(value.* != null), 1);
            if (value.*) |*inner| try writeFrom(writer, inner);
        },
        .array => |info| if (info.child == u8) try writer.writeAll(value) else for (value) |*each| {
            try writeFrom(writer, each);
        },
        .@"struct" => try writeFields(writer, T, value),
        else => @compileError(@typeName(T) ++ " is no plain value"),
    }
}

noinline fn writeFields(writer: *Io.Writer, comptime T: type, value: anytype) Io.Writer.Error!void {
    inline for (comptime std.meta.fieldNames(T)) |name| try writeFrom(writer, &@field(value, name));
}

noinline fn writeNumber(writer: *Io.Writer, number: u64, length: usize) Io.Writer.Error!void {
    var bytes: [8]u8 = undefined;
    std.mem.writeInt(u64, &bytes, number, .little);
    try writer.writeAll(bytes[0..length]);
}

fn readInto(reader: *Io.Reader, comptime T: type, out: anytype) ReadError!void {
    switch (@typeInfo(T)) {
        .bool => out.* = try readNumber(reader, 1, 1) == 1,
        .int => out.* = @intCast(try readNumber(reader, @sizeOf(Whole(T)), std.math.maxInt(T))),
        .@"enum" => |info| {
            const most = std.math.maxInt(info.tag_type);
            const number: info.tag_type = @intCast(try readNumber(reader, @sizeOf(Whole(info.tag_type)), most));
            out.* = std.enums.fromInt(T, number) orelse return error.Malformed;
        },
        .optional => |info| {
            if (try readNumber(reader, 1, 1) == 0) {
                out.* = null;
                return;
            }
            out.* = @as(info.child, undefined);
            try readInto(reader, info.child, &out.*.?);
        },
        .array => |info| if (info.child == u8) try readAll(reader, out) else for (out) |*each| {
            try readInto(reader, info.child, each);
        },
        .@"struct" => try readFields(reader, T, out),
        else => @compileError(@typeName(T) ++ " is no plain value"),
    }
}

noinline fn readFields(reader: *Io.Reader, comptime T: type, out: anytype) ReadError!void {
    inline for (comptime std.meta.fieldNames(T)) |name| {
        try readInto(reader, @FieldType(T, name), &@field(out, name));
    }
}

noinline fn readNumber(reader: *Io.Reader, length: usize, most: u64) ReadError!u64 {
    var bytes: [8]u8 = @splat(0);
    try readAll(reader, bytes[0..length]);
    const number = std.mem.readInt(u64, &bytes, .little);
    return if (number <= most) number else error.Malformed;
}

pub fn readAll(reader: *Io.Reader, out: []u8) ReadError!void {
    reader.readSliceAll(out) catch return error.Incomplete;
}

/// The next integer of whole bytes.
fn Whole(comptime T: type) type {
    const info = @typeInfo(T).int;
    std.debug.assert(info.signedness == .unsigned and T != usize);
    return @Int(.unsigned, std.mem.alignForward(u16, info.bits, 8));
}

/// Everything about a type that its bytes depend on, as text: two versions with the same text read one another.
pub fn describe(comptime T: type) []const u8 {
    @setEvalBranchQuota(100_000);
    return switch (@typeInfo(T)) {
        .bool, .int => @typeName(T),
        .@"enum" => |info| blk: {
            var text: []const u8 = "enum(" ++ @typeName(info.tag_type) ++ "){";
            for (std.enums.values(T)) |each| text = text ++ @tagName(each) ++ ",";
            break :blk text ++ "}";
        },
        .optional => |info| "?" ++ describe(info.child),
        .array => |info| std.fmt.comptimePrint("[{d}]", .{info.len}) ++ describe(info.child),
        .@"struct" => blk: {
            var text: []const u8 = "{";
            for (std.meta.fieldNames(T)) |name| text = text ++ name ++ ":" ++ describe(@FieldType(T, name)) ++ ",";
            break :blk text ++ "}";
        },
        else => @compileError(@typeName(T) ++ " is no plain value"),
    };
}

const testing = std.testing;

const Sample = struct {
    flag: bool,
    small: u3,
    large: u64,
    kind: enum(u8) { one, two },
    maybe: ?u16,
    never: ?u16,
    bytes: [3]u8,
    words: [2]u32,
    inner: struct { length: u5 },
};

const sample: Sample = .{
    .flag = true,
    .small = 7,
    .large = 0x0102_0304_0506_0708,
    .kind = .two,
    .maybe = 5,
    .never = null,
    .bytes = .{ 1, 2, 3 },
    .words = .{ 9, 10 },
    .inner = .{ .length = 31 },
};

test "values come back as they went, whatever they are made of" {
    var buffer: [128]u8 = undefined;
    var writer: Io.Writer = .fixed(&buffer);
    try write(&writer, sample);
    var reader: Io.Reader = .fixed(writer.buffered());
    try testing.expectEqual(sample, try read(&reader, Sample));
    try testing.expectError(error.Incomplete, read(&reader, u8));
}

test "no bytes make a value that the type does not have" {
    for ([_]struct { usize, u8 }{ .{ 0, 2 }, .{ 1, 8 }, .{ 10, 2 }, .{ 11, 2 }, .{ 26, 32 } }) |wrong| {
        const place, const value = wrong;
        var buffer: [128]u8 = undefined;
        var writer: Io.Writer = .fixed(&buffer);
        try write(&writer, sample);
        buffer[place] = value;
        var reader: Io.Reader = .fixed(writer.buffered());
        try testing.expectError(error.Malformed, read(&reader, Sample));
    }
    var buffer: [128]u8 = undefined;
    var writer: Io.Writer = .fixed(&buffer);
    try write(&writer, sample);
    for (0..writer.end) |length| {
        var reader: Io.Reader = .fixed(buffer[0..length]);
        try testing.expectError(error.Incomplete, read(&reader, Sample));
    }
}

test "a description names all that the bytes depend on" {
    try testing.expectEqualStrings(
        "{flag:bool,small:u3,large:u64,kind:enum(u8){one,two,},maybe:?u16,never:?u16,bytes:[3]u8,words:[2]u32," ++
            "inner:{length:u5,},}",
        comptime describe(Sample),
    );
}
