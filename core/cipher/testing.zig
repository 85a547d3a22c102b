//! Root of a shared library for tests only: the room's door with C's calling convention, for checks against another
//! implementation (tests/crypto/). No install has it. The structs are aead.zig's; nothing is decided here.
const std = @import("std");
const cipher = @import("cipher.zig");
const dispatch = @import("dispatch.zig");

/// False when these kernels are not built or this CPU lacks them; then others were picked.
export fn pywg_test_select(name: [*:0]const u8) bool {
    const wanted = std.mem.span(name);
    cipher.select(wanted);
    return std.mem.eql(u8, dispatch.active().suffix, wanted);
}

export fn pywg_test_path() [*:0]const u8 {
    return cipher.path();
}

export fn pywg_test_seal_batch(
    key: *const [cipher.key_length]u8,
    counter_first: u64,
    jobs: [*]const cipher.Seal,
    count: usize,
) void {
    cipher.sealBatch(key, counter_first, jobs[0..count]);
}

export fn pywg_test_open_batch(key: *const [cipher.key_length]u8, jobs: [*]cipher.Open, count: usize) void {
    cipher.openBatch(key, jobs[0..count]);
}

// As every library of ours: no handlers, no thread-local signal stack.
pub const std_options: std.Options = .{ .signal_stack_size = null, .enable_segfault_handler = false };
pub const panic = std.debug.simple_panic;
