//! Lanes: what a worker of a host has in hand while others go on: a train whose nonces are reserved, or a batch that
//! was looked up. The system may let a worker wait at any instant, and what it holds then is late.
//! Knows hosts as numbers only.
//! Invariant: it holds copies of keys, as a device does, since their sessions may end meanwhile.
const std = @import("std");
const wire = @import("wire");
const protocol = @import("protocol");
const network = @import("network.zig");
const Datagram = network.Datagram;
const packet = @import("packet.zig");
const Allocator = std.mem.Allocator;

const ms = std.time.ns_per_ms;

/// How far behind the newest nonce a train may be when it leaves, as in `device/outbound.zig`.
pub const distance_max = 4096;

/// Whose hand it is. With the process all of it is gone.
pub const Owner = struct { host: u32, life: u32, generation: u32 };

/// Packets between the same two addresses, one after the other.
pub const Train = struct {
    owner: Owner,
    /// Its pointers may lead nowhere by now.
    ticket: protocol.SealTicket,
    key: [32]u8,
    remote: wire.SocketAddress,
    source: wire.Address,
    destination: wire.Address,
    /// Of the first packet.
    stamp: packet.Stamp,
    length: usize,
    count: u32,
};

/// A datagram on its way through a host: looked up, then opened.
pub const Opening = struct {
    ticket: protocol.OpenTicket,
    key: [32]u8,
    looked_up_at: u64,
    datagram: *Datagram,
    plain: [packet.length_max + 48]u8 = undefined,
    plain_length: ?usize = null,
};

pub const Batch = struct {
    owner: Owner,
    /// With datagrams of its own.
    openings: []Opening,

    pub fn create(gpa: Allocator, owner: Owner, openings: []const Opening) Allocator.Error!*Batch {
        const batch = try gpa.create(Batch);
        errdefer gpa.destroy(batch);
        batch.* = .{ .owner = owner, .openings = try gpa.dupe(Opening, openings) };
        errdefer gpa.free(batch.openings);
        for (batch.openings, 0..) |*opening, i| {
            errdefer for (batch.openings[0..i]) |*each| each.datagram.destroy(gpa);
            opening.datagram = try opening.datagram.copy(gpa);
        }
        return batch;
    }

    pub fn destroy(batch: *Batch, gpa: Allocator) void {
        for (batch.openings) |*opening| opening.datagram.destroy(gpa);
        gpa.free(batch.openings);
        gpa.destroy(batch);
    }
};

/// Null if the worker goes on at once, as it mostly does.
pub fn wait(random: std.Random, is_storm: bool) ?u64 {
    if (!network.happens(random, 200)) return null;
    return random.uintAtMost(u64, if (is_storm) 500 * ms else 30 * ms);
}
