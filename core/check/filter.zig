//! For tests/sandbox/ only; no install has it. The filter of system calls that pywgd installs, as data and
//! at work:
//!
//!   filter program    its instructions, and the numbers of all calls that std knows, for this architecture
//!   filter probe      what it answers to the calls on standard input: a number and six arguments a line, in decimal
//!
//! `probe` makes the calls, in children that have installed it. Where pywgd's filter answers EPERM, which the kernel
//! says as well, the one of the children answers an errno that no kernel knows: nothing else differs. A call that ends
//! the child was let through, and the next child goes on behind it. So the arguments must be harmless.
const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;
const report = @import("report");
const seccomp = @import("seccomp");

pub const std_options = report.std_options;
pub const panic = std.debug.simple_panic;

const no_filter_here = 3;

pub fn main(init: std.process.Init.Minimal) u8 {
    var arguments = init.args.iterate();
    _ = arguments.skip();
    const verb = std.meta.stringToEnum(enum { program, probe }, arguments.next() orelse return 2) orelse return 2;
    switch (verb) {
        .program => tellProgram(),
        .probe => return probe(),
    }
    return 0;
}

fn tellProgram() void {
    report.say("architecture {d}", .{seccomp.architecture orelse 0});
    report.say("refusal {d}", .{seccomp.refusal});
    for (seccomp.program) |it| report.say("instruction {d} {d} {d} {d}", .{ it.code, it.jt, it.jf, it.k });
    @setEvalBranchQuota(100_000);
    inline for (@typeInfo(linux.SYS).@"enum".field_names) |name| {
        report.say("call {s} {d}", .{ name, @backingInt(@field(linux.SYS, name)) });
    }
}

// ---- making the calls --------------------------------------------------------------------------------

const Call = [7]usize;

/// MAX_ERRNO of the kernel's <linux/err.h>: no call fails with it.
const errno_of_the_filter = 4095;

/// What a child tells its parent.
const Shared = struct {
    /// The call that is being made.
    at: usize,
    verdicts: [calls_max]enum(u8) { unknown, refused, allowed, deadly },
};
const calls_max = 1 << 20;
const input_max = 1 << 26;

fn probe() u8 {
    if (builtin.cpu.arch != .x86_64 and builtin.cpu.arch != .aarch64) return no_filter_here;
    if (!seccomp.isAvailable()) return no_filter_here;
    const input = readAll(share([input_max]u8));
    const calls = share([calls_max]Call);
    const count = parse(input, calls);
    const shared = share(Shared);
    while (shared.at < count) {
        const child = linux.fork();
        if (linux.errno(child) != .SUCCESS) return 1;
        if (child == 0) beChild(calls[0..count], shared);
        var status: i32 = 0;
        while (linux.errno(linux.waitpid(@intCast(child), &status, 0)) == .INTR) {}
        if (status == no_filter_here << 8) return no_filter_here;
        if (shared.at == count) break;
        shared.verdicts[shared.at] = .deadly;
        shared.at += 1;
    }
    for (shared.verdicts[0..count]) |verdict| report.say("{t}", .{verdict});
    return 0;
}

/// Zeros that children have, too.
fn share(comptime T: type) *T {
    const flags: linux.MAP = .{ .TYPE = .SHARED, .ANONYMOUS = true };
    const rc = linux.mmap(null, @sizeOf(T), .{ .READ = true, .WRITE = true }, flags, -1, 0);
    std.debug.assert(linux.errno(rc) == .SUCCESS);
    return @ptrFromInt(rc);
}

fn readAll(buffer: []u8) []const u8 {
    var length: usize = 0;
    while (true) {
        const rc = linux.read(0, buffer.ptr + length, buffer.len - length);
        std.debug.assert(linux.errno(rc) == .SUCCESS);
        if (rc == 0) return buffer[0..length];
        length += rc;
    }
}

fn parse(text: []const u8, calls: *[calls_max]Call) usize {
    var lines = std.mem.tokenizeScalar(u8, text, '\n');
    var count: usize = 0;
    while (lines.next()) |line| : (count += 1) {
        var words = std.mem.tokenizeScalar(u8, line, ' ');
        for (&calls[count]) |*word| word.* = std.fmt.parseInt(usize, words.next().?, 10) catch unreachable;
    }
    return count;
}

/// Makes the calls that are left. Ends by the last one, by one that ends it, or by the clock if one never comes back.
fn beChild(calls: []const Call, shared: *Shared) noreturn {
    const patience: linux.itimerspec = .{
        .it_interval = .{ .sec = 0, .nsec = 0 },
        .it_value = .{ .sec = 100, .nsec = 0 },
    };
    _ = linux.setitimer(@backingInt(linux.ITIMER.REAL), &patience, null);
    var code = seccomp.program;
    for (&code) |*instruction| {
        if (instruction.k == seccomp.refusal) instruction.k = linux.SECCOMP.RET.ERRNO | errno_of_the_filter;
    }
    if (!seccomp.forbidNewPrivileges() or !seccomp.installProgram(&code)) linux.exit_group(no_filter_here);
    while (shared.at < calls.len) : (shared.at += 1) {
        const rc = make(&calls[shared.at]);
        const is_refused = rc == @as(usize, @bitCast(@as(isize, -errno_of_the_filter)));
        shared.verdicts[shared.at] = if (is_refused) .refused else .allowed;
    }
    linux.exit_group(0);
}

/// std's functions take only numbers that it knows.
fn make(call: *const Call) usize {
    return switch (builtin.cpu.arch) {
        .x86_64 => asm volatile ("syscall"
            : [result] "={rax}" (-> usize),
            : [number] "{rax}" (call[0]),
              [first] "{rdi}" (call[1]),
              [second] "{rsi}" (call[2]),
              [third] "{rdx}" (call[3]),
              [fourth] "{r10}" (call[4]),
              [fifth] "{r8}" (call[5]),
              [sixth] "{r9}" (call[6]),
            : .{ .rcx = true, .r11 = true, .memory = true }),
        .aarch64 => asm volatile ("svc #0"
            : [result] "={x0}" (-> usize),
            : [number] "{x8}" (call[0]),
              [first] "{x0}" (call[1]),
              [second] "{x1}" (call[2]),
              [third] "{x2}" (call[3]),
              [fourth] "{x3}" (call[4]),
              [fifth] "{x4}" (call[5]),
              [sixth] "{x5}" (call[6]),
            : .{ .memory = true }),
        else => unreachable, // `probe` has seen to it
    };
}
