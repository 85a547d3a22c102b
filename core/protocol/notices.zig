//! Notices: what a user should be told when a tunnel does not come up, or packets have nowhere to go: who was refused,
//! or refused us, why, from where and how often. Nothing is decided by it.
//! Knows keys and addresses, not peers. No secret is ever in here.
//! Invariant: whatever comes, and however much, costs a constant in room and in time: some entries, and so many of them
//! written in a window. What comes of strangers, and what any packet from outside or a peer's own data can cause, has
//! room and a budget of its own: it makes way for more of that, and what handshakes say of a peer never does.
const std = @import("std");
const assert = @import("wire").assert;
const wire = @import("wire");
const Instant = @import("time.zig").Instant;

pub const Kind = enum(u8) {
    // Of a peer that we ask for a session.
    /// Initiations have no answer at all.
    no_answer,
    /// A response came that does not decrypt: it was made with another preshared key, or with keys that are not ours.
    wrong_answer,
    /// A cookie reply came: the peer is under load.
    under_load,
    /// ICMP, of the datagrams to the peer.
    port_unreachable,
    host_unreachable,
    net_unreachable,
    prohibited,
    /// They are longer than the path's MTU, which is `mtu`.
    too_big,
    /// This host has no route to the peer.
    no_route,
    /// This host does not let the datagram out: a firewall's EPERM, mostly.
    not_let_out,
    // Of a peer that asks us.
    /// Its initiations were answered, and it never made use of a session.
    unconfirmed,
    /// Its initiation is not later than one that was seen before: its clock was set back, or somebody repeats it.
    old_timestamp,
    // Of a peer that there is a session with.
    /// It sends packets from an inner address, `address`, that is not among its allowed IPs.
    disallowed_source,
    /// Packets as long as `mtu` do not arrive again and again, while something is received.
    hole,
    /// There is a session again.
    over,
    // Of nobody in particular.
    /// No peer has `address` in its allowed IPs.
    no_peer,
    /// An initiation of a public key that is no peer's. Who sent it has not shown that the key is his.
    stranger,
    /// An initiation for another public key than ours.
    other_key,

    pub fn isOfPeer(kind: Kind) bool {
        return switch (kind) {
            .no_peer, .stranger, .other_key => false,
            .no_answer, .wrong_answer, .under_load, .port_unreachable, .host_unreachable, .net_unreachable => true,
            .prohibited, .too_big, .no_route, .not_let_out, .unconfirmed, .old_timestamp => true,
            .disallowed_source, .hole, .over => true,
        };
    }

    /// Of a peer, but caused by its data, or by ICMP, which anybody can forge.
    fn isProvoked(kind: Kind) bool {
        return switch (kind) {
            .port_unreachable, .host_unreachable, .net_unreachable, .prohibited, .too_big => true,
            .disallowed_source, .hole => true,
            .no_answer, .wrong_answer, .under_load, .no_route, .not_let_out => false,
            .unconfirmed, .old_timestamp, .over, .no_peer, .stranger, .other_key => false,
        };
    }
};

pub const Notice = struct {
    kind: Kind,
    /// The peer's; or, of a stranger, the one that is claimed. Zeros for none.
    key: [32]u8 = @splat(0),
    /// Where it came from, or where it was to go.
    remote: ?wire.SocketAddress = null,
    /// Who said so by ICMP; or an address inside the tunnel.
    address: ?wire.Address = null,
    /// Bytes; 0 where it is not about that.
    mtu: u16 = 0,

    fn isSame(a: *const Notice, b: *const Notice) bool {
        if (a.kind != b.kind or !std.mem.eql(u8, &a.key, &b.key)) return false;
        // Of those without a key only the sender tells one from another.
        return a.kind != .other_key or sameAddress(a.remote, b.remote);
    }

    fn sameAddress(a: ?wire.SocketAddress, b: ?wire.SocketAddress) bool {
        const first = a orelse return b == null;
        return if (b) |other| first.address.eql(other.address) else false;
    }
};

pub const Entry = struct {
    notice: Notice,
    count: u64,
    first: Instant,
    last: Instant,
    is_told: bool = false,

    /// As UAPI `pywg_get` tells it.
    pub fn write(entry: *const Entry, writer: *std.Io.Writer, now: Instant) std.Io.Writer.Error!void {
        const notice = &entry.notice;
        try wire.text.print(writer, "{t} count={d} first_ms_ago={d} last_ms_ago={d}", .{
            notice.kind,
            entry.count,
            now.since(entry.first) / std.time.ns_per_ms,
            now.since(entry.last) / std.time.ns_per_ms,
        });
        if (!std.mem.allEqual(u8, &notice.key, 0)) try wire.text.print(writer, " key={x}", .{&notice.key});
        if (notice.remote) |remote| try wire.text.print(writer, " remote={f}", .{remote});
        if (notice.address) |address| try wire.text.print(writer, " address={f}", .{address});
        if (notice.mtu != 0) try wire.text.print(writer, " mtu={d}", .{notice.mtu});
    }
};

/// One that was silent for so long, and comes back, is news.
const quiet_ns = 60 * std.time.ns_per_s;
const window_ns = 128 * std.time.ns_per_ms;
const entries_max = 16;
/// Each window; what is beyond is counted by `Drop` alone.
const written_max = 32;

const Table = struct {
    entries: [entries_max]Entry = undefined,
    count: usize = 0,
    window: Instant = .{ .ns = 0 },
    written: u32 = 0,
    /// Some entry is not told.
    has_news: bool = false,
    /// Entries that made way before they were told.
    untold: u64 = 0,

    fn all(table: *Table) []Entry {
        return table.entries[0..table.count];
    }

    fn allows(table: *Table, now: Instant) bool {
        if (now.since(table.window) >= window_ns) {
            table.window = now;
            table.written = 0;
        }
        if (table.written == written_max) return false;
        table.written += 1;
        return true;
    }

    fn put(table: *Table, notice: *const Notice, now: Instant) void {
        for (table.all()) |*entry| {
            if (!entry.notice.isSame(notice)) continue;
            if (now.since(entry.last) < quiet_ns) {
                entry.notice = notice.*;
                entry.count +|= 1;
                entry.last = now;
                return;
            }
            return table.begin(entry, notice, now);
        }
        table.begin(table.place(), notice, now);
    }

    fn begin(table: *Table, entry: *Entry, notice: *const Notice, now: Instant) void {
        entry.* = .{ .notice = notice.*, .count = 1, .first = now, .last = now };
        table.has_news = true;
    }

    /// A free one, or that of the notice that was not repeated for the longest.
    fn place(table: *Table) *Entry {
        if (table.count < entries_max) {
            table.count += 1;
            return &table.entries[table.count - 1];
        }
        var oldest = &table.entries[0];
        for (table.entries[1..]) |*entry| if (entry.last.isBefore(oldest.last)) {
            oldest = entry;
        };
        if (!oldest.is_told) table.untold +|= 1;
        return oldest;
    }

    fn forget(table: *Table, key: *const [32]u8) void {
        var i: usize = 0;
        while (i < table.count) {
            if (!std.mem.eql(u8, &table.entries[i].notice.key, key)) {
                i += 1;
                continue;
            }
            table.count -= 1;
            table.entries[i] = table.entries[table.count];
        }
    }

    fn takeNews(table: *Table) ?Entry {
        if (!table.has_news) return null;
        for (table.all()) |*entry| {
            if (entry.is_told) continue;
            entry.is_told = true;
            return entry.*;
        }
        table.has_news = false;
        return null;
    }
};

pub const Notices = struct {
    /// What handshakes say of peers.
    known: Table = .{},
    /// Of peers, but see `isProvoked`.
    provoked: Table = .{},
    strangers: Table = .{},

    pub fn note(notices: *Notices, notice: *const Notice, now: Instant) void {
        const table = notices.tableOf(notice.kind);
        if (table.allows(now)) table.put(notice, now);
    }

    fn tableOf(notices: *Notices, kind: Kind) *Table {
        if (!kind.isOfPeer()) return &notices.strangers;
        return if (kind.isProvoked()) &notices.provoked else &notices.known;
    }

    /// What was noted of a peer is over.
    pub fn forget(notices: *Notices, key: *const [32]u8) void {
        notices.known.forget(key);
        notices.provoked.forget(key);
    }

    /// Whether `takeNewsOfPeers` has something, or had lately. For whoever may not wait: it may be wrong for a moment.
    pub fn hasNewsOfPeers(notices: *const Notices) bool {
        return @atomicLoad(bool, &notices.known.has_news, .monotonic) or
            @atomicLoad(bool, &notices.provoked.has_news, .monotonic);
    }

    /// And of others.
    pub fn hasNewsOfStrangers(notices: *const Notices) bool {
        return @atomicLoad(bool, &notices.strangers.has_news, .monotonic);
    }

    /// Each once, until it was silent for a while. Null when there is none.
    pub fn takeNewsOfPeers(notices: *Notices) ?Entry {
        return notices.known.takeNews() orelse notices.provoked.takeNews();
    }

    /// How many of peers made way for others, and are not to be had any more, since this was asked last.
    pub fn takeUntoldOfPeers(notices: *Notices) u64 {
        defer for ([_]*Table{ &notices.known, &notices.provoked }) |table| {
            table.untold = 0;
        };
        return notices.known.untold +| notices.provoked.untold;
    }

    pub fn takeNewsOfStrangers(notices: *Notices) ?Entry {
        return notices.strangers.takeNews();
    }

    /// All there are, in no order.
    pub fn at(notices: *Notices, index: usize) ?*const Entry {
        var i = index;
        for ([_]*Table{ &notices.known, &notices.provoked, &notices.strangers }) |table| {
            if (i < table.count) return &table.entries[i];
            i -= table.count;
        }
        return null;
    }
};

const testing = std.testing;
const second = std.time.ns_per_s;

fn stranger(number: u32) Notice {
    var notice: Notice = .{ .kind = .stranger };
    std.mem.writeInt(u32, notice.key[0..4], number, .little);
    return notice;
}

test "the same again is counted, and told once until it was silent for a minute" {
    var notices: Notices = .{};
    for (0..3) |i| notices.note(&stranger(1), .{ .ns = i * second });
    try testing.expect(notices.hasNewsOfStrangers());
    try testing.expectEqual(3, notices.takeNewsOfStrangers().?.count);
    try testing.expectEqual(null, notices.takeNewsOfStrangers());
    try testing.expect(!notices.hasNewsOfStrangers());
    notices.note(&stranger(1), .{ .ns = 61 * second });
    try testing.expectEqual(null, notices.takeNewsOfStrangers());
    notices.note(&stranger(1), .{ .ns = 122 * second });
    try testing.expectEqual(1, notices.takeNewsOfStrangers().?.count);
}

test "a flood of strangers costs a constant, and hides nothing that is said of a peer" {
    var notices: Notices = .{};
    const of_peer: Notice = .{ .kind = .wrong_answer, .key = @splat(7) };
    notices.note(&of_peer, .{ .ns = 0 });
    for (0..100_000) |i| notices.note(&stranger(@intCast(i)), .{ .ns = i * 1000 });
    try testing.expectEqual(entries_max, notices.strangers.count);
    try testing.expectEqual(.wrong_answer, notices.takeNewsOfPeers().?.notice.kind);
    try testing.expectEqual(null, notices.takeNewsOfPeers());
    var told: usize = 0;
    while (notices.takeNewsOfStrangers()) |_| told += 1;
    try testing.expectEqual(entries_max, told);
    // Of one window no more was written than it may.
    notices.strangers.count = 0;
    for (0..1000) |i| notices.note(&stranger(@intCast(i)), .{ .ns = 3600 * second });
    try testing.expectEqual(written_max, notices.strangers.written);
}

test "what one peer's packets or forged ICMP make hides nothing that handshakes say of another" {
    for ([_]Kind{ .disallowed_source, .port_unreachable, .too_big, .hole }) |kind| {
        var notices: Notices = .{};
        // Repeats, and as many peers as there are entries.
        for (0..10 * written_max) |i| notices.note(&.{ .kind = kind, .key = @splat(@intCast(i % 20)) }, .{ .ns = i });
        notices.note(&.{ .kind = .no_answer, .key = @splat(200) }, .{ .ns = 1000 });
        for (0..100_000) |i| {
            notices.note(&.{ .kind = kind, .key = @splat(@intCast(i % 20)) }, .{ .ns = (2 + i) * 1000 });
        }
        try testing.expectEqual(.no_answer, notices.at(0).?.notice.kind);
        try testing.expectEqual(1, notices.known.count);
        try testing.expectEqual(entries_max, notices.provoked.count);
        notices.forget(&@splat(200));
        try testing.expectEqual(0, notices.known.count);
    }
}

test "what is over is forgotten, and senders without a key are told apart by their address" {
    var notices: Notices = .{};
    const of_peer: Notice = .{ .kind = .no_answer, .key = @splat(7) };
    notices.note(&of_peer, .{ .ns = 0 });
    notices.note(&.{ .kind = .prohibited, .key = @splat(7) }, .{ .ns = 0 });
    for (0..3) |i| notices.note(&.{
        .kind = .other_key,
        .remote = .{ .address = .fromIpv4(.{ 192, 0, 2, @intCast(i) }), .port = 1 },
    }, .{ .ns = 0 });
    try testing.expectEqual(3, notices.strangers.count);
    notices.forget(&of_peer.key);
    try testing.expectEqual(0, notices.known.count + notices.provoked.count);
    try testing.expectEqual(.other_key, notices.at(0).?.notice.kind);
    try testing.expectEqual(null, notices.at(3));
}
