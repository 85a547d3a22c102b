//! What stands in the place of the kernels' objects while coverage steers: X25519 would take five sixths of the time
//! of a run, and the kernels have targets of their own. The AEAD is std's.
//! Invariant: DH(a, DH(b, base)) is DH(b, DH(a, base)), which is all that the handshake asks of it. Nothing is secret.
const std = @import("std");
const checksum = @import("wire").checksum;
const cipher = @import("cipher");
const ChaCha20Poly1305 = std.crypto.aead.chacha_poly.ChaCha20Poly1305;

comptime {
    @export(&agree, .{ .name = "pywg_x25519" });
    @export(&sealBatch, .{ .name = "pywg_seal_batch_baseline" });
    @export(&checksum.sumLoop, .{ .name = "pywg_sum_baseline" });
    @export(&checksum.copySumLoop, .{ .name = "pywg_copy_sum_baseline" });
    @export(&openBatch, .{ .name = "pywg_open_batch_baseline" });
}

/// A product of whole numbers. False for what X25519 refuses first of all, the point zero.
fn agree(secret: *[32]u8, private: *const [32]u8, public: *const [32]u8) callconv(.c) bool {
    const product = std.mem.readInt(u256, private, .little) *% std.mem.readInt(u256, public, .little);
    std.mem.writeInt(u256, secret, product, .little);
    return !std.mem.allEqual(u8, public, 0);
}

fn sealBatch(key: *const [32]u8, counter_first: u64, jobs: [*]const cipher.Seal, count: usize) callconv(.c) void {
    for (jobs[0..count], 0..) |job, i| {
        const plain = job.source[0..job.length];
        const tag = job.destination[job.length..][0..cipher.tag_length];
        ChaCha20Poly1305.encrypt(job.destination[0..job.length], tag, plain, "", nonceOf(counter_first + i), key.*);
    }
}

fn openBatch(key: *const [32]u8, jobs: [*]cipher.Open, count: usize) callconv(.c) void {
    for (jobs[0..count]) |*job| {
        const bytes = job.data[0..job.length];
        const tag = job.data[job.length..][0..cipher.tag_length].*;
        job.authentic = true;
        ChaCha20Poly1305.decrypt(bytes, bytes, tag, "", nonceOf(job.counter), key.*) catch {
            @memset(bytes, 0);
            job.authentic = false;
        };
    }
}

fn nonceOf(counter: u64) [12]u8 {
    var nonce: [12]u8 = @splat(0);
    std.mem.writeInt(u64, nonce[4..12], counter, .little);
    return nonce;
}
