//! Precedence: whether a realtime worker goes on coming before the ordinary programs of its core. It does while it
//! works for the peers. A flood by strangers is no reason to keep a core from everybody else: once that takes more than
//! half of the core, the worker is one of the ordinary programs until it has caught up, or the flood is over.
//! Knows no clock and makes no system call.
//! Invariant: decides at most once in `window_ns`, so going back and forth costs next to nothing.
const std = @import("std");

/// What a worker has done since it began; times in nanoseconds.
pub const Account = struct {
    now_ns: u64,
    /// Of its thread, system calls included.
    cpu_ns: u64,
    /// Datagrams it has looked at, and those of them that were a peer's.
    seen: u64,
    useful: u64,
};

pub const Precedence = struct {
    comes_first: bool = true,
    last: Account,

    pub const window_ns = 20 * std.time.ns_per_ms;
    /// Strangers' datagrams for each that is a peer's: below one in so many they are no flood.
    const noise = 4;

    pub fn isDue(precedence: *const Precedence, now_ns: u64) bool {
        return now_ns -| precedence.last.now_ns >= window_ns;
    }

    /// Decides by what was done since the last time; `is_behind`: more datagrams wait than could be taken.
    pub fn judge(precedence: *Precedence, account: Account, is_behind: bool) void {
        const last = precedence.last;
        precedence.last = account;
        const is_busy = account.cpu_ns -| last.cpu_ns > (account.now_ns -| last.now_ns) / 2;
        const useful = account.useful - last.useful;
        const strange = account.seen - last.seen - useful;
        // An ordinary program beside another gets half of the core at most: being behind tells that it wants more.
        const wants_more_than_half = is_busy or (is_behind and !precedence.comes_first);
        precedence.comes_first = !(wants_more_than_half and strange > useful / noise);
    }
};

const testing = std.testing;

/// Windows of a worker, one after the other.
const Windows = struct {
    account: Account = .{ .now_ns = 0, .cpu_ns = 0, .seen = 0, .useful = 0 },
    precedence: Precedence = .{ .last = .{ .now_ns = 0, .cpu_ns = 0, .seen = 0, .useful = 0 } },

    /// One in which it has had so many hundredths of the core.
    fn pass(windows: *Windows, hundredths: u64, strange: u64, useful: u64, is_behind: bool) bool {
        const account = &windows.account;
        account.now_ns += Precedence.window_ns;
        account.cpu_ns += Precedence.window_ns * hundredths / 100;
        account.seen += strange + useful;
        account.useful += useful;
        std.debug.assert(windows.precedence.isDue(account.now_ns));
        windows.precedence.judge(account.*, is_behind);
        std.debug.assert(!windows.precedence.isDue(account.now_ns));
        return windows.precedence.comes_first;
    }
};

test "strangers that take more than half of a core cost the precedence, peers and small numbers do not" {
    var windows: Windows = .{};
    try testing.expect(windows.pass(100, 0, 20_000, true)); // a stream
    try testing.expect(windows.pass(100, 0, 0, true)); // the other way
    try testing.expect(windows.pass(100, 4_000, 20_000, true)); // noise beside it
    try testing.expect(windows.pass(50, 6_000, 0, true)); // a flood that leaves half
    try testing.expect(windows.pass(30, 6_000, 100, false));
    try testing.expect(!windows.pass(51, 6_000, 0, false));
    try testing.expect(windows.pass(100, 0, 20_000, true)); // it is over, the stream is not
    try testing.expect(!windows.pass(100, 6_000, 20_000, true));
}

test "whoever shares the core with others comes first again only when nothing is left lying, or the flood is over" {
    var windows: Windows = .{};
    try testing.expect(!windows.pass(95, 6_000, 0, true));
    // Two or three programs share the core, so it is no longer busy, but for want of time.
    try testing.expect(!windows.pass(50, 3_000, 0, true));
    try testing.expect(!windows.pass(33, 2_000, 0, true));
    try testing.expect(!windows.pass(70, 5_000, 0, false)); // nobody wants the other half
    try testing.expect(windows.pass(40, 3_000, 0, false));
    try testing.expect(!windows.pass(95, 6_000, 0, true));
    try testing.expect(windows.pass(0, 0, 0, false));
}

test "a clock that goes back, or stands still, decides nothing odd" {
    var windows: Windows = .{};
    _ = windows.pass(95, 6_000, 0, true);
    const account = windows.account;
    try testing.expect(!windows.precedence.isDue(0));
    windows.precedence.judge(.{ .now_ns = 0, .cpu_ns = 0, .seen = account.seen, .useful = account.useful }, false);
    try testing.expect(windows.precedence.comes_first);
}
