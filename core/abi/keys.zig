//! pywg_key_*: keys for those who have no other cryptography. Contracts are in include/pywg.h.
const std = @import("std");
const cipher = @import("cipher");
const io = @import("io");
const protocol = @import("protocol");
const Status = @import("status.zig").Status;

pub fn generate(private_key: ?*[32]u8) callconv(.c) i32 {
    const private = private_key orelse return Status.invalid_argument.value();
    io.entropy.fill(private);
    protocol.crypto.clamp(private);
    return Status.ok.value();
}

pub fn public(private_key: ?*const [32]u8, public_key: ?*[32]u8) callconv(.c) i32 {
    const private = private_key orelse return Status.invalid_argument.value();
    const out = public_key orelse return Status.invalid_argument.value();
    var copy = private.*; // `out` may be the same bytes
    defer std.crypto.secureZero(u8, &copy);
    defer cipher.scrubStack();
    out.* = protocol.crypto.publicKey(&copy);
    return Status.ok.value();
}
