//! PeerTable: public key -> peer index, by open addressing with linear probing.
//! Keyed by SipHash, so that nobody who chooses public keys can choose collisions. Knows no Peer.
//! Invariant: at most 3/4 full and free of tombstones, so a look-up ends at the first empty slot.
const std = @import("std");
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;
const SipHash = std.hash.SipHash64(2, 4);

/// A peer across rooms and batches: the slot it lives in, and which of the slot's tenants it is.
pub const PeerId = struct {
    index: u32,
    generation: u32,

    pub fn eql(a: PeerId, b: PeerId) bool {
        return a.index == b.index and a.generation == b.generation;
    }
};

pub const PeerTable = struct {
    slots: []Slot = &.{},
    count: u32 = 0,
    hash_key: [SipHash.key_length]u8,

    const Slot = struct {
        public: [32]u8,
        index: u32,
    };

    /// Marks an empty slot: no peer has this index.
    const empty = std.math.maxInt(u32);
    const slots_min: u32 = 16;

    /// The hash key is random and secret, one for each table.
    pub fn init(hash_key: [SipHash.key_length]u8) PeerTable {
        return .{ .hash_key = hash_key };
    }

    pub fn deinit(table: *PeerTable, gpa: Allocator) void {
        gpa.free(table.slots);
        std.crypto.secureZero(u8, &table.hash_key);
        table.* = undefined;
    }

    /// Room for `additional` more peers; on OutOfMemory the table is as before.
    pub fn ensureUnusedCapacity(table: *PeerTable, gpa: Allocator, additional: u32) Allocator.Error!void {
        const wanted = @as(u64, table.count) + additional;
        if (wanted * 4 <= @as(u64, table.slots.len) * 3) return;
        // The last slots of the address space are not worth supporting: a slot has 36 bytes.
        if (wanted > 1 << 26) return error.OutOfMemory;
        const slot_count = @max(slots_min, std.math.ceilPowerOfTwoAssert(u32, @intCast(wanted * 4 / 3 + 1)));
        const slots = try gpa.alloc(Slot, slot_count);
        for (slots) |*slot| slot.index = empty;
        const old = table.slots;
        table.slots = slots;
        for (old) |slot| {
            if (slot.index != empty) table.slots[table.probe(&slot.public)] = slot;
        }
        gpa.free(old);
    }

    pub fn find(table: *const PeerTable, public: *const [32]u8) ?u32 {
        if (table.count == 0) return null;
        const slot = &table.slots[table.probe(public)];
        return if (slot.index == empty) null else slot.index;
    }

    /// The key must be new, and room ensured.
    pub fn insertAssumeCapacity(table: *PeerTable, public: *const [32]u8, index: u32) void {
        assert(index != empty);
        assert((@as(u64, table.count) + 1) * 4 <= @as(u64, table.slots.len) * 3);
        const slot = &table.slots[table.probe(public)];
        assert(slot.index == empty);
        slot.* = .{ .public = public.*, .index = index };
        table.count += 1;
    }

    /// False when the key is not there.
    pub fn remove(table: *PeerTable, public: *const [32]u8) bool {
        if (table.count == 0) return false;
        var hole = table.probe(public);
        if (table.slots[hole].index == empty) return false;
        const mask = table.slots.len - 1;
        var at = hole;
        while (true) {
            at = (at + 1) & mask;
            const slot = table.slots[at];
            if (slot.index == empty) break;
            // It may move back into the hole only if the hole is not before its home.
            const distance = (at -% table.home(&slot.public)) & mask;
            if (distance >= (at -% hole) & mask) {
                table.slots[hole] = slot;
                hole = at;
            }
        }
        table.slots[hole].index = empty;
        table.count -= 1;
        return true;
    }

    /// Where the key is, or the empty slot where it would go.
    fn probe(table: *const PeerTable, public: *const [32]u8) usize {
        const mask = table.slots.len - 1;
        var at = table.home(public);
        while (table.slots[at].index != empty) : (at = (at + 1) & mask) {
            // Public keys are no secrets: an ordinary comparison will do.
            if (std.mem.eql(u8, &table.slots[at].public, public)) break;
        }
        return at;
    }

    fn home(table: *const PeerTable, public: *const [32]u8) usize {
        const hash: usize = @truncate(SipHash.toInt(public, &table.hash_key));
        return hash & (table.slots.len - 1);
    }
};

const testing = std.testing;

fn testKey(number: u32) [32]u8 {
    var public: [32]u8 = @splat(0);
    std.mem.writeInt(u32, public[0..4], number, .little);
    return public;
}

test "a key is found until it is removed" {
    const gpa = testing.allocator;
    var table: PeerTable = .init(@splat(7));
    defer table.deinit(gpa);
    const key = testKey(1);
    try testing.expectEqual(null, table.find(&key));
    try testing.expect(!table.remove(&key));
    try table.ensureUnusedCapacity(gpa, 1);
    table.insertAssumeCapacity(&key, 5);
    try testing.expectEqual(5, table.find(&key));
    try testing.expect(table.remove(&key));
    try testing.expect(!table.remove(&key));
    try testing.expectEqual(null, table.find(&key));
    try testing.expectEqual(0, table.count);
}

test "random insertions and removals agree with an array" {
    const gpa = testing.allocator;
    var table: PeerTable = .init(@splat(3));
    defer table.deinit(gpa);
    var model: [300]?u32 = @splat(null);
    var prng: std.Random.DefaultPrng = .init(1);
    const random = prng.random();
    for (0..50_000) |step| {
        // Long runs of insertions and then of removals visit every load.
        const filling = step / 1000 % 2 == 0;
        const number = random.uintLessThan(u32, model.len);
        const key = testKey(number);
        try testing.expectEqual(model[number], table.find(&key));
        if (model[number] == null and (filling or random.uintLessThan(u8, 4) == 0)) {
            try table.ensureUnusedCapacity(gpa, 1);
            table.insertAssumeCapacity(&key, @intCast(step));
            model[number] = @intCast(step);
        } else if (model[number] != null and (!filling or random.uintLessThan(u8, 4) == 0)) {
            try testing.expect(table.remove(&key));
            model[number] = null;
        }
        if (step % 997 != 0) continue;
        var live: u32 = 0;
        for (model, 0..) |expected, i| {
            try testing.expectEqual(expected, table.find(&testKey(@intCast(i))));
            live += @intFromBool(expected != null);
        }
        try testing.expectEqual(live, table.count);
    }
}

test "growth that fails leaves the table as it was" {
    const gpa = testing.allocator;
    var table: PeerTable = .init(@splat(3));
    defer table.deinit(gpa);
    try table.ensureUnusedCapacity(gpa, 1);
    table.insertAssumeCapacity(&testKey(9), 9);
    var failing: testing.FailingAllocator = .init(gpa, .{ .fail_index = 0 });
    try testing.expectError(error.OutOfMemory, table.ensureUnusedCapacity(failing.allocator(), 1000));
    try testing.expectError(error.OutOfMemory, table.ensureUnusedCapacity(gpa, std.math.maxInt(u32)));
    try testing.expectEqual(9, table.find(&testKey(9)));
}
