//! Worker: what one thread needs to move packets: a queue of the TUN, sockets on the port, buffers.
//! A device has one or several; each moves packets of any peer both ways. The kernel sees to it that the packets of
//! one flow come to one worker: outside by receiver index (`Udp.steer`), inside by a hash of theirs (`Tun.writeTo`).
//! When each of this is done is in loop.zig. The first worker has duties of its own there.
//! Invariant: only the worker's own thread, in a turn, or somebody who holds `turn_lock`, touches what is in here.
const std = @import("std");
const Account = @import("precedence.zig").Account;
const cipher = @import("cipher");
const Inbound = @import("inbound.zig").Inbound;
const io = @import("io");
const Outbound = @import("outbound.zig").Outbound;
const protocol = @import("protocol");
const Share = @import("cipher_pool.zig").Share;
const Shared = @import("shared.zig").Shared;
const shared_file = @import("shared.zig");
const Sizes = @import("sizes.zig").Sizes;
const TicketLock = @import("ticket_lock.zig").TicketLock;
const Token = @import("token.zig").Token;
const wire = @import("wire");
const assert = wire.assert;

/// Datagrams of the protocol itself in one send at most, and room for each: what no train took was never staged.
const transmits_max = 32;
const transmit_length = 65_536;

comptime {
    for ([_]Sizes{ .normal, .low }) |sizes| {
        assert(sizes.transmits <= transmits_max and initiations_max <= sizes.transmits);
    }
}

/// A shorter pause is not looked at: a worker that is busy does not ask what time it is in two ways.
const suspension_min_ns = 100 * std.time.ns_per_ms;

/// What a turn may do of what the protocol itself wants, so that packets need not wait for it: some hundred
/// microseconds, and half of that with the mutex held.
const urgent_looks = 128;
const responses_max = 4;
/// Each takes two or three operations on the curve.
const initiations_max = 4;
const initiation_looks = 256;
/// How long to rest after initiations, in the time that they took: they take a third of a core at most, however many
/// peers are silent. A realtime thread that takes nearly all is stopped by the kernel for some 50 ms in each second.
const initiation_rest_factor = 2;

pub const Worker = struct {
    shared: *Shared,
    /// Held for the length of a turn; whoever holds those of all workers has the device alone.
    turn_lock: TicketLock = .{},
    /// A thread runs it.
    has_thread: std.atomic.Value(bool) = .init(false),
    is_reading: bool = false,
    /// When its last turn began.
    turn_began: protocol.Instant = .{ .ns = 0 },

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
    drafts: [initiations_max]protocol.Draft = undefined,
    /// When the next initiations may be computed.
    initiations_due: protocol.Instant = .{ .ns = 0 },

    // ---- life ----

    /// Without TUN and sockets: these are opened later.
    pub fn init(
        worker: *Worker,
        shared: *Shared,
        number: u8,
        disable_mask: u32,
        sizes: *const Sizes,
    ) error{ OutOfMemory, SystemResources }!void {
        const gpa = shared.gpa;
        worker.* = .{
            .shared = shared,
            .poller = undefined,
            .wakeup = undefined,
            .tun = undefined,
            .udp = undefined,
            .offload = .init(disable_mask),
            .share = .{ .pool = &shared.pool, .number = number },
            .outbound = undefined,
            .inbound = undefined,
            .transmit_buffers = undefined,
        };
        try worker.outbound.init(gpa, sizes.train_bytes);
        errdefer worker.outbound.deinit(gpa);
        try worker.inbound.init(gpa, sizes.slots);
        errdefer worker.inbound.deinit(gpa);
        worker.transmit_buffers = try gpa.alloc(u8, sizes.transmits * transmit_length);
        errdefer gpa.free(worker.transmit_buffers);
        worker.poller = try .init();
        errdefer worker.poller.deinit();
        worker.wakeup = try .init();
        errdefer worker.wakeup.deinit();
        try worker.poller.add(worker.wakeup.fd, Token.wakeup.value(), io.poller.in);
        shared.pool.join(&worker.share, worker.wakeup);
    }

    pub fn deinit(worker: *Worker) void {
        const gpa = worker.shared.gpa;
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

    // ---- parts of a turn

    /// A host that slept for long enough to be written to a disk shows as a pause between two turns.
    pub fn followSuspension(worker: *Worker, now: protocol.Now) void {
        const pause_ns = now.boot.since(worker.turn_began);
        worker.turn_began = now.boot;
        if (pause_ns >= suspension_min_ns) worker.shared.followSuspension(now);
    }

    /// Waits for events; meanwhile other workers may call for help with the cipher.
    pub fn wait(worker: *Worker, buffer: []io.poller.Event, timeout_ms: i32) []io.poller.Event {
        worker.share.offer();
        defer worker.share.withdraw();
        return worker.poller.wait(buffer, timeout_ms);
    }

    /// Somebody has signalled: perhaps a worker whose batch is worth sharing.
    pub fn help(worker: *Worker) void {
        if (!worker.wakeup.drain()) return;
        worker.share.help();
        // It may sleep for long after this, and others' keys were used here.
        if (!worker.isFirst()) cipher.scrubStack();
    }

    /// Takes one batch from a socket. Answers whether it had to leave something for the next turn.
    pub fn receive(worker: *Worker, family: wire.Family, now: protocol.Now) bool {
        return worker.inbound.run(&.{
            .interface = &worker.shared.interface,
            .mutex = &worker.shared.mutex,
            .share = &worker.share,
            .tun = &worker.tun,
            .udp = &worker.udp,
            .offload = &worker.offload,
            .tunnels = &worker.shared.tunnels,
            .loops = checksumLoops(),
            .now = now,
        }, family);
    }

    /// What the network answers to what was sent (ICMP), for users.
    pub fn hearErrors(worker: *Worker, family: wire.Family, now: protocol.Now) void {
        const shared = worker.shared;
        while (worker.udp.nextIcmpError(family, now.boot.ns)) |found| {
            const kind: protocol.notices.Kind = switch (found.reason) {
                .port_unreachable => .port_unreachable,
                .host_unreachable => .host_unreachable,
                .net_unreachable => .net_unreachable,
                .prohibited => .prohibited,
                .too_big => .too_big,
            };
            shared.mutex.acquire();
            defer shared.mutex.release();
            shared.interface.noteUnreachable(kind, found.remote, found.by, found.mtu, now);
        }
    }

    /// Sends what TUN has, up to a turn's worth. Answers whether it had to leave something for the next turn.
    pub fn sendFromTun(worker: *Worker, now: protocol.Now) io.tun.ReadError!bool {
        return worker.outbound.run(&.{
            .interface = &worker.shared.interface,
            .mutex = &worker.shared.mutex,
            .reserved = &worker.shared.reserved,
            .share = &worker.share,
            .tun = &worker.tun,
            .udp = &worker.udp,
            .icmp = if (worker.shared.is_here) &worker.shared.icmp else null,
            .loops = checksumLoops(),
            .now = now,
        });
    }

    fn checksumLoops() wire.checksum.Loops {
        const sum, const copy_sum = cipher.checksumLoops();
        return .{ .sum_fn = sum, .copy_sum_fn = copy_sum };
    }

    /// A worker that got no sockets, and only helps, must not take what it cannot send.
    fn canTransmit(worker: *const Worker) bool {
        return worker.isFirst() or worker.udp.isOpen();
    }

    /// Sends what the protocol itself wants sent, but for initiations, in batches, up to a turn's worth. The mutex is
    /// held until a batch is sent: packets that waited for a session go before those that find it. Answers whether
    /// something had to be left for the next turn.
    pub fn transmit(worker: *Worker, now: protocol.Now) bool {
        if (!worker.canTransmit()) return false;
        const shared = worker.shared;
        var budget: protocol.Budget = .{ .looks = urgent_looks, .responses = responses_max };
        while (true) {
            shared.mutex.acquire();
            defer shared.mutex.release();
            if (shared.interface.cookie_reply_count != 0) worker.sendCookieReplies(now);
            if (worker.transmitBatch(&budget, now) < worker.transmitsAtOnce()) return shared.interface.wantsUrgent();
        }
    }

    /// Those that wait, in one send. The mutex is given back meanwhile: a flood asks for many, nothing has to go before
    /// or after them, and others need the tables.
    fn sendCookieReplies(worker: *Worker, now: protocol.Now) void {
        const shared = worker.shared;
        var buffers: [protocol.cookie_replies_max][@sizeOf(wire.messages.CookieReply)]u8 = undefined;
        var transmits: [protocol.cookie_replies_max]io.udp.Transmit = undefined;
        var count: usize = 0;
        while (count < transmits.len) : (count += 1) {
            const reply = shared.interface.pollCookieReply(&buffers[count]) orelse break;
            transmits[count] = .{
                .bytes = buffers[count][0..reply.length],
                .segment_size = 0,
                .endpoint = reply.endpoint,
                .tos = reply.tos,
            };
        }
        shared.mutex.release();
        const result = worker.udp.send(transmits[0..count], now.boot.ns);
        shared.mutex.acquire();
        shared.interface.counters.add(.send_failed, result.failed_datagrams);
    }

    fn transmitBatch(worker: *Worker, budget: *protocol.Budget, now: protocol.Now) usize {
        const interface = &worker.shared.interface;
        var batch: TransmitBatch = .{};
        while (batch.count < worker.transmitsAtOnce()) {
            const buffer = worker.transmitBuffer(batch.count);
            const next = interface.pollUrgent(buffer, budget, now) orelse break;
            batch.add(buffer, &next);
        }
        worker.send(&batch, now);
        return batch.count;
    }

    /// Begins handshakes, a few in a turn: however many peers are silent, packets of the others pass in between. They
    /// are computed while others may have the mutex. Answers whether some had to be left for `initiations_due`.
    pub fn initiate(worker: *Worker, now: protocol.Now) bool {
        if (!worker.canTransmit()) return false;
        const shared = worker.shared;
        const interface = &shared.interface;
        const is_due = !now.boot.isBefore(worker.initiations_due);
        var count: usize = 0;
        var looks: u32 = if (is_due) initiation_looks else 0;
        shared.mutex.acquire();
        while (count < initiations_max and interface.beginInitiation(&worker.drafts[count], &looks, now)) count += 1;
        const has_more = interface.wantsInitiation();
        shared.mutex.release();
        if (count == 0) return has_more;
        worker.finishInitiations(count, now);
        return has_more;
    }

    fn finishInitiations(worker: *Worker, count: usize, now: protocol.Now) void {
        const shared = worker.shared;
        const interface = &shared.interface;
        const began_ns = io.clock.bootNs();
        // Our own key changes only while the turns of all workers are held.
        for (worker.drafts[0..count]) |*draft| draft.compute(&interface.local.?);
        const ended_ns = io.clock.bootNs();
        worker.initiations_due = .{ .ns = ended_ns +| (ended_ns -| began_ns) *| initiation_rest_factor };
        shared.mutex.acquire();
        defer shared.mutex.release();
        var batch: TransmitBatch = .{};
        for (worker.drafts[0..count]) |*draft| {
            const buffer = worker.transmitBuffer(batch.count);
            const next = interface.finishInitiation(draft, buffer, now) orelse continue;
            batch.add(buffer, &next);
        }
        worker.send(&batch, now);
    }

    fn transmitsAtOnce(worker: *const Worker) usize {
        return worker.transmit_buffers.len / transmit_length;
    }

    fn transmitBuffer(worker: *Worker, i: usize) []u8 {
        return worker.transmit_buffers[i * transmit_length ..][0..transmit_length];
    }

    /// The mutex is held.
    fn send(worker: *Worker, batch: *TransmitBatch, now: protocol.Now) void {
        if (batch.count == 0) return;
        const interface = &worker.shared.interface;
        const transmits = batch.transmits[0..batch.count];
        const result = worker.udp.send(transmits, now.boot.ns);
        interface.counters.add(.send_failed, result.failed_datagrams);
        for (transmits, batch.peers[0..batch.count]) |*sent, peer| {
            const id = peer orelse continue;
            if (sent.source_refused) interface.forgetSource(id);
            if (notSent(sent.failure)) |kind| interface.noteNotSent(id, kind, now);
        }
    }

    /// Null: it was, or it is nothing that lasts.
    fn notSent(errno: std.os.linux.E) ?protocol.notices.Kind {
        return switch (errno) {
            .NETUNREACH, .HOSTUNREACH, .ACCES, .ADDRNOTAVAIL, .AFNOSUPPORT => .no_route,
            .PERM => .not_let_out,
            else => null,
        };
    }

    /// A turn of packets alone, in the middle of something that takes longer than they should wait. Events of anything
    /// else come again.
    pub fn letPacketsPass(worker: *Worker) void {
        var events: [8]io.poller.Event = undefined;
        const ready = worker.wait(&events, 0);
        const now = shared_file.now();
        worker.followSuspension(now);
        var tun_is_ready = false;
        for (ready) |event| switch (Token.of(event)) {
            .tun => tun_is_ready = true,
            .udp_ipv4 => _ = worker.receive(.ipv4, now),
            .udp_ipv6 => _ = worker.receive(.ipv6, now),
            .wakeup => worker.help(),
            .monitor, .routes, .vm_generation, .uapi_listener, .uapi_removed, .uapi_first_client, _ => {},
        };
        _ = worker.transmit(now);
        // What is wrong with the interface is found out in the next whole turn.
        if (tun_is_ready) _ = worker.sendFromTun(now) catch false;
        _ = worker.transmit(now);
    }

    /// What its thread has done so far; to be asked by that.
    pub fn account(worker: *const Worker) Account {
        return .{
            .now_ns = io.clock.bootNs(),
            .cpu_ns = io.clock.threadCpuNs(),
            .seen = worker.inbound.seen,
            .useful = worker.inbound.useful,
        };
    }

    /// What the user should know.
    pub fn logOffload(worker: *Worker) void {
        const log = &worker.shared.log;
        for (std.enums.values(io.offload.Feature), &worker.logged.states) |feature, *logged| {
            const state = worker.offload.state(feature);
            if (state == logged.*) continue;
            logged.* = state;
            if (state != .stepped_down or !worker.shared.isNews(feature)) continue;
            const cause = worker.offload.causes[@backingInt(feature)];
            const errno: u16 = @intCast(@backingInt(cause));
            worker.shared.note(.{ .stepped_down = .{ .offload = feature.bit(), .errno = errno } });
            log.err(
                "{t} switched off: the kernel answered {f}; what it refused was sent again without",
                .{ feature, io.linux.ErrnoName{ .code = cause } },
            );
        }
        while (worker.offload.takeNews()) |refusal| worker.tellRefusal(&refusal);
    }

    fn tellRefusal(worker: *Worker, refusal: *const io.offload.Refusal) void {
        worker.shared.log.err("udp_gso is not used towards {f} for a minute: {s}", .{
            refusal.remote,
            switch (refusal.cause) {
                .device, .path => "the path refused a train",
                .lost => "trains get lost on the way, where single datagrams arrive",
            },
        });
        const errno: std.os.linux.E = switch (refusal.cause) {
            .device => .IO,
            .path => .MSGSIZE,
            .lost => .SUCCESS,
        };
        worker.shared.note(.{ .stepped_down = .{
            .offload = io.offload.Feature.udp_gso.bit(),
            .errno = @intCast(@backingInt(errno)),
            .remote = refusal.remote,
        } });
    }
};

/// Datagrams of the protocol itself, to be sent together.
const TransmitBatch = struct {
    transmits: [transmits_max]io.udp.Transmit = undefined,
    peers: [transmits_max]?protocol.PeerId = undefined,
    count: usize = 0,

    fn add(batch: *TransmitBatch, buffer: []const u8, next: *const protocol.Transmit) void {
        batch.transmits[batch.count] = .{
            .bytes = buffer[0..next.length],
            .segment_size = 0,
            .endpoint = next.endpoint,
            .tos = next.tos,
        };
        batch.peers[batch.count] = next.peer;
        batch.count += 1;
    }
};

/// What has been said in the log, so that each step down is said once.
const Logged = struct {
    states: [io.offload.Feature.count]io.offload.State = @splat(.active),
};
