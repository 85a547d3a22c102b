//! The two clocks of the device: boot time, which goes on through suspend, and wall time for TAI64N. And what a thread
//! has had of its core.
//! Does not know what they are used for; the loop reads the two once per batch.
//! Invariant: a clock that cannot be read is 0, never a trap; 32-bit targets get 64-bit seconds.
const std = @import("std");
const linux = std.os.linux;

/// The kernel's 64-bit timespec: std's has 32-bit seconds on 32-bit targets and would end in 2038.
const Timespec = extern struct { seconds: i64, nanoseconds: i64 };

/// Nanoseconds on CLOCK_BOOTTIME.
pub fn bootNs() u64 {
    return read(.BOOTTIME);
}

/// Nanoseconds since the Unix epoch on CLOCK_REALTIME.
pub fn unixNs() u64 {
    return read(.REALTIME);
}

/// Nanoseconds on CLOCK_MONOTONIC, which stands still through suspend.
pub fn monotonicNs() u64 {
    return read(.MONOTONIC);
}

/// Nanoseconds that this thread has computed, system calls included.
pub fn threadCpuNs() u64 {
    return read(.THREAD_CPUTIME_ID);
}

/// At least so long, unless a signal comes; 0 is not even a system call.
pub fn sleep(ns: u64) void {
    if (ns == 0) return;
    const seconds = ns / std.time.ns_per_s;
    const time: linux.timespec = .{ .sec = @intCast(seconds), .nsec = @intCast(ns % std.time.ns_per_s) };
    _ = linux.nanosleep(&time, null);
}

fn read(clock: linux.clockid_t) u64 {
    if (@hasField(linux.SYS, "clock_gettime64")) {
        var time: Timespec = .{ .seconds = 0, .nanoseconds = 0 };
        const rc = linux.syscall2(.clock_gettime64, @backingInt(clock), @intFromPtr(&time));
        if (linux.errno(rc) == .SUCCESS) return combine(time.seconds, time.nanoseconds);
        // Before Linux 5.1 there is only the old call; it serves until 2038.
    }
    var time: linux.timespec = .{ .sec = 0, .nsec = 0 };
    if (linux.errno(linux.clock_gettime(clock, &time)) != .SUCCESS) return 0;
    return combine(time.sec, time.nsec);
}

fn combine(seconds: i64, nanoseconds: i64) u64 {
    const whole = std.math.cast(u64, seconds) orelse return 0; // before 1970
    const part = std.math.cast(u64, nanoseconds) orelse return 0;
    return whole *| std.time.ns_per_s +| part;
}

test "both clocks go forward and the wall clock is past 2020" {
    const first = bootNs();
    try std.testing.expect(first > 0);
    try std.testing.expect(bootNs() >= first);
    try std.testing.expect(unixNs() > 1_577_836_800 * std.time.ns_per_s);
}

test "times before the epoch or beyond the type saturate" {
    try std.testing.expectEqual(0, combine(-1, 0));
    try std.testing.expectEqual(std.math.maxInt(u64), combine(std.math.maxInt(i64), 999_999_999));
    try std.testing.expectEqual(1_000_000_002, combine(1, 2));
}
