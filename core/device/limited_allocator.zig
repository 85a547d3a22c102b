//! An allocator that lends another's memory up to a limit, so that what a device takes is bounded and known.
//! Counts the bytes asked for, not what the other rounds them to.
//! Invariant: `used` never passes `limit`; what is refused changes nothing.
const std = @import("std");
const Allocator = std.mem.Allocator;
const Alignment = std.mem.Alignment;

pub const LimitedAllocator = struct {
    child: Allocator,
    limit: usize,
    used: std.atomic.Value(usize) = .init(0),

    pub const unlimited = std.math.maxInt(usize);

    /// The limited must stay where it is.
    pub fn allocator(limited: *LimitedAllocator) Allocator {
        return .{ .ptr = limited, .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free } };
    }

    fn take(limited: *LimitedAllocator, length: usize) bool {
        const before = limited.used.fetchAdd(length, .monotonic);
        if (before <= limited.limit and length <= limited.limit - before) return true;
        limited.giveBack(length);
        return false;
    }

    fn giveBack(limited: *LimitedAllocator, length: usize) void {
        _ = limited.used.fetchSub(length, .monotonic);
    }

    fn alloc(context: *anyopaque, length: usize, alignment: Alignment, return_address: usize) ?[*]u8 {
        const limited: *LimitedAllocator = @ptrCast(@alignCast(context));
        if (!limited.take(length)) return null;
        return limited.child.rawAlloc(length, alignment, return_address) orelse {
            limited.giveBack(length);
            return null;
        };
    }

    fn resize(context: *anyopaque, memory: []u8, alignment: Alignment, length: usize, return_address: usize) bool {
        const limited: *LimitedAllocator = @ptrCast(@alignCast(context));
        if (!limited.take(length -| memory.len)) return false;
        const done = limited.child.rawResize(memory, alignment, length, return_address);
        limited.giveBack(if (done) memory.len -| length else length -| memory.len);
        return done;
    }

    fn remap(context: *anyopaque, memory: []u8, alignment: Alignment, length: usize, return_address: usize) ?[*]u8 {
        const limited: *LimitedAllocator = @ptrCast(@alignCast(context));
        if (!limited.take(length -| memory.len)) return null;
        const moved = limited.child.rawRemap(memory, alignment, length, return_address);
        limited.giveBack(if (moved != null) memory.len -| length else length -| memory.len);
        return moved;
    }

    fn free(context: *anyopaque, memory: []u8, alignment: Alignment, return_address: usize) void {
        const limited: *LimitedAllocator = @ptrCast(@alignCast(context));
        limited.child.rawFree(memory, alignment, return_address);
        limited.giveBack(memory.len);
    }
};

const testing = std.testing;

test "what would pass the limit is refused and changes nothing" {
    var limited: LimitedAllocator = .{ .child = testing.allocator, .limit = 100 };
    const gpa = limited.allocator();
    const first = try gpa.alloc(u8, 60);
    try testing.expectError(error.OutOfMemory, gpa.alloc(u8, 41));
    try testing.expectEqual(60, limited.used.raw);
    const second = try gpa.alloc(u8, 40);
    try testing.expectEqual(100, limited.used.raw);
    gpa.free(first);
    try testing.expectEqual(40, limited.used.raw);
    gpa.free(second);
    try testing.expectEqual(0, limited.used.raw);
}

test "a list that grows and shrinks is counted by what it holds" {
    var limited: LimitedAllocator = .{ .child = testing.allocator, .limit = 4096 };
    const gpa = limited.allocator();
    var list: std.ArrayList(u64) = .empty;
    try list.ensureTotalCapacityPrecise(gpa, 200);
    try testing.expectEqual(1600, limited.used.raw);
    try testing.expectError(error.OutOfMemory, list.ensureTotalCapacityPrecise(gpa, 600));
    list.appendAssumeCapacity(7);
    list.shrinkAndFree(gpa, 1);
    try testing.expectEqual(8, limited.used.raw);
    list.deinit(gpa);
    try testing.expectEqual(0, limited.used.raw);
}

test "what the other allocator refuses is not counted" {
    var failing = testing.FailingAllocator.init(testing.allocator, .{ .fail_index = 0, .resize_fail_index = 0 });
    var limited: LimitedAllocator = .{ .child = failing.allocator(), .limit = LimitedAllocator.unlimited };
    try testing.expectError(error.OutOfMemory, limited.allocator().alloc(u8, 10));
    try testing.expectEqual(0, limited.used.raw);
}
