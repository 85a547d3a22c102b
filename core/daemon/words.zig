//! What pywgd says: lines on stdout and stderr. Knows no reason.
//! Invariant: nothing that may be a key is repeated; see `shown`.
const std = @import("std");
const wire = @import("wire");
const linux = std.os.linux;

/// One line on stderr.
pub fn complain(comptime format: []const u8, values: anytype) void {
    var buffer: [512]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&buffer);
    _ = wire.text.fill(&writer, "pywgd: " ++ format ++ "\n", values); // too long: cut
    write(2, writer.buffered());
}

/// All of it on stdout.
pub fn say(text: []const u8) void {
    write(1, text);
}

/// A word of a user in a message. No value of ours is as long; what is may be a key in the wrong place.
pub fn shown(text: []const u8) []const u8 {
    return if (text.len <= 40) text else "(a long word)";
}

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
