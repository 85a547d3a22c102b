//! How fast the cipher is: GB/s of payload for batches of 44 packets, every flavour this CPU runs, beside a plain
//! loop over std.crypto. Linux only; the best of many short rounds of CPU time, because machines are noisy.
const std = @import("std");
const linux = std.os.linux;
const cipher = @import("cipher.zig");
const dispatch = @import("dispatch.zig");

const batch_length = 44;
const lengths = [_]usize{ 64, 256, 1420 };
const rounds = 200;
const round_ns = 1_500_000;

const Work = enum { seal, open };

var plain: [batch_length][1536]u8 = @splat(@splat(0x61));
var sealed: [batch_length][1536]u8 = undefined;
var key: [32]u8 = @splat(7);
var counter: u64 = 0;

pub fn main() void {
    std.debug.print("GB/s of payload, batches of {d}\n", .{batch_length});
    std.debug.print("{s:<12} {s:>7} {s:>11} {s:>11}\n", .{ "path", "bytes", "seal", "open" });
    for (lengths) |length| report("std loop", length, sealStd, openStd);
    for (&dispatch.kernels) |*kernel| {
        if (!kernel.supported()) continue;
        cipher.select(kernel.suffix);
        for (lengths) |length| report(cipher.path(), length, sealOurs, openOurs);
    }
}

fn report(name: []const u8, length: usize, seal: *const fn (usize) void, open: *const fn (usize) void) void {
    const sealing = measure(length, seal, null);
    // Opening is in place, so every batch must be sealed again; the difference is the opening.
    const both = measure(length, seal, open);
    const opening = 1 / (1 / both - 1 / sealing);
    std.debug.print("{s:<12} {d:>7} {d:>11.3} {d:>11.3}\n", .{ name, length, sealing, opening });
}

fn measure(length: usize, first: *const fn (usize) void, second: ?*const fn (usize) void) f64 {
    var best: f64 = 0;
    for (0..rounds) |_| {
        const start = now();
        var elapsed: u64 = 0;
        var batches: usize = 0;
        while (elapsed < round_ns) : (elapsed = now() - start) {
            for (0..8) |_| {
                first(length);
                if (second) |run| run(length);
                counter += batch_length;
            }
            batches += 8;
        }
        const bytes: f64 = @floatFromInt(batches * batch_length * length);
        best = @max(best, bytes / @as(f64, @floatFromInt(elapsed)));
    }
    return best;
}

fn now() u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(.THREAD_CPUTIME_ID, &time);
    return @as(u64, @intCast(time.sec)) * 1_000_000_000 + @as(u64, @intCast(time.nsec));
}

fn sealOurs(length: usize) void {
    var jobs: [batch_length]cipher.Seal = undefined;
    for (&jobs, &plain, &sealed) |*job, *from, *to| job.* = .{ .source = from, .destination = to, .length = length };
    cipher.sealBatch(&key, counter, &jobs);
}

fn openOurs(length: usize) void {
    var jobs: [batch_length]cipher.Open = undefined;
    for (&jobs, &sealed, 0..) |*job, *data, i| {
        job.* = .{ .data = data, .length = length, .counter = counter + i, .authentic = false };
    }
    cipher.openBatch(&key, &jobs);
    for (jobs) |job| if (!job.authentic) @panic("a packet did not open");
}

const Std = std.crypto.aead.chacha_poly.ChaCha20Poly1305;

fn nonceOf(value: u64) [12]u8 {
    var nonce: [12]u8 = @splat(0);
    std.mem.writeInt(u64, nonce[4..12], value, .little);
    return nonce;
}

fn sealStd(length: usize) void {
    for (&plain, &sealed, 0..) |*from, *to, i| {
        Std.encrypt(to[0..length], to[length..][0..16], from[0..length], "", nonceOf(counter + i), key);
    }
}

fn openStd(length: usize) void {
    for (&sealed, 0..) |*data, i| {
        const tag = data[length..][0..16].*;
        const nonce = nonceOf(counter + i);
        Std.decrypt(data[0..length], data[0..length], tag, "", nonce, key) catch @panic("a packet did not open");
    }
}
