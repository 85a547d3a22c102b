//! The functions of whitepaper section 5.4 under their names there, over std.crypto: DH, AEAD, XAEAD, HASH, MAC, HMAC,
//! KDF. For handshakes and cookies only: packets are sealed by the cipher room. Knows no message and no order of steps.
//! Invariant: no secret is compared in variable time, and none that we hold in between outlives its function.
const std = @import("std");
const builtin = @import("builtin");
const assert = @import("wire").assert;
const timing_safe = std.crypto.timing_safe;
const X25519 = std.crypto.dh.X25519;
const ChaCha20Poly1305 = std.crypto.aead.chacha_poly.ChaCha20Poly1305;
const XChaCha20Poly1305 = std.crypto.aead.chacha_poly.XChaCha20Poly1305;
const Blake2s128 = std.crypto.hash.blake2.Blake2s128;
const Blake2s256 = std.crypto.hash.blake2.Blake2s256;

pub const tag_length = 16;

/// DH(private, public). A public key of small order would make the secret known to all; such a key is an error.
pub fn dh(private: *const [32]u8, public: *const [32]u8) error{WeakPublicKey}![32]u8 {
    var secret: [32]u8 = undefined;
    defer zero(&secret);
    return if (pywg_x25519(&secret, private, public)) secret else error.WeakPublicKey;
}

/// DH-PUBKEY(private).
pub fn publicKey(private: *const [32]u8) [32]u8 {
    const base_point: [32]u8 = .{9} ++ @as([31]u8, @splat(0));
    return dh(private, &base_point) catch unreachable; // no multiple of it that a clamped key can reach is small
}

/// std's X25519. Whatever is linked has it from the AEAD's objects, compiled without checks for overflow, which cost
/// a third and branch on secrets (core/cipher/x25519.zig); this room's tests stand alone and compile their own.
const pywg_x25519 = if (builtin.is_test) x25519WithChecks else linked.pywg_x25519;

const linked = struct {
    extern fn pywg_x25519(secret: *[32]u8, private: *const [32]u8, public: *const [32]u8) bool;
};

fn x25519WithChecks(secret: *[32]u8, private: *const [32]u8, public: *const [32]u8) callconv(.c) bool {
    // std reports the one outcome that is all zeros.
    secret.* = X25519.scalarmult(private.*, public.*) catch return false;
    return true;
}

/// The form in which private keys are kept and shown; `dh` and `publicKey` give the same for a key before and after.
pub fn clamp(private: *[32]u8) void {
    private[0] &= 0xf8;
    private[31] = (private[31] & 0x7f) | 0x40;
}

/// AEAD(key, counter, plaintext, ad): `out` receives the ciphertext and its tag, and may begin where `plaintext` does.
pub fn aeadSeal(out: []u8, key: *const [32]u8, counter: u64, plaintext: []const u8, ad: []const u8) void {
    assert(out.len == plaintext.len + tag_length);
    const tag = out[plaintext.len..][0..tag_length];
    ChaCha20Poly1305.encrypt(out[0..plaintext.len], tag, plaintext, ad, nonceOf(counter), key.*);
}

/// False when the tag is wrong, and then `out` is to be forgotten. `out` may begin where `sealed` does.
pub fn aeadOpen(out: []u8, key: *const [32]u8, counter: u64, sealed: []const u8, ad: []const u8) bool {
    assert(sealed.len == out.len + tag_length);
    const tag = sealed[out.len..][0..tag_length].*;
    ChaCha20Poly1305.decrypt(out, sealed[0..out.len], tag, ad, nonceOf(counter), key.*) catch return false;
    return true;
}

/// XAEAD(key, nonce, plaintext, ad): as `aeadSeal`, with a nonce long enough to be random.
pub fn xaeadSeal(out: []u8, key: *const [32]u8, nonce: *const [24]u8, plaintext: []const u8, ad: []const u8) void {
    assert(out.len == plaintext.len + tag_length);
    const tag = out[plaintext.len..][0..tag_length];
    XChaCha20Poly1305.encrypt(out[0..plaintext.len], tag, plaintext, ad, nonce.*, key.*);
}

pub fn xaeadOpen(out: []u8, key: *const [32]u8, nonce: *const [24]u8, sealed: []const u8, ad: []const u8) bool {
    assert(sealed.len == out.len + tag_length);
    const tag = sealed[out.len..][0..tag_length].*;
    XChaCha20Poly1305.decrypt(out, sealed[0..out.len], tag, ad, nonce.*, key.*) catch return false;
    return true;
}

/// Thirty-two zero bits, then the counter in little-endian order.
fn nonceOf(counter: u64) [12]u8 {
    var nonce: [12]u8 = @splat(0);
    std.mem.writeInt(u64, nonce[4..12], counter, .little);
    return nonce;
}

/// HASH(part || part || ...).
pub fn hash(parts: []const []const u8) [32]u8 {
    var state = Blake2s256.init(.{});
    defer zero(&state);
    for (parts) |part| state.update(part);
    var digest: [32]u8 = undefined;
    state.final(&digest);
    return digest;
}

/// MAC(key, input): keyed BLAKE2s with 16 bytes of output, which is not the first half of a longer one.
pub fn mac(key: []const u8, input: []const u8) [16]u8 {
    assert(key.len > 0 and key.len <= 32);
    var state = Blake2s128.init(.{ .key = key });
    defer zero(&state);
    state.update(input);
    var digest: [16]u8 = undefined;
    state.final(&digest);
    return digest;
}

/// HMAC(key, part || part || ...). Not std's, which leaves the padded key on the stack. `out` may be the key.
pub fn hmac(out: *[32]u8, key: *const [32]u8, parts: []const []const u8) void {
    var pad: [Blake2s256.block_length]u8 = @splat(0x36);
    defer zero(&pad);
    for (pad[0..32], key) |*byte, key_byte| byte.* ^= key_byte;
    var state = Blake2s256.init(.{});
    defer zero(&state);
    state.update(&pad);
    for (parts) |part| state.update(part);
    var inner: [32]u8 = undefined;
    defer zero(&inner);
    state.final(&inner);
    for (&pad) |*byte| byte.* ^= 0x36 ^ 0x5c;
    state = Blake2s256.init(.{});
    state.update(&pad);
    state.update(&inner);
    state.final(out);
}

/// KDF1(key, input). Outputs go to pointers so that no copy stays behind; the first may be the key itself.
pub fn kdf1(first: *[32]u8, key: *const [32]u8, input: []const u8) void {
    expand(&.{first}, key, input);
}

pub fn kdf2(first: *[32]u8, second: *[32]u8, key: *const [32]u8, input: []const u8) void {
    expand(&.{ first, second }, key, input);
}

pub fn kdf3(first: *[32]u8, second: *[32]u8, third: *[32]u8, key: *const [32]u8, input: []const u8) void {
    expand(&.{ first, second, third }, key, input);
}

/// HKDF: t0 = HMAC(key, input), t1 = HMAC(t0, 1), t2 = HMAC(t0, t1 || 2), ...
fn expand(outputs: []const *[32]u8, key: *const [32]u8, input: []const u8) void {
    var extracted: [32]u8 = undefined;
    defer zero(&extracted);
    hmac(&extracted, key, &.{input});
    var previous: []const u8 = "";
    for (outputs, 1..) |output, number| {
        hmac(output, &extracted, &.{ previous, &.{@intCast(number)} });
        previous = output;
    }
}

/// Equality in a time that does not depend on the contents.
pub fn eql16(a: *const [16]u8, b: *const [16]u8) bool {
    return timing_safe.eql([16]u8, a.*, b.*);
}

pub fn eql32(a: *const [32]u8, b: *const [32]u8) bool {
    return timing_safe.eql([32]u8, a.*, b.*);
}

/// Overwrites what `pointer` points to, also when nobody will read it again.
pub fn zero(pointer: anytype) void {
    zeroBytes(std.mem.asBytes(pointer));
}

/// Not spelled out for each length: one store for each few bytes of a large value.
noinline fn zeroBytes(bytes: []u8) void {
    std.crypto.secureZero(u8, bytes);
}

const testing = std.testing;

fn unhex(comptime text: []const u8) [text.len / 2]u8 {
    var bytes: [text.len / 2]u8 = undefined;
    _ = std.fmt.hexToBytes(&bytes, text) catch unreachable;
    return bytes;
}

test "DH gives the answers of RFC 7748 sections 5.2 and 6.1" {
    const rows = [_][3][]const u8{
        .{
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        },
        .{
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        },
    };
    inline for (rows) |row| {
        try testing.expectEqual(unhex(row[2]), try dh(&unhex(row[0]), &unhex(row[1])));
    }
    const alice = unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    const bob = unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    const alice_public = unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    try testing.expectEqual(alice_public, publicKey(&alice));
    const shared = unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    try testing.expectEqual(shared, try dh(&alice, &publicKey(&bob)));
    try testing.expectEqual(shared, try dh(&bob, &publicKey(&alice)));
    var clamped = alice;
    clamp(&clamped);
    try testing.expect(!eql32(&alice, &clamped));
    try testing.expectEqual(publicKey(&alice), publicKey(&clamped));
}

test "DH iterated once gives the answer of RFC 7748 section 5.2" {
    const nine = [_]u8{9} ++ @as([31]u8, @splat(0));
    const once = unhex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
    try testing.expectEqual(once, try dh(&nine, &nine));
}

/// For tests: points whose multiples by any clamped key are zero. With the top bit set they are the same points.
pub const low_order_points = [_][32]u8{
    @splat(0),
    [_]u8{1} ++ @as([31]u8, @splat(0)),
    unhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    unhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    unhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    unhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    unhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
};

test "public keys of small order are refused" {
    const private: [32]u8 = @splat(0x55);
    for (low_order_points) |point| {
        var public = point;
        try testing.expectError(error.WeakPublicKey, dh(&private, &public));
        public[31] |= 0x80;
        try testing.expectError(error.WeakPublicKey, dh(&private, &public));
    }
}

test "AEAD gives the answer of RFC 8439 appendix A.5" {
    const key = unhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0");
    const ad = unhex("f33388860000000000004e91");
    const counter: u64 = 0x0807060504030201;
    const plaintext = "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, " ++
        "replaced, or obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as " ++
        "reference material or to cite them other than as /\u{201c}work in progress./\u{201d}";
    const expected = unhex("64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2" ++
        "4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b9481" ++
        "14ad176e008d33bd60f982b1ff37c8559797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4" ++
        "b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a" ++
        "0d072b04b3564eea1b422273f548271a0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10" ++
        "49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709b" ++
        "eead9d67890cbb22392336fea1851f38");
    var sealed: [plaintext.len + tag_length]u8 = undefined;
    aeadSeal(&sealed, &key, counter, plaintext, &ad);
    try testing.expectEqualSlices(u8, &expected, &sealed);
    // In place, as the header promises.
    var buffer = sealed;
    try testing.expect(aeadOpen(buffer[0..plaintext.len], &key, counter, &buffer, &ad));
    try testing.expectEqualStrings(plaintext, buffer[0..plaintext.len]);
    aeadSeal(&buffer, &key, counter, buffer[0..plaintext.len], &ad);
    try testing.expectEqualSlices(u8, &expected, &buffer);

    try testing.expect(!aeadOpen(buffer[0..plaintext.len], &key, counter + 1, &sealed, &ad));
    try testing.expect(!aeadOpen(buffer[0..plaintext.len], &key, counter, &sealed, ad[1..]));
    sealed[sealed.len - 1] ^= 0x80;
    try testing.expect(!aeadOpen(buffer[0..plaintext.len], &key, counter, &sealed, &ad));
}

test "XAEAD gives the answer of draft-irtf-cfrg-xchacha appendix A.3" {
    const plaintext = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, " ++
        "sunscreen would be it.";
    const ad = unhex("50515253c0c1c2c3c4c5c6c7");
    const key = unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    const nonce = unhex("404142434445464748494a4b4c4d4e4f5051525354555657");
    const expected = unhex("bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb" ++
        "731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e" ++
        "3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b52e" ++
        "c0875924c1c7987947deafd8780acf49");
    var sealed: [plaintext.len + tag_length]u8 = undefined;
    xaeadSeal(&sealed, &key, &nonce, plaintext, &ad);
    try testing.expectEqualSlices(u8, &expected, &sealed);
    var opened: [plaintext.len]u8 = undefined;
    try testing.expect(xaeadOpen(&opened, &key, &nonce, &sealed, &ad));
    try testing.expectEqualStrings(plaintext, &opened);
    sealed[3] ^= 1;
    try testing.expect(!xaeadOpen(&opened, &key, &nonce, &sealed, &ad));
}

/// selftest_seq of RFC 7693 appendix E.
fn fillSequence(bytes: []u8, seed: u32) void {
    var a: u32 = 0xdead4bad *% seed;
    var b: u32 = 1;
    for (bytes) |*byte| {
        const next = a +% b;
        a = b;
        b = next;
        byte.* = @truncate(next >> 24);
    }
}

test "HASH and MAC pass the self-test of RFC 7693 appendix E" {
    const abc = unhex("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
    try testing.expectEqual(abc, hash(&.{ "a", "bc" }));
    var all = Blake2s256.init(.{});
    inline for (.{ 16, 20, 28, 32 }) |digest_length| {
        const Blake2s = std.crypto.hash.blake2.Blake2s(digest_length * 8);
        for ([_]u32{ 0, 3, 64, 65, 255, 1024 }) |length| {
            var buffer: [1024]u8 = undefined;
            const input = buffer[0..length];
            fillSequence(input, length);
            var key: [digest_length]u8 = undefined;
            fillSequence(&key, digest_length);
            var digest: [digest_length]u8 = undefined;
            if (digest_length == 32) {
                digest = hash(&.{ input[0 .. length / 3], input[length / 3 ..] });
            } else {
                Blake2s.hash(input, &digest, .{});
            }
            all.update(&digest);
            if (digest_length == 16) {
                digest = mac(&key, input);
            } else {
                Blake2s.hash(input, &digest, .{ .key = &key });
            }
            all.update(&digest);
        }
    }
    var digest: [32]u8 = undefined;
    all.final(&digest);
    try testing.expectEqual(unhex("6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe"), digest);
}

test "HMAC equals std's" {
    const Hmac = std.crypto.auth.hmac.Hmac(Blake2s256);
    var input: [200]u8 = undefined;
    fillSequence(&input, 7);
    var key = hash(&.{"key"});
    for (0..input.len) |length| {
        var expected: [32]u8 = undefined;
        Hmac.create(&expected, input[0..length], &key);
        hmac(&key, &key, &.{ input[0 .. length / 2], input[length / 2 .. length] });
        try testing.expectEqual(expected, key);
    }
}

test "KDFs give the answers of another implementation of HKDF" {
    // From Python's hmac and hashlib.
    const rows = [_]struct { input: []const u8, outputs: [3][32]u8 }{
        .{ .input = "", .outputs = .{
            unhex("7a38c34bf2b8738d7374ca77c44ecb309a11d2b2528304fa86052c365e722624"),
            unhex("1a17621f346abdc520746a9fb64d8eb03231d674fc15687537b0780fd9c060fd"),
            unhex("4eaf02809ac4b930ef63479de62275f1c55656e61f78a3cc653c18a2223d6c5f"),
        } },
        .{ .input = &unhex("202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"), .outputs = .{
            unhex("6a96444e20e8d4c1cee974416acae1c10b3c92886010e54ed94dafb2c3b80ea0"),
            unhex("57af120b0de7acbe7907ec149c5ae870a2dbb74232b65777ba4123f1f7f888f5"),
            unhex("0926c7caabb6e8d73beda759e6f4f0d324ce5b5000bcf8cd784b26db3049faa9"),
        } },
    };
    const key = unhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    for (rows) |row| {
        var a: [32]u8 = undefined;
        var b: [32]u8 = undefined;
        var c: [32]u8 = undefined;
        kdf3(&a, &b, &c, &key, row.input);
        try testing.expectEqual(row.outputs, [3][32]u8{ a, b, c });
        b = @splat(0);
        kdf2(&a, &b, &key, row.input);
        try testing.expectEqual(row.outputs[0..2].*, [2][32]u8{ a, b });
        a = key;
        kdf1(&a, &a, row.input);
        try testing.expectEqual(row.outputs[0], a);
    }
}

test "comparison sees every bit, and zero leaves none" {
    const a = hash(&.{"a"});
    for (0..256) |bit| {
        var b = a;
        b[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
        try testing.expect(!eql32(&a, &b));
        if (bit < 128) try testing.expect(!eql16(a[0..16], b[0..16]));
    }
    const Secret = struct { key: [32]u8, counter: u64 };
    var secret: Secret = .{ .key = a, .counter = 5 };
    try testing.expect(eql32(&secret.key, &a) and eql16(secret.key[0..16], a[0..16]));
    zero(&secret);
    try testing.expect(std.mem.allEqual(u8, &secret.key, 0));
    try testing.expectEqual(0, secret.counter);
}
