//! Texts from a caller's memory and into it. The pointers may be NULL and the lengths anything.
const status = @import("status.zig");

/// NULL is fine for nothing.
pub fn slice(pointer: ?[*]const u8, length: usize) ?[]const u8 {
    if (length == 0) return "";
    return (pointer orelse return null)[0..length];
}

/// What `write` says of `target`, into the caller's buffer if it fits; how long it is in any case.
pub fn fill(
    target: anytype,
    comptime write: anytype,
    buffer: ?[*]u8,
    capacity: usize,
    length: ?*usize,
) i32 {
    const invalid = status.Status.invalid_argument.value();
    const out: []u8 = if (capacity == 0) &.{} else (buffer orelse return invalid)[0..capacity];
    const size = length orelse return invalid;
    size.* = write(target, out);
    const result: status.Status = if (size.* <= capacity) .ok else .buffer_too_small;
    return result.value();
}
