//! Handshake: Noise_IKpsk2 as whitepaper sections 5.4.2 to 5.4.5 write it. Creates and consumes the initiation and the
//! response, then begins a session. Knows no peer, clock, randomness or MAC: keys, timestamps and ephemerals arrive as
//! arguments, MAC1 and MAC2 stay zero for cookie.zig to fill. Type and length of a message are the caller's to check.
//! Invariant: a Handshake changes only when a message was created whole or is authentic, and every secret is zeroed at
//! the end of the function that derived it.
const std = @import("std");
const assert = @import("wire").assert;
const messages = @import("wire").messages;
const constants = @import("constants.zig");
const crypto = @import("crypto.zig");
const Timestamp = @import("time.zig").Timestamp;

const initial_chaining_key = initial[0];
const initial_hash = initial[1];
const initial: [2][32]u8 = blk: {
    @setEvalBranchQuota(100_000);
    var chaining_key: [32]u8 = undefined;
    var hash: [32]u8 = undefined;
    const Hash = std.crypto.hash.blake2.Blake2s256;
    Hash.hash(constants.CONSTRUCTION, &chaining_key, .{});
    Hash.hash(chaining_key ++ constants.IDENTIFIER, &hash, .{});
    break :blk .{ chaining_key, hash };
};

/// Our own static key pair.
pub const Local = struct {
    /// Clamped.
    private: [32]u8,
    public: [32]u8,

    pub fn init(private: *const [32]u8) Local {
        var local: Local = .{ .private = private.*, .public = undefined };
        crypto.clamp(&local.private);
        local.public = crypto.publicKey(&local.private);
        return local;
    }

    pub fn zero(local: *Local) void {
        crypto.zero(local);
    }
};

/// What we know of a peer before any handshake.
pub const Remote = struct {
    static: [32]u8,
    /// DH of both static keys, computed once; zero unless `agreement` is `usable`.
    static_static: [32]u8,
    agreement: Agreement,
    /// All zeros when there is none, which is what the protocol then mixes in.
    preshared: [32]u8,

    pub const Agreement = enum {
        /// Not computed yet: many peers cost nothing until one of them is spoken to.
        unknown,
        usable,
        /// The peer's key has a small order: no handshake begins.
        weak,
    };

    pub fn init(static: *const [32]u8, preshared: *const [32]u8) Remote {
        return .{
            .static = static.*,
            .static_static = @splat(0),
            .agreement = .unknown,
            .preshared = preshared.*,
        };
    }

    /// Computes `static_static` if that was not done yet: before `createInitiation` and `finishInitiation`.
    pub fn agree(remote: *Remote, local: *const Local) void {
        if (remote.agreement != .unknown) return;
        remote.agreement = .weak;
        remote.static_static = crypto.dh(&local.private, &remote.static) catch return;
        remote.agreement = .usable;
    }

    /// To be called for every peer when our own key changes.
    pub fn forgetAgreement(remote: *Remote) void {
        remote.agreement = .unknown;
        crypto.zero(&remote.static_static);
    }

    pub fn zero(remote: *Remote) void {
        crypto.zero(remote);
    }
};

pub const State = enum { zeroed, created_initiation, consumed_initiation, created_response, consumed_response };

/// The keys of one session, as one side sees them.
pub const Keys = struct {
    sending: [32]u8,
    receiving: [32]u8,
    local_index: u32,
    remote_index: u32,
    is_initiator: bool,

    pub fn zero(keys: *Keys) void {
        crypto.zero(keys);
    }
};

/// The first half of an initiation: authentic as far as the initiator's static key goes, but perhaps a replay.
/// Secret: `zero` it at every exit.
pub const OpenedInitiation = struct {
    /// Who claims to speak; the caller looks up the peer.
    static: [32]u8,
    running: Running,

    pub fn zero(opened: *OpenedInitiation) void {
        crypto.zero(opened);
    }
};

pub const Handshake = struct {
    state: State,
    hash: [32]u8,
    chaining_key: [32]u8,
    /// The initiator's, from initiation to response.
    ephemeral_private: [32]u8,
    remote_ephemeral: [32]u8,
    local_index: u32,
    remote_index: u32,

    pub const zeroed: Handshake = .{
        .state = .zeroed,
        .hash = @splat(0),
        .chaining_key = @splat(0),
        .ephemeral_private = @splat(0),
        .remote_ephemeral = @splat(0),
        .local_index = 0,
        .remote_index = 0,
    };

    pub fn clear(h: *Handshake) void {
        crypto.zero(h);
        h.* = .zeroed;
    }

    /// After `agree`. Replaces whatever handshake was under way. On an error the message is not to be sent.
    pub fn createInitiation(
        h: *Handshake,
        local: *const Local,
        remote: *const Remote,
        local_index: u32,
        ephemeral_private: *const [32]u8,
        timestamp: *const Timestamp,
        message: *messages.Initiation,
    ) error{WeakPublicKey}!void {
        if (remote.agreement != .usable) return error.WeakPublicKey;
        var running: Running = .init(&remote.static);
        defer running.zero();
        var key: [32]u8 = undefined;
        defer crypto.zero(&key);
        message.* = std.mem.zeroes(messages.Initiation);
        message.kind = @backingInt(messages.Kind.initiation);
        std.mem.writeInt(u32, &message.sender, local_index, .little);

        // e
        message.ephemeral = crypto.publicKey(ephemeral_private);
        running.mixEphemeral(&message.ephemeral);
        // es
        try running.mixDh(&key, ephemeral_private, &remote.static);
        // s
        running.seal(&message.static, &key, &local.public);
        // ss
        running.mixKey(&key, &remote.static_static);
        // {t}
        running.seal(&message.timestamp, &key, timestamp);

        h.* = .{
            .state = .created_initiation,
            .hash = running.hash,
            .chaining_key = running.chaining_key,
            .ephemeral_private = ephemeral_private.*,
            .remote_ephemeral = @splat(0),
            .local_index = local_index,
            .remote_index = 0,
        };
    }

    /// After `finishInitiation`, once the timestamp is new and the peer does not flood us.
    /// Replaces whatever handshake was under way.
    pub fn acceptInitiation(h: *Handshake, opened: *const OpenedInitiation, message: *const messages.Initiation) void {
        crypto.zero(&h.ephemeral_private);
        h.* = .{
            .state = .consumed_initiation,
            .hash = opened.running.hash,
            .chaining_key = opened.running.chaining_key,
            .ephemeral_private = @splat(0),
            .remote_ephemeral = message.ephemeral,
            .local_index = 0,
            .remote_index = std.mem.readInt(u32, &message.sender, .little),
        };
    }

    /// After `acceptInitiation`. Our ephemeral key is not kept: nothing needs it after this message.
    pub fn createResponse(
        h: *Handshake,
        remote: *const Remote,
        local_index: u32,
        ephemeral_private: *const [32]u8,
        message: *messages.Response,
    ) error{WeakPublicKey}!void {
        assert(h.state == .consumed_initiation);
        var running: Running = .{ .hash = h.hash, .chaining_key = h.chaining_key };
        defer running.zero();
        var key: [32]u8 = undefined;
        defer crypto.zero(&key);
        message.* = std.mem.zeroes(messages.Response);
        message.kind = @backingInt(messages.Kind.response);
        std.mem.writeInt(u32, &message.sender, local_index, .little);
        std.mem.writeInt(u32, &message.receiver, h.remote_index, .little);

        // e
        message.ephemeral = crypto.publicKey(ephemeral_private);
        running.mixEphemeral(&message.ephemeral);
        // ee
        try running.mixDh(&key, ephemeral_private, &h.remote_ephemeral);
        // se
        try running.mixDh(&key, ephemeral_private, &remote.static);
        // psk
        running.mixPreshared(&key, &remote.preshared);
        // {}
        running.seal(&message.empty, &key, "");

        h.hash = running.hash;
        h.chaining_key = running.chaining_key;
        h.local_index = local_index;
        h.state = .created_response;
    }

    /// False, and nothing changed, unless the message answers this handshake and is authentic.
    pub fn consumeResponse(
        h: *Handshake,
        local: *const Local,
        remote: *const Remote,
        message: *const messages.Response,
    ) bool {
        switch (h.state) {
            .created_initiation => {},
            .zeroed, .consumed_initiation, .created_response, .consumed_response => return false,
        }
        if (std.mem.readInt(u32, &message.receiver, .little) != h.local_index) return false;
        var running: Running = .{ .hash = h.hash, .chaining_key = h.chaining_key };
        defer running.zero();
        var key: [32]u8 = undefined;
        defer crypto.zero(&key);

        // e
        running.mixEphemeral(&message.ephemeral);
        // ee
        running.mixDh(&key, &h.ephemeral_private, &message.ephemeral) catch return false;
        // se
        running.mixDh(&key, &local.private, &message.ephemeral) catch return false;
        // psk
        running.mixPreshared(&key, &remote.preshared);
        // {}
        if (!running.open(&.{}, &key, &message.empty)) return false;

        h.hash = running.hash;
        h.chaining_key = running.chaining_key;
        crypto.zero(&h.ephemeral_private);
        h.remote_ephemeral = message.ephemeral;
        h.remote_index = std.mem.readInt(u32, &message.sender, .little);
        h.state = .consumed_response;
        return true;
    }

    /// Section 5.4.5. Null, and nothing changed, unless both messages have passed. Otherwise forgets the handshake,
    /// without which old sessions could be derived again.
    pub fn beginSession(h: *Handshake) ?Keys {
        const is_initiator = switch (h.state) {
            .consumed_response => true,
            .created_response => false,
            .zeroed, .created_initiation, .consumed_initiation => return null,
        };
        var keys: Keys = .{
            .sending = undefined,
            .receiving = undefined,
            .local_index = h.local_index,
            .remote_index = h.remote_index,
            .is_initiator = is_initiator,
        };
        defer keys.zero();
        if (is_initiator) {
            crypto.kdf2(&keys.sending, &keys.receiving, &h.chaining_key, "");
        } else {
            crypto.kdf2(&keys.receiving, &keys.sending, &h.chaining_key, "");
        }
        h.clear();
        return keys;
    }
};

/// First half, for a message from anyone: tells who claims to speak. Null when it was not made for our key.
pub fn openInitiation(local: *const Local, message: *const messages.Initiation) ?OpenedInitiation {
    var opened: OpenedInitiation = .{ .static = undefined, .running = .init(&local.public) };
    defer opened.zero();
    var key: [32]u8 = undefined;
    defer crypto.zero(&key);

    // e
    opened.running.mixEphemeral(&message.ephemeral);
    // es
    opened.running.mixDh(&key, &local.private, &message.ephemeral) catch return null;
    // s
    if (!opened.running.open(&opened.static, &key, &message.static)) return null;
    return opened;
}

/// Second half, after `agree`, with the peer that `opened.static` names: proves that it holds the private key, gives
/// the timestamp. No Handshake is touched, so that the caller can refuse a replay first. False, and nothing changed,
/// unless authentic.
pub fn finishInitiation(
    opened: *OpenedInitiation,
    remote: *const Remote,
    message: *const messages.Initiation,
    timestamp_out: *Timestamp,
) bool {
    assert(std.mem.eql(u8, &opened.static, &remote.static));
    if (remote.agreement != .usable) return false;
    var running = opened.running;
    defer running.zero();
    var key: [32]u8 = undefined;
    defer crypto.zero(&key);
    var timestamp: Timestamp = undefined;

    // ss
    running.mixKey(&key, &remote.static_static);
    // {t}
    if (!running.open(&timestamp, &key, &message.timestamp)) return false;

    opened.running = running;
    timestamp_out.* = timestamp;
    return true;
}

/// Noise's symmetric state: the chaining key C and hash H of the whitepaper.
const Running = struct {
    hash: [32]u8,
    chaining_key: [32]u8,

    fn init(responder_static: *const [32]u8) Running {
        return .{ .hash = crypto.hash(&.{ &initial_hash, responder_static }), .chaining_key = initial_chaining_key };
    }

    fn zero(running: *Running) void {
        crypto.zero(running);
    }

    fn mixHash(running: *Running, data: []const u8) void {
        running.hash = crypto.hash(&.{ &running.hash, data });
    }

    /// With a pre-shared key, Noise mixes ephemerals into the chaining key too.
    fn mixEphemeral(running: *Running, public: *const [32]u8) void {
        running.mixHash(public);
        crypto.kdf1(&running.chaining_key, &running.chaining_key, public);
    }

    fn mixKey(running: *Running, key: *[32]u8, secret: *const [32]u8) void {
        crypto.kdf2(&running.chaining_key, key, &running.chaining_key, secret);
    }

    fn mixDh(running: *Running, key: *[32]u8, private: *const [32]u8, public: *const [32]u8) error{WeakPublicKey}!void {
        var secret = try crypto.dh(private, public);
        defer crypto.zero(&secret);
        running.mixKey(key, &secret);
    }

    fn mixPreshared(running: *Running, key: *[32]u8, preshared: *const [32]u8) void {
        var tau: [32]u8 = undefined;
        defer crypto.zero(&tau);
        crypto.kdf3(&running.chaining_key, &tau, key, &running.chaining_key, preshared);
        running.mixHash(&tau);
    }

    fn seal(running: *Running, out: []u8, key: *const [32]u8, plaintext: []const u8) void {
        crypto.aeadSeal(out, key, 0, plaintext, &running.hash);
        running.mixHash(out);
    }

    fn open(running: *Running, out: []u8, key: *const [32]u8, sealed: []const u8) bool {
        if (!crypto.aeadOpen(out, key, 0, sealed, &running.hash)) return false;
        running.mixHash(sealed);
        return true;
    }
};

const testing = std.testing;
const Transcript = @import("testdata/transcripts.zig").Transcript;
const transcripts = @import("testdata/transcripts.zig").transcripts;

fn unhex(comptime length: usize, text: []const u8) [length]u8 {
    var bytes: [length]u8 = undefined;
    const decoded = std.fmt.hexToBytes(&bytes, text) catch unreachable;
    assert(decoded.len == length);
    return bytes;
}

fn agreed(local: *const Local, static: *const [32]u8, preshared: *const [32]u8) Remote {
    var remote: Remote = .init(static, preshared);
    remote.agree(local);
    return remote;
}

/// Both ends of a handshake, with the keys of a transcript.
const Pair = struct {
    initiator: Local,
    responder: Local,
    /// As each sees the other.
    responder_remote: Remote,
    initiator_remote: Remote,
    initiator_handshake: Handshake = .zeroed,
    responder_handshake: Handshake = .zeroed,
    transcript: Transcript,

    fn init(transcript: Transcript) Pair {
        const initiator: Local = .init(&unhex(32, transcript.initiator_private));
        const responder: Local = .init(&unhex(32, transcript.responder_private));
        const preshared = unhex(32, transcript.preshared_key);
        return .{
            .initiator = initiator,
            .responder = responder,
            .responder_remote = agreed(&initiator, &responder.public, &preshared),
            .initiator_remote = agreed(&responder, &initiator.public, &preshared),
            .transcript = transcript,
        };
    }

    fn createInitiation(pair: *Pair) !messages.Initiation {
        var message: messages.Initiation = undefined;
        const ephemeral = unhex(32, pair.transcript.initiator_ephemeral);
        const timestamp = unhex(12, pair.transcript.timestamp);
        const index: u32 = @intCast(pair.transcript.initiator_index);
        const h = &pair.initiator_handshake;
        try h.createInitiation(&pair.initiator, &pair.responder_remote, index, &ephemeral, &timestamp, &message);
        return message;
    }

    fn consumeInitiation(pair: *Pair, message: *const messages.Initiation) !Timestamp {
        var opened = openInitiation(&pair.responder, message) orelse return error.Refused;
        defer opened.zero();
        if (!std.mem.eql(u8, &opened.static, &pair.initiator.public)) return error.Refused;
        var timestamp: Timestamp = undefined;
        if (!finishInitiation(&opened, &pair.initiator_remote, message, &timestamp)) return error.Refused;
        pair.responder_handshake.acceptInitiation(&opened, message);
        return timestamp;
    }

    fn createResponse(pair: *Pair) !messages.Response {
        var message: messages.Response = undefined;
        const ephemeral = unhex(32, pair.transcript.responder_ephemeral);
        const index: u32 = @intCast(pair.transcript.responder_index);
        try pair.responder_handshake.createResponse(&pair.initiator_remote, index, &ephemeral, &message);
        return message;
    }

    fn consumeResponse(pair: *Pair, message: *const messages.Response) bool {
        return pair.initiator_handshake.consumeResponse(&pair.initiator, &pair.responder_remote, message);
    }

    /// The response to a fresh handshake.
    fn respond(pair: *Pair) !messages.Response {
        _ = try pair.consumeInitiation(&try pair.createInitiation());
        return pair.createResponse();
    }
};

fn expectHex(expected: []const u8, actual: []const u8) !void {
    var buffer: [512]u8 = undefined;
    try testing.expectEqualStrings(expected, try std.mem.print(&buffer, "{x}", .{actual}));
}

test "a handshake equals the reference byte for byte" {
    for (transcripts) |transcript| {
        var pair: Pair = .init(transcript);
        try expectHex(transcript.initiator_public, &pair.initiator.public);
        try expectHex(transcript.responder_public, &pair.responder.public);

        const initiation = try pair.createInitiation();
        try expectHex(transcript.initiation[0 .. 2 * (148 - 32)], std.mem.asBytes(&initiation)[0 .. 148 - 32]);
        try testing.expect(std.mem.allEqual(u8, std.mem.asBytes(&initiation)[148 - 32 ..], 0));
        try expectHex(transcript.initiation_hash, &pair.initiator_handshake.hash);
        try expectHex(transcript.initiation_chaining_key, &pair.initiator_handshake.chaining_key);
        try testing.expectEqual(null, pair.initiator_handshake.beginSession());

        try expectHex(transcript.timestamp, &try pair.consumeInitiation(&initiation));
        try expectHex(transcript.initiation_hash, &pair.responder_handshake.hash);
        try testing.expectEqual(transcript.initiator_index, pair.responder_handshake.remote_index);
        try testing.expectEqual(null, pair.responder_handshake.beginSession());

        const response = try pair.createResponse();
        try expectHex(transcript.response[0 .. 2 * (92 - 32)], std.mem.asBytes(&response)[0 .. 92 - 32]);
        try testing.expect(std.mem.allEqual(u8, std.mem.asBytes(&response)[92 - 32 ..], 0));
        try testing.expect(pair.consumeResponse(&response));
        try expectHex(transcript.final_hash, &pair.initiator_handshake.hash);
        for ([_]*const Handshake{ &pair.initiator_handshake, &pair.responder_handshake }) |h| {
            try testing.expect(std.mem.allEqual(u8, &h.ephemeral_private, 0));
        }
        try expectHex(transcript.final_chaining_key, &pair.responder_handshake.chaining_key);
        try expectSessions(&pair);
    }
}

/// Both ends derive the transcript's keys, crosswise, and forget the handshake.
fn expectSessions(pair: *Pair) !void {
    const transcript = pair.transcript;
    const initiator_keys = pair.initiator_handshake.beginSession().?;
    const responder_keys = pair.responder_handshake.beginSession().?;
    try testing.expectEqual(Handshake.zeroed, pair.initiator_handshake);
    try testing.expectEqual(Handshake.zeroed, pair.responder_handshake);
    try expectHex(transcript.initiator_sending, &initiator_keys.sending);
    try expectHex(transcript.initiator_receiving, &initiator_keys.receiving);
    try testing.expectEqual(Keys{
        .sending = initiator_keys.receiving,
        .receiving = initiator_keys.sending,
        .local_index = initiator_keys.remote_index,
        .remote_index = initiator_keys.local_index,
        .is_initiator = false,
    }, responder_keys);
    try testing.expect(initiator_keys.is_initiator);
    try testing.expectEqual(transcript.initiator_index, initiator_keys.local_index);
    try testing.expectEqual(transcript.responder_index, initiator_keys.remote_index);

    const transport = unhex(96, transcript.transport);
    const header: messages.TransportHeader = .init(initiator_keys.remote_index, 0);
    try testing.expectEqualSlices(u8, transport[0..16], std.mem.asBytes(&header));
    var packet: [64]u8 = undefined;
    try testing.expect(crypto.aeadOpen(&packet, &responder_keys.receiving, 0, transport[16..], ""));
    try expectHex(transcript.packet, packet[0..50]);
    const keepalive = unhex(32, transcript.keepalive);
    const counter = transcript.keepalive_counter;
    try testing.expect(crypto.aeadOpen(&.{}, &initiator_keys.receiving, counter, keepalive[16..], ""));
}

test "a bit flipped in any byte that Noise covers is refused and changes nothing" {
    var pair: Pair = .init(transcripts[1]);
    const initiation = try pair.createInitiation();
    const before = pair;
    for (@offsetOf(messages.Initiation, "ephemeral")..@offsetOf(messages.Initiation, "mac1")) |position| {
        var changed = initiation;
        // Bit 7 too, of which X25519 itself would ignore one.
        for ([_]u3{ @truncate(position), 7 }) |bit| {
            std.mem.asBytes(&changed)[position] = std.mem.asBytes(&initiation)[position] ^ @as(u8, 1) << bit;
            try testing.expectError(error.Refused, pair.consumeInitiation(&changed));
        }
    }
    try testing.expectEqual(before, pair);

    _ = try pair.consumeInitiation(&initiation);
    const response = try pair.createResponse();
    const waiting = pair;
    // From the receiver index on: only the sender index before it is left to MAC1.
    for (@offsetOf(messages.Response, "receiver")..@offsetOf(messages.Response, "mac1")) |position| {
        var changed = response;
        for ([_]u3{ @truncate(position), 7 }) |bit| {
            std.mem.asBytes(&changed)[position] = std.mem.asBytes(&response)[position] ^ @as(u8, 1) << bit;
            try testing.expect(!pair.consumeResponse(&changed));
        }
    }
    try testing.expectEqual(waiting, pair);
    try testing.expect(pair.consumeResponse(&response));
}

test "another pre-shared key is refused and changes nothing" {
    for (transcripts) |transcript| {
        var pair: Pair = .init(transcript);
        const response = try pair.respond();
        const right = pair.responder_remote.preshared;
        pair.responder_remote.preshared[31] ^= 1;
        const before = pair;
        try testing.expect(!pair.consumeResponse(&response));
        try testing.expectEqual(before, pair);
        pair.responder_remote.preshared = right;
        try testing.expect(pair.consumeResponse(&response));
    }
}

test "a response is consumed once, in the right state and by the right handshake" {
    var pair: Pair = .init(transcripts[0]);
    const response = try pair.respond();
    var other: Pair = .init(transcripts[0]);
    try testing.expect(!other.consumeResponse(&response));
    // The responder is no initiator, though it holds the same hash.
    try testing.expect(!pair.responder_handshake.consumeResponse(&pair.responder, &pair.initiator_remote, &response));
    try testing.expect(pair.consumeResponse(&response));
    try testing.expect(!pair.consumeResponse(&response));
    try testing.expect(pair.initiator_handshake.beginSession() != null);
    try testing.expect(!pair.consumeResponse(&response));
    try testing.expectEqual(null, pair.initiator_handshake.beginSession());
}

test "an initiation for another key or by another peer is refused" {
    var pair: Pair = .init(transcripts[0]);
    const initiation = try pair.createInitiation();
    try testing.expectEqual(null, openInitiation(&pair.initiator, &initiation));
    // Anyone can name a static key of someone else; the timestamp proves possession.
    const stranger: Local = .init(&@as([32]u8, @splat(9)));
    const liar: Local = .{ .private = stranger.private, .public = pair.initiator.public };
    const remote = agreed(&liar, &pair.responder.public, &@as([32]u8, @splat(0)));
    var message: messages.Initiation = undefined;
    var handshake: Handshake = .zeroed;
    try handshake.createInitiation(&liar, &remote, 1, &@as([32]u8, @splat(7)), &@as(Timestamp, @splat(0)), &message);
    var opened = openInitiation(&pair.responder, &message).?;
    const before = opened;
    var timestamp: Timestamp = @splat(0xaa);
    try testing.expect(!finishInitiation(&opened, &pair.initiator_remote, &message, &timestamp));
    try testing.expectEqual(before, opened);
    try testing.expectEqual(@as(Timestamp, @splat(0xaa)), timestamp);
}

/// The points of small order, each with and without the bit that X25519 ignores.
fn weakKey(number: usize) [32]u8 {
    var key = crypto.low_order_points[number / 2];
    key[31] ^= @as(u8, @intCast(number % 2)) << 7;
    return key;
}

test "static keys of small order are refused in both messages" {
    for (0..2 * crypto.low_order_points.len) |number| {
        var pair: Pair = .init(transcripts[0]);
        const before = pair.initiator_handshake;
        const weak = agreed(&pair.initiator, &weakKey(number), &@as([32]u8, @splat(0)));
        try testing.expectEqual(.weak, weak.agreement);
        try testing.expect(std.mem.allEqual(u8, &weak.static_static, 0));

        // Sent to one.
        const right = pair.responder_remote;
        pair.responder_remote = weak;
        try testing.expectError(error.WeakPublicKey, pair.createInitiation());
        pair.responder_remote.agreement = .usable; // es finds it as well
        try testing.expectError(error.WeakPublicKey, pair.createInitiation());
        try testing.expectEqual(before, pair.initiator_handshake);

        // Received from one: the secret of both static keys is zero, so anyone can write this message.
        pair.responder_remote = right;
        pair.responder_remote.static_static = @splat(0);
        pair.initiator.public = weak.static;
        const initiation = try pair.createInitiation();
        var opened = openInitiation(&pair.responder, &initiation).?;
        pair.initiator_remote = agreed(&pair.responder, &opened.static, &@as([32]u8, @splat(0)));
        var timestamp: Timestamp = undefined;
        try testing.expect(!finishInitiation(&opened, &pair.initiator_remote, &initiation, &timestamp));

        // Answered to one, had it come so far.
        pair.responder_handshake.acceptInitiation(&opened, &initiation);
        const waiting = pair.responder_handshake;
        try testing.expectError(error.WeakPublicKey, pair.createResponse());
        try testing.expectEqual(waiting, pair.responder_handshake);
    }
}

test "ephemeral keys of small order are refused in both messages" {
    for (0..2 * crypto.low_order_points.len) |number| {
        var pair: Pair = .init(transcripts[0]);
        var key: [32]u8 = undefined;

        // An initiation that is right but for es being zero.
        var initiation = std.mem.zeroes(messages.Initiation);
        var running: Running = .init(&pair.responder.public);
        initiation.ephemeral = weakKey(number);
        running.mixEphemeral(&initiation.ephemeral);
        running.mixKey(&key, &@as([32]u8, @splat(0)));
        running.seal(&initiation.static, &key, &pair.initiator.public);
        running.mixKey(&key, &pair.responder_remote.static_static);
        running.seal(&initiation.timestamp, &key, &@as(Timestamp, @splat(0)));
        try testing.expectError(error.Refused, pair.consumeInitiation(&initiation));

        // A response that is right but for ee and se being zero.
        _ = try pair.createInitiation();
        const before = pair.initiator_handshake;
        var response = std.mem.zeroes(messages.Response);
        std.mem.writeInt(u32, &response.receiver, before.local_index, .little);
        running = .{ .hash = before.hash, .chaining_key = before.chaining_key };
        response.ephemeral = weakKey(number);
        running.mixEphemeral(&response.ephemeral);
        running.mixKey(&key, &@as([32]u8, @splat(0)));
        running.mixKey(&key, &@as([32]u8, @splat(0)));
        running.mixPreshared(&key, &pair.responder_remote.preshared);
        running.seal(&response.empty, &key, "");
        try testing.expect(!pair.consumeResponse(&response));
        try testing.expectEqual(before, pair.initiator_handshake);
    }
}

test "after another key of our own, what both keys agree on is computed once, when it is needed" {
    var pair: Pair = .init(transcripts[0]);
    const before = pair.responder_remote.static_static;
    pair.responder_remote.forgetAgreement();
    try testing.expect(std.mem.allEqual(u8, &pair.responder_remote.static_static, 0));
    try testing.expectError(error.WeakPublicKey, pair.createInitiation());
    pair.responder_remote.agree(&pair.initiator);
    try testing.expectEqual(before, pair.responder_remote.static_static);
    pair.responder_remote.agree(&pair.responder); // it is known, and so not looked at
    try testing.expectEqual(before, pair.responder_remote.static_static);
    _ = try pair.createInitiation();
}

test "a cleared handshake holds nothing" {
    var pair: Pair = .init(transcripts[0]);
    _ = try pair.createInitiation();
    pair.initiator_handshake.clear();
    try testing.expectEqual(Handshake.zeroed, pair.initiator_handshake);
}
