//! A growable array whose elements never move: pointers stay good while it grows.
//! Knows nothing of peers. Elements are not initialised, so untouched ones cost no memory.
const std = @import("std");
const Allocator = std.mem.Allocator;

pub fn Segments(comptime T: type, comptime segment_length: usize) type {
    return struct {
        segments: std.ArrayList(*[segment_length]T) = .empty,

        const Self = @This();

        pub fn deinit(self: *Self, gpa: Allocator) void {
            for (self.segments.items) |segment| gpa.destroy(segment);
            self.segments.deinit(gpa);
        }

        pub fn capacity(self: *const Self) usize {
            return self.segments.items.len * segment_length;
        }

        pub fn ensureCapacity(self: *Self, gpa: Allocator, count: usize) Allocator.Error!void {
            while (self.capacity() < count) {
                try self.segments.ensureUnusedCapacity(gpa, 1);
                self.segments.appendAssumeCapacity(try gpa.create([segment_length]T));
            }
        }

        pub fn at(self: *const Self, index: usize) *T {
            return &self.segments.items[index / segment_length][index % segment_length];
        }
    };
}

test "elements stay where they are while the array grows" {
    const gpa = std.testing.allocator;
    var list: Segments(u64, 4) = .{};
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
