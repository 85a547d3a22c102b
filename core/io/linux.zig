//! The system calls whose failure we must survive, as one table that a test can replace, and the
//! kernel constants that std lacks. Knows numbers, not what they are for.
//! Invariant: outside tests every table is `real`; nothing here keeps state.
const std = @import("std");
const linux = std.os.linux;

pub const fd_t = linux.fd_t;
pub const iovec = std.posix.iovec;
pub const iovec_const = std.posix.iovec_const;
pub const E = linux.E;

/// Function pointers with the kernel behind them. A test copies `real`, replaces one entry and injects errno.
pub const Calls = struct {
    readv: *const fn (fd_t, [*]const iovec, usize) usize = kernel.readv,
    writev: *const fn (fd_t, [*]const iovec_const, usize) usize = kernel.writev,
    ioctl: *const fn (fd_t, u32, usize) usize = kernel.ioctl,
    sendmmsg: *const fn (fd_t, [*]linux.mmsghdr, u32, u32) usize = kernel.sendmmsg,
    recvmmsg: *const fn (fd_t, [*]linux.mmsghdr, u32, u32) usize = kernel.recvmmsg,
    recvmsg: *const fn (fd_t, *linux.msghdr, u32) usize = kernel.recvmsg,
    socket: *const fn (u32, u32, u32) usize = kernel.socket,
    bind: *const fn (fd_t, *const anyopaque, linux.socklen_t) usize = kernel.bind,
    setsockopt: *const fn (fd_t, i32, u32, [*]const u8, linux.socklen_t) usize = kernel.setsockopt,
    getsockopt: *const fn (fd_t, i32, u32, [*]u8, *linux.socklen_t) usize = kernel.getsockopt,
};

pub const real: Calls = .{};

const kernel = struct {
    fn readv(fd: fd_t, vector: [*]const iovec, count: usize) usize {
        return linux.readv(fd, vector, count);
    }
    fn writev(fd: fd_t, vector: [*]const iovec_const, count: usize) usize {
        return linux.writev(fd, vector, count);
    }
    fn ioctl(fd: fd_t, request: u32, argument: usize) usize {
        return linux.ioctl(fd, request, argument);
    }
    fn sendmmsg(fd: fd_t, messages: [*]linux.mmsghdr, count: u32, flags: u32) usize {
        return linux.sendmmsg(fd, messages, count, flags);
    }
    fn recvmmsg(fd: fd_t, messages: [*]linux.mmsghdr, count: u32, flags: u32) usize {
        return linux.recvmmsg(fd, messages, count, flags, null);
    }
    fn recvmsg(fd: fd_t, message: *linux.msghdr, flags: u32) usize {
        return linux.recvmsg(fd, message, flags);
    }
    fn socket(domain: u32, kind: u32, protocol: u32) usize {
        return linux.socket(domain, kind, protocol);
    }
    fn bind(fd: fd_t, address: *const anyopaque, length: linux.socklen_t) usize {
        return linux.bind(fd, @ptrCast(@alignCast(address)), length);
    }
    fn setsockopt(fd: fd_t, level: i32, name: u32, value: [*]const u8, length: linux.socklen_t) usize {
        return linux.setsockopt(fd, level, name, value, length);
    }
    fn getsockopt(fd: fd_t, level: i32, name: u32, value: [*]u8, length: *linux.socklen_t) usize {
        return linux.getsockopt(fd, level, name, value, length);
    }
};

/// What a raw system call returned, in a shape that a switch can take apart.
pub const Result = union(enum) {
    value: usize,
    failure: E,
};

pub fn result(rc: usize) Result {
    const code = linux.errno(rc);
    return if (code == .SUCCESS) .{ .value = rc } else .{ .failure = code };
}

/// The raw return value with which the kernel reports `code`; for injected faults.
pub fn failWith(code: E) usize {
    return @bitCast(-@as(isize, @backingInt(code)));
}

/// What failed and why, for the one line of English a user gets to read.
pub const Failure = struct {
    /// The system call or request, for example "TUNSETIFF".
    operation: []const u8 = "",
    errno: E = .SUCCESS,

    pub fn set(failure: *Failure, operation: []const u8, errno: E) void {
        failure.* = .{ .operation = operation, .errno = errno };
    }

    pub fn format(failure: Failure, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        try writer.print("{s}: {f}", .{ failure.operation, ErrnoName{ .code = failure.errno } });
    }
};

/// `EIO`, or `errno 1234` for a number that has no name here.
pub const ErrnoName = struct {
    code: E,

    pub fn format(self: ErrnoName, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        if (std.enums.tagName(E, self.code)) |name| return writer.print("E{s}", .{name});
        try writer.print("errno {d}", .{@backingInt(self.code)});
    }
};

pub fn close(fd: fd_t) void {
    _ = linux.close(fd);
}

// ---- /dev/net/tun: <linux/if_tun.h> ----------------------------------------------------------------
pub const TUNSETIFF = linux.IOCTL.IOW('T', 202, c_int);
pub const TUNGETFEATURES = linux.IOCTL.IOR('T', 207, c_uint);
pub const TUNSETOFFLOAD = linux.IOCTL.IOW('T', 208, c_uint);
pub const TUNGETIFF = linux.IOCTL.IOR('T', 210, c_uint);
pub const TUNGETVNETHDRSZ = linux.IOCTL.IOR('T', 215, c_int);
pub const TUNSETVNETHDRSZ = linux.IOCTL.IOW('T', 216, c_int);
pub const TUNSETQUEUE = linux.IOCTL.IOW('T', 217, c_int);
pub const TUNSETVNETLE = linux.IOCTL.IOW('T', 220, c_int);
/// _IO('T', 227): a descriptor of the network namespace the device is in now. Linux 5.7.
pub const TUNGETDEVNETNS = linux.IOCTL.IO('T', 227);

pub const IFF_TUN: u16 = 0x0001;
pub const IFF_TAP: u16 = 0x0002;
pub const IFF_MULTI_QUEUE: u16 = 0x0100;
pub const IFF_ATTACH_QUEUE: u16 = 0x0200;
pub const IFF_DETACH_QUEUE: u16 = 0x0400;
pub const IFF_NO_PI: u16 = 0x1000;
pub const IFF_VNET_HDR: u16 = 0x4000;

pub const TUN_F_CSUM: u32 = 0x01;
pub const TUN_F_TSO4: u32 = 0x02;
pub const TUN_F_TSO6: u32 = 0x04;
pub const TUN_F_TSO_ECN: u32 = 0x08;
/// USO since Linux 6.2, and only both families together.
pub const TUN_F_USO4: u32 = 0x20;
pub const TUN_F_USO6: u32 = 0x40;
/// Superpackets inside VXLAN and Geneve since Linux 6.17: without and with a UDP checksum of the tunnel's own.
pub const TUN_F_UDP_TUNNEL_GSO: u32 = 0x80;
pub const TUN_F_UDP_TUNNEL_GSO_CSUM: u32 = 0x100;

/// struct ifreq with the union as bytes: std's packs the flags into a type that lacks ours.
pub const Ifreq = extern struct {
    name: [16]u8 = @splat(0),
    value: extern union {
        flags: u16,
        integer: i32,
        bytes: [if (@sizeOf(usize) == 8) 24 else 16]u8,
    } = .{ .bytes = @splat(0) },

    /// Null when the name does not fit with its NUL.
    pub fn init(name: []const u8) ?Ifreq {
        if (name.len >= 16 or std.mem.findScalar(u8, name, 0) != null) return null;
        var request: Ifreq = .{};
        @memcpy(request.name[0..name.len], name);
        return request;
    }

    pub fn nameSlice(request: *const Ifreq) []const u8 {
        return std.mem.sliceTo(&request.name, 0);
    }

    comptime {
        std.debug.assert(@sizeOf(Ifreq) == @sizeOf(linux.ifreq));
    }
};

// ---- rtnetlink: <linux/rtnetlink.h>, <linux/if_link.h>, <linux/net_namespace.h> -------------------------
pub const RTMGRP_LINK: u32 = 0x1;
pub const RTMGRP_IPV4_ROUTE: u32 = 0x40;
pub const RTMGRP_IPV4_RULE: u32 = 0x80;
pub const RTMGRP_IPV6_ROUTE: u32 = 0x400;
/// RTNLGRP_IPV6_RULE, 19, as a mask: it has none in the header.
pub const RTMGRP_IPV6_RULE: u32 = 0x40000;
pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_GETROUTE: u16 = 26;
pub const RTM_NEWRULE: u16 = 32;
pub const RTM_NEWNSID: u16 = 88;
pub const RTM_GETNSID: u16 = 90;
pub const NLMSG_ERROR: u16 = 2;
pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_ACK: u16 = 4;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLMSG_DONE: u16 = 3;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_MTU: u16 = 4;
pub const IFLA_LINKINFO: u16 = 18;
pub const IFLA_INFO_KIND: u16 = 1;
pub const IFLA_INFO_DATA: u16 = 2;
pub const IFLA_EXT_MASK: u16 = 29;
pub const IFLA_LINK_NETNSID: u16 = 37;
pub const IFLA_GSO_MAX_SEGS: u16 = 40;
pub const IFLA_TARGET_NETNSID: u16 = 46;
pub const NETNSA_NSID: u16 = 1;
pub const NETNSA_FD: u16 = 3;
pub const RTA_DST: u16 = 1;
pub const RTA_OIF: u16 = 4;
pub const RTA_MARK: u16 = 16;
pub const SOL_NETLINK: i32 = 270;
pub const NETLINK_LISTEN_ALL_NSID: u32 = 8;

// ---- classic BPF: <linux/filter.h> -----------------------------------------------------------------------
pub const BpfInstruction = extern struct { code: u16, jt: u8 = 0, jf: u8 = 0, k: u32 };
pub const BpfProgram = extern struct { length: u16, instructions: [*]const BpfInstruction };
pub const bpf_ret_k: u16 = 0x06;

// ---- sockaddr, as bytes in network order, so that no target's byte order matters -------------------------
pub const SockaddrIn = extern struct {
    family: u16 = linux.AF.INET,
    port: [2]u8,
    address: [4]u8,
    zero: [8]u8 = @splat(0),
};

pub const SockaddrIn6 = extern struct {
    family: u16 = linux.AF.INET6,
    port: [2]u8,
    flow: [4]u8 = @splat(0),
    address: [16]u8,
    scope_id: u32,
};

comptime {
    std.debug.assert(@sizeOf(SockaddrIn) == @sizeOf(linux.sockaddr.in));
    std.debug.assert(@sizeOf(SockaddrIn6) == @sizeOf(linux.sockaddr.in6));
}

/// Another descriptor of the same file, to be closed on its own.
pub fn duplicate(fd: fd_t) Result {
    return result(linux.fcntl(fd, linux.F.DUPFD_CLOEXEC, 0));
}

/// Tests that need interfaces of their own work in a fresh network namespace and come back.
pub const TestNamespace = struct {
    saved: fd_t,

    /// error.SkipZigTest without the privilege.
    pub fn enter() !TestNamespace {
        const saved = switch (result(linux.open("/proc/thread-self/ns/net", .{ .CLOEXEC = true }, 0))) {
            .value => |fd| @as(fd_t, @intCast(fd)),
            .failure => return error.SkipZigTest,
        };
        errdefer close(saved);
        if (linux.errno(linux.unshare(linux.CLONE.NEWNET)) != .SUCCESS) return error.SkipZigTest;
        try setUp("lo", true);
        return .{ .saved = saved };
    }

    pub fn leave(namespace: TestNamespace) void {
        std.debug.assert(linux.errno(linux.setns(namespace.saved, linux.CLONE.NEWNET)) == .SUCCESS);
        close(namespace.saved);
    }

    pub fn setUp(name: []const u8, up: bool) !void {
        const socket: fd_t = @intCast(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0));
        defer close(socket);
        var request = Ifreq.init(name).?;
        if (linux.errno(linux.ioctl(socket, linux.SIOCGIFFLAGS, @intFromPtr(&request))) != .SUCCESS)
            return error.Unexpected;
        request.value.flags = if (up) request.value.flags | 1 else request.value.flags & ~@as(u16, 1);
        if (linux.errno(linux.ioctl(socket, linux.SIOCSIFFLAGS, @intFromPtr(&request))) != .SUCCESS)
            return error.Unexpected;
    }
};

test "numbers agree with the kernel's headers" {
    const arch = @import("builtin").cpu.arch;
    // _IOC has other bits for the direction there.
    const has_other = arch.isMIPS() or arch.isPowerPC();
    const write: u32, const read: u32, const neither: u32 =
        if (has_other) .{ 0x80000000, 0x40000000, 0x20000000 } else .{ 0x40000000, 0x80000000, 0 };
    try std.testing.expectEqual(write | 0x454ca, TUNSETIFF);
    try std.testing.expectEqual(write | 0x454d0, TUNSETOFFLOAD);
    try std.testing.expectEqual(read | 0x454d2, TUNGETIFF);
    try std.testing.expectEqual(write | 0x454d8, TUNSETVNETHDRSZ);
    try std.testing.expectEqual(write | 0x454dc, TUNSETVNETLE);
    try std.testing.expectEqual(neither | 0x54e3, TUNGETDEVNETNS);
}

test "failures print with the name of their errno" {
    var buffer: [64]u8 = undefined;
    const failure: Failure = .{ .operation = "TUNSETIFF", .errno = .BUSY };
    try std.testing.expectEqualStrings("TUNSETIFF: EBUSY", try std.mem.print(&buffer, "{f}", .{failure}));
    try std.testing.expectEqual(E.IO, result(failWith(.IO)).failure);
    try std.testing.expectEqual(7, result(7).value);
}

test "interface requests refuse names that do not fit" {
    try std.testing.expect(Ifreq.init("0123456789abcdef") == null);
    try std.testing.expectEqualStrings("0123456789abcde", Ifreq.init("0123456789abcde").?.nameSlice());
}
