//! Memory that costs nothing until it is used: on the page allocator, pages that nobody touched are no memory.
//! Not `alloc` and `free`, which in safe builds fill what they lend and take back, and so make all of its pages real.
//! Knows nothing of what lies there. Invariant: nothing here writes to it.
const std = @import("std");
const Allocator = std.mem.Allocator;

/// What lies there is undefined.
pub fn alloc(comptime T: type, gpa: Allocator, count: usize) Allocator.Error![]T {
    const bytes = std.math.mul(usize, count, @sizeOf(T)) catch return error.OutOfMemory;
    if (bytes == 0) return &.{};
    const memory = gpa.rawAlloc(bytes, .of(T), @returnAddress()) orelse return error.OutOfMemory;
    const first: [*]T = @ptrCast(@alignCast(memory));
    return first[0..count];
}

pub fn free(gpa: Allocator, memory: anytype) void {
    const bytes = std.mem.sliceAsBytes(memory);
    if (bytes.len == 0) return;
    gpa.rawFree(bytes, .of(std.meta.Elem(@TypeOf(memory))), @returnAddress());
}

test "lending and taking back write to nothing" {
    var memory: [256]u8 align(8) = @splat(0x5a);
    var bump: std.heap.FixedBufferAllocator = .init(&memory);
    const gpa = bump.allocator();
    const lent = try alloc(u64, gpa, 32);
    try std.testing.expectEqual(32, lent.len);
    free(gpa, lent);
    try std.testing.expect(std.mem.allEqual(u8, &memory, 0x5a));
    const nothing = try alloc(u64, gpa, 0);
    free(gpa, nothing);
    try std.testing.expectError(error.OutOfMemory, alloc(u64, gpa, std.math.maxInt(usize)));
}
