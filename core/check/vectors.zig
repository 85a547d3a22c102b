//! For scripts/wycheproof only; no install has it. The functions of whitepaper section 5.4 as the protocol room has
//! them, and std's X25519 with its checks, which the room's own tests use: as a shared library, since the vectors are
//! read in Python. Nothing is decided here.
const std = @import("std");
const protocol = @import("protocol");
const crypto = protocol.crypto;

const Bytes = [*]u8;
const Given = [*]const u8;

/// As an install has it: compiled with the AEAD's kernels. False for a public key of small order.
export fn pywg_vectors_dh(secret: *[32]u8, private: *const [32]u8, public: *const [32]u8) bool {
    secret.* = crypto.dh(private, public) catch return false;
    return true;
}

export fn pywg_vectors_dh_with_checks(secret: *[32]u8, private: *const [32]u8, public: *const [32]u8) bool {
    secret.* = std.crypto.dh.X25519.scalarmult(private.*, public.*) catch return false;
    return true;
}

/// `out` has room for the tag.
export fn pywg_vectors_aead_seal(
    out: Bytes,
    key: *const [32]u8,
    counter: u64,
    plaintext: Given,
    length: usize,
    ad: Given,
    ad_length: usize,
) void {
    crypto.aeadSeal(out[0 .. length + crypto.tag_length], key, counter, plaintext[0..length], ad[0..ad_length]);
}

/// `length` is the plaintext's, here and below.
export fn pywg_vectors_aead_open(
    out: Bytes,
    key: *const [32]u8,
    counter: u64,
    sealed: Given,
    length: usize,
    ad: Given,
    ad_length: usize,
) bool {
    return crypto.aeadOpen(out[0..length], key, counter, sealed[0 .. length + crypto.tag_length], ad[0..ad_length]);
}

export fn pywg_vectors_xaead_seal(
    out: Bytes,
    key: *const [32]u8,
    nonce: *const [24]u8,
    plaintext: Given,
    length: usize,
    ad: Given,
    ad_length: usize,
) void {
    crypto.xaeadSeal(out[0 .. length + crypto.tag_length], key, nonce, plaintext[0..length], ad[0..ad_length]);
}

export fn pywg_vectors_xaead_open(
    out: Bytes,
    key: *const [32]u8,
    nonce: *const [24]u8,
    sealed: Given,
    length: usize,
    ad: Given,
    ad_length: usize,
) bool {
    return crypto.xaeadOpen(out[0..length], key, nonce, sealed[0 .. length + crypto.tag_length], ad[0..ad_length]);
}

// As every library of ours: no handlers, no thread-local signal stack.
pub const std_options: std.Options = .{ .signal_stack_size = null, .enable_segfault_handler = false };
pub const panic = std.debug.simple_panic;
