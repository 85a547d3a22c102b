//! Worker: what one thread runs: a queue of the TUN, sockets on the port, buffers, and a loop over them.
//! A device has one or several; each moves packets of any peer both ways. The kernel sees to it that the packets of
//! one flow come to one worker: outside by receiver index (`Udp.steer`), inside by a hash of theirs (`Tun.writeTo`).
//! The first worker also keeps the timers and serves link, routes and UAPI: upkeep.zig, control.zig.
//! Invariant: only the worker's own thread, in a turn, or somebody who holds `turn_lock`, touches what is in here.
const std = @import("std");
const cipher = @import("cipher");
const Device = @import("device.zig").Device;
const Share = @import("cipher_pool.zig").Share;
const Inbound = @import("inbound.zig").Inbound;
const Moderation = @import("moderation.zig").Moderation;
const io = @import("io");
const TicketLock = @import("ticket_lock.zig").TicketLock;
const Outbound = @import("outbound.zig").Outbound;
const protocol = @import("protocol");
const upkeep = @import("upkeep.zig");
const wire = @import("wire");

/// Who an event is for; UAPI clients follow after the fixed ones.
pub const Token = enum(u64) {
    tun,
    udp_ipv4,
    udp_ipv6,
    wakeup,
    monitor,
    routes,
    uapi_listener,
    uapi_removed,
    uapi_first_client,
    _,

    pub fn value(token: Token) u64 {
        return @backingInt(token);
    }
};

/// Datagrams of the protocol itself in one send, and room for each: what no train took was never staged.
const transmits_max = 32;
const transmit_length = 65_536;

pub const Worker = struct {
    device: *Device,
    /// Held for the length of a turn; who takes those of all workers has the device to himself.
    turn_lock: TicketLock = .{},
    /// A thread runs it.
    has_thread: std.atomic.Value(bool) = .init(false),
    is_reading: bool = false,

    poller: io.poller.Poller,
    wakeup: io.poller.Wakeup,
    tun: io.tun.Tun,
    udp: io.udp.Udp,
    /// What this worker has learnt of the kernel.
    offload: io.offload.Offload,
    logged: Logged = .{},

    share: Share,
    outbound: Outbound,
    inbound: Inbound,
    /// Where the protocol's own datagrams are written: as many as one send takes.
    transmit_buffers: []u8,

    // ---- life ----

    /// Without TUN and sockets, which the device opens.
    pub fn init(worker: *Worker, device: *Device, number: u8, disable_mask: u32) error{ OutOfMemory, SystemResources }!void {
        const gpa = device.gpa;
        worker.* = .{
            .device = device,
            .poller = undefined,
            .wakeup = undefined,
            .tun = undefined,
            .udp = undefined,
            .offload = .init(disable_mask),
            .share = .{ .pool = &device.pool, .number = number },
            .outbound = undefined,
            .inbound = undefined,
            .transmit_buffers = undefined,
        };
        try worker.outbound.init(gpa);
        errdefer worker.outbound.deinit(gpa);
        try worker.inbound.init(gpa);
        errdefer worker.inbound.deinit(gpa);
        worker.transmit_buffers = try gpa.alloc(u8, transmits_max * transmit_length);
        errdefer gpa.free(worker.transmit_buffers);
        worker.poller = try .init();
        errdefer worker.poller.deinit();
        worker.wakeup = try .init();
        errdefer worker.wakeup.deinit();
        try worker.poller.add(worker.wakeup.fd, Token.wakeup.value(), io.poller.in);
        device.pool.join(&worker.share, worker.wakeup);
    }

    pub fn deinit(worker: *Worker) void {
        const gpa = worker.device.gpa;
        worker.wakeup.deinit();
        worker.poller.deinit();
        gpa.free(worker.transmit_buffers);
        worker.inbound.deinit(gpa);
        worker.outbound.deinit(gpa);
    }

    /// Whether the kernel gives this worker's queue its share of packets. The first worker's always gets one.
    pub fn readTun(worker: *Worker, wanted: bool) void {
        if (worker.isFirst() or wanted == worker.is_reading) return;
        if (wanted) {
            worker.tun.attach() catch return; // then the others have them all
            worker.poller.add(worker.tun.fd, Token.tun.value(), io.poller.in) catch return worker.tun.detach();
        } else {
            worker.poller.remove(worker.tun.fd);
            worker.tun.detach();
        }
        worker.is_reading = wanted;
    }

    pub fn isFirst(worker: *const Worker) bool {
        return worker.share.number == 0;
    }

    // ---- the loop: one turn handles at most one batch each way, so neither direction can starve the other,
    // and reads the clocks once

    pub fn run(worker: *Worker) void {
        defer cipher.scrubStack();
        const device = worker.device;
        var events: [32]io.poller.Event = undefined;
        const is_moderated = io.priority.isRealtime();
        var moderation: Moderation = .{};
        var is_behind = false;
        while (!device.isOver()) {
            if (is_moderated and !is_behind) io.clock.sleep(moderation.pause(io.clock.bootNs()));
            const timeout_ms = worker.timeout();
            worker.share.offer();
            const ready = worker.poller.wait(&events, timeout_ms);
            worker.share.withdraw();
            worker.turn_lock.acquire();
            defer worker.turn_lock.release();
            is_behind = worker.turn(ready);
        }
    }

    /// Between turns, but with the turn held: who has paused the workers changes the tables without the mutex.
    fn timeout(worker: *Worker) i32 {
        if (!worker.isFirst()) return -1;
        worker.turn_lock.acquire();
        defer worker.turn_lock.release();
        return upkeep.timeout(worker.device);
    }

    /// Answers whether it had to leave something for the next.
    fn turn(worker: *Worker, ready: []const io.poller.Event) bool {
        const device = worker.device;
        const now = Device.now();
        var tun_is_ready = false;
        var is_behind = false;
        if (worker.isFirst()) upkeep.probe(device, now);
        for (ready) |event| {
            switch (@as(Token, @fromBackingInt(event.data.u64))) {
                .tun => tun_is_ready = true,
                .udp_ipv4 => is_behind = worker.receive(.ipv4, now) or is_behind,
                .udp_ipv6 => is_behind = worker.receive(.ipv6, now) or is_behind,
                .wakeup => if (worker.wakeup.drain()) worker.help(),
                else => upkeep.serve(device, event),
            }
            if (device.isOver()) return false;
        }
        if (worker.isFirst()) upkeep.expire(device, now, ready.len == 0);
        worker.transmit(now);
        if (tun_is_ready) {
            is_behind = worker.sendFromTun(now) or is_behind;
            worker.transmit(now);
        }
        if (!worker.isFirst()) upkeep.watchDeadline(device);
        worker.logOffload();
        return is_behind;
    }

    fn help(worker: *Worker) void {
        worker.share.help();
        // It may sleep for long after this, and others' keys were used here.
        if (!worker.isFirst()) cipher.scrubStack();
    }

    fn receive(worker: *Worker, family: wire.Family, now: protocol.Now) bool {
        return worker.inbound.run(&.{
            .interface = &worker.device.interface,
            .mutex = &worker.device.mutex,
            .under_load = &worker.device.under_load,
            .share = &worker.share,
            .tun = &worker.tun,
            .udp = &worker.udp,
            .offload = &worker.offload,
            .now = now,
        }, family);
    }

    fn sendFromTun(worker: *Worker, now: protocol.Now) bool {
        return worker.outbound.run(&.{
            .interface = &worker.device.interface,
            .mutex = &worker.device.mutex,
            .share = &worker.share,
            .tun = &worker.tun,
            .udp = &worker.udp,
            .now = now,
        }) catch |err| {
            upkeep.tunFailed(worker, err);
            return false;
        };
    }

    /// Sends what the protocol itself wants sent, in batches, until there is nothing left. The mutex is held until it
    /// is sent: packets that waited for a session go before those that find it.
    pub fn transmit(worker: *Worker, now: protocol.Now) void {
        const device = worker.device;
        // A worker that got no sockets, and only helps, must not take what it cannot send.
        if (!worker.isFirst() and !worker.udp.isOpen()) return;
        device.mutex.acquire();
        defer device.mutex.release();
        while (worker.transmitBatch(&device.interface, now) == transmits_max) {}
    }

    fn transmitBatch(worker: *Worker, interface: *protocol.Interface, now: protocol.Now) usize {
        var datagrams: [transmits_max]io.udp.Datagram = undefined;
        var peers: [transmits_max]?protocol.PeerId = undefined;
        var count: usize = 0;
        while (count < transmits_max) : (count += 1) {
            const buffer = worker.transmit_buffers[count * transmit_length ..][0..transmit_length];
            const next = interface.pollTransmit(buffer, now) orelse break;
            datagrams[count] = .{
                .bytes = buffer[0..next.length],
                .segment_size = 0,
                .endpoint = next.endpoint,
                .tos = next.tos,
            };
            peers[count] = next.peer;
        }
        if (count == 0) return 0;
        const result = worker.udp.send(datagrams[0..count], now.boot.ns);
        interface.counters.add(.send_failed, result.failed_datagrams);
        for (datagrams[0..count], peers[0..count]) |*datagram, peer| {
            if (datagram.source_refused) if (peer) |id| interface.forgetSource(id);
        }
        return count;
    }

    // ---- what the user should know

    fn logOffload(worker: *Worker) void {
        const log = &worker.device.log;
        for (std.enums.values(io.offload.Feature), &worker.logged.states) |feature, *logged| {
            const state = worker.offload.state(feature);
            if (state == logged.*) continue;
            logged.* = state;
            if (state != .stepped_down or !worker.device.isNews(feature)) continue;
            const cause = worker.offload.causes[@backingInt(feature)];
            log.err("{t} switched off: the kernel answered {f}; what it refused was sent again without", .{ feature, io.linux.ErrnoName{ .code = cause } });
        }
        if (worker.offload.refusals_length > worker.logged.refusals) {
            for (worker.offload.refusals[worker.logged.refusals..worker.offload.refusals_length]) |*refusal| {
                log.err("udp_gso is not used towards {f} for a minute: the path refused a train", .{refusal.remote});
            }
            worker.logged.refusals = worker.offload.refusals_length;
        }
    }
};

/// What has been said in the log, so that each step down is said once.
const Logged = struct {
    states: [io.offload.Feature.count]io.offload.State = @splat(.active),
    refusals: usize = 0,
};
