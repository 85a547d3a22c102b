//! The five timers of a peer (whitepaper section 6, and the kernel's names for their events).
//! A table of deadlines: events come in, `deadline` and `expired` come out. Knows no packet and no
//! clock; what an expiry means is decided in interface/handshakes.zig.
//! Invariant: at most one deadline per kind; a deadline in the past fires once.
const std = @import("std");
const constants = @import("constants.zig");
const Instant = @import("time.zig").Instant;

pub const Kind = enum {
    /// An initiation got no response: send it again, or give up.
    retransmit_handshake,
    /// We received data and sent nothing back: say that we are here.
    send_keepalive,
    /// We sent data and heard nothing: the session may be dead.
    new_handshake,
    /// Nothing derived for three times REJECT_AFTER_TIME: forget all keys.
    zero_key_material,
    /// The persistent keepalive of the configuration.
    persistent_keepalive,

    const count = @typeInfo(Kind).@"enum".field_names.len;
};

const heard_shift = 28;

pub const Timers = struct {
    deadlines: [Kind.count]Instant = @splat(.never),
    handshake_attempts: u32 = 0,
    last_sent_handshake: ?Instant = null,
    need_another_keepalive: bool = false,
    sent_lastminute_handshake: bool = false,
    /// Whether the initiation is sent again before its time, with the cookie it was answered with: once for each time
    /// that it is sent in its time. So who can forge cookie replies, which takes seeing our initiations, makes us send
    /// twice as many at most.
    cookie_retry: enum(u8) { unused, due, spent } = .unused,
    /// Seconds; 0 is off.
    persistent_keepalive_interval: u16 = 0,
    /// When something authentic last came, in quarters of a second (2^28 ns), rounded up; 0 for never. To be told, not
    /// to be decided by.
    last_heard: u32 = 0,

    /// Call after a packet with data, not a keepalive, was sealed for sending. From then on an answer is expected.
    pub fn dataSent(timers: *Timers, now: Instant, jitter_ns: u64) void {
        if (timers.isPending(.new_handshake)) return;
        timers.arm(.new_handshake, now, constants.KEEPALIVE_TIMEOUT + constants.REKEY_TIMEOUT + jitter_ns);
    }

    /// Call after a packet with data, not a keepalive, was found authentic. It is to be answered within
    /// KEEPALIVE_TIMEOUT.
    pub fn dataReceived(timers: *Timers, now: Instant) void {
        if (timers.isPending(.send_keepalive)) {
            timers.need_another_keepalive = true;
        } else {
            timers.arm(.send_keepalive, now, constants.KEEPALIVE_TIMEOUT);
        }
    }

    /// Call after any packet was made for sending: data, a keepalive or a handshake message. The peer hears from us.
    pub fn anyAuthenticatedPacketSent(timers: *Timers) void {
        timers.cancel(.send_keepalive);
    }

    /// Call after any packet was found authentic: data, a keepalive or a handshake message. The peer is there.
    pub fn anyAuthenticatedPacketReceived(timers: *Timers) void {
        timers.cancel(.new_handshake);
    }

    /// Call beside that.
    pub fn noteHeard(timers: *Timers, now: Instant) void {
        timers.last_heard = heardAt(now);
    }

    pub fn heardAt(now: Instant) u32 {
        return @truncate((now.ns >> heard_shift) + 1);
    }

    /// For how long nothing authentic came, in nanoseconds; null if nothing ever did.
    pub fn silence(timers: *const Timers, now: Instant) ?u64 {
        if (timers.last_heard == 0) return null;
        return @as(u64, heardAt(now) -| timers.last_heard) << heard_shift;
    }

    /// For how long what was sent with data has no answer, in nanoseconds, less up to REKEY_TIMEOUT_JITTER_MAX. One is
    /// due after KEEPALIVE_TIMEOUT at most.
    pub fn unanswered(timers: *const Timers, now: Instant) u64 {
        const due = timers.deadlines[@backingInt(Kind.new_handshake)];
        if (due.ns == Instant.never.ns) return 0;
        return (constants.KEEPALIVE_TIMEOUT + constants.REKEY_TIMEOUT) -| due.since(now);
    }

    /// Call after any packet was sent or found authentic: the path was used, so the persistent keepalive starts anew.
    pub fn anyAuthenticatedPacketTraversal(timers: *Timers, now: Instant) void {
        if (timers.persistent_keepalive_interval == 0) return;
        timers.arm(.persistent_keepalive, now, @as(u64, timers.persistent_keepalive_interval) * std.time.ns_per_s);
    }

    /// Call when an initiation is to be sent, even if it cannot be: then it is tried again.
    pub fn handshakeInitiated(timers: *Timers, now: Instant, jitter_ns: u64) void {
        timers.arm(.retransmit_handshake, now, constants.REKEY_TIMEOUT + jitter_ns);
    }

    /// Call after a cookie reply to our initiation was believed.
    pub fn cookieReceived(timers: *Timers, now: Instant, jitter_ns: u64) void {
        if (timers.cookie_retry != .unused or !timers.isPending(.retransmit_handshake)) return;
        const retry = now.after(constants.COOKIE_RETRY_DELAY + jitter_ns);
        if (!retry.isBefore(timers.deadlines[@backingInt(Kind.retransmit_handshake)])) return;
        timers.deadlines[@backingInt(Kind.retransmit_handshake)] = retry;
        timers.cookie_retry = .due;
    }

    /// Call when a session is confirmed: for the initiator by the response, for the responder by the first packet.
    pub fn handshakeComplete(timers: *Timers) void {
        timers.cancel(.retransmit_handshake);
        timers.handshake_attempts = 0;
        timers.sent_lastminute_handshake = false;
        timers.cookie_retry = .unused;
    }

    /// Call when a session's keys were derived, by either side.
    pub fn sessionDerived(timers: *Timers, now: Instant) void {
        timers.arm(.zero_key_material, now, constants.REJECT_AFTER_TIME * 3);
    }

    /// Interface down: nothing fires any more, the persistent interval stays.
    pub fn stop(timers: *Timers) void {
        const interval = timers.persistent_keepalive_interval;
        timers.* = .{ .persistent_keepalive_interval = interval };
    }

    pub fn deadline(timers: *const Timers) Instant {
        var earliest: Instant = .never;
        for (timers.deadlines) |instant| {
            if (instant.isBefore(earliest)) earliest = instant;
        }
        return earliest;
    }

    /// Takes one due timer off the table; call until null.
    pub fn expired(timers: *Timers, now: Instant) ?Kind {
        for (&timers.deadlines, 0..) |*instant, i| {
            // Asked apart, for at the end of time even `never` is not after now.
            if (instant.ns == Instant.never.ns or now.isBefore(instant.*)) continue;
            instant.* = .never;
            return @fromBackingInt(@as(@typeInfo(Kind).@"enum".tag_type, @intCast(i)));
        }
        return null;
    }

    pub fn isPending(timers: *const Timers, kind: Kind) bool {
        return timers.deadlines[@backingInt(kind)].ns != Instant.never.ns;
    }

    pub fn arm(timers: *Timers, kind: Kind, now: Instant, delay_ns: u64) void {
        timers.deadlines[@backingInt(kind)] = now.after(delay_ns);
    }

    pub fn cancel(timers: *Timers, kind: Kind) void {
        timers.deadlines[@backingInt(kind)] = .never;
    }
};

const testing = std.testing;

fn at(seconds: u64) Instant {
    return .{ .ns = seconds * std.time.ns_per_s };
}

test "a keepalive is due ten seconds after data that got no answer, and once more if more came" {
    var timers: Timers = .{};
    timers.dataReceived(at(0));
    timers.dataReceived(at(4));
    try testing.expectEqual(at(10), timers.deadline());
    try testing.expectEqual(null, timers.expired(at(9)));
    try testing.expectEqual(.send_keepalive, timers.expired(at(10)).?);
    try testing.expectEqual(null, timers.expired(at(10)));
    try testing.expect(timers.need_another_keepalive);
    timers.dataReceived(at(20));
    timers.anyAuthenticatedPacketSent();
    try testing.expectEqual(Instant.never, timers.deadline());
}

test "a cookie brings an initiation forward, once until it is sent in its time" {
    var timers: Timers = .{};
    timers.cookieReceived(at(0), 0); // nothing is under way
    try testing.expectEqual(Instant.never, timers.deadline());
    timers.handshakeInitiated(at(0), 7);
    timers.cookieReceived(at(1), 5);
    try testing.expectEqual(at(1).ns + constants.COOKIE_RETRY_DELAY + 5, timers.deadline().ns);
    timers.cookieReceived(at(2), 5);
    try testing.expectEqual(at(1).ns + constants.COOKIE_RETRY_DELAY + 5, timers.deadline().ns);
    timers.handshakeComplete();
    // One that comes late changes nothing.
    timers.handshakeInitiated(at(10), 0);
    timers.cookieReceived(at(15), 0);
    try testing.expectEqual(at(15), timers.deadline());
    try testing.expectEqual(.unused, timers.cookie_retry);
}

test "silence after sending asks for a new handshake after fifteen seconds and jitter" {
    var timers: Timers = .{};
    timers.dataSent(at(0), 7);
    timers.dataSent(at(9), 0);
    try testing.expectEqual(at(15).ns + 7, timers.deadline().ns);
    timers.anyAuthenticatedPacketReceived();
    try testing.expectEqual(Instant.never, timers.deadline());
}

test "how long nothing came, and how long what was sent has no answer" {
    var timers: Timers = .{};
    try testing.expectEqual(null, timers.silence(at(5)));
    try testing.expectEqual(0, timers.unanswered(at(5)));
    timers.noteHeard(at(10));
    timers.dataSent(at(12), 0);
    const silence = timers.silence(at(20)).?;
    try testing.expect(silence > 9 * std.time.ns_per_s and silence < 11 * std.time.ns_per_s);
    try testing.expectEqual(8 * std.time.ns_per_s, timers.unanswered(at(20)));
    timers.anyAuthenticatedPacketReceived();
    try testing.expectEqual(0, timers.unanswered(at(21)));
    timers.stop();
    try testing.expectEqual(null, timers.silence(at(30)));
}

test "persistent keepalive restarts with every packet and survives a stop as a setting only" {
    var timers: Timers = .{};
    timers.anyAuthenticatedPacketTraversal(at(1));
    try testing.expectEqual(Instant.never, timers.deadline());
    timers.persistent_keepalive_interval = 25;
    timers.anyAuthenticatedPacketTraversal(at(1));
    timers.anyAuthenticatedPacketTraversal(at(3));
    try testing.expectEqual(at(28), timers.deadline());
    timers.stop();
    try testing.expectEqual(Instant.never, timers.deadline());
    try testing.expectEqual(25, timers.persistent_keepalive_interval);
}

test "deadlines near the end of time saturate" {
    var timers: Timers = .{};
    timers.sessionDerived(.{ .ns = std.math.maxInt(u64) - 1 });
    try testing.expectEqual(Instant.never, timers.deadline());
    try testing.expectEqual(null, timers.expired(.never));
}
