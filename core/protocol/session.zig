//! Transport sessions (the kernel's keypairs): whitepaper sections 5.4.5, 5.4.6 and 6.
//! Session is two keys, a send counter, a replay window and a birth. Sessions holds up to three of
//! them and their roles: next (not yet confirmed), current, previous. Knows no timer and no packet.
//! Invariant: a session stays in its slot for life, so a pointer to its key is good until it is retired.
const std = @import("std");
const assert = std.debug.assert;
const constants = @import("constants.zig");
const crypto = @import("crypto.zig");
const noise = @import("noise.zig");
const replay = @import("replay.zig");
const Instant = @import("time.zig").Instant;

pub const slot_count = 3;
pub const Slot = u2;

pub const Session = struct {
    sending_key: [32]u8,
    receiving_key: [32]u8,
    local_index: u32,
    remote_index: u32,
    is_initiator: bool,
    /// Cleared when a new private key makes the session stale for sending.
    may_send: bool,
    birth: Instant,
    send_counter: u64,
    window: replay.Window,

    fn init(session: *Session, keys: *const noise.Keys, now: Instant) void {
        session.* = .{
            .sending_key = keys.sending,
            .receiving_key = keys.receiving,
            .local_index = keys.local_index,
            .remote_index = keys.remote_index,
            .is_initiator = keys.is_initiator,
            .may_send = true,
            .birth = now,
            .send_counter = 0,
            .window = replay.Window.init,
        };
    }

    pub fn age(session: *const Session, now: Instant) u64 {
        return now.since(session.birth);
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

/// Local indices of sessions that ended: the caller takes them out of the index table.
pub const Retired = struct {
    indices: [slot_count]u32 = undefined,
    count: u8 = 0,

    pub fn slice(retired: *const Retired) []const u32 {
        return retired.indices[0..retired.count];
    }
};

pub const Sessions = struct {
    slots: [slot_count]Session,
    next: ?Slot,
    current: ?Slot,
    previous: ?Slot,

    /// Leaves the slots untouched, so that an idle peer costs no memory for them.
    pub fn init(sessions: *Sessions) void {
        sessions.next = null;
        sessions.current = null;
        sessions.previous = null;
    }

    pub const Added = struct { slot: Slot, retired: Retired };

    /// A handshake completed. The initiator may send at once; the responder waits for confirmation.
    pub fn add(sessions: *Sessions, keys: *const noise.Keys, now: Instant) Added {
        var added: Added = .{ .slot = undefined, .retired = .{} };
        if (keys.is_initiator) {
            sessions.retire(&sessions.previous, &added.retired);
            if (sessions.next) |next| {
                sessions.retire(&sessions.current, &added.retired);
                sessions.previous = next;
                sessions.next = null;
            } else {
                sessions.previous = sessions.current;
            }
            sessions.current = null;
        } else {
            sessions.retire(&sessions.next, &added.retired);
            sessions.retire(&sessions.previous, &added.retired);
        }
        added.slot = sessions.freeSlot();
        sessions.slots[added.slot].init(keys, now);
        if (keys.is_initiator) sessions.current = added.slot else sessions.next = added.slot;
        return added;
    }

    pub fn isNext(sessions: *const Sessions, slot: Slot) bool {
        return sessions.next != null and sessions.next.? == slot;
    }

    /// The first authentic packet of the next session proves that the initiator has its keys.
    pub fn confirm(sessions: *Sessions) Retired {
        assert(sessions.next != null);
        var retired: Retired = .{};
        sessions.retire(&sessions.previous, &retired);
        sessions.previous = sessions.current;
        sessions.current = sessions.next;
        sessions.next = null;
        return retired;
    }

    pub fn currentSession(sessions: *Sessions) ?*Session {
        return &sessions.slots[sessions.current orelse return null];
    }

    /// A new private key: what is under way may still arrive, but nothing more is sent.
    pub fn stopSending(sessions: *Sessions) void {
        if (sessions.current) |slot| sessions.slots[slot].may_send = false;
        if (sessions.next) |slot| sessions.slots[slot].may_send = false;
    }

    pub fn clear(sessions: *Sessions) Retired {
        var retired: Retired = .{};
        sessions.retire(&sessions.next, &retired);
        sessions.retire(&sessions.current, &retired);
        sessions.retire(&sessions.previous, &retired);
        return retired;
    }

    fn retire(sessions: *Sessions, role: *?Slot, retired: *Retired) void {
        const slot = role.* orelse return;
        role.* = null;
        retired.indices[retired.count] = sessions.slots[slot].local_index;
        retired.count += 1;
        crypto.zero(&sessions.slots[slot]);
    }

    fn freeSlot(sessions: *const Sessions) Slot {
        for (0..slot_count) |i| {
            const slot: Slot = @intCast(i);
            const used = for ([_]?Slot{ sessions.next, sessions.current, sessions.previous }) |role| {
                if (role != null and role.? == slot) break true;
            } else false;
            if (!used) return slot;
        }
        unreachable; // add() has just emptied a role
    }
};

const testing = std.testing;

fn testKeys(index: u32, is_initiator: bool) noise.Keys {
    return .{ .sending = @splat(1), .receiving = @splat(2), .local_index = index, .remote_index = index + 1000, .is_initiator = is_initiator };
}

fn expectRoles(sessions: *const Sessions, next: ?u32, current: ?u32, previous: ?u32) !void {
    const want = [_]?u32{ next, current, previous };
    for (want, [_]?Slot{ sessions.next, sessions.current, sessions.previous }) |expected, role| {
        const found: ?u32 = if (role) |slot| sessions.slots[slot].local_index else null;
        try testing.expectEqual(expected, found);
    }
}

test "the initiator's sessions move from current to previous" {
    var sessions: Sessions = undefined;
    sessions.init();
    for (1..6) |i| {
        const index: u32 = @intCast(i);
        const added = sessions.add(&testKeys(index, true), .{ .ns = 0 });
        try testing.expectEqual(@as(usize, if (index > 2) 1 else 0), added.retired.slice().len);
        try expectRoles(&sessions, null, index, if (index > 1) index - 1 else null);
    }
}

test "the responder's session waits as next until it is confirmed" {
    var sessions: Sessions = undefined;
    sessions.init();
    _ = sessions.add(&testKeys(1, false), .{ .ns = 0 });
    try expectRoles(&sessions, 1, null, null);
    _ = sessions.confirm();
    _ = sessions.add(&testKeys(2, false), .{ .ns = 0 });
    try expectRoles(&sessions, 2, 1, null);
    const replaced = sessions.add(&testKeys(3, false), .{ .ns = 0 });
    try testing.expectEqualSlices(u32, &.{2}, replaced.retired.slice());
    _ = sessions.confirm();
    try expectRoles(&sessions, null, 3, 1);
    _ = sessions.add(&testKeys(4, false), .{ .ns = 0 });
    try expectRoles(&sessions, 4, 3, null);
    const taken_over = sessions.add(&testKeys(5, true), .{ .ns = 0 });
    try testing.expectEqualSlices(u32, &.{3}, taken_over.retired.slice());
    try expectRoles(&sessions, null, 5, 4);
}

test "retired keys are zeroed" {
    var sessions: Sessions = undefined;
    sessions.init();
    const slot = sessions.add(&testKeys(7, true), .{ .ns = 0 }).slot;
    try testing.expectEqual(1, sessions.clear().count);
    try testing.expect(std.mem.allEqual(u8, &sessions.slots[slot].sending_key, 0));
    try testing.expect(std.mem.allEqual(u8, &sessions.slots[slot].receiving_key, 0));
}

test "REJECT_AFTER_MESSAGES and REJECT_AFTER_TIME end a session in both directions" {
    var sessions: Sessions = undefined;
    sessions.init();
    const session = &sessions.slots[sessions.add(&testKeys(1, true), .{ .ns = 5 }).slot];
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
