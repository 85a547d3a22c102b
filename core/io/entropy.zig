//! Randomness from the kernel: getrandom, nothing else. No pool, no state, no fallback.
//! Invariant: `fill` returns only with every byte filled; a kernel without randomness ends the process,
//! because keys made without it would be worse than none.
const std = @import("std");
const linux = std.os.linux;

pub fn fill(buffer: []u8) void {
    var filled: usize = 0;
    while (filled < buffer.len) {
        const rc = linux.getrandom(buffer.ptr + filled, buffer.len - filled, 0);
        switch (linux.errno(rc)) {
            .SUCCESS => filled += rc,
            .INTR => {}, // large requests, or early boot
            else => @panic("getrandom failed: no entropy, no keys"),
        }
    }
}

test "filling covers every byte" {
    var buffer: [4096]u8 = @splat(0);
    fill(&buffer);
    // 64 bytes that are all zero have a chance of 2^-512.
    for (0..buffer.len / 64) |i| try std.testing.expect(!std.mem.allEqual(u8, buffer[i * 64 ..][0..64], 0));
    fill(buffer[0..0]);
}
