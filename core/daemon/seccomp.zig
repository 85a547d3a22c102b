//! The system calls that a running tunnel makes, and a filter (seccomp(2)) that refuses all others with EPERM.
//! An error and not a kill: all our code lives with calls that fail, so one that was forgotten here costs what it was
//! for and not the tunnel. Applies to the calling thread. docs/security.md has the list in words.
//! Invariant: the filter is made at compile time, so it is the same for everyone.
const std = @import("std");
const assert = std.debug.assert;
const native = @import("builtin").cpu.arch;
const sys = @import("io").linux;
const linux = std.os.linux;
const SECCOMP = linux.SECCOMP;

/// Those made for packets come first: the filter is read from the top. A name that an architecture lacks is left out.
const allowed = .{
    // packets and waiting
    "readv",              "writev",    "sendmmsg",        "recvmmsg",               "recvmmsg_time64", "epoll_pwait",
    "epoll_wait",         "read",      "write",           "futex",                  "futex_time64",    "clock_gettime",
    "clock_gettime64",    "nanosleep", "clock_nanosleep", "clock_nanosleep_time64",
    // sockets, the UAPI socket, netlink
    "sendto",          "recvfrom",
    "sendmsg",            "recvmsg",   "getsockopt",      "bind",                   "getsockname",     "accept4",
    "epoll_ctl",          "close",     "fcntl",           "fcntl64",                "statx",           "unlink",
    "unlinkat",           "geteuid",   "geteuid32",
    // memory and randomness
          "munmap",                 "mremap",          "getrandom",
    // threads, signals, the end
    "sched_getscheduler", "gettid",    "getpid",          "tkill",                  "rt_sigaction",    "rt_sigprocmask",
    "rt_sigreturn",       "sigreturn", "restart_syscall", "exit",                   "exit_group",
};

/// Of the log, for which nobody waits.
const log_calls = .{ "pwritev2", "poll", "ppoll", "ppoll_time64" };

/// Requests that are made of TUN while it runs.
const ioctls = [_]u32{ sys.TUNSETQUEUE, sys.TUNGETIFF, sys.TUNGETDEVNETNS, sys.TUNSETOFFLOAD, linux.SIOCGIFINDEX };

const memory_calls = .{ "mmap", "mmap2" };

/// struct sock_filter of <linux/filter.h>.
const Instruction = extern struct { code: u16, jt: u8 = 0, jf: u8 = 0, k: u32 };
const Program = extern struct { length: u16, filter: [*]const Instruction };

const load_word = 0x20;
const jump_equal = 0x15;
const jump_any_bit = 0x45;
const jump_not_below = 0x35;
const and_constant = 0x54;
const ret = 0x06;

fn load(offset: u32) Instruction {
    return .{ .code = load_word, .k = offset };
}

fn loadArgument(comptime number: usize) Instruction {
    const high_first = @import("builtin").cpu.arch.endian() == .big;
    return load(@offsetOf(SECCOMP.data, "arg0") + 8 * number + if (high_first) 4 else 0);
}

/// Goes on with the next instruction if it holds, else leaves out `skip` of them.
fn unless(code: u16, value: u32, skip: u8) Instruction {
    return .{ .code = code, .jf = skip, .k = value };
}

const allow: Instruction = .{ .code = ret, .k = SECCOMP.RET.ALLOW };
const refuse: Instruction = .{ .code = ret, .k = SECCOMP.RET.ERRNO | @as(u32, @backingInt(linux.E.PERM)) };

fn numberOf(comptime name: []const u8) ?u32 {
    return if (@hasField(linux.SYS, name)) @intCast(@backingInt(@field(linux.SYS, name))) else null;
}

/// AUDIT_ARCH_* of <linux/audit.h>: another calling convention has other numbers. Null: not known here, no filter.
const architecture: ?u32 = switch (native) {
    .x86_64 => 0xc000_003e,
    .aarch64 => 0xc000_00b7,
    .arm => 0x4000_0028,
    .riscv64 => 0xc000_00f3,
    else => null,
};

const program = blk: {
    @setEvalBranchQuota(100_000);
    var code: []const Instruction = &.{
        load(@offsetOf(SECCOMP.data, "arch")),
        unless(jump_equal, architecture orelse 0, 1),
        .{ .code = 0x05, .k = 1 }, // over the refusal
        refuse,
        load(@offsetOf(SECCOMP.data, "nr")),
    };
    for (allowed ++ log_calls) |name| {
        if (numberOf(name)) |number| code = code ++ &[_]Instruction{ unless(jump_equal, number, 1), allow };
    }
    for (memory_calls) |name| if (numberOf(name)) |number| {
        // Never memory that can be executed.
        const exec: linux.PROT = .{ .EXEC = true };
        code = code ++ &[_]Instruction{
            unless(jump_equal, number, 4),
            loadArgument(2),
            unless(jump_any_bit, @bitCast(exec), 1),
            refuse,
            allow,
        };
    };
    code = code ++ schedulerRule() ++ socketRule() ++ optionRule() ++ ioctlRule() ++ &[_]Instruction{refuse};
    break :blk code[0..code.len].*;
};

/// A thread may put itself among the ordinary ones, or come before them again; and touch no other's place.
fn schedulerRule() []const Instruction {
    const ordinary: linux.SCHED = .{ .mode = .NORMAL, .RESET_ON_FORK = true };
    const realtime: linux.SCHED = .{ .mode = .RR, .RESET_ON_FORK = true };
    const rule = [_]Instruction{
        loadArgument(0),
        unless(jump_equal, 0, 4),
        loadArgument(1),
        .{ .code = jump_equal, .jt = 1, .k = @bitCast(ordinary) },
        unless(jump_equal, @bitCast(realtime), 1),
        allow,
        refuse,
    };
    return &([_]Instruction{unless(jump_equal, numberOf("sched_setscheduler").?, rule.len)} ++ rule);
}

const ip_hdrincl = 3;
const ipv6_hdrincl = 36;

/// UDP of both families, and netlink of routes.
fn socketRule() []const Instruction {
    const rule = [_]Instruction{
        loadArgument(0),
        unless(jump_equal, linux.AF.NETLINK, 4),
        loadArgument(2),
        unless(jump_equal, linux.NETLINK.ROUTE, 1),
        allow,
        refuse,
        .{ .code = jump_equal, .jt = 2, .k = linux.AF.INET },
        .{ .code = jump_equal, .jt = 1, .k = linux.AF.INET6 },
        refuse,
        loadArgument(1),
        .{ .code = and_constant, .k = 0xf },
        unless(jump_equal, linux.SOCK.DGRAM, 1),
        allow,
        refuse,
    };
    return &([_]Instruction{unless(jump_equal, numberOf("socket").?, rule.len)} ++ rule);
}

/// Of sockets, UDP and netlink any; of IPv4 and IPv6 none of those with which NET_ADMIN rewrites the packet filter
/// (IPT_BASE_CTL, 64) or multicast routes (200), or with which a socket for ICMP errors sends packets of any kind.
fn optionRule() []const Instruction {
    const rule = [_]Instruction{
        loadArgument(1),
        .{ .code = jump_equal, .jt = 14, .k = linux.SOL.SOCKET },
        .{ .code = jump_equal, .jt = 13, .k = linux.IPPROTO.UDP },
        .{ .code = jump_equal, .jt = 12, .k = @intCast(sys.SOL_NETLINK) },
        unless(jump_equal, linux.SOL.IP, 4),
        loadArgument(2),
        .{ .code = jump_equal, .jt = 1, .k = ip_hdrincl },
        .{ .code = jump_not_below, .jt = 7, .jf = 8, .k = 64 },
        refuse,
        unless(jump_equal, linux.SOL.IPV6, 5),
        loadArgument(2),
        .{ .code = jump_equal, .jt = 3, .k = ipv6_hdrincl },
        .{ .code = jump_equal, .jt = 2, .k = 64 },
        .{ .code = jump_equal, .jt = 1, .k = 65 },
        .{ .code = jump_not_below, .jf = 1, .k = 76 },
        refuse,
        allow,
    };
    return &([_]Instruction{unless(jump_equal, numberOf("setsockopt").?, rule.len)} ++ rule);
}

fn ioctlRule() []const Instruction {
    var rule: []const Instruction = &.{loadArgument(1)};
    for (ioctls) |request| rule = rule ++ &[_]Instruction{ unless(jump_equal, request, 1), allow };
    rule = rule ++ &[_]Instruction{refuse};
    return &[_]Instruction{unless(jump_equal, numberOf("ioctl").?, rule.len)} ++ rule;
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
    if (architecture == null) return false;
    const filter: Program = .{ .length = program.len, .filter = &program };
    return linux.errno(linux.seccomp(SECCOMP.SET_MODE_FILTER, 0, &filter)) == .SUCCESS;
}

comptime {
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
fn setScheduler(pid: linux.pid_t, policy: linux.SCHED) usize {
    return linux.syscall3(.sched_setscheduler, @as(u32, @bitCast(pid)), @as(u32, @bitCast(policy)), 1);
}

fn mapPage(protection: linux.PROT) usize {
    return linux.mmap(null, 4096, protection, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, 0);
}

fn isRefused(rc: usize) bool {
    return linux.errno(rc) == .PERM;
}

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
                isRefused(setOption(linux.SOL.IP, 64)),
                isRefused(setOption(linux.SOL.IPV6, 64)),
                isRefused(setOption(linux.SOL.IPV6, 200)),
                isRefused(setOption(255, 1)),
                isRefused(setOption(linux.SOL.IP, ip_hdrincl)),
                isRefused(setOption(linux.SOL.IPV6, ipv6_hdrincl)),
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
            const routes = linux.socket(linux.AF.NETLINK, linux.SOCK.RAW | linux.SOCK.CLOEXEC, linux.NETLINK.ROUTE);
            const page = mapPage(.{ .READ = true, .WRITE = true });
            var bytes: [8]u8 = undefined;
            const random = linux.getrandom(&bytes, bytes.len, 0);
            for ([_]usize{ udp, routes, page, random }, 1..) |rc, number| {
                if (linux.errno(rc) != .SUCCESS) return @intCast(number);
            }
            // The request is let through; the descriptor is no TUN.
            for ([_][2]u32{
                .{ linux.SOL.SOCKET, linux.SO.MARK }, .{ linux.IPPROTO.UDP, 103 }, .{ linux.SOL.IP, 8 },
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
