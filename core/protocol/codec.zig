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
    const T = @TypeOf(value);
    switch (@typeInfo(T)) {
        .bool => try writer.writeByte(@intFromBool(value)),
        .int => try writer.writeInt(Whole(T), value, .little),
        .@"enum" => |info| try writer.writeInt(Whole(info.tag_type), @backingInt(value), .little),
        .optional => {
            try writer.writeByte(@intFromBool(value != null));
            if (value) |*inner| try write(writer, inner.*);
        },
        .array => |info| if (info.child == u8) try writer.writeAll(&value) else for (&value) |*each| {
            try write(writer, each.*);
        },
        .@"struct" => inline for (comptime std.meta.fieldNames(T)) |name| try write(writer, @field(value, name)),
        else => @compileError(@typeName(T) ++ " is no plain value"),
    }
}

pub fn read(reader: *Io.Reader, comptime T: type) ReadError!T {
    switch (@typeInfo(T)) {
        .bool => return switch (try read(reader, u8)) {
            0 => false,
            1 => true,
            else => error.Malformed,
        },
        .int => {
            var bytes: [@sizeOf(Whole(T))]u8 = undefined;
            try readAll(reader, &bytes);
            return std.math.cast(T, std.mem.readInt(Whole(T), &bytes, .little)) orelse error.Malformed;
        },
        .@"enum" => |info| return std.enums.fromInt(T, try read(reader, info.tag_type)) orelse error.Malformed,
        .optional => |info| return if (try read(reader, bool)) try read(reader, info.child) else null,
        .array => |info| {
            var out: T = undefined;
            if (info.child == u8) try readAll(reader, &out) else for (&out) |*each| {
                each.* = try read(reader, info.child);
            }
            return out;
        },
        .@"struct" => {
            var out: T = undefined;
            inline for (comptime std.meta.fieldNames(T)) |name| {
                @field(out, name) = try read(reader, @FieldType(T, name));
            }
            return out;
        },
        else => @compileError(@typeName(T) ++ " is no plain value"),
    }
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
