//! Device: one Interface with file descriptors around it: TUN, UDP sockets, UAPI socket, timers.
//! Starts no thread: whoever calls `run` is the loop. `set`, `get`, `report`, `stop` may come from others.
//! Life, in the order of this file: open, (set, get, run ... stop), close.
//! Invariant: all state is behind `lock`, which the loop holds except while it waits.
const std = @import("std");
const Allocator = std.mem.Allocator;
const control = @import("control.zig");
const diagnostic_file = @import("diagnostic.zig");
const Inbound = @import("inbound.zig").Inbound;
const io = @import("io");
const Load = @import("load.zig").Load;
const Lock = @import("lock.zig").Lock;
const log_file = @import("log.zig");
const loop = @import("loop.zig");
const Outbound = @import("outbound.zig").Outbound;
const protocol = @import("protocol");
const uapi_server = @import("uapi_server.zig");
const wire = @import("wire");

pub const Diagnostic = diagnostic_file.Diagnostic;
pub const LogLevel = log_file.Level;
pub const SetError = control.SetError;

pub const mtu_default = 1420;
/// TUN takes no less: the least that IPv4 asks of a link.
pub const mtu_min = 68;
/// What an IPv4 packet can hold; TUN takes no more.
pub const mtu_max = 65_535;

pub const Options = struct {
    name: []const u8,
    mtu: u32 = mtu_default,
    tun_fd: ?i32 = null,
    uapi_fd: ?i32 = null,
    offload_disable: u32 = 0,
    log_level: log_file.Level = .silent,
    log_fd: i32 = -1,
    has_uapi: bool = true,
    uapi_folder: []const u8 = io.uapi_socket.default_folder,
    calls: *const io.linux.Calls = &io.linux.real,
};

pub const OpenError = error{ InvalidArgument, OutOfMemory, Permission, NameInUse, NotFound, System };
pub const RunError = error{ AlreadyRunning, System };

pub const Device = struct {
    gpa: Allocator,
    lock: Lock = .{},
    is_running: std.atomic.Value(bool) = .init(false),
    stop_requested: std.atomic.Value(bool) = .init(false),
    log: log_file.Log,

    interface: protocol.Interface,
    offload: io.offload.Offload,
    logged: LoggedOffload = .{},
    tun: io.tun.Tun,
    udp: io.udp.Udp,
    monitor: io.link.Monitor,
    /// Up, as far as the monitor has told.
    link_is_up: bool = false,
    /// When the state of an interface that the monitor cannot follow was asked for last.
    probed: protocol.Instant = .{ .ns = 0 },
    routes: io.link.RouteMonitor,
    routes_changed: bool = false,
    poller: io.poller.Poller,
    wakeup: io.poller.Wakeup,
    uapi: ?uapi_server.Server,

    outbound: Outbound,
    inbound: Inbound,
    load: Load = .{},
    /// Where the protocol's own datagrams are written: as many as one send takes.
    transmit_buffers: []u8,
    /// Set when link or sockets went away and the loop is to end.
    is_gone: bool = false,

    // ---- life ----

    pub fn open(gpa: Allocator, options: *const Options, diagnostic: *Diagnostic) OpenError!*Device {
        try checkOptions(options, diagnostic);
        const device = gpa.create(Device) catch return outOfMemory(diagnostic);
        errdefer gpa.destroy(device);
        device.* = .{
            .gpa = gpa,
            .log = .{ .fd = options.log_fd, .level = options.log_level },
            .offload = .init(options.offload_disable),
            .interface = undefined,
            .tun = undefined,
            .udp = undefined,
            .monitor = undefined,
            .routes = undefined,
            .poller = undefined,
            .wakeup = undefined,
            .uapi = null,
            .outbound = undefined,
            .inbound = undefined,
            .transmit_buffers = undefined,
        };
        try device.openMemory(diagnostic);
        errdefer device.closeMemory();
        try device.openTun(options, diagnostic);
        errdefer device.tun.close();
        device.log.name = device.tun.name();
        try device.openPolling(diagnostic);
        errdefer device.closePolling();
        if (options.has_uapi) device.uapi = try uapi_server.Server.open(options, device.tun.name(), device.poller, diagnostic);
        device.udp = .init(options.calls, &device.offload);
        loop.followLink(device);
        device.log.verbose("ready: mtu {d}, cipher {s}", .{ device.interface.mtu, @import("cipher").path() });
        return device;
    }

    fn checkOptions(options: *const Options, diagnostic: *Diagnostic) OpenError!void {
        const max = io.tun.name_max;
        if (options.name.len == 0 and options.tun_fd == null) {
            diagnostic.set("the interface needs a name of 1 to 15 characters", .{});
            return error.InvalidArgument;
        }
        if (options.name.len > max) {
            diagnostic.set("interface name '{s}' has {d} characters: the kernel takes at most {d}, choose a shorter one", .{ options.name, options.name.len, max });
            return error.InvalidArgument;
        }
        if (options.name.len != 0 and !io.tun.isValidName(options.name)) {
            diagnostic.set("interface name '{s}' may only have letters, digits and _ = + . -", .{options.name});
            return error.InvalidArgument;
        }
        if (options.mtu < mtu_min or options.mtu > mtu_max) {
            diagnostic.set("mtu {d} is out of range: {d} to {d}", .{ options.mtu, mtu_min, mtu_max });
            return error.InvalidArgument;
        }
    }

    fn outOfMemory(diagnostic: *Diagnostic) error{OutOfMemory} {
        diagnostic.set("out of memory", .{});
        return error.OutOfMemory;
    }

    fn openMemory(device: *Device, diagnostic: *Diagnostic) OpenError!void {
        const gpa = device.gpa;
        device.interface = protocol.Interface.init(.{ .allocator = gpa, .entropy = kernel_entropy }) catch |err| switch (err) {
            error.OutOfMemory => return outOfMemory(diagnostic),
            error.EntropyUnavailable => unreachable, // io.entropy aborts rather than fail
        };
        errdefer device.interface.deinit();
        device.outbound.init(gpa) catch return outOfMemory(diagnostic);
        errdefer device.outbound.deinit(gpa);
        device.inbound.init(gpa) catch return outOfMemory(diagnostic);
        errdefer device.inbound.deinit(gpa);
        device.transmit_buffers = gpa.alloc(u8, loop.transmits_max * loop.transmit_length) catch return outOfMemory(diagnostic);
    }

    fn closeMemory(device: *Device) void {
        device.gpa.free(device.transmit_buffers);
        device.inbound.deinit(device.gpa);
        device.outbound.deinit(device.gpa);
        device.interface.deinit();
    }

    fn openTun(device: *Device, options: *const Options, diagnostic: *Diagnostic) OpenError!void {
        var failure: io.linux.Failure = .{};
        const tun = if (options.tun_fd) |fd|
            io.tun.Tun.fromFd(options.calls, fd, &device.offload, &failure)
        else
            io.tun.Tun.open(options.calls, options.name, &device.offload, &failure);
        device.tun = tun catch |err| return tunError(err, options.name, failure, diagnostic);
        errdefer device.tun.close();
        if (options.tun_fd == null) {
            io.link.setMtu(device.tun.name(), options.mtu) catch |err| {
                diagnostic.set("cannot set the MTU of {s} to {d}: {t}", .{ device.tun.name(), options.mtu, err });
                return error.System;
            };
        }
    }

    fn tunError(err: io.tun.OpenError, wanted: []const u8, failure: io.linux.Failure, diagnostic: *Diagnostic) OpenError {
        diagnostic.errno = @intCast(@backingInt(failure.errno));
        switch (err) {
            error.NotFound => {
                diagnostic.set("no /dev/net/tun: run 'modprobe tun', or give the container '--device /dev/net/tun'", .{});
                return error.NotFound;
            },
            error.PermissionDenied => {
                diagnostic.set("no permission to make the interface {s}: run as root or with CAP_NET_ADMIN, and with access to /dev/net/tun", .{wanted});
                return error.Permission;
            },
            error.NameInUse => {
                diagnostic.set("an interface called {s} exists already: choose another name, or remove it with 'ip link delete {s}'", .{ wanted, wanted });
                return error.NameInUse;
            },
            error.InvalidName => {
                diagnostic.set("the kernel does not take '{s}' as an interface name", .{wanted});
                return error.InvalidArgument;
            },
            error.NotTun => {
                diagnostic.set("the descriptor to take over (WG_TUN_FD) is no TUN interface with IFF_NO_PI", .{});
                return error.InvalidArgument;
            },
            error.SystemResources => {
                diagnostic.set("cannot make the interface {s}: {f}", .{ wanted, failure });
                return error.System;
            },
        }
    }

    fn openPolling(device: *Device, diagnostic: *Diagnostic) OpenError!void {
        errdefer diagnostic.set("cannot watch the interface: raise 'ulimit -n', or allow netlink and epoll", .{});
        device.poller = io.poller.Poller.init() catch return error.System;
        errdefer device.poller.deinit();
        device.wakeup = io.poller.Wakeup.init() catch return error.System;
        errdefer device.wakeup.deinit();
        device.monitor = io.link.Monitor.open(device.tun.fd) catch return error.System;
        errdefer device.monitor.close();
        device.routes = io.link.RouteMonitor.open() catch return error.System;
        errdefer device.routes.close();
        device.poller.add(device.wakeup.fd, loop.Token.wakeup.value(), io.poller.in) catch return error.System;
        device.poller.add(device.monitor.fd(), loop.Token.monitor.value(), io.poller.in) catch return error.System;
        device.poller.add(device.routes.fd(), loop.Token.routes.value(), io.poller.in) catch return error.System;
        device.poller.add(device.tun.fd, loop.Token.tun.value(), io.poller.in) catch return error.System;
    }

    fn closePolling(device: *Device) void {
        device.routes.close();
        device.monitor.close();
        device.wakeup.deinit();
        device.poller.deinit();
    }

    /// Blocks and moves packets; returns when stopped, or when interface or UAPI socket are gone.
    pub fn run(device: *Device, diagnostic: *Diagnostic) RunError!void {
        if (device.is_running.swap(true, .acquire)) {
            diagnostic.set("another thread is running this device already", .{});
            return error.AlreadyRunning;
        }
        defer device.is_running.store(false, .release);
        loop.run(device);
    }

    /// Async-signal-safe.
    pub fn stop(device: *Device) void {
        device.stop_requested.store(true, .release);
        device.wakeup.signal();
    }

    /// Removes interface and socket; no key stays in memory.
    pub fn close(device: *Device) void {
        const gpa = device.gpa;
        if (device.uapi) |*server| server.close(gpa);
        device.udp.close();
        device.closePolling();
        device.tun.close();
        device.closeMemory();
        std.crypto.secureZero(u8, std.mem.asBytes(device));
        gpa.destroy(device);
    }

    // ---- control plane ----

    pub fn set(device: *Device, text: []const u8, diagnostic: *Diagnostic) control.SetError!void {
        device.lock.acquire();
        defer device.lock.release();
        try control.set(device, text, diagnostic);
        device.wakeup.signal(); // deadlines may have changed
    }

    /// The length of the answer; it is written only if it fits.
    pub fn get(device: *Device, buffer: []u8) usize {
        device.lock.acquire();
        defer device.lock.release();
        return control.writeInto(device, control.writeConfiguration, buffer);
    }

    pub fn report(device: *Device, buffer: []u8) usize {
        device.lock.acquire();
        defer device.lock.release();
        return control.writeInto(device, control.writeReport, buffer);
    }

    /// As `get`: the length, and the name if it fits.
    pub fn name(device: *Device, buffer: []u8) usize {
        device.lock.acquire();
        defer device.lock.release();
        const text = device.monitor.name();
        if (text.len <= buffer.len) @memcpy(buffer[0..text.len], text);
        return text.len;
    }

    pub fn now() protocol.Now {
        return .{ .boot = .{ .ns = io.clock.bootNs() }, .unix_ns = io.clock.unixNs() };
    }
};

/// What has been said in the log, so that each step down is said once.
pub const LoggedOffload = struct {
    states: [io.offload.Feature.count]io.offload.State = @splat(.active),
    refusals: usize = 0,
};

const kernel_entropy: protocol.Entropy = .{ .context = null, .fillFn = fillFromKernel };

fn fillFromKernel(_: ?*anyopaque, out: []u8) bool {
    io.entropy.fill(out);
    return true;
}

test {
    _ = @import("diagnostic.zig");
    _ = @import("load.zig");
    _ = @import("lock.zig");
    _ = @import("log.zig");
    _ = @import("train.zig");
    _ = @import("device_test.zig");
}
