//! Workers: those of a device, one for each thread, in the order of their numbers.
//! Invariant: `change_lock` comes first, then turns are held in that order, and the mutex comes last, so that nobody
//! waits in a circle. The first worker, which is in its turn when it wants to change something, does not wait for
//! `change_lock`.
const std = @import("std");
const io = @import("io");
const Shared = @import("shared.zig").Shared;
const TicketLock = @import("ticket_lock.zig").TicketLock;
const Worker = @import("worker.zig").Worker;
const workers_max = @import("cipher_pool.zig").workers_max;

pub const Workers = struct {
    shared: *Shared,
    list: [workers_max]*Worker = undefined,
    count: u8 = 0,
    /// The queue of the TUN that several workers write to.
    writer: ?io.tun.Tun = null,
    /// Held by whoever changes configuration, link or sockets, or tells them, also while packets pass in between.
    change_lock: TicketLock = .{},

    pub fn all(workers: *const Workers) []const *Worker {
        return workers.list[0..workers.count];
    }

    /// It keeps the timers, and serves link, routes and UAPI.
    pub fn first(workers: *const Workers) *Worker {
        return workers.list[0];
    }

    fn others(workers: *const Workers) []const *Worker {
        return workers.list[1..workers.count];
    }

    // ---- life ----

    /// One more, whose queue of the TUN is to be opened.
    pub fn add(workers: *Workers, disable_mask: u32) error{ OutOfMemory, SystemResources }!*Worker {
        const gpa = workers.shared.gpa;
        const worker = try gpa.create(Worker);
        errdefer gpa.destroy(worker);
        try worker.init(workers.shared, workers.count, disable_mask);
        workers.list[workers.count] = worker;
        workers.count += 1;
        return worker;
    }

    /// The last one, whose queue is not open.
    pub fn dropLast(workers: *Workers) void {
        workers.count -= 1;
        const worker = workers.list[workers.count];
        worker.deinit();
        std.crypto.secureZero(u8, std.mem.asBytes(worker));
        workers.shared.gpa.destroy(worker);
    }

    /// The TUN vanishes with its last queue.
    pub fn close(workers: *Workers) void {
        if (workers.writer) |*writer| writer.close();
        workers.writer = null;
        while (workers.count > 0) {
            workers.list[workers.count - 1].tun.close();
            workers.dropLast();
        }
    }

    // ---- counters of all together ----

    pub fn udpCounters(workers: *const Workers) io.udp.Counters {
        var sum: io.udp.Counters = .{};
        for (workers.all()) |worker| addTo(&sum, &worker.udp.counters);
        return sum;
    }

    pub fn tunCounters(workers: *const Workers) io.tun.Counters {
        var sum: io.tun.Counters = .{};
        for (workers.all()) |worker| addTo(&sum, &worker.tun.counters);
        return sum;
    }

    fn addTo(sum: anytype, counters: *const std.meta.Child(@TypeOf(sum))) void {
        inline for (comptime std.meta.fieldNames(@TypeOf(counters.*))) |name| {
            @field(sum, name) += @field(counters, name);
        }
    }

    // ---- turns ----

    /// Waits for the turns of all workers to end, and lets none begin.
    pub fn pause(workers: *Workers) Pause {
        workers.change_lock.acquire();
        for (workers.all()) |worker| worker.turn_lock.acquire();
        return .{ .workers = workers, .is_in_turn = false, .began_ns = io.clock.bootNs() };
    }

    /// The same for the first worker in its own turn. Null while another thread changes something: what was to be done
    /// is to be tried again in the next turn.
    pub fn pauseOthers(workers: *Workers) ?Pause {
        if (!workers.change_lock.tryAcquire()) return null;
        for (workers.others()) |worker| worker.turn_lock.acquire();
        return .{ .workers = workers, .is_in_turn = true, .began_ns = io.clock.bootNs() };
    }
};

/// The turns of all workers are held, so that everything may be changed. Long work offers packets to pass now and then.
pub const Pause = struct {
    workers: *Workers,
    /// It is the first worker that holds it, in its own turn.
    is_in_turn: bool,
    began_ns: u64,

    /// Packets wait no longer than this, and what is done between two offers.
    const slice_ns = std.time.ns_per_ms;

    /// Lets every worker that wants to have a turn, if packets have waited for long enough. Whoever calls has left what
    /// a turn uses in order. Nobody else changes anything meanwhile.
    pub fn offer(pause: *Pause) void {
        if (io.clock.bootNs() -| pause.began_ns < slice_ns) return;
        const workers = pause.workers;
        const held = if (pause.is_in_turn) workers.others() else workers.all();
        for (held) |worker| worker.turn_lock.release();
        if (pause.is_in_turn) workers.first().letPacketsPass();
        for (held) |worker| worker.turn_lock.acquire();
        pause.began_ns = io.clock.bootNs();
    }

    pub fn end(pause: *Pause) void {
        const workers = pause.workers;
        const held = if (pause.is_in_turn) workers.others() else workers.all();
        for (held) |worker| worker.turn_lock.release();
        workers.change_lock.release();
        pause.* = undefined;
    }
};
