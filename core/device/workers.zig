//! Workers: those of a device, one for each thread, in the order of their numbers.
//! Invariant: turns are held in that order, and the mutex comes last, so that nobody waits in a circle.
const std = @import("std");
const io = @import("io");
const Shared = @import("shared.zig").Shared;
const Worker = @import("worker.zig").Worker;
const workers_max = @import("cipher_pool.zig").workers_max;

pub const Workers = struct {
    shared: *Shared,
    list: [workers_max]*Worker = undefined,
    count: u8 = 0,
    /// The queue of the TUN that several workers write to.
    writer: ?io.tun.Tun = null,

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

    // ---- turns ----

    /// Waits for the turns of all workers to end, and lets none begin.
    pub fn pause(workers: *Workers) void {
        workers.first().turn_lock.acquire();
        workers.pauseOthers();
    }

    pub fn @"resume"(workers: *Workers) void {
        workers.resumeOthers();
        workers.first().turn_lock.release();
    }

    /// The same for the first worker in its own turn.
    pub fn pauseOthers(workers: *Workers) void {
        for (workers.others()) |worker| worker.turn_lock.acquire();
    }

    pub fn resumeOthers(workers: *Workers) void {
        for (workers.others()) |worker| worker.turn_lock.release();
    }
};
