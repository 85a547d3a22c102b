//! The system calls that a running tunnel makes, and a filter (seccomp(2)) that refuses all others with EPERM.
//! An error and not a kill: all our code lives with calls that fail, so one that was forgotten here costs what it was
//! for and not the tunnel. Applies to the calling thread. docs/security.md has the same list in words, and a test
//! compares the two.
//! Invariant: the filter is made at compile time, so it is the same for everyone; whatever an argument is compared
//! with, all of its 64 bits are.
const std = @import("std");
const assert = std.debug.assert;
const native = @import("builtin").cpu.arch;
const sys = @import("io").linux;
const linux = std.os.linux;
const SECCOMP = linux.SECCOMP;

/// One way in which a call may be made.
const Rule = struct {
    /// Its names. As std does, the filter takes the first that the architecture has.
    call: []const []const u8,
    /// Each has to hold. Arguments that are not named may be anything.
    when: []const Condition = &.{},
};

const Condition = struct {
    /// Counted from 0.
    argument: u3,
    among: []const u32,
};

const udp_kinds = [_]u32{
    linux.SOCK.DGRAM | linux.SOCK.CLOEXEC,
    linux.SOCK.DGRAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK,
};
const netlink_kinds = [_]u32{linux.SOCK.RAW | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK};

const for_packets = [_][]const u8{ "readv", "writev", "sendmmsg", "recvmmsg", "epoll_pwait", "read", "write" };
const for_time = [_][]const u8{ "nanosleep", "clock_gettime64", "clock_gettime" };
const for_sockets = [_][]const u8{ "sendto", "recvfrom", "recvmsg", "bind", "getsockname", "accept4", "epoll_ctl" };
const for_the_rest = [_][]const u8{ "close", "statx", "munmap", "getrandom", "sched_getscheduler", "gettid" };
const for_signals = [_][]const u8{ "rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigreturn", "sigreturn" };
const for_the_end = [_][]const u8{ "restart_syscall", "exit", "exit_group" };

/// Those made for packets come first: the filter is read from the top. The rules of one call stand together.
const rules = anyway(for_packets ++ for_time) ++ [_]Rule{
    // Locks; the end of a thread is told as to other processes, too.
    .{ .call = &.{"futex"}, .when = &.{.{ .argument = 1, .among = &.{ futex_wait, futex_wake, futex_wait_shared } }} },
} ++ anyway(for_sockets ++ for_the_rest ++ for_signals ++ for_the_end) ++ [_]Rule{
    .{ .call = &.{ "unlink", "unlinkat" } },
    // The log, for which nobody waits.
    .{ .call = &.{"pwritev2"} },
    .{ .call = &.{ "poll", "ppoll" } },
    .{ .call = &.{ "rt_sigtimedwait", "rt_sigtimedwait_time64" } },
    .{ .call = &.{ "geteuid32", "geteuid" } },
    socket(&.{ linux.AF.INET, linux.AF.INET6 }, &udp_kinds, 0),
    socket(&.{linux.AF.NETLINK}, &netlink_kinds, linux.NETLINK.ROUTE),
    socketOption("setsockopt", linux.SOL.SOCKET, &.{
        linux.SO.REUSEPORT,   linux.SO.SNDBUF,       linux.SO.RCVBUF, linux.SO.SNDBUFFORCE,
        linux.SO.RCVBUFFORCE, linux.SO.BINDTODEVICE, linux.SO.MARK,   linux.SO.ATTACH_REUSEPORT_CBPF,
    }),
    socketOption("setsockopt", linux.SOL.IP, &.{
        linux.IP.PKTINFO, linux.IP.MTU_DISCOVER, linux.IP.RECVTOS, linux.IP.RECVERR,
    }),
    socketOption("setsockopt", linux.SOL.IPV6, &.{
        linux.IPV6.MTU_DISCOVER, linux.IPV6.V6ONLY, linux.IPV6.RECVPKTINFO, linux.IPV6.RECVTCLASS,
        linux.IPV6.RECVERR,
    }),
    socketOption("setsockopt", linux.IPPROTO.UDP, &.{linux.UDP.GRO}),
    socketOption("setsockopt", sys.SOL_NETLINK, &.{sys.NETLINK_LISTEN_ALL_NSID}),
    socketOption("getsockopt", linux.SOL.SOCKET, &.{linux.SO.PEERCRED}),
    socketOption("getsockopt", linux.IPPROTO.UDP, &.{ linux.UDP.SEGMENT, linux.UDP.GRO }),
    .{ .call = &.{ "fcntl64", "fcntl" }, .when = &.{.{ .argument = 1, .among = &.{linux.F.DUPFD_CLOEXEC} }} },
    .{ .call = &.{"ioctl"}, .when = &.{.{ .argument = 1, .among = &.{
        sys.TUNSETQUEUE, sys.TUNGETIFF, sys.TUNGETDEVNETNS, sys.TUNSETOFFLOAD, linux.SIOCGIFINDEX,
    } }} },
    // Memory of our own that nobody else sees, and never to be executed.
    .{ .call = &.{ "mmap2", "mmap" }, .when = &.{
        .{ .argument = 2, .among = &.{@as(u32, @bitCast(linux.PROT{ .READ = true, .WRITE = true }))} },
        .{ .argument = 3, .among = &.{@as(u32, @bitCast(linux.MAP{ .TYPE = .PRIVATE, .ANONYMOUS = true }))} },
    } },
    .{ .call = &.{"mremap"}, .when = &.{.{ .argument = 3, .among = &.{ 0, mremap_may_move } }} },
    // A thread may put itself among the ordinary ones, or come before them again; and touch no other's place.
    .{ .call = &.{"sched_setscheduler"}, .when = &.{
        .{ .argument = 0, .among = &.{0} },
        .{ .argument = 1, .among = &.{ policy(.NORMAL), policy(.RR) } },
    } },
    // A panic ends the process by it.
    .{ .call = &.{"tkill"}, .when = &.{.{ .argument = 1, .among = &.{@backingInt(linux.SIG.ABRT)} }} },
};

const futex_wait = futexOperation(.{ .cmd = .WAIT, .private = true });
const futex_wake = futexOperation(.{ .cmd = .WAKE, .private = true });
const futex_wait_shared = futexOperation(.{ .cmd = .WAIT, .private = false });
const mremap_may_move: u32 = @bitCast(linux.MREMAP{ .MAYMOVE = true });

fn futexOperation(operation: linux.FUTEX_OP) u32 {
    return @bitCast(operation);
}

fn policy(mode: linux.SCHED.Mode) u32 {
    return @bitCast(linux.SCHED{ .mode = mode, .RESET_ON_FORK = true });
}

fn anyway(comptime names: anytype) [names.len]Rule {
    var out: [names.len]Rule = undefined;
    for (&out, names) |*rule, name| rule.* = .{ .call = &.{name} };
    return out;
}

fn socket(comptime families: []const u32, comptime kinds: []const u32, comptime protocol: u32) Rule {
    return .{ .call = &.{"socket"}, .when = &.{
        .{ .argument = 0, .among = families },
        .{ .argument = 1, .among = kinds },
        .{ .argument = 2, .among = &.{protocol} },
    } };
}

fn socketOption(comptime call: []const u8, comptime level: u32, comptime names: []const u32) Rule {
    return .{ .call = &.{call}, .when = &.{
        .{ .argument = 1, .among = &.{level} },
        .{ .argument = 2, .among = names },
    } };
}

/// struct sock_filter of <linux/filter.h>.
pub const Instruction = extern struct { code: u16, jt: u8 = 0, jf: u8 = 0, k: u32 };
const Program = extern struct { length: u16, filter: [*]const Instruction };

const load_word = 0x20;
const jump_equal = 0x15;
const ret = 0x06;

fn load(offset: u32) Instruction {
    return .{ .code = load_word, .k = offset };
}

const Half = enum { low, high };

fn loadArgument(comptime number: usize, comptime half: Half) Instruction {
    const first: Half = if (native.endian() == .big) .high else .low;
    return load(@offsetOf(SECCOMP.data, "arg0") + 8 * number + if (half == first) 0 else 4);
}

/// Goes on with the next instruction if it holds, else leaves out `skip` of them.
fn unlessEqual(value: u32, skip: u8) Instruction {
    return .{ .code = jump_equal, .jf = skip, .k = value };
}

/// What the filter answers to a call that no rule allows.
pub const refusal: u32 = SECCOMP.RET.ERRNO | @as(u32, @backingInt(linux.E.PERM));
const allow: Instruction = .{ .code = ret, .k = SECCOMP.RET.ALLOW };
const refuse: Instruction = .{ .code = ret, .k = refusal };

fn numberOf(call: []const []const u8) ?u32 {
    for (call) |name| if (@hasField(linux.SYS, name)) return @intCast(@backingInt(@field(linux.SYS, name)));
    return null;
}

/// AUDIT_ARCH_* of <linux/audit.h>: another calling convention has other numbers. Null: not known here, no filter.
pub const architecture: ?u32 = switch (native) {
    .x86_64 => 0xc000_003e,
    .aarch64 => 0xc000_00b7,
    .arm => 0x4000_0028,
    .riscv64 => 0xc000_00f3,
    else => null,
};

pub const program = blk: {
    @setEvalBranchQuota(100_000);
    var code: []const Instruction = &.{
        load(@offsetOf(SECCOMP.data, "arch")),
        unlessEqual(architecture orelse 0, 1),
        .{ .code = 0x05, .k = 1 }, // over the refusal
        refuse,
        load(@offsetOf(SECCOMP.data, "nr")),
    };
    for (rules, 0..) |rule, i| {
        const number = numberOf(rule.call) orelse continue;
        if (i > 0 and numberOf(rules[i - 1].call) == number) continue;
        const ways = waysOf(number);
        code = code ++ &[_]Instruction{unlessEqual(number, ways.len)} ++ ways;
    }
    code = code ++ &[_]Instruction{refuse};
    break :blk code[0..code.len].*;
};

/// From the call's number on: ends with an answer.
fn waysOf(comptime number: u32) []const Instruction {
    var code: []const Instruction = &.{};
    for (rules) |rule| {
        if (numberOf(rule.call) != number) continue;
        if (rule.when.len == 0) return code ++ &[_]Instruction{allow};
        code = code ++ wayOf(rule);
    }
    return code ++ &[_]Instruction{refuse};
}

/// Allows, or goes on behind its end.
fn wayOf(comptime rule: Rule) []const Instruction {
    var code: []const Instruction = &.{allow};
    var i = rule.when.len;
    while (i > 0) {
        i -= 1;
        code = holds(rule.when[i], code.len) ++ code;
    }
    return code;
}

/// Goes on, or behind the `rest` that follows.
fn holds(comptime condition: Condition, comptime rest: u8) []const Instruction {
    const count = condition.among.len;
    var code: []const Instruction = &.{
        loadArgument(condition.argument, .high),
        unlessEqual(0, count + 1 + rest),
        loadArgument(condition.argument, .low),
    };
    for (condition.among, 1..) |value, nth| {
        const miss = if (nth == count) rest else 0;
        code = code ++ &[_]Instruction{.{ .code = jump_equal, .jt = count - nth, .jf = miss, .k = value }};
    }
    return code;
}

/// No program that is executed gains rights by it (set-user-ID, file capabilities). The filter needs it.
pub fn forbidNewPrivileges() bool {
    return linux.errno(linux.prctl(@backingInt(linux.PR.SET_NO_NEW_PRIVS), 1, 0, 0, 0)) == .SUCCESS;
}

/// Whether `install` could work. Asks without changing anything: a filter that cannot be read is refused as such.
pub fn isAvailable() bool {
    if (architecture == null) return false;
    const rc = linux.prctl(@backingInt(linux.PR.SET_SECCOMP), SECCOMP.MODE.FILTER, 0, 0, 0);
    return linux.errno(rc) == .FAULT;
}

/// False where the kernel has no filters, or this architecture is not known here.
pub fn install() bool {
    return installProgram(&program);
}

/// For checks that change it first.
pub fn installProgram(code: []const Instruction) bool {
    if (architecture == null) return false;
    const filter: Program = .{ .length = @intCast(code.len), .filter = code.ptr };
    return linux.errno(linux.seccomp(SECCOMP.SET_MODE_FILTER, 0, &filter)) == .SUCCESS;
}

comptime {
    @setEvalBranchQuota(100_000);
    assert(program.len < 4096); // BPF_MAXINSNS
    assert(@sizeOf(Instruction) == 8);
}

const testing = std.testing;

/// Runs `body` in a child that has installed the filter; what it returns is the child's exit code.
fn inSandbox(body: *const fn () u8) !u8 {
    const child: linux.pid_t = switch (sys.result(linux.fork())) {
        .value => |pid| @intCast(pid),
        .failure => return error.SkipZigTest,
    };
    if (child == 0) {
        if (!forbidNewPrivileges() or !install()) linux.exit_group(255);
        linux.exit_group(body());
    }
    var status: i32 = 0;
    try testing.expectEqual(@as(usize, @intCast(child)), linux.waitpid(child, &status, 0));
    if (status & 0x7f != 0) return error.Killed;
    const code: u8 = @truncate(@as(u32, @bitCast(status)) >> 8);
    return if (code == 255) error.SkipZigTest else code;
}

/// Of no socket: EBADF unless the filter comes before.
fn setOption(level: u32, option: u32) usize {
    return linux.syscall5(.setsockopt, std.math.maxInt(u32), level, option, 0, 0);
}

/// Without parameters: EFAULT unless the filter comes before.
fn setScheduler(pid: linux.pid_t, wanted: linux.SCHED) usize {
    return linux.syscall3(.sched_setscheduler, @as(u32, @bitCast(pid)), @as(u32, @bitCast(wanted)), 1);
}

fn mapPage(protection: linux.PROT) usize {
    return linux.mmap(null, 4096, protection, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, 0);
}

fn isRefused(rc: usize) bool {
    return linux.errno(rc) == .PERM;
}

const udp_lite = 136;
const l2tp = 115;
const ip_xfrm_policy = 17;
const ipv6_hdrincl = 36;
const maximum = std.math.maxInt(i32);
/// Where there are more: else a level that has no such bit.
const beyond_32_bits: usize = if (@sizeOf(usize) == 8) 1 << 32 else 1 << 30;

test "what a tunnel has no use for is refused" {
    const tries = struct {
        fn run() u8 {
            const path: [*:0]const u8 = "/etc/passwd";
            const none: [1:null]?[*:0]const u8 = .{null};
            const refused = [_]bool{
                isRefused(linux.open(path, .{}, 0)),
                isRefused(linux.openat(linux.AT.FDCWD, path, .{}, 0)),
                isRefused(linux.execve("/bin/true", &none, &none)),
                isRefused(linux.fork()),
                isRefused(linux.socket(linux.AF.INET, linux.SOCK.STREAM, 0)),
                isRefused(linux.socket(linux.AF.INET6, linux.SOCK.RAW | linux.SOCK.CLOEXEC, 58)),
                isRefused(linux.socket(linux.AF.PACKET, linux.SOCK.DGRAM, 0)),
                isRefused(linux.socket(linux.AF.UNIX, linux.SOCK.STREAM, 0)),
                isRefused(linux.socket(linux.AF.NETLINK, linux.SOCK.RAW, linux.NETLINK.GENERIC)),
                isRefused(mapPage(.{ .READ = true, .EXEC = true })),
                isRefused(linux.mprotect(@ptrFromInt(std.heap.pageSize()), 4096, .{ .READ = true, .EXEC = true })),
                isRefused(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, udp_lite)),
                isRefused(linux.socket(linux.AF.INET6, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, l2tp)),
                isRefused(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, linux.IPPROTO.ICMP)),
                isRefused(linux.fcntl(0, linux.F.SETSIG, 9)),
                isRefused(linux.fcntl(0, linux.F.SETOWN, 1)),
                isRefused(setOption(linux.SOL.SOCKET, linux.SO.ATTACH_FILTER)),
                isRefused(setOption(linux.IPPROTO.UDP, linux.UDP.ENCAP)),
                isRefused(setOption(linux.SOL.IP, ip_xfrm_policy)),
                isRefused(linux.tkill(maximum, .KILL)),
                isRefused(setOption(linux.SOL.IP, 64)),
                isRefused(setOption(linux.SOL.IPV6, 64)),
                isRefused(setOption(linux.SOL.IPV6, 200)),
                isRefused(setOption(255, 1)),
                isRefused(setOption(linux.SOL.IP, linux.IP.HDRINCL)),
                isRefused(setOption(linux.SOL.IPV6, ipv6_hdrincl)),
                isRefused(linux.syscall5(.setsockopt, maximum, beyond_32_bits | linux.SOL.SOCKET, linux.SO.MARK, 0, 0)),
                isRefused(linux.prctl(@backingInt(linux.PR.SET_DUMPABLE), 1, 0, 0, 0)),
                isRefused(linux.ioctl(0, linux.T.IOCSTI, 0)),
                isRefused(setScheduler(0, .{ .mode = .FIFO, .RESET_ON_FORK = true })),
                isRefused(setScheduler(0, .{ .mode = .RR })),
                isRefused(setScheduler(1, .{ .mode = .NORMAL, .RESET_ON_FORK = true })),
                isRefused(linux.ptrace(linux.PTRACE.TRACEME, 0, 0, 0, 0)),
            };
            for (refused, 1..) |was, number| if (!was) return @intCast(number);
            return 0;
        }
    };
    try testing.expectEqual(0, try inSandbox(tries.run));
}

test "what a tunnel does is allowed" {
    const tries = struct {
        fn run() u8 {
            const udp = linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK, 0);
            const netlink_kind = linux.SOCK.RAW | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
            const routes = linux.socket(linux.AF.NETLINK, netlink_kind, linux.NETLINK.ROUTE);
            const page = mapPage(.{ .READ = true, .WRITE = true });
            var bytes: [8]u8 = undefined;
            const random = linux.getrandom(&bytes, bytes.len, 0);
            for ([_]usize{ udp, routes, page, random }, 1..) |rc, number| {
                if (linux.errno(rc) != .SUCCESS) return @intCast(number);
            }
            // The request is let through; the descriptor is no TUN.
            for ([_][2]u32{
                .{ linux.SOL.SOCKET, linux.SO.MARK }, .{ linux.IPPROTO.UDP, 104 }, .{ linux.SOL.IP, 8 },
                .{ linux.SOL.IP, 13 },                .{ linux.SOL.IPV6, 26 },     .{ linux.SOL.IPV6, 66 },
                .{ @intCast(sys.SOL_NETLINK), 8 },
            }) |option| if (isRefused(setOption(option[0], option[1]))) return 6;
            if (isRefused(linux.ioctl(@intCast(udp), sys.TUNGETIFF, 0))) return 5;
            if (isRefused(setScheduler(0, .{ .mode = .NORMAL, .RESET_ON_FORK = true }))) return 7;
            if (isRefused(setScheduler(0, .{ .mode = .RR, .RESET_ON_FORK = true }))) return 8;
            return 0;
        }
    };
    try testing.expectEqual(0, try inSandbox(tries.run));
}
