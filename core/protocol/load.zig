//! Load: how much time the handshakes of all sources together may take (whitepaper section 5.3 leaves open when a
//! responder is under load). What costs time is curve operations, so these are counted, each at a price in nanoseconds
//! that the caller has measured: a slow machine is under load sooner than a fast one. What costs none is no load: a
//! message without a right MAC1, a cookie reply, a response to nothing of ours.
//! Knows no message, no cookie and no clock.
//! Invariant: in any t seconds each of the allowances pays for at most `share` * t + `burst` and one handshake.
const std = @import("std");
const assert = std.debug.assert;
const Instant = @import("time.zig").Instant;

const millisecond = std.time.ns_per_ms;

/// To look into an initiation: es. (ss is computed once for each peer.)
pub const operations_of_initiation = 1;
/// To answer one that is good: the ephemeral key, ee, se.
pub const operations_of_answer = 3;
/// To look into a response: ee, se.
pub const operations_of_response = 2;

/// What pays for a handshake message.
pub const Payer = enum {
    /// Nobody needs to: what is spent is bounded elsewhere, or the caller does not want it bounded.
    none,
    /// The allowance of those that have shown no cookie.
    unproven,
    /// The allowance of those that receive what is sent to them: they have shown a cookie.
    proven,
};

/// Of each second one part in so many, and `burst_ns` at once. Kept as one instant: when all that was spent will have
/// been earned again.
const Allowance = struct {
    one_in: u64,
    burst_ns: u64,
    earned: Instant = .{ .ns = 0 },

    fn isSpent(allowance: *const Allowance, now: Instant) bool {
        return now.after(allowance.burst_ns *| allowance.one_in).isBefore(allowance.earned);
    }

    fn spend(allowance: *Allowance, cost_ns: u64, now: Instant) void {
        const begin = if (allowance.earned.isBefore(now)) now else allowance.earned;
        allowance.earned = begin.after(cost_ns *| allowance.one_in);
    }
};

pub const Load = struct {
    curve_ns: u64,
    /// Small, for anyone can forge addresses; but not nothing, so that one who cannot take cookies has a chance.
    unproven: Allowance = .{ .one_in = 40, .burst_ns = 10 * millisecond },
    proven: Allowance = .{ .one_in = 4, .burst_ns = 10 * millisecond },
    /// A reply costs a send, whatever the curve costs: some 4 microseconds.
    replies: Allowance = .{ .one_in = 1, .burst_ns = replies_burst * reply_ns },

    pub const replies_per_second = 16_384;
    pub const replies_burst = 1024;
    const reply_ns = std.time.ns_per_s / replies_per_second;

    /// What a curve operation is taken to cost where nobody has measured it.
    pub const curve_ns_default = 100_000;

    /// `curve_ns` is what one curve operation takes. A clock that lies makes it neither nothing nor everything.
    pub fn init(curve_ns: u64) Load {
        return .{ .curve_ns = std.math.clamp(curve_ns, 5_000, 5 * millisecond) };
    }

    /// Whether one more handshake may be computed for somebody who has shown no cookie, or who has.
    pub fn allows(load: *Load, payer: Payer, now: Instant) bool {
        const allowance = load.of(payer) orelse return true;
        return !allowance.isSpent(now);
    }

    /// What was allowed is computed now. It may cost more than is left: then it takes the longer until it is earned.
    pub fn charge(load: *Load, payer: Payer, operations: u64, now: Instant) void {
        const allowance = load.of(payer) orelse return;
        allowance.spend(operations * load.curve_ns, now);
    }

    fn of(load: *Load, payer: Payer) ?*Allowance {
        return switch (payer) {
            .none => null,
            .unproven => &load.unproven,
            .proven => &load.proven,
        };
    }

    /// Whether one more cookie reply may be sent; if so, it is charged.
    pub fn takeReply(load: *Load, now: Instant) bool {
        if (load.replies.isSpent(now)) return false;
        load.replies.spend(reply_ns, now);
        return true;
    }
};

const testing = std.testing;
const beginning: Instant = .{ .ns = 1000 * std.time.ns_per_s };

/// Nanoseconds of computing that were allowed in `duration_ns`, when a handshake is tried every `step_ns`.
fn computed(load: *Load, payer: Payer, operations: u64, start: Instant, duration_ns: u64, step_ns: u64) u64 {
    var spent: u64 = 0;
    var now = start;
    while (now.isBefore(start.after(duration_ns))) : (now = now.after(step_ns)) {
        if (!load.allows(payer, now)) continue;
        load.charge(payer, operations, now);
        spent += operations * load.curve_ns;
    }
    return spent;
}

test "handshakes without a cookie take at most a fortieth of a core, those with one a quarter, whatever the machine" {
    const shares = [_]struct { payer: Payer, one_in: u64 }{
        .{ .payer = .unproven, .one_in = 40 },
        .{ .payer = .proven, .one_in = 4 },
    };
    for ([_]u64{ 20_000, 60_000, 1_000_000 }) |curve_ns| for (shares) |share| for ([_]u64{ 1, 4 }) |operations| {
        for ([_]u64{ 1, 10, 100 }) |seconds| {
            var load: Load = .init(curve_ns);
            const duration = seconds * std.time.ns_per_s;
            const spent = computed(&load, share.payer, operations, beginning, duration, 20_000);
            const promised = duration / share.one_in + 10 * millisecond;
            try testing.expect(spent <= promised + operations * curve_ns);
            // Nor is less allowed than is promised.
            try testing.expect(spent + operations * curve_ns >= promised - 20_000);
        }
    };
}

test "what one allowance has spent leaves the other alone, and calm brings a burst back but no more" {
    var load: Load = .init(50_000);
    const burst = 10 * millisecond / 50_000;
    for ([_]u64{ 0, 1 }) |hours| {
        const now = beginning.after(hours * 3600 * std.time.ns_per_s);
        for (0..burst + 1) |_| {
            try testing.expect(load.allows(.unproven, now));
            load.charge(.unproven, 1, now);
        }
        try testing.expect(!load.allows(.unproven, now));
        try testing.expect(load.allows(.proven, now));
        try testing.expect(load.allows(.none, now));
    }
}

test "cookie replies have a rate, whoever asks" {
    var load: Load = .init(50_000);
    var sent: u64 = 0;
    var now = beginning;
    while (now.isBefore(beginning.after(10 * std.time.ns_per_s))) : (now = now.after(10_000)) {
        if (load.takeReply(now)) sent += 1;
    }
    try testing.expect(sent <= 10 * Load.replies_per_second + Load.replies_burst + 2);
    try testing.expect(sent >= 10 * Load.replies_per_second);
}

test "a clock that stands still, goes back or ends traps nothing and gives nothing away" {
    var load: Load = .init(0);
    try testing.expectEqual(5_000, load.curve_ns);
    load = .init(std.math.maxInt(u64));
    try testing.expectEqual(5 * millisecond, load.curve_ns);
    const instants = [_]Instant{ beginning, .{ .ns = 0 }, .never, beginning };
    for (instants) |now| {
        for (0..1000) |_| if (load.allows(.proven, now)) load.charge(.proven, 4, now);
        _ = load.takeReply(now);
    }
    load = .init(50_000);
    for (0..1000) |_| if (load.allows(.proven, beginning)) load.charge(.proven, 4, beginning);
    try testing.expect(!load.allows(.proven, .{ .ns = 5 }));
}
