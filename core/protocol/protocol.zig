//! The protocol room: table of contents, in the order to read it. Whitepaper section | file:
//!   6.1        constants.zig     durations and limits, spelled as in the paper
//!   5.1        time.zig          Instant, Timestamp (TAI64N), Now
//!   5.4        crypto.zig        DH, AEAD, hash, MAC, KDF in the paper's notation
//!   5.4.2-5.4.5 noise.zig        how trust begins: initiation, response, keys
//!   5.3, 5.4.7 cookie.zig        MAC1, MAC2, cookie replies; load.zig, rate_limiter.zig
//!   5.4.6      replay.zig, session.zig   how bytes are sealed, once
//!   6          timers.zig        what happens when nothing happens
//!              events.zig        what users are told of without asking
//!              notices.zig, attempts.zig   why there is no session, as far as it can be told
//!   2          allowed_ips.zig   cryptokey routing
//!              peer.zig, interface.zig, interface/handshakes.zig, interface/control.zig   all of it together
//!              codec.zig, interface/handover.zig   all of it as bytes, for a process that takes over
//! No system call, clock, thread or global: time and randomness are passed in.
const std = @import("std");

pub const attempts = @import("attempts.zig");
pub const change = @import("change.zig");
pub const codec = @import("codec.zig");
pub const constants = @import("constants.zig");
pub const cookie = @import("cookie.zig");
pub const crypto = @import("crypto.zig");
pub const drop = @import("drop.zig");
pub const events = @import("events.zig");
pub const noise = @import("noise.zig");
pub const notices = @import("notices.zig");
pub const soundness = @import("soundness.zig");
pub const time = @import("time.zig");
pub const uapi = @import("uapi.zig");

pub const Drop = drop.Drop;
pub const Instant = time.Instant;
pub const Now = time.Now;

const interface = @import("interface.zig");
pub const Interface = interface.Interface;
pub const Demand = interface.Demand;
pub const Entropy = interface.Entropy;
pub const Options = interface.Options;
pub const PeerId = interface.PeerId;
pub const SealTicket = interface.SealTicket;
pub const OpenTicket = interface.OpenTicket;
pub const Transmit = interface.Transmit;
pub const PeerCounters = @import("interface/control.zig").PeerCounters;
pub const HandshakeError = @import("interface/control.zig").HandshakeError;
pub const Trace = @import("interface/control.zig").Trace;
pub const no_peer = @import("wishes.zig").none;
pub const cookie_replies_max = interface.cookie_replies_max;

/// Of the bytes in which an Interface goes to another process.
pub const handover_format = @import("interface/handover.zig").format;

const handshakes = @import("interface/handshakes.zig");
pub const Budget = handshakes.Budget;
pub const Draft = handshakes.Draft;

test {
    _ = @import("allowed_ips.zig");
    _ = @import("attempts.zig");
    _ = @import("change.zig");
    _ = @import("codec.zig");
    _ = @import("cookie.zig");
    _ = @import("crypto.zig");
    _ = @import("drop.zig");
    _ = @import("deadlines.zig");
    _ = @import("events.zig");
    _ = @import("index_table.zig");
    _ = @import("interface/handover.zig");
    _ = @import("interface_test.zig");
    _ = @import("load.zig");
    _ = @import("noise.zig");
    _ = @import("notices.zig");
    _ = @import("peer_table.zig");
    _ = @import("rate_limiter.zig");
    _ = @import("replay.zig");
    _ = @import("segmented_array.zig");
    _ = @import("session.zig");
    _ = @import("staging.zig");
    _ = @import("time.zig");
    _ = @import("timers.zig");
    _ = @import("uapi.zig");
    _ = @import("untouched.zig");
    _ = @import("wishes.zig");
}
