//! Network: what happens to a datagram between two hosts. It is late, lost, doubled, overtaken, damaged or cut off, and
//! somebody on the way keeps copies. Knows addresses and bytes, not hosts' state.
//! Invariant: all chance comes from the one generator that it is given.
const std = @import("std");
const wire = @import("wire");
const messages = wire.messages;
const protocol = @import("protocol");
const Allocator = std.mem.Allocator;

const ms = std.time.ns_per_ms;

/// How a copy differs from what was sent.
pub const Damage = enum { none, mac2_only, real };

/// The author of what no host sent.
pub const nobody = std.math.maxInt(u32);

pub const Datagram = struct {
    bytes: []u8,
    /// Copies share the number of what was sent.
    number: u64,
    author: u32,
    author_public: [32]u8,
    from: wire.SocketAddress,
    to: wire.SocketAddress,
    damage: Damage = .none,
    /// A worker has looked it up, and not finished it.
    is_in_hand: bool = false,
    /// Of an initiation.
    timestamp: protocol.time.Timestamp = @splat(0),
    /// Of a response: the preshared key it was made with.
    psk: [32]u8 = @splat(0),
    generation: u32,

    pub fn copy(datagram: *const Datagram, gpa: Allocator) Allocator.Error!*Datagram {
        const result = try gpa.create(Datagram);
        errdefer gpa.destroy(result);
        result.* = datagram.*;
        result.bytes = try gpa.dupe(u8, datagram.bytes);
        return result;
    }

    pub fn destroy(datagram: *Datagram, gpa: Allocator) void {
        gpa.free(datagram.bytes);
        gpa.destroy(datagram);
    }
};

/// Chances are out of 1000.
pub const Weather = struct {
    lost: u16 = 0,
    doubled: u16 = 0,
    damaged: u16 = 0,
    diverted: u16 = 0,
    spiked: u16 = 0,
    delay_ns: u64 = 20 * ms,
    spike_ns: u64 = 0,
    /// Longer datagrams get lost: a narrow link that says nothing, or whose word gets lost.
    longest: usize = std.math.maxInt(usize),

    pub fn fair(random: std.Random) Weather {
        return .{ .delay_ns = random.intRangeAtMost(u64, 1, 80) * ms };
    }

    pub fn storm(random: std.Random) Weather {
        return .{
            .lost = chanceUpTo(random, 400),
            .doubled = chanceUpTo(random, 200),
            .damaged = chanceUpTo(random, 100),
            .diverted = chanceUpTo(random, 20),
            .spiked = chanceUpTo(random, 100),
            .delay_ns = random.intRangeAtMost(u64, 1, 300) * ms,
            .spike_ns = random.intRangeAtMost(u64, 1, 20_000) * ms,
            .longest = if (random.uintLessThan(u8, 4) == 0) 600 else std.math.maxInt(usize),
        };
    }

    fn chanceUpTo(random: std.Random, most: u16) u16 {
        return if (random.boolean()) 0 else random.uintAtMost(u16, most);
    }

    /// Jitter is as large as the delay, so datagrams overtake each other.
    pub fn delay(weather: *const Weather, random: std.Random) u64 {
        const usual = random.intRangeAtMost(u64, weather.delay_ns / 2, weather.delay_ns);
        return if (happens(random, weather.spiked)) usual + random.uintAtMost(u64, weather.spike_ns) else usual;
    }
};

pub fn happens(random: std.Random, chance: u16) bool {
    return chance != 0 and random.uintLessThan(u16, 1000) < chance;
}

/// Changes a bit, or the length.
pub fn damage(datagram: *Datagram, random: std.Random) void {
    const bytes = datagram.bytes;
    const is_handshake = switch (messages.classify(bytes) orelse return) {
        .initiation, .response => true,
        .cookie_reply, .transport => false,
    };
    // The last fields are the MACs: the places where a check that is missing shows.
    const in_macs = is_handshake and random.boolean();
    const at = if (in_macs)
        bytes.len - 1 - random.uintLessThan(usize, 32)
    else
        random.uintLessThan(usize, @min(bytes.len, 200));
    bytes[at] ^= @as(u8, 1) << random.int(u3);
    const only_mac2 = is_handshake and at >= bytes.len - 16;
    if (datagram.damage != .real) datagram.damage = if (only_mac2) .mac2_only else .real;
}

/// What was seen on the way, and can be sent again by someone who is no host.
pub const Tap = struct {
    kept: [48]?*Datagram = @splat(null),

    pub fn keep(tap: *Tap, gpa: Allocator, random: std.Random, datagram: *const Datagram) Allocator.Error!void {
        const place = &tap.kept[random.uintLessThan(usize, tap.kept.len)];
        if (place.*) |old| old.destroy(gpa);
        place.* = null;
        place.* = try datagram.copy(gpa);
    }

    pub fn any(tap: *const Tap, random: std.Random) ?*const Datagram {
        return tap.kept[random.uintLessThan(usize, tap.kept.len)];
    }

    pub fn clear(tap: *Tap, gpa: Allocator) void {
        for (&tap.kept) |*place| {
            if (place.*) |old| old.destroy(gpa);
            place.* = null;
        }
    }
};

/// Where host `number` is after so many moves; half of them have IPv6 outside.
pub fn addressOf(number: u32, moves: u16) wire.SocketAddress {
    const high: u8 = @truncate(number >> 8);
    const low: u8 = @truncate(number);
    const address: wire.Address = if (number % 2 == 0)
        .fromIpv4(.{ 100, high, low, @truncate(moves >> 2) })
    else
        .fromIpv6(.{ 0x20, 1, 0xd, 0xb8, 0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, @truncate(moves >> 2) });
    return .{ .address = address, .port = 1024 + moves };
}

/// The number in an address made by `addressOf`.
pub fn numberOf(address: wire.SocketAddress) u32 {
    const bytes = &address.address.bytes;
    return switch (address.address.family) {
        .ipv4 => @as(u32, bytes[1]) << 8 | bytes[2],
        .ipv6 => @as(u32, bytes[6]) << 8 | bytes[7],
    };
}

/// An address where no host ever is: another port of the same address, or elsewhere.
pub fn elsewhere(random: std.Random, like: wire.SocketAddress) wire.SocketAddress {
    if (random.boolean()) return .{ .address = like.address, .port = 7 };
    return .{ .address = .fromIpv4(.{ 203, 0, 113, random.int(u8) }), .port = 99 };
}

test "a host is found by its address after any number of moves" {
    for ([_]u32{ 0, 1, 255, 256, 999 }) |number| for ([_]u16{ 0, 3, 700 }) |moves| {
        try std.testing.expectEqual(number, numberOf(addressOf(number, moves)));
    };
}
