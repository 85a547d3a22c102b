//! Heap: the peers that wait for something, the earliest deadline first. A binary min-heap with
//! back-pointers, so that a peer's deadline can be changed or taken away. Knows no clock.
//! Invariant: positions[items[i].peer] == i, and no item is earlier than its parent.
const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;

pub const Heap = struct {
    items: std.ArrayList(Item) = .empty,
    /// Peer index -> place in items, or `absent`.
    positions: std.ArrayList(u32) = .empty,

    pub const init: Heap = .{};

    pub const Item = struct {
        deadline: u64,
        peer: u32,
    };

    const absent = std.math.maxInt(u32);

    pub fn deinit(heap: *Heap, gpa: Allocator) void {
        heap.items.deinit(gpa);
        heap.positions.deinit(gpa);
        heap.* = undefined;
    }

    /// Makes the peer indices below `peer_count` usable.
    pub fn ensureCapacity(heap: *Heap, gpa: Allocator, peer_count: u32) Allocator.Error!void {
        try heap.items.ensureTotalCapacity(gpa, peer_count);
        try heap.positions.ensureTotalCapacity(gpa, peer_count);
        while (heap.positions.items.len < peer_count) heap.positions.appendAssumeCapacity(absent);
    }

    /// The earliest; among equals, any.
    pub fn min(heap: *const Heap) ?Item {
        return if (heap.items.items.len == 0) null else heap.items.items[0];
    }

    pub fn get(heap: *const Heap, peer: u32) ?u64 {
        const position = heap.positions.items[peer];
        return if (position == absent) null else heap.items.items[position].deadline;
    }

    /// Adds the peer, or moves it to a new deadline.
    pub fn set(heap: *Heap, peer: u32, deadline: u64) void {
        const item: Item = .{ .deadline = deadline, .peer = peer };
        const position = heap.positions.items[peer];
        if (position == absent) {
            heap.items.appendAssumeCapacity(item);
            heap.rise(heap.items.items.len - 1, item);
        } else if (deadline < heap.items.items[position].deadline) {
            heap.rise(position, item);
        } else {
            heap.sink(position, item);
        }
    }

    /// Without effect when the peer waits for nothing.
    pub fn remove(heap: *Heap, peer: u32) void {
        const position = heap.positions.items[peer];
        if (position == absent) return;
        heap.positions.items[peer] = absent;
        const last = heap.items.pop().?;
        if (last.peer == peer) return;
        // The last item fills the gap; it comes from another branch, so it may have to go either way.
        if (position > 0 and last.deadline < heap.items.items[(position - 1) / 2].deadline) {
            heap.rise(position, last);
        } else {
            heap.sink(position, last);
        }
    }

    fn rise(heap: *Heap, start: usize, item: Item) void {
        const items = heap.items.items;
        var at = start;
        while (at > 0) {
            const parent = (at - 1) / 2;
            if (items[parent].deadline <= item.deadline) break;
            heap.place(at, items[parent]);
            at = parent;
        }
        heap.place(at, item);
    }

    fn sink(heap: *Heap, start: usize, item: Item) void {
        const items = heap.items.items;
        var at = start;
        while (at * 2 + 1 < items.len) {
            var child = at * 2 + 1;
            if (child + 1 < items.len and items[child + 1].deadline < items[child].deadline) child += 1;
            if (item.deadline <= items[child].deadline) break;
            heap.place(at, items[child]);
            at = child;
        }
        heap.place(at, item);
    }

    fn place(heap: *Heap, at: usize, item: Item) void {
        heap.items.items[at] = item;
        heap.positions.items[item.peer] = @intCast(at);
    }
};

const testing = std.testing;

fn expectSound(heap: *const Heap) !void {
    var live: usize = 0;
    for (heap.positions.items, 0..) |position, peer| {
        if (position == Heap.absent) continue;
        try testing.expectEqual(peer, heap.items.items[position].peer);
        live += 1;
    }
    try testing.expectEqual(live, heap.items.items.len);
    const items = heap.items.items;
    for (items, 0..) |item, i| {
        if (i > 0) try testing.expect(items[(i - 1) / 2].deadline <= item.deadline);
    }
}

test "random deadlines come out as from a linear search" {
    const gpa = testing.allocator;
    var heap: Heap = .init;
    defer heap.deinit(gpa);
    try heap.ensureCapacity(gpa, 40);
    try heap.ensureCapacity(gpa, 100);
    try heap.ensureCapacity(gpa, 10);
    var model: [100]?u64 = @splat(null);
    var prng: std.Random.DefaultPrng = .init(3);
    const random = prng.random();
    for (0..30_000) |step| {
        const peer = random.uintLessThan(u32, model.len);
        if (random.uintLessThan(u8, 3) == 0) {
            heap.remove(peer);
            model[peer] = null;
        } else {
            const deadline = if (random.boolean()) random.uintLessThan(u64, 50) else random.int(u64);
            heap.set(peer, deadline);
            model[peer] = deadline;
        }
        var earliest: ?u64 = null;
        for (model) |deadline| {
            if (deadline) |d| earliest = @min(d, earliest orelse d);
        }
        if (heap.min()) |item| {
            try testing.expectEqual(earliest, item.deadline);
            try testing.expectEqual(model[item.peer], item.deadline);
        } else try testing.expectEqual(null, earliest);
        try testing.expectEqual(model[peer], heap.get(peer));
        if (step % 100 == 0) try expectSound(&heap);
    }
    while (heap.min()) |item| heap.remove(item.peer);
    try expectSound(&heap);
}
