//! Fan: batches for the cipher, worked off by the lane that has one together with lanes that have nothing to do.
//! One flow then uses several cores, and its order cannot change: whoever begins a batch goes on only when all of it
//! is done, and alone reads, reserves nonces, checks and writes.
//! Helpers that come late, or are taken off their core, are done without for a while: so a machine without idle
//! cores pays nothing but a try now and then.
//! Invariant: a batch is published anew only when every part that was claimed of the last one is finished.
const std = @import("std");
const assert = std.debug.assert;
const linux = std.os.linux;
const cipher = @import("cipher");
const io = @import("io");

/// Lanes of a device at most; the crew has a bit for each.
pub const lanes_max = @bitSizeOf(usize);
/// Less than this is sealed sooner than a helper is awake: about 20 microseconds of the cipher.
const part_bytes = 48 << 10;
/// Looks for the last helper before sleeping: some ten microseconds, half a part.
const looks = 2_000;
/// Batches without helpers after they were of no use, at first and at most.
const rest_min = 8;
const rest_max = 4096;

/// Who has nothing to do, and what wakes them.
pub const Crew = struct {
    idle: std.atomic.Value(usize) = .init(0),
    fans: [lanes_max]*Fan = undefined,
    wakeups: [lanes_max]io.poller.Wakeup = undefined,
    count: std.atomic.Value(u8) = .init(0),

    /// In the order of the lanes' numbers.
    pub fn join(crew: *Crew, fan: *Fan, wakeup: io.poller.Wakeup) void {
        const number = crew.count.load(.monotonic);
        assert(number < lanes_max and fan.number == number);
        crew.fans[number] = fan;
        crew.wakeups[number] = wakeup;
        crew.count.store(number + 1, .release);
    }

    /// Calls up to `wanted` idle lanes; returns how many there were.
    fn call(crew: *Crew, wanted: usize) usize {
        for (0..wanted) |called| {
            const idle = crew.idle.load(.monotonic);
            if (idle == 0) return called;
            const number: std.math.Log2Int(usize) = @intCast(@ctz(idle));
            const bit = @as(usize, 1) << number;
            // Whoever takes the bit away calls, so that none is called twice.
            if (crew.idle.fetchAnd(~bit, .acquire) & bit != 0) crew.wakeups[number].signal();
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

pub const Fan = struct {
    crew: *Crew,
    number: u8,
    state: std.atomic.Value(u32) = .init(0),
    finished: std.atomic.Value(u32) = .init(0),
    /// Whoever has this batch sleeps until the last part is finished.
    is_asleep: std.atomic.Value(bool) = .init(false),
    batch: Batch = undefined,
    /// Batches still to do alone, and how many next time.
    resting: u32 = 0,
    rest: u32 = rest_min,

    pub fn seal(fan: *Fan, key: *const [cipher.key_length]u8, counter: u64, jobs: []const cipher.Seal) void {
        const parts = fan.partsOf(jobs.len, jobs[0].length);
        const batch: Batch = .{ .seal = .{ .key = key, .counter = counter, .jobs = jobs } };
        if (parts < 2) batch.run(0, jobs.len) else fan.share(batch, parts);
    }

    pub fn open(fan: *Fan, key: *const [cipher.key_length]u8, jobs: []cipher.Open) void {
        const parts = fan.partsOf(jobs.len, jobs[0].length);
        const batch: Batch = .{ .open = .{ .key = key, .jobs = jobs } };
        if (parts < 2) batch.run(0, jobs.len) else fan.share(batch, parts);
    }

    /// The packets of a batch are about equal in length.
    fn partsOf(fan: *Fan, packets: usize, length: usize) u8 {
        const idle = @popCount(fan.crew.idle.load(.monotonic));
        if (idle == 0) return 1;
        const parts = @min(packets * length / part_bytes, packets);
        if (parts < 2) return 1;
        if (fan.resting > 0) {
            fan.resting -= 1;
            return 1;
        }
        return @intCast(@min(parts, std.math.maxInt(u8)));
    }

    fn share(fan: *Fan, batch: Batch, parts: u8) void {
        const last: State = @bitCast(fan.state.load(.monotonic));
        fan.batch = batch;
        fan.finished.store(0, .monotonic);
        const state: State = .{ .claimed = 0, .parts = parts, .generation = last.generation +% 1 };
        fan.state.store(@bitCast(state), .release);
        _ = fan.crew.call(parts - 1);
        const own = fan.work();
        const was_prompt = fan.waitFor(parts);
        fan.learn(own < parts and was_prompt);
    }

    /// Works off parts until none is left to claim; returns how many it were.
    fn work(fan: *Fan) u8 {
        var done: u8 = 0;
        while (fan.claim()) |claimed| : (done += 1) {
            // Good to read now: the batch cannot change before this part is finished.
            const packets = fan.batch.length();
            const part: usize = claimed.claimed;
            fan.batch.run(part * packets / claimed.parts, (part + 1) * packets / claimed.parts);
            const finished = fan.finished.fetchAdd(1, .seq_cst) + 1;
            if (finished == claimed.parts and fan.is_asleep.load(.seq_cst)) {
                _ = linux.futex_3arg(&fan.finished.raw, .{ .cmd = .WAKE, .private = true }, 1);
            }
        }
        return done;
    }

    fn claim(fan: *Fan) ?State {
        var raw = fan.state.load(.acquire);
        while (true) {
            const found: State = @bitCast(raw);
            if (found.claimed >= found.parts) return null;
            var next = found;
            next.claimed += 1;
            raw = fan.state.cmpxchgWeak(raw, @bitCast(next), .acquire, .acquire) orelse return found;
        }
    }

    /// False when it took so long that a helper must have lost its core.
    fn waitFor(fan: *Fan, parts: u32) bool {
        for (0..looks) |_| {
            if (fan.finished.load(.acquire) == parts) return true;
            std.atomic.spinLoopHint();
        }
        fan.is_asleep.store(true, .seq_cst);
        defer fan.is_asleep.store(false, .monotonic);
        while (true) {
            const finished = fan.finished.load(.seq_cst);
            if (finished == parts) return false;
            _ = linux.futex_4arg(&fan.finished.raw, .{ .cmd = .WAIT, .private = true }, finished, null);
        }
    }

    fn learn(fan: *Fan, was_useful: bool) void {
        if (was_useful) {
            fan.rest = rest_min;
        } else {
            fan.resting = fan.rest;
            fan.rest = @min(fan.rest * 2, rest_max);
        }
    }

    // ---- the other side ----

    /// From here on others may call; to be said before waiting for events.
    pub fn offer(fan: *Fan) void {
        _ = fan.crew.idle.fetchOr(@as(usize, 1) << @intCast(fan.number), .release);
    }

    pub fn withdraw(fan: *Fan) void {
        _ = fan.crew.idle.fetchAnd(~(@as(usize, 1) << @intCast(fan.number)), .acquire);
    }

    /// Works for whoever has called.
    pub fn help(fan: *Fan) void {
        const count = fan.crew.count.load(.acquire);
        for (fan.crew.fans[0..count]) |other| {
            if (other != fan) _ = other.work();
        }
    }
};

const testing = std.testing;

/// A helper that waits for calls, as a lane does.
const Helper = struct {
    fan: Fan,
    poller: io.poller.Poller,
    wakeup: io.poller.Wakeup,
    is_over: *std.atomic.Value(bool),
    helped: usize = 0,

    fn run(helper: *Helper) void {
        var events: [1]io.poller.Event = undefined;
        while (!helper.is_over.load(.acquire)) {
            helper.fan.offer();
            _ = helper.poller.wait(&events, 10);
            helper.fan.withdraw();
            if (helper.wakeup.drain()) {
                helper.fan.help();
                helper.helped += 1;
            }
        }
    }
};

test "what several threads seal and open together is what one does alone" {
    const packets = 256;
    const length = 1024;
    const gpa = testing.allocator;
    var crew: Crew = .{};
    var is_over: std.atomic.Value(bool) = .init(false);
    var owner: Fan = .{ .crew = &crew, .number = 0 };
    crew.join(&owner, .{ .fd = -1 });
    var helpers: [2]Helper = undefined;
    var threads: [2]std.Thread = undefined;
    for (&helpers, 1..) |*helper, number| {
        helper.* = .{ .fan = .{ .crew = &crew, .number = @intCast(number) }, .poller = try .init(), .wakeup = try .init(), .is_over = &is_over };
        try helper.poller.add(helper.wakeup.fd, 0, io.poller.in);
        crew.join(&helper.fan, helper.wakeup);
    }
    for (&helpers, &threads) |*helper, *thread| thread.* = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, Helper.run, .{helper});
    const buffer = try gpa.alloc(u8, packets * (length + cipher.tag_length) * 2);
    defer gpa.free(buffer);
    const together = buffer[0 .. buffer.len / 2];
    const alone = buffer[buffer.len / 2 ..];
    const key: [32]u8 = @splat(7);
    var prng: std.Random.DefaultPrng = .init(1);
    for (0..50) |round| {
        // On a busy machine they come late, or not at all before it is over.
        for (0..100_000) |_| if (crew.idle.load(.monotonic) != 0b110) io.clock.sleep(100 * std.time.ns_per_us) else break;
        prng.random().bytes(together);
        @memcpy(alone, together);
        var seals: [2][packets]cipher.Seal = undefined;
        var opens: [packets]cipher.Open = undefined;
        for (0..packets) |i| {
            for ([_][]u8{ together, alone }, &seals) |bytes, *jobs| {
                const place = bytes[i * (length + cipher.tag_length) ..].ptr;
                jobs[i] = .{ .source = place, .destination = place, .length = length };
            }
            opens[i] = .{ .data = seals[0][i].destination, .length = length, .counter = round * packets + i, .authentic = false };
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
    var crew: Crew = .{};
    var fan: Fan = .{ .crew = &crew, .number = 0 };
    crew.join(&fan, .{ .fd = -1 });
    try testing.expectEqual(1, fan.partsOf(1000, 1420)); // nobody is idle
    crew.idle.store(2, .monotonic);
    try testing.expectEqual(1, fan.partsOf(45, 1420));
    try testing.expectEqual(28, fan.partsOf(1000, 1420));
    fan.learn(false);
    for (0..rest_min) |_| try testing.expectEqual(1, fan.partsOf(1000, 1420));
    try testing.expectEqual(28, fan.partsOf(1000, 1420));
    fan.learn(false);
    try testing.expectEqual(2 * rest_min, fan.resting);
    for (0..20) |_| fan.learn(false);
    try testing.expectEqual(rest_max, fan.resting);
    fan.resting = 0;
    fan.learn(true);
    fan.learn(false);
    try testing.expectEqual(rest_min, fan.resting);
}
