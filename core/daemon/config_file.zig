//! A configuration file: its text, who may read it, and what it asks of a device. Says what is wrong with it.
//! Invariant: every byte of the file and of the change made from it is zeroed by `deinit`.
const std = @import("std");
const linux = std.os.linux;
const config = @import("config");
const io = @import("io");
const words = @import("words.zig");

const gpa = std.heap.page_allocator;
/// As much as a request on the UAPI socket may be.
const size_max = 64 << 20;

pub const ConfigFile = struct {
    path: []const u8,
    text: []u8,
    room: []u8,
    /// The lines of a set.
    change: []const u8,
    settings: config.Settings,

    /// What is wrong is said, each with its line and column. error.Invalid: that is all there is to say.
    pub fn load(path: []const u8, options: config.parser.Options) error{Invalid}!ConfigFile {
        const text = try read(path);
        var file: ConfigFile = .{ .path = path, .text = text, .room = &.{}, .change = "", .settings = undefined };
        errdefer file.deinit();
        file.room = gpa.alloc(u8, config.change_text.ChangeText.capacity(text.len)) catch return outOfMemory(path);
        var notes: config.Notes = .{};
        file.change = config.parse(text, file.room, options, &notes, &file.settings) catch return outOfMemory(path);
        file.tell(&notes);
        return if (notes.problems == 0) file else error.Invalid;
    }

    pub fn deinit(file: *ConfigFile) void {
        for ([_][]u8{ file.text, file.room[0..file.usedRoom()] }) |secret| std.crypto.secureZero(u8, secret);
        gpa.free(file.text);
        gpa.free(file.room);
        file.* = undefined;
    }

    /// Nothing was written behind the change, and most of the room was never touched.
    fn usedRoom(file: *const ConfigFile) usize {
        if (file.change.len == 0) return file.room.len;
        return @intFromPtr(file.change.ptr) - @intFromPtr(file.room.ptr) + file.change.len;
    }

    fn tell(file: *const ConfigFile, notes: *const config.Notes) void {
        for (notes.all()) |*note| {
            var line: [20]u8 = undefined;
            var column: [20]u8 = undefined;
            words.tellPlace(&.{
                words.shownPath(file.path),
                ":",
                config.notes.decimal(note.line, &line),
                ":",
                config.notes.decimal(note.column, &column),
                switch (note.kind) {
                    .problem => ": ",
                    .warning => ": warning: ",
                    .left_out => ": not done: ",
                },
                notes.message(note),
            });
        }
        var digits: [20]u8 = undefined;
        const lost = config.notes.decimal(notes.lost, &digits);
        if (notes.lost > 0) words.tellPlace(&.{ words.shownPath(file.path), ": and ", lost, " more" });
    }
};

fn failed(path: []const u8, why: []const u8) error{Invalid} {
    words.tell(&.{ words.shownPath(path), why });
    return error.Invalid;
}

fn outOfMemory(path: []const u8) error{Invalid} {
    return failed(path, ": out of memory");
}

/// The whole file, or what comes out of a pipe.
fn read(path: []const u8) error{Invalid}![]u8 {
    const fd = try open(path);
    defer io.linux.close(fd);
    warnOfReaders(path, fd);
    var memory: []u8 = gpa.alloc(u8, 64 << 10) catch return outOfMemory(path);
    var length: usize = 0;
    errdefer {
        std.crypto.secureZero(u8, memory);
        gpa.free(memory);
    }
    while (true) {
        if (length == memory.len) memory = try grown(path, memory);
        const rc = linux.read(fd, memory[length..].ptr, memory.len - length);
        switch (io.linux.result(rc)) {
            .value => |count| if (count > 0) {
                length += count;
            } else break,
            .failure => |code| if (code != .INTR) return failed(path, switch (code) {
                .ISDIR => ": is a folder",
                else => ": cannot be read",
            }),
        }
    }
    if (gpa.resize(memory, length)) return memory[0..length];
    const exact = gpa.dupe(u8, memory[0..length]) catch return outOfMemory(path);
    std.crypto.secureZero(u8, memory);
    gpa.free(memory);
    return exact;
}

fn open(path: []const u8) error{Invalid}!i32 {
    var buffer: [4096]u8 = undefined;
    const name = terminated(path, &buffer) orelse return failed("", "the name of the file is too long");
    return switch (io.linux.result(linux.open(name, .{ .CLOEXEC = true }, 0))) {
        .value => |fd| @intCast(fd),
        .failure => |code| {
            return failed(path, switch (code) {
                .NOENT => ": there is no such file",
                .ACCES, .PERM => ": no permission to read it: run as root",
                else => ": cannot be opened",
            });
        },
    };
}

fn terminated(path: []const u8, buffer: *[4096]u8) ?[*:0]const u8 {
    if (path.len >= buffer.len) return null;
    @memcpy(buffer[0..path.len], path);
    buffer[path.len] = 0;
    return buffer[0..path.len :0];
}

/// The memory of the old is zeroed, and the caller's no more.
fn grown(path: []const u8, memory: []u8) error{Invalid}![]u8 {
    if (memory.len >= size_max) {
        return failed(path, ": is longer than 64 MiB");
    }
    const larger = gpa.alloc(u8, memory.len * 2) catch return outOfMemory(path);
    @memcpy(larger[0..memory.len], memory);
    std.crypto.secureZero(u8, memory);
    gpa.free(memory);
    return larger;
}

/// As wg-quick: when others may read both the file and its folder.
fn warnOfReaders(path: []const u8, fd: i32) void {
    const of_file = modeOf(fd, "") orelse return;
    if (!linux.S.ISREG(of_file)) return;
    var buffer: [4096]u8 = undefined;
    const slash = std.mem.findScalarLast(u8, path, '/');
    const folder = terminated(if (slash) |at| path[0 .. at + 1] else ".", &buffer) orelse return;
    const of_folder = modeOf(linux.AT.FDCWD, folder) orelse return;
    if (of_file & of_folder & 0o7 == 0) return;
    words.tell(&.{ "warning: '", words.shownPath(path), "' is world accessible: chmod 600" });
}

fn modeOf(fd: i32, path: [*:0]const u8) ?u16 {
    var found: linux.Statx = undefined;
    const flags: u32 = if (path[0] == 0) linux.AT.EMPTY_PATH else 0;
    const rc = linux.statx(fd, path, flags, .{ .TYPE = true, .MODE = true }, &found);
    return if (linux.errno(rc) == .SUCCESS) found.mode else null;
}
