//! MAC1, MAC2 and cookies: whitepaper sections 5.3, 5.4.4 and 5.4.7. A Maker (one per peer) proves, a Checker (one per
//! interface) demands. Knows neither handshake nor load: the caller knows whether it is under load and what time it is,
//! and brings the random bytes. Knows no rate either: rate_limiter.zig comes after `checkMac2`.
//! Invariant: a cookie is worth something only from the address and port it was sent to, and for one secret's life.
const std = @import("std");
const assert = std.debug.assert;
const wire = @import("wire");
const messages = wire.messages;
const constants = @import("constants.zig");
const crypto = @import("crypto.zig");
const Instant = @import("time.zig").Instant;

/// A cookie is used for this much less than its secret lives: it was under way, and will be again.
const COOKIE_SECRET_LATENCY: u64 = 5 * std.time.ns_per_s;

const mac_length = 16;

/// Where the MACs lie, counted from the end: the same in both handshake messages.
fn mac1Start(message_bytes: []const u8) usize {
    assert(message_bytes.len == @sizeOf(messages.Initiation) or message_bytes.len == @sizeOf(messages.Response));
    return message_bytes.len - 2 * mac_length;
}

fn mac1Of(message_bytes: []const u8) *const [mac_length]u8 {
    return message_bytes[mac1Start(message_bytes)..][0..mac_length];
}

fn mac2Start(message_bytes: []const u8) usize {
    return mac1Start(message_bytes) + mac_length;
}

pub const Checker = struct {
    mac1_key: [32]u8,
    cookie_encryption_key: [32]u8,
    secret: [32]u8,
    /// When the secret was drawn; null before the first cookie.
    secret_birth: ?Instant,

    pub const init: Checker = .{
        .mac1_key = @splat(0),
        .cookie_encryption_key = @splat(0),
        .secret = @splat(0),
        .secret_birth = null,
    };

    /// To be called when our own key changes. Cookies given out stay valid: they do not depend on it.
    pub fn setKey(checker: *Checker, public: *const [32]u8) void {
        checker.mac1_key = crypto.hash(&.{ constants.LABEL_MAC1, public });
        checker.cookie_encryption_key = crypto.hash(&.{ constants.LABEL_COOKIE, public });
    }

    pub fn zero(checker: *Checker) void {
        crypto.zero(&checker.secret);
        checker.* = .init;
    }

    /// Whether a cookie made now would take the fresh secret.
    pub fn needsSecret(checker: *const Checker, now: Instant) bool {
        const birth = checker.secret_birth orelse return true;
        return now.since(birth) >= constants.COOKIE_REFRESH_TIME;
    }

    /// Whether the message was meant for us: without that it gets no answer. `message_bytes` is a whole initiation or
    /// response. Needs nothing secret, so it comes first.
    pub fn checkMac1(checker: *const Checker, message_bytes: []const u8) bool {
        const mac1 = crypto.mac(&checker.mac1_key, message_bytes[0..mac1Start(message_bytes)]);
        return crypto.eql16(&mac1, mac1Of(message_bytes));
    }

    /// Whether the source receives what we send to it, so that its rate can be limited. To be asked under load, after
    /// `checkMac1`; if not, the answer is a cookie reply. `fresh_secret` is used only if the old one is due.
    pub fn checkMac2(
        checker: *Checker,
        message_bytes: []const u8,
        from: *const wire.SocketAddress,
        now: Instant,
        fresh_secret: *const [32]u8,
    ) bool {
        var cookie = checker.makeCookie(from, now, fresh_secret);
        defer crypto.zero(&cookie);
        const start = mac2Start(message_bytes);
        const mac2 = crypto.mac(&cookie, message_bytes[0..start]);
        return crypto.eql16(&mac2, message_bytes[start..][0..mac_length]);
    }

    /// Answers a message that passed `checkMac1` but not `checkMac2`. `receiver_index` is that message's sender.
    pub fn createReply(
        checker: *Checker,
        reply: *messages.CookieReply,
        message_bytes: []const u8,
        from: *const wire.SocketAddress,
        receiver_index: u32,
        nonce: *const [24]u8,
        now: Instant,
        fresh_secret: *const [32]u8,
    ) void {
        var cookie = checker.makeCookie(from, now, fresh_secret);
        defer crypto.zero(&cookie);
        reply.* = std.mem.zeroes(messages.CookieReply);
        reply.kind = @backingInt(messages.Kind.cookie_reply);
        std.mem.writeInt(u32, &reply.receiver, receiver_index, .little);
        reply.nonce = nonce.*;
        crypto.xaeadSeal(&reply.cookie, &checker.cookie_encryption_key, nonce, &cookie, mac1Of(message_bytes));
    }

    /// MAC over address *and port*: behind one address translator, one guest's cookie must not serve another.
    fn makeCookie(
        checker: *Checker,
        from: *const wire.SocketAddress,
        now: Instant,
        fresh_secret: *const [32]u8,
    ) [mac_length]u8 {
        if (checker.needsSecret(now)) {
            checker.secret = fresh_secret.*;
            checker.secret_birth = now;
        }
        const address = from.address.slice();
        var source: [16 + 2]u8 = undefined;
        @memcpy(source[0..address.len], address);
        std.mem.writeInt(u16, source[address.len..][0..2], from.port, .big);
        return crypto.mac(&checker.secret, source[0 .. address.len + 2]);
    }
};

pub const Maker = struct {
    mac1_key: [32]u8,
    cookie_decryption_key: [32]u8,
    cookie: [mac_length]u8,
    /// When we received the cookie; null before the first.
    cookie_birth: ?Instant,
    last_mac1: [mac_length]u8,
    /// A reply is believed once per message sent.
    expects_reply: bool,

    pub fn init(remote_static: *const [32]u8) Maker {
        return .{
            .mac1_key = crypto.hash(&.{ constants.LABEL_MAC1, remote_static }),
            .cookie_decryption_key = crypto.hash(&.{ constants.LABEL_COOKIE, remote_static }),
            .cookie = @splat(0),
            .cookie_birth = null,
            .last_mac1 = @splat(0),
            .expects_reply = false,
        };
    }

    pub fn zero(maker: *Maker) void {
        crypto.zero(maker);
    }

    /// Fills both MACs of a whole initiation or response, just before it is sent.
    pub fn addMacs(maker: *Maker, message_bytes: []u8, now: Instant) void {
        const mac1_start = mac1Start(message_bytes);
        maker.last_mac1 = crypto.mac(&maker.mac1_key, message_bytes[0..mac1_start]);
        maker.expects_reply = true;
        message_bytes[mac1_start..][0..mac_length].* = maker.last_mac1;
        const mac2_start = mac2Start(message_bytes);
        message_bytes[mac2_start..][0..mac_length].* = if (maker.hasFreshCookie(now))
            crypto.mac(&maker.cookie, message_bytes[0..mac2_start])
        else
            @splat(0);
    }

    fn hasFreshCookie(maker: *const Maker, now: Instant) bool {
        const birth = maker.cookie_birth orelse return false;
        return now.since(birth) < constants.COOKIE_REFRESH_TIME - COOKIE_SECRET_LATENCY;
    }

    /// False, and nothing changed, unless the reply answers the last message we sent. The caller sends nothing at once:
    /// the cookie goes with the next retransmission.
    pub fn consumeReply(maker: *Maker, reply: *const messages.CookieReply, now: Instant) bool {
        if (!maker.expects_reply) return false;
        var cookie: [mac_length]u8 = undefined;
        defer crypto.zero(&cookie);
        const key = &maker.cookie_decryption_key;
        if (!crypto.xaeadOpen(&cookie, key, &reply.nonce, &reply.cookie, &maker.last_mac1)) return false;
        maker.cookie = cookie;
        maker.cookie_birth = now;
        maker.expects_reply = false;
        return true;
    }
};

comptime {
    for (.{ messages.Initiation, messages.Response }) |Message| {
        assert(@offsetOf(Message, "mac1") == @sizeOf(Message) - 2 * mac_length);
        assert(@offsetOf(Message, "mac2") == @sizeOf(Message) - mac_length);
    }
    assert(COOKIE_SECRET_LATENCY < constants.COOKIE_REFRESH_TIME);
}

const testing = std.testing;
const transcripts = @import("testdata/transcripts.zig").transcripts;
const beginning: Instant = .{ .ns = 1_000_000_000_000 };

fn unhex(comptime length: usize, text: []const u8) [length]u8 {
    var bytes: [length]u8 = undefined;
    const decoded = std.fmt.hexToBytes(&bytes, text) catch unreachable;
    assert(decoded.len == length);
    return bytes;
}

/// A checker for the responder of the first transcript, and what the initiator sends it.
const Scene = struct {
    checker: Checker = .init,
    maker: Maker,
    from: wire.SocketAddress = wire.SocketAddress.parse("192.0.2.7:51820").?,
    message: [148]u8,

    fn init() Scene {
        const public = unhex(32, transcripts[0].responder_public);
        var scene: Scene = .{ .maker = .init(&public), .message = unhex(148, transcripts[0].initiation) };
        scene.checker.setKey(&public);
        scene.maker.addMacs(&scene.message, beginning);
        return scene;
    }

    fn checkMac1(scene: *const Scene) bool {
        return scene.checker.checkMac1(&scene.message);
    }

    fn checkMac2(scene: *Scene, now: Instant) bool {
        const fresh_secret = crypto.hash(&.{std.mem.asBytes(&now.ns)});
        return scene.checker.checkMac2(&scene.message, &scene.from, now, &fresh_secret);
    }

    fn createReply(scene: *Scene, now: Instant) messages.CookieReply {
        var reply: messages.CookieReply = undefined;
        const fresh_secret = crypto.hash(&.{std.mem.asBytes(&now.ns)});
        scene.checker.createReply(&reply, &scene.message, &scene.from, 5, &@as([24]u8, @splat(3)), now, &fresh_secret);
        return reply;
    }

    /// The peer has a cookie, and has sent the message again with it.
    fn exchange(scene: *Scene) !void {
        const reply = scene.createReply(beginning);
        try testing.expect(scene.maker.consumeReply(&reply, beginning));
        scene.maker.addMacs(&scene.message, beginning);
    }
};

test "MACs and cookie reply equal the reference byte for byte" {
    for (transcripts) |transcript| {
        const public = unhex(32, transcript.responder_public);
        const secret = unhex(32, transcript.cookie_secret);
        const from: wire.SocketAddress = .{
            .address = wire.Address.parse(transcript.source_address).?,
            .port = @intCast(transcript.source_port),
        };
        var checker: Checker = .init;
        checker.setKey(&public);
        var maker: Maker = .init(&public);

        const expected = unhex(148, transcript.initiation);
        var message = expected;
        @memset(message[148 - 32 ..], 0xff);
        maker.addMacs(&message, beginning);
        try testing.expectEqual(expected, message);
        try testing.expect(checker.checkMac1(&message));
        try testing.expect(!checker.checkMac2(&message, &from, beginning, &secret));

        var reply: messages.CookieReply = undefined;
        const nonce = unhex(24, transcript.cookie_nonce);
        const index: u32 = @intCast(transcript.initiator_index);
        checker.createReply(&reply, &message, &from, index, &nonce, beginning, &secret);
        try testing.expectEqual(unhex(64, transcript.cookie_reply), std.mem.toBytes(reply));

        try testing.expect(maker.consumeReply(&reply, beginning));
        try testing.expectEqual(unhex(16, transcript.cookie), maker.cookie);
        maker.addMacs(&message, beginning);
        try testing.expectEqual(unhex(148, transcript.initiation_with_cookie), message);
        try testing.expect(checker.checkMac1(&message));
        try testing.expect(checker.checkMac2(&message, &from, beginning, &secret));

        const response_expected = unhex(92, transcript.response);
        var response = response_expected;
        @memset(response[92 - 32 ..], 0xff);
        maker = .init(&unhex(32, transcript.initiator_public));
        maker.addMacs(&response, beginning);
        try testing.expectEqual(response_expected, response);
        checker.setKey(&unhex(32, transcript.initiator_public));
        try testing.expect(checker.checkMac1(&response));
    }
}

test "every bit before MAC2 counts for MAC1" {
    var scene: Scene = .init();
    for (0..8 * (148 - 16)) |bit| {
        scene.message[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
        try testing.expect(!scene.checkMac1());
        scene.message[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
    }
    try testing.expect(scene.checkMac1());
}

test "every bit of MAC2 counts under load" {
    var scene: Scene = .init();
    try scene.exchange();
    for (8 * (148 - 16)..8 * 148) |bit| {
        scene.message[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
        try testing.expect(!scene.checkMac2(beginning));
        scene.message[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
    }
    try testing.expect(scene.checkMac2(beginning));
}

test "a cookie serves only the address and port it was given to" {
    var scene: Scene = .init();
    try scene.exchange();
    try testing.expect(scene.checkMac2(beginning));
    const sources = [_][]const u8{ "192.0.2.7:51821", "192.0.2.8:51820", "[2001:db8::7]:51820", "[c000:207::]:51820" };
    for (sources) |source| {
        scene.from = wire.SocketAddress.parse(source).?;
        try testing.expect(!scene.checkMac2(beginning));
    }
}

test "the checker's secret lives for COOKIE_REFRESH_TIME" {
    var scene: Scene = .init();
    try scene.exchange();
    const end = beginning.after(constants.COOKIE_REFRESH_TIME);
    try testing.expect(scene.checkMac2(.{ .ns = end.ns - 1 }));
    const secret = scene.checker.secret;
    try testing.expect(!scene.checkMac2(end));
    try testing.expect(!crypto.eql32(&secret, &scene.checker.secret));
    try testing.expectEqual(end, scene.checker.secret_birth.?);
}

test "the maker uses a cookie until shortly before its secret dies" {
    var scene: Scene = .init();
    try scene.exchange();
    const end = beginning.after(115 * std.time.ns_per_s);
    scene.maker.addMacs(&scene.message, .{ .ns = end.ns - 1 });
    try testing.expect(!std.mem.allEqual(u8, scene.message[148 - 16 ..], 0));
    scene.maker.addMacs(&scene.message, end);
    try testing.expect(std.mem.allEqual(u8, scene.message[148 - 16 ..], 0));
    try testing.expect(!scene.checkMac2(end));
}

test "a cookie reply that is changed, late, repeated or for another message is refused and changes nothing" {
    var scene: Scene = .init();
    const reply = scene.createReply(beginning);
    const before = scene.maker;
    for (@offsetOf(messages.CookieReply, "nonce")..@sizeOf(messages.CookieReply)) |position| {
        for (0..8) |bit| {
            var changed = reply;
            std.mem.asBytes(&changed)[position] ^= @as(u8, 1) << @intCast(bit);
            try testing.expect(!scene.maker.consumeReply(&changed, beginning));
        }
    }
    var silent: Maker = .init(&unhex(32, transcripts[0].responder_public));
    try testing.expect(!silent.consumeReply(&reply, beginning));
    try testing.expectEqual(before, scene.maker);

    var later = scene;
    later.message[4] ^= 1;
    later.maker.addMacs(&later.message, beginning);
    try testing.expect(!later.maker.consumeReply(&reply, beginning));

    try testing.expect(scene.maker.consumeReply(&reply, beginning));
    try testing.expect(!scene.maker.consumeReply(&reply, beginning));
    scene.maker.addMacs(&scene.message, beginning);
    try testing.expect(scene.maker.consumeReply(&reply, beginning));
}
