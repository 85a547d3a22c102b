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

/// Before those as well, for the moment in which packets wait for this thread: a realtime thread of the same priority
/// that always has something to do would go on for 100 ms first. The next call of the others ends it.
pub fn hurry() bool {
    const policy: linux.SCHED = .{ .mode = .RR, .RESET_ON_FORK = true };
    const parameters: linux.sched_param = .{ .priority = 2 };
    return linux.errno(linux.sched_setscheduler(0, policy, &parameters)) == .SUCCESS;
}

/// One of the ordinary threads again. False where it is not allowed; then nothing has changed.
pub fn makeOrdinary() bool {
    const policy: linux.SCHED = .{ .mode = .NORMAL, .RESET_ON_FORK = true };
    const parameters: linux.sched_param = .{ .priority = 0 };
    return linux.errno(linux.sched_setscheduler(0, policy, &parameters)) == .SUCCESS;
}

/// Lets the threads of this process be realtime again after they were not, without CAP_SYS_NICE. False where that takes
/// CAP_SYS_RESOURCE and there is none.
pub fn allowRealtime() bool {
    const lowest: linux.rlimit = .{ .cur = 1, .max = 1 };
    return linux.errno(linux.setrlimit(.RTPRIO, &lowest)) == .SUCCESS;
}

/// Whether this thread is one, by us or by whoever started it.
pub fn isRealtime() bool {
    const policy = linux.sched_getscheduler(0) & 0xff; // without SCHED_RESET_ON_FORK
    return policy == @backingInt(linux.SCHED.Mode.RR) or policy == @backingInt(linux.SCHED.Mode.FIFO);
}

/// Whether it is as `makeRealtime` leaves it.
pub fn isRealtimeByUs() bool {
    return linux.sched_getscheduler(0) == policyNumber(.RR);
}

fn policyNumber(mode: linux.SCHED.Mode) usize {
    return @as(u32, @bitCast(linux.SCHED{ .mode = mode, .RESET_ON_FORK = true }));
}

test "a thread becomes realtime where it may, and an ordinary one again" {
    const thread = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, struct {
        fn run() void {
            const before = linux.sched_getscheduler(0);
            const changed = makeRealtime();
            const after = linux.sched_getscheduler(0);
            std.debug.assert(if (changed) after == policyNumber(.RR) else after == before);
            std.debug.assert(!changed or (isRealtime() and isRealtimeByUs()));
            std.debug.assert(makeOrdinary() and !isRealtime() and !isRealtimeByUs());
            std.debug.assert(linux.sched_getscheduler(0) == policyNumber(.NORMAL));
            std.debug.assert(makeRealtime() == changed);
        }
    }.run, .{});
    thread.join();
}
