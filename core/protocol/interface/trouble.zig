//! What Interface keeps to tell a user why a peer has no session, and who was refused: what is noted where, in
//! notices.zig and in the attempts of each peer. Whoever has the sockets adds what he hears of the network.
//! Invariant: nothing here changes what is sent or accepted.
const std = @import("std");
const attempts = @import("../attempts.zig");
const Instant = @import("../time.zig").Instant;
const Interface = @import("../interface.zig").Interface;
const Kind = @import("../notices.zig").Kind;
const Now = @import("../time.zig").Now;
const PeerId = @import("../interface.zig").PeerId;
const timers = @import("../timers.zig");
const wire = @import("wire");

// ---- handshakes ----

/// An initiation goes out.
pub fn noteAsked(interface: *Interface, index: u32, now: Now) void {
    const tried = interface.attempts.at(index);
    tried.noteAsked(now.boot);
    if (tried.asked != attempts.asked_in_vain) return;
    const refused = tried.refused() orelse return noteOf(interface, index, .no_answer, now);
    if (refused == .under_load) noteOf(interface, index, .under_load, now);
}

/// A response goes out.
pub fn noteAnswered(interface: *Interface, index: u32, now: Now) void {
    const tried = interface.attempts.at(index);
    tried.answered +|= 1;
    if (tried.answered == attempts.answered_in_vain) noteOf(interface, index, .unconfirmed, now);
}

/// The peer asks for a cookie. That is a word only if no session comes of it.
pub fn noteLoad(interface: *Interface, index: u32) void {
    interface.attempts.at(index).noteRefusal(.under_load);
}

/// Something else came than a session.
pub fn noteRefused(interface: *Interface, index: u32, kind: Kind, from: wire.SocketAddress, now: Now) void {
    begin(interface, index, kind);
    interface.attempts.at(index).noteRefusal(kind);
    const key = interface.peers.at(index).remote.static;
    interface.notices.note(&.{ .kind = kind, .key = key, .remote = from }, now.boot);
}

pub fn noteOver(interface: *Interface, index: u32, now: Now) void {
    if (!interface.attempts.at(index).end()) return;
    interface.notices.forget(&interface.peers.at(index).remote.static);
    noteOf(interface, index, .over, now);
}

/// It is news that a session does not come about, or that it is for this reason.
fn begin(interface: *Interface, index: u32, kind: Kind) void {
    if (!interface.attempts.at(index).isNews(kind)) return;
    interface.note(.{ .trouble = .{ .peer = interface.peers.at(index).remote.static, .kind = kind } });
}

fn noteOf(interface: *Interface, index: u32, kind: Kind, now: Now) void {
    const peer = interface.peers.at(index);
    if (kind != .over) begin(interface, index, kind);
    interface.notices.note(&.{
        .kind = kind,
        .key = peer.remote.static,
        .remote = if (peer.endpoint) |endpoint| endpoint.remote else null,
    }, now.boot);
}

/// An initiation of somebody who is no peer; without a key if that is not known either.
pub fn noteStranger(interface: *Interface, key: ?*const [32]u8, from: *const wire.Endpoint, now: Now) void {
    interface.notices.note(&.{
        .kind = if (key == null) .other_key else .stranger,
        .key = if (key) |claimed| claimed.* else @splat(0),
        .remote = from.remote,
    }, now.boot);
}

// ---- the network ----

/// How many peers may be looked at in a second to find out whom ICMP errors are about. Anybody can forge those, and
/// all workers wait meanwhile.
const looks_per_second = 1 << 14;

pub const Looks = struct {
    window: Instant = .{ .ns = 0 },
    done: u32 = 0,
    /// Where the next look begins.
    next: u32 = 0,

    /// How many of `high` peers to look at, from `next` on and round the end. What is about one of the others is
    /// missed; but that peer is asked again within seconds, so the error comes again, when others have their turn.
    fn take(looks: *Looks, high: u32, now: Instant) u32 {
        if (now.since(looks.window) >= std.time.ns_per_s) looks.* = .{ .window = now, .next = looks.next };
        if (looks.next >= high) looks.next = 0;
        const count = @min(high, looks_per_second - looks.done);
        looks.done += count;
        return count;
    }
};

/// An ICMP error about what was sent to `remote`: by whom, and of what length it may be, if it is about that. Believed
/// only of peers that something is expected from, since others are better known by what they send. Among more peers
/// than may be looked at in a second it is found out with luck only.
pub fn noteUnreachable(
    interface: *Interface,
    kind: Kind,
    remote: wire.SocketAddress,
    by: ?wire.Address,
    mtu: u16,
    now: Now,
) void {
    const looks = &interface.looks;
    for (0..looks.take(interface.peer_high, now.boot)) |_| {
        const i = looks.next;
        looks.next = if (i + 1 < interface.peer_high) i + 1 else 0;
        // A packet too long concerns a session; all else concerns those who have none. Of most peers that is known
        // without touching them.
        const is_waiting = interface.attempts.at(i).isWaiting();
        if (kind != .too_big and !is_waiting) continue;
        const peer = interface.peers.at(i);
        if (!peer.in_use) continue;
        const endpoint = peer.endpoint orelse continue;
        if (!endpoint.remote.eql(remote)) continue;
        if (kind != .too_big) {
            begin(interface, i, kind);
            interface.attempts.at(i).noteRefusal(kind);
        }
        interface.notices.note(&.{
            .kind = kind,
            .key = peer.remote.static,
            .remote = remote,
            .address = by,
            .mtu = mtu,
        }, now.boot);
    }
}

/// The kernel did not send what the protocol itself wanted sent.
pub fn noteNotSent(interface: *Interface, id: PeerId, kind: Kind, now: Now) void {
    const peer = interface.get(id) orelse return;
    const endpoint = peer.endpoint orelse return;
    if (interface.attempts.at(id.index).isWaiting()) noteRefused(interface, id.index, kind, endpoint.remote, now);
}

// ---- packets ----

/// A packet of `length` bytes was lost again and again since then. If something was received meanwhile, it may be its
/// length that does not fit.
pub fn noteHole(interface: *Interface, id: PeerId, length: u16, since: Instant, now: Now) void {
    const peer = interface.get(id) orelse return;
    if (peer.timers.last_heard <= timers.Timers.heardAt(since)) return;
    interface.notices.note(&.{ .kind = .hole, .key = peer.remote.static, .mtu = length }, now.boot);
}

/// `route` has found no peer for it.
pub fn noteUnroutable(interface: *Interface, packet: []const u8, now: Now) void {
    const parsed = wire.ip.Packet.parse(packet) orelse return;
    interface.notices.note(&.{ .kind = .no_peer, .address = parsed.destination() }, now.boot);
}

pub fn noteDisallowed(interface: *Interface, index: u32, source: wire.Address, now: Now) void {
    interface.attempts.at(index).drop(.disallowed_source, 1);
    const key = interface.peers.at(index).remote.static;
    interface.notices.note(&.{ .kind = .disallowed_source, .key = key, .address = source }, now.boot);
}
