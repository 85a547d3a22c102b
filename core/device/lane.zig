//! Lane: what one thread runs: a queue of the TUN, sockets on the port, buffers, and a loop over them.
//! A device has one or several; each moves packets of any peer both ways. The kernel sees to it that the packets of
//! one flow come to one lane: outside by receiver index (`Udp.steer`), inside by a hash of theirs (`Tun.writeTo`).
//! The first lane also keeps the timers and serves link, routes and UAPI: upkeep.zig, control.zig.
//! Invariant: only the lane's own thread, in a turn, or somebody who holds `turn_lock`, touches what is in here.
const std = @import("std");
const cipher = @import("cipher");
const Device = @import("device.zig").Device;
const Fan = @import("fan.zig").Fan;
const Inbound = @import("inbound.zig").Inbound;
const Gathering = @import("gathering.zig").Gathering;
const io = @import("io");
const Lock = @import("lock.zig").Lock;
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

pub const Lane = struct {
    device: *Device,
    /// Held for the length of a turn; who takes those of all lanes has the device to himself.
    turn_lock: Lock = .{},
    /// A thread runs it.
    is_manned: std.atomic.Value(bool) = .init(false),
    is_reading: bool = false,

    poller: io.poller.Poller,
    wakeup: io.poller.Wakeup,
    tun: io.tun.Tun,
    udp: io.udp.Udp,
    /// What this lane has learnt of the kernel.
    offload: io.offload.Offload,
    logged: Logged = .{},

    fan: Fan,
    outbound: Outbound,
    inbound: Inbound,
    /// Where the protocol's own datagrams are written: as many as one send takes.
    transmit_buffers: []u8,

    // ---- life ----

    /// Without TUN and sockets, which the device opens.
    pub fn init(lane: *Lane, device: *Device, number: u8, disable_mask: u32) error{ OutOfMemory, SystemResources }!void {
        const gpa = device.gpa;
        lane.* = .{
            .device = device,
            .poller = undefined,
            .wakeup = undefined,
            .tun = undefined,
            .udp = undefined,
            .offload = .init(disable_mask),
            .fan = .{ .crew = &device.crew, .number = number },
            .outbound = undefined,
            .inbound = undefined,
            .transmit_buffers = undefined,
        };
        try lane.outbound.init(gpa);
        errdefer lane.outbound.deinit(gpa);
        try lane.inbound.init(gpa);
        errdefer lane.inbound.deinit(gpa);
        lane.transmit_buffers = try gpa.alloc(u8, transmits_max * transmit_length);
        errdefer gpa.free(lane.transmit_buffers);
        lane.poller = try .init();
        errdefer lane.poller.deinit();
        lane.wakeup = try .init();
        errdefer lane.wakeup.deinit();
        try lane.poller.add(lane.wakeup.fd, Token.wakeup.value(), io.poller.in);
        device.crew.join(&lane.fan, lane.wakeup);
    }

    pub fn deinit(lane: *Lane) void {
        const gpa = lane.device.gpa;
        lane.wakeup.deinit();
        lane.poller.deinit();
        gpa.free(lane.transmit_buffers);
        lane.inbound.deinit(gpa);
        lane.outbound.deinit(gpa);
    }

    /// Whether the kernel gives this lane's queue its share of packets. The first lane's always gets one.
    pub fn readTun(lane: *Lane, wanted: bool) void {
        if (lane.isFirst() or wanted == lane.is_reading) return;
        if (wanted) {
            lane.tun.attach() catch return; // then the others have them all
            lane.poller.add(lane.tun.fd, Token.tun.value(), io.poller.in) catch return lane.tun.detach();
        } else {
            lane.poller.remove(lane.tun.fd);
            lane.tun.detach();
        }
        lane.is_reading = wanted;
    }

    pub fn isFirst(lane: *const Lane) bool {
        return lane.fan.number == 0;
    }

    // ---- the loop: one turn handles at most one batch each way, so neither direction can starve the other,
    // and reads the clocks once

    pub fn run(lane: *Lane) void {
        defer cipher.scrubStack();
        const device = lane.device;
        var events: [32]io.poller.Event = undefined;
        const gathers = io.priority.isRealtime();
        var gathering: Gathering = .{};
        var is_behind = false;
        while (!device.isOver()) {
            if (gathers and !is_behind) io.clock.sleep(gathering.pause(io.clock.bootNs()));
            const timeout_ms = lane.timeout();
            lane.fan.offer();
            const ready = lane.poller.wait(&events, timeout_ms);
            lane.fan.withdraw();
            lane.turn_lock.acquire();
            defer lane.turn_lock.release();
            is_behind = lane.turn(ready);
        }
    }

    /// Between turns, but with the turn held: who has paused the lanes changes the tables without the mutex.
    fn timeout(lane: *Lane) i32 {
        if (!lane.isFirst()) return -1;
        lane.turn_lock.acquire();
        defer lane.turn_lock.release();
        return upkeep.timeout(lane.device);
    }

    /// Answers whether it had to leave something for the next.
    fn turn(lane: *Lane, ready: []const io.poller.Event) bool {
        const device = lane.device;
        const now = Device.now();
        var tun_is_ready = false;
        var is_behind = false;
        if (lane.isFirst()) upkeep.probe(device, now);
        for (ready) |event| {
            switch (@as(Token, @fromBackingInt(event.data.u64))) {
                .tun => tun_is_ready = true,
                .udp_ipv4 => is_behind = lane.receive(.ipv4, now) or is_behind,
                .udp_ipv6 => is_behind = lane.receive(.ipv6, now) or is_behind,
                .wakeup => if (lane.wakeup.drain()) lane.help(),
                else => upkeep.serve(device, event),
            }
            if (device.isOver()) return false;
        }
        if (lane.isFirst()) upkeep.expire(device, now, ready.len == 0);
        lane.transmit(now);
        if (tun_is_ready) {
            is_behind = lane.sendFromTun(now) or is_behind;
            lane.transmit(now);
        }
        if (!lane.isFirst()) upkeep.watchDeadline(device);
        lane.logOffload();
        return is_behind;
    }

    fn help(lane: *Lane) void {
        lane.fan.help();
        // It may sleep for long after this, and others' keys were used here.
        if (!lane.isFirst()) cipher.scrubStack();
    }

    fn receive(lane: *Lane, family: wire.Family, now: protocol.Now) bool {
        return lane.inbound.run(&.{
            .interface = &lane.device.interface,
            .mutex = &lane.device.mutex,
            .load = &lane.device.load,
            .fan = &lane.fan,
            .tun = &lane.tun,
            .udp = &lane.udp,
            .offload = &lane.offload,
            .now = now,
        }, family);
    }

    fn sendFromTun(lane: *Lane, now: protocol.Now) bool {
        return lane.outbound.run(&.{
            .interface = &lane.device.interface,
            .mutex = &lane.device.mutex,
            .fan = &lane.fan,
            .tun = &lane.tun,
            .udp = &lane.udp,
            .now = now,
        }) catch |err| {
            upkeep.tunFailed(lane, err);
            return false;
        };
    }

    /// Sends what the protocol itself wants sent, in batches, until there is nothing left. The mutex is held until it
    /// is sent: packets that waited for a session go before those that find it.
    pub fn transmit(lane: *Lane, now: protocol.Now) void {
        const device = lane.device;
        // A lane that got no sockets, and only helps, must not take what it cannot send.
        if (!lane.isFirst() and !lane.udp.isOpen()) return;
        device.mutex.acquire();
        defer device.mutex.release();
        while (lane.transmitBatch(&device.interface, now) == transmits_max) {}
    }

    fn transmitBatch(lane: *Lane, interface: *protocol.Interface, now: protocol.Now) usize {
        var datagrams: [transmits_max]io.udp.Datagram = undefined;
        var peers: [transmits_max]?protocol.PeerId = undefined;
        var count: usize = 0;
        while (count < transmits_max) : (count += 1) {
            const buffer = lane.transmit_buffers[count * transmit_length ..][0..transmit_length];
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
        const result = lane.udp.send(datagrams[0..count], now.boot.ns);
        interface.counters.add(.send_failed, result.failed_datagrams);
        for (datagrams[0..count], peers[0..count]) |*datagram, peer| {
            if (datagram.source_refused) if (peer) |id| interface.forgetSource(id);
        }
        return count;
    }

    // ---- what the user should know

    fn logOffload(lane: *Lane) void {
        const log = &lane.device.log;
        for (std.enums.values(io.offload.Feature), &lane.logged.states) |feature, *logged| {
            const state = lane.offload.state(feature);
            if (state == logged.*) continue;
            logged.* = state;
            if (state != .stepped_down or !lane.device.isNews(feature)) continue;
            const cause = lane.offload.causes[@backingInt(feature)];
            log.err("{t} switched off: the kernel answered {f}; what it refused was sent again without", .{ feature, io.linux.ErrnoName{ .code = cause } });
        }
        if (lane.offload.refusals_length > lane.logged.refusals) {
            for (lane.offload.refusals[lane.logged.refusals..lane.offload.refusals_length]) |*refusal| {
                log.err("udp_gso is not used towards {f} for a minute: the path refused a train", .{refusal.remote});
            }
            lane.logged.refusals = lane.offload.refusals_length;
        }
    }
};

/// What has been said in the log, so that each step down is said once.
const Logged = struct {
    states: [io.offload.Feature.count]io.offload.State = @splat(.active),
    refusals: usize = 0,
};
