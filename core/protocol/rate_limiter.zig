//! RateLimiter: how many handshakes one source may ask for (whitepaper section 5.3): a token bucket per IPv4 address or
//! IPv6 /64. To be asked only about sources that have shown a cookie: anyone can forge the others.
//! Knows no message. The table is fixed: it never grows, whoever sends. Its memory is touched only where a source lies.
//! Invariant: a source that stays in the table gets at most its burst and then its rate.
const std = @import("std");
const assert = @import("wire").assert;
const wire = @import("wire");
const constants = @import("constants.zig");
const Instant = @import("time.zig").Instant;

/// Tokens are nanoseconds: a handshake costs the time in which it is earned again.
const handshake_cost = std.time.ns_per_s / constants.handshakes_per_source_per_second;
const tokens_max = handshake_cost * constants.handshakes_per_source_burst;

/// Where a source may lie. Few, as all are looked at; enough that a busy table is used evenly.
const ways = 8;

pub const Entry = struct {
    source: Source,
    tokens: u64,
    last: Instant,

    const empty: Entry = .{ .source = .none, .tokens = 0, .last = .{ .ns = 0 } };
};

/// What counts as one source: whoever has one IPv6 address usually has the /64 around it.
const Source = struct {
    /// 0 for an empty entry.
    family: u8,
    prefix: [8]u8,

    const none: Source = .{ .family = 0, .prefix = @splat(0) };

    fn of(address: *const wire.Address) Source {
        // An IPv4 address leaves the rest of its bytes zero.
        return .{ .family = @backingInt(address.family), .prefix = address.bytes[0..8].* };
    }

    fn eql(a: *const Source, b: *const Source) bool {
        return a.family == b.family and std.mem.eql(u8, &a.prefix, &b.prefix);
    }
};

pub const RateLimiter = struct {
    entries: []Entry,
    /// The sets whose entries are no longer what the memory happened to hold.
    begun: std.StaticBitSet(entries_max / ways),
    key: [16]u8,

    /// Entries that an interface needs. At 32 bytes each it is 128 KiB.
    pub const entries_max = 4096;

    /// `storage` is ours until the end, and may hold anything: a power of two, at least 8. `key` is random, so that
    /// nobody can choose addresses that meet in the same places.
    pub fn init(storage: []Entry, key: *const [16]u8) RateLimiter {
        assert(std.math.isPowerOfTwo(storage.len) and storage.len >= ways and storage.len <= entries_max);
        return .{ .entries = storage, .begun = .empty, .key = key.* };
    }

    /// Whether one more handshake from this address may be answered now.
    pub fn allow(limiter: *RateLimiter, address: wire.Address, now: Instant) bool {
        const source: Source = .of(&address);
        const places = limiter.placesOf(&source);
        const entry = for (places) |*entry| {
            if (entry.source.eql(&source)) break entry;
        } else {
            const entry = mostStale(places);
            // Apart from the assignment, which would overwrite the entry while it is still asked.
            const tokens = startingTokens(entry, now);
            entry.* = .{ .source = source, .tokens = tokens - handshake_cost, .last = now };
            return true;
        };
        entry.tokens = @min(tokens_max, entry.tokens +| now.since(entry.last));
        if (entry.last.isBefore(now)) entry.last = now;
        if (entry.tokens < handshake_cost) return false;
        entry.tokens -= handshake_cost;
        return true;
    }

    fn placesOf(limiter: *RateLimiter, source: *const Source) *[ways]Entry {
        var hasher: std.crypto.auth.siphash.SipHash64(2, 4) = .init(&limiter.key);
        hasher.update(&.{source.family});
        hasher.update(&source.prefix);
        const set: usize = @intCast(hasher.finalInt() % (limiter.entries.len / ways));
        const places = limiter.entries[set * ways ..][0..ways];
        if (!limiter.begun.isSet(set)) @memset(places, .empty);
        limiter.begun.set(set);
        return places;
    }

    fn mostStale(places: *[ways]Entry) *Entry {
        var stalest = &places[0];
        for (places) |*entry| {
            if (entry.source.family == 0) return entry;
            if (entry.last.isBefore(stalest.last)) stalest = entry;
        }
        return stalest;
    }

    /// What a newcomer starts with. If the entry it displaces has been idle long enough to be full again, forgetting it
    /// gave nothing away. Otherwise more sources are busy than fit, and the newcomer pays by doing without a burst.
    fn startingTokens(displaced: *const Entry, now: Instant) u64 {
        const is_free = displaced.source.family == 0 or now.since(displaced.last) >= tokens_max;
        return if (is_free) tokens_max else handshake_cost;
    }
};

comptime {
    assert(handshake_cost * constants.handshakes_per_source_per_second == std.time.ns_per_s);
    assert(@sizeOf(Entry) <= 32);
}

const testing = std.testing;

const Scene = struct {
    storage: [64]Entry = undefined, // whatever is there
    limiter: RateLimiter = undefined,
    now: Instant = .{ .ns = 77 * std.time.ns_per_s },

    fn begin(scene: *Scene) void {
        scene.limiter = .init(&scene.storage, &@as([16]u8, @splat(0x42)));
    }

    fn expect(scene: *Scene, expected: bool, text: []const u8) !void {
        try testing.expectEqual(expected, scene.limiter.allow(wire.Address.parse(text).?, scene.now));
    }

    fn wait(scene: *Scene, milliseconds: u64) void {
        scene.now = scene.now.after(milliseconds * std.time.ns_per_ms);
    }
};

test "a burst of five passes, then one handshake per 50 ms" {
    var scene: Scene = .{};
    scene.begin();
    const steps = [_]struct { wait_ms: u64, allowed: bool }{
        .{ .wait_ms = 0, .allowed = true },  .{ .wait_ms = 0, .allowed = true },   .{ .wait_ms = 0, .allowed = true },
        .{ .wait_ms = 0, .allowed = true },  .{ .wait_ms = 0, .allowed = true },   .{ .wait_ms = 0, .allowed = false },
        .{ .wait_ms = 50, .allowed = true }, .{ .wait_ms = 0, .allowed = false },  .{ .wait_ms = 49, .allowed = false },
        .{ .wait_ms = 1, .allowed = true },  .{ .wait_ms = 100, .allowed = true }, .{ .wait_ms = 0, .allowed = true },
        .{ .wait_ms = 0, .allowed = false }, .{ .wait_ms = 900, .allowed = true }, .{ .wait_ms = 0, .allowed = true },
        .{ .wait_ms = 0, .allowed = true },  .{ .wait_ms = 0, .allowed = true },   .{ .wait_ms = 0, .allowed = true },
        .{ .wait_ms = 0, .allowed = false },
    };
    for (steps) |step| {
        scene.wait(step.wait_ms);
        try scene.expect(step.allowed, "192.0.2.1");
        try scene.expect(step.allowed, "2001:db8:1:2::3");
    }
}

test "a source touches the entries of its own set, whatever they held, and no others" {
    var memory: [64 * @sizeOf(Entry)]u8 align(@alignOf(Entry)) = @splat(0xff);
    const storage: *[64]Entry = @ptrCast(&memory);
    var limiter: RateLimiter = .init(storage, &@as([16]u8, @splat(0x42)));
    const now: Instant = .{ .ns = 77 * std.time.ns_per_s };
    for (0..5) |_| try testing.expect(limiter.allow(.fromIpv4(.{ 192, 0, 2, 1 }), now));
    try testing.expect(!limiter.allow(.fromIpv4(.{ 192, 0, 2, 1 }), now));
    try testing.expectEqual(1, limiter.begun.count());
    var touched: usize = 0;
    for (0..64 / ways) |set| {
        const bytes = memory[set * ways * @sizeOf(Entry) ..][0 .. ways * @sizeOf(Entry)];
        touched += @intFromBool(!std.mem.allEqual(u8, bytes, 0xff));
    }
    try testing.expectEqual(1, touched);
}

test "sources are IPv4 addresses and IPv6 networks of 64 bits" {
    var scene: Scene = .{};
    scene.begin();
    for (0..5) |_| {
        try scene.expect(true, "192.0.2.1");
        try scene.expect(true, "2001:db8:1:2::3");
    }
    try scene.expect(false, "192.0.2.1");
    try scene.expect(false, "2001:db8:1:2:ffff:ffff:ffff:ffff");
    try scene.expect(true, "192.0.2.0");
    try scene.expect(true, "192.0.2.2");
    try scene.expect(true, "2001:db8:1:3::3");
    // The same bytes in the other family.
    try scene.expect(true, "c000:201::");
}

test "waiting never saves up more than a burst, and a clock that goes back saves nothing" {
    var scene: Scene = .{};
    scene.begin();
    scene.wait(3_600_000);
    for (0..5) |_| try scene.expect(true, "192.0.2.1");
    try scene.expect(false, "192.0.2.1");
    scene.now.ns -= 10 * std.time.ns_per_s;
    try scene.expect(false, "192.0.2.1");
    scene.now.ns += 10 * std.time.ns_per_s;
    try scene.expect(false, "192.0.2.1");
    scene.now = .never;
    for (0..5) |_| try scene.expect(true, "192.0.2.1");
    try scene.expect(false, "192.0.2.1");
}

test "a full table admits newcomers without a burst, and forgets the idle for free" {
    var scene: Scene = .{};
    scene.begin();
    var number: u32 = 0;
    // Far more sources than entries, all busy.
    while (number < 1000) : (number += 1) {
        var octets: [4]u8 = undefined;
        std.mem.writeInt(u32, &octets, number, .big);
        try testing.expect(scene.limiter.allow(.fromIpv4(octets), scene.now));
    }
    try scene.expect(true, "192.0.2.1");
    try scene.expect(false, "192.0.2.1");
    scene.wait(250);
    for (0..5) |_| try scene.expect(true, "192.0.2.2");
    try scene.expect(false, "192.0.2.2");
}

test "a newcomer to a full table displaces the source that was quiet longest" {
    var storage: [ways]Entry = undefined;
    var limiter: RateLimiter = .init(&storage, &@as([16]u8, @splat(0x42)));
    var now: Instant = .{ .ns = 0 };
    for (0..ways + 1) |number| {
        now = now.after(std.time.ns_per_ms);
        const address: wire.Address = .fromIpv4(.{ 192, 0, 2, @intCast(number) });
        const burst: usize = if (number == ways) 1 else constants.handshakes_per_source_burst;
        for (0..burst) |_| try testing.expect(limiter.allow(address, now));
        try testing.expect(!limiter.allow(address, now));
    }
    // All are remembered but the first.
    for (1..ways + 1) |number| try testing.expect(!limiter.allow(.fromIpv4(.{ 192, 0, 2, @intCast(number) }), now));
    try testing.expect(limiter.allow(.fromIpv4(.{ 192, 0, 2, 0 }), now));
}

test "one source that floods does not cost others theirs" {
    var scene: Scene = .{};
    scene.begin();
    var passed: usize = 0;
    for (0..10_000) |_| {
        scene.now.ns += std.time.ns_per_ms / 10;
        if (scene.limiter.allow(wire.Address.parse("203.0.113.9").?, scene.now)) passed += 1;
    }
    // One second: the burst and twenty more.
    try testing.expect(passed >= 24 and passed <= 25);
    try scene.expect(true, "192.0.2.1");
}
