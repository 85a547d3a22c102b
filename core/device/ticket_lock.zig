//! A fair mutex on a futex: threads enter in the order they came, so that a control request is not
//! starved by a loop that locks again at once. Needs neither libc nor std.Io.
//! Invariant: a waiter and the one who releases write their own word before they read the other's, in one
//! order for all (seq_cst). With less, each may see the other's old word, and the waiter sleeps for ever.
const std = @import("std");
const linux = std.os.linux;

pub const TicketLock = struct {
    next_ticket: std.atomic.Value(u32) = .init(0),
    now_serving: std.atomic.Value(u32) = .init(0),

    pub fn acquire(lock: *TicketLock) void {
        const ticket = lock.next_ticket.fetchAdd(1, .seq_cst);
        while (true) {
            const serving = lock.now_serving.load(.seq_cst);
            if (serving == ticket) return;
            _ = linux.futex_4arg(&lock.now_serving.raw, .{ .cmd = .WAIT, .private = true }, serving, null);
        }
    }

    /// Only if nobody has it and nobody waits.
    pub fn tryAcquire(lock: *TicketLock) bool {
        const serving = lock.now_serving.load(.seq_cst);
        return lock.next_ticket.cmpxchgStrong(serving, serving +% 1, .seq_cst, .monotonic) == null;
    }

    pub fn release(lock: *TicketLock) void {
        const serving = lock.now_serving.load(.monotonic) +% 1;
        lock.now_serving.store(serving, .seq_cst);
        // Every waiter must look: only one of them has the next ticket.
        if (lock.next_ticket.load(.seq_cst) != serving) {
            _ = linux.futex_3arg(&lock.now_serving.raw, .{ .cmd = .WAKE, .private = true }, std.math.maxInt(i32));
        }
    }
};

test "four threads count without losing a step" {
    const Shared = struct {
        var lock: TicketLock = .{};
        var total: u64 = 0;

        fn run(steps: usize) void {
            for (0..steps) |_| {
                lock.acquire();
                defer lock.release();
                total += 1;
            }
        }
    };
    var threads: [4]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, Shared.run, .{5_000});
    for (threads) |thread| thread.join();
    try std.testing.expectEqual(20_000, Shared.total);
}

test "what is held cannot be had at once, and what was given back can" {
    var lock: TicketLock = .{};
    try std.testing.expect(lock.tryAcquire());
    try std.testing.expect(!lock.tryAcquire());
    lock.release();
    lock.acquire();
    try std.testing.expect(!lock.tryAcquire());
    lock.release();
    try std.testing.expect(lock.tryAcquire());
}
