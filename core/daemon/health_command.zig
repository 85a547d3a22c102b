//! healthcheck: whether a tunnel is well, by an exit code, for whoever watches over processes.
const std = @import("std");
const config = @import("config");
const io = @import("io");
const asking = @import("asking.zig");
const words = @import("words.zig");

pub fn run(rest: *std.process.Args.Iterator) error{Usage}!u8 {
    var name: ?[]const u8 = null;
    var age_max: ?u64 = null;
    while (rest.next()) |word| {
        const option = "--handshake";
        if (std.mem.startsWith(u8, word, option ++ "=")) {
            age_max = try seconds(word[option.len + 1 ..]);
        } else if (std.mem.eql(u8, word, option)) {
            age_max = try seconds(rest.next() orelse return error.Usage);
        } else if (name == null and word.len > 0 and word[0] != '-') {
            name = word;
        } else return error.Usage;
    }
    return check(name orelse return error.Usage, age_max);
}

fn seconds(text: []const u8) error{Usage}!u64 {
    const value = asking.number(text);
    if (value > 0) return value;
    words.tell(&.{ "'", words.shown(text), "' is no number of seconds" });
    return error.Usage;
}

fn check(name: []const u8, age_max: ?u64) u8 {
    var answer = asking.ask(name, &.{"get=1\n\n"}) catch return 1;
    defer answer.deinit(asking.gpa);
    if (!asking.isGood(name, &answer)) return 1;
    const most = age_max orelse return 0;
    const latest = latestHandshake(&answer);
    if (latest == 0) {
        words.tell(&.{ name, ": no peer has had a handshake yet" });
        return 1;
    }
    const age = unixNow() -| latest;
    if (age <= most) return 0;
    var digits: [2][20]u8 = undefined;
    const old = config.notes.decimal(age, &digits[0]);
    const allowed = config.notes.decimal(most, &digits[1]);
    words.tell(&.{ name, ": the latest handshake was ", old, " seconds ago, more than ", allowed });
    return 1;
}

/// In seconds since 1970; 0 for never.
fn latestHandshake(answer: *const asking.Answer) u64 {
    var latest: u64 = 0;
    var lines: asking.Lines = .of(answer);
    while (lines.next()) |line| {
        if (asking.isKey(line, "last_handshake_time_sec")) latest = @max(latest, asking.number(line.value));
    }
    return latest;
}

pub fn unixNow() u64 {
    return io.clock.unixNs() / std.time.ns_per_s;
}
