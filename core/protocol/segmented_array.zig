//! A growable array whose elements never move: pointers stay good while it grows.
//! Knows nothing of peers.
//! Invariant: nothing here writes to an element, so on the page allocator those that nobody touched cost no memory.
const std = @import("std");
const Allocator = std.mem.Allocator;

pub fn SegmentedArray(comptime T: type, comptime segment_length: usize) type {
    return struct {
        segments: std.ArrayList(*Segment) = .empty,

        const Self = @This();
        const Segment = [segment_length]T;
        const alignment: std.mem.Alignment = .of(Segment);

        pub fn deinit(self: *Self, gpa: Allocator) void {
            for (self.segments.items) |segment| gpa.rawFree(std.mem.asBytes(segment), alignment, @returnAddress());
            self.segments.deinit(gpa);
        }

        pub fn capacity(self: *const Self) usize {
            return self.segments.items.len * segment_length;
        }

        pub fn ensureCapacity(self: *Self, gpa: Allocator, count: usize) Allocator.Error!void {
            while (self.capacity() < count) {
                try self.segments.ensureUnusedCapacity(gpa, 1);
                // Not `create`, which in safe builds fills the segment, and so makes all of its pages real.
                const memory = gpa.rawAlloc(@sizeOf(Segment), alignment, @returnAddress()) orelse
                    return error.OutOfMemory;
                self.segments.appendAssumeCapacity(@ptrCast(@alignCast(memory)));
            }
        }

        /// Gives back the segments that lie wholly beyond the first `count` elements.
        pub fn shrinkCapacity(self: *Self, gpa: Allocator, count: usize) void {
            const kept = std.math.divCeil(usize, count, segment_length) catch unreachable;
            while (self.segments.items.len > kept) {
                gpa.rawFree(std.mem.asBytes(self.segments.pop().?), alignment, @returnAddress());
            }
        }

        pub fn at(self: *const Self, index: usize) *T {
            return &self.segments.items[index / segment_length][index % segment_length];
        }
    };
}

test "elements stay where they are while the array grows" {
    const gpa = std.testing.allocator;
    var list: SegmentedArray(u64, 4) = .{};
    defer list.deinit(gpa);
    try list.ensureCapacity(gpa, 1);
    const first = list.at(0);
    first.* = 42;
    try list.ensureCapacity(gpa, 100);
    try std.testing.expectEqual(first, list.at(0));
    list.at(99).* = 7;
    try std.testing.expectEqual(42, first.*);
    try std.testing.expect(list.capacity() >= 100);
}

test "growing writes to no element" {
    const gpa = std.testing.allocator;
    var memory: [4096]u8 align(64) = @splat(0x5a);
    var bump: std.heap.FixedBufferAllocator = .init(&memory);
    var list: SegmentedArray([64]u8, 4) = .{};
    try list.segments.ensureTotalCapacity(gpa, 3);
    try list.ensureCapacity(bump.allocator(), 12);
    for (0..12) |i| try std.testing.expect(std.mem.allEqual(u8, list.at(i), 0x5a));
    list.segments.deinit(gpa);
}

test "what lies beyond the elements in use can be given back" {
    const gpa = std.testing.allocator;
    var list: SegmentedArray(u64, 4) = .{};
    defer list.deinit(gpa);
    try list.ensureCapacity(gpa, 20);
    list.at(4).* = 42;
    list.shrinkCapacity(gpa, 5);
    try std.testing.expectEqual(8, list.capacity());
    try std.testing.expectEqual(42, list.at(4).*);
    list.shrinkCapacity(gpa, 0);
    try std.testing.expectEqual(0, list.capacity());
}

test "memory that cannot be had leaves the array as it was" {
    try std.testing.checkAllAllocationFailures(std.testing.allocator, struct {
        fn run(gpa: Allocator) !void {
            var list: SegmentedArray(u64, 4) = .{};
            defer list.deinit(gpa);
            try list.ensureCapacity(gpa, 9);
        }
    }.run, .{});
}
