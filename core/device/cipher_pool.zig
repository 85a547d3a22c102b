//! Pool: the workers of a device, as far as they can help one another with the cipher. Each has a Share of it: a batch
//! of its own is cut into parts and worked off together with workers that have nothing to do.
//! One flow then uses several cores, and its order cannot change: whoever begins a batch goes on only when all of it
//! is done, and alone reads, reserves nonces, checks and writes.
//! Helpers that come late, or are taken off their core, are done without for a while: so a machine without idle
//! cores pays nothing but a try now and then.
//! Invariant: a batch is published anew only when every part that was claimed of the last one is finished.
const std = @import("std");
const assert = @import("wire").assert;
const linux = std.os.linux;
const cipher = @import("cipher");
const io = @import("io");

/// Workers of a device at most; the pool has a bit for each.
pub const workers_max = @bitSizeOf(usize);
/// Less than this is sealed sooner than a helper is awake: about 20 microseconds of the cipher.
const part_bytes = 48 << 10;
/// Looks for the last helper before sleeping: some ten microseconds, half a part.
const looks = 2_000;
/// Batches without helpers after they were of no use, at first and at most.
const rest_min = 8;
const rest_max = 4096;

/// Which workers have nothing to do, and what wakes them.
pub const Pool = struct {
    idle: std.atomic.Value(usize) = .init(0),
    shares: [workers_max]*Share = undefined,
    wakeups: [workers_max]io.poller.Wakeup = undefined,
    count: std.atomic.Value(u8) = .init(0),

    /// In the order of the workers' numbers.
    pub fn join(pool: *Pool, share: *Share, wakeup: io.poller.Wakeup) void {
        const number = pool.count.load(.monotonic);
        assert(number < workers_max and share.number == number);
        pool.shares[number] = share;
        pool.wakeups[number] = wakeup;
        pool.count.store(number + 1, .release);
    }

    /// Async-signal-safe.
    pub fn wakeAll(pool: *const Pool) void {
        for (pool.wakeups[0..pool.count.load(.acquire)]) |wakeup| wakeup.signal();
    }

    /// Calls up to `wanted` idle workers; returns how many there were.
    fn call(pool: *Pool, wanted: usize) usize {
        for (0..wanted) |called| {
            const idle = pool.idle.load(.monotonic);
            if (idle == 0) return called;
            const number: std.math.Log2Int(usize) = @intCast(@ctz(idle));
            const bit = @as(usize, 1) << number;
            // Whoever takes the bit away calls, so that none is called twice.
            if (pool.idle.fetchAnd(~bit, .acquire) & bit != 0) pool.wakeups[number].signal();
        }
        return wanted;
    }
};

const Batch = union(enum) {
    seal: struct { key: *const [cipher.key_length]u8, counter: u64, jobs: []const cipher.Seal },
    open: struct { key: *const [cipher.key_length]u8, jobs: []cipher.Open },

    fn length(batch: *const Batch) usize {
        return switch (batch.*) {
            inline else => |*one| one.jobs.len,
        };
    }

    fn run(batch: *const Batch, start: usize, end: usize) void {
        switch (batch.*) {
            .seal => |*one| cipher.sealBatch(one.key, one.counter + start, one.jobs[start..end]),
            .open => |*one| cipher.openBatch(one.key, one.jobs[start..end]),
        }
    }
};

/// Parts of a batch, and how many of them were claimed; the generation tells one batch from the next.
const State = packed struct(u32) { claimed: u8, parts: u8, generation: u16 };

pub const Share = struct {
    pool: *Pool,
    number: u8,
    state: std.atomic.Value(u32) = .init(0),
    finished: std.atomic.Value(u32) = .init(0),
    /// Whoever has this batch sleeps until the last part is finished.
    is_asleep: std.atomic.Value(bool) = .init(false),
    batch: Batch = undefined,
    /// Batches still to do alone, and how many next time.
    resting: u32 = 0,
    rest: u32 = rest_min,

    pub fn seal(share: *Share, key: *const [cipher.key_length]u8, counter: u64, jobs: []const cipher.Seal) void {
        const parts = share.partsOf(jobs.len, jobs[0].length);
        const batch: Batch = .{ .seal = .{ .key = key, .counter = counter, .jobs = jobs } };
        if (parts < 2) batch.run(0, jobs.len) else share.divide(batch, parts);
    }

    pub fn open(share: *Share, key: *const [cipher.key_length]u8, jobs: []cipher.Open) void {
        const parts = share.partsOf(jobs.len, jobs[0].length);
        const batch: Batch = .{ .open = .{ .key = key, .jobs = jobs } };
        if (parts < 2) batch.run(0, jobs.len) else share.divide(batch, parts);
    }

    /// The packets of a batch are about equal in length.
    fn partsOf(share: *Share, packets: usize, length: usize) u8 {
        const idle = @popCount(share.pool.idle.load(.monotonic));
        if (idle == 0) return 1;
        const parts = @min(packets * length / part_bytes, packets);
        if (parts < 2) return 1;
        if (share.resting > 0) {
            share.resting -= 1;
            return 1;
        }
        return @intCast(@min(parts, std.math.maxInt(u8)));
    }

    fn divide(share: *Share, batch: Batch, parts: u8) void {
        const last: State = @bitCast(share.state.load(.monotonic));
        share.batch = batch;
        share.finished.store(0, .monotonic);
        const state: State = .{ .claimed = 0, .parts = parts, .generation = last.generation +% 1 };
        share.state.store(@bitCast(state), .release);
        _ = share.pool.call(parts - 1);
        const own = share.work();
        const was_prompt = share.waitFor(parts);
        share.learn(own < parts and was_prompt);
    }

    /// Works off parts until none is left to claim; returns how many it were.
    fn work(share: *Share) u8 {
        var done: u8 = 0;
        while (share.claim()) |claimed| : (done += 1) {
            // Good to read now: the batch cannot change before this part is finished.
            const packets = share.batch.length();
            const part: usize = claimed.claimed;
            share.batch.run(part * packets / claimed.parts, (part + 1) * packets / claimed.parts);
            const finished = share.finished.fetchAdd(1, .seq_cst) + 1;
            if (finished == claimed.parts and share.is_asleep.load(.seq_cst)) {
                _ = linux.futex_3arg(&share.finished.raw, .{ .cmd = .WAKE, .private = true }, 1);
            }
        }
        return done;
    }

    fn claim(share: *Share) ?State {
        var raw = share.state.load(.acquire);
        while (true) {
            const found: State = @bitCast(raw);
            if (found.claimed >= found.parts) return null;
            var next = found;
            next.claimed += 1;
            raw = share.state.cmpxchgWeak(raw, @bitCast(next), .acquire, .acquire) orelse return found;
        }
    }

    /// False when it took so long that a helper must have lost its core.
    fn waitFor(share: *Share, parts: u32) bool {
        for (0..looks) |_| {
            if (share.finished.load(.acquire) == parts) return true;
            std.atomic.spinLoopHint();
        }
        share.is_asleep.store(true, .seq_cst);
        defer share.is_asleep.store(false, .monotonic);
        while (true) {
            const finished = share.finished.load(.seq_cst);
            if (finished == parts) return false;
            _ = linux.futex_4arg(&share.finished.raw, .{ .cmd = .WAIT, .private = true }, finished, null);
        }
    }

    fn learn(share: *Share, was_useful: bool) void {
        if (was_useful) {
            share.rest = rest_min;
        } else {
            share.resting = share.rest;
            share.rest = @min(share.rest * 2, rest_max);
        }
    }

    // ---- the other side ----

    /// From here on others may call; to be said before waiting for events.
    pub fn offer(share: *Share) void {
        _ = share.pool.idle.fetchOr(@as(usize, 1) << @intCast(share.number), .release);
    }

    pub fn withdraw(share: *Share) void {
        _ = share.pool.idle.fetchAnd(~(@as(usize, 1) << @intCast(share.number)), .acquire);
    }

    /// Works for whoever has called.
    pub fn help(share: *Share) void {
        const count = share.pool.count.load(.acquire);
        for (share.pool.shares[0..count]) |other| {
            if (other != share) _ = other.work();
        }
    }
};

const testing = std.testing;

/// A helper that waits for calls, as a worker does.
const Helper = struct {
    share: Share,
    poller: io.poller.Poller,
    wakeup: io.poller.Wakeup,
    is_over: *std.atomic.Value(bool),
    helped: usize = 0,

    fn run(helper: *Helper) void {
        var events: [1]io.poller.Event = undefined;
        while (!helper.is_over.load(.acquire)) {
            helper.share.offer();
            _ = helper.poller.wait(&events, 10);
            helper.share.withdraw();
            if (helper.wakeup.drain()) {
                helper.share.help();
                helper.helped += 1;
            }
        }
    }
};

test "what several threads seal and open together is what one does alone" {
    const packets = 256;
    const length = 1024;
    const gpa = testing.allocator;
    var pool: Pool = .{};
    var is_over: std.atomic.Value(bool) = .init(false);
    var owner: Share = .{ .pool = &pool, .number = 0 };
    pool.join(&owner, .{ .fd = -1 });
    var helpers: [2]Helper = undefined;
    var threads: [2]std.Thread = undefined;
    for (&helpers, 1..) |*helper, number| {
        helper.* = .{
            .share = .{ .pool = &pool, .number = @intCast(number) },
            .poller = try .init(),
            .wakeup = try .init(),
            .is_over = &is_over,
        };
        try helper.poller.add(helper.wakeup.fd, 0, io.poller.in);
        pool.join(&helper.share, helper.wakeup);
    }
    for (&helpers, &threads) |*helper, *thread| {
        thread.* = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, Helper.run, .{helper});
    }
    const buffer = try gpa.alloc(u8, packets * (length + cipher.tag_length) * 2);
    defer gpa.free(buffer);
    const together = buffer[0 .. buffer.len / 2];
    const alone = buffer[buffer.len / 2 ..];
    const key: [32]u8 = @splat(7);
    var prng: std.Random.DefaultPrng = .init(1);
    for (0..50) |round| {
        // On a busy machine they come late, or not at all before it is over.
        for (0..100_000) |_| {
            if (pool.idle.load(.monotonic) == 0b110) break;
            io.clock.sleep(100 * std.time.ns_per_us);
        }
        prng.random().bytes(together);
        @memcpy(alone, together);
        var seals: [2][packets]cipher.Seal = undefined;
        var opens: [packets]cipher.Open = undefined;
        for (0..packets) |i| {
            for ([_][]u8{ together, alone }, &seals) |bytes, *jobs| {
                const place = bytes[i * (length + cipher.tag_length) ..].ptr;
                jobs[i] = .{ .source = place, .destination = place, .length = length };
            }
            opens[i] = .{
                .data = seals[0][i].destination,
                .length = length,
                .counter = round * packets + i,
                .authentic = false,
            };
        }
        owner.resting = 0; // whether they are of use is not the question here
        owner.seal(&key, round * packets, &seals[0]);
        cipher.sealBatch(&key, round * packets, &seals[1]);
        try testing.expectEqualSlices(u8, alone, together);
        owner.resting = 0;
        owner.open(&key, &opens);
        for (&opens) |*job| try testing.expect(job.authentic);
    }
    is_over.store(true, .release);
    for (threads, &helpers) |thread, *helper| {
        thread.join();
        helper.wakeup.deinit();
        helper.poller.deinit();
    }
    try testing.expect(helpers[0].helped + helpers[1].helped > 0);
}

test "helpers that were of no use are left alone for longer and longer, and for shorter again when they are" {
    var pool: Pool = .{};
    var share: Share = .{ .pool = &pool, .number = 0 };
    pool.join(&share, .{ .fd = -1 });
    try testing.expectEqual(1, share.partsOf(1000, 1420)); // nobody is idle
    pool.idle.store(2, .monotonic);
    try testing.expectEqual(1, share.partsOf(45, 1420));
    try testing.expectEqual(28, share.partsOf(1000, 1420));
    share.learn(false);
    for (0..rest_min) |_| try testing.expectEqual(1, share.partsOf(1000, 1420));
    try testing.expectEqual(28, share.partsOf(1000, 1420));
    share.learn(false);
    try testing.expectEqual(2 * rest_min, share.resting);
    for (0..20) |_| share.learn(false);
    try testing.expectEqual(rest_max, share.resting);
    share.resting = 0;
    share.learn(true);
    share.learn(false);
    try testing.expectEqual(rest_min, share.resting);
}
