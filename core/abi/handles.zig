//! What callers hold in the place of a pointer: which slot of a table, and which of its tenants is meant. So a handle
//! that was closed, or that is none of ours, is found out and not followed. Knows addresses, not what lies there.
//! Any thread may call, a signal handler too; nothing waits but `retire`. The table grows and never shrinks: 4 KiB for
//! each 128 handles that are open at one time.
//! Invariant: what `enter` answers stays until `leave`, because `retire` waits until nobody is in.
const std = @import("std");
const linux = std.os.linux;

pub const Kind = enum(u1) { interface, device };

pub const Unknown = error{
    /// NULL.
    NoHandle,
    /// It was one of ours.
    Closed,
    /// Of the other kind, or no handle at all.
    Foreign,
};

const Handle = packed struct(usize) {
    index: Index,
    kind: Kind,
    /// Counts from 1, so that no handle is NULL.
    generation: Generation,
    zero: Rest = 0,

    const Index = if (@bitSizeOf(usize) == 64) u20 else u12;
    const Generation = if (@bitSizeOf(usize) == 64) u32 else u19;
    const Rest = @Int(.unsigned, @bitSizeOf(usize) - @bitSizeOf(Index) - 1 - @bitSizeOf(Generation));

    fn value(handle: Handle) usize {
        return @bitCast(handle);
    }
};

pub const Slot = struct {
    /// The handle that is open, or 0.
    open: std.atomic.Value(usize),
    /// Calls that are between `enter` and `leave`.
    users: std.atomic.Value(u32),
    /// Of the last handle; 0 for none yet.
    generation: std.atomic.Value(u32),
    is_taken: std.atomic.Value(bool),
    target: *anyopaque,
};

const segment_length = 128;
const Segment = [segment_length]Slot;
const segments_max = (1 << @bitSizeOf(Handle.Index)) / segment_length;
/// Taken one after the other. Nothing here is ever given back.
var segments: [segments_max]std.atomic.Value(?*Segment) = @splat(.init(null));
/// Where to look first for a free slot.
var hint: std.atomic.Value(usize) = .init(0);

/// A handle for it.
pub fn add(kind: Kind, target: *anyopaque) error{OutOfMemory}!usize {
    const capacity = segments_max * segment_length;
    const start = hint.load(.monotonic);
    for (0..capacity) |i| {
        const index = (start + i) % capacity;
        const slot = try slotFor(index);
        if (slot.is_taken.cmpxchgStrong(false, true, .acquire, .monotonic) != null) continue;
        hint.store((index + 1) % capacity, .monotonic);
        var generation: Handle.Generation = @intCast(slot.generation.load(.monotonic));
        generation +%= 1;
        if (generation == 0) generation = 1;
        slot.generation.store(generation, .monotonic);
        slot.target = target;
        const handle: Handle = .{ .index = @intCast(index), .kind = kind, .generation = generation };
        slot.open.store(handle.value(), .seq_cst);
        return handle.value();
    }
    return error.OutOfMemory;
}

fn slotFor(index: usize) error{OutOfMemory}!*Slot {
    const segment = &segments[index / segment_length];
    const present = segment.load(.acquire) orelse try grow(segment);
    return &present[index % segment_length];
}

fn grow(segment: *std.atomic.Value(?*Segment)) error{OutOfMemory}!*Segment {
    const pages = std.heap.page_allocator;
    const fresh = try pages.create(Segment);
    @memset(std.mem.asBytes(fresh), 0);
    if (segment.cmpxchgStrong(null, fresh, .acq_rel, .acquire)) |other| {
        pages.destroy(fresh);
        return other.?;
    }
    return fresh;
}

pub const Entered = struct { slot: *Slot, target: *anyopaque };

/// Until `leave` nobody frees what it answers.
pub fn enter(kind: Kind, handle: usize) Unknown!Entered {
    const slot = try locate(kind, handle);
    _ = slot.users.fetchAdd(1, .seq_cst);
    if (slot.open.load(.seq_cst) != handle) {
        leave(slot);
        return error.Closed;
    }
    return .{ .slot = slot, .target = slot.target };
}

pub fn leave(slot: *Slot) void {
    if (slot.users.fetchSub(1, .seq_cst) != 1 or slot.open.load(.seq_cst) != 0) return;
    _ = linux.futex_3arg(&slot.users.raw, .{ .cmd = .WAKE, .private = true }, 1);
}

/// For callers who promise not to close it meanwhile.
pub fn find(kind: Kind, handle: usize) Unknown!*anyopaque {
    return (try locate(kind, handle)).target;
}

/// Ends the handle, and waits for the calls that are in. What it stood for belongs to the caller, who alone gets it.
pub fn retire(kind: Kind, handle: usize) Unknown!*anyopaque {
    const slot = try locate(kind, handle);
    if (slot.open.cmpxchgStrong(handle, 0, .seq_cst, .seq_cst) != null) return error.Closed;
    while (true) {
        const users = slot.users.load(.seq_cst);
        if (users == 0) break;
        _ = linux.futex_4arg(&slot.users.raw, .{ .cmd = .WAIT, .private = true }, users, null);
    }
    const target = slot.target;
    const bits: Handle = @bitCast(handle);
    slot.is_taken.store(false, .release);
    hint.store(bits.index, .monotonic);
    return target;
}

fn locate(kind: Kind, handle: usize) Unknown!*Slot {
    if (handle == 0) return error.NoHandle;
    const bits: Handle = @bitCast(handle);
    const segment = segments[bits.index / segment_length].load(.acquire) orelse return error.Foreign;
    const slot = &segment[bits.index % segment_length];
    if (slot.open.load(.acquire) == handle) return if (bits.kind == kind) slot else error.Foreign;
    const newest = slot.generation.load(.monotonic);
    const was_ours = bits.zero == 0 and bits.kind == kind and bits.generation > 0 and bits.generation <= newest;
    return if (was_ours) error.Closed else error.Foreign;
}

const testing = std.testing;

test "a handle leads to what it stands for until it is retired, and never again" {
    var first: u32 = 1;
    var second: u32 = 2;
    const a = try add(.interface, &first);
    const b = try add(.device, &second);
    const entered = try enter(.interface, a);
    try testing.expectEqual(@as(*anyopaque, &first), entered.target);
    leave(entered.slot);
    try testing.expectEqual(@as(*anyopaque, &second), try find(.device, b));
    try testing.expectError(error.Foreign, enter(.device, a));
    try testing.expectError(error.Foreign, find(.interface, b));
    try testing.expectEqual(@as(*anyopaque, &first), try retire(.interface, a));
    try testing.expectError(error.Closed, retire(.interface, a));
    try testing.expectError(error.Closed, enter(.interface, a));
    // The slot is the first to be taken again, by another handle.
    const c = try add(.interface, &second);
    try testing.expect(c != a);
    try testing.expectError(error.Closed, find(.interface, a));
    try testing.expectEqual(@as(*anyopaque, &second), try find(.interface, c));
    _ = try retire(.interface, c);
    _ = try retire(.device, b);
}

test "what was never a handle is none" {
    try testing.expectError(error.NoHandle, find(.interface, 0));
    var target: u32 = 1;
    const handle = try add(.interface, &target);
    defer _ = retire(.interface, handle) catch unreachable;
    const stack: usize = @intFromPtr(&target);
    for ([_]usize{ 1, 8, 4096, stack, @intFromPtr(&segments), std.math.maxInt(usize), handle + 1 }) |odd| {
        try testing.expectError(error.Foreign, find(.interface, odd));
        try testing.expectError(error.Foreign, retire(.interface, odd));
    }
    for (0..@bitSizeOf(usize)) |bit| {
        const changed = handle ^ @as(usize, 1) << @intCast(bit);
        if (find(.interface, changed)) |_| return error.TestUnexpectedResult else |_| {}
    }
}

test "more handles than one segment has room for" {
    var targets: [3 * segment_length]u32 = undefined;
    var handles: [3 * segment_length]usize = undefined;
    for (&targets, &handles) |*target, *handle| handle.* = try add(.device, target);
    for (&targets, &handles) |*target, handle| {
        try testing.expectEqual(@as(*anyopaque, target), try retire(.device, handle));
    }
}

test "retire waits for the calls that are in, and one of those who retire gets it" {
    const Scene = struct {
        var target: std.atomic.Value(u32) = .init(0);
        var winners: std.atomic.Value(u32) = .init(0);

        fn work(handle: usize) void {
            while (enter(.interface, handle)) |entered| {
                if (target.load(.seq_cst) != 0) @panic("used after it was freed");
                leave(entered.slot);
            } else |_| {}
        }

        fn close(handle: usize) void {
            _ = retire(.interface, handle) catch return;
            target.store(1, .seq_cst);
            _ = winners.fetchAdd(1, .seq_cst);
        }
    };
    for (0..50) |_| {
        Scene.target.store(0, .seq_cst);
        Scene.winners.store(0, .seq_cst);
        const handle = try add(.interface, &Scene.target);
        var threads: [4]std.Thread = undefined;
        for (threads[0..2]) |*thread| {
            thread.* = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, Scene.work, .{handle});
        }
        for (threads[2..]) |*thread| {
            thread.* = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, Scene.close, .{handle});
        }
        for (threads) |thread| thread.join();
        try testing.expectEqual(1, Scene.winners.load(.seq_cst));
    }
}
