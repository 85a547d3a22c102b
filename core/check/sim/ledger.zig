//! Ledger: what was sealed, accepted and delivered, and what of it must never be. Kept beside the protocol, from what
//! goes in and comes out of it, so that it can contradict.
//! Knows hosts and neighbours as numbers only.
//! Invariant: the first violation ends the run, with the virtual time and one sentence.
const std = @import("std");
const protocol = @import("protocol");
const constants = protocol.constants;
const report = @import("report");
const Allocator = std.mem.Allocator;

pub const Error = error{ Violation, OutOfMemory };

/// The beginning of a session at one end, as seen from outside: a response that left, or one that was accepted.
pub const Birth = struct {
    at: u64,
    neighbour: u32,
    entry: u32,
    key_epoch: u32,
    psk: [32]u8,
    is_initiator: bool,
    /// The responder must hear from the initiator before it sends.
    is_confirmed: bool,
    /// One more than the greatest counter accepted.
    next: u64 = 0,
    /// When the counter passed REKEY_AFTER_MESSAGES.
    worn_since: ?u64 = null,
};

/// Grows as numbers are marked.
const Marks = struct {
    words: std.ArrayList(u64) = .empty,

    fn has(marks: *const Marks, number: u64) bool {
        const word: usize = @intCast(number / 64);
        if (word >= marks.words.items.len) return false;
        return marks.words.items[word] >> @intCast(number % 64) & 1 != 0;
    }

    fn set(marks: *Marks, gpa: Allocator, number: u64) Allocator.Error!void {
        const word: usize = @intCast(number / 64);
        while (word >= marks.words.items.len) try marks.words.append(gpa, 0);
        marks.words.items[word] |= @as(u64, 1) << @intCast(number % 64);
    }
};

/// The counters that a key was used with: all below `next`, but for those that lanes still have in hand, or gave up.
const Nonces = struct {
    next: u64 = 0,
    at: u64 = 0,
    unused: std.ArrayList(Run) = .empty,

    /// From `first` to before `end`.
    const Run = struct { first: u64, end: u64 };

    fn deinit(nonces: *Nonces, gpa: Allocator) void {
        nonces.unused.deinit(gpa);
    }

    /// False if it was used before.
    fn use(nonces: *Nonces, gpa: Allocator, counter: u64) Allocator.Error!bool {
        if (counter >= nonces.next) {
            if (counter > nonces.next) try nonces.unused.append(gpa, .{ .first = nonces.next, .end = counter });
            nonces.next = counter +| 1;
            return true;
        }
        for (nonces.unused.items, 0..) |run, i| {
            if (counter < run.first or counter >= run.end) continue;
            _ = nonces.unused.swapRemove(i);
            for ([_]Run{
                .{ .first = run.first, .end = counter },
                .{ .first = counter + 1, .end = run.end },
            }) |rest| {
                if (rest.first != rest.end) try nonces.unused.append(gpa, rest);
            }
            return true;
        }
        return false;
    }
};

/// Where a cookie was sent, by whom.
const CookieKey = struct { host: u32, family: u8, port: u16, address: [16]u8 };

pub const Ledger = struct {
    gpa: Allocator,
    time: u64 = 0,
    births: std.AutoHashMapUnmanaged(u64, Birth) = .empty,
    /// By key.
    nonces: std.AutoHashMapUnmanaged([32]u8, Nonces) = .empty,
    cookies: std.AutoHashMapUnmanaged(CookieKey, u64) = .empty,
    /// Datagrams that were taken as authentic, packets that came out.
    accepted: Marks = .{},
    delivered: Marks = .{},
    deliveries: u64 = 0,

    pub fn deinit(ledger: *Ledger) void {
        ledger.births.deinit(ledger.gpa);
        var nonces = ledger.nonces.valueIterator();
        while (nonces.next()) |each| each.deinit(ledger.gpa);
        ledger.nonces.deinit(ledger.gpa);
        ledger.cookies.deinit(ledger.gpa);
        ledger.accepted.words.deinit(ledger.gpa);
        ledger.delivered.words.deinit(ledger.gpa);
    }

    pub fn fail(ledger: *const Ledger, comptime format: []const u8, arguments: anytype) error{Violation} {
        report.say("violation: after {d}.{d:0>3} s: " ++ format, .{
            ledger.time / std.time.ns_per_s, ledger.time / std.time.ns_per_ms % 1000,
        } ++ arguments);
        return error.Violation;
    }

    // ---- sessions ----

    fn key(host: u32, index: u32) u64 {
        return @as(u64, host) << 32 | index;
    }

    pub fn bear(ledger: *Ledger, host: u32, index: u32, birth: Birth) Error!void {
        const entry = try ledger.births.getOrPut(ledger.gpa, key(host, index));
        if (entry.found_existing and ledger.time - entry.value_ptr.at < constants.REJECT_AFTER_TIME * 3) {
            return ledger.fail("host {d} began a session under index {x}, which had one", .{ host, index });
        }
        entry.value_ptr.* = birth;
    }

    pub fn birthOf(ledger: *const Ledger, host: u32, index: u32) ?*Birth {
        return ledger.births.getPtr(key(host, index));
    }

    /// A datagram was sealed with this key and counter.
    pub fn noteNonce(ledger: *Ledger, host: u32, sending_key: *const [32]u8, counter: u64) Error!void {
        const entry = try ledger.nonces.getOrPut(ledger.gpa, sending_key.*);
        if (!entry.found_existing) entry.value_ptr.* = .{};
        entry.value_ptr.at = ledger.time;
        if (!try entry.value_ptr.use(ledger.gpa, counter)) {
            return ledger.fail(
                "host {d} used nonce {d} of a key that was at {d}",
                .{ host, counter, entry.value_ptr.next },
            );
        }
        if (counter >= constants.REJECT_AFTER_MESSAGES) {
            return ledger.fail("host {d} sealed with counter {d}, past REJECT_AFTER_MESSAGES", .{ host, counter });
        }
    }

    /// Of a key that was used.
    pub fn newestNonce(ledger: *const Ledger, sending_key: *const [32]u8) u64 {
        return ledger.nonces.get(sending_key.*).?.next - 1;
    }

    // ---- datagrams and packets ----

    pub fn wasAccepted(ledger: *const Ledger, datagram: u64) bool {
        return ledger.accepted.has(datagram);
    }

    pub fn accept(ledger: *Ledger, datagram: u64) Error!void {
        try ledger.accepted.set(ledger.gpa, datagram);
    }

    pub fn wasDelivered(ledger: *const Ledger, id: u64) bool {
        return ledger.delivered.has(id);
    }

    pub fn deliver(ledger: *Ledger, id: u64) Error!void {
        try ledger.delivered.set(ledger.gpa, id);
        ledger.deliveries += 1;
    }

    // ---- cookies ----

    fn cookieKey(host: u32, to: anytype) CookieKey {
        return .{
            .host = host,
            .family = @backingInt(to.address.family),
            .port = to.port,
            .address = to.address.bytes,
        };
    }

    pub fn noteCookie(ledger: *Ledger, host: u32, to: anytype) Error!void {
        try ledger.cookies.put(ledger.gpa, cookieKey(host, to), ledger.time);
    }

    /// Whether this source may know a cookie that is still good.
    pub fn mayHaveCookie(ledger: *const Ledger, host: u32, from: anytype) bool {
        const at = ledger.cookies.get(cookieKey(host, from)) orelse return false;
        return ledger.time - at <= constants.COOKIE_REFRESH_TIME;
    }

    // ---- room ----

    /// Forgets what is too old to matter, so that a long run needs no more memory than a short one.
    pub fn prune(ledger: *Ledger) Error!void {
        const age_max = 20 * constants.REJECT_AFTER_TIME;
        if (ledger.time < age_max) return;
        const oldest = ledger.time - age_max;
        try pruneMap(ledger.gpa, &ledger.births, oldest);
        try pruneMap(ledger.gpa, &ledger.nonces, oldest);
    }

    fn pruneMap(gpa: Allocator, map: anytype, oldest: u64) Allocator.Error!void {
        var kept: @TypeOf(map.*) = .empty;
        errdefer kept.deinit(gpa);
        var entries = map.iterator();
        while (entries.next()) |entry| {
            if (entry.value_ptr.at >= oldest) {
                try kept.put(gpa, entry.key_ptr.*, entry.value_ptr.*);
            } else if (@TypeOf(entry.value_ptr.*) == Nonces) entry.value_ptr.deinit(gpa);
        }
        map.deinit(gpa);
        map.* = kept;
    }
};

test "marks are kept apart" {
    const gpa = std.testing.allocator;
    var marks: Marks = .{};
    defer marks.words.deinit(gpa);
    for ([_]u64{ 0, 63, 64, 1000 }) |number| {
        try std.testing.expect(!marks.has(number));
        try marks.set(gpa, number);
        try std.testing.expect(marks.has(number));
        try std.testing.expect(!marks.has(number + 1));
    }
}

test "a nonce is used once, in whatever order" {
    const gpa = std.testing.allocator;
    var nonces: Nonces = .{};
    defer nonces.deinit(gpa);
    for ([_]u64{ 5, 6, 2, 0, 4, 3, 1, std.math.maxInt(u64) - 1, 7 }) |counter| {
        try std.testing.expect(try nonces.use(gpa, counter));
        try std.testing.expect(!try nonces.use(gpa, counter));
    }
    for (0..8) |counter| try std.testing.expect(!try nonces.use(gpa, counter));
    try std.testing.expect(try nonces.use(gpa, 8));
}
