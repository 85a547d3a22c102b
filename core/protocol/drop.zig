//! Drop: every reason for which a packet is refused, with one counter each.
//! A refused packet is a value, not an error: the world may send anything.
const std = @import("std");

pub const Drop = enum(u8) {
    // Received datagrams, before authentication.
    /// Type, reserved bytes or length fit no message.
    malformed,
    /// MAC1 is wrong: not meant for us.
    invalid_mac1,
    /// Under load, with a valid MAC1 but no valid MAC2: a cookie reply was sent, if there were not too many.
    cookie_required,
    /// More handshakes from one source than the rate limit allows.
    rate_limited,
    /// With a valid cookie, but all sources together ask for more handshakes than may be computed.
    overloaded,
    /// No session or handshake has this receiver index.
    unknown_index,
    /// A handshake message that does not decrypt, or names a weak key.
    invalid_handshake,
    /// An initiation from a public key that is no peer of ours.
    unknown_peer,
    /// An initiation whose timestamp is not later than the last one.
    replayed_initiation,
    /// More initiations from one peer than 50 a second.
    initiation_flood,
    /// A cookie reply that does not decrypt or answers nothing.
    invalid_cookie_reply,
    /// The session is older than REJECT_AFTER_TIME or past REJECT_AFTER_MESSAGES.
    expired_session,
    /// The AEAD tag is wrong.
    not_authentic,
    // Received packets, after authentication.
    /// The counter was seen before or lies before the window.
    replayed,
    /// The inner packet is neither IPv4 nor IPv6, or its lengths lie.
    malformed_inner,
    /// The inner source belongs to another peer or to none.
    disallowed_source,
    // Packets to send.
    /// The inner packet to send is neither IPv4 nor IPv6.
    malformed_outgoing,
    /// No peer has the inner destination in its allowed IPs.
    no_peer,
    /// Our own datagram came back as a packet to send to the same peer: its endpoint is routed into the tunnel.
    routing_loop,
    /// The peer has no endpoint yet.
    no_endpoint,
    /// Staging is full; the oldest packet of the peer made way.
    staging_full,
    /// Staged packets given up because no handshake completed.
    handshake_gave_up,
    /// The peer, or its session, went away while the packet was under way.
    peer_removed,
    // Counted by the device, at the edge to the kernel.
    /// The datagram was longer than its slot (MSG_TRUNC).
    truncated,
    /// The kernel refused the datagram or packet for good.
    send_failed,
    /// The kernel refused the inner packet (TUN).
    deliver_failed,
    // Packets to send, again: numbers that were given stay.
    /// To a group that no peer has in its allowed IPs, or to all. Mostly the kernel's own: neighbour discovery (RFC
    /// 4861), MLD (RFC 3810).
    multicast,

    pub const count = @typeInfo(Drop).@"enum".field_names.len;
};

pub const Counters = struct {
    values: [Drop.count]u64 = @splat(0),

    pub fn add(counters: *Counters, drop: Drop, amount: u64) void {
        counters.values[@backingInt(drop)] +%= amount;
    }

    pub fn get(counters: *const Counters, drop: Drop) u64 {
        return counters.values[@backingInt(drop)];
    }
};

test "every reason has its own counter" {
    var counters: Counters = .{};
    counters.add(.malformed, 2);
    counters.add(.deliver_failed, 1);
    try std.testing.expectEqual(2, counters.get(.malformed));
    try std.testing.expectEqual(1, counters.get(.deliver_failed));
    try std.testing.expectEqual(0, counters.get(.replayed));
}
