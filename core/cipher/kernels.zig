//! Root of the objects: the batch functions and the sums of payloads, compiled once per CPU level under names with that
//! level's suffix, and in the baseline X25519.
//! Everything reachable from here is compiled with that level's instructions, so nothing else may live here.
//! Invariant: no vector and no slice crosses the boundary; its ABI would depend on the level.
const std = @import("std");
const builtin = @import("builtin");
const options = @import("kernel_options");
const suffix = options.suffix;
const aead = @import("aead.zig");
const aead_wide = @import("aead_wide.zig");
const poly1305 = @import("poly1305.zig");
const x25519 = @import("x25519.zig");
const checksum = @import("wire").checksum;

/// Lanes that fill the widest vectors of the level: AVX-512, AVX2, or 128 bits (SSE2, NEON, and scalar code).
const lanes = if (has(.avx512vl)) 16 else if (has(.avx2)) 8 else 4;

fn has(comptime feature: std.Target.x86.Feature) bool {
    return builtin.cpu.arch == .x86_64 and std.Target.x86.featureSetHas(builtin.cpu.features, feature);
}

/// Where Poly1305 has vectors of its own; where only the cipher has wide ones; elsewhere. Tests have the forms for
/// AVX-512 compiled for other CPUs, too. `plain`, for the static file: a third of `pairs` in size, four fifths as fast.
const Form = if (has(.avx512ifma) or is("eights"))
    aead_wide.Aead(.eights)
else if ((has(.avx512vl) and !is("plain")) or is("pairs"))
    aead_wide.Aead(.pairs)
else
    aead.Aead(lanes, poly1305.Poly1305);

fn is(comptime model: []const u8) bool {
    return std.mem.eql(u8, options.model, model);
}

fn sealBatch(key: *const [32]u8, counter_first: u64, jobs: [*]const aead.Seal, count: usize) callconv(.c) void {
    Form.sealBatch(key, counter_first, jobs[0..count]);
}

fn openBatch(key: *const [32]u8, jobs: [*]aead.Open, count: usize) callconv(.c) void {
    Form.openBatch(key, jobs[0..count]);
}

comptime {
    @export(&sealBatch, .{ .name = "pywg_seal_batch_" ++ suffix, .visibility = .hidden });
    @export(&openBatch, .{ .name = "pywg_open_batch_" ++ suffix, .visibility = .hidden });
    @export(&checksum.sumLoop, .{ .name = "pywg_sum_" ++ suffix, .visibility = .hidden });
    @export(&checksum.copySumLoop, .{ .name = "pywg_copy_sum_" ++ suffix, .visibility = .hidden });
    if (std.mem.eql(u8, suffix, "baseline") and !builtin.cpu.arch.isMIPS()) { // there it is curve.zig's
        @export(&x25519.agree, .{ .name = "pywg_x25519", .visibility = .hidden });
    }
}
