//! Attempts: what was tried with one peer since it last had a session, and what came back, to tell a user why there is
//! none. Nothing is decided by it.
//! Invariant: a packet of a session that works writes nothing here.
const std = @import("std");
const Drop = @import("drop.zig").Drop;
const Instant = @import("time.zig").Instant;
const Kind = @import("notices.zig").Kind;

/// Initiations without an answer that are worth a word: some ten seconds. One or two may be lost on any path.
pub const asked_in_vain = 3;
/// Responses that no packet of the initiator's confirmed. It sends one at once.
pub const answered_in_vain = 2;
/// A refusal says nothing any more when so many initiations later nothing came.
const refusal_lasts = 3;

/// Counted of each peer, too.
pub const drops = [_]Drop{ .no_endpoint, .disallowed_source, .handshake_gave_up, .staging_full };

pub const Attempts = struct {
    /// When the first of these was sent.
    since: Instant align(4) = .never,
    dropped: [drops.len]u32 = @splat(0),
    /// Initiations sent.
    asked: u16 = 0,
    /// Responses sent.
    answered: u16 = 0,
    /// Initiations sent since `refusal` came, up to `refusal_lasts`.
    asked_since_refusal: u8 = 0,
    refusal: ?Kind = null,
    /// What was told last of why there is no session.
    told: ?Kind = null,
    /// And that since the last initiation.
    is_told_since_asked: bool = false,
    /// There was a session, and it is asked because what was sent has no answer.
    is_silent: bool = false,
    /// Something of it was noted: that it is over is to be noted, too.
    is_noted: bool = false,

    pub fn noteAsked(attempts: *Attempts, now: Instant) void {
        if (attempts.asked == 0) attempts.since = now;
        attempts.asked +|= 1;
        attempts.asked_since_refusal = @min(attempts.asked_since_refusal + 1, refusal_lasts);
        attempts.is_told_since_asked = false;
    }

    pub fn noteRefusal(attempts: *Attempts, kind: Kind) void {
        attempts.refusal = kind;
        attempts.asked_since_refusal = 0;
    }

    /// Whether it is to be told that there is no session for this reason; call only if it is told then. A change is
    /// told, but no more than once for each initiation that is sent: what comes in between may be forged by anybody.
    pub fn isNews(attempts: *Attempts, kind: Kind) bool {
        attempts.is_noted = true;
        if (attempts.told == kind) return false;
        if (attempts.told != null and attempts.is_told_since_asked) return false;
        attempts.told = kind;
        attempts.is_told_since_asked = true;
        return true;
    }

    /// What came last in the place of a session, if it still says something.
    pub fn refused(attempts: *const Attempts) ?Kind {
        const kind = attempts.refusal orelse return null;
        return if (attempts.asked_since_refusal < refusal_lasts) kind else null;
    }

    /// Something is expected from the peer.
    pub fn isWaiting(attempts: *const Attempts) bool {
        return attempts.asked != 0 or attempts.answered != 0;
    }

    pub fn drop(attempts: *Attempts, reason: Drop, count: u64) void {
        const place = std.mem.findScalar(Drop, &drops, reason).?;
        attempts.dropped[place] +|= std.math.lossyCast(u32, count);
    }

    /// What was tried by other settings says nothing any more, and what comes of these is news.
    pub fn begin(attempts: *Attempts) void {
        attempts.* = .{ .dropped = attempts.dropped, .is_noted = attempts.is_noted };
    }

    /// There is a session. Answers whether something was noted before.
    pub fn end(attempts: *Attempts) bool {
        defer attempts.* = .{ .dropped = attempts.dropped };
        return attempts.is_noted;
    }
};

const testing = std.testing;

test "a refusal is the last word until nothing came for some initiations, or there is a session" {
    var attempts: Attempts = .{};
    attempts.noteAsked(.{ .ns = 5 });
    attempts.noteAsked(.{ .ns = 9 });
    try testing.expectEqual(5, attempts.since.ns);
    try testing.expectEqual(null, attempts.refused());
    attempts.noteRefusal(.port_unreachable);
    for (0..refusal_lasts - 1) |_| attempts.noteAsked(.{ .ns = 10 });
    try testing.expectEqual(.port_unreachable, attempts.refused().?);
    attempts.noteAsked(.{ .ns = 20 });
    try testing.expectEqual(null, attempts.refused());
    attempts.drop(.no_endpoint, 3);
    attempts.is_noted = true;
    try testing.expect(attempts.end());
    try testing.expect(!attempts.isWaiting());
    try testing.expectEqual(3, attempts.dropped[0]);
    try testing.expect(!attempts.end());
}

test "a refusal is forgotten however long nothing came before" {
    var attempts: Attempts = .{};
    for (0..1 << 17) |_| attempts.noteAsked(.{ .ns = 5 });
    attempts.noteRefusal(.port_unreachable);
    try testing.expectEqual(.port_unreachable, attempts.refused().?);
    for (0..refusal_lasts) |_| attempts.noteAsked(.{ .ns = 10 });
    try testing.expectEqual(null, attempts.refused());
}

test "a change of reason is news, once for each initiation, and so is any reason by other settings" {
    var attempts: Attempts = .{};
    attempts.noteAsked(.{ .ns = 5 });
    try testing.expect(attempts.isNews(.no_answer));
    try testing.expect(!attempts.isNews(.port_unreachable));
    attempts.noteAsked(.{ .ns = 10 });
    try testing.expect(!attempts.isNews(.no_answer));
    try testing.expect(attempts.isNews(.port_unreachable));
    for (0..100) |_| for ([_]Kind{ .prohibited, .port_unreachable }) |kind| {
        try testing.expect(!attempts.isNews(kind));
    };
    attempts.begin();
    try testing.expect(attempts.isNews(.port_unreachable));
    attempts.begin();
    try testing.expect(attempts.end());
    try testing.expect(!attempts.end());
}
