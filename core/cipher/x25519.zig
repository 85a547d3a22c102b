//! X25519 (RFC 7748 §5) as std.crypto has it, compiled with the kernels because these are ReleaseFast: a third faster
//! than with the checks for overflow of an install's other code, and without branches on secrets, which these checks
//! are. One compilation serves all CPU levels: more instructions to choose from gained nothing.
const std = @import("std");
const X25519 = std.crypto.dh.X25519;

/// DH(private, public) (whitepaper §5.4). False, and `secret` undefined, when the public key is of small order.
pub fn agree(secret: *[32]u8, private: *const [32]u8, public: *const [32]u8) callconv(.c) bool {
    secret.* = X25519.scalarmult(private.*, public.*) catch return false;
    return true;
}
