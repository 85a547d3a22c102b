//! setconf and syncconf: a running interface becomes what a file says.
const std = @import("std");
const config = @import("config");
const asking = @import("asking.zig");
const ConfigFile = @import("config_file.zig").ConfigFile;
const words = @import("words.zig");
const Iterator = std.process.Args.Iterator;

pub fn setconf(rest: *Iterator) error{Usage}!u8 {
    return configure(rest, .replace);
}

pub fn syncconf(rest: *Iterator) error{Usage}!u8 {
    return configure(rest, .keep);
}

fn configure(rest: *Iterator, way: config.change_text.Way) error{Usage}!u8 {
    var operands: [2][]const u8 = undefined;
    var count: usize = 0;
    var options: config.parser.Options = .{ .way = way };
    while (rest.next()) |word| {
        if (std.mem.eql(u8, word, "--no-hooks")) {
            options.leaves_hooks = true;
        } else if (count < 2 and word.len > 0 and word[0] != '-') {
            operands[count] = word;
            count += 1;
        } else return error.Usage;
    }
    if (count < 2) return error.Usage;
    const name, const path = operands;
    options.is_pywg = asking.isPywg(name);
    var file = ConfigFile.load(path, options) catch return 1;
    defer file.deinit();
    apply(name, &file, way) catch return 1;
    return 0;
}

fn apply(name: []const u8, file: *const ConfigFile, way: config.change_text.Way) error{Failed}!void {
    var removals: []u8 = &.{};
    defer asking.gpa.free(removals);
    if (way == .keep) removals = try removalsOf(name, file.change);
    var answer = try asking.ask(name, &.{ "set=1\n", file.change, removals, "\n" });
    defer answer.deinit(asking.gpa);
    const errno = asking.errnoOf(&answer);
    if (errno == 0) return;
    const code: std.os.linux.E = @fromBackingInt(errno);
    words.tell(&.{ name, ": its daemon refused the configuration: ", switch (code) {
        .ADDRINUSE => "the listen port is in use by another program",
        .NOMEM => "it takes more memory than there is, or than its limit",
        .INVAL => "a value means nothing to it (EINVAL)",
        else => "see its log",
    } });
    return error.Failed;
}

const Digits = *const [64]u8;

/// The lines that remove the peers which run and are not in the file.
fn removalsOf(name: []const u8, change: []const u8) error{Failed}![]u8 {
    var answer = try asking.ask(name, &.{"get=1\n\n"});
    defer answer.deinit(asking.gpa);
    const wanted = try peersOf(name, change);
    defer asking.gpa.free(wanted);
    const running = try peersOf(name, answer.text());
    defer asking.gpa.free(running);
    const line = "public_key=".len + 64 + "\nremove=true\n".len;
    const room = asking.gpa.alloc(u8, @max(running.len * line, 1)) catch return outOfMemory(name);
    var length: usize = 0;
    var next: usize = 0;
    for (running) |key| {
        while (next < wanted.len and isLess({}, wanted[next], key)) next += 1;
        if (next < wanted.len and std.mem.eql(u8, wanted[next], key)) continue;
        for ([_][]const u8{ "public_key=", key, "\nremove=true\n" }) |part| {
            @memcpy(room[length..][0..part.len], part);
            length += part.len;
        }
    }
    if (asking.gpa.resize(room, length)) return room[0..length];
    defer asking.gpa.free(room);
    return asking.gpa.dupe(u8, room[0..length]) catch outOfMemory(name);
}

/// Sorted: then two lists of many are compared in one go.
fn peersOf(name: []const u8, text: []const u8) error{Failed}![]Digits {
    const prefix = "public_key=";
    const keys = asking.gpa.alloc(Digits, std.mem.count(u8, text, prefix)) catch return outOfMemory(name);
    var count: usize = 0;
    var lines = std.mem.tokenizeScalar(u8, text, '\n');
    while (lines.next()) |line| {
        if (!std.mem.startsWith(u8, line, prefix) or line.len != prefix.len + 64) continue;
        keys[count] = line[prefix.len..][0..64];
        count += 1;
    }
    std.sort.heap(Digits, keys[0..count], {}, isLess);
    if (count == keys.len) return keys;
    defer asking.gpa.free(keys);
    return asking.gpa.dupe(Digits, keys[0..count]) catch outOfMemory(name);
}

fn isLess(_: void, a: Digits, b: Digits) bool {
    return std.mem.lessThan(u8, a, b);
}

fn outOfMemory(name: []const u8) error{Failed} {
    words.tell(&.{ name, ": out of memory" });
    return error.Failed;
}
