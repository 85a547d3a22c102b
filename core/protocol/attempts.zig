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
    /// How many had been asked when `refusal` came.
    refused_at: u16 = 0,
    refusal: ?Kind = null,
    /// There was a session, and it is asked because what was sent has no answer.
    is_silent: bool = false,
    /// Something of it was noted: that it is over is to be noted, too.
    is_noted: bool = false,

    pub fn noteAsked(attempts: *Attempts, now: Instant) void {
        if (attempts.asked == 0) attempts.since = now;
        attempts.asked +|= 1;
    }

    pub fn noteRefusal(attempts: *Attempts, kind: Kind) void {
        attempts.refusal = kind;
        attempts.refused_at = attempts.asked;
    }

    /// What came last in the place of a session, if it still says something.
    pub fn refused(attempts: *const Attempts) ?Kind {
        const kind = attempts.refusal orelse return null;
        return if (attempts.asked -| attempts.refused_at < refusal_lasts) kind else null;
    }

    /// Something is expected from the peer.
    pub fn isWaiting(attempts: *const Attempts) bool {
        return attempts.asked != 0 or attempts.answered != 0;
    }

    pub fn drop(attempts: *Attempts, reason: Drop, count: u64) void {
        const place = std.mem.findScalar(Drop, &drops, reason).?;
        attempts.dropped[place] +|= std.math.lossyCast(u32, count);
    }

    /// What was tried by other settings says nothing any more.
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
