//! An allocator that lends another's memory up to a limit, so that what a device takes is bounded and known.
//! Counts the bytes asked for, not what the other rounds them to.
//! Invariant: `used` never passes `limit`; what is refused changes nothing.
const std = @import("std");
const Allocator = std.mem.Allocator;
const Alignment = std.mem.Alignment;

pub const Budget = struct {
    child: Allocator,
    limit: usize,
    used: std.atomic.Value(usize) = .init(0),

    pub const unlimited = std.math.maxInt(usize);

    /// The budget must stay where it is.
    pub fn allocator(budget: *Budget) Allocator {
        return .{ .ptr = budget, .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free } };
    }

    fn take(budget: *Budget, length: usize) bool {
        const before = budget.used.fetchAdd(length, .monotonic);
        if (before <= budget.limit and length <= budget.limit - before) return true;
        budget.giveBack(length);
        return false;
    }

    fn giveBack(budget: *Budget, length: usize) void {
        _ = budget.used.fetchSub(length, .monotonic);
    }

    fn alloc(context: *anyopaque, length: usize, alignment: Alignment, return_address: usize) ?[*]u8 {
        const budget: *Budget = @ptrCast(@alignCast(context));
        if (!budget.take(length)) return null;
        return budget.child.rawAlloc(length, alignment, return_address) orelse {
            budget.giveBack(length);
            return null;
        };
    }

    fn resize(context: *anyopaque, memory: []u8, alignment: Alignment, length: usize, return_address: usize) bool {
        const budget: *Budget = @ptrCast(@alignCast(context));
        if (!budget.take(length -| memory.len)) return false;
        const done = budget.child.rawResize(memory, alignment, length, return_address);
        budget.giveBack(if (done) memory.len -| length else length -| memory.len);
        return done;
    }

    fn remap(context: *anyopaque, memory: []u8, alignment: Alignment, length: usize, return_address: usize) ?[*]u8 {
        const budget: *Budget = @ptrCast(@alignCast(context));
        if (!budget.take(length -| memory.len)) return null;
        const moved = budget.child.rawRemap(memory, alignment, length, return_address);
        budget.giveBack(if (moved != null) memory.len -| length else length -| memory.len);
        return moved;
    }

    fn free(context: *anyopaque, memory: []u8, alignment: Alignment, return_address: usize) void {
        const budget: *Budget = @ptrCast(@alignCast(context));
        budget.child.rawFree(memory, alignment, return_address);
        budget.giveBack(memory.len);
    }
};

const testing = std.testing;

test "what would pass the limit is refused and changes nothing" {
    var budget: Budget = .{ .child = testing.allocator, .limit = 100 };
    const gpa = budget.allocator();
    const first = try gpa.alloc(u8, 60);
    try testing.expectError(error.OutOfMemory, gpa.alloc(u8, 41));
    try testing.expectEqual(60, budget.used.raw);
    const second = try gpa.alloc(u8, 40);
    try testing.expectEqual(100, budget.used.raw);
    gpa.free(first);
    try testing.expectEqual(40, budget.used.raw);
    gpa.free(second);
    try testing.expectEqual(0, budget.used.raw);
}

test "a list that grows and shrinks is counted by what it holds" {
    var budget: Budget = .{ .child = testing.allocator, .limit = 4096 };
    const gpa = budget.allocator();
    var list: std.ArrayList(u64) = .empty;
    try list.ensureTotalCapacityPrecise(gpa, 200);
    try testing.expectEqual(1600, budget.used.raw);
    try testing.expectError(error.OutOfMemory, list.ensureTotalCapacityPrecise(gpa, 600));
    list.appendAssumeCapacity(7);
    list.shrinkAndFree(gpa, 1);
    try testing.expectEqual(8, budget.used.raw);
    list.deinit(gpa);
    try testing.expectEqual(0, budget.used.raw);
}

test "what the other allocator refuses is not counted" {
    var failing = testing.FailingAllocator.init(testing.allocator, .{ .fail_index = 0, .resize_fail_index = 0 });
    var budget: Budget = .{ .child = failing.allocator(), .limit = Budget.unlimited };
    try testing.expectError(error.OutOfMemory, budget.allocator().alloc(u8, 10));
    try testing.expectEqual(0, budget.used.raw);
}
