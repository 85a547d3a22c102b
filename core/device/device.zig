//! Device: one Interface with file descriptors around it: TUN, UDP sockets, UAPI socket, timers. The door of this room.
//! Starts no thread: whoever calls `run` is the loop of a worker. `set`, `get`, `report`, `stop` may come from others.
//! Life, in the order of this file: open, (run, set, get ... stop), close.
//! Every file of the room imports only what comes before it in this list, so that it can be read from either end:
//!   token, diagnostic, log                   words
//!   mutex, ticket_lock, limited_allocator, curve_price, moderation, precedence, suspension,
//!   cipher_pool, train, events               tools
//!   sizes, sweep                             how much at once; work that is done in slices
//!   options <- shared                        what a device is opened with; what all workers use
//!   outbound, inbound <- worker <- workers   the way of packets; one thread's part; those of all threads
//!   sockets <- link                          what follows from the configuration, and from the interface's state
//!   zones, report, uapi_server, handover <- control   what users ask for, and another process that takes over
//!   loop                                     when all of that is done: the timetable
//!   opening, taking <- device                life
const std = @import("std");
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;
const cipher = @import("cipher");
const Control = @import("control.zig").Control;
const control_file = @import("control.zig");
const events = @import("events.zig");
const Link = @import("link.zig").Link;
const Loop = @import("loop.zig").Loop;
const protocol = @import("protocol");
const io = @import("io");
const opening = @import("opening.zig");
const options_file = @import("options.zig");
const report_file = @import("report.zig");
const Heir = @import("taking.zig").Heir;
const Predecessor = @import("taking.zig").Predecessor;
const Server = @import("uapi_server.zig").Server;
const Shared = @import("shared.zig").Shared;
const shared_file = @import("shared.zig");
const Sockets = @import("sockets.zig").Sockets;
const Worker = @import("worker.zig").Worker;
const Workers = @import("workers.zig").Workers;

pub const Diagnostic = @import("diagnostic.zig").Diagnostic;
pub const Event = protocol.events.Event;
pub const events_max = events.capacity_max;
pub const Mutex = @import("mutex.zig").Mutex;
pub const LogLevel = @import("log.zig").Level;
pub const Options = options_file.Options;
pub const Sizes = @import("sizes.zig").Sizes;
pub const mtu_default = options_file.mtu_default;
pub const mtu_min = options_file.mtu_min;
pub const mtu_max = options_file.mtu_max;
pub const threads_max = options_file.threads_max;
pub const OpenError = options_file.OpenError;
pub const SetError = control_file.SetError;
pub const RunError = error{ AlreadyRunning, System };
/// How a device ended that did not fail.
pub const Ended = enum { stopped, handed_over };

pub const Device = struct {
    shared: Shared,
    workers: Workers,
    sockets: Sockets,
    link: Link,
    control: Control,
    loop: Loop,

    /// At one address for life: its parts know one another by pointers.
    pub fn open(gpa: Allocator, options: *const Options, diagnostic: *Diagnostic) OpenError!*Device {
        try options.check(diagnostic);
        if (options.takes_over) return openByTaking(gpa, options, diagnostic);
        const device = gpa.create(Device) catch return opening.outOfMemory(options, diagnostic);
        errdefer gpa.destroy(device);
        const shared = &device.shared;
        shared.init(gpa, options) catch return opening.outOfMemory(options, diagnostic);
        errdefer shared.deinit();
        const workers = &device.workers;
        workers.* = .{ .shared = shared };
        errdefer workers.close();
        try opening.openWorkers(workers, options, diagnostic);
        const leading = workers.first();
        var given = try opening.adoptSockets(options, diagnostic);
        errdefer given.close();
        shared.interface.index_shards = workers.count;
        shared.log.name = leading.tun.name();
        shared.icmp = .open();
        device.sockets = .{ .shared = shared, .workers = workers };
        device.link = try opening.openLink(shared, workers, &device.sockets, diagnostic);
        errdefer device.link.close();
        device.control = .{
            .shared = shared,
            .workers = workers,
            .sockets = &device.sockets,
            .link = &device.link,
            .server = if (options.has_uapi)
                try Server.open(shared.gpa, leading.poller, options, leading.tun.name(), diagnostic)
            else
                null,
        };
        device.loop = .{
            .shared = shared,
            .workers = workers,
            .link = &device.link,
            .control = &device.control,
        };
        initUdp(workers, options);
        leading.udp.given = given;
        if (!given.isEmpty()) shared.interface.listen_port = given.port;
        device.noteDescriptors();
        device.link.settle();
        device.link.follow();
        options.closeGiven();
        const facts = .{ shared.interface.mtu, cipher.path(), workers.count };
        shared.log.verbose("ready: mtu {d}, cipher {s}, threads {d}", facts);
        return device;
    }

    /// Without sockets yet.
    fn initUdp(workers: *Workers, options: *const Options) void {
        for (workers.all()) |worker| {
            worker.udp = .init(options.calls, &worker.offload);
            worker.udp.buffer_size = options.sizes.socket_bytes;
        }
    }

    /// Everything is that of another process, which stops when all is ready here, and goes on if that cannot be.
    fn openByTaking(gpa: Allocator, options: *const Options, diagnostic: *Diagnostic) OpenError!*Device {
        var predecessor: Predecessor = undefined;
        try predecessor.find(options, diagnostic);
        defer predecessor.leave();
        const device = gpa.create(Device) catch return opening.outOfMemory(options, diagnostic);
        errdefer gpa.destroy(device);
        const shared = &device.shared;
        shared.init(gpa, options) catch return opening.outOfMemory(options, diagnostic);
        errdefer shared.deinit();
        const workers = &device.workers;
        workers.* = .{ .shared = shared };
        errdefer workers.close();
        try predecessor.takeQueues(workers, options, diagnostic);
        const leading = workers.first();
        initUdp(workers, options);
        errdefer for (workers.all()) |worker| worker.udp.close();
        errdefer leading.udp.given.close();
        shared.log.name = leading.tun.name();
        shared.icmp = .open();
        device.sockets = .{ .shared = shared, .workers = workers };
        device.link = try opening.openLink(shared, workers, &device.sockets, diagnostic);
        errdefer device.link.close();
        const listener = predecessor.takeListener();
        defer io.linux.close(listener); // the server has one of its own
        var with_listener = options.*;
        with_listener.uapi_fd = listener;
        device.control = .{
            .shared = shared,
            .workers = workers,
            .sockets = &device.sockets,
            .link = &device.link,
            .server = try Server.open(shared.gpa, leading.poller, &with_listener, leading.tun.name(), diagnostic),
        };
        errdefer device.control.server.?.letGo();
        device.loop = .{
            .shared = shared,
            .workers = workers,
            .link = &device.link,
            .control = &device.control,
        };
        const heir: Heir = .{ .shared = shared, .workers = workers, .sockets = &device.sockets, .link = &device.link };
        try predecessor.reserve(&heir, options, diagnostic);
        device.link.observe();
        defer cipher.scrubStack(); // every key has passed there
        // Packets wait: until all is here, this thread comes before others.
        const hurries = !io.priority.isRealtime() and io.priority.hurry();
        defer if (hurries) {
            _ = io.priority.makeOrdinary();
        };
        const began_ns = io.clock.monotonicNs();
        try predecessor.takeState(&heir, options, diagnostic);
        try predecessor.sayMine(diagnostic);
        device.control.server.?.listener.becomeOwner();
        device.noteDescriptors();
        for (workers.all()) |worker| for (worker.udp.sockets) |socket| if (socket) |fd| shared.noteOpened(fd);
        device.link.follow();
        const waited_us = (io.clock.monotonicNs() - began_ns) / std.time.ns_per_us;
        const facts = .{ waited_us, shared.interface.mtu, cipher.path(), workers.count };
        shared.log.verbose("taken over from another process in {d} us: mtu {d}, cipher {s}, threads {d}", facts);
        return device;
    }

    /// Those that are open for as long as the device is. Sockets on the port come and go: sockets.zig.
    fn noteDescriptors(device: *Device) void {
        const shared = &device.shared;
        for (device.workers.all()) |worker| {
            for ([_]i32{ worker.tun.fd, worker.poller.fd, worker.wakeup.fd }) |fd| shared.noteOpened(fd);
        }
        if (device.workers.writer) |*writer| shared.noteOpened(writer.fd);
        for (device.workers.first().udp.given.fds) |given| if (given) |fd| shared.noteOpened(fd);
        if (device.control.server) |*server| shared.noteOpened(server.listener.fd);
    }

    /// Threads that can be in `run`.
    pub fn threads(device: *const Device) u8 {
        return device.workers.count;
    }

    /// Blocks and moves packets; returns when stopped, when interface or UAPI socket are gone,
    /// or when another process has taken over. As many threads as
    /// the options say may be in here; the first to come keeps the timers and serves the requests.
    pub fn run(device: *Device, diagnostic: *Diagnostic) RunError!Ended {
        const worker = device.assign() orelse {
            if (device.shared.isHandedOver()) return .handed_over;
            const arguments = .{device.workers.count};
            diagnostic.set("as many threads as were asked for ({d}) run this device already", arguments);
            return error.AlreadyRunning;
        };
        defer device.leave(worker);
        device.loop.run(worker);
        if (!device.shared.isHandedOver()) return .stopped;
        // What is left to do here keeps no packet of the other process waiting.
        if (io.priority.isRealtimeByUs()) _ = io.priority.makeOrdinary();
        return .handed_over;
    }

    /// The first worker that has no thread gets this one.
    fn assign(device: *Device) ?*Worker {
        var pause = device.workers.pause();
        defer pause.end();
        if (device.shared.isHandedOver()) return null;
        for (device.workers.all()) |worker| {
            if (worker.has_thread.load(.monotonic)) continue;
            worker.has_thread.store(true, .release);
            if (!worker.udp.isOpen()) device.sockets.extend(worker);
            return worker;
        }
        return null;
    }

    fn leave(device: *Device, worker: *Worker) void {
        var pause = device.workers.pause();
        defer pause.end();
        worker.has_thread.store(false, .release);
    }

    /// Before it runs: what was done to the interface meanwhile is followed. If it is up, its sockets are open when
    /// this returns, or the port is told that cannot be had.
    pub fn follow(device: *Device) ?Shared.Refused {
        var pause = device.workers.pause();
        defer pause.end();
        device.link.follow();
        return device.shared.refused;
    }

    // ---- from any thread, while it runs or not ----

    pub fn set(device: *Device, text: []const u8, diagnostic: *Diagnostic) SetError!void {
        var pause = device.workers.pause();
        defer pause.end();
        if (device.shared.isHandedOver()) {
            diagnostic.set("another process has taken this device over: it is configured there", .{});
            return error.System;
        }
        defer device.shared.tellEvents();
        // Copies of keys, which the compiler made.
        defer cipher.scrubStack();
        defer device.workers.first().wakeup.signal(); // there may be something to send, and deadlines have changed
        device.shared.followSuspension(shared_file.now()); // it may send, and no turn has looked yet
        try device.control.set(text, &pause, diagnostic);
    }

    /// The length of the answer; it is written only if it fits.
    pub fn get(device: *Device, buffer: []u8) usize {
        var pause = device.workers.pause();
        defer pause.end();
        return report_file.writeInto(report_file.Configuration{ .workers = &device.workers }, &pause, buffer);
    }

    pub fn report(device: *Device, buffer: []u8) usize {
        var pause = device.workers.pause();
        defer pause.end();
        const begin: report_file.Report = .{ .workers = &device.workers, .now = shared_file.now() };
        return report_file.writeInto(begin, &pause, buffer);
    }

    /// From the first call on events are kept; answers a descriptor that is readable while there are some. It is the
    /// device's. `capacity` counts in the first call; 0 is a usual one.
    pub fn openEvents(device: *Device, capacity: u32) error{ OutOfMemory, SystemResources }!i32 {
        const shared = &device.shared;
        var pause = device.workers.pause();
        defer pause.end();
        if (shared.events.load(.monotonic)) |queue| return queue.readable.fd;
        const queue: *events.Queue = try .open(shared.gpa, if (capacity == 0) events.capacity_default else capacity);
        shared.events.store(queue, .release);
        shared.interface.events = &queue.ring;
        shared.noteOpened(queue.readable.fd);
        if (shared.refused) |refused| { // it would not be told again
            const errno: u16 = @intCast(@backingInt(refused.errno));
            shared.interface.note(.{ .port_failed = .{ .port = refused.port, .errno = errno } });
            queue.tell();
        }
        return queue.readable.fd;
    }

    /// Events that nobody has fetched yet, the oldest first; answers how many. Waits for no packet and no change.
    pub fn fetchEvents(device: *Device, out: []Event) usize {
        const queue = device.shared.events.load(.acquire) orelse return 0;
        return queue.fetch(out);
    }

    /// Those of each peer, in the order in which they were added, given to `put` by their numbers; answers how many
    /// peers there are. With more than `room` none is given. With many of them packets pass in between.
    pub fn counters(
        device: *Device,
        room: usize,
        context: anytype,
        comptime put: fn (@TypeOf(context), usize, *const protocol.PeerCounters) void,
    ) usize {
        var pause = device.workers.pause();
        defer pause.end();
        const interface = &device.shared.interface;
        if (interface.peer_count > room) return interface.peer_count;
        var next = interface.first_peer;
        var count: usize = 0;
        while (next != protocol.no_peer) : (count += 1) {
            const peer, next = interface.countersOf(next);
            put(context, count, &peer);
            if (count % counters_in_a_row == counters_in_a_row - 1) pause.offer();
        }
        assert(count == interface.peer_count); // none comes or goes while packets pass
        return count;
    }

    /// Looks at the clock after so many.
    const counters_in_a_row = 64;

    /// A handshake with a peer as soon as one is allowed.
    pub fn requestHandshake(device: *Device, public_key: *const [32]u8) protocol.HandshakeError!void {
        var pause = device.workers.pause();
        defer pause.end();
        defer device.workers.first().wakeup.signal();
        try device.shared.interface.requestHandshake(public_key, shared_file.now());
    }

    /// As `get`: the length, and the name if it fits.
    pub fn name(device: *Device, buffer: []u8) usize {
        var pause = device.workers.pause();
        defer pause.end();
        const text = device.link.monitor.name();
        if (text.len <= buffer.len) @memcpy(buffer[0..text.len], text);
        return text.len;
    }

    /// Of the UAPI socket's file; null when there is no socket.
    pub fn socketPath(device: *const Device) ?[]const u8 {
        return if (device.control.server) |*server| server.listener.pathSlice() else null;
    }

    /// Async-signal-safe.
    pub fn stop(device: *Device) void {
        device.shared.stop();
    }

    /// After all threads have left `run`. Removes interface and socket, if they were not handed over; no key stays in
    /// memory.
    pub fn close(device: *Device) void {
        const gpa = device.shared.limited.child;
        if (device.shared.inherited) |inherited| inherited.clear();
        if (device.control.server) |*server| if (device.shared.isHandedOver()) server.letGo() else server.close();
        for (device.workers.all()) |worker| worker.udp.close();
        device.workers.first().udp.given.close();
        device.link.close();
        device.workers.close();
        device.shared.deinit();
        std.crypto.secureZero(u8, std.mem.asBytes(device));
        gpa.destroy(device);
    }
};

test {
    _ = @import("cipher_pool.zig");
    _ = @import("curve_price.zig");
    _ = @import("device_test.zig");
    _ = @import("diagnostic.zig");
    _ = @import("events.zig");
    _ = @import("handover.zig");
    _ = @import("limited_allocator.zig");
    _ = @import("log.zig");
    _ = @import("moderation.zig");
    _ = @import("mutex.zig");
    _ = @import("outbound.zig");
    _ = @import("precedence.zig");
    _ = @import("suspension.zig");
    _ = @import("sweep.zig");
    _ = @import("ticket_lock.zig");
    _ = @import("train.zig");
}
