//! Interfaces talking to each other without a kernel: virtual time, seeded randomness, a network that
//! is a function call. Each test is a sentence of the protocol's promise.
const std = @import("std");
const testing = std.testing;
const Attempts = @import("attempts.zig").Attempts;
const wire = @import("wire");
const messages = wire.messages;
const change_file = @import("change.zig");
const constants = @import("constants.zig");
const crypto = @import("crypto.zig");
const Drop = @import("drop.zig").Drop;
const events = @import("events.zig");
const control = @import("interface/control.zig");
const handshakes = @import("interface/handshakes.zig");
const interface_file = @import("interface.zig");
const Interface = interface_file.Interface;
const notices = @import("notices.zig");
const Peer = @import("peer.zig").Peer;
const session = @import("session.zig");
const soundness = @import("soundness.zig");
const time = @import("time.zig");
const timers = @import("timers.zig");
const uapi = @import("uapi.zig");

const second = std.time.ns_per_s;

fn fillFromPrng(context: ?*anyopaque, out: []u8) bool {
    const prng: *std.Random.DefaultPrng = @ptrCast(@alignCast(context.?));
    prng.random().bytes(out);
    return true;
}

/// One end: an interface, its address inside (10.0.0.N) and outside (192.0.2.N).
const End = struct {
    interface: Interface,
    number: u8,
    endpoint: wire.Endpoint,
    /// What was delivered last, and how often something was.
    delivered: [2048]u8 = undefined,
    delivered_length: usize = 0,
    delivered_count: usize = 0,
    initiations_sent: usize = 0,
    keepalives_received: usize = 0,

    fn dropped(end: *const End, reason: Drop) u64 {
        return end.interface.counters.get(reason);
    }
};

const Net = struct {
    prng: std.Random.DefaultPrng,
    now: time.Now = .{ .boot = .{ .ns = 1000 * second }, .unix_ns = 1_700_000_000 * second },
    a: End = undefined,
    b: End = undefined,
    /// While set, everything sent is lost.
    is_cut: bool = false,
    datagrams: usize = 0,
    /// The last datagram that crossed.
    last: [2048]u8 = undefined,
    last_length: usize = 0,
    /// Of all that crossed.
    digest: std.hash.Wyhash = .init(0),
    /// Sender, receiver index and counter of every transport message: none may be there twice.
    nonces: std.AutoHashMapUnmanaged([3]u64, void) = .empty,

    fn init(net: *Net, a_extra: []const u8, b_extra: []const u8) !void {
        net.* = .{ .prng = .init(42) };
        try net.open(&net.a, 1);
        try net.open(&net.b, 2);
        try net.configure(&net.a, &net.b, a_extra);
        try net.configure(&net.b, &net.a, b_extra);
        net.a.interface.setActive(true);
        net.b.interface.setActive(true);
    }

    fn deinit(net: *Net) void {
        net.a.interface.deinit();
        net.b.interface.deinit();
        net.nonces.deinit(testing.allocator);
    }

    fn open(net: *Net, end: *End, number: u8) !void {
        end.* = .{
            .interface = try .init(.{
                .allocator = testing.allocator,
                .entropy = .{ .context = &net.prng, .fillFn = fillFromPrng },
            }),
            .number = number,
            .endpoint = endpointOf(number, 51820),
        };
    }

    fn configure(net: *Net, end: *End, other: *End, extra: []const u8) !void {
        _ = net;
        var text: [1024]u8 = undefined;
        const format = "private_key={x}\npublic_key={x}\nendpoint=192.0.2.{d}:51820\nallowed_ip=10.0.0.{d}/32\n{s}";
        const public = crypto.publicKey(&privateKey(other.number));
        const arguments = .{ &privateKey(end.number), &public, other.number, other.number, extra };
        const all = try std.mem.print(&text, format, arguments);
        try set(end, all);
    }

    fn peerOf(net: *Net, end: *End) *End {
        return if (end == &net.a) &net.b else &net.a;
    }

    /// Sends an inner packet of `length` bytes to the other end, then lets everything settle.
    fn send(net: *Net, from: *End, length: usize) !void {
        var packet: [1500]u8 = undefined;
        try net.sendPacket(from, innerPacket(&packet, from.number, net.peerOf(from).number, length));
    }

    fn sendPacket(net: *Net, from: *End, packet: []u8) !void {
        const id = switch (from.interface.route(packet)) {
            .peer => |id| id,
            .drop => return,
        };
        switch (from.interface.reserve(id, 1, sealedLength(packet.len), net.now)) {
            .drop => return,
            .stage => _ = from.interface.stage(id, packet),
            .seal => |ticket| {
                var datagram: [2048]u8 = undefined;
                const total = seal(&datagram, ticket, packet);
                try net.cross(from, datagram[0..total]);
            },
        }
        try net.settle();
    }

    /// Until neither end wants to send.
    fn settle(net: *Net) error{ TestUnexpectedResult, OutOfMemory }!void {
        for (0..1000) |_| {
            const a = try net.pump(&net.a);
            const b = try net.pump(&net.b);
            if (!a and !b) return;
        }
        return error.TestUnexpectedResult; // they talk for ever
    }

    fn pump(net: *Net, end: *End) !bool {
        var buffer: [2048]u8 = undefined;
        var any = false;
        while (end.interface.pollTransmit(&buffer, net.now)) |transmit| {
            any = true;
            if (messages.classify(buffer[0..transmit.length]).? == .initiation) end.initiations_sent += 1;
            try net.cross(end, buffer[0..transmit.length]);
        }
        return any;
    }

    fn cross(net: *Net, from: *End, datagram: []const u8) !void {
        net.datagrams += 1;
        @memcpy(net.last[0..datagram.len], datagram);
        net.last_length = datagram.len;
        net.digest.update(datagram);
        if (messages.classify(datagram).? == .transport) {
            const receiver = std.mem.readInt(u32, datagram[4..8], .little);
            const nonce: [3]u64 = .{ from.number, receiver, std.mem.readInt(u64, datagram[8..16], .little) };
            if ((try net.nonces.getOrPut(testing.allocator, nonce)).found_existing) return error.TestUnexpectedResult;
        }
        if (net.is_cut) return;
        net.arrive(net.peerOf(from), datagram, &from.endpoint);
    }

    fn arrive(net: *Net, to: *End, datagram: []const u8, from: *const wire.Endpoint) void {
        var copy: [2048]u8 = undefined;
        @memcpy(copy[0..datagram.len], datagram);
        switch (to.interface.prepareOpen(copy[0..datagram.len], net.now)) {
            .drop => {},
            .handshake => _ = to.interface.handleHandshake(copy[0..datagram.len], from, .never, net.now),
            .open => |ticket| {
                const sealed = copy[16..datagram.len];
                const plain = sealed[0 .. sealed.len - 16];
                const is_authentic = crypto.aeadOpen(plain, ticket.key, ticket.counter, sealed, "");
                switch (to.interface.finishOpen(ticket, if (is_authentic) plain else null, from, net.now)) {
                    .deliver => |inner| {
                        @memcpy(to.delivered[0..inner.len], inner);
                        to.delivered_length = inner.len;
                        to.delivered_count += 1;
                    },
                    .keepalive => to.keepalives_received += 1,
                    .drop => {},
                }
            },
        }
    }

    /// Time passes; timers fire when they are due.
    fn pass(net: *Net, duration_ns: u64) !void {
        const end = net.now.boot.after(duration_ns);
        while (true) {
            var due = end;
            for ([_]*End{ &net.a, &net.b }) |side| {
                if (side.interface.deadline()) |instant| if (instant.isBefore(due)) {
                    due = instant;
                };
            }
            net.jumpTo(due);
            net.a.interface.expire(net.now);
            net.b.interface.expire(net.now);
            try net.settle();
            if (due.ns == end.ns) return;
        }
    }

    fn jumpTo(net: *Net, instant: time.Instant) void {
        const elapsed = instant.since(net.now.boot);
        net.now.boot = net.now.boot.after(elapsed);
        net.now.unix_ns += elapsed;
    }
};

fn privateKey(number: u8) [32]u8 {
    var key: [32]u8 = @splat(number);
    crypto.clamp(&key);
    return key;
}

fn endpointOf(number: u8, port: u16) wire.Endpoint {
    return .{ .remote = .{ .address = .fromIpv4(.{ 192, 0, 2, number }), .port = port } };
}

fn set(end: *End, text: []const u8) !void {
    var diagnostic: uapi.Diagnostic = .{};
    var change = try uapi.parse(testing.allocator, text, &diagnostic);
    defer change.deinit(testing.allocator);
    try end.interface.configure(&change);
}

fn innerPacket(buffer: []u8, from: u8, to: u8, length: usize) []u8 {
    const packet = buffer[0..length];
    @memset(packet, 0xa5);
    packet[0] = 0x45;
    packet[1] = 0;
    std.mem.writeInt(u16, packet[2..4], @intCast(length), .big);
    packet[12..16].* = .{ 10, 0, 0, from };
    packet[16..20].* = .{ 10, 0, 0, to };
    return packet;
}

/// Of the datagram for an inner packet.
fn sealedLength(packet_length: usize) usize {
    return messages.paddedLength(packet_length, 1420) + messages.transport_overhead;
}

fn seal(datagram: []u8, ticket: interface_file.SealTicket, packet: []const u8) usize {
    const padded = messages.paddedLength(packet.len, 1420);
    datagram[0..16].* = std.mem.toBytes(messages.TransportHeader.init(ticket.receiver_index, ticket.counter));
    @memcpy(datagram[16..][0..packet.len], packet);
    @memset(datagram[16 + packet.len ..][0 .. padded - packet.len], 0);
    crypto.aeadSeal(datagram[16..][0 .. padded + 16], ticket.key, ticket.counter, datagram[16..][0..padded], "");
    return sealedLength(packet.len);
}

test "the first packet waits for the handshake and arrives whole" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try testing.expectEqual(1, net.b.delivered_count);
    try testing.expectEqual(100, net.b.delivered_length);
    // initiation, response, and the staged packet itself confirms
    try testing.expectEqual(3, net.datagrams);
    try net.send(&net.b, 60);
    try testing.expectEqual(60, net.a.delivered_length);
    try testing.expectEqual(0, net.a.initiations_sent - 1);
}

/// Each end has an initiation of the other under way; then both messages arrive.
fn crossInitiations(net: *Net) !void {
    var packet: [1500]u8 = undefined;
    var datagrams: [2][messages.handshake_length_max]u8 = undefined;
    for ([_]*End{ &net.a, &net.b }, &datagrams) |end, *datagram| {
        const id = end.interface.route(innerPacket(&packet, end.number, net.peerOf(end).number, 100)).peer;
        _ = end.interface.stage(id, innerPacket(&packet, end.number, net.peerOf(end).number, 100));
        try testing.expectEqual(@sizeOf(messages.Initiation), end.interface.pollTransmit(datagram, net.now).?.length);
    }
    net.arrive(&net.a, datagrams[1][0..@sizeOf(messages.Initiation)], &net.b.endpoint);
    net.arrive(&net.b, datagrams[0][0..@sizeOf(messages.Initiation)], &net.a.endpoint);
}

test "two ends that begin at the same instant are connected at once" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try crossInitiations(&net);
    try net.settle();
    for ([_]*End{ &net.a, &net.b }) |end| {
        try testing.expectEqual(1, end.delivered_count);
        try expectSound(&end.interface);
    }
    try net.pass(10 * second);
    try testing.expectEqual(0, net.a.initiations_sent + net.b.initiations_sent);
}

test "of two ends that began together one may forget its own initiation, as the kernel does" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try crossInitiations(&net);
    handshakes.abandonInitiation(&net.b.interface, net.b.interface.peers.at(0));
    try net.settle();
    try testing.expectEqual(1, net.a.delivered_count);
    try testing.expectEqual(1, net.b.delivered_count);
}

test "a session that is confirmed ends our own initiation" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    net.is_cut = true;
    try net.send(&net.a, 100);
    net.is_cut = false;
    try net.send(&net.b, 100);
    const peer = net.a.interface.peers.at(0);
    try testing.expectEqual(null, peer.handshake_index);
    try testing.expect(std.mem.allEqual(u8, &peer.handshake.ephemeral_private, 0));
    try testing.expectEqual(1, net.b.delivered_count);
}

test "a preshared key on one side only keeps them apart, on both lets them talk" {
    const psk = "preshared_key=0101010101010101010101010101010101010101010101010101010101010101\n";
    var net: Net = undefined;
    try net.init(psk, "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try testing.expectEqual(0, net.b.delivered_count);
    try testing.expect(net.a.dropped(.invalid_handshake) > 0);
    try net.configure(&net.b, &net.a, psk);
    try net.pass(6 * second);
    try testing.expectEqual(1, net.b.delivered_count);
}

test "an initiator renews after REKEY_AFTER_TIME and the old session still receives" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try net.pass(119 * second);
    try net.send(&net.a, 100);
    try testing.expectEqual(1, net.a.initiations_sent);
    try net.pass(2 * second);
    try net.send(&net.a, 100);
    try testing.expectEqual(2, net.a.initiations_sent);
    try net.send(&net.a, 100);
    try testing.expectEqual(4, net.b.delivered_count);
    try testing.expectEqual(0, net.b.initiations_sent);
    try testing.expect(net.b.interface.peers.at(0).sessions.previous != null);
}

test "the receiving initiator renews before REJECT_AFTER_TIME without sending data itself" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try net.pass(164 * second);
    try net.send(&net.b, 100);
    try testing.expectEqual(1, net.a.initiations_sent);
    try net.pass(1 * second);
    try net.send(&net.b, 100);
    try testing.expectEqual(2, net.a.initiations_sent);
    try testing.expectEqual(2, net.a.delivered_count);
}

test "an unanswered initiation is sent again for REKEY_ATTEMPT_TIME, then given up with its packets" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    net.is_cut = true;
    try net.send(&net.a, 100);
    try net.pass(4 * second);
    try testing.expectEqual(1, net.a.initiations_sent);
    try net.pass(2 * second);
    try testing.expectEqual(2, net.a.initiations_sent);
    try net.pass(200 * second);
    try testing.expectEqual(constants.MAX_TIMER_HANDSHAKES + 2, net.a.initiations_sent);
    try testing.expectEqual(1, net.a.dropped(.handshake_gave_up));
    net.is_cut = false;
    try net.send(&net.a, 100);
    try testing.expectEqual(1, net.b.delivered_count);
}

fn expectEvents(ring: *events.Ring, comptime kinds: []const std.meta.Tag(events.Event), peer: *const [32]u8) !void {
    inline for (kinds) |kind| {
        const event = ring.take() orelse return error.TestUnexpectedResult;
        try testing.expectEqual(kind, std.meta.activeTag(event));
        const payload = @field(event, @tagName(kind));
        const key = &(if (@TypeOf(payload) == events.Key) payload else payload.peer);
        try testing.expectEqualSlices(u8, peer, key);
    }
    try testing.expectEqual(null, ring.take());
}

test "users are told of sessions, of a peer that moves, is silent or removed, and of packets nothing" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var slots: [2][8]events.Event = undefined;
    var rings: [2]events.Ring = .{ .init(&slots[0]), .init(&slots[1]) };
    net.a.interface.events = &rings[0];
    net.b.interface.events = &rings[1];
    const keys = [2][32]u8{ net.b.interface.local.?.public, net.a.interface.local.?.public };
    try net.send(&net.a, 100);
    try expectEvents(&rings[0], &.{.handshake}, &keys[0]);
    try expectEvents(&rings[1], &.{.handshake}, &keys[1]);
    for (0..100) |_| try net.send(&net.a, 100);
    for (rings) |ring| try testing.expect(ring.isEmpty());
    // It is told where the peer is, once.
    net.a.endpoint = endpointOf(7, 4711);
    for (0..3) |_| try net.send(&net.a, 100);
    const moved = rings[1].take().?.endpoint;
    try testing.expectEqual(keys[1], moved.peer);
    try testing.expect(moved.remote.eql(endpointOf(7, 4711).remote));
    // Another of our own addresses is no other place of the peer.
    net.a.endpoint.source = .{ .address = .fromIpv4(.{ 192, 0, 2, 9 }), .interface_index = 3 };
    try net.send(&net.a, 100);
    for (rings) |ring| try testing.expect(ring.isEmpty());
    // Silence is told once, however often it is tried again.
    net.is_cut = true;
    for (0..3) |_| {
        try net.send(&net.a, 100);
        try net.pass(200 * second);
    }
    try expectEvents(&rings[0], &.{ .trouble, .stale }, &keys[0]);
    try net.pass(600 * second);
    try testing.expect(rings[0].isEmpty());
    // The other has sent nothing: what it knows is that its keys are too old.
    try expectEvents(&rings[1], &.{.stale}, &keys[1]);
    net.is_cut = false;
    try net.send(&net.a, 100);
    try expectEvents(&rings[0], &.{.handshake}, &keys[0]);
    try set(&net.a, "replace_peers=true\n");
    try expectEvents(&rings[0], &.{.gone}, &keys[0]);
}

test "a passive keepalive answers data after ten seconds and is not answered itself" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const before = net.datagrams;
    try net.pass(11 * second);
    try testing.expectEqual(before + 1, net.datagrams);
    try testing.expectEqual(1, net.a.keepalives_received);
    try net.pass(100 * second);
    try testing.expectEqual(before + 1, net.datagrams);
}

test "data that stays without any answer asks for a new handshake" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try net.pass(30 * second);
    net.is_cut = true;
    try net.send(&net.a, 100);
    try net.pass(14 * second);
    try testing.expectEqual(1, net.a.initiations_sent);
    try net.pass(2 * second);
    try testing.expectEqual(2, net.a.initiations_sent);
}

test "persistent keepalive opens the tunnel and keeps its beat" {
    var net: Net = undefined;
    try net.init("persistent_keepalive_interval=25\n", "");
    defer net.deinit();
    try net.settle();
    try testing.expectEqual(1, net.a.initiations_sent);
    try testing.expectEqual(1, net.b.keepalives_received);
    try net.pass(100 * second);
    try testing.expectEqual(5, net.b.keepalives_received);
    try testing.expectEqual(1, net.a.initiations_sent);
}

test "keys are forgotten after three times REJECT_AFTER_TIME" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const sessions = &net.a.interface.peers.at(0).sessions;
    const kept = sessions.currentSession(&net.a.interface.sessions).?;
    try net.pass(541 * second);
    try testing.expectEqual(null, sessions.current);
    try testing.expect(std.mem.allEqual(u8, &kept.sending_key, 0) and std.mem.allEqual(u8, &kept.receiving_key, 0));
    try testing.expectEqual(0, net.a.interface.by_index.count);
}

test "a session past REJECT_AFTER_TIME neither sends nor receives" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const old = net.last;
    const old_length = net.last_length;
    net.is_cut = true;
    net.jumpTo(net.now.boot.after(constants.REJECT_AFTER_TIME));
    net.arrive(&net.b, old[0..old_length], &net.a.endpoint);
    try testing.expectEqual(1, net.b.dropped(.expired_session));
    net.is_cut = false;
    try net.send(&net.a, 80);
    try testing.expectEqual(80, net.b.delivered_length);
    try testing.expectEqual(2, net.a.initiations_sent);
}

test "a peer is followed after its first authentic packet, and only then" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const moved = endpointOf(77, 1234);
    const peer = net.b.interface.peers.at(0);
    var forged = net.last;
    forged[net.last_length - 1] ^= 1;
    std.mem.writeInt(u64, forged[8..16], 1 << 63, .little);
    net.arrive(&net.b, forged[0..net.last_length], &moved);
    try testing.expectEqual(1, net.b.dropped(.not_authentic));
    try testing.expect(peer.endpoint.?.eql(net.a.endpoint));
    net.arrive(&net.b, net.last[0..net.last_length], &moved);
    try testing.expectEqual(1, net.b.dropped(.replayed));
    try testing.expect(peer.endpoint.?.eql(net.a.endpoint));
    net.a.endpoint = moved;
    try net.send(&net.a, 100);
    try testing.expect(peer.endpoint.?.eql(moved));
    try testing.expectEqual(2, net.b.delivered_count);
}

test "a source that routes have left is not learnt again until they lead there, or the peer moves" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const Stale = struct {
        fn isOld(old: u32, endpoint: *const wire.Endpoint) bool {
            return endpoint.source.?.interface_index == old;
        }
    };
    const old: wire.Source = .{ .address = .fromIpv4(.{ 192, 0, 2, 1 }), .interface_index = 7 };
    const new: wire.Source = .{ .address = .fromIpv4(.{ 198, 51, 100, 1 }), .interface_index = 8 };
    const peer = net.a.interface.peers.at(0);
    try net.send(&net.a, 100);
    net.b.endpoint.source = old;
    try net.send(&net.b, 100);
    try testing.expect(peer.endpoint.?.source.?.eql(old));
    try testing.expectEqual(0, net.a.interface.forgetSources(0, 0, @as(u32, 7), Stale.isOld));
    try testing.expect(peer.endpoint.?.source.?.eql(old));
    try testing.expectEqual(null, net.a.interface.forgetSources(1, 1, @as(u32, 7), Stale.isOld));
    try testing.expect(peer.endpoint.?.source.?.eql(old));
    try testing.expectEqual(null, net.a.interface.forgetSources(0, 1, @as(u32, 7), Stale.isOld));
    try net.send(&net.b, 100);
    try testing.expectEqual(null, peer.endpoint.?.source);
    net.b.endpoint.source = new;
    try net.send(&net.b, 100);
    net.b.endpoint.source = old; // overtaken on its way
    try net.send(&net.b, 100);
    try testing.expect(peer.endpoint.?.source.?.eql(new));
    try testing.expectEqual(null, net.a.interface.forgetSources(0, 1, @as(u32, 8), Stale.isOld)); // and back
    try net.send(&net.b, 100);
    try testing.expect(peer.endpoint.?.source.?.eql(old));
    try testing.expectEqual(null, net.a.interface.forgetSources(0, 1, @as(u32, 7), Stale.isOld));
    net.b.endpoint.remote.port += 1;
    try net.send(&net.b, 100);
    try testing.expect(peer.endpoint.?.source.?.eql(old));
}

test "an inner packet is only taken from the peer that owns its source" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    var buffer: [200]u8 = undefined;
    try net.sendPacket(&net.a, innerPacket(&buffer, 9, 2, 100)); // nobody's
    try testing.expectEqual(1, net.b.dropped(.disallowed_source));
    // 10.0.0.0/24 belongs to a, but 10.0.0.9 to a third peer: the longest match must be the sender.
    try net.configure(&net.b, &net.a, "allowed_ip=10.0.0.0/24\n" ++
        "public_key=0303030303030303030303030303030303030303030303030303030303030303\nallowed_ip=10.0.0.9/32\n");
    try net.sendPacket(&net.a, innerPacket(&buffer, 9, 2, 100));
    try testing.expectEqual(2, net.b.dropped(.disallowed_source));
    try net.sendPacket(&net.a, innerPacket(&buffer, 8, 2, 100));
    try testing.expectEqual(2, net.b.delivered_count);
}

test "what was sealed for a peer is not sealed for it again, and may be for another" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try net.send(&net.a, 100); // `last` is now a's transport message
    const end = &net.a.interface;
    var buffer: [1500]u8 = undefined;
    const packet = innerPacket(&buffer, 1, 2, 28 + net.last_length);
    packet[6..8].* = .{ 0, 0 };
    packet[9] = @backingInt(wire.ip.Protocol.udp);
    @memcpy(packet[28..], net.last[0..net.last_length]);
    try testing.expectEqual(Drop.routing_loop, end.route(packet).drop);
    try testing.expectEqual(1, net.a.dropped(.routing_loop));
    packet[28] = 1; // a handshake of its own, as far as we can tell
    try testing.expect(end.route(packet) == .peer);
    packet[28] = 4;
    packet[32] ^= 1; // of a session that is not this peer's
    try testing.expect(end.route(packet) == .peer);
    packet[32] ^= 1;
    packet[9] = @backingInt(wire.ip.Protocol.tcp);
    try testing.expect(end.route(packet) == .peer);
    try testing.expect(end.route(packet[0..40]) == .peer);
    try testing.expectEqual(1, net.a.dropped(.routing_loop));
}

test "inner lengths that lie are dropped and counted" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    var buffer: [200]u8 = undefined;
    const lies = [_]struct { usize, u8, u16 }{
        .{ 100, 0x45, 130 },
        .{ 100, 0x45, 19 },
        .{ 100, 0x55, 100 },
        .{ 100, 0x44, 100 },
        .{ 20, 0x4f, 20 },
        .{ 100, 0x05, 100 },
    };
    for (lies, 1..) |lie, count| {
        const packet = innerPacket(&buffer, 1, 2, lie[0]);
        packet[0] = lie[1];
        std.mem.writeInt(u16, packet[2..4], lie[2], .big);
        const ticket = net.a.interface.reserve(net.a.interface.idOf(0), 1, 144, net.now).seal;
        var datagram: [2048]u8 = undefined;
        const total = seal(&datagram, ticket, packet);
        net.arrive(&net.b, datagram[0..total], &net.a.endpoint);
        try testing.expectEqual(count, net.b.dropped(.malformed_inner));
    }
    // padding is not delivered
    const packet = innerPacket(&buffer, 1, 2, 100);
    std.mem.writeInt(u16, packet[2..4], 90, .big);
    const ticket = net.a.interface.reserve(net.a.interface.idOf(0), 1, 144, net.now).seal;
    var datagram: [2048]u8 = undefined;
    net.arrive(&net.b, datagram[0..seal(&datagram, ticket, packet)], &net.a.endpoint);
    try testing.expectEqual(90, net.b.delivered_length);
}

/// What RFC 791 and 8200 let a peer at 10.0.0.1 and fd00::1 deliver, read without wire.ip.
fn deliverable(bytes: []const u8) ?usize {
    if (bytes.len < 20) return null;
    const from_ipv4 = std.mem.eql(u8, bytes[12..16], &.{ 10, 0, 0, 1 });
    const header = @as(usize, bytes[0] % 16) * 4;
    const total = @as(usize, bytes[2]) * 256 + bytes[3];
    if (bytes[0] / 16 == 4) {
        return if (from_ipv4 and header >= 20 and total >= header and total <= bytes.len) total else null;
    }
    if (bytes[0] / 16 != 6 or bytes.len < 40) return null;
    const whole = 40 + @as(usize, bytes[4]) * 256 + bytes[5];
    const from_ipv6 = bytes[8] == 0xfd and std.mem.allEqual(u8, bytes[9..23], 0) and bytes[23] == 1;
    return if (from_ipv6 and whole <= bytes.len) whole else null;
}

test "of every length up to 100, version, header length and length field, only true packets are delivered" {
    var net: Net = undefined;
    try net.init("", "allowed_ip=fd00::1/128\n");
    defer net.deinit();
    try net.send(&net.a, 100);
    const interface = &net.b.interface;
    var ticket = blk: {
        const local_index = interface.sessions.at(interface.peers.at(0).sessions.current.?).local_index;
        const header = std.mem.toBytes(messages.TransportHeader.init(local_index, 100));
        const datagram = header ++ @as([16]u8, @splat(0));
        break :blk interface.prepareOpen(&datagram, net.now).open;
    };
    var delivered: usize = 0;
    var buffer: [100]u8 = undefined;
    for (0..buffer.len + 1) |length| for (0..256) |first| {
        // Lengths around the true ones, and those whose sum with a header would wrap.
        const version = first / 16;
        const fields: usize = if (version == 4 or (version == 6 and first % 16 == 0)) length + 2 else 2;
        for (0..fields + 4) |number| {
            const field: u16 = if (number < fields) @intCast(number) else @intCast(0xffff - (number - fields) * 20);
            const inner = buffer[0..length];
            @memset(inner, 0);
            if (length > 0) inner[0] = @intCast(first);
            const at: usize = if (version == 6) 4 else 2;
            if (length >= at + 2) std.mem.writeInt(u16, inner[at..][0..2], field, .big);
            if (version == 4 and length >= 20) inner[12..16].* = .{ 10, 0, 0, 1 };
            if (version == 6 and length >= 40) inner[8..24].* = .{ 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 };
            ticket.counter += 1;
            switch (interface.finishOpen(ticket, inner, &net.a.endpoint, net.now)) {
                .deliver => |packet| {
                    try testing.expectEqual(deliverable(inner), packet.len);
                    try testing.expectEqual(inner.ptr, packet.ptr);
                    delivered += 1;
                },
                .keepalive => try testing.expectEqual(0, length),
                .drop => |reason| {
                    try testing.expectEqual(null, deliverable(inner));
                    try testing.expect(length > 0 and (reason == .malformed_inner or reason == .disallowed_source));
                },
            }
        }
    };
    try testing.expect(delivered > 10_000);
}

test "under load a handshake needs a cookie, and gets through with one" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var buffer: [2048]u8 = undefined;
    var packet: [100]u8 = undefined;
    const id = net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer;
    _ = net.a.interface.stage(id, &packet);
    const first = net.a.interface.pollTransmit(&buffer, net.now).?;
    try testing.expectEqual(
        .cookie_required,
        net.b.interface.handleHandshake(buffer[0..first.length], &net.a.endpoint, .always, net.now).?,
    );
    const reply = net.b.interface.pollTransmit(&buffer, net.now).?;
    try testing.expectEqual(64, reply.length);
    try testing.expectEqual(
        null,
        net.a.interface.handleHandshake(buffer[0..reply.length], &net.b.endpoint, .never, net.now),
    );
    try testing.expectEqual(null, net.a.interface.peers.at(0).endpoint.?.source);
    net.jumpTo(net.now.boot.after(6 * second));
    net.a.interface.expire(net.now);
    const second_try = net.a.interface.pollTransmit(&buffer, net.now).?;
    try testing.expectEqual(148, second_try.length);
    const elsewhere = endpointOf(1, 9999);
    try testing.expectEqual(
        .cookie_required,
        net.b.interface.handleHandshake(buffer[0..148], &elsewhere, .always, net.now).?,
    );
    try testing.expectEqual(null, net.b.interface.handleHandshake(buffer[0..148], &net.a.endpoint, .always, net.now));
    try net.settle();
    try testing.expectEqual(1, net.b.delivered_count);
}

test "replayed and rushed initiations are refused, and change nothing" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var buffer: [2048]u8 = undefined;
    var packet: [100]u8 = undefined;
    const id = net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer;
    _ = net.a.interface.stage(id, &packet);
    const length = net.a.interface.pollTransmit(&buffer, net.now).?.length;
    try testing.expectEqual(null, net.b.interface.handleHandshake(buffer[0..length], &net.a.endpoint, .never, net.now));
    try testing.expectEqual(
        .replayed_initiation,
        net.b.interface.handleHandshake(buffer[0..length], &net.a.endpoint, .never, net.now).?,
    );
    // a later timestamp, but only ten milliseconds after
    const peer = net.a.interface.peers.at(0);
    peer.timers.last_sent_handshake = null;
    peer.pending.initiation = true;
    handshakes.enqueue(&net.a.interface, 0);
    _ = net.a.interface.pollTransmit(&buffer, net.now).?;
    net.jumpTo(net.now.boot.after(10 * std.time.ns_per_ms));
    try testing.expectEqual(
        .initiation_flood,
        net.b.interface.handleHandshake(buffer[0..length], &net.a.endpoint, .never, net.now).?,
    );
}

test "any forged byte of a handshake is refused" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var buffer: [2048]u8 = undefined;
    var packet: [100]u8 = undefined;
    const id = net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer;
    _ = net.a.interface.stage(id, &packet);
    const length = net.a.interface.pollTransmit(&buffer, net.now).?.length;
    for (0..length - 16) |i| { // all but MAC2, which counts only under load
        buffer[i] ^= 0x10;
        defer buffer[i] ^= 0x10;
        const refused = net.b.interface.handleHandshake(buffer[0..length], &net.a.endpoint, .never, net.now);
        try testing.expect(refused != null);
    }
    try testing.expectEqual(null, net.b.interface.handleHandshake(buffer[0..length], &net.a.endpoint, .never, net.now));
}

test "handshakes carry AF41, and a packet that waited for one keeps its ECN bits" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var buffer: [2048]u8 = undefined;
    var packet: [100]u8 = undefined;
    const id = net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer;
    packet[1] = 0x2b;
    _ = net.a.interface.stage(id, &packet);
    const initiation = net.a.interface.pollTransmit(&buffer, net.now).?;
    try testing.expectEqual(0x88, initiation.tos);
    net.arrive(&net.b, buffer[0..initiation.length], &net.a.endpoint);
    const response = net.b.interface.pollTransmit(&buffer, net.now).?;
    try testing.expectEqual(0x88, response.tos);
    net.arrive(&net.a, buffer[0..response.length], &net.b.endpoint);
    try testing.expectEqual(0x03, net.a.interface.pollTransmit(&buffer, net.now).?.tos);
}

test "both ends may begin at once and still end with a working tunnel" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var packet: [100]u8 = undefined;
    _ = net.a.interface.stage(net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer, &packet);
    _ = net.b.interface.stage(net.b.interface.route(innerPacket(&packet, 2, 1, 100)).peer, &packet);
    var from_a: [2048]u8 = undefined;
    var from_b: [2048]u8 = undefined;
    const a_length = net.a.interface.pollTransmit(&from_a, net.now).?.length;
    const b_length = net.b.interface.pollTransmit(&from_b, net.now).?.length;
    net.arrive(&net.b, from_a[0..a_length], &net.a.endpoint);
    net.arrive(&net.a, from_b[0..b_length], &net.b.endpoint);
    try net.settle();
    try net.pass(20 * second);
    try testing.expectEqual(1, net.a.delivered_count);
    try testing.expectEqual(1, net.b.delivered_count);
    try net.send(&net.a, 70);
    try net.send(&net.b, 71);
    try testing.expectEqual(70, net.b.delivered_length);
    try testing.expectEqual(71, net.a.delivered_length);
}

test "after a suspend of any length traffic flows again at once" {
    for ([_]u64{ 1, 100, 179, 181, 600, 86_400 * 30 }) |seconds| {
        var net: Net = undefined;
        try net.init("", "");
        defer net.deinit();
        try net.send(&net.a, 100);
        net.jumpTo(net.now.boot.after(seconds * second));
        try net.send(&net.a, 77);
        try net.pass(6 * second);
        try testing.expectEqual(77, net.b.delivered_length);
    }
}

test "a wall clock set back does not silence us" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    net.now.unix_ns -= 365 * 86_400 * second;
    try net.pass(200 * second);
    try net.send(&net.a, 90);
    try testing.expectEqual(90, net.b.delivered_length);
    try testing.expectEqual(2, net.a.initiations_sent);
}

test "applying the same configuration again sends nothing and keeps the session" {
    var net: Net = undefined;
    try net.init("persistent_keepalive_interval=25\n", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const before = net.datagrams;
    const current = net.a.interface.peers.at(0).sessions.current;
    try net.configure(
        &net.a,
        &net.b,
        "persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.2/32\n",
    );
    try net.settle();
    try testing.expectEqual(before, net.datagrams);
    try testing.expectEqual(current, net.a.interface.peers.at(0).sessions.current);
    try testing.expectEqual(1, net.a.interface.peer_count);
}

test "a new private key needs a new handshake and removes the peer that equals us" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    var text: [400]u8 = undefined;
    try set(&net.a, try std.mem.print(&text, "private_key={x}\n", .{&privateKey(3)}));
    try set(&net.b, try std.mem.print(&text, "public_key={x}\nendpoint=192.0.2.1:51820\nallowed_ip=10.0.0.1/32\n", .{
        &crypto.publicKey(&privateKey(3)),
    }));
    try net.pass(1 * second);
    try net.send(&net.a, 66);
    try testing.expectEqual(66, net.b.delivered_length);
    try testing.expectEqual(2, net.a.initiations_sent);
    try set(&net.a, try std.mem.print(&text, "private_key={x}\n", .{&privateKey(2)}));
    try testing.expectEqual(0, net.a.interface.peer_count);
    try set(&net.a, try std.mem.print(&text, "public_key={x}\n", .{&crypto.publicKey(&privateKey(2))}));
    try testing.expectEqual(0, net.a.interface.peer_count);
}

test "a removed peer leaves nothing behind and its old tickets are refused" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const id = net.a.interface.idOf(0);
    var text: [200]u8 = undefined;
    try set(&net.a, try std.mem.print(&text, "public_key={x}\nremove=true\n", .{&crypto.publicKey(&privateKey(2))}));
    try testing.expectEqual(0, net.a.interface.by_index.count);
    try testing.expectEqual(0, net.a.interface.allowed_ips.nodeCount());
    try testing.expectEqual(null, net.a.interface.deadline());
    try testing.expectEqual(.peer_removed, net.a.interface.reserve(id, 1, 144, net.now).drop);
    try net.configure(&net.a, &net.b, "");
    try testing.expectEqual(.peer_removed, net.a.interface.reserve(id, 1, 144, net.now).drop);
    try net.pass(1 * second);
    try net.send(&net.a, 100);
    try testing.expectEqual(2, net.b.delivered_count);
}

test "link down forgets sessions, link up begins anew" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    net.a.interface.setActive(false);
    try testing.expectEqual(null, net.a.interface.peers.at(0).sessions.current);
    try testing.expectEqual(null, net.a.interface.deadline());
    net.a.interface.setActive(true);
    try net.pass(1 * second);
    try net.send(&net.a, 50);
    try testing.expectEqual(50, net.b.delivered_length);
}

test "peers for whom memory ends leave nothing of their room behind" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const peers = try testing.allocator.alloc(change_file.PeerChange, 1000);
    defer testing.allocator.free(peers);
    for (peers, 0..) |*peer, i| {
        peer.* = .{ .public_key = @splat(0) };
        std.mem.writeInt(u32, peer.public_key[0..4], @intCast(i + 1), .little);
    }
    const interface = &net.a.interface;
    const gpa = interface.gpa;
    const before = .{ interface.peers.capacity(), interface.sessions.sessions.capacity() };
    defer interface.gpa = gpa;
    var refused: usize = 0;
    while (true) : (refused += 1) {
        var failing: testing.FailingAllocator = .init(gpa, .{ .fail_index = refused, .resize_fail_index = 0 });
        interface.gpa = failing.allocator();
        interface.configure(&.{ .peers = peers }) catch {
            try testing.expectEqual(before, .{ interface.peers.capacity(), interface.sessions.sessions.capacity() });
            continue;
        };
        break;
    }
    try testing.expect(refused > 32); // 16 segments of each kind, and what is smaller
    try net.send(&net.a, 100);
    try testing.expectEqual(100, net.b.delivered_length);
}

test "the data plane allocates nothing" {
    var net: Net = undefined;
    try net.init("persistent_keepalive_interval=7\n", "");
    defer net.deinit();
    const gpa = net.a.interface.gpa;
    net.a.interface.gpa = testing.failing_allocator;
    net.b.interface.gpa = testing.failing_allocator;
    defer {
        net.a.interface.gpa = gpa;
        net.b.interface.gpa = gpa;
    }
    for (0..100) |i| {
        try net.send(if (i % 2 == 0) &net.a else &net.b, 100 + i);
        try net.pass(11 * second);
    }
    try testing.expect(net.b.delivered_count == 50 and net.a.delivered_count == 50);
}

test "packets out of order are taken once each, deep into the window" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    var packet: [100]u8 = undefined;
    _ = innerPacket(&packet, 1, 2, 100);
    var datagrams: [300][148]u8 = undefined;
    for (&datagrams) |*datagram| {
        const ticket = net.a.interface.reserve(net.a.interface.idOf(0), 1, 144, net.now).seal;
        try testing.expectEqual(144, seal(datagram, ticket, &packet));
    }
    net.prng.random().shuffle([148]u8, &datagrams);
    for (0..2) |_| {
        for (&datagrams) |*datagram| net.arrive(&net.b, datagram[0..144], &net.a.endpoint);
    }
    try testing.expectEqual(301, net.b.delivered_count);
    try testing.expectEqual(300, net.b.dropped(.replayed));
}

/// Randomness that can be missing, and says how often it was asked.
const Source = struct {
    prng: std.Random.DefaultPrng = .init(9),
    is_missing: bool = false,
    repeats_itself: bool = false,
    asked: usize = 0,

    fn fill(context: ?*anyopaque, out: []u8) bool {
        const source: *Source = @ptrCast(@alignCast(context.?));
        source.asked += 1;
        if (source.repeats_itself) source.prng = .init(9);
        source.prng.random().bytes(out);
        return !source.is_missing;
    }

    fn entropy(source: *Source) interface_file.Entropy {
        return .{ .context = source, .fillFn = fill };
    }
};

const no_key = "private_key=0000000000000000000000000000000000000000000000000000000000000000\n";

test "a packet for which staging has no room is lost, as its caller is told, but its peer still shakes hands" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const pool = &net.a.interface.staging_pool;
    const links = pool.links;
    pool.links = links[0..0];
    var packet: [100]u8 = undefined;
    const id = net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer;
    try testing.expect(!net.a.interface.stage(id, &packet));
    pool.links = links;
    try testing.expectEqual(1, net.a.dropped(.staging_full));
    try net.settle();
    try testing.expectEqual(1, net.a.initiations_sent);
    try net.send(&net.a, 100);
    try testing.expectEqual(1, net.b.delivered_count);
}

/// `count` silent peers beside the other end, each with an endpoint and a prefix of its own in 10.1.0.0/16.
fn addSilentPeers(net: *Net, count: u32) !void {
    const interface = &net.a.interface;
    try configurePeers(interface, 0x10000, count, false);
    for (0..count) |number| {
        const index = interface.by_key.find(&numberedKey(0x10000 + @as(u32, @intCast(number)))).?;
        interface.peers.at(index).endpoint = endpointOf(9, 9);
    }
}

fn packetForSilent(buffer: []u8, number: u32) []u8 {
    const packet = innerPacket(buffer, 1, 2, 60);
    packet[16..20].* = std.mem.toBytes(std.mem.nativeToBig(u32, 0x0a01_0000 + number));
    return packet;
}

/// Notes that each of the silent peers is to be shaken hands with.
fn stageForSilent(net: *Net, count: u32) !void {
    var buffer: [100]u8 = undefined;
    for (0..count) |number| {
        const packet = packetForSilent(&buffer, @intCast(number));
        try testing.expect(net.a.interface.stage(net.a.interface.route(packet).peer, packet));
    }
}

test "1024 silent peers with a packet each cost a peer that is there none of its first packets" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try addSilentPeers(&net, 1100);
    try stageForSilent(&net, 1100);
    var packet: [100]u8 = undefined;
    const id = net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer;
    for (0..16) |_| try testing.expect(net.a.interface.stage(id, innerPacket(&packet, 1, 2, 100)));
    try expectSound(&net.a.interface);
    try net.settle();
    try testing.expectEqual(16, net.b.delivered_count);
}

test "what goes to a peer that is there waits behind no initiation to one that is silent" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try addSilentPeers(&net, 200);
    try stageForSilent(&net, 200);
    // Afterwards a keepalive becomes due, a packet waits, and an initiation comes that is to be answered.
    const a = &net.a.interface;
    var packet: [100]u8 = undefined;
    var buffer: [2048]u8 = undefined;
    handshakes.requestKeepalive(a, 0);
    try testing.expect(a.stage(a.idOf(0), innerPacket(&packet, 1, 2, 100)));
    net.jumpTo(net.now.boot.after(6 * second));
    handshakes.requestInitiation(&net.b.interface, 0, net.now, .first);
    const initiation = net.b.interface.pollTransmit(&buffer, net.now).?;
    try testing.expectEqual(null, a.handleHandshake(buffer[0..initiation.length], &net.b.endpoint, .never, net.now));
    var budget: handshakes.Budget = .{ .looks = 2, .responses = 1 };
    for ([_]messages.Kind{ .transport, .response }) |kind| {
        const transmit = a.pollUrgent(&buffer, &budget, net.now).?;
        try testing.expectEqual(kind, messages.classify(buffer[0..transmit.length]).?);
    }
    try testing.expectEqual(null, a.pollUrgent(&buffer, &budget, net.now));
    try testing.expect(a.wantsInitiation());
    try expectSound(a);
}

test "a handshake that a packet waits for, or that renews a session, comes before those that nobody waits for" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const a = &net.a.interface;
    try addSilentPeers(&net, 50);
    var packet: [100]u8 = undefined;
    for (0..2) |round| {
        for (1..51) |index| handshakes.requestKeepalive(a, @intCast(index));
        if (round == 0) {
            _ = a.stage(a.idOf(0), innerPacket(&packet, 1, 2, 100));
        } else {
            handshakes.requestInitiation(a, 0, net.now, .first); // what renews it
        }
        var looks: u32 = 1;
        var draft: handshakes.Draft = undefined;
        try testing.expect(a.beginInitiation(&draft, &looks, net.now));
        try testing.expectEqual(0, draft.peer.index);
        draft.compute(&a.local.?);
        var buffer: [2048]u8 = undefined;
        const transmit = a.finishInitiation(&draft, &buffer, net.now).?;
        try net.cross(&net.a, buffer[0..transmit.length]);
        try net.settle();
        net.jumpTo(net.now.boot.after(130 * second));
    }
    try testing.expectEqual(1, net.b.delivered_count);
}

test "handshakes with silent peers are begun as many at a time as was asked for, and none is forgotten" {
    const peer_count = 100;
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try addSilentPeers(&net, peer_count);
    try stageForSilent(&net, peer_count);
    const a = &net.a.interface;
    // Nothing was computed so far: not even what both keys agree on.
    for (0..a.peer_high) |i| try testing.expectEqual(.unknown, a.peers.at(i).remote.agreement);
    var buffer: [2048]u8 = undefined;
    var budget: handshakes.Budget = .unlimited;
    try testing.expectEqual(null, a.pollUrgent(&buffer, &budget, net.now));
    var begun: usize = 0;
    while (a.wantsInitiation()) {
        var looks: u32 = 3;
        var draft: handshakes.Draft = undefined;
        while (a.beginInitiation(&draft, &looks, net.now)) {
            draft.compute(&a.local.?);
            const transmit = a.finishInitiation(&draft, &buffer, net.now);
            begun += @intFromBool(transmit != null);
            try testing.expect(std.mem.allEqual(u8, std.mem.asBytes(&draft), 0));
        }
        try testing.expectEqual(0, looks * @intFromBool(a.wantsInitiation()));
        try expectSound(a);
    }
    try testing.expectEqual(peer_count, begun);
    for (1..a.peer_high) |i| try testing.expectEqual(1, a.peers.at(i).staged.packets);
}

test "an initiation is not sent when a session came about while it was computed, or its peer went" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const a = &net.a.interface;
    var buffer: [2048]u8 = undefined;
    for (0..2) |round| {
        handshakes.requestInitiation(a, 0, net.now, .first);
        var draft: handshakes.Draft = undefined;
        var looks: u32 = 1;
        try testing.expect(a.beginInitiation(&draft, &looks, net.now));
        draft.compute(&a.local.?);
        if (round == 0) {
            try net.send(&net.b, 100);
        } else {
            var text: [200]u8 = undefined;
            const public = crypto.publicKey(&privateKey(2));
            try set(&net.a, try std.mem.print(&text, "public_key={x}\nremove=true\n", .{&public}));
        }
        try testing.expectEqual(null, a.finishInitiation(&draft, &buffer, net.now));
        try expectSound(a);
        try net.pass(10 * second);
    }
    try testing.expectEqual(1, net.a.delivered_count);
}

test "timers that are due together are let off in slices, and the rest stays due" {
    const peer_count = 50;
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try addSilentPeers(&net, peer_count);
    const a = &net.a.interface;
    for (1..peer_count + 1) |i| {
        a.peers.at(i).timers.arm(.retransmit_handshake, net.now.boot, 0);
        a.reschedule(@intCast(i));
    }
    var slices: usize = 0;
    while (a.deadline() != null and !net.now.boot.isBefore(a.deadline().?)) : (slices += 1) {
        a.expireSome(8, net.now);
        try expectSound(a);
    }
    try testing.expectEqual(7, slices);
    var begun: usize = 0;
    var buffer: [2048]u8 = undefined;
    while (a.pollTransmit(&buffer, net.now)) |_| begun += 1;
    try testing.expectEqual(peer_count, begun);
}

test "between the steps of a change packets pass, and what memory ends in is no change" {
    const gpa = testing.allocator;
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const a = &net.a.interface;
    var change: change_file.Change = try .init(gpa, 300, 0);
    defer change.deinit(gpa);
    for (change.peers, 0..) |*peer, number| peer.* = .{ .public_key = numberedKey(@intCast(number)) };
    change.fwmark = 7;
    var failing: testing.FailingAllocator = .init(gpa, .{ .fail_index = 0 });
    var allocations: usize = 0;
    while (true) : (allocations += 1) {
        failing = .init(gpa, .{ .fail_index = allocations });
        a.gpa = failing.allocator();
        defer a.gpa = gpa;
        var steps: Interface.ConfigureSteps = .begin(a, &change);
        const outcome = while (true) {
            const has_more = steps.next() catch |err| break err;
            const before = net.b.delivered_count;
            try net.send(&net.a, 100);
            try testing.expectEqual(before + 1, net.b.delivered_count);
            try expectSound(a);
            if (!has_more) break;
        };
        outcome catch |err| {
            try testing.expectEqual(error.OutOfMemory, err);
            try testing.expectEqual(1, a.peer_count);
            try testing.expectEqual(0, a.fwmark);
            continue;
        };
        break;
    }
    try testing.expect(allocations > 5);
    try testing.expectEqual(301, a.peer_count);
}

test "peers are told in the order in which they came, also after the same text again" {
    const gpa = testing.allocator;
    var source: Source = .{};
    var interface: Interface = try .init(.{ .allocator = gpa, .entropy = source.entropy() });
    defer interface.deinit();
    var first: [4096]u8 = undefined;
    var again: [4096]u8 = undefined;
    try configurePeers(&interface, 0, 9, true);
    var writer: std.Io.Writer = .fixed(&first);
    try interface.writeConfiguration(&writer);
    for (0..3) |_| {
        try configurePeers(&interface, 0, 9, true);
        var second_writer: std.Io.Writer = .fixed(&again);
        try interface.writeConfiguration(&second_writer);
        try testing.expectEqualStrings(writer.buffered(), second_writer.buffered());
        try expectSound(&interface);
    }
    // One that goes and comes again is the last.
    var change: change_file.Change = try .init(gpa, 2, 0);
    defer change.deinit(gpa);
    change.peers[0] = .{ .public_key = numberedKey(0), .remove = true };
    change.peers[1] = .{ .public_key = numberedKey(0) };
    try interface.configure(&change);
    try testing.expectEqual(numberedKey(1), interface.peers.at(interface.first_peer).remote.static);
    try testing.expectEqual(numberedKey(0), interface.peers.at(interface.last_peer).remote.static);
    try expectSound(&interface);
}

test "allowed IPs before replace_allowed_ips leave their owners and go, those after it stay" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const a = &net.a.interface;
    var text: [600]u8 = undefined;
    const public = crypto.publicKey(&privateKey(2));
    try set(&net.a, try std.mem.print(
        &text,
        "public_key={x}\nallowed_ip=10.1.0.0/16\nallowed_ip=10.2.0.0/16\npublic_key={x}\nallowed_ip=10.1.0.0/16\n" ++
            "replace_allowed_ips=true\nallowed_ip=10.3.0.0/16\n",
        .{ &numberedKey(1), &public },
    ));
    const address = [_][4]u8{ .{ 10, 0, 0, 2 }, .{ 10, 1, 0, 1 }, .{ 10, 2, 0, 1 }, .{ 10, 3, 0, 1 } };
    const owner = [_]?u32{ null, null, 1, 0 };
    for (address, owner) |octets, expected| {
        try testing.expectEqual(expected, a.allowed_ips.lookup(&wire.Address.fromIpv4(octets)));
    }
}

test "only inner packets that are accepted count as received, and keepalives" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const peer = net.b.interface.peers.at(0);
    const before = peer.rx_bytes;
    var packet: [100]u8 = undefined;
    _ = innerPacket(&packet, 77, 2, 100); // not a source of this peer
    try net.sendPacket(&net.a, &packet);
    _ = innerPacket(&packet, 1, 2, 100);
    packet[2..4].* = .{ 0xff, 0xff }; // longer than it is
    try net.sendPacket(&net.a, &packet);
    try testing.expectEqual(2, net.b.dropped(.disallowed_source) + net.b.dropped(.malformed_inner));
    try testing.expectEqual(before, peer.rx_bytes);
    try net.send(&net.a, 100);
    try testing.expectEqual(before + sealedLength(100), peer.rx_bytes);
    handshakes.requestKeepalive(&net.a.interface, 0);
    try net.settle();
    try testing.expectEqual(before + sealedLength(100) + messages.transport_overhead, peer.rx_bytes);
}

test "what was staged without a private key goes out when there is one, as does the persistent keepalive" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try set(&net.a, no_key);
    try net.send(&net.a, 100);
    try testing.expectEqual(0, net.a.initiations_sent);
    var text: [400]u8 = undefined;
    const with_key = try std.mem.print(&text, "private_key={x}\n", .{&privateKey(1)});
    try set(&net.a, with_key);
    try net.settle();
    try testing.expectEqual(1, net.b.delivered_count);

    var other: Net = undefined;
    try other.init("persistent_keepalive_interval=25\n", "");
    defer other.deinit();
    try set(&other.a, no_key);
    try other.settle();
    try testing.expectEqual(0, other.datagrams);
    try set(&other.a, with_key);
    try other.settle();
    try testing.expectEqual(1, other.b.keepalives_received);
}

test "packets staged without a private key are given up like those of a silent peer" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const free_count = net.a.interface.staging_pool.free_count;
    try set(&net.a, no_key);
    try net.send(&net.a, 100);
    try net.pass(200 * second);
    try testing.expectEqual(1, net.a.dropped(.handshake_gave_up));
    try testing.expectEqual(free_count, net.a.interface.staging_pool.free_count);
}

test "the persistent keepalive begins when its peer gets an endpoint" {
    var net: Net = undefined;
    net = .{ .prng = .init(1) };
    try net.open(&net.a, 1);
    try net.open(&net.b, 2);
    defer net.deinit();
    var text: [600]u8 = undefined;
    const public = crypto.publicKey(&privateKey(2));
    try set(&net.a, try std.mem.print(&text, "private_key={x}\npublic_key={x}\npersistent_keepalive_interval=25\n", .{
        &privateKey(1),
        &public,
    }));
    try net.configure(&net.b, &net.a, "");
    net.a.interface.setActive(true);
    net.b.interface.setActive(true);
    try net.pass(60 * second);
    try testing.expectEqual(0, net.datagrams);
    try set(&net.a, try std.mem.print(&text, "public_key={x}\nendpoint=192.0.2.2:51820\n", .{&public}));
    try net.settle();
    try testing.expectEqual(1, net.b.keepalives_received);
}

test "randomness that is missing for a while ends neither retransmission nor the persistent keepalive" {
    for ([_]u64{ 20, 300 }) |seconds| {
        var net: Net = undefined;
        try net.init("persistent_keepalive_interval=25\n", "");
        defer net.deinit();
        var source: Source = .{ .is_missing = true };
        net.a.interface.entropy = source.entropy();
        try net.send(&net.a, 100);
        try net.pass(seconds * second);
        try testing.expectEqual(0, net.datagrams);
        source.is_missing = false;
        try net.pass(26 * second);
        try testing.expect(net.b.keepalives_received + net.b.delivered_count > 0);
    }
}

test "randomness that repeats itself sends nothing rather than look for ever for an index that is free" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var source: Source = .{ .repeats_itself = true };
    net.a.interface.entropy = source.entropy();
    try net.send(&net.a, 100);
    try testing.expectEqual(1, net.b.delivered_count);
    try net.pass(constants.REKEY_AFTER_TIME + second);
    try net.send(&net.a, 100); // the session lives, and has the only index there is
    try testing.expectEqual(2, net.b.delivered_count);
    try testing.expectEqual(1, net.a.initiations_sent);
}

test "an initiation that could not be answered is forgotten in time" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var source: Source = .{ .is_missing = true };
    net.b.interface.entropy = source.entropy();
    try net.send(&net.a, 100);
    net.is_cut = true;
    const peer = net.b.interface.peers.at(0);
    const zero: [32]u8 = @splat(0);
    try testing.expect(!std.mem.eql(u8, &peer.answer.chaining_key, &zero));
    try net.pass(constants.REJECT_AFTER_TIME * 3 + second);
    try testing.expect(std.mem.eql(u8, &peer.answer.chaining_key, &zero));
}

test "a response that was lost does not leave our own packets waiting for ever" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var packet: [100]u8 = undefined;
    _ = net.a.interface.stage(net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer, &packet);
    _ = try net.pump(&net.a); // b has the initiation
    net.is_cut = true;
    try net.settle(); // and its response is lost
    try net.send(&net.b, 90);
    try testing.expectEqual(0, net.b.initiations_sent); // too soon
    net.a.interface.setActive(false); // a will not try again
    net.a.interface.setActive(true);
    net.is_cut = false;
    try net.pass(6 * second);
    try testing.expectEqual(90, net.a.delivered_length);
}

test "no initiation follows on the heels of a response" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var packet: [100]u8 = undefined;
    _ = net.a.interface.stage(net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer, &packet);
    _ = try net.pump(&net.a);
    // b has not answered yet when it wants a handshake itself.
    handshakes.requestInitiation(&net.b.interface, 0, net.now, .first);
    try net.settle();
    try testing.expectEqual(0, net.b.initiations_sent);
    try testing.expectEqual(1, net.b.delivered_count);
    try net.pass(7 * second);
    try testing.expectEqual(0, net.b.initiations_sent); // nor later: the handshake was completed
}

test "the end of time fires nothing for ever" {
    var net: Net = undefined;
    try net.init("persistent_keepalive_interval=25\n", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    net.now.boot = .never;
    net.a.interface.expire(net.now);
    try net.settle();
    try net.send(&net.a, 100);
    net.a.interface.expire(net.now);
}

test "forged handshakes under load cost no randomness" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var source: Source = .{};
    net.b.interface.entropy = source.entropy();
    var forged: [148]u8 = @splat(7);
    forged[0..4].* = .{ 1, 0, 0, 0 };
    const refused = net.b.interface.handleHandshake(&forged, &net.a.endpoint, .always, net.now);
    try testing.expectEqual(.invalid_mac1, refused.?);
    try testing.expectEqual(0, source.asked);
}

test "a cookie reply moves no endpoint" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var buffer: [2048]u8 = undefined;
    var packet: [100]u8 = undefined;
    _ = net.a.interface.stage(net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer, &packet);
    const first = net.a.interface.pollTransmit(&buffer, net.now).?;
    _ = net.b.interface.handleHandshake(buffer[0..first.length], &net.a.endpoint, .always, net.now);
    const reply = net.b.interface.pollTransmit(&buffer, net.now).?;
    const peer = net.a.interface.peers.at(0);
    var expected = peer.timers;
    try testing.expectEqual(
        null,
        net.a.interface.handleHandshake(buffer[0..reply.length], &endpointOf(66, 66), .never, net.now),
    );
    try testing.expect(peer.endpoint.?.eql(net.b.endpoint));
    try testing.expectEqual(0, peer.rx_bytes);
    // It only brings the next initiation forward.
    const retransmission = @backingInt(timers.Kind.retransmit_handshake);
    try testing.expect(peer.timers.deadlines[retransmission].isBefore(expected.deadlines[retransmission]));
    expected.deadlines[retransmission] = peer.timers.deadlines[retransmission];
    expected.cookie_retry = .due;
    try testing.expectEqual(expected, peer.timers);
}

// ---- under load ----

const Forgery = struct {
    prng: std.Random.DefaultPrng = .init(7),
    bytes: [@sizeOf(messages.Initiation)]u8 = undefined,
    from: wire.Endpoint = undefined,

    /// An initiation that anyone can send who knows the public key, each from another IPv4 address or IPv6 /64.
    fn initiation(forgery: *Forgery, to: *const Interface) []const u8 {
        const r = forgery.prng.random();
        const address: wire.Address = if (r.boolean()) .fromIpv4(.{ 203, r.int(u8), r.int(u8), r.int(u8) }) else blk: {
            var bytes: [16]u8 = @splat(0);
            r.bytes(bytes[0..8]);
            break :blk .fromIpv6(bytes);
        };
        forgery.from = .{ .remote = .{ .address = address, .port = r.int(u16) } };
        r.bytes(&forgery.bytes);
        forgery.bytes[0..4].* = .{ 1, 0, 0, 0 };
        forgery.bytes[116..132].* = crypto.mac(&to.checker.mac1_key, forgery.bytes[0..116]);
        forgery.bytes[132..148].* = @splat(0);
        return &forgery.bytes;
    }

    /// The same from one who has received the cookie for this source.
    fn withCookie(forgery: *Forgery, to: *const Interface) []const u8 {
        const cookie = to.checker.makeCookie(&forgery.from.remote);
        forgery.bytes[132..148].* = crypto.mac(&cookie, forgery.bytes[0..132]);
        return &forgery.bytes;
    }

    /// What anyone can send who knows nothing.
    fn junk(forgery: *Forgery, kind: messages.Kind) []const u8 {
        forgery.prng.random().bytes(&forgery.bytes);
        forgery.bytes[0..4].* = .{ @backingInt(kind), 0, 0, 0 };
        return switch (kind) {
            .initiation => &forgery.bytes,
            .response => forgery.bytes[0..@sizeOf(messages.Response)],
            .cookie_reply => forgery.bytes[0..@sizeOf(messages.CookieReply)],
            .transport => unreachable,
        };
    }
};

/// Until initiations without a cookie are not looked into any more.
fn putUnderLoad(net: *Net, end: *End) void {
    var forgery: Forgery = .{};
    while (end.interface.load.allows(.unproven, net.now.boot)) {
        const message = forgery.initiation(&end.interface);
        _ = end.interface.handleHandshake(message, &forgery.from, .under_load, net.now);
    }
}

/// The next initiation of a to b, for a packet that waits.
fn initiate(net: *Net, buffer: *[2048]u8) ![]const u8 {
    var packet: [100]u8 = undefined;
    _ = net.a.interface.stage(net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer, &packet);
    const transmit = net.a.interface.pollTransmit(buffer, net.now).?;
    try testing.expectEqual(.initiation, messages.classify(buffer[0..transmit.length]).?);
    var rest: [2048]u8 = undefined;
    try testing.expectEqual(null, net.a.interface.pollTransmit(&rest, net.now));
    return buffer[0..transmit.length];
}

test "what has no right MAC1, and every cookie reply, is no load, and costs no randomness" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var source: Source = .{};
    net.b.interface.entropy = source.entropy();
    var forgery: Forgery = .{};
    const from = endpointOf(66, 66);
    for ([_]messages.Kind{ .initiation, .response, .cookie_reply }) |kind| for (0..3000) |_| {
        try testing.expect(net.b.interface.handleHandshake(forgery.junk(kind), &from, .under_load, net.now) != null);
    };
    // A right MAC1 makes no load of a response to nothing of ours.
    for (0..3000) |_| {
        const bytes = @constCast(forgery.junk(.response));
        bytes[60..76].* = crypto.mac(&net.b.interface.checker.mac1_key, bytes[0..60]);
        try testing.expectEqual(
            .unknown_index,
            net.b.interface.handleHandshake(bytes, &from, .under_load, net.now).?,
        );
    }
    try testing.expectEqual(6000, net.b.dropped(.invalid_mac1));
    try testing.expectEqual(0, source.asked);
    net.b.interface.entropy = .{ .context = &net.prng, .fillFn = fillFromPrng };
    var buffer: [2048]u8 = undefined;
    const message = try initiate(&net, &buffer);
    const refused = net.b.interface.handleHandshake(message, &net.a.endpoint, .under_load, net.now);
    try testing.expectEqual(null, refused);
    try testing.expectEqual(0, net.b.dropped(.cookie_required));
}

test "handshakes of all sources together take a bounded share of the time, with cookies or without" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const interface = &net.b.interface;
    const curve_ns = std.time.ns_per_ms;
    interface.load = .init(curve_ns);
    const seconds = 4;
    for ([_]struct { has_cookie: bool, one_in: u64 }{
        .{ .has_cookie = false, .one_in = 40 },
        .{ .has_cookie = true, .one_in = 4 },
    }) |row| {
        putUnderLoad(&net, &net.b);
        var forgery: Forgery = .{};
        const before = net.b.dropped(.invalid_handshake);
        const last = net.now.boot.after(seconds * second);
        while (net.now.boot.isBefore(last)) {
            net.jumpTo(net.now.boot.after(std.time.ns_per_ms));
            for (0..3) |_| {
                var message = forgery.initiation(interface);
                if (row.has_cookie) message = forgery.withCookie(interface);
                _ = interface.handleHandshake(message, &forgery.from, .under_load, net.now);
            }
        }
        const spent = (net.b.dropped(.invalid_handshake) - before) * curve_ns;
        const both: u64 = if (row.has_cookie) seconds * second / 40 + 10 * std.time.ns_per_ms else 0;
        const promised = seconds * second / row.one_in + 10 * std.time.ns_per_ms + both;
        try testing.expect(spent <= promised + 2 * curve_ns);
        // And no less: what is allowed is used.
        try testing.expect(spent >= seconds * second / row.one_in - 2 * curve_ns);
    }
    try testing.expect(net.b.dropped(.cookie_required) > 0 and net.b.dropped(.overloaded) > 0);
}

test "an answer is charged to who asked for it" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    net.b.interface.load = .init(std.time.ns_per_ms);
    var buffer: [2048]u8 = undefined;
    const message = try initiate(&net, &buffer);
    const refused = net.b.interface.handleHandshake(message, &net.a.endpoint, .under_load, net.now);
    try testing.expectEqual(null, refused);
    const spent = net.b.interface.load.unproven.earned.since(net.now.boot);
    try testing.expectEqual(4 * std.time.ns_per_ms * 40, spent);
}

test "who is asked for a cookie shows it soon, while others flood, and is let in" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    putUnderLoad(&net, &net.b);
    var buffer: [2048]u8 = undefined;
    const message = try initiate(&net, &buffer);
    try testing.expectEqual(
        .cookie_required,
        net.b.interface.handleHandshake(message, &net.a.endpoint, .under_load, net.now).?,
    );
    const began = net.now.boot;
    // The reply is the last of those that wait.
    while (net.b.interface.pollTransmit(&buffer, net.now)) |reply| {
        if (reply.endpoint.eql(net.a.endpoint)) net.arrive(&net.a, buffer[0..reply.length], &net.b.endpoint);
    }
    net.jumpTo(net.a.interface.deadline().?);
    net.a.interface.expire(net.now);
    putUnderLoad(&net, &net.b);
    const again = net.a.interface.pollTransmit(&buffer, net.now).?;
    try testing.expectEqual(@sizeOf(messages.Initiation), again.length);
    const waited = net.now.boot.since(began);
    try testing.expect(waited >= constants.COOKIE_RETRY_DELAY);
    try testing.expect(waited <= constants.COOKIE_RETRY_DELAY + constants.REKEY_TIMEOUT_JITTER_MAX);
    const refused = net.b.interface.handleHandshake(buffer[0..again.length], &net.a.endpoint, .under_load, net.now);
    try testing.expectEqual(null, refused);
    try net.settle();
    try testing.expectEqual(1, net.b.delivered_count);
    try testing.expectEqual(0, net.a.interface.peers.at(0).timers.handshake_attempts);
}

test "cookie replies, however many, make an initiator send twice as often at most, and give up no sooner" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var buffer: [2048]u8 = undefined;
    var initiations: usize = 0;
    var message = try initiate(&net, &buffer);
    const began = net.now.boot;
    var reply: [2048]u8 = undefined;
    while (true) {
        initiations += 1;
        // b demands a cookie whatever is shown to it.
        net.b.interface.checker.secret_birth = null;
        _ = net.b.interface.handleHandshake(message, &net.a.endpoint, .always, net.now);
        const length = net.b.interface.pollTransmit(&reply, net.now).?.length;
        net.arrive(&net.a, reply[0..length], &net.b.endpoint);
        const next = while (net.a.interface.deadline()) |deadline| {
            net.jumpTo(deadline);
            net.a.interface.expire(net.now);
            if (net.a.interface.pollTransmit(&buffer, net.now)) |transmit| {
                try testing.expectEqual(null, net.a.interface.pollTransmit(&reply, net.now));
                break transmit;
            }
            if (net.a.dropped(.handshake_gave_up) > 0) break null;
        } else null;
        message = buffer[0..(next orelse break).length];
    }
    try testing.expectEqual(2 * (2 + constants.MAX_TIMER_HANDSHAKES), initiations);
    try testing.expect(net.now.boot.since(began) >= constants.REKEY_ATTEMPT_TIME);
}

test "a response that comes after all makes showing the cookie needless" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var buffer: [2048]u8 = undefined;
    const message = try initiate(&net, &buffer);
    var copy: [148]u8 = message[0..148].*;
    // Somebody on the path answers at once with a cookie reply; the peer is not under load.
    _ = net.b.interface.handleHandshake(&copy, &net.a.endpoint, .always, net.now);
    const reply = net.b.interface.pollTransmit(&buffer, net.now).?;
    net.arrive(&net.a, buffer[0..reply.length], &net.b.endpoint);
    try testing.expectEqual(.due, net.a.interface.peers.at(0).timers.cookie_retry);
    net.arrive(&net.b, &copy, &net.a.endpoint);
    net.jumpTo(net.now.boot.after(constants.COOKIE_RETRY_DELAY / 2));
    try net.settle();
    try testing.expectEqual(1, net.b.delivered_count);
    try net.pass(5 * second);
    try testing.expectEqual(0, net.a.initiations_sent);
}

test "the first response to an initiation of ours needs no cookie under load, a further one does" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    for ([_]bool{ false, true }) |is_beaten| {
        var buffer: [2048]u8 = undefined;
        putUnderLoad(&net, &net.a);
        const message = try initiate(&net, &buffer);
        net.arrive(&net.b, message, &net.a.endpoint);
        while (net.a.interface.pollCookieReply(&buffer) != null) {}
        const length = net.b.interface.pollTransmit(&buffer, net.now).?.length;
        try testing.expectEqual(@sizeOf(messages.Response), length);
        if (is_beaten) {
            var forged = buffer[0..@sizeOf(messages.Response)].*;
            forged[20] ^= 1;
            forged[60..76].* = crypto.mac(&net.a.interface.checker.mac1_key, forged[0..60]);
            try testing.expectEqual(
                .invalid_handshake,
                net.a.interface.handleHandshake(&forged, &net.b.endpoint, .under_load, net.now).?,
            );
        }
        const refused = net.a.interface.handleHandshake(buffer[0..length], &net.b.endpoint, .under_load, net.now);
        const expected: ?Drop = if (is_beaten) .cookie_required else null;
        try testing.expectEqual(expected, refused);
        net.jumpTo(net.now.boot.after(constants.REJECT_AFTER_TIME));
        net.a.interface.expire(net.now);
    }
}

test "cookie replies have a rate of their own, and beyond it a flood costs no secret and no seal" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const interface = &net.b.interface;
    putUnderLoad(&net, &net.b);
    var buffer: [2048]u8 = undefined;
    var sent: usize = 0;
    var forgery: Forgery = .{};
    for (0..2000) |_| {
        net.jumpTo(net.now.boot.after(std.time.ns_per_ms / 10));
        for (0..10) |_| {
            const message = forgery.initiation(interface);
            _ = interface.handleHandshake(message, &forgery.from, .under_load, net.now);
        }
        while (interface.pollCookieReply(&buffer) != null) sent += 1;
    }
    // A fifth of a second.
    const Load = @TypeOf(interface.load);
    const promised = Load.replies_per_second / 5;
    try testing.expect(sent >= promised and sent <= promised + Load.replies_burst + 2);
    try testing.expectEqual(sent, interface.checker.nonce_counter);
}

test "a preshared key that changes leaves the session alone and is in the next handshake" {
    const psk = "preshared_key=0202020202020202020202020202020202020202020202020202020202020202\n";
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try net.configure(&net.a, &net.b, psk);
    try net.send(&net.a, 101);
    try testing.expectEqual(101, net.b.delivered_length);
    try testing.expectEqual(1, net.a.initiations_sent);
    net.jumpTo(net.now.boot.after(200 * second));
    try net.send(&net.a, 102);
    try testing.expect(net.a.dropped(.invalid_handshake) > 0);
    try net.configure(&net.b, &net.a, psk);
    try net.pass(6 * second);
    try testing.expectEqual(102, net.b.delivered_length);
}

test "the last nonce is sent once, and then a new session takes over" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    net.jumpTo(net.now.boot.after(6 * second)); // else a handshake would be too soon
    const worn = net.a.interface.peers.at(0).sessions.currentSession(&net.a.interface.sessions).?;
    worn.send_counter = constants.REJECT_AFTER_MESSAGES - 1;
    net.is_cut = true; // but for this, sending it would renew the session
    try net.send(&net.a, 101);
    net.is_cut = false;
    try testing.expectEqual(2, net.a.initiations_sent);
    const reserved = net.a.interface.reserve(net.a.interface.idOf(0), 1, 144, net.now);
    try testing.expectEqual(.stage, std.meta.activeTag(reserved));
    try net.send(&net.a, 102);
    try testing.expectEqual(1, net.b.delivered_count);
    try net.pass(6 * second);
    try testing.expectEqual(102, net.b.delivered_length);
}

test "what comes too late gets later nonces, but never those of another session" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const interface = &net.a.interface;
    const id = interface.idOf(0);
    const ticket = interface.reserve(id, 10, 1440, net.now).seal;
    const key = ticket.key.*;
    const sent = interface.peers.at(0).tx_bytes;
    _ = interface.reserve(id, 100, 14400, net.now).seal;
    const counted = interface.peers.at(0).tx_bytes;
    try testing.expectEqual(null, interface.reserveAgain(&ticket, &key, 10, 100, net.now)); // not late
    try testing.expectEqual(ticket.counter + 110, interface.reserveAgain(&ticket, &key, 10, 99, net.now).?);
    try testing.expectEqual(ticket.counter + 120, interface.reserve(id, 1, 144, net.now).seal.counter);
    try testing.expectEqual(counted + 144, interface.peers.at(0).tx_bytes);
    try testing.expect(counted > sent);
    // The next session, for which the other end has chosen the same index.
    net.jumpTo(net.now.boot.after(constants.REKEY_AFTER_TIME));
    try net.send(&net.a, 100);
    try net.settle();
    const next = interface.peers.at(0).sessions.currentSession(&interface.sessions).?;
    try testing.expect(!crypto.eql32(&next.sending_key, &key));
    next.remote_index = ticket.receiver_index;
    next.send_counter = 1_000_000;
    try testing.expectEqual(null, interface.reserveAgain(&ticket, &key, 10, 99, net.now));
    try testing.expectEqual(1_000_000, next.send_counter);
}

test "a machine that was set back uses no nonce twice: a new session follows at once, and both ends go on" {
    for ([_]bool{ true, false }) |is_initiator| {
        var net: Net = undefined;
        try net.init("", "");
        defer net.deinit();
        const end, const other = if (is_initiator) .{ &net.a, &net.b } else .{ &net.b, &net.a };
        try net.send(&net.a, 100);
        try net.send(end, 101);
        const session_before = end.interface.peers.at(0).sessions.currentSession(&end.interface.sessions).?;
        const counter = session_before.send_counter;
        for (0..5) |_| try net.send(end, 102);
        // Its memory is that of five packets ago.
        session_before.send_counter = counter;
        const delivered = other.delivered_count;
        net.jumpTo(net.now.boot.after(second)); // else a handshake would be too soon for the other end
        end.interface.renewSessions(net.now);
        const reserved = end.interface.reserve(end.interface.idOf(0), 1, 144, net.now);
        try testing.expectEqual(.stage, std.meta.activeTag(reserved));
        // What the other end had sent arrives, and what it still sends.
        try net.send(other, 103);
        try testing.expectEqual(103, end.delivered_length);
        try net.send(end, 104); // would be refused by the net if a nonce came again
        try testing.expectEqual(104, other.delivered_length);
        try testing.expectEqual(delivered + 1, other.delivered_count);
        try testing.expect(!session_before.may_send);
    }
}

test "a renewal asks only those for a session that had one, and gives up the handshakes that are under way" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    net.a.interface.renewSessions(net.now);
    try net.settle();
    try testing.expectEqual(0, net.datagrams);
    // The response to an initiation from before finds nothing.
    net.is_cut = true;
    try net.send(&net.a, 100);
    const lost = net.last;
    const lost_length = net.last_length;
    net.is_cut = false;
    net.a.interface.renewSessions(net.now);
    net.arrive(&net.b, lost[0..lost_length], &net.a.endpoint);
    try testing.expect(try net.pump(&net.b));
    try testing.expectEqual(null, net.a.interface.peers.at(0).sessions.current);
    net.jumpTo(net.now.boot.after(second));
    try net.settle();
    try testing.expectEqual(2, net.a.initiations_sent);
    try testing.expectEqual(100, net.b.delivered_length);
}

test "an hour of persistent keepalives is one every 25 seconds and what renewing the session takes" {
    var net: Net = undefined;
    try net.init("persistent_keepalive_interval=25\n", "");
    defer net.deinit();
    try net.settle();
    try net.pass(3600 * second);
    // A beat that finds its session older than REKEY_AFTER_TIME renews it: at 125 s and each 125 s after that.
    try testing.expectEqual(3600 / 125 + 1, net.a.initiations_sent);
    try testing.expectEqual(0, net.b.initiations_sent + net.a.keepalives_received);
    const beats = 3600 / 25 + 1;
    const confirmations = 3600 / 125;
    try testing.expectEqual(beats + confirmations, net.b.keepalives_received);
    try testing.expectEqual(net.b.keepalives_received + 2 * net.a.initiations_sent, net.datagrams);
}

test "peers that began together do not go on together" {
    const peer_count = 1000;
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const interface = &net.a.interface;
    try set(&net.a, no_key);
    try configurePeers(interface, 0x10000, peer_count, false);
    var deadlines: [peer_count]u64 = undefined;
    for (&deadlines, 1..) |*deadline, index| {
        const peer = interface.peers.at(index);
        peer.endpoint = endpointOf(9, 9);
        peer.timers.handshakeInitiated(net.now.boot, interface.nextJitter());
        deadline.* = peer.timers.deadline().since(net.now.boot) - constants.REKEY_TIMEOUT;
    }
    var slots: [10]usize = @splat(0);
    for (deadlines) |late| slots[@intCast(late * slots.len / constants.REKEY_TIMEOUT_JITTER_MAX)] += 1;
    for (slots) |count| try testing.expect(count > peer_count / 20 and count < peer_count / 5);
}

test "a handshake completes over any round trip shorter than REKEY_TIMEOUT" {
    for ([_]u64{ 1, 100, 249, 251, 1000, 2500, 4900 }) |milliseconds| {
        var net: Net = undefined;
        try net.init("", "");
        defer net.deinit();
        var buffer: [2048]u8 = undefined;
        var packet: [100]u8 = undefined;
        _ = net.a.interface.stage(net.a.interface.route(innerPacket(&packet, 1, 2, 100)).peer, &packet);
        const there = net.a.interface.pollTransmit(&buffer, net.now).?.length;
        net.arrive(&net.b, buffer[0..there], &net.a.endpoint);
        const back = net.b.interface.pollTransmit(&buffer, net.now).?.length;
        net.jumpTo(net.now.boot.after(milliseconds * std.time.ns_per_ms));
        net.a.interface.expire(net.now);
        net.arrive(&net.a, buffer[0..back], &net.b.endpoint);
        try net.settle();
        try testing.expectEqual(1, net.b.delivered_count);
        try testing.expectEqual(0, net.a.initiations_sent);
    }
}

test "a clock that steps back or leaps in any state traps nothing, and packets flow again" {
    var prng: std.Random.DefaultPrng = .init(77);
    const random = prng.random();
    const steps = [_]u64{ 1, second, 5 * second, 181 * second, 1000 * second, 30 * 86_400 * second };
    for (0..25) |_| {
        var net: Net = undefined;
        try net.init("persistent_keepalive_interval=25\n", "");
        defer net.deinit();
        for (0..random.uintAtMost(usize, 4)) |_| {
            net.is_cut = random.boolean();
            try net.send(if (random.boolean()) &net.a else &net.b, 100);
            try net.pass(random.uintAtMost(u64, 200) * second);
        }
        const step = steps[random.uintLessThan(usize, steps.len)];
        const is_back = random.boolean() and step <= 1000 * second;
        for ([_]*u64{ &net.now.boot.ns, &net.now.unix_ns }) |clock| {
            clock.* = if (is_back) clock.* -| step else clock.* +| step;
        }
        net.is_cut = false;
        net.a.interface.expire(net.now);
        net.b.interface.expire(net.now);
        try net.settle();
        for ([_]*End{ &net.a, &net.b }) |end| try net.send(end, 99);
        // CLOCK_BOOTTIME is never set back. If it were, the old time would have to be reached again.
        if (is_back) try net.pass(step);
        try net.pass(30 * second);
        const before = net.b.delivered_count;
        try net.send(&net.a, 88);
        try net.pass(11 * second);
        try testing.expect(net.b.delivered_count > before);
    }
}

test "timestamps sent are whitened and always later, whatever the wall clock does" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var prng: std.Random.DefaultPrng = .init(78);
    const random = prng.random();
    const peer = net.a.interface.peers.at(0);
    var last: time.Timestamp = @splat(0);
    for (0..10_000) |_| {
        net.now.unix_ns = switch (random.uintLessThan(u8, 4)) {
            0 => net.now.unix_ns +| random.uintLessThan(u64, 1 << 26),
            1 => net.now.unix_ns -| random.uintLessThan(u64, 1 << 26),
            2 => random.uintLessThan(u64, 2_000_000_000 * second),
            else => net.now.unix_ns,
        };
        const label = peer.nextTimestamp(net.now);
        try testing.expect(time.isLater(label, last));
        try testing.expectEqual(0, std.mem.readInt(u32, label[8..12], .big) % (1 << 24));
        last = label;
    }
}

test "receiver indices are spread over all values, and none is given twice while it lives" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var counts: [4][16]usize = @splat(@splat(0));
    const rounds = 160;
    for (0..rounds) |_| {
        net.jumpTo(net.now.boot.after(200 * second));
        try net.send(&net.a, 100);
        const sessions = &net.a.interface.peers.at(0).sessions;
        const index = sessions.currentSession(&net.a.interface.sessions).?.local_index;
        if (sessions.previous) |old| try testing.expect(net.a.interface.sessions.at(old).local_index != index);
        for (&counts, std.mem.toBytes(index)) |*count, byte| count[byte >> 4] += 1;
    }
    // Chi-squared with 15 degrees of freedom: beyond 50 it would be once in 100 000 times for each byte.
    for (counts) |count| {
        var sum: f64 = 0;
        for (count) |seen| sum += std.math.pow(f64, @as(f64, @floatFromInt(seen)) - rounds / 16, 2) / (rounds / 16);
        try testing.expect(sum < 50);
    }
}

test "counters beyond 32 bits go through, and a packet 8000 behind the newest is still taken" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const a = &net.a.interface;
    a.peers.at(0).sessions.currentSession(&a.sessions).?.send_counter = (1 << 32) - 2;
    for (0..4) |_| try net.send(&net.a, 100); // `cross` refuses a nonce that comes twice
    try testing.expectEqual(5, net.b.delivered_count);
    try testing.expectEqual((1 << 32) + 2, a.peers.at(0).sessions.currentSession(&a.sessions).?.send_counter);
    var packet: [100]u8 = undefined;
    var late: [2048]u8 = undefined;
    const length = seal(&late, a.reserve(a.idOf(0), 1, 144, net.now).seal, innerPacket(&packet, 1, 2, 100));
    _ = a.reserve(a.idOf(0), 7999, 7999 * 144, net.now).seal;
    try net.send(&net.a, 100);
    net.arrive(&net.b, late[0..length], &net.a.endpoint);
    try testing.expectEqual(7, net.b.delivered_count);
}

test "an idle tunnel says nothing for an hour" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try net.pass(3600 * second);
    try testing.expectEqual(4, net.datagrams); // initiation, response, packet, one passive keepalive
}

test "peers that come, go and come back in one change keep no trace of each other" {
    var net: Net = undefined;
    try net.init("persistent_keepalive_interval=25\n", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const public = crypto.publicKey(&privateKey(2));
    var text: [1200]u8 = undefined;
    const unknown = crypto.publicKey(&privateKey(9));
    try set(&net.a, try std.mem.print(
        &text,
        "public_key={x}\nremove=true\npublic_key={x}\nendpoint=192.0.2.2:51820\nallowed_ip=10.0.0.2/32\n" ++
            "public_key={x}\nupdate_only=true\nallowed_ip=10.9.0.0/16\npublic_key={x}\nremove=true\n",
        .{ &public, &public, &public, &unknown },
    ));
    const a = &net.a.interface;
    try testing.expectEqual(1, a.peer_count);
    try testing.expectEqual(0, a.by_index.count);
    try testing.expectEqual(2, a.allowed_ips.count);
    try testing.expectEqual(0, a.peers.at(0).timers.persistent_keepalive_interval);
    try expectSound(a);
    try net.pass(1 * second);
    try net.send(&net.a, 100);
    try testing.expectEqual(2, net.b.delivered_count);
}

/// What an interface holds for its peers, but for memory that nothing has touched: pages of those cost nothing.
fn residentBytes(interface: *const Interface) usize {
    const ips = &interface.allowed_ips;
    return interface.peers.capacity() * @sizeOf(Peer) + interface.attempts.capacity() * @sizeOf(Attempts) +
        interface.sessions.high * @sizeOf(session.Session) +
        bytesOf(interface.by_key.slots) + bytesOf(interface.by_index.slots) +
        bytesOf(interface.deadlines.items.allocatedSlice()) + bytesOf(interface.deadlines.positions.allocatedSlice()) +
        bytesOf(interface.free_peers.allocatedSlice()) + bytesOf(ips.nodes.allocatedSlice()) +
        bytesOf(ips.links.allocatedSlice()) + bytesOf(ips.lists.allocatedSlice()) + bytesOf(ips.memos);
}

fn bytesOf(slice: anytype) usize {
    return std.mem.sliceAsBytes(slice).len;
}

/// So many peers with one allowed IP each.
fn configurePeers(interface: *Interface, first: u32, count: u32, replace_peers: bool) !void {
    const gpa = testing.allocator;
    var change: change_file.Change = try .init(gpa, count, count);
    defer change.deinit(gpa);
    change.replace_peers = replace_peers;
    for (change.peers, change.allowed_ips, first..) |*peer, *entry, number| {
        const octets = std.mem.toBytes(std.mem.nativeToBig(u32, 0x0a00_0000 + @as(u32, @intCast(number))));
        entry.* = .{ .prefix = .{ .address = wire.Address.fromIpv4(octets), .length = 32 } };
        peer.* = .{ .public_key = numberedKey(@intCast(number)), .allowed_ips = entry[0..1] };
    }
    try interface.configure(&change);
}

fn numberedKey(number: u32) [32]u8 {
    var key: [32]u8 = @splat(1);
    key[0..4].* = std.mem.toBytes(std.mem.nativeToBig(u32, 0x0a00_0000 + number));
    return key;
}

test "an idle peer among 10 000 holds at most 1280 bytes, however they were configured" {
    // Peer 832, attempts 36, key 59 (36 for each of 16 384 places), indices 105 (16 for each of 65 536), prefix 96 to
    // 144 (two nodes of 48), memo 39, prefixes of the peer 8 to 12, deadline 20 to 30, free 4 to 6. The promise is
    // 2 KiB.
    const limit = 1280;
    if (@sizeOf(usize) == 8) try testing.expectEqual(832, @sizeOf(Peer));
    for ([_]u32{ 10_000, 100 }) |portion| {
        var source: Source = .{};
        var interface: Interface = try .init(.{ .allocator = testing.allocator, .entropy = source.entropy() });
        defer interface.deinit();
        const before = residentBytes(&interface);
        var first: u32 = 0;
        while (first < 10_000) : (first += portion) try configurePeers(&interface, first, portion, false);
        const at_first = (residentBytes(&interface) - before) / 10_000;
        if (at_first > limit) std.debug.print("{d} bytes a peer, {d} at a time\n", .{ at_first, portion });
        try testing.expect(at_first <= limit);
        try testing.expectEqual(0, interface.sessions.high);
        // The same again, as an update and as a replacement: no table grows but those that cannot know.
        try configurePeers(&interface, 0, 10_000, false);
        try configurePeers(&interface, 0, 10_000, true);
        try testing.expectEqual(10_000, interface.peer_count);
        const again = (residentBytes(&interface) - before) / 10_000;
        if (again > limit + 200) std.debug.print("{d} bytes a peer, configured again\n", .{again});
        try testing.expect(again <= limit + 200);
    }
}

test "a peer whose sessions expired is as idle as one that never had any" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    for (0..4) |_| {
        try net.send(&net.a, 100);
        try net.pass(125 * second); // a rekey
        try net.send(&net.a, 100);
        try net.pass(541 * second);
        for ([_]*End{ &net.a, &net.b }) |end| {
            try testing.expect(std.meta.eql(end.interface.peers.at(0).sessions, .{}));
            try testing.expectEqual(0, end.interface.by_index.count);
            try testing.expectEqual(session.sessions_max, end.interface.sessions.high); // the same two each time
        }
    }
}

fn expectSound(interface: *Interface) !void {
    try testing.expectEqualStrings("", soundness.unsound(interface) orelse "");
}

/// Two ends in a world where anything may happen to either at any time.
const Chaos = struct {
    net: Net,
    source: Source = .{},
    recorded: [32][2048]u8 = undefined,
    recorded_length: [32]usize = @splat(0),
    recorded_count: usize = 0,

    fn random(chaos: *Chaos) std.Random {
        return chaos.source.prng.random();
    }

    fn step(chaos: *Chaos) !void {
        const net = &chaos.net;
        const end = if (chaos.random().boolean()) &net.a else &net.b;
        const datagrams = net.datagrams;
        switch (chaos.random().uintLessThan(u8, 32)) {
            0...11 => try net.send(end, chaos.random().intRangeAtMost(usize, 20, 1500)),
            12...14 => try net.pass(chaos.random().uintLessThan(u64, 30 * second)),
            15 => try net.pass(chaos.random().uintLessThan(u64, 300 * second)),
            16 => net.jumpTo(net.now.boot.after(chaos.random().uintLessThan(u64, 1000 * second))),
            17 => net.is_cut = !net.is_cut,
            18 => chaos.source.is_missing = chaos.random().uintLessThan(u8, 4) == 0,
            19 => end.interface.setActive(chaos.random().uintLessThan(u8, 4) != 0),
            20 => net.now.unix_ns = chaos.random().int(u64) >> 2,
            21...26 => try chaos.inject(end),
            else => try chaos.reconfigure(end),
        }
        if (chaos.random().uintLessThan(u8, 4) != 0) try net.settle();
        if (net.datagrams != datagrams) {
            const place = chaos.recorded_count % chaos.recorded.len;
            chaos.recorded[place] = net.last;
            chaos.recorded_length[place] = net.last_length;
            chaos.recorded_count += 1;
        }
        try expectSound(&net.a.interface);
        try expectSound(&net.b.interface);
    }

    /// An old datagram again, whole or damaged, from here or elsewhere, under load or not.
    fn inject(chaos: *Chaos, to: *End) !void {
        const place = chaos.random().uintLessThan(usize, chaos.recorded.len);
        var datagram = chaos.recorded[place];
        const length = chaos.recorded_length[place];
        if (length == 0) return;
        if (chaos.random().boolean()) {
            datagram[chaos.random().uintLessThan(usize, length)] ^= @as(u8, 1) << chaos.random().int(u3);
        }
        const from = if (chaos.random().boolean()) chaos.net.peerOf(to).endpoint else endpointOf(99, 99);
        const cut = if (chaos.random().uintLessThan(u8, 8) == 0) chaos.random().uintAtMost(usize, length) else length;
        switch (to.interface.prepareOpen(datagram[0..cut], chaos.net.now)) {
            .handshake => _ = to.interface.handleHandshake(
                datagram[0..cut],
                &from,
                chaos.random().enumValue(interface_file.Demand),
                chaos.net.now,
            ),
            .open, .drop => chaos.net.arrive(to, datagram[0..cut], &from),
        }
    }

    fn reconfigure(chaos: *Chaos, end: *End) !void {
        var text: [4096]u8 = undefined;
        var writer: std.Io.Writer = .fixed(&text);
        switch (chaos.random().uintLessThan(u8, 6)) {
            0 => try writer.writeAll(no_key),
            1, 2 => try writer.print("private_key={x}\n", .{&privateKey(end.number)}),
            3 => try writer.print("private_key={x}\n", .{&privateKey(chaos.random().uintLessThan(u8, 4) + 1)}),
            else => {},
        }
        if (chaos.random().uintLessThan(u8, 6) == 0) try writer.writeAll("replace_peers=true\n");
        for (0..chaos.random().uintLessThan(usize, 5)) |_| {
            const is_known = chaos.random().boolean();
            const number = if (is_known) chaos.net.peerOf(end).number else chaos.random().uintLessThan(u8, 5) + 1;
            try writer.print("public_key={x}\n", .{&crypto.publicKey(&privateKey(number))});
            if (chaos.random().uintLessThan(u8, 4) == 0) try writer.writeAll("remove=true\n");
            if (chaos.random().uintLessThan(u8, 4) == 0) try writer.writeAll("update_only=true\n");
            if (chaos.random().uintLessThan(u8, 4) == 0) try writer.writeAll("replace_allowed_ips=true\n");
            if (chaos.random().boolean()) try writer.print("endpoint=192.0.2.{d}:51820\n", .{number});
            if (chaos.random().boolean()) try writer.print("allowed_ip=10.0.0.{d}/32\n", .{number});
            if (chaos.random().boolean()) {
                try writer.print("allowed_ip={s}10.0.0.0/24\n", .{if (chaos.random().boolean()) "-" else ""});
            }
            if (chaos.random().boolean()) {
                const interval = chaos.random().uintLessThan(u8, 3) * 20;
                try writer.print("persistent_keepalive_interval={d}\n", .{interval});
            }
            if (chaos.random().uintLessThan(u8, 8) == 0) {
                const key: [32]u8 = @splat(chaos.random().uintLessThan(u8, 2));
                try writer.print("preshared_key={x}\n", .{&key});
            }
        }
        try set(end, writer.buffered());
    }
};

test "whatever happens to two ends, their tables stay sound and they can talk again" {
    for (0..3) |seed| {
        var chaos: Chaos = .{ .net = undefined };
        chaos.source.prng = .init(seed);
        const net = &chaos.net;
        try net.init("", "");
        defer net.deinit();
        net.a.interface.entropy = chaos.source.entropy();
        net.b.interface.entropy = chaos.source.entropy();
        for (0..500) |_| try chaos.step();

        net.is_cut = false;
        chaos.source.is_missing = false;
        net.a.interface.setActive(true);
        net.b.interface.setActive(true);
        for ([_]*End{ &net.a, &net.b }) |end| {
            try set(end, "replace_peers=true\n"); // else what a wrong clock said would still count
            try net.configure(end, net.peerOf(end), "");
        }
        try net.pass(300 * second);
        const delivered = net.b.delivered_count;
        try net.send(&net.a, 100);
        try net.pass(20 * second);
        try testing.expect(net.b.delivered_count > delivered);
        try expectSound(&net.a.interface);
        try expectSound(&net.b.interface);
    }
}

/// The kind of the latest notice of a peer, or of nobody; null if there is none of it.
fn noticed(end: *End, kind: notices.Kind) ?notices.Entry {
    var i: usize = 0;
    while (end.interface.notices.at(i)) |entry| : (i += 1) if (entry.notice.kind == kind) return entry.*;
    return null;
}

fn traceOf(net: *Net, end: *End) control.Trace {
    return end.interface.traceOf(end.interface.first_peer, net.now)[0];
}

test "initiations without an answer are counted, told after the third, and over with a session" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    net.is_cut = true;
    try net.send(&net.a, 100);
    try testing.expectEqual(1, traceOf(&net, &net.a).asked);
    try net.pass(6 * second);
    try testing.expectEqual(2, traceOf(&net, &net.a).asked);
    try testing.expectEqual(null, noticed(&net.a, .no_answer));
    try net.pass(6 * second);
    const trace = traceOf(&net, &net.a);
    try testing.expectEqual(3, trace.asked);
    try testing.expect(trace.asked_for_ns >= 10 * second and trace.asked_for_ns <= 12 * second);
    try testing.expectEqual(null, trace.silence_ns);
    try testing.expectEqualSlices(u8, &crypto.publicKey(&privateKey(2)), &noticed(&net.a, .no_answer).?.notice.key);
    net.is_cut = false;
    try net.pass(6 * second);
    try testing.expectEqual(0, traceOf(&net, &net.a).asked);
    try testing.expectEqual(null, noticed(&net.a, .no_answer));
    try testing.expect(!traceOf(&net, &net.a).is_silent);
    try testing.expect(noticed(&net.a, .over) != null);
    try testing.expect(traceOf(&net, &net.a).silence_ns.? < 6 * second);
    // A session that is renewed has nothing to tell.
    try net.pass(125 * second);
    try net.send(&net.a, 100);
    try testing.expectEqual(1, noticed(&net.a, .over).?.count);
    try testing.expectEqual(null, noticed(&net.b, .over));
    // One that falls silent is asked after 15 seconds. When it is given up, the time of asking is, too.
    net.is_cut = true;
    try net.send(&net.a, 100);
    try net.pass(12 * second);
    try testing.expectEqual(11, traceOf(&net, &net.a).unanswered_ns / second); // the timer has some jitter
    try net.pass(4 * second);
    try testing.expect(traceOf(&net, &net.a).is_silent);
    try testing.expectEqual(1, traceOf(&net, &net.a).asked);
    try net.pass(500 * second);
    try testing.expect(traceOf(&net, &net.a).asked_for_ns < 120 * second);
}

test "another preshared key shows at both ends, and a stranger or a wrong key at the one that is asked" {
    const psk = "preshared_key=0101010101010101010101010101010101010101010101010101010101010101\n";
    var net: Net = undefined;
    try net.init(psk, "");
    defer net.deinit();
    try net.send(&net.a, 100);
    try testing.expectEqual(.wrong_answer, traceOf(&net, &net.a).refused.?);
    try net.pass(6 * second);
    try testing.expectEqual(2, traceOf(&net, &net.b).answered);
    try testing.expect(noticed(&net.b, .unconfirmed) != null);
    // What was tried by another key says nothing.
    var text: [1024]u8 = undefined;
    try set(&net.a, try std.mem.print(&text, "private_key={x}\n", .{&privateKey(8)}));
    try testing.expectEqual(null, traceOf(&net, &net.a).refused);
    try net.send(&net.a, 100);
    const stranger = noticed(&net.b, .stranger).?.notice;
    try testing.expectEqualSlices(u8, &net.a.interface.local.?.public, &stranger.key);
    try testing.expect(stranger.remote.?.eql(net.a.endpoint.remote));
    try testing.expectEqual(null, noticed(&net.b, .other_key));
    const other = crypto.publicKey(&privateKey(9));
    try set(&net.a, try std.mem.print(
        &text,
        "replace_peers=true\npublic_key={x}\nendpoint=192.0.2.2:51820\nallowed_ip=10.0.0.2/32\n",
        .{&other},
    ));
    try net.send(&net.a, 100);
    try testing.expect(noticed(&net.b, .other_key).?.notice.remote.?.eql(net.a.endpoint.remote));
}

test "a handshake that is older than one before is told, and what it means is left to whoever reads it" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    net.b.interface.peers.at(0).latest_timestamp = @splat(0xff);
    try net.pass(200 * second);
    try net.send(&net.a, 100);
    try testing.expectEqual(.old_timestamp, traceOf(&net, &net.b).refused.?);
    try testing.expectEqual(null, traceOf(&net, &net.a).refused);
}

test "what the network answers is believed of a peer that is asked, and of no other" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const a = &net.a.interface;
    const remote = net.b.endpoint.remote;
    const by: wire.Address = .fromIpv4(.{ 192, 0, 2, 254 });
    a.noteUnreachable(.port_unreachable, remote, by, 0, net.now);
    try testing.expectEqual(null, traceOf(&net, &net.a).refused);
    net.is_cut = true;
    try net.send(&net.a, 100);
    a.noteUnreachable(.port_unreachable, endpointOf(7, 1).remote, by, 0, net.now);
    try testing.expectEqual(null, traceOf(&net, &net.a).refused);
    a.noteUnreachable(.port_unreachable, remote, by, 0, net.now);
    try testing.expectEqual(.port_unreachable, traceOf(&net, &net.a).refused.?);
    try testing.expect(noticed(&net.a, .port_unreachable).?.notice.address.?.eql(by));
    // It is told in the place of "no answer", until nothing is heard of it for some time.
    try net.pass(11 * second);
    try testing.expectEqual(.port_unreachable, traceOf(&net, &net.a).refused.?);
    try testing.expectEqual(null, noticed(&net.a, .no_answer));
    try net.pass(6 * second);
    try testing.expectEqual(null, traceOf(&net, &net.a).refused);
    // In the place of an error that was forged again and again no peers are looked at.
    for (0..1 << 18) |_| a.noteUnreachable(.prohibited, endpointOf(7, 1).remote, by, 0, net.now);
    a.noteUnreachable(.prohibited, remote, by, 0, net.now);
    try testing.expectEqual(null, traceOf(&net, &net.a).refused);
}

test "a change of reason is told even after silence, and forged ones that alternate once for each initiation" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    var slots: [8]events.Event = undefined;
    var ring: events.Ring = .init(&slots);
    net.a.interface.events = &ring;
    const key = net.b.interface.local.?.public;
    const remote = net.b.endpoint.remote;
    const by: wire.Address = .fromIpv4(.{ 192, 0, 2, 254 });
    net.is_cut = true;
    try net.send(&net.a, 100);
    try net.pass(16 * second);
    try expectEvents(&ring, &.{.trouble}, &key);
    for (0..100) |_| for ([_]notices.Kind{ .port_unreachable, .prohibited }) |kind| {
        net.a.interface.noteUnreachable(kind, remote, by, 0, net.now);
    };
    try testing.expectEqual(.port_unreachable, ring.take().?.trouble.kind);
    try testing.expectEqual(null, ring.take());
    try net.pass(6 * second);
    net.a.interface.noteUnreachable(.prohibited, remote, by, 0, net.now);
    try testing.expectEqual(.prohibited, ring.take().?.trouble.kind);
    // What comes of other settings is told anew.
    try set(&net.a, "private_key=0808080808080808080808080808080808080808080808080808080808080808\n");
    try net.send(&net.a, 100);
    net.a.interface.noteUnreachable(.prohibited, remote, by, 0, net.now);
    try testing.expectEqual(.prohibited, ring.take().?.trouble.kind);
}

test "whom an error of the network is about is looked for among so many peers in a second, in portions" {
    const limit = 1 << 14;
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    const a = &net.a.interface;
    try addSilentPeers(&net, limit + 10);
    const last = a.peer_high - 1;
    const remote = endpointOf(9, 8).remote;
    a.peers.at(last).endpoint = endpointOf(9, 8);
    a.attempts.at(last).noteAsked(net.now.boot);
    a.looks = .{};
    // All that one second allows, and not the last peer.
    for (0..3) |_| a.noteUnreachable(.port_unreachable, remote, null, 0, net.now);
    try testing.expectEqual(null, a.attempts.at(last).refused());
    try testing.expectEqual(limit, a.looks.done);
    // The next one goes on from there.
    net.jumpTo(net.now.boot.after(second));
    a.noteUnreachable(.port_unreachable, remote, null, 0, net.now);
    try testing.expectEqual(.port_unreachable, a.attempts.at(last).refused().?);
    try testing.expect(noticed(&net.a, .port_unreachable).?.notice.remote.?.eql(remote));
    // A packet too long is told of a peer that nothing is expected from, and of no one else.
    net.jumpTo(net.now.boot.after(second));
    a.attempts.at(last).* = .{};
    a.looks.next = last;
    a.noteUnreachable(.too_big, remote, null, 1280, net.now);
    try testing.expectEqual(1280, noticed(&net.a, .too_big).?.notice.mtu);
    try testing.expectEqual(null, a.attempts.at(last).refused());
}

test "packets for nobody and from addresses that are not the peer's are told with the address" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    var packet: [1500]u8 = undefined;
    const foreign = innerPacket(&packet, 9, 2, 100);
    try net.sendPacket(&net.a, foreign);
    try testing.expect(noticed(&net.b, .disallowed_source).?.notice.address.?.eql(.fromIpv4(.{ 10, 0, 0, 9 })));
    try testing.expectEqual(1, traceOf(&net, &net.b).dropped[1]);
    const a = &net.a.interface;
    a.noteUnroutable(innerPacket(&packet, 1, 77, 100), net.now);
    try testing.expect(noticed(&net.a, .no_peer).?.notice.address.?.eql(.fromIpv4(.{ 10, 0, 0, 77 })));
    // What is sent to a group is nobody's fault.
    const before = net.a.dropped(.no_peer);
    const to_group = innerPacket(&packet, 1, 2, 100);
    to_group[16..20].* = .{ 224, 0, 0, 22 };
    try testing.expectEqual(.multicast, a.route(to_group).drop);
    to_group[0] = 0x60;
    to_group[24] = 0xff;
    try testing.expectEqual(.multicast, a.route(to_group).drop);
    try testing.expectEqual(before, net.a.dropped(.no_peer));
    try testing.expectEqual(2, net.a.dropped(.multicast));
}

test "long packets that get lost are its length only where something else came meanwhile" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const a = &net.a.interface;
    const id = a.idOf(a.first_peer);
    const since = net.now.boot;
    try net.pass(5 * second);
    a.noteHole(id, 1420, since, net.now);
    try testing.expectEqual(null, noticed(&net.a, .hole));
    try net.send(&net.b, 100);
    a.noteHole(id, 1420, since, net.now);
    try testing.expectEqual(1420, noticed(&net.a, .hole).?.notice.mtu);
}

// ---- another process goes on: interface/handover.zig ----

/// As if another process had taken the end over: what it knows goes there as bytes.
fn takeOver(net: *Net, end: *End) !void {
    const gpa = testing.allocator;
    const bytes = try writeAll(&end.interface);
    defer gpa.free(bytes);
    var other: std.Random.DefaultPrng = .init(7);
    var taken: Interface = try .init(.{
        .allocator = gpa,
        .entropy = .{ .context = &other, .fillFn = fillFromPrng },
    });
    errdefer taken.deinit();
    try taken.reserveFor(end.interface.handOverSizes());
    var reader: std.Io.Reader = .fixed(bytes);
    try taken.readAll(&reader);
    try testing.expectEqual(bytes.len, reader.seek);
    try expectSound(&taken);
    const again = try writeAll(&taken);
    defer gpa.free(again);
    try testing.expectEqualSlices(u8, bytes, again);
    end.interface.deinit();
    end.interface = taken;
    end.interface.entropy = .{ .context = &net.prng, .fillFn = fillFromPrng };
}

fn writeAll(interface: *Interface) ![]u8 {
    var writer: std.Io.Writer.Allocating = .init(testing.allocator);
    defer writer.deinit();
    try interface.writeAll(&writer.writer);
    return writer.toOwnedSlice();
}

/// One thing that may happen to an interface, by chance.
fn happen(net: *Net, random: std.Random) !void {
    const end = if (random.boolean()) &net.a else &net.b;
    switch (random.uintLessThan(u8, 12)) {
        0...3 => try net.send(end, 28 + random.uintLessThan(usize, 1300)),
        4 => try net.pass(random.uintLessThan(u64, second)),
        5 => try net.pass(random.uintLessThan(u64, 200 * second)),
        6 => net.is_cut = random.uintLessThan(u8, 4) == 0,
        7 => for (0..random.uintLessThan(usize, 40)) |_| {
            // To a peer that never answers, and more of it than there is room for.
            var packet: [1500]u8 = undefined;
            try net.sendPacket(end, innerPacket(&packet, end.number, 77, 1400));
        },
        8 => end.interface.requestHandshake(&crypto.publicKey(&privateKey(net.peerOf(end).number)), net.now) catch {},
        9 => try net.configure(end, net.peerOf(end), switch (random.uintLessThan(u8, 4)) {
            0 => "persistent_keepalive_interval=5\n",
            1 => "persistent_keepalive_interval=0\n",
            2 => "allowed_ip=fd00::/64\nallowed_ip=-10.0.0.99/32\n",
            else => silent_peer ++ "remove=true\n",
        }),
        10 => try net.configure(end, net.peerOf(end), silent_peer ++
            "endpoint=192.0.2.77:7\nallowed_ip=10.0.0.77/32\n" ++
            "persistent_keepalive_interval=11\npreshared_key=" ++ silent_key ++ "\n"),
        11 => {
            const is_active = random.uintLessThan(u8, 8) != 0;
            end.interface.setActive(is_active);
            try net.settle();
        },
        else => unreachable,
    }
}

const silent_key = "7777777777777777777777777777777777777777777777777777777777777777";
const silent_peer = "public_key=" ++ silent_key ++ "\n";

test "an interface that another process goes on with, at any moment, sends what it would have sent" {
    var delivered: usize = 0;
    for (0..5) |seed| {
        var nets: [2]Net = undefined;
        for (&nets) |*net| try net.init("", "");
        defer for (&nets) |*net| net.deinit();
        var ways: [2]std.Random.DefaultPrng = @splat(.init(seed));
        var moments: std.Random.DefaultPrng = .init(seed + 1000);
        for (0..80) |_| {
            for (&nets, &ways) |*net, *way| try happen(net, way.random());
            if (moments.random().uintLessThan(u8, 3) == 0) try takeOver(&nets[0], &nets[0].a);
            if (moments.random().uintLessThan(u8, 3) == 0) try takeOver(&nets[0], &nets[0].b);
            try testing.expectEqual(nets[1].datagrams, nets[0].datagrams);
            try testing.expectEqual(nets[1].digest.final(), nets[0].digest.final());
        }
        for ([_]*End{ &nets[0].a, &nets[0].b }, [_]*End{ &nets[1].a, &nets[1].b }) |taken, kept| {
            try testing.expectEqual(kept.delivered_count, taken.delivered_count);
            try testing.expectEqual(kept.interface.counters, taken.interface.counters);
            delivered += kept.delivered_count;
        }
    }
    try testing.expect(delivered > 40);
}

test "messages of a handshake and packets that are under way arrive after another process has taken over" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try crossInitiations(&net);
    for ([_]*End{ &net.a, &net.b }) |end| try takeOver(&net, end); // responses are to be sent, packets wait
    try net.settle();
    for ([_]*End{ &net.a, &net.b }) |end| try testing.expectEqual(1, end.delivered_count);
    // What arrived before is a replay to its successor.
    try net.send(&net.a, 60);
    try takeOver(&net, &net.b);
    var copy: [2048]u8 = undefined;
    @memcpy(&copy, &net.last);
    net.arrive(&net.b, copy[0..net.last_length], &net.a.endpoint);
    try testing.expectEqual(1, net.b.dropped(.replayed));
}

test "bytes of an interface that are cut off or changed are refused, or leave it sound" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    net.is_cut = true;
    var way: std.Random.DefaultPrng = .init(3);
    for (0..40) |_| try happen(&net, way.random());
    const bytes = try writeAll(&net.a.interface);
    defer testing.allocator.free(bytes);
    const random = way.random();
    for (0..300) |round| {
        const changed = try testing.allocator.dupe(u8, bytes);
        defer testing.allocator.free(changed);
        const length = if (round % 4 == 0) random.uintLessThan(usize, bytes.len) else bytes.len;
        if (round % 4 != 0) for (0..1 + random.uintLessThan(usize, 3)) |_| {
            changed[random.uintLessThan(usize, bytes.len)] = random.int(u8);
        };
        var taken: Interface = try .init(.{
            .allocator = testing.allocator,
            .entropy = .{ .context = &net.prng, .fillFn = fillFromPrng },
        });
        defer taken.deinit();
        var reader: std.Io.Reader = .fixed(changed[0..length]);
        if (taken.readAll(&reader)) |_| try expectSound(&taken) else |_| {}
    }
}

test "memory that ends while an interface is read is told" {
    var net: Net = undefined;
    try net.init("", "");
    defer net.deinit();
    try net.send(&net.a, 100);
    const bytes = try writeAll(&net.a.interface);
    defer testing.allocator.free(bytes);
    try testing.checkAllAllocationFailures(testing.allocator, struct {
        fn run(gpa: std.mem.Allocator, from: []const u8) !void {
            var prng: std.Random.DefaultPrng = .init(1);
            var taken: Interface = try .init(.{
                .allocator = gpa,
                .entropy = .{ .context = &prng, .fillFn = fillFromPrng },
            });
            defer taken.deinit();
            var reader: std.Io.Reader = .fixed(from);
            try taken.readAll(&reader);
        }
    }.run, .{bytes});
}
