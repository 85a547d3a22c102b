//! What one curve operation takes on this machine: the price at which the protocol counts the time of handshakes
//! (protocol/load.zig). Measured when a device opens, for a clock around each handshake would cost more than it tells.
//! Invariant: takes as long as `samples` operations, and needs no secret.
const std = @import("std");
const io = @import("io");
const protocol = @import("protocol");

/// The shortest counts: whatever came in between made the others longer.
const samples = 4;

/// Nanoseconds.
pub fn measure() u64 {
    const private: [32]u8 = @splat(0x42);
    var shortest: u64 = std.math.maxInt(u64);
    for (0..samples) |_| {
        const began = io.clock.bootNs();
        std.mem.doNotOptimizeAway(protocol.crypto.publicKey(&private));
        shortest = @min(shortest, io.clock.bootNs() -| began);
    }
    return shortest;
}

test "a curve operation takes some time" {
    try std.testing.expect(measure() > 1_000);
}
