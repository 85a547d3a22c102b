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
const TicketLock = @import("ticket_lock.zig").TicketLock;
const Token = @import("token.zig").Token;
const wire = @import("wire");

/// Datagrams of the protocol itself in one send, and room for each: what no train took was never staged.
const transmits_max = 32;
const transmit_length = 65_536;
/// A shorter pause is not looked at: a worker that is busy does not ask what time it is in two ways.
const suspension_min_ns = 100 * std.time.ns_per_ms;

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

    // ---- life ----

    /// Without TUN and sockets: these are opened later.
    pub fn init(
        worker: *Worker,
        shared: *Shared,
        number: u8,
        disable_mask: u32,
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
            .under_load = &worker.shared.under_load,
            .share = &worker.share,
            .tun = &worker.tun,
            .udp = &worker.udp,
            .offload = &worker.offload,
            .now = now,
        }, family);
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
            .now = now,
        });
    }

    /// Sends what the protocol itself wants sent, in batches, until there is nothing left. The mutex is held until it
    /// is sent: packets that waited for a session go before those that find it.
    pub fn transmit(worker: *Worker, now: protocol.Now) void {
        const shared = worker.shared;
        // A worker that got no sockets, and only helps, must not take what it cannot send.
        if (!worker.isFirst() and !worker.udp.isOpen()) return;
        shared.mutex.acquire();
        defer shared.mutex.release();
        while (worker.transmitBatch(&shared.interface, now) == transmits_max) {}
    }

    fn transmitBatch(worker: *Worker, interface: *protocol.Interface, now: protocol.Now) usize {
        var transmits: [transmits_max]io.udp.Transmit = undefined;
        var peers: [transmits_max]?protocol.PeerId = undefined;
        var count: usize = 0;
        while (count < transmits_max) : (count += 1) {
            const buffer = worker.transmit_buffers[count * transmit_length ..][0..transmit_length];
            const next = interface.pollTransmit(buffer, now) orelse break;
            transmits[count] = .{
                .bytes = buffer[0..next.length],
                .segment_size = 0,
                .endpoint = next.endpoint,
                .tos = next.tos,
            };
            peers[count] = next.peer;
        }
        if (count == 0) return 0;
        const result = worker.udp.send(transmits[0..count], now.boot.ns);
        interface.counters.add(.send_failed, result.failed_datagrams);
        for (transmits[0..count], peers[0..count]) |*sent, peer| {
            if (sent.source_refused) if (peer) |id| interface.forgetSource(id);
        }
        return count;
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
            log.err(
                "{t} switched off: the kernel answered {f}; what it refused was sent again without",
                .{ feature, io.linux.ErrnoName{ .code = cause } },
            );
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
