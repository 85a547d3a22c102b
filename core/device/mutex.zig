//! A mutex for short stretches, on a futex: whoever comes first gets it, and a waiter first looks again for a
//! while, because the holder is about to be done. Not fair: for what may be held long see ticket_lock.zig.
const std = @import("std");
const linux = std.os.linux;

pub const Mutex = struct {
    state: std.atomic.Value(u32) = .init(free),

    const free: u32 = 0;
    const held: u32 = 1;
    /// Held, and somebody may sleep.
    const contended: u32 = 2;
    /// About a microsecond: what the holder needs for a batch.
    const looks = 100;

    pub fn acquire(mutex: *Mutex) void {
        if (mutex.state.cmpxchgStrong(free, held, .acquire, .monotonic) == null) return;
        for (0..looks) |_| {
            std.atomic.spinLoopHint();
            if (mutex.state.load(.monotonic) != free) continue;
            if (mutex.state.cmpxchgWeak(free, held, .acquire, .monotonic) == null) return;
        }
        while (mutex.state.swap(contended, .acquire) != free) {
            _ = linux.futex_4arg(&mutex.state.raw, .{ .cmd = .WAIT, .private = true }, contended, null);
        }
    }

    pub fn release(mutex: *Mutex) void {
        if (mutex.state.swap(free, .release) != contended) return;
        _ = linux.futex_3arg(&mutex.state.raw, .{ .cmd = .WAKE, .private = true }, 1);
    }
};

test "four threads count without losing a step" {
    const Shared = struct {
        var mutex: Mutex = .{};
        var total: u64 = 0;

        fn run(steps: usize) void {
            for (0..steps) |_| {
                mutex.acquire();
                defer mutex.release();
                total += 1;
            }
        }
    };
    var threads: [4]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, Shared.run, .{20_000});
    for (threads) |thread| thread.join();
    try std.testing.expectEqual(80_000, Shared.total);
}
