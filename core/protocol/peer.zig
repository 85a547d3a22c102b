//! Peer: all that is known of one peer. Its sessions lie in their pool, so that an idle peer is small.
//! Composition only: handshake, cookie maker, timers, endpoint, statistics, what is waiting to be sent.
//! Decisions are in interface.zig and interface/.
const std = @import("std");
const cookie = @import("cookie.zig");
const crypto = @import("crypto.zig");
const noise = @import("noise.zig");
const session = @import("session.zig");
const staging = @import("staging.zig");
const time = @import("time.zig");
const Timers = @import("timers.zig").Timers;
const wire = @import("wire");
const wishes = @import("wishes.zig");
const assert = @import("wire").assert;

/// The compiler sorts fields by alignment, the strictest first, and else keeps this order. So what every packet touches
/// is in the middle, in three cache lines of its own; the strict alignments above it are there for that.
pub const Peer = struct {
    cookie_maker: cookie.Maker align(64),
    remote: noise.Remote align(8),
    /// Another initiation before then would be one of a flood.
    initiations_admitted_from: time.Instant = .{ .ns = 0 },
    /// 0 for never.
    last_handshake_unix_ns: u64 = 0,

    timers: Timers = .{},
    /// Key of this peer in the deadline heap; never when it is not in there.
    heap_deadline: time.Instant = .never,
    rx_bytes: u64 = 0,
    tx_bytes: u64 = 0,
    sessions: session.Sessions = .{},
    endpoint: ?wire.Endpoint = null,
    /// A source at which the peer may still write to us, and from which the kernel would not send there by that
    /// interface any more: it is not learnt again.
    shunned: ?wire.Source = null,
    staged: staging.Queue = .empty,
    /// How many peers this slot has held, and whether it holds one: old PeerIds fit no new peer.
    generation: u32,
    in_use: bool align(4),

    /// Ours as initiator, from its message to the response; apart from `answer`, so that two ends that begin
    /// at the same instant both get their response (the kernel keeps one and loses both).
    handshake: noise.Handshake,
    /// Our index of it in the index table.
    handshake_index: ?u32 = null,
    /// A response to it was computed already, and was not good.
    response_was_tried: bool = false,
    /// That it does not answer was told, and there was no session since.
    is_told_stale: bool = false,
    /// Ours as responder, from the peer's initiation until `pollTransmit` writes the response.
    answer: noise.Handshake,
    /// What `Interface.pollTransmit` is to send.
    pending: wishes.Set = .{},
    links: wishes.Links,
    /// Its neighbours in the order in which peers came.
    previous: u32 = wishes.none,
    next: u32 = wishes.none,

    /// The greatest timestamp received: initiations must be later (section 5.1).
    latest_timestamp: time.Timestamp = @splat(0),
    /// The last timestamp sent, so that a clock set back does not silence us.
    last_sent_timestamp: time.Timestamp = @splat(0),

    /// A slot that was never used.
    pub fn initEmpty(peer: *Peer) void {
        peer.in_use = false;
        peer.generation = 0;
        peer.links = .{};
    }

    /// A slot that is free may still be linked in a queue, so those links are kept.
    pub fn init(peer: *Peer, public_key: *const [32]u8) void {
        assert(!peer.in_use);
        // Read first: an assignment from a literal writes field by field.
        const generation = peer.generation +% 1;
        const links = peer.links;
        peer.* = .{
            .in_use = true,
            .generation = generation,
            .links = links,
            .remote = noise.Remote.init(public_key, &@splat(0)),
            .handshake = noise.Handshake.zeroed,
            .answer = noise.Handshake.zeroed,
            .cookie_maker = cookie.Maker.init(public_key),
        };
    }

    /// Keys are zeroed; generation and the links of queues outlive the peer.
    pub fn deinit(peer: *Peer) void {
        assert(peer.in_use and peer.handshake_index == null and peer.staged.packets == 0);
        assert(std.meta.eql(peer.sessions, .{}));
        peer.handshake.clear();
        peer.answer.clear();
        peer.remote.zero();
        crypto.zero(&peer.cookie_maker);
        peer.pending = .{};
        peer.in_use = false;
    }

    /// The next timestamp to send: later than the last, whatever the wall clock does.
    pub fn nextTimestamp(peer: *Peer, now: time.Now) time.Timestamp {
        const label = now.timestamp();
        const last = peer.last_sent_timestamp;
        peer.last_sent_timestamp = if (time.isLater(label, last)) label else time.next(last);
        return peer.last_sent_timestamp;
    }

    pub fn shuns(peer: *const Peer, source: wire.Source) bool {
        const shunned = peer.shunned orelse return false;
        return shunned.eql(source);
    }

    /// Replies leave by a fresh route: the sticky source may be what broke.
    pub fn clearSource(peer: *Peer) void {
        if (peer.endpoint) |*endpoint| endpoint.source = null;
    }
};
