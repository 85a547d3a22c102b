//! Events: the queue of a device for whoever has asked for one: the ring that the protocol notes in, and a descriptor
//! that is readable while there is something in it.
//! Knows nothing of what an event means.
//! Invariant: workers look at one number in a turn, and make a system call only when there is news. Nobody waits for a
//! reader.
const std = @import("std");
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;
const io = @import("io");
const Mutex = @import("mutex.zig").Mutex;
const protocol = @import("protocol");
const Event = protocol.events.Event;
const Ring = protocol.events.Ring;

pub const capacity_default = 1024;
const capacity_min = Ring.slots_min;
/// Some six megabytes.
pub const capacity_max = 1 << 16;

pub const Queue = struct {
    ring: Ring,
    readable: io.poller.Wakeup,
    /// How much of what was noted was told by `readable`.
    told: std.atomic.Value(u32) = .init(0),
    /// Readers come one after another.
    reading: Mutex = .{},

    /// With room for at least so many: a power of two.
    pub fn open(gpa: Allocator, capacity: u32) error{ OutOfMemory, SystemResources }!*Queue {
        const queue = try gpa.create(Queue);
        errdefer gpa.destroy(queue);
        assert(capacity <= capacity_max);
        const slots = try gpa.alloc(Event, std.math.ceilPowerOfTwoAssert(u32, @max(capacity, capacity_min)));
        errdefer gpa.free(slots);
        queue.* = .{ .ring = .init(slots), .readable = try .init() };
        return queue;
    }

    /// Whoever has a copy of the descriptor, and waits, learns that there is nothing more to wait for.
    pub fn close(queue: *Queue, gpa: Allocator) void {
        queue.readable.signal();
        queue.readable.deinit();
        gpa.free(queue.ring.slots);
        gpa.destroy(queue);
    }

    /// Makes the descriptor readable if anything was noted since. For any thread, after it has noted something.
    pub fn tell(queue: *Queue) void {
        const written = queue.ring.written.load(.acquire);
        if (queue.told.load(.monotonic) == written) return; // nearly always
        queue.told.store(written, .monotonic);
        queue.readable.signal();
    }

    /// Fills `out` from the front; answers how many there were.
    pub fn fetch(queue: *Queue, out: []Event) usize {
        queue.reading.acquire();
        defer queue.reading.release();
        _ = queue.readable.drain();
        for (out, 0..) |*event, i| event.* = queue.ring.take() orelse return i;
        if (!queue.ring.isEmpty()) queue.readable.signal();
        return out.len;
    }
};

const testing = std.testing;

fn isReadable(queue: *const Queue) bool {
    const linux = std.os.linux;
    var polled = [1]linux.pollfd{.{ .fd = queue.readable.fd, .events = linux.POLL.IN, .revents = 0 }};
    return linux.poll(&polled, 1, 0) == 1;
}

test "the descriptor is readable as long as something is left" {
    const queue: *Queue = try .open(testing.allocator, 8);
    defer queue.close(testing.allocator);
    var out: [2]Event = undefined;
    queue.tell();
    try testing.expect(!isReadable(queue));
    for (0..3) |_| queue.ring.note(.removed);
    try testing.expect(!isReadable(queue));
    queue.tell();
    try testing.expect(isReadable(queue));
    try testing.expectEqual(2, queue.fetch(&out));
    queue.tell(); // it is told already
    try testing.expect(isReadable(queue));
    try testing.expectEqual(1, queue.fetch(&out));
    try testing.expect(!isReadable(queue));
    try testing.expectEqual(0, queue.fetch(&out));
}

test "a count of what was lost keeps the descriptor readable, too" {
    const queue: *Queue = try .open(testing.allocator, 2);
    defer queue.close(testing.allocator);
    for (0..5) |_| queue.ring.note(.removed);
    queue.tell();
    var out: [2]Event = undefined;
    try testing.expectEqual(2, queue.fetch(&out));
    try testing.expect(isReadable(queue));
    try testing.expectEqual(1, queue.fetch(&out));
    try testing.expectEqual(3, out[0].lost);
    try testing.expect(!isReadable(queue));
}
