//! Whitepaper section 6.1, spelled as there, and the limits of this implementation apart.
//! Durations are nanoseconds.
const std = @import("std");
const assert = @import("wire").assert;
const second = std.time.ns_per_s;
const millisecond = std.time.ns_per_ms;

pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
pub const REJECT_AFTER_MESSAGES: u64 = std.math.maxInt(u64) - replay_window_bits - 1;
pub const REKEY_ATTEMPT_TIME: u64 = 90 * second;
pub const REKEY_TIMEOUT: u64 = 5 * second;
pub const REKEY_AFTER_TIME: u64 = 120 * second;
pub const REJECT_AFTER_TIME: u64 = 180 * second;
pub const KEEPALIVE_TIMEOUT: u64 = 10 * second;
pub const COOKIE_REFRESH_TIME: u64 = 120 * second;

/// Up to this much is added to REKEY_TIMEOUT, so that two ends do not collide for ever (6.1).
pub const REKEY_TIMEOUT_JITTER_MAX: u64 = 334 * millisecond;
/// Retransmissions of an initiation before giving up.
pub const MAX_TIMER_HANDSHAKES: u32 = REKEY_ATTEMPT_TIME / REKEY_TIMEOUT;
/// Initiations a peer may have answered per second.
pub const INITIATIONS_PER_SECOND: u64 = 50;

pub const CONSTRUCTION = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
pub const IDENTIFIER = "WireGuard v1 zx2c4 Jason@zx2c4.com";
pub const LABEL_MAC1 = "mac1----";
pub const LABEL_COOKIE = "cookie--";

/// How long an initiator waits before it shows a cookie it was sent; the jitter of REKEY_TIMEOUT comes on top. Not at
/// once: a forged cookie reply may be faster than the response, which then still comes first; and two initiations
/// closer than INITIATIONS_PER_SECOND allows would be a flood to the responder.
pub const COOKIE_RETRY_DELAY: u64 = 100 * millisecond;

/// Bits in the replay bitmap; one word of them is always being reused, as in RFC 6479.
pub const replay_bitmap_bits: usize = 8192;
/// Counters this far behind the newest are still accepted.
pub const replay_window_bits: u64 = replay_bitmap_bits - 64;

/// Packets that wait per peer while a handshake runs.
pub const staged_packets_max: usize = 128;
/// Peers of one interface, as in the kernel.
pub const peers_max: usize = 1 << 20;

pub const handshakes_per_source_per_second: u64 = 20;
pub const handshakes_per_source_burst: u64 = 5;

comptime {
    assert(REKEY_AFTER_MESSAGES < REJECT_AFTER_MESSAGES);
    assert(REKEY_AFTER_TIME < REJECT_AFTER_TIME);
    assert(KEEPALIVE_TIMEOUT + REKEY_TIMEOUT < REJECT_AFTER_TIME - REKEY_AFTER_TIME);
    assert(MAX_TIMER_HANDSHAKES == 18);
    assert(COOKIE_RETRY_DELAY >= 2 * second / INITIATIONS_PER_SECOND);
    assert(COOKIE_RETRY_DELAY + REKEY_TIMEOUT_JITTER_MAX < REKEY_TIMEOUT);
    assert(@TypeOf(REJECT_AFTER_MESSAGES) == u64);
}
