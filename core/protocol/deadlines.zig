//! Deadlines: the peers that wait for something, the earliest deadline first. A binary min-heap with
//! back-pointers, so that a peer's deadline can be changed or taken away. Knows no clock.
//! Invariant: positions[items[i].peer] == i, and no item is earlier than its parent.
const std = @import("std");
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;

pub const Deadlines = struct {
    items: std.ArrayList(Item) = .empty,
    /// Peer index -> place in items, or `absent`.
    positions: std.ArrayList(u32) = .empty,

    pub const init: Deadlines = .{};

    pub const Item = struct {
        deadline: u64,
        peer: u32,
    };

    const absent = std.math.maxInt(u32);

    pub fn deinit(deadlines: *Deadlines, gpa: Allocator) void {
        deadlines.items.deinit(gpa);
        deadlines.positions.deinit(gpa);
        deadlines.* = undefined;
    }

    /// Makes the peer indices below `peer_count` usable.
    pub fn ensureCapacity(deadlines: *Deadlines, gpa: Allocator, peer_count: u32) Allocator.Error!void {
        try deadlines.items.ensureTotalCapacity(gpa, peer_count);
        try deadlines.positions.ensureTotalCapacity(gpa, peer_count);
        while (deadlines.positions.items.len < peer_count) deadlines.positions.appendAssumeCapacity(absent);
    }

    /// The earliest; among equals, any.
    pub fn min(deadlines: *const Deadlines) ?Item {
        return if (deadlines.items.items.len == 0) null else deadlines.items.items[0];
    }

    pub fn get(deadlines: *const Deadlines, peer: u32) ?u64 {
        const position = deadlines.positions.items[peer];
        return if (position == absent) null else deadlines.items.items[position].deadline;
    }

    /// Adds the peer, or moves it to a new deadline.
    pub fn set(deadlines: *Deadlines, peer: u32, deadline: u64) void {
        const item: Item = .{ .deadline = deadline, .peer = peer };
        const position = deadlines.positions.items[peer];
        if (position == absent) {
            deadlines.items.appendAssumeCapacity(item);
            deadlines.rise(deadlines.items.items.len - 1, item);
        } else if (deadline < deadlines.items.items[position].deadline) {
            deadlines.rise(position, item);
        } else {
            deadlines.sink(position, item);
        }
    }

    /// Without effect when the peer waits for nothing.
    pub fn remove(deadlines: *Deadlines, peer: u32) void {
        const position = deadlines.positions.items[peer];
        if (position == absent) return;
        deadlines.positions.items[peer] = absent;
        const last = deadlines.items.pop().?;
        if (last.peer == peer) return;
        // The last item fills the gap; it comes from another branch, so it may have to go either way.
        if (position > 0 and last.deadline < deadlines.items.items[(position - 1) / 2].deadline) {
            deadlines.rise(position, last);
        } else {
            deadlines.sink(position, last);
        }
    }

    fn rise(deadlines: *Deadlines, start: usize, item: Item) void {
        const items = deadlines.items.items;
        var at = start;
        while (at > 0) {
            const parent = (at - 1) / 2;
            if (items[parent].deadline <= item.deadline) break;
            deadlines.place(at, items[parent]);
            at = parent;
        }
        deadlines.place(at, item);
    }

    fn sink(deadlines: *Deadlines, start: usize, item: Item) void {
        const items = deadlines.items.items;
        var at = start;
        while (at * 2 + 1 < items.len) {
            var child = at * 2 + 1;
            if (child + 1 < items.len and items[child + 1].deadline < items[child].deadline) child += 1;
            if (item.deadline <= items[child].deadline) break;
            deadlines.place(at, items[child]);
            at = child;
        }
        deadlines.place(at, item);
    }

    fn place(deadlines: *Deadlines, at: usize, item: Item) void {
        deadlines.items.items[at] = item;
        deadlines.positions.items[item.peer] = @intCast(at);
    }
};

const testing = std.testing;

fn expectSound(deadlines: *const Deadlines) !void {
    var live: usize = 0;
    for (deadlines.positions.items, 0..) |position, peer| {
        if (position == Deadlines.absent) continue;
        try testing.expectEqual(peer, deadlines.items.items[position].peer);
        live += 1;
    }
    try testing.expectEqual(live, deadlines.items.items.len);
    const items = deadlines.items.items;
    for (items, 0..) |item, i| {
        if (i > 0) try testing.expect(items[(i - 1) / 2].deadline <= item.deadline);
    }
}

test "random deadlines come out as from a linear search" {
    const gpa = testing.allocator;
    var deadlines: Deadlines = .init;
    defer deadlines.deinit(gpa);
    try deadlines.ensureCapacity(gpa, 40);
    try deadlines.ensureCapacity(gpa, 100);
    try deadlines.ensureCapacity(gpa, 10);
    var model: [100]?u64 = @splat(null);
    var prng: std.Random.DefaultPrng = .init(3);
    const random = prng.random();
    for (0..30_000) |step| {
        const peer = random.uintLessThan(u32, model.len);
        if (random.uintLessThan(u8, 3) == 0) {
            deadlines.remove(peer);
            model[peer] = null;
        } else {
            const deadline = if (random.boolean()) random.uintLessThan(u64, 50) else random.int(u64);
            deadlines.set(peer, deadline);
            model[peer] = deadline;
        }
        var earliest: ?u64 = null;
        for (model) |deadline| {
            if (deadline) |d| earliest = @min(d, earliest orelse d);
        }
        if (deadlines.min()) |item| {
            try testing.expectEqual(earliest, item.deadline);
            try testing.expectEqual(model[item.peer], item.deadline);
        } else try testing.expectEqual(null, earliest);
        try testing.expectEqual(model[peer], deadlines.get(peer));
        if (step % 100 == 0) try expectSound(&deadlines);
    }
    while (deadlines.min()) |item| deadlines.remove(item.peer);
    try expectSound(&deadlines);
}
