//! Device: one Interface with file descriptors around it: TUN, UDP sockets, UAPI socket, timers.
//! Starts no thread: whoever calls `run` is the loop of a lane. `set`, `get`, `report`, `stop` may come from others.
//! Life, in the order of this file: open, (set, get, run ... stop), close.
//! Invariant: `interface` and `load` are touched in a turn with `mutex` held, or while the turns of all lanes are held:
//! `pause`. All else belongs to the first lane's thread, or to who has paused. Turns are held in the order of the lanes,
//! and the mutex comes last.
const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const Budget = @import("budget.zig").Budget;
const control = @import("control.zig");
const diagnostic_file = @import("diagnostic.zig");
const fan = @import("fan.zig");
const io = @import("io");
const Load = @import("load.zig").Load;
const Lane = @import("lane.zig").Lane;
const log_file = @import("log.zig");
const Mutex = @import("mutex.zig").Mutex;
const protocol = @import("protocol");
const Token = @import("lane.zig").Token;
const uapi_server = @import("uapi_server.zig");
const upkeep = @import("upkeep.zig");
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
    /// Threads that will call `run`, each with a queue of the TUN and sockets of its own.
    threads: u8 = 1,
    /// Bytes it may take, 0 for no limit: its buffers when it opens, then its peers.
    memory_limit: u64 = 0,
    log_level: log_file.Level = .silent,
    log_fd: i32 = -1,
    has_uapi: bool = true,
    uapi_folder: []const u8 = io.uapi_listener.default_folder,
    calls: *const io.linux.Calls = &io.linux.real,
};

pub const threads_max = fan.lanes_max;

pub const OpenError = error{ InvalidArgument, OutOfMemory, Permission, NameInUse, NotFound, System };
pub const RunError = error{ AlreadyRunning, System };

pub const Device = struct {
    /// Lends what `budget` allows.
    gpa: Allocator,
    budget: Budget,
    stop_requested: std.atomic.Value(bool) = .init(false),
    log: log_file.Log,

    /// Guards `interface` and `load`, for as long as looking something up takes.
    mutex: Mutex = .{},
    interface: protocol.Interface,
    load: Load = .{},
    /// What the first lane sleeps for at most.
    watched_deadline: protocol.Instant = .never,

    lanes: [fan.lanes_max]*Lane = undefined,
    lane_count: u8 = 0,
    /// The queue that several lanes write to.
    writer: ?io.tun.Tun = null,
    crew: fan.Crew = .{},
    /// Features whose stepping down was told, by bit.
    told: u32 = 0,

    monitor: io.link.Monitor,
    /// Up, as far as the monitor has told.
    link_is_up: bool = false,
    /// When the state of an interface that the monitor cannot follow was asked for last.
    probed: protocol.Instant = .{ .ns = 0 },
    routes: io.route.Monitor,
    routes_changed: bool = false,
    /// Of the interface that the sockets are bound to, when they were opened; 0 for none.
    bound_index: u32 = 0,
    uapi: ?uapi_server.Server,

    // ---- life ----

    pub fn open(gpa: Allocator, options: *const Options, diagnostic: *Diagnostic) OpenError!*Device {
        try checkOptions(options, diagnostic);
        const device = gpa.create(Device) catch return outOfMemory(options, diagnostic);
        errdefer gpa.destroy(device);
        device.* = .{
            .gpa = undefined,
            .budget = .{ .child = gpa, .limit = limitOf(options) },
            .log = .{ .fd = options.log_fd, .level = options.log_level },
            .interface = undefined,
            .monitor = undefined,
            .routes = undefined,
            .uapi = null,
        };
        device.gpa = device.budget.allocator();
        device.interface = protocol.Interface.init(.{ .allocator = device.gpa, .entropy = kernel_entropy }) catch |err| switch (err) {
            error.OutOfMemory => return outOfMemory(options, diagnostic),
            error.EntropyUnavailable => unreachable, // io.entropy aborts rather than fail
        };
        errdefer device.interface.deinit();
        errdefer device.closeLanes();
        try device.openLanes(options, diagnostic);
        device.interface.lanes = device.lane_count;
        device.log.name = device.first().tun.name();
        try device.openPolling(diagnostic);
        errdefer device.closePolling();
        if (options.has_uapi) device.uapi = try uapi_server.Server.open(options, device.first().tun.name(), device.first().poller, diagnostic);
        for (device.all()) |lane| lane.udp = .init(options.calls, &lane.offload);
        upkeep.followLink(device);
        device.log.verbose("ready: mtu {d}, cipher {s}, threads {d}", .{ device.interface.mtu, @import("cipher").path(), device.lane_count });
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
        if (options.threads < 1 or options.threads > threads_max) {
            diagnostic.set("threads {d} is out of range: 1 to {d}", .{ options.threads, threads_max });
            return error.InvalidArgument;
        }
        if (options.mtu < mtu_min or options.mtu > mtu_max) {
            diagnostic.set("mtu {d} is out of range: {d} to {d}", .{ options.mtu, mtu_min, mtu_max });
            return error.InvalidArgument;
        }
    }

    fn limitOf(options: *const Options) usize {
        if (options.memory_limit == 0) return Budget.unlimited;
        return std.math.cast(usize, options.memory_limit) orelse Budget.unlimited;
    }

    fn outOfMemory(options: *const Options, diagnostic: *Diagnostic) error{OutOfMemory} {
        if (options.memory_limit == 0) {
            diagnostic.set("out of memory", .{});
        } else {
            diagnostic.set("out of memory: a device with {d} threads needs more than the limit of {d} KiB", .{ options.threads, options.memory_limit >> 10 });
        }
        return error.OutOfMemory;
    }

    /// One lane for each thread, if there can be a queue for each.
    fn openLanes(device: *Device, options: *const Options, diagnostic: *Diagnostic) OpenError!void {
        var failure: io.linux.Failure = .{};
        const leading = try device.newLane(options, diagnostic);
        const queues = openFirstQueue(leading, options, &failure) catch |err| {
            device.dropLane(leading);
            return tunError(err, options.name, failure, diagnostic);
        };
        for (1..queues) |_| {
            const lane = try device.newLane(options, diagnostic);
            lane.offload = leading.offload; // what was negotiated holds for all queues
            lane.tun = io.tun.Tun.openQueue(&leading.tun, &lane.offload, &failure) catch |err| {
                device.dropLane(lane);
                return tunError(err, options.name, failure, diagnostic);
            };
        }
        if (queues > 1) {
            device.writer = io.tun.Tun.openQueue(&leading.tun, &leading.offload, &failure) catch |err| return tunError(err, options.name, failure, diagnostic);
            for (device.all()) |lane| lane.tun.writeTo(&device.writer.?);
        }
        if (options.tun_fd == null) {
            io.link.setMtu(leading.tun.name(), options.mtu) catch |err| {
                diagnostic.set("cannot set the MTU of {s} to {d}: {t}", .{ leading.tun.name(), options.mtu, err });
                return error.System;
            };
        }
    }

    /// Returns how many queues there can be: an interface that was there before keeps the one that it has.
    fn openFirstQueue(leading: *Lane, options: *const Options, failure: *io.linux.Failure) io.tun.OpenError!u8 {
        const offload = &leading.offload;
        if (options.tun_fd) |fd| {
            leading.tun = try io.tun.Tun.fromFd(options.calls, fd, offload, failure);
            return 1;
        }
        if (options.threads > 1) {
            if (io.tun.Tun.openMultiQueue(options.calls, options.name, offload, failure)) |tun| {
                leading.tun = tun;
                return options.threads;
            } else |_| {}
        }
        leading.tun = try io.tun.Tun.open(options.calls, options.name, offload, failure);
        return 1;
    }

    fn newLane(device: *Device, options: *const Options, diagnostic: *Diagnostic) OpenError!*Lane {
        const lane = device.gpa.create(Lane) catch return outOfMemory(options, diagnostic);
        errdefer device.gpa.destroy(lane);
        lane.init(device, device.lane_count, options.offload_disable) catch |err| switch (err) {
            error.OutOfMemory => return outOfMemory(options, diagnostic),
            error.SystemResources => return noWatch(diagnostic),
        };
        device.lanes[device.lane_count] = lane;
        device.lane_count += 1;
        return lane;
    }

    /// The last one made, whose queue is not open.
    fn dropLane(device: *Device, lane: *Lane) void {
        assert(device.lanes[device.lane_count - 1] == lane);
        device.lane_count -= 1;
        lane.deinit();
        std.crypto.secureZero(u8, std.mem.asBytes(lane));
        device.gpa.destroy(lane);
    }

    /// The TUN vanishes with its last queue.
    fn closeLanes(device: *Device) void {
        if (device.writer) |*writer| writer.close();
        device.writer = null;
        while (device.lane_count > 0) {
            const lane = device.lanes[device.lane_count - 1];
            lane.tun.close();
            device.dropLane(lane);
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

    fn noWatch(diagnostic: *Diagnostic) error{System} {
        diagnostic.set("cannot watch the interface: raise 'ulimit -n', or allow netlink and epoll", .{});
        return error.System;
    }

    fn openPolling(device: *Device, diagnostic: *Diagnostic) OpenError!void {
        const leading = device.first();
        device.monitor = io.link.Monitor.open(leading.tun.fd) catch return noWatch(diagnostic);
        errdefer device.monitor.close();
        device.routes = io.route.Monitor.open() catch return noWatch(diagnostic);
        errdefer device.routes.close();
        leading.poller.add(device.monitor.fd(), Token.monitor.value(), io.poller.in) catch return noWatch(diagnostic);
        leading.poller.add(device.routes.fd(), Token.routes.value(), io.poller.in) catch return noWatch(diagnostic);
        leading.poller.add(leading.tun.fd, Token.tun.value(), io.poller.in) catch return noWatch(diagnostic);
    }

    fn closePolling(device: *Device) void {
        device.routes.close();
        device.monitor.close();
    }

    /// Blocks and moves packets; returns when stopped, or when interface or UAPI socket are gone. As many threads as
    /// the options say may be in here; the first to come keeps the timers and serves the requests.
    pub fn run(device: *Device, diagnostic: *Diagnostic) RunError!void {
        const lane = device.man() orelse {
            diagnostic.set("as many threads as were asked for ({d}) run this device already", .{device.lane_count});
            return error.AlreadyRunning;
        };
        defer device.leave(lane);
        lane.run();
    }

    fn man(device: *Device) ?*Lane {
        device.pause();
        defer device.@"resume"();
        for (device.all()) |lane| {
            if (lane.is_manned.load(.monotonic)) continue;
            upkeep.man(lane);
            return lane;
        }
        return null;
    }

    fn leave(device: *Device, lane: *Lane) void {
        device.pause();
        defer device.@"resume"();
        lane.is_manned.store(false, .release);
    }

    /// Async-signal-safe.
    pub fn stop(device: *Device) void {
        device.end();
    }

    /// Makes all lanes return.
    pub fn end(device: *Device) void {
        device.stop_requested.store(true, .release);
        for (device.all()) |lane| lane.wakeup.signal();
    }

    pub fn isOver(device: *const Device) bool {
        return device.stop_requested.load(.acquire);
    }

    /// Removes interface and socket; no key stays in memory.
    pub fn close(device: *Device) void {
        const gpa = device.budget.child;
        if (device.uapi) |*server| server.close(device.gpa);
        for (device.all()) |lane| lane.udp.close();
        device.closePolling();
        device.closeLanes();
        device.interface.deinit();
        assert(device.budget.used.load(.monotonic) == 0);
        std.crypto.secureZero(u8, std.mem.asBytes(device));
        gpa.destroy(device);
    }

    // ---- lanes ----

    pub fn all(device: *const Device) []const *Lane {
        return device.lanes[0..device.lane_count];
    }

    pub fn first(device: *const Device) *Lane {
        return device.lanes[0];
    }

    /// Threads that can be in `run`.
    pub fn threads(device: *const Device) u8 {
        return device.lane_count;
    }

    /// Waits for the turns of all lanes to end, and lets none begin.
    fn pause(device: *Device) void {
        device.first().turn_lock.acquire();
        device.pauseOthers();
    }

    fn @"resume"(device: *Device) void {
        device.resumeOthers();
        device.first().turn_lock.release();
    }

    /// The same for the first lane in its own turn.
    pub fn pauseOthers(device: *Device) void {
        for (device.all()[1..]) |lane| lane.turn_lock.acquire();
    }

    pub fn resumeOthers(device: *Device) void {
        for (device.all()[1..]) |lane| lane.turn_lock.release();
    }

    /// Of several lanes that lose a feature only the first tells.
    pub fn isNews(device: *Device, feature: io.offload.Feature) bool {
        device.mutex.acquire();
        defer device.mutex.release();
        defer device.told |= feature.bit();
        return device.told & feature.bit() == 0;
    }

    // ---- control plane ----

    pub fn set(device: *Device, text: []const u8, diagnostic: *Diagnostic) control.SetError!void {
        device.pause();
        defer device.@"resume"();
        try control.set(device, text, diagnostic);
        device.first().wakeup.signal(); // deadlines may have changed
    }

    /// The length of the answer; it is written only if it fits.
    pub fn get(device: *Device, buffer: []u8) usize {
        device.pause();
        defer device.@"resume"();
        return control.writeInto(device, control.writeConfiguration, buffer);
    }

    pub fn report(device: *Device, buffer: []u8) usize {
        device.pause();
        defer device.@"resume"();
        return control.writeInto(device, control.writeReport, buffer);
    }

    /// As `get`: the length, and the name if it fits.
    pub fn name(device: *Device, buffer: []u8) usize {
        device.pause();
        defer device.@"resume"();
        const text = device.monitor.name();
        if (text.len <= buffer.len) @memcpy(buffer[0..text.len], text);
        return text.len;
    }

    pub fn now() protocol.Now {
        return .{ .boot = .{ .ns = io.clock.bootNs() }, .unix_ns = io.clock.unixNs() };
    }
};

const kernel_entropy: protocol.Entropy = .{ .context = null, .fillFn = fillFromKernel };

fn fillFromKernel(_: ?*anyopaque, out: []u8) bool {
    io.entropy.fill(out);
    return true;
}

test {
    _ = @import("budget.zig");
    _ = @import("diagnostic.zig");
    _ = @import("fan.zig");
    _ = @import("gathering.zig");
    _ = @import("load.zig");
    _ = @import("lock.zig");
    _ = @import("log.zig");
    _ = @import("mutex.zig");
    _ = @import("train.zig");
    _ = @import("device_test.zig");
}
