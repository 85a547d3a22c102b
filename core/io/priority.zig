//! A thread's place in the scheduler. A tunnel is asked for little at a time and often: as an ordinary thread it
//! waits for the time slices of the programs whose packets it carries, and its queues fill meanwhile (sched(7)).
const std = @import("std");
const linux = std.os.linux;

/// SCHED_RR at its lowest priority, which comes before every ordinary thread. Not inherited by children.
/// False where it is not allowed (CAP_SYS_NICE or RLIMIT_RTPRIO); then nothing has changed.
pub fn makeRealtime() bool {
    const policy: linux.SCHED = .{ .mode = .RR, .RESET_ON_FORK = true };
    const parameters: linux.sched_param = .{ .priority = 1 };
    return linux.errno(linux.sched_setscheduler(0, policy, &parameters)) == .SUCCESS;
}

/// Whether this thread is one, by us or by whoever started it.
pub fn isRealtime() bool {
    const policy = linux.sched_getscheduler(0) & 0xff; // without SCHED_RESET_ON_FORK
    return policy == @backingInt(linux.SCHED.Mode.RR) or policy == @backingInt(linux.SCHED.Mode.FIFO);
}

test "a thread becomes realtime where it may" {
    const thread = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, struct {
        fn run() void {
            const before = linux.sched_getscheduler(0);
            const changed = makeRealtime();
            const after = linux.sched_getscheduler(0);
            const policy = @as(u32, @bitCast(linux.SCHED{ .mode = .RR, .RESET_ON_FORK = true }));
            std.debug.assert(if (changed) after == policy else after == before);
            std.debug.assert(!changed or isRealtime());
        }
    }.run, .{});
    thread.join();
}
