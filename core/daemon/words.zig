//! What pywgd says: lines on stdout and stderr. Knows no reason.
//! Invariant: nothing that may be a key is repeated; see `shown`.
const std = @import("std");
const linux = std.os.linux;

/// One line on stderr.
pub fn complain(comptime format: []const u8, values: anytype) void {
    var buffer: [512]u8 = undefined;
    const text = std.mem.print(&buffer, "pywgd: " ++ format ++ "\n", values) catch buffer[0..];
    write(2, text);
}

/// The same of a text in parts: each kind of `values` above costs code of its own.
pub fn tell(parts: []const []const u8) void {
    tellLine("pywgd: ", parts);
}

/// A line about a place in a file, as compilers say it: without our name before it.
pub fn tellPlace(parts: []const []const u8) void {
    tellLine("", parts);
}

fn tellLine(before: []const u8, parts: []const []const u8) void {
    var buffer: [1024]u8 = undefined;
    var length = before.len;
    @memcpy(buffer[0..length], before);
    for (parts) |part| {
        const fitting = part[0..@min(part.len, buffer.len - 1 - length)];
        @memcpy(buffer[length..][0..fitting.len], fitting);
        length += fitting.len;
    }
    buffer[length] = '\n';
    write(2, buffer[0 .. length + 1]);
}

/// All of it on stdout.
pub fn say(text: []const u8) void {
    write(1, text);
}

/// A word of a user in a message. No value of ours is as long; what is may be a key in the wrong place.
pub fn shown(text: []const u8) []const u8 {
    return if (text.len <= 40) text else "(a long word)";
}

/// The name of a file. What looks like a key is none.
pub fn shownPath(path: []const u8) []const u8 {
    const is_key_like = path.len >= 40 and std.mem.findNone(u8, path, base64_characters) == null and path[0] != '/';
    return if (is_key_like) "(a long word)" else path;
}

const base64_characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";

pub fn write(fd: i32, text: []const u8) void {
    var rest = text;
    while (rest.len > 0) {
        const rc = linux.write(fd, rest.ptr, rest.len);
        switch (linux.errno(rc)) {
            .SUCCESS => rest = rest[rc..],
            .INTR => {},
            else => return, // nobody reads it
        }
    }
}
