//! Root of an object that has X25519 alone, compiled for size: on MIPS, where multiplying 64 bits takes a page of
//! instructions, and the compiler would write out hundreds of them, 200 KB. Elsewhere it is in kernels.zig.
const x25519 = @import("x25519.zig");

comptime {
    @export(&x25519.agree, .{ .name = "pywg_x25519", .visibility = .hidden });
}
