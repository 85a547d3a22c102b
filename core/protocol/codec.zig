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
    try writeFields(writer, fieldsOf(@TypeOf(value)), @ptrCast(&value));
}

pub fn read(reader: *Io.Reader, comptime T: type) ReadError!T {
    var out: T = undefined;
    try readFields(reader, fieldsOf(T), @ptrCast(&out));
    return out;
}

/// One plain field, wherever in a value it lies: what is built for small hosts has room for a table of them, and none
/// for code that writes each and code that reads each.
const Field = struct {
    offset: u32,
    kind: enum { number, bytes, optional },
    /// Of a number: in memory, as bytes, and the greatest that its type has.
    size: u8 = 0,
    length: u8 = 0,
    most: u64 = 0,
    /// Of an enum: a bit for each number that means something.
    among: u64 = 0,
    /// Numbers that lie in a row, or bytes.
    count: u32 = 1,
    optional: ?*const Optional = null,
};

/// How to get at what lies in one.
const Optional = struct {
    payload: *const fn (*const anyopaque) ?*const anyopaque,
    clear: *const fn (*anyopaque) void,
    fill: *const fn (*anyopaque) *anyopaque,
    fields: []const Field,
};

fn fieldsOf(comptime T: type) []const Field {
    return comptime blk: {
        @setEvalBranchQuota(100_000);
        const found = listed(T, 0)[0..].*;
        break :blk &found;
    };
}

fn listed(comptime T: type, comptime offset: u32) []const Field {
    var one: Field = .{ .offset = offset, .kind = .number };
    switch (@typeInfo(T)) {
        .bool => {
            one.size = 1;
            one.length = 1;
            one.most = 1;
        },
        .int => {
            one.size = @sizeOf(T);
            one.length = @sizeOf(Whole(T));
            one.most = std.math.maxInt(T);
        },
        .@"enum" => |info| {
            one.size = @sizeOf(T);
            one.length = @sizeOf(Whole(info.tag_type));
            one.most = 63; // so many bits there are below
            for (std.enums.values(T)) |value| one.among |= @as(u64, 1) << @backingInt(value);
        },
        .optional => |info| {
            one.kind = .optional;
            one.optional = &optionalOf(info.child);
        },
        .array => |info| if (info.child == u8) {
            one.kind = .bytes;
            one.count = info.len;
        } else {
            const first = listed(info.child, offset);
            if (first.len == 1 and first[0].kind == .number) {
                one = first[0];
                one.count = info.len;
            } else {
                var all: []const Field = &.{};
                for (0..info.len) |i| all = all ++ listed(info.child, offset + i * @sizeOf(info.child));
                return all;
            }
        },
        .@"struct" => {
            var all: []const Field = &.{};
            for (std.meta.fieldNames(T)) |name| {
                all = all ++ listed(@FieldType(T, name), offset + @offsetOf(T, name));
            }
            return all;
        },
        else => @compileError(@typeName(T) ++ " is no plain value"),
    }
    return &.{one};
}

fn optionalOf(comptime T: type) Optional {
    const Of = struct {
        fn payload(pointer: *const anyopaque) ?*const anyopaque {
            const optional: *const ?T = @ptrCast(@alignCast(pointer));
            return if (optional.*) |*inner| inner else null;
        }

        fn clear(pointer: *anyopaque) void {
            const optional: *?T = @ptrCast(@alignCast(pointer));
            optional.* = null;
        }

        fn fill(pointer: *anyopaque) *anyopaque {
            const optional: *?T = @ptrCast(@alignCast(pointer));
            optional.* = @as(T, undefined);
            return &optional.*.?;
        }
    };
    return .{ .payload = Of.payload, .clear = Of.clear, .fill = Of.fill, .fields = fieldsOf(T) };
}

fn writeFields(writer: *Io.Writer, fields: []const Field, value: [*]const u8) Io.Writer.Error!void {
    for (fields) |*field| {
        const place = value + field.offset;
        switch (field.kind) {
            .bytes => try writer.writeAll(place[0..field.count]),
            .number => for (0..field.count) |i| {
                var bytes: [8]u8 = undefined;
                std.mem.writeInt(u64, &bytes, load(place + i * field.size, field.size), .little);
                try writer.writeAll(bytes[0..field.length]);
            },
            .optional => {
                const optional = field.optional.?;
                const payload = optional.payload(place);
                try writer.writeByte(@intFromBool(payload != null));
                if (payload) |inner| try writeFields(writer, optional.fields, @ptrCast(inner));
            },
        }
    }
}

fn readFields(reader: *Io.Reader, fields: []const Field, out: [*]u8) ReadError!void {
    for (fields) |*field| {
        const place = out + field.offset;
        switch (field.kind) {
            .bytes => try readAll(reader, place[0..field.count]),
            .number => for (0..field.count) |i| {
                const number = try readNumber(reader, field.length, field.most);
                if (field.among != 0 and field.among >> @intCast(number) & 1 == 0) return error.Malformed;
                store(place + i * field.size, field.size, number);
            },
            .optional => {
                const optional = field.optional.?;
                if (try readNumber(reader, 1, 1) == 0) {
                    optional.clear(place);
                } else try readFields(reader, optional.fields, @ptrCast(optional.fill(place)));
            },
        }
    }
}

fn readNumber(reader: *Io.Reader, length: usize, most: u64) ReadError!u64 {
    var bytes: [8]u8 = @splat(0);
    try readAll(reader, bytes[0..length]);
    const number = std.mem.readInt(u64, &bytes, .little);
    return if (number <= most) number else error.Malformed;
}

/// A number as it lies in memory, in this machine's order of bytes.
fn load(place: [*]const u8, size: u8) u64 {
    return switch (size) {
        inline 1, 2, 4, 8 => |known| std.mem.readInt(@Int(.unsigned, 8 * known), place[0..known], .native),
        else => unreachable,
    };
}

fn store(place: [*]u8, size: u8, number: u64) void {
    switch (size) {
        inline 1, 2, 4, 8 => |known| {
            std.mem.writeInt(@Int(.unsigned, 8 * known), place[0..known], @intCast(number), .native);
        },
        else => unreachable,
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
            for (std.enums.values(T)) |each| {
                text = text ++ std.fmt.comptimePrint("{t}={d},", .{ each, @backingInt(each) });
            }
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
        "{flag:bool,small:u3,large:u64,kind:enum(u8){one=0,two=1,},maybe:?u16,never:?u16,bytes:[3]u8,words:[2]u32," ++
            "inner:{length:u5,},}",
        comptime describe(Sample),
    );
}
