//! What commands ask of a daemon on its UAPI socket, and what its answer says.
//! Invariant: an answer, which holds keys, is zeroed by its `deinit`; none of it is in a complaint.
const std = @import("std");
const config = @import("config");
const io = @import("io");
const words = @import("words.zig");

pub const gpa = std.heap.page_allocator;
pub const folder = io.uapi_listener.default_folder;
pub const Answer = io.uapi_connection.Answer;
const Connection = io.uapi_connection.Connection;

/// error.Failed: why was said.
pub fn ask(name: []const u8, request: []const []const u8) error{Failed}!Answer {
    return exchange(name, request) catch |err| {
        const shown = words.shown(name);
        switch (err) {
            error.NotFound => words.tell(&.{ shown, ": nobody serves it: no ", folder, "/", shown, ".sock" }),
            error.NobodyThere => words.tell(&.{ shown, ": the process that served it is gone" }),
            error.PermissionDenied => words.tell(&.{ shown, ": no permission to ask its daemon: run as root" }),
            error.NameTooLong => words.tell(&.{ shown, ": no interface can be called that" }),
            error.Silent => words.tell(&.{ shown, ": its daemon does not answer" }),
            error.SystemResources => words.tell(&.{ shown, ": not enough memory or descriptors to ask it" }),
        }
        return error.Failed;
    };
}

/// Whether it is one of ours that serves it: others answer no such question.
pub fn isPywg(name: []const u8) bool {
    var answer = exchange(name, &.{"pywg_get=1\n\n"}) catch return false;
    defer answer.deinit(gpa);
    return errnoOf(&answer) == 0;
}

fn exchange(name: []const u8, request: []const []const u8) io.uapi_connection.Error!Answer {
    if (!io.tun.isValidName(name)) return error.NameTooLong;
    var connection: Connection = try .open(folder, name);
    defer connection.close();
    for (request) |part| try connection.send(part);
    return connection.receive(gpa);
}

/// The lines of an answer, as key and value.
pub const Lines = struct {
    rest: []const u8,

    pub fn of(answer: *const Answer) Lines {
        return .{ .rest = answer.text() };
    }

    pub const Line = struct { key: []const u8, value: []const u8 };

    pub fn next(lines: *Lines) ?Line {
        const end = std.mem.findScalar(u8, lines.rest, '\n') orelse return null;
        const line = lines.rest[0..end];
        lines.rest = lines.rest[end + 1 ..];
        const equals = std.mem.findScalar(u8, line, '=') orelse return null;
        return .{ .key = line[0..equals], .value = line[equals + 1 ..] };
    }
};

pub fn isKey(line: Lines.Line, key: []const u8) bool {
    return std.mem.eql(u8, line.key, key);
}

/// 0 for what is none.
pub fn number(text: []const u8) u64 {
    var value: u64 = 0;
    for (text) |digit| {
        if (digit < '0' or digit > '9') return 0;
        value = value *| 10 +| (digit - '0');
    }
    return value;
}

/// Whether the daemon answered with what it was asked for. If not, that was said.
pub fn isGood(name: []const u8, answer: *const Answer) bool {
    const errno = errnoOf(answer);
    if (errno == 0) return true;
    var digits: [20]u8 = undefined;
    words.tell(&.{ name, ": its daemon answers with errno ", config.notes.decimal(errno, &digits) });
    return false;
}

/// What the last line says: 0 or an errno.
pub fn errnoOf(answer: *const Answer) u16 {
    const at = std.mem.findLast(u8, answer.text(), "errno=") orelse return 1;
    const text = std.mem.trim(u8, answer.text()[at + "errno=".len ..], "-\n");
    return std.math.cast(u16, number(text)) orelse 1;
}
