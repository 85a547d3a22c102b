//! Loop: what a thread does for its worker until the device stops. One turn handles at most one batch each way, so that
//! neither direction can starve the other, and reads the clocks once.
//!
//! The timetable, by file. What the first worker does alone is marked by a star.
//!   a packet out       loop -> worker -> outbound: Tun.read, Interface.route, train, Interface.reserve,
//!                      cipher_pool, Udp.send. No session: Interface.stage
//!   a datagram in      loop -> worker -> inbound: Udp.receive, Interface.prepareOpen, cipher_pool,
//!                      Interface.finishOpen, Coalescer, Tun.writeFrame. A handshake: handleHandshake
//!   what the protocol
//!   itself wants sent  loop -> worker.transmit: Interface.pollUrgent, Udp.send; last in a turn, a few handshakes:
//!                      worker.initiate: Interface.beginInitiation, Draft.compute, Interface.finishInitiation, Udp.send
//!   time *             loop: Interface.deadline, wait, Interface.expireSome; an earlier deadline of another worker's
//!                      wakes it
//!   link, routes *     loop -> link: up and down -> sockets, Interface.setActive
//!   control *          loop -> control -> uapi_server; or another thread by device.set with all turns held:
//!                      control: zones, uapi.parse, sockets, the steps of Interface.configure; report.
//!                      In between Pause.offer -> worker.letPacketsPass, or the turns of the others
//!   a copy             any: shared.followSuspension; *: link.noteVmGeneration -> Interface.renewSessions
//!   events             any, at the end of a turn: shared.tellEvents, if something was noted
//!   the end            shared.stop: every worker is woken and leaves its loop
const std = @import("std");
const cipher = @import("cipher");
const Control = @import("control.zig").Control;
const io = @import("io");
const Link = @import("link.zig").Link;
const Moderation = @import("moderation.zig").Moderation;
const Precedence = @import("precedence.zig").Precedence;
const protocol = @import("protocol");
const Shared = @import("shared.zig").Shared;
const shared_file = @import("shared.zig");
const Token = @import("token.zig").Token;
const wire = @import("wire");
const Worker = @import("worker.zig").Worker;
const Workers = @import("workers.zig").Workers;

/// What sends no event is looked at this often.
const probe_interval_ms = 1000;
/// Peers whose timers may fire in one turn; what is left is due in the next.
const timers_max = 256;

pub const Loop = struct {
    shared: *Shared,
    workers: *Workers,
    link: *Link,
    control: *Control,
    /// What the first worker sleeps for at most. Guarded by the mutex of `shared`.
    watched_deadline: protocol.Instant = .never,
    /// When `probe` was last at work.
    probed: protocol.Instant = .{ .ns = 0 },

    pub fn run(loop: *Loop, worker: *Worker) void {
        defer cipher.scrubStack();
        defer loop.shared.tellEvents();
        var events: [32]io.poller.Event = undefined;
        const is_moderated = io.priority.isRealtime();
        var moderation: Moderation = .{};
        var precedence: ?Precedence = if (io.priority.isRealtimeByUs()) .{ .last = worker.account() } else null;
        var is_behind = false;
        while (!loop.shared.isStopping()) {
            if (precedence) |*own| if (!loop.followPrecedence(worker, own, is_behind)) {
                precedence = null;
            };
            if (is_moderated and !is_behind) io.clock.sleep(moderation.pause(io.clock.bootNs()));
            // What was left behind need not make anything readable.
            const timeout_ms = if (is_behind) 0 else if (worker.isFirst()) loop.timeout() else -1;
            const ready = worker.wait(&events, timeout_ms);
            worker.turn_lock.acquire();
            defer worker.turn_lock.release();
            if (loop.shared.isHandedOver()) return; // while it waited for its turn
            const was_woken_by_timer = ready.len == 0 and !is_behind;
            is_behind = loop.turn(worker, ready, was_woken_by_timer);
        }
    }

    /// Gives way to ordinary programs, or comes before them again. False when the kernel does not let us.
    fn followPrecedence(loop: *Loop, worker: *Worker, precedence: *Precedence, is_behind: bool) bool {
        if (!precedence.isDue(io.clock.bootNs())) return true;
        const came_first = precedence.comes_first;
        precedence.judge(worker.account(), is_behind);
        if (precedence.comes_first == came_first) return true;
        const number = worker.share.number;
        if (!precedence.comes_first) {
            loop.shared.log.verbose("lane {d}: a flood; ordinary programs are not held up by it", .{number});
            return io.priority.makeOrdinary();
        }
        if (io.priority.makeRealtime()) return true;
        loop.shared.log.err("lane {d} stays an ordinary thread after a flood: RLIMIT_RTPRIO is 0", .{number});
        return false;
    }

    /// Answers whether something had to be left for the next turn.
    fn turn(loop: *Loop, worker: *Worker, ready: []const io.poller.Event, was_woken_by_timer: bool) bool {
        const now = shared_file.now();
        worker.followSuspension(now);
        var tun_is_ready = false;
        var is_behind = false;
        if (worker.isFirst()) {
            loop.probe(now);
            loop.followRoutes(now);
        }
        for (ready) |event| {
            switch (Token.of(event)) {
                .tun => tun_is_ready = true,
                .udp_ipv4 => is_behind = receive(worker, .ipv4, event, now) or is_behind,
                .udp_ipv6 => is_behind = receive(worker, .ipv6, event, now) or is_behind,
                .wakeup => worker.help(),
                .monitor, .routes, .vm_generation => loop.serve(event),
                .uapi_listener, .uapi_removed, .uapi_first_client, _ => loop.serve(event),
            }
            if (loop.shared.isStopping()) return false;
        }
        if (worker.isFirst()) loop.expire(now, was_woken_by_timer);
        worker.udp.hearAgain(now.boot.ns);
        is_behind = worker.transmit(now) or is_behind;
        if (tun_is_ready) {
            is_behind = loop.sendFromTun(worker, now) or is_behind;
            is_behind = worker.transmit(now) or is_behind;
        }
        loop.initiate(worker, now);
        if (!worker.isFirst()) loop.watchDeadline();
        worker.logOffload();
        loop.shared.tellNotices(now);
        loop.shared.tellEvents();
        return is_behind;
    }

    fn receive(worker: *Worker, family: wire.Family, event: io.poller.Event, now: protocol.Now) bool {
        if (event.events & io.poller.failed != 0) worker.hearErrors(family, now);
        return worker.receive(family, now);
    }

    /// Handshakes come last, for they take longest. What other workers leave of them is the first one's, which knows
    /// when to go on.
    fn initiate(loop: *Loop, worker: *Worker, now: protocol.Now) void {
        if (worker.initiate(now) and !worker.isFirst()) loop.workers.first().wakeup.signal();
    }

    fn sendFromTun(loop: *Loop, worker: *Worker, now: protocol.Now) bool {
        return worker.sendFromTun(now) catch |err| {
            // The first worker looks what has become of the interface.
            if (!worker.isFirst()) {
                loop.workers.first().wakeup.signal();
                return false;
            }
            var pause = loop.workers.pauseOthers() orelse return true;
            defer pause.end();
            loop.link.readFailed(err);
            return false;
        };
    }

    // ---- duties of the first worker ----

    /// An event that is not about packets.
    fn serve(loop: *Loop, event: io.poller.Event) void {
        var pause = loop.workers.pauseOthers() orelse return; // the event comes again
        defer pause.end();
        switch (Token.of(event)) {
            .tun, .udp_ipv4, .udp_ipv6, .wakeup => unreachable, // every worker has these
            .monitor => loop.link.follow(),
            .routes => loop.link.noteRoutes(),
            .vm_generation => loop.link.noteVmGeneration(),
            .uapi_listener, .uapi_removed, .uapi_first_client, _ => loop.control.serve(event, &pause),
        }
    }

    fn needsProbe(loop: *const Loop) bool {
        return loop.link.needsProbe() or loop.control.needsProbe();
    }

    fn probe(loop: *Loop, now: protocol.Now) void {
        if (!loop.needsProbe()) return;
        if (now.boot.since(loop.probed) < probe_interval_ms * std.time.ns_per_ms) return;
        var pause = loop.workers.pauseOthers() orelse return;
        defer pause.end();
        loop.probed = now.boot;
        loop.link.probe();
        loop.control.probe(now);
    }

    fn followRoutes(loop: *Loop, now: protocol.Now) void {
        if (!loop.link.sources.isDue(now.boot)) return;
        var pause = loop.workers.pauseOthers() orelse return;
        defer pause.end();
        loop.link.sweepSources();
    }

    /// Milliseconds until something is due, -1 for never. Between turns, but with the turn held: whoever has paused the
    /// workers changes the tables without the mutex.
    fn timeout(loop: *Loop) i32 {
        const turn_lock = &loop.workers.first().turn_lock;
        turn_lock.acquire();
        defer turn_lock.release();
        const limit: i32 = if (loop.needsProbe()) probe_interval_ms else -1;
        const deadline = loop.nextDeadline();
        if (deadline.ns == protocol.Instant.never.ns) return limit;
        const left_ns = deadline.since(.{ .ns = io.clock.bootNs() });
        const left_ms = std.math.divCeil(u64, left_ns, std.time.ns_per_ms) catch unreachable;
        const capped: i32 = @intCast(@min(left_ms, std.time.ms_per_hour));
        return if (limit >= 0) @min(limit, capped) else capped;
    }

    fn nextDeadline(loop: *Loop) protocol.Instant {
        loop.shared.mutex.acquire();
        defer loop.shared.mutex.release();
        const interface = &loop.shared.interface;
        loop.watched_deadline = interface.deadline() orelse .never;
        var earliest = loop.watched_deadline;
        if (loop.link.sources.due().isBefore(earliest)) earliest = loop.link.sources.due();
        const initiations_due = loop.workers.first().initiations_due;
        if (interface.wantsInitiation() and initiations_due.isBefore(earliest)) earliest = initiations_due;
        return earliest;
    }

    /// After a turn of another worker: if that made an earlier deadline, the first one has to know.
    fn watchDeadline(loop: *Loop) void {
        loop.shared.mutex.acquire();
        defer loop.shared.mutex.release();
        const deadline = loop.shared.interface.deadline() orelse return;
        if (!deadline.isBefore(loop.watched_deadline)) return;
        loop.watched_deadline = deadline;
        loop.workers.first().wakeup.signal();
    }

    fn expire(loop: *Loop, now: protocol.Now, was_woken_by_timer: bool) void {
        loop.shared.mutex.acquire();
        loop.shared.interface.expireSome(timers_max, now);
        loop.shared.mutex.release();
        if (!was_woken_by_timer) return;
        // It ended sessions perhaps; traffic would overwrite what they left on the stacks by itself.
        cipher.scrubStack();
        for (loop.workers.all()[1..]) |worker| worker.wakeup.signal();
    }
};
