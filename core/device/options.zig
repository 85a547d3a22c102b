//! What a device is opened with, and why that may be refused.
const Diagnostic = @import("diagnostic.zig").Diagnostic;
const io = @import("io");
const log = @import("log.zig");
const Sizes = @import("sizes.zig").Sizes;
const workers_max = @import("cipher_pool.zig").workers_max;

pub const mtu_default = 1420;
/// TUN takes no less: the least that IPv4 asks of a link.
pub const mtu_min = 68;
/// What an IPv4 packet can hold; TUN takes no more.
pub const mtu_max = 65_535;
pub const threads_max = workers_max;

pub const Options = struct {
    name: []const u8,
    mtu: u32 = mtu_default,
    /// To take over. They stay the caller's until the device is open, and are closed then.
    tun_fd: ?i32 = null,
    uapi_fd: ?i32 = null,
    /// IPv4 and IPv6, bound to one port. They too are to be taken over, for one thread.
    udp_fds: [2]?i32 = .{ null, null },
    offload_disable: u32 = 0,
    /// Threads that will call `run`, each with a queue of the TUN and sockets of its own.
    threads: u8 = 1,
    /// Bytes it may take, 0 for no limit: its buffers when it opens, then its peers.
    memory_limit: u64 = 0,
    /// How large its buffers are.
    sizes: *const Sizes = &.normal,
    log_level: log.Level = .silent,
    log_fd: i32 = -1,
    /// Of the program, for its report.
    version: []const u8 = "",
    has_uapi: bool = true,
    /// Everything is taken over from the process that serves `name`.
    takes_over: bool = false,
    uapi_folder: []const u8 = io.uapi_listener.default_folder,
    /// Where a forked child finds what it has inherited.
    inherited: ?*io.fork.Inherited = null,
    calls: *const io.linux.Calls = &io.linux.real,

    pub fn check(options: *const Options, diagnostic: *Diagnostic) error{InvalidArgument}!void {
        const name_max = io.tun.name_max;
        if (options.name.len == 0 and options.tun_fd == null) {
            diagnostic.set("the interface needs a name of 1 to 15 characters", .{});
        } else if (options.name.len > name_max) {
            // Not repeated: a key has more characters.
            diagnostic.set(
                "the interface name has {d} characters: the kernel takes at most {d}, choose a shorter one",
                .{ options.name.len, name_max },
            );
        } else if (options.name.len != 0 and !io.tun.isValidName(options.name)) {
            diagnostic.set("interface name '{s}' may only have letters, digits and _ = + . -", .{options.name});
        } else if (options.threads < 1 or options.threads > threads_max) {
            diagnostic.set("threads {d} is out of range: 1 to {d}", .{ options.threads, threads_max });
        } else if (options.mtu < mtu_min or options.mtu > mtu_max) {
            diagnostic.set("mtu {d} is out of range: {d} to {d}", .{ options.mtu, mtu_min, mtu_max });
        } else if (options.threads > 1 and (options.udp_fds[0] orelse options.udp_fds[1]) != null) {
            diagnostic.set("a device with UDP sockets of yours (udp4_fd, udp6_fd) has one thread", .{});
        } else if (options.takes_over and (options.isGiven() or !options.has_uapi)) {
            diagnostic.set("to take over from a running process there is no other descriptor to give, " ++
                "and the UAPI socket is part of it", .{});
        } else return;
        return error.InvalidArgument;
    }

    /// Something of the caller's is to be taken over.
    fn isGiven(options: *const Options) bool {
        for ([_]?i32{ options.tun_fd, options.uapi_fd, options.udp_fds[0], options.udp_fds[1] }) |given| {
            if (given != null) return true;
        }
        return false;
    }

    /// The device has descriptors of its own for the same files.
    pub fn closeGiven(options: *const Options) void {
        if (options.tun_fd) |fd| io.linux.close(fd);
        if (options.uapi_fd) |fd| io.linux.close(fd);
        for (options.udp_fds) |given| if (given) |fd| io.linux.close(fd);
    }
};

pub const OpenError = error{ InvalidArgument, OutOfMemory, Permission, NameInUse, NotFound, System };
