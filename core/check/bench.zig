//! What scripts/bench_crypto measures of ours, in the rooms as they are compiled; no install has it.
//!
//!   bench MILLISECONDS CASE [BYTES]
//!
//! A case runs for so long for each contestant and operation, after an eighth of that to warm up. Each gives a line
//! `contestant TAB operation TAB bytes TAB batch TAB value`, in GB/s, MB/s (BLAKE2s) or 1/s. Time is that of the CPU,
//! so other work on the machine disturbs less. Compiled twice: as an install is, and ReleaseFast for comparison.
//! Knows nothing of other implementations; their programs are beside the script. Invariant: what is measured has
//! done its work, for each message must open and each handshake must be answered.
const std = @import("std");
const runtime = @import("runtime");
const builtin = @import("builtin");
const linux = std.os.linux;
const cipher = @import("cipher");
const protocol = @import("protocol");
const wire = @import("wire");

const is_installed_mode = builtin.mode == .safe;
const name = if (is_installed_mode) "pywg" else "pywg, ReleaseFast";

const Case = enum { aead, aead_mixed, checksum, x25519, blake2s, handshake };

var budget_ns: u64 = 0;

pub fn main(init: std.process.Init.Minimal) u8 {
    var arguments = init.args.iterate();
    _ = arguments.skip();
    const milliseconds = number(arguments.next() orelse return 2) orelse return 2;
    const case = std.meta.stringToEnum(Case, arguments.next() orelse return 2) orelse return 2;
    const length = number(arguments.next() orelse "0") orelse return 2;
    budget_ns = milliseconds * std.time.ns_per_ms;
    switch (case) {
        .aead => if (length == 0 or length > length_max) return 2 else aead(length),
        .aead_mixed => if (is_installed_mode) measureFlavours(&mixed, &.{44}),
        .checksum => if (length == 0 or length > from.len) return 2 else checksum(length),
        .x25519 => x25519(),
        .blake2s => if (length == 0 or length > from.len) return 2 else blake2s(length),
        .handshake => handshake(),
    }
    return 0;
}

fn number(text: []const u8) ?usize {
    return std.fmt.parseInt(usize, text, 10) catch null;
}

fn report(contestant: []const u8, operation: []const u8, bytes: usize, batch: usize, value: f64) void {
    var buffer: [256]u8 = undefined;
    const values = .{ contestant, operation, bytes, batch, value };
    const line = std.mem.print(&buffer, "{s}\t{s}\t{d}\t{d}\t{d:.6}\n", values) catch @panic("a line too long");
    _ = linux.write(1, line.ptr, line.len);
}

fn now() u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(.THREAD_CPUTIME_ID, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// Calls per second.
fn rate(calls: usize, comptime work: anytype, arguments: anytype) f64 {
    const warm = now() + budget_ns / 8;
    while (now() < warm) @call(.never_inline, work, arguments);
    const start = now();
    var done: usize = 0;
    while (true) {
        for (0..calls) |_| @call(.never_inline, work, arguments);
        done += calls;
        const spent = now() - start;
        if (spent < budget_ns) continue;
        return @as(f64, @floatFromInt(done)) * std.time.ns_per_s / @as(f64, @floatFromInt(spent));
    }
}

// ---- the AEAD -----------------------------------------------------------------------------------------------------

/// What a train holds, as many as vectors of Poly1305 take, and one.
const batches = [_]usize{ 44, 8, 1 };
const header_length = 16;
/// More than the first cache holds: packets come from the kernel's copy, not from the last round.
const pool_length = 128 << 10;
const length_max = 1500;

/// All there may be, the best first.
const flavours = [_][]const u8{ "v4ifma", "v4", "v3", "baseline" };

const key: [32]u8 = @splat(7);
var pool: [pool_length]u8 align(64) = @splat(0x61);

/// All lengths of a batch, from 64 to 1420, in no order.
const mixed: [44]usize = blk: {
    var lengths: [44]usize = undefined;
    for (&lengths, 0..) |*length, i| length.* = 64 + i * 617 % 1357;
    break :blk lengths;
};

/// Messages that lie one behind the other as in a train, sealed and opened in place as the device does it.
const Messages = struct {
    /// In turns.
    lengths: []const usize,
    stride: usize,
    count: usize,
    counter: u64 = 0,

    fn init(lengths: []const usize, batch: usize) Messages {
        const stride = header_length + std.mem.max(usize, lengths) + cipher.tag_length;
        return .{ .lengths = lengths, .stride = stride, .count = pool_length / (stride * batch) * batch };
    }

    fn lengthOf(messages: Messages, i: usize) usize {
        return messages.lengths[i % messages.lengths.len];
    }

    fn body(messages: Messages, i: usize) [*]u8 {
        return pool[i * messages.stride + header_length ..].ptr;
    }

    fn bytes(messages: Messages) usize {
        var total: usize = 0;
        for (0..messages.count) |i| total += messages.lengthOf(i);
        return total;
    }
};

const Pass = *const fn (messages: Messages) void;

fn aead(length: usize) void {
    if (!is_installed_mode) return measureAead("Zig std.crypto", &.{length}, 1, sealStd, openStd);
    measureFlavours(&.{length}, &batches);
}

fn measureFlavours(lengths: []const usize, comptime counts: []const usize) void {
    var last: []const u8 = "";
    for (flavours) |flavour| {
        cipher.select(flavour);
        // What is not built or not for this CPU gives way to the best there is.
        if (std.mem.eql(u8, cipher.path(), last)) continue;
        last = cipher.path();
        var buffer: [64]u8 = undefined;
        const contestant = std.mem.print(&buffer, "pywg {s}", .{last}) catch unreachable;
        inline for (counts) |count| measureAead(contestant, lengths, count, Ours(count).seal, Ours(count).open);
    }
}

/// Messages of several lengths are reported as of none.
fn measureAead(contestant: []const u8, lengths: []const usize, batch: usize, seal: Pass, open: Pass) void {
    var messages: Messages = .init(lengths, batch);
    var sealing: u64 = 0;
    var opening: u64 = 0;
    var passes: usize = 0;
    var is_warm = false;
    while (sealing + opening < 2 * budget_ns) {
        const start = now();
        seal(messages);
        const middle = now();
        open(messages);
        opening += now() - middle;
        sealing += middle - start;
        messages.counter += messages.count;
        passes += 1;
        if (is_warm or sealing + opening < budget_ns / 4) continue;
        is_warm = true;
        sealing, opening, passes = .{ 0, 0, 0 };
    }
    const bytes: f64 = @floatFromInt(passes * messages.bytes());
    const length = if (lengths.len == 1) lengths[0] else 0;
    report(contestant, "seal", length, batch, bytes / @as(f64, @floatFromInt(sealing)));
    report(contestant, "open", length, batch, bytes / @as(f64, @floatFromInt(opening)));
}

fn Ours(comptime batch: usize) type {
    return struct {
        fn seal(messages: Messages) void {
            var first: usize = 0;
            while (first < messages.count) : (first += batch) {
                var jobs: [batch]cipher.Seal = undefined;
                for (&jobs, first..) |*job, i| {
                    job.* = .{
                        .source = messages.body(i),
                        .destination = messages.body(i),
                        .length = messages.lengthOf(i),
                    };
                }
                cipher.sealBatch(&key, messages.counter + first, &jobs);
            }
        }

        fn open(messages: Messages) void {
            var first: usize = 0;
            while (first < messages.count) : (first += batch) {
                var jobs: [batch]cipher.Open = undefined;
                for (&jobs, first..) |*job, i| job.* = .{
                    .data = messages.body(i),
                    .length = messages.lengthOf(i),
                    .counter = messages.counter + i,
                    .authentic = false,
                };
                cipher.openBatch(&key, &jobs);
                for (jobs) |job| if (!job.authentic) @panic("a message did not open");
            }
        }
    };
}

const Std = std.crypto.aead.chacha_poly.ChaCha20Poly1305;

fn nonceOf(counter: u64) [12]u8 {
    var nonce: [12]u8 = @splat(0);
    std.mem.writeInt(u64, nonce[4..12], counter, .little);
    return nonce;
}

fn sealStd(messages: Messages) void {
    for (0..messages.count) |i| {
        const body = messages.body(i);
        const plain = body[0..messages.lengthOf(i)];
        Std.encrypt(plain, body[plain.len..][0..16], plain, "", nonceOf(messages.counter + i), key);
    }
}

fn openStd(messages: Messages) void {
    for (0..messages.count) |i| {
        const body = messages.body(i);
        const sealed = body[0..messages.lengthOf(i)];
        const tag = body[sealed.len..][0..16].*;
        Std.decrypt(sealed, sealed, tag, "", nonceOf(messages.counter + i), key) catch @panic("a message did not open");
    }
}

// ---- checksums and primitives of the handshake --------------------------------------------------------------------

var from: [65536]u8 align(64) = @splat(0x5a);
var to: [65536]u8 align(64) = @splat(0);

/// The loops are the same in each mode; what they are compared to is compiled with the fast one.
fn checksum(length: usize) void {
    const gigabytes = @as(f64, @floatFromInt(length)) / 1e9;
    const both = .{ to[0..length], from[0..length] };
    if (!is_installed_mode) {
        return report("Zig @memcpy", "checksum", length, 1, gigabytes * rate(64, copy, both));
    }
    var last: []const u8 = "";
    for (flavours) |flavour| {
        cipher.select(flavour);
        if (std.mem.eql(u8, cipher.path(), last)) continue;
        last = cipher.path();
        const sum_fn, const copy_sum_fn = cipher.checksumLoops();
        const loops: wire.checksum.Loops = .{ .sum_fn = sum_fn, .copy_sum_fn = copy_sum_fn };
        var buffer: [64]u8 = undefined;
        const summing = std.mem.print(&buffer, "pywg {s}: sum", .{last}) catch unreachable;
        report(summing, "checksum", length, 1, gigabytes * rate(64, sum, .{ loops, from[0..length] }));
        const copying = std.mem.print(&buffer, "pywg {s}: copySum", .{last}) catch unreachable;
        const copied = rate(64, copySum, .{ loops, to[0..length], from[0..length] });
        report(copying, "checksum", length, 1, gigabytes * copied);
    }
}

fn sum(loops: wire.checksum.Loops, bytes: []const u8) void {
    std.mem.doNotOptimizeAway(loops.sum(bytes, 0));
}

fn copySum(loops: wire.checksum.Loops, out: []u8, bytes: []const u8) void {
    std.mem.doNotOptimizeAway(loops.copySum(out, bytes, 0));
}

fn copy(out: []u8, bytes: []const u8) void {
    @memcpy(out, bytes);
    std.mem.doNotOptimizeAway(out.ptr);
}

fn x25519() void {
    const private: [32]u8 = @splat(0x39);
    const public = protocol.crypto.publicKey(&@as([32]u8, @splat(0x55)));
    report(name, "x25519", 0, 1, rate(16, agree, .{ &private, &public }));
}

fn agree(private: *const [32]u8, public: *const [32]u8) void {
    const shared = protocol.crypto.dh(private, public) catch unreachable;
    std.mem.doNotOptimizeAway(&shared);
}

fn blake2s(length: usize) void {
    const megabytes = @as(f64, @floatFromInt(length)) / 1e6;
    report(name, "blake2s", length, 1, megabytes * rate(256, hash, .{from[0..length]}));
}

fn hash(bytes: []const u8) void {
    const digest = protocol.crypto.hash(&.{bytes});
    std.mem.doNotOptimizeAway(&digest);
}

// ---- handshakes ---------------------------------------------------------------------------------------------------

/// Two interfaces that are each other's peer. Time is ours: it leaps beyond the life of a session before every
/// handshake, so that none is too soon and no session is left to send on.
const Pair = struct {
    initiator: protocol.Interface,
    responder: protocol.Interface,
    peer: protocol.PeerId,
    now: protocol.Now = .{ .boot = .{ .ns = 1000 * std.time.ns_per_s }, .unix_ns = 1_700_000_000 * std.time.ns_per_s },

    const leap_ns = protocol.constants.REJECT_AFTER_TIME + std.time.ns_per_s;
    /// What starts a handshake: an inner packet for the other side.
    const packet = [20]u8{ 0x45, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2 };

    fn init(pair: *Pair) !void {
        const options: protocol.Options = .{
            .allocator = std.heap.page_allocator,
            .entropy = .{ .context = null, .fillFn = fillFromKernel },
        };
        pair.* = .{ .initiator = try .init(options), .responder = try .init(options), .peer = undefined };
        try configure(&pair.initiator, 1, 2);
        try configure(&pair.responder, 2, 1);
        pair.peer = pair.initiator.route(&packet).peer;
    }

    /// Initiation, response, and the first data, which the initiator seals to confirm the session.
    fn shake(pair: *Pair) void {
        pair.now.boot = pair.now.boot.after(leap_ns);
        pair.now.unix_ns += leap_ns;
        _ = pair.initiator.stage(pair.peer, &packet);
        var buffer: [2048]u8 = undefined;
        pair.deliver(&pair.initiator, &pair.responder, .initiation, &buffer);
        pair.deliver(&pair.responder, &pair.initiator, .response, &buffer);
        const data = pair.initiator.pollTransmit(&buffer, pair.now) orelse @panic("no data after the handshake");
        if (wire.messages.classify(buffer[0..data.length]) != .transport) @panic("the handshake has failed");
        if (pair.initiator.pollTransmit(&buffer, pair.now) != null) @panic("more than was asked for");
    }

    fn deliver(
        pair: *Pair,
        source: *protocol.Interface,
        target: *protocol.Interface,
        kind: wire.messages.Kind,
        buffer: []u8,
    ) void {
        const transmit = source.pollTransmit(buffer, pair.now) orelse @panic("nothing to send");
        const datagram = buffer[0..transmit.length];
        if (wire.messages.classify(datagram) != kind) @panic("not the message expected");
        const sender = endpointOf(if (source == &pair.initiator) 1 else 2);
        if (target.handleHandshake(datagram, &sender, .never, pair.now) != null) @panic("a message was refused");
    }
};

fn handshake() void {
    var pair: Pair = undefined;
    pair.init() catch @panic("no memory");
    report(name, "handshake", 0, 1, rate(4, Pair.shake, .{&pair}));
}

fn fillFromKernel(_: ?*anyopaque, out: []u8) bool {
    return linux.getrandom(out.ptr, out.len, 0) == out.len;
}

fn endpointOf(side: u8) wire.Endpoint {
    return .{ .remote = .{ .address = .fromIpv4(.{ 192, 0, 2, side }), .port = 51820 } };
}

fn configure(interface: *protocol.Interface, side: u8, other: u8) !void {
    const allocator = std.heap.page_allocator;
    var buffer: [512]u8 = undefined;
    const private: [32]u8 = @splat(side);
    const public = protocol.crypto.publicKey(&@as([32]u8, @splat(other)));
    const format = "private_key={x}\npublic_key={x}\nendpoint=192.0.2.{d}:51820\nallowed_ip=10.0.0.{d}/32\n";
    const text = try std.mem.print(&buffer, format, .{ &private, &public, other, other });
    var diagnostic: protocol.uapi.Diagnostic = .{};
    var change = try protocol.uapi.parse(allocator, text, &diagnostic);
    defer change.deinit(allocator);
    try interface.configure(&change);
    interface.setActive(true);
}

pub const std_options = runtime.std_options;
pub const panic = runtime.panic;
