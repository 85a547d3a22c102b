//! MAC1, MAC2 and cookies: whitepaper sections 5.3, 5.4.4 and 5.4.7. A Maker (one per peer) proves, a Checker (one per
//! interface) demands. Knows neither handshake nor load: the caller knows whether it is under load and what time it is,
//! and brings the random bytes. Knows no rate either: load.zig and rate_limiter.zig have them.
//! Invariant: a cookie is worth something only from the address and port it was sent to, and for one secret's life.
const std = @import("std");
const assert = @import("wire").assert;
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

/// What a checker needs of chance for each of its secrets.
pub const Fresh = struct {
    secret: [32]u8 = @splat(0),
    nonce_prefix: [nonce_prefix_length]u8 = @splat(0),

    pub fn zero(fresh: *Fresh) void {
        crypto.zero(fresh);
    }
};

/// The rest of a cookie reply's nonce is a counter.
const nonce_prefix_length = 16;

pub const Checker = struct {
    mac1_key: [32]u8,
    cookie_encryption_key: [32]u8,
    secret: [32]u8,
    /// When the secret was drawn; null before the first cookie.
    secret_birth: ?Instant,
    /// Nonces of cookie replies must not repeat under one key, which lives as long as our own. So they begin with what
    /// was drawn with the secret, and then count: a flood costs no system call for each. Should a copy of the whole
    /// machine repeat them, two cookies show what they differ by, to somebody who sees both replies; and a cookie is
    /// good for nothing but the source that it was sent to in any case.
    nonce_prefix: [nonce_prefix_length]u8,
    nonce_counter: u64,

    pub const init: Checker = .{
        .mac1_key = @splat(0),
        .cookie_encryption_key = @splat(0),
        .secret = @splat(0),
        .secret_birth = null,
        .nonce_prefix = @splat(0),
        .nonce_counter = 0,
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

    /// Whether the message was meant for us: without that it gets no answer. `message_bytes` is a whole initiation or
    /// response. Needs nothing secret, so it comes first.
    pub fn checkMac1(checker: *const Checker, message_bytes: []const u8) bool {
        const mac1 = crypto.mac(&checker.mac1_key, message_bytes[0..mac1Start(message_bytes)]);
        return crypto.eql16(&mac1, mac1Of(message_bytes));
    }

    /// Whether there is no secret, or one past its time: then `refresh` comes before `makeCookie`.
    pub fn needsSecret(checker: *const Checker, now: Instant) bool {
        const birth = checker.secret_birth orelse return true;
        return now.since(birth) >= constants.COOKIE_REFRESH_TIME;
    }

    pub fn refresh(checker: *Checker, fresh: *const Fresh, now: Instant) void {
        assert(checker.needsSecret(now));
        checker.secret = fresh.secret;
        checker.secret_birth = now;
        checker.nonce_prefix = fresh.nonce_prefix;
        checker.nonce_counter = 0;
    }

    /// What only who receives at `from` can know: to be compared by `checkMac2`, and sent by `createReply`.
    /// A MAC over address *and port*: behind one address translator, one guest's cookie must not serve another.
    pub fn makeCookie(checker: *const Checker, from: *const wire.SocketAddress) [mac_length]u8 {
        assert(checker.secret_birth != null);
        const address = from.address.slice();
        var source: [16 + 2]u8 = undefined;
        @memcpy(source[0..address.len], address);
        std.mem.writeInt(u16, source[address.len..][0..2], from.port, .big);
        return crypto.mac(&checker.secret, source[0 .. address.len + 2]);
    }

    /// Answers a message that passed `checkMac1` but not `checkMac2`. `receiver_index` is that message's sender.
    pub fn createReply(
        checker: *Checker,
        reply: *messages.CookieReply,
        message_bytes: []const u8,
        cookie: *const [mac_length]u8,
        receiver_index: u32,
    ) void {
        reply.* = std.mem.zeroes(messages.CookieReply);
        reply.kind = @backingInt(messages.Kind.cookie_reply);
        std.mem.writeInt(u32, &reply.receiver, receiver_index, .little);
        reply.nonce[0..nonce_prefix_length].* = checker.nonce_prefix;
        std.mem.writeInt(u64, reply.nonce[nonce_prefix_length..], checker.nonce_counter, .little);
        checker.nonce_counter += 1;
        const key = &checker.cookie_encryption_key;
        crypto.xaeadSeal(&reply.cookie, key, &reply.nonce, cookie, mac1Of(message_bytes));
    }
};

/// Whether the message has a MAC2 at all: who has no cookie leaves zeros there.
pub fn hasMac2(message_bytes: []const u8) bool {
    return !std.mem.allEqual(u8, message_bytes[mac2Start(message_bytes)..], 0);
}

/// Whether the source receives what we send to it, so that its rate can be limited. To be asked under load, after
/// `checkMac1`; if not, the answer is a cookie reply. `cookie` is what it should have used.
pub fn checkMac2(message_bytes: []const u8, cookie: *const [mac_length]u8) bool {
    const start = mac2Start(message_bytes);
    const mac2 = crypto.mac(cookie, message_bytes[0..start]);
    return crypto.eql16(&mac2, message_bytes[start..][0..mac_length]);
}

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

    /// False, and nothing changed, unless the reply answers the last message we sent. The cookie goes with the next
    /// one: `Timers.cookieReceived` says when that is.
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
const cookie_file = @This();
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

    fn makeCookie(scene: *Scene, now: Instant) [mac_length]u8 {
        if (scene.checker.needsSecret(now)) {
            const chance = crypto.hash(&.{std.mem.asBytes(&now.ns)});
            scene.checker.refresh(&.{ .secret = chance, .nonce_prefix = chance[8..24].* }, now);
        }
        return scene.checker.makeCookie(&scene.from);
    }

    fn checkMac2(scene: *Scene, now: Instant) bool {
        return cookie_file.checkMac2(&scene.message, &scene.makeCookie(now));
    }

    fn createReply(scene: *Scene, now: Instant) messages.CookieReply {
        var reply: messages.CookieReply = undefined;
        scene.checker.createReply(&reply, &scene.message, &scene.makeCookie(now), 5);
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
        const nonce = unhex(24, transcript.cookie_nonce);
        checker.refresh(&.{ .secret = secret, .nonce_prefix = nonce[0..16].* }, beginning);
        checker.nonce_counter = std.mem.readInt(u64, nonce[16..24], .little);
        const cookie = checker.makeCookie(&from);
        try testing.expect(!cookie_file.checkMac2(&message, &cookie));

        var reply: messages.CookieReply = undefined;
        const index: u32 = @intCast(transcript.initiator_index);
        checker.createReply(&reply, &message, &cookie, index);
        try testing.expectEqual(unhex(64, transcript.cookie_reply), std.mem.toBytes(reply));

        try testing.expect(maker.consumeReply(&reply, beginning));
        try testing.expectEqual(unhex(16, transcript.cookie), maker.cookie);
        maker.addMacs(&message, beginning);
        try testing.expectEqual(unhex(148, transcript.initiation_with_cookie), message);
        try testing.expect(checker.checkMac1(&message));
        try testing.expect(cookie_file.checkMac2(&message, &cookie));

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

test "no two cookie replies have the same nonce, and no two secrets the same nonces" {
    var scene: Scene = .init();
    var seen: std.AutoHashMapUnmanaged([24]u8, void) = .empty;
    defer seen.deinit(testing.allocator);
    for (0..4) |life| for (0..300) |_| {
        const reply = scene.createReply(beginning.after(life * constants.COOKIE_REFRESH_TIME));
        try testing.expect(!(try seen.getOrPut(testing.allocator, reply.nonce)).found_existing);
    };
    try testing.expectEqual(1200, seen.count());
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
