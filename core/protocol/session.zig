//! Transport sessions (the kernel's keypairs): whitepaper sections 5.4.5, 5.4.6 and 6.
//! Session is two keys, a send counter, a replay window and a birth. Sessions holds a peer's and their roles: next (not
//! yet confirmed), current, previous. Pool keeps them for all peers. Knows no timer and no packet.
//! Invariant: a session stays where it is for life, so a pointer to its key is good until it is retired.
const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const constants = @import("constants.zig");
const crypto = @import("crypto.zig");
const noise = @import("noise.zig");
const replay = @import("replay.zig");
const Instant = @import("time.zig").Instant;
const SegmentedArray = @import("segmented_array.zig").SegmentedArray;

/// Of one peer. There are three roles, but next and previous are never held at once: either's beginning is the other's
/// end.
pub const sessions_max = 2;
/// Where in the pool.
pub const Slot = u30;

/// In the order of use: sending touches the first cache line, receiving also the second and one of the window.
pub const Session = extern struct {
    sending_key: [32]u8 align(cache_line),
    send_counter: u64,
    birth_ns: u64,
    local_index: u32,
    remote_index: u32,
    is_initiator: bool,
    /// Cleared when a new private key makes the session stale for sending.
    may_send: bool,
    receiving_key: [32]u8 align(cache_line),
    window: replay.Window,
    /// The pool's, between two lives.
    next_free: u32,

    const cache_line = 64;

    fn init(session: *Session, keys: *const noise.Keys, now: Instant) void {
        session.* = .{
            .sending_key = keys.sending,
            .send_counter = 0,
            .birth_ns = now.ns,
            .local_index = keys.local_index,
            .remote_index = keys.remote_index,
            .is_initiator = keys.is_initiator,
            .may_send = true,
            .receiving_key = keys.receiving,
            .window = replay.Window.init,
            .next_free = Pool.none,
        };
    }

    pub fn age(session: *const Session, now: Instant) u64 {
        return now.since(.{ .ns = session.birth_ns });
    }

    /// Takes `count` nonces in a row and returns the first; null when the session may no longer send.
    pub fn reserve(session: *Session, count: u64, now: Instant) ?u64 {
        if (!session.may_send or session.age(now) >= constants.REJECT_AFTER_TIME) return null;
        const first = session.send_counter;
        if (first >= constants.REJECT_AFTER_MESSAGES or count > constants.REJECT_AFTER_MESSAGES - first) return null;
        session.send_counter = first + count;
        return first;
    }

    pub fn mayReceive(session: *const Session, counter: u64, now: Instant) bool {
        return session.age(now) < constants.REJECT_AFTER_TIME and counter < constants.REJECT_AFTER_MESSAGES;
    }

    /// After sending: is it time for a new handshake (section 6.2)?
    pub fn wantsRekeyAfterSend(session: *const Session, now: Instant) bool {
        return session.send_counter > constants.REKEY_AFTER_MESSAGES or
            (session.is_initiator and session.age(now) >= constants.REKEY_AFTER_TIME);
    }

    /// After receiving: the initiator renews just before the session would be refused (section 6.2).
    pub fn wantsRekeyAfterReceive(session: *const Session, now: Instant) bool {
        const limit = constants.REJECT_AFTER_TIME - constants.KEEPALIVE_TIMEOUT - constants.REKEY_TIMEOUT;
        return session.is_initiator and session.age(now) >= limit;
    }
};

/// The sessions of all peers, so that a peer without any costs none. Room is reserved ahead, but memory is touched only
/// as far as there were sessions at one time; those that ended are the first to be used again.
pub const Pool = struct {
    sessions: SegmentedArray(Session, sessions_per_segment) = .{},
    /// Slots from here on were never used.
    high: u32 = 0,
    free_head: u32 = none,

    /// Of 64 peers; whole pages, if pages have 4 KiB.
    const sessions_per_segment = 64 * sessions_max;
    const none = std.math.maxInt(u32);

    pub fn deinit(pool: *Pool, gpa: Allocator) void {
        pool.sessions.deinit(gpa);
        pool.* = undefined;
    }

    /// Room for all sessions of so many peers.
    pub fn ensurePeerCapacity(pool: *Pool, gpa: Allocator, peer_count: u32) Allocator.Error!void {
        try pool.sessions.ensureCapacity(gpa, @as(usize, peer_count) * sessions_max);
    }

    /// The opposite: keeps the room of so many peers, which must cover all that had sessions.
    pub fn shrinkPeerCapacity(pool: *Pool, gpa: Allocator, peer_count: u32) void {
        assert(pool.high <= @as(usize, peer_count) * sessions_max);
        pool.sessions.shrinkCapacity(gpa, @as(usize, peer_count) * sessions_max);
    }

    pub fn at(pool: *const Pool, slot: Slot) *Session {
        return pool.sessions.at(slot);
    }

    fn take(pool: *Pool) Slot {
        if (pool.free_head != none) {
            const slot: Slot = @intCast(pool.free_head);
            pool.free_head = pool.at(slot).next_free;
            return slot;
        }
        assert(pool.high < pool.sessions.capacity());
        defer pool.high += 1;
        return @intCast(pool.high);
    }

    /// A session as it was elsewhere, from the fields that it has there.
    pub fn restore(pool: *Pool, from: anytype) Slot {
        const slot = pool.take();
        const session = pool.at(slot);
        inline for (comptime std.meta.fieldNames(Session)) |name| {
            if (comptime std.mem.eql(u8, name, "next_free")) continue;
            @field(session, name) = @field(from, name);
        }
        session.next_free = none;
        return slot;
    }

    fn give(pool: *Pool, slot: Slot) void {
        const session = pool.at(slot);
        crypto.zero(session);
        session.next_free = pool.free_head;
        pool.free_head = slot;
    }
};

/// Local indices of sessions that ended: the caller takes them out of the index table.
pub const Retired = struct {
    indices: [sessions_max]u32 = undefined,
    count: u8 = 0,

    pub fn slice(retired: *const Retired) []const u32 {
        return retired.indices[0..retired.count];
    }
};

/// The sessions of one peer, by their roles.
pub const Sessions = struct {
    next: ?Slot = null,
    current: ?Slot = null,
    previous: ?Slot = null,

    pub const Added = struct { slot: Slot, retired: Retired };

    /// A handshake completed. The initiator may send at once; the responder waits for confirmation.
    pub fn add(sessions: *Sessions, pool: *Pool, keys: *const noise.Keys, now: Instant) Added {
        assert(sessions.next == null or sessions.previous == null);
        var retired: Retired = .{};
        if (keys.is_initiator) {
            retire(pool, &sessions.previous, &retired);
            if (sessions.next) |next| {
                retire(pool, &sessions.current, &retired);
                sessions.previous = next;
                sessions.next = null;
            } else {
                sessions.previous = sessions.current;
            }
            sessions.current = null;
        } else {
            retire(pool, &sessions.next, &retired);
            retire(pool, &sessions.previous, &retired);
        }
        const slot = pool.take();
        pool.at(slot).init(keys, now);
        if (keys.is_initiator) sessions.current = slot else sessions.next = slot;
        return .{ .slot = slot, .retired = retired };
    }

    pub fn isNext(sessions: *const Sessions, slot: Slot) bool {
        return sessions.next != null and sessions.next.? == slot;
    }

    /// Whether the session there is this peer's: if not, it was retired, and the slot may be another peer's by now.
    pub fn holds(sessions: *const Sessions, slot: Slot) bool {
        for ([_]?Slot{ sessions.current, sessions.next, sessions.previous }) |role| {
            if (role != null and role.? == slot) return true;
        }
        return false;
    }

    /// The first authentic packet of the next session proves that the initiator has its keys.
    pub fn confirm(sessions: *Sessions) void {
        assert(sessions.next != null and sessions.previous == null);
        sessions.previous = sessions.current;
        sessions.current = sessions.next;
        sessions.next = null;
    }

    pub fn currentSession(sessions: *const Sessions, pool: *const Pool) ?*Session {
        return pool.at(sessions.current orelse return null);
    }

    /// A new private key: what is under way may still arrive, but nothing more is sent.
    pub fn stopSending(sessions: *const Sessions, pool: *const Pool) void {
        if (sessions.current) |slot| pool.at(slot).may_send = false;
        if (sessions.next) |slot| pool.at(slot).may_send = false;
    }

    pub fn clear(sessions: *Sessions, pool: *Pool) Retired {
        var retired: Retired = .{};
        retire(pool, &sessions.next, &retired);
        retire(pool, &sessions.current, &retired);
        retire(pool, &sessions.previous, &retired);
        return retired;
    }

    fn retire(pool: *Pool, role: *?Slot, retired: *Retired) void {
        const slot = role.* orelse return;
        role.* = null;
        retired.indices[retired.count] = pool.at(slot).local_index;
        retired.count += 1;
        pool.give(slot);
    }
};

comptime {
    assert(constants.peers_max * sessions_max <= std.math.maxInt(Slot));
    assert(@sizeOf(Session) * Pool.sessions_per_segment % 4096 == 0);
    // What sending touches, and what receiving touches but for a word of the window.
    assert(@offsetOf(Session, "may_send") < Session.cache_line);
    assert(@offsetOf(Session, "remote_index") < Session.cache_line);
    assert(@offsetOf(Session, "receiving_key") == Session.cache_line);
    assert(@offsetOf(Session, "window") + @offsetOf(replay.Window, "words") <= 2 * Session.cache_line);
}

const testing = std.testing;

fn testKeys(index: u32, is_initiator: bool) noise.Keys {
    return .{
        .sending = @splat(1),
        .receiving = @splat(2),
        .local_index = index,
        .remote_index = index + 1000,
        .is_initiator = is_initiator,
    };
}

fn expectRoles(pool: *const Pool, sessions: *const Sessions, next: ?u32, current: ?u32, previous: ?u32) !void {
    const want = [_]?u32{ next, current, previous };
    for (want, [_]?Slot{ sessions.next, sessions.current, sessions.previous }) |expected, role| {
        const found: ?u32 = if (role) |slot| pool.at(slot).local_index else null;
        try testing.expectEqual(expected, found);
    }
}

test "the initiator's sessions move from current to previous" {
    var pool: Pool = .{};
    defer pool.deinit(testing.allocator);
    try pool.ensurePeerCapacity(testing.allocator, 1);
    var sessions: Sessions = .{};
    for (1..6) |i| {
        const index: u32 = @intCast(i);
        const added = sessions.add(&pool, &testKeys(index, true), .{ .ns = 0 });
        try testing.expectEqual(@as(usize, if (index > 2) 1 else 0), added.retired.slice().len);
        try expectRoles(&pool, &sessions, null, index, if (index > 1) index - 1 else null);
    }
}

test "the responder's session waits as next until it is confirmed" {
    var pool: Pool = .{};
    defer pool.deinit(testing.allocator);
    try pool.ensurePeerCapacity(testing.allocator, 1);
    var sessions: Sessions = .{};
    _ = sessions.add(&pool, &testKeys(1, false), .{ .ns = 0 });
    try expectRoles(&pool, &sessions, 1, null, null);
    sessions.confirm();
    _ = sessions.add(&pool, &testKeys(2, false), .{ .ns = 0 });
    try expectRoles(&pool, &sessions, 2, 1, null);
    const replaced = sessions.add(&pool, &testKeys(3, false), .{ .ns = 0 });
    try testing.expectEqualSlices(u32, &.{2}, replaced.retired.slice());
    sessions.confirm();
    try expectRoles(&pool, &sessions, null, 3, 1);
    _ = sessions.add(&pool, &testKeys(4, false), .{ .ns = 0 });
    try expectRoles(&pool, &sessions, 4, 3, null);
    const taken_over = sessions.add(&pool, &testKeys(5, true), .{ .ns = 0 });
    try testing.expectEqualSlices(u32, &.{3}, taken_over.retired.slice());
    try expectRoles(&pool, &sessions, null, 5, 4);
}

test "retired keys are zeroed" {
    var pool: Pool = .{};
    defer pool.deinit(testing.allocator);
    try pool.ensurePeerCapacity(testing.allocator, 1);
    var sessions: Sessions = .{};
    const session = pool.at(sessions.add(&pool, &testKeys(7, true), .{ .ns = 0 }).slot);
    try testing.expectEqual(1, sessions.clear(&pool).count);
    try testing.expect(std.mem.allEqual(u8, std.mem.asBytes(session)[0..@offsetOf(Session, "next_free")], 0));
}

test "REJECT_AFTER_MESSAGES and REJECT_AFTER_TIME end a session in both directions" {
    var pool: Pool = .{};
    defer pool.deinit(testing.allocator);
    try pool.ensurePeerCapacity(testing.allocator, 1);
    var sessions: Sessions = .{};
    const session = pool.at(sessions.add(&pool, &testKeys(1, true), .{ .ns = 5 }).slot);
    session.send_counter = constants.REJECT_AFTER_MESSAGES - 1;
    try testing.expectEqual(null, session.reserve(2, .{ .ns = 5 }));
    try testing.expectEqual(constants.REJECT_AFTER_MESSAGES - 1, session.reserve(1, .{ .ns = 5 }).?);
    try testing.expectEqual(null, session.reserve(1, .{ .ns = 5 }));
    try testing.expect(session.mayReceive(constants.REJECT_AFTER_MESSAGES - 1, .{ .ns = 5 }));
    try testing.expect(!session.mayReceive(constants.REJECT_AFTER_MESSAGES, .{ .ns = 5 }));
    session.send_counter = std.math.maxInt(u32); // a 32-bit counter would wrap here
    try testing.expectEqual(0xffff_ffff, session.reserve(2, .{ .ns = 5 }).?);
    try testing.expectEqual(0x1_0000_0001, session.reserve(1, .{ .ns = 5 }).?);
    const late: Instant = .{ .ns = 5 + constants.REJECT_AFTER_TIME };
    try testing.expectEqual(null, session.reserve(1, late));
    try testing.expect(!session.mayReceive(0, late));
}

test "the pool is touched as far as there were sessions at one time, not for each peer that ever had one" {
    const peer_count = 100;
    var pool: Pool = .{};
    defer pool.deinit(testing.allocator);
    try pool.ensurePeerCapacity(testing.allocator, peer_count);
    var peers: [peer_count]Sessions = @splat(.{});
    // One after the other, each with a rekey before its sessions expire.
    for (&peers) |*sessions| {
        for (0..3) |_| _ = sessions.add(&pool, &testKeys(1, true), .{ .ns = 0 });
        try testing.expectEqual(sessions_max, sessions.clear(&pool).count);
    }
    try testing.expectEqual(sessions_max, pool.high);
    // All together: room was reserved for that.
    for (&peers) |*sessions| for (0..3) |_| {
        _ = sessions.add(&pool, &testKeys(1, true), .{ .ns = 0 });
    };
    try testing.expectEqual(sessions_max * peer_count, pool.high);
    for (peers, 0..) |sessions, i| {
        try testing.expect(sessions.holds(sessions.current.?) and sessions.holds(sessions.previous.?));
        if (i > 0) try testing.expect(!sessions.holds(peers[i - 1].current.?));
    }
    for (&peers) |*sessions| _ = sessions.clear(&pool);
    for (0..pool.high) |slot| {
        const bytes = std.mem.asBytes(pool.at(@intCast(slot)));
        try testing.expect(std.mem.allEqual(u8, bytes[0..@offsetOf(Session, "next_free")], 0));
    }
}
