//! Whether the buffers of a batch that is sealed lie so that one packet would be written over another.
//! Knows addresses and lengths alone.
const std = @import("std");
const Packet = @import("packet.zig").Packet;

/// A half-open range of addresses; none of them has bytes behind the end of memory.
const Range = struct {
    start: usize,
    end: usize,

    fn init(data: ?[*]u8, length: usize) Range {
        const start = @intFromPtr(data);
        return .{ .start = start, .end = start +| length };
    }

    fn meets(a: Range, b: Range) bool {
        return a.start < b.end and b.start < a.end;
    }

    fn hull(a: Range, b: Range) Range {
        return .{ .start = @min(a.start, b.start), .end = @max(a.end, b.end) };
    }
};

fn sourceRange(packet: *const Packet) Range {
    return .init(packet.data, packet.length);
}

fn destinationRange(packet: *const Packet) Range {
    return .init(packet.data, packet.capacity);
}

/// A packet may lie in the buffer that it is sealed into, and in no other's. The buffers themselves must not meet.
pub fn isForbidden(sources: []const Packet, destinations: []const Packet) bool {
    if (inOrder(sources, destinations)) return false;
    for (destinations, 0..) |*destination, i| {
        const range = destinationRange(destination);
        for (destinations[0..i]) |*other| if (range.meets(destinationRange(other))) return true;
        for (sources, 0..) |*source, j| if (i != j and range.meets(sourceRange(source))) return true;
    }
    return false;
}

/// What nearly everybody has: buffers one behind the other, and the packets elsewhere or in them. Seen in one pass.
fn inOrder(sources: []const Packet, destinations: []const Packet) bool {
    var all_sources = sourceRange(&sources[0]);
    var all_destinations = destinationRange(&destinations[0]);
    var in_place = true;
    for (sources, destinations, 0..) |*source, *destination, i| {
        const range = destinationRange(destination);
        if (i > 0 and range.start < all_destinations.end) return false;
        const inside = sourceRange(source);
        in_place = in_place and inside.start >= range.start and inside.end <= range.end;
        all_sources = all_sources.hull(inside);
        all_destinations = all_destinations.hull(range);
    }
    return in_place or !all_sources.meets(all_destinations);
}

const testing = std.testing;

var memory: [1024]u8 = undefined;

fn at(start: usize, length: usize) Packet {
    var packet = std.mem.zeroes(Packet);
    packet.data = memory[start..].ptr;
    packet.length = length;
    packet.capacity = length;
    return packet;
}

test "packets elsewhere, or each in its own buffer, are allowed in any order" {
    const apart = [_]Packet{ at(0, 10), at(10, 10) };
    const buffers = [_]Packet{ at(100, 60), at(160, 60) };
    try testing.expect(!isForbidden(&apart, &buffers));
    try testing.expect(!isForbidden(&apart, &.{ buffers[1], buffers[0] }));
    const inside = [_]Packet{ at(100, 10), at(176, 10) };
    try testing.expect(!isForbidden(&inside, &buffers));
    try testing.expect(!isForbidden(&.{ inside[1], inside[0] }, &.{ buffers[1], buffers[0] }));
    // One packet before its buffer, the other behind its own.
    try testing.expect(!isForbidden(&.{ at(90, 10), at(220, 10) }, &buffers));
    // In front of the buffer and into it.
    try testing.expect(!isForbidden(&.{ at(90, 20), at(170, 10) }, &buffers));
    // The same packet twice.
    try testing.expect(!isForbidden(&.{ at(0, 10), at(0, 10) }, &buffers));
}

test "a packet in another's buffer, and buffers that meet, are not" {
    const buffers = [_]Packet{ at(100, 60), at(160, 60) };
    try testing.expect(isForbidden(&.{ at(100, 10), at(159, 2) }, &buffers));
    try testing.expect(isForbidden(&.{ at(160, 10), at(100, 10) }, &buffers));
    try testing.expect(isForbidden(&.{ at(100, 61), at(170, 10) }, &buffers));
    try testing.expect(isForbidden(&.{ at(0, 10), at(10, 10) }, &.{ at(100, 60), at(159, 60) }));
    try testing.expect(isForbidden(&.{ at(0, 10), at(10, 10) }, &.{ at(100, 60), at(100, 60) }));
}
