//! IndexTable: our 32-bit receiver indices (section 5.4.2, I_i and I_r) -> what answers to them.
//! Open addressing with linear probing; the indices are random, so their low bits are the hash.
//! Knows neither sessions nor handshakes.
//! Invariant: at most half full and free of tombstones; four slots share a cache line, so one is usually all it takes.
const std = @import("std");
const PeerId = @import("peer_table.zig").PeerId;
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;

pub const Kind = enum(u1) { handshake, session };

pub const Entry = struct {
    peer: PeerId,
    kind: Kind,
    /// Which session; the owner of the table gives it its meaning.
    slot: u30,
};

pub const IndexTable = struct {
    slots: []align(slots_alignment.toByteUnits()) Slot = &.{},
    count: u32 = 0,

    pub const init: IndexTable = .{};

    const Slot = extern struct {
        index: u32,
        peer_index: u32,
        peer_generation: u32,
        what: packed struct(u32) { used: bool, kind: Kind, entry_slot: u30 },

        comptime {
            assert(@sizeOf(Slot) == 16);
        }

        fn toEntry(slot: Slot) Entry {
            return .{
                .peer = .{ .index = slot.peer_index, .generation = slot.peer_generation },
                .kind = slot.what.kind,
                .slot = slot.what.entry_slot,
            };
        }
    };

    const slots_alignment: std.mem.Alignment = .fromByteUnits(64);
    const slots_min: u32 = 16;

    pub fn deinit(table: *IndexTable, gpa: Allocator) void {
        gpa.free(table.slots);
        table.* = undefined;
    }

    /// Room for `additional` more indices; on OutOfMemory the table is as before.
    pub fn ensureUnusedCapacity(table: *IndexTable, gpa: Allocator, additional: u32) Allocator.Error!void {
        const wanted = @as(u64, table.count) + additional;
        if (wanted * 2 <= table.slots.len) return;
        if (wanted > 1 << 26) return error.OutOfMemory; // three for each of peers_max are fewer than 1 << 22
        const slot_count = @max(slots_min, std.math.ceilPowerOfTwoAssert(u32, @intCast(wanted * 2)));
        const slots = try gpa.alignedAlloc(Slot, slots_alignment, slot_count);
        for (slots) |*slot| slot.what.used = false;
        const old = table.slots;
        table.slots = slots;
        for (old) |slot| {
            if (slot.what.used) table.slots[table.probe(slot.index)] = slot;
        }
        gpa.free(old);
    }

    pub fn lookup(table: *const IndexTable, index: u32) ?Entry {
        if (table.count == 0) return null;
        const slot = &table.slots[table.probe(index)];
        return if (slot.what.used) slot.toEntry() else null;
    }

    pub fn contains(table: *const IndexTable, index: u32) bool {
        return table.lookup(index) != null;
    }

    /// The index must be new, and room ensured.
    pub fn insertAssumeCapacity(table: *IndexTable, index: u32, entry: Entry) void {
        assert((@as(u64, table.count) + 1) * 2 <= table.slots.len);
        const slot = &table.slots[table.probe(index)];
        assert(!slot.what.used);
        slot.* = .{
            .index = index,
            .peer_index = entry.peer.index,
            .peer_generation = entry.peer.generation,
            .what = .{ .used = true, .kind = entry.kind, .entry_slot = entry.slot },
        };
        table.count += 1;
    }

    /// False when the index is not there.
    pub fn remove(table: *IndexTable, index: u32) bool {
        if (table.count == 0) return false;
        var hole = table.probe(index);
        if (!table.slots[hole].what.used) return false;
        const mask = table.slots.len - 1;
        var at = hole;
        while (true) {
            at = (at + 1) & mask;
            const slot = table.slots[at];
            if (!slot.what.used) break;
            // It may move back into the hole only if the hole is not before its home.
            const distance = (at -% slot.index) & mask;
            if (distance >= (at -% hole) & mask) {
                table.slots[hole] = slot;
                hole = at;
            }
        }
        table.slots[hole].what.used = false;
        table.count -= 1;
        return true;
    }

    /// Where the index is, or the empty slot where it would go.
    inline fn probe(table: *const IndexTable, index: u32) usize {
        const mask = table.slots.len - 1;
        var at = index & mask;
        while (table.slots[at].what.used and table.slots[at].index != index) at = (at + 1) & mask;
        return at;
    }
};

const testing = std.testing;

test "an index answers until it is removed" {
    const gpa = testing.allocator;
    var table: IndexTable = .init;
    defer table.deinit(gpa);
    const entry: Entry = .{ .peer = .{ .index = 3, .generation = 4 }, .kind = .session, .slot = 2 };
    try testing.expectEqual(null, table.lookup(0));
    try testing.expect(!table.remove(0));
    try table.ensureUnusedCapacity(gpa, 4);
    for ([_]u32{ 0, std.math.maxInt(u32) }) |index| {
        table.insertAssumeCapacity(index, entry);
        try testing.expectEqual(entry, table.lookup(index));
        try testing.expect(table.remove(index));
        try testing.expect(!table.contains(index));
    }
}

test "random insertions and removals agree with a hash map, even when indices collide" {
    const gpa = testing.allocator;
    var table: IndexTable = .init;
    defer table.deinit(gpa);
    var model: std.AutoHashMapUnmanaged(u32, Entry) = .empty;
    defer model.deinit(gpa);
    var prng: std.Random.DefaultPrng = .init(2);
    const random = prng.random();
    for (0..50_000) |step| {
        // 64 low parts with 16 high parts: long clusters, and ones that wrap around the end.
        const index = random.int(u32) & 0xf000_003f;
        try testing.expectEqual(model.get(index), table.lookup(index));
        const filling = step / 1000 % 2 == 0;
        if (!table.contains(index) and filling) {
            const entry: Entry = .{
                .peer = .{ .index = random.int(u32), .generation = random.int(u32) },
                .kind = random.enumValue(Kind),
                .slot = random.int(u30),
            };
            try table.ensureUnusedCapacity(gpa, 1);
            table.insertAssumeCapacity(index, entry);
            try model.put(gpa, index, entry);
        } else if (!filling) {
            try testing.expectEqual(model.remove(index), table.remove(index));
        }
        if (step % 997 != 0) continue;
        try testing.expectEqual(model.count(), table.count);
        var entries = model.iterator();
        while (entries.next()) |e| try testing.expectEqual(e.value_ptr.*, table.lookup(e.key_ptr.*));
    }
}

test "growth that fails leaves the table as it was" {
    const gpa = testing.allocator;
    var table: IndexTable = .init;
    defer table.deinit(gpa);
    const entry: Entry = .{ .peer = .{ .index = 3, .generation = 4 }, .kind = .handshake, .slot = 0 };
    try table.ensureUnusedCapacity(gpa, 4);
    table.insertAssumeCapacity(77, entry);
    var failing: testing.FailingAllocator = .init(gpa, .{ .fail_index = 0 });
    try testing.expectError(error.OutOfMemory, table.ensureUnusedCapacity(failing.allocator(), 1000));
    try testing.expectError(error.OutOfMemory, table.ensureUnusedCapacity(gpa, std.math.maxInt(u32)));
    try testing.expectEqual(entry, table.lookup(77));
}
