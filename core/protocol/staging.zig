//! Packets that wait for a session (section 6.4: "queued"): one pool of chunks for all peers, a FIFO for each.
//! Knows bytes, not peers or packets' contents. The pool is allocated once; staging never allocates. Its memory is
//! touched only as far as packets waited at one time.
//! A peer that never answers, kept alive by its persistent keepalive, holds what it staged for ever. So a queue may
//! grow only up to a share of what is still free, and where that is too little for its first packets, the queue that
//! has waited longest gives up its own: thousands of silent peers cost a peer that is there none of the packets that
//! start a connection.
//! Invariant: every chunk below `high` is in the free list or in exactly one queue. A queue that holds packets stays
//! where it is, for others know it by its address.
const std = @import("std");
const constants = @import("constants.zig");
const untouched = @import("untouched.zig");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;

/// A full-size packet of an ordinary MTU fits into one.
pub const chunk_size = 2048;

const none = std.math.maxInt(u32);

/// A queue that holds more than this part of what is free gives up its oldest packets for a new one. With it n peers
/// that hold all they can leave 4 / (4 + n) of the pool.
const share_divisor = 4;

/// A queue of fewer chunks may take room from those that have waited longer: what a connection begins with.
const first_chunks = 16;

/// The packets of one peer, oldest first. Lives in the Peer; only the Pool it was filled from may touch it.
pub const Queue = struct {
    head: u32 = none,
    tail: u32 = none,
    packets: u32 = 0,
    chunks: u32 = 0,
    /// While it holds packets: those that came to hold some before it, and after.
    older: ?*Queue = null,
    younger: ?*Queue = null,

    pub const empty: Queue = .{};
};

pub const PushResult = struct {
    /// Packets that made way: older ones of the same queue, or those of queues that have waited longer.
    dropped: u32,
    stored: bool,
};

pub const Pool = struct {
    memory: []u8,
    links: []Link,
    /// Chunks from here on were never used.
    high: u32 = 0,
    free_head: u32 = none,
    free_count: u32,
    /// Of the queues that hold packets.
    oldest: ?*Queue = null,
    youngest: ?*Queue = null,

    const Link = struct {
        /// The next chunk of the queue, or of the free list.
        next: u32,
        /// In the first chunk of a packet: the length of the packet.
        length: u32,
    };

    pub fn init(gpa: Allocator, chunk_count: u32) Allocator.Error!Pool {
        assert(chunk_count < none);
        const bytes = std.math.mul(usize, chunk_count, chunk_size) catch return error.OutOfMemory;
        const memory = try untouched.alloc(u8, gpa, bytes);
        errdefer untouched.free(gpa, memory);
        return .{
            .memory = memory,
            .links = try untouched.alloc(Link, gpa, chunk_count),
            .free_count = chunk_count,
        };
    }

    pub fn deinit(pool: *Pool, gpa: Allocator) void {
        std.crypto.secureZero(u8, pool.memory[0 .. @as(usize, pool.high) * chunk_size]); // plaintext waited here
        untouched.free(gpa, pool.memory);
        untouched.free(gpa, pool.links);
        pool.* = undefined;
    }

    /// Keeps a copy. A full queue, or more than its share of the pool, costs the queue's oldest packets, as a full
    /// one does in the kernel. Its first packets cost those of the queues that have waited longest instead; who has
    /// waited longer is never put aside for another that has. Not stored: even all of them would not have been enough.
    /// Takes the time of some dozen packets at most, however many queues there are.
    pub fn push(pool: *Pool, queue: *Queue, bytes: []const u8) PushResult {
        const needed = chunksFor(bytes.len);
        if (needed > pool.links.len) return .{ .dropped = 0, .stored = false };
        var dropped: u32 = 0;
        const is_first = queue.packets == 0 or queue.chunks + needed <= first_chunks;
        if (is_first) while (!pool.hasRoom(queue, needed)) : (dropped += 1) {
            if (pool.oldest.? == queue) break;
            pool.dropOldest(pool.oldest.?);
        };
        if (needed > @as(u64, pool.free_count) + queue.chunks) return .{ .dropped = dropped, .stored = false };
        while (queue.packets != 0 and !pool.hasRoom(queue, needed)) : (dropped += 1) pool.dropOldest(queue);
        pool.append(queue, bytes);
        return .{ .dropped = dropped, .stored = true };
    }

    fn hasRoom(pool: *const Pool, queue: *const Queue, needed: u64) bool {
        return queue.packets < constants.staged_packets_max and needed <= pool.free_count and
            @as(u64, queue.chunks) * share_divisor < pool.free_count;
    }

    /// Length of the oldest packet.
    pub fn peekLength(pool: *const Pool, queue: *const Queue) ?usize {
        return if (queue.head == none) null else pool.links[queue.head].length;
    }

    /// Takes the oldest packet out and copies it; `out` holds at least peekLength. Returns its length.
    pub fn pop(pool: *Pool, queue: *Queue, out: []u8) ?usize {
        const length = pool.peekLength(queue) orelse return null;
        assert(out.len >= length);
        var chunk = queue.head;
        var done: usize = 0;
        while (done < length) {
            const part = @min(length - done, chunk_size);
            @memcpy(out[done..][0..part], pool.chunkBytes(chunk)[0..part]);
            done += part;
            chunk = pool.links[chunk].next;
        }
        pool.dropOldest(queue);
        return length;
    }

    /// The packets of a queue as they lie there, the oldest first: the length of each, and its bytes.
    pub fn writeAll(pool: *Pool, queue: *const Queue, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        var chunk = queue.head;
        for (0..queue.packets) |_| {
            var left: usize = pool.links[chunk].length;
            try writer.writeInt(u32, @intCast(left), .little);
            for (0..@intCast(chunksFor(left))) |_| {
                const part = @min(left, chunk_size);
                try writer.writeAll(pool.chunkBytes(chunk)[0..part]);
                left -= part;
                chunk = pool.links[chunk].next;
            }
        }
    }

    /// As `push`, of a packet that had found its room elsewhere: no other makes way for it. False without room.
    pub fn restore(pool: *Pool, queue: *Queue, bytes: []const u8) bool {
        if (chunksFor(bytes.len) > pool.free_count) return false;
        pool.append(queue, bytes);
        return true;
    }

    /// Empties the queue; returns how many packets it had.
    pub fn clear(pool: *Pool, queue: *Queue) u32 {
        const packets = queue.packets;
        while (queue.packets > 0) pool.dropOldest(queue);
        return packets;
    }

    fn append(pool: *Pool, queue: *Queue, bytes: []const u8) void {
        if (queue.packets == 0) pool.beginWaiting(queue);
        const chunk_count = chunksFor(bytes.len);
        for (0..@intCast(chunk_count)) |i| {
            const chunk = pool.take();
            pool.links[chunk] = .{ .next = none, .length = if (i == 0) @intCast(bytes.len) else 0 };
            const part = bytes[i * chunk_size .. @min(bytes.len, (i + 1) * chunk_size)];
            @memcpy(pool.chunkBytes(chunk)[0..part.len], part);
            if (queue.tail == none) queue.head = chunk else pool.links[queue.tail].next = chunk;
            queue.tail = chunk;
        }
        pool.free_count -= @intCast(chunk_count);
        queue.chunks += @intCast(chunk_count);
        queue.packets += 1;
    }

    /// Those that were used before go first.
    fn take(pool: *Pool) u32 {
        const chunk = pool.free_head;
        if (chunk != none) {
            pool.free_head = pool.links[chunk].next;
            return chunk;
        }
        assert(pool.high < pool.links.len);
        defer pool.high += 1;
        return pool.high;
    }

    fn dropOldest(pool: *Pool, queue: *Queue) void {
        const chunk_count: u32 = @intCast(chunksFor(pool.links[queue.head].length));
        for (0..chunk_count) |_| {
            const chunk = queue.head;
            std.crypto.secureZero(u8, pool.chunkBytes(chunk)); // plaintext of a peer
            queue.head = pool.links[chunk].next;
            pool.links[chunk].next = pool.free_head;
            pool.free_head = chunk;
        }
        if (queue.head == none) queue.tail = none;
        pool.free_count += chunk_count;
        queue.chunks -= chunk_count;
        queue.packets -= 1;
        assert((queue.packets == 0) == (queue.chunks == 0));
        if (queue.packets == 0) pool.endWaiting(queue);
    }

    fn beginWaiting(pool: *Pool, queue: *Queue) void {
        queue.older = pool.youngest;
        queue.younger = null;
        if (pool.youngest) |last| last.younger = queue else pool.oldest = queue;
        pool.youngest = queue;
    }

    fn endWaiting(pool: *Pool, queue: *Queue) void {
        if (queue.older) |older| older.younger = queue.younger else pool.oldest = queue.younger;
        if (queue.younger) |younger| younger.older = queue.older else pool.youngest = queue.older;
        queue.older = null;
        queue.younger = null;
    }

    /// An empty packet takes a chunk too: its place in the queue.
    fn chunksFor(length: usize) u64 {
        return @max(1, std.math.divCeil(u64, length, chunk_size) catch unreachable);
    }

    fn chunkBytes(pool: *Pool, chunk: u32) []u8 {
        return pool.memory[@as(usize, chunk) * chunk_size ..][0..chunk_size];
    }
};

const testing = std.testing;

test "packets come out in order and whole, whatever their length" {
    const gpa = testing.allocator;
    var pool: Pool = try .init(gpa, 200);
    defer pool.deinit(gpa);
    var queue: Queue = .empty;
    var sent: [65535]u8 = undefined;
    var prng: std.Random.DefaultPrng = .init(4);
    prng.random().bytes(&sent);
    var received: [65535]u8 = undefined;
    for ([_]usize{ 0, 1, 2047, 2048, 2049, 4096, 65535 }) |length| {
        try testing.expectEqual(PushResult{ .dropped = 0, .stored = true }, pool.push(&queue, sent[0..length]));
        try testing.expectEqual(PushResult{ .dropped = 0, .stored = true }, pool.push(&queue, "second"));
        try testing.expectEqual(length, pool.peekLength(&queue));
        try testing.expectEqual(length, pool.pop(&queue, &received));
        try testing.expectEqualSlices(u8, sent[0..length], received[0..length]);
        try testing.expectEqual(6, pool.pop(&queue, &received));
        try testing.expectEqualStrings("second", received[0..6]);
        try testing.expectEqual(null, pool.pop(&queue, &received));
        try testing.expectEqual(null, pool.peekLength(&queue));
    }
    try testing.expectEqual(200, pool.free_count);
}

test "a full queue loses its oldest packet" {
    const gpa = testing.allocator;
    var pool: Pool = try .init(gpa, constants.staged_packets_max * (share_divisor + 1));
    defer pool.deinit(gpa);
    var queue: Queue = .empty;
    for (0..constants.staged_packets_max) |i| {
        try testing.expectEqual(PushResult{ .dropped = 0, .stored = true }, pool.push(&queue, &.{@intCast(i)}));
    }
    try testing.expectEqual(PushResult{ .dropped = 1, .stored = true }, pool.push(&queue, "x"));
    var out: [1]u8 = undefined;
    try testing.expectEqual(1, pool.pop(&queue, &out));
    try testing.expectEqual(1, out[0]);
    try testing.expectEqual(constants.staged_packets_max - 1, pool.clear(&queue));
    try testing.expectEqual(pool.links.len, pool.free_count);
    // Nothing stays of what waited.
    try testing.expect(std.mem.allEqual(u8, pool.memory[0 .. constants.staged_packets_max * chunk_size], 0));
}

test "in an exhausted pool a queue pays for more than its first packets itself, and those who wait longest for them" {
    const gpa = testing.allocator;
    var pool: Pool = try .init(gpa, 20);
    defer pool.deinit(gpa);
    var first: Queue = .empty;
    var second: Queue = .empty;
    var third: Queue = .empty;
    const most: [19 * chunk_size]u8 = @splat(1);
    const two_chunks: [2 * chunk_size]u8 = @splat(2);
    try testing.expect(pool.push(&first, &most).stored);
    try testing.expect(pool.push(&second, "a").stored);
    // The one that has waited longest takes from nobody.
    try testing.expectEqual(PushResult{ .dropped = 1, .stored = true }, pool.push(&first, &two_chunks));
    try testing.expectEqual(1, second.packets);
    // It began anew with that, and so the other one has waited longer.
    try testing.expectEqual(&second, pool.oldest.?);
    try testing.expectEqual(PushResult{ .dropped = 2, .stored = true }, pool.push(&third, &most));
    try testing.expectEqual(0, first.packets + second.packets);
    try testing.expectEqual(PushResult{ .dropped = 1, .stored = true }, pool.push(&third, &two_chunks));
    // What never fits costs nothing.
    const too_many: [21 * chunk_size]u8 = @splat(5);
    try testing.expectEqual(PushResult{ .dropped = 0, .stored = false }, pool.push(&third, &too_many));
    try testing.expectEqual(1, pool.clear(&third));
    try testing.expectEqual(0, pool.clear(&third));
    try testing.expectEqual(20, pool.free_count);
    try testing.expect(pool.oldest == null and pool.youngest == null);
}

test "silent peers with one packet each, as many as there is room for, cost a live peer none of its first packets" {
    const gpa = testing.allocator;
    var pool: Pool = try .init(gpa, 1024);
    defer pool.deinit(gpa);
    const silent = try gpa.alloc(Queue, 2048);
    defer gpa.free(silent);
    @memset(silent, .empty);
    for (silent) |*queue| try testing.expect(pool.push(queue, "x").stored);
    var alive: Queue = .empty;
    for (0..first_chunks) |i| {
        try testing.expect(pool.push(&alive, &.{@intCast(i)}).stored);
        // The others go on trying.
        for (0..20) |k| try testing.expect(pool.push(&silent[1024 + i * 20 + k], "x").stored);
    }
    try testing.expectEqual(first_chunks, alive.packets);
    var out: [1]u8 = undefined;
    for (0..first_chunks) |i| {
        try testing.expectEqual(1, pool.pop(&alive, &out));
        try testing.expectEqual(i, out[0]);
    }
    for (silent) |*queue| _ = pool.clear(queue);
    try testing.expectEqual(1024, pool.free_count);
}

test "peers that never answer leave room for the others" {
    const gpa = testing.allocator;
    var pool: Pool = try .init(gpa, 1024);
    defer pool.deinit(gpa);
    var dead: [100]Queue = @splat(.empty);
    for (0..1000) |_| for (&dead) |*queue| {
        try testing.expect(pool.push(queue, "x").stored);
    };
    var alive: Queue = .empty;
    for (0..8) |_| try testing.expect(pool.push(&alive, "y").stored);
    try testing.expectEqual(8, alive.packets);
    for (&dead) |*queue| _ = pool.clear(queue);
    _ = pool.clear(&alive);
}

test "what never waited is never touched" {
    const chunks = 64;
    var memory: [(chunks + 1) * chunk_size]u8 align(64) = @splat(0x5a);
    var bump: std.heap.FixedBufferAllocator = .init(&memory);
    var pool: Pool = try .init(bump.allocator(), chunks);
    var queue: Queue = .empty;
    const packet: [3 * chunk_size]u8 = @splat(7);
    for (0..100) |_| {
        try testing.expect(pool.push(&queue, &packet).stored);
        try testing.expect(pool.push(&queue, "x").stored);
        try testing.expectEqual(2, pool.clear(&queue));
    }
    try testing.expectEqual(4, pool.high);
    try testing.expect(std.mem.allEqual(u8, pool.memory[4 * chunk_size ..], 0x5a));
    const rest = pool.memory[4 * chunk_size ..];
    pool.deinit(bump.allocator());
    try testing.expect(std.mem.allEqual(u8, rest, 0x5a));
}

test "a pool without chunks stores nothing" {
    var pool: Pool = try .init(testing.allocator, 0);
    defer pool.deinit(testing.allocator);
    var queue: Queue = .empty;
    try testing.expect(!pool.push(&queue, "").stored);
}

test "random pushes and pops agree with a list, and no chunk is lost" {
    const gpa = testing.allocator;
    var pool: Pool = try .init(gpa, 64);
    defer pool.deinit(gpa);
    const Packet = struct { length: usize, seed: u8 };
    var queues: [4]Queue = @splat(.empty);
    var models: [4]std.ArrayList(Packet) = @splat(.empty);
    defer for (&models) |*model| model.deinit(gpa);
    var prng: std.Random.DefaultPrng = .init(5);
    const random = prng.random();
    var buffer: [10_000]u8 = undefined;
    for (0..20_000) |_| {
        const which = random.uintLessThan(usize, queues.len);
        const queue = &queues[which];
        const model = &models[which];
        if (random.uintLessThan(u8, 5) < 3) {
            const length = random.uintAtMost(usize, if (random.uintLessThan(u8, 8) == 0) buffer.len else 1500);
            const seed = random.int(u8);
            @memset(buffer[0..length], seed);
            const result = pool.push(queue, buffer[0..length]);
            if (result.stored) try model.append(gpa, .{ .length = length, .seed = seed });
            // Whoever had to give way lost its oldest.
            var dropped: u32 = 0;
            for (&queues, &models) |*one, *of_one| while (of_one.items.len > one.packets) : (dropped += 1) {
                _ = of_one.orderedRemove(0);
            };
            try testing.expectEqual(result.dropped, dropped);
        } else if (pool.pop(queue, &buffer)) |length| {
            const expected = model.orderedRemove(0);
            try testing.expectEqual(expected.length, length);
            try testing.expect(std.mem.allEqual(u8, buffer[0..length], expected.seed));
        }
        try testing.expectEqual(model.items.len, queue.packets);
        var chunks: u32 = pool.free_count;
        var waiting: usize = 0;
        for (queues) |q| {
            chunks += q.chunks;
            waiting += @intFromBool(q.packets != 0);
        }
        try testing.expectEqual(64, chunks);
        var at = pool.oldest;
        while (at) |q| : (at = q.younger) waiting -= 1;
        try testing.expectEqual(0, waiting);
    }
}
