//! Capabilities (capabilities(7)): which of them a process that serves a tunnel keeps. Applies to the calling thread
//! and to those it makes later.
//! Invariant: only ever takes away.
const std = @import("std");
const linux = std.os.linux;

/// What a running tunnel may still be asked for: SO_MARK, large buffers, TUN requests and links (NET_ADMIN), sockets
/// bound to another device (NET_RAW), a listen port below 1024 (NET_BIND_SERVICE), news of an interface that was moved
/// to another namespace (NET_BROADCAST), and memory for more peers where memory is locked (IPC_LOCK).
pub const needed: u64 = bit(linux.CAP.NET_ADMIN) | bit(linux.CAP.NET_RAW) | bit(linux.CAP.NET_BIND_SERVICE) |
    bit(linux.CAP.NET_BROADCAST) | bit(linux.CAP.IPC_LOCK);

/// Threads that are ordinary during a flood and realtime again after it need it where no limit allows that. The filter
/// of system calls lets them change themselves alone.
pub const nice: u64 = bit(linux.CAP.SYS_NICE);

fn bit(capability: u6) u64 {
    return @as(u64, 1) << capability;
}

const version_3 = 0x2008_0522;
/// std's has its second field at another place.
const Header = extern struct { version: u32 = version_3, pid: i32 = 0 };
const Half = extern struct { effective: u32, permitted: u32, inheritable: u32 };

/// Whether this thread has the capability now.
pub fn has(capability: u6) bool {
    var halves: [2]Half = undefined;
    return get(&halves) and halves[capability / 32].effective & @as(u32, 1) << @truncate(capability) != 0;
}

fn get(halves: *[2]Half) bool {
    const header: Header = .{};
    return succeeds(linux.syscall2(.capget, @intFromPtr(&header), @intFromPtr(halves)));
}

/// Gives up all others, and those too for any program that would be executed. False when the kernel refused.
pub fn keepOnly(kept: u64) bool {
    const header: Header = .{};
    var halves: [2]Half = undefined;
    if (!get(&halves)) return false;
    // The bounding set first: narrowing it is itself a privilege. Without that privilege NO_NEW_PRIVS does the same.
    for (0..64) |capability| {
        if (!succeeds(prctl(.CAPBSET_DROP, capability))) break; // EINVAL: the kernel knows no more
    }
    _ = prctl(.CAP_AMBIENT, linux.PR.CAP_AMBIENT_CLEAR_ALL);
    for (&halves, 0..) |*half, i| {
        const mask: u32 = @truncate(kept >> @intCast(32 * i));
        half.permitted &= mask;
        half.effective &= mask;
        half.inheritable = 0;
    }
    return succeeds(linux.syscall2(.capset, @intFromPtr(&header), @intFromPtr(&halves)));
}

fn prctl(option: linux.PR, argument: usize) usize {
    return linux.prctl(@backingInt(option), argument, 0, 0, 0);
}

fn succeeds(rc: usize) bool {
    return linux.errno(rc) == .SUCCESS;
}
