//! The cross-platform userspace protocol: text <-> values. `parse` reads the lines of a "set", `writeDevice` and
//! `writePeer` write the answer to a "get", `writeErrno` ends either.
//! Knows no socket and applies nothing. Text is what a privileged caller sent: it may be wrong, and it holds keys.
//! Invariant: no message ever repeats any of the text, because a mistyped line may well be a key.
const std = @import("std");
const wire = @import("wire");
const change_file = @import("change.zig");
const AllowedIps = @import("allowed_ips.zig").AllowedIps;
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;
const Writer = std.Io.Writer;
const Change = change_file.Change;
const PeerChange = change_file.PeerChange;
const AllowedIpChange = change_file.AllowedIpChange;
pub const DeviceSnapshot = change_file.DeviceSnapshot;
pub const PeerSnapshot = change_file.PeerSnapshot;

/// Where and why a text was refused.
pub const Diagnostic = struct {
    /// From 1; 0 when no line is to blame.
    line: u32 = 0,
    column: u32 = 0,
    /// Static.
    message: []const u8 = "",
};

/// Invalid is EINVAL: a key or value that cannot be. Protocol is EPROTO: a line that is none.
pub const Error = error{ OutOfMemory, Invalid, Protocol };

/// The lines after "set=1"; the empty line that ends a request on a socket may be there or not.
pub fn parse(gpa: Allocator, text: []const u8, diagnostic: *Diagnostic) Error!Change {
    var reader: Reader = .begin(text, diagnostic);
    defer reader.deinit(gpa);
    while (try reader.next(gpa)) {}
    return reader.take();
}

/// The same in steps, for a text with many lines and a caller that has other things to do.
pub const Reader = struct {
    parser: Parser,
    lines: []const u8,
    iterator: std.mem.SplitIterator(u8, .scalar),
    stage: enum { count, read, done } = .count,
    /// Lines of each kind that the parser will fill: memory is asked for once.
    peers: usize = 0,
    allowed_ips: usize = 0,

    /// Some tens of microseconds.
    const counted_lines = 2048;
    const read_lines = 256;

    pub fn begin(text: []const u8, diagnostic: *Diagnostic) Reader {
        diagnostic.* = .{};
        const lines = std.mem.trimEnd(u8, text, "\n");
        return .{
            .parser = .{ .diagnostic = diagnostic },
            .lines = lines,
            .iterator = std.mem.splitScalar(u8, lines, '\n'),
            .stage = if (lines.len == 0) .done else .count,
        };
    }

    pub fn deinit(reader: *Reader, gpa: Allocator) void {
        reader.parser.change.deinit(gpa);
    }

    /// False when all is read.
    pub fn next(reader: *Reader, gpa: Allocator) Error!bool {
        switch (reader.stage) {
            .count => for (0..counted_lines) |_| {
                const line = reader.iterator.next() orelse {
                    reader.parser.change = try .init(gpa, reader.peers, reader.allowed_ips);
                    reader.iterator.reset();
                    reader.stage = .read;
                    return true;
                };
                if (std.mem.startsWith(u8, line, "public_key=")) reader.peers += 1;
                if (std.mem.startsWith(u8, line, "allowed_ip=")) reader.allowed_ips += 1;
            },
            .read => for (0..read_lines) |_| {
                const line = reader.iterator.next() orelse {
                    reader.stage = .done;
                    reader.parser.diagnostic.line = 0;
                    return false;
                };
                reader.parser.diagnostic.line +|= 1;
                try reader.parser.readLine(line);
            },
            .done => return false,
        }
        return true;
    }

    /// What was read, once all is. The private key stays nowhere but there.
    pub fn take(reader: *Reader) Change {
        assert(reader.stage == .done);
        const change = &reader.parser.change;
        assert(reader.parser.peer_count == change.peers.len);
        assert(reader.parser.allowed_ip_count == change.allowed_ips.len);
        defer {
            std.crypto.secureZero(u8, std.mem.asBytes(&change.private_key));
            change.* = .{};
        }
        return change.*;
    }
};

pub fn writeDevice(writer: *Writer, device: DeviceSnapshot) Writer.Error!void {
    if (device.private_key) |key| try writeKey(writer, "private_key", key);
    if (device.listen_port != 0) try writeNumber(writer, "listen_port", device.listen_port);
    if (device.fwmark != 0) try writeNumber(writer, "fwmark", device.fwmark);
}

pub fn writePeer(writer: *Writer, peer: PeerSnapshot, allowed_ips: *AllowedIps.Iterator) Writer.Error!void {
    const handshake_ns = peer.last_handshake_unix_ns;
    try writeKey(writer, "public_key", peer.public_key);
    try writeKey(writer, "preshared_key", peer.preshared_key);
    try writeNumber(writer, "protocol_version", 1);
    if (peer.endpoint) |endpoint| try wire.text.print(writer, "endpoint={f}\n", .{endpoint});
    try wire.text.print(writer, "last_handshake_time_sec={d}\n", .{handshake_ns / std.time.ns_per_s});
    try wire.text.print(writer, "last_handshake_time_nsec={d}\n", .{handshake_ns % std.time.ns_per_s});
    try wire.text.print(writer, "tx_bytes={d}\n", .{peer.tx_bytes});
    try wire.text.print(writer, "rx_bytes={d}\n", .{peer.rx_bytes});
    try writeNumber(writer, "persistent_keepalive_interval", peer.persistent_keepalive_interval);
    while (allowed_ips.next()) |prefix| try wire.text.print(writer, "allowed_ip={f}\n", .{prefix});
}

pub const Operation = enum { get, set };

/// Ends an answer. `errno` is 0 or the kernel's positive number; the sign `wg` expects of a failure
/// depends on what failed.
pub fn writeErrno(writer: *Writer, operation: Operation, errno: u16) Writer.Error!void {
    const sign: []const u8 = if (operation == .set and errno != 0) "-" else "";
    try wire.text.print(writer, "errno={s}{d}\n\n", .{ sign, errno });
}

/// What may stand before the `=` of a "set" until the first peer. The names are those of the lines.
const DeviceKey = enum {
    private_key,
    listen_port,
    fwmark,
    replace_peers,
    /// Ours alone: no other implementation has them, and "get" does not tell them, since `wg` reads that.
    pywg_bind_device,
    pywg_bind_address,
};

/// And from the first peer on.
const PeerKey = enum {
    /// Begins the section of a peer.
    public_key,
    update_only,
    remove,
    preshared_key,
    endpoint,
    persistent_keepalive_interval,
    replace_allowed_ips,
    allowed_ip,
    protocol_version,
};

const Parser = struct {
    change: Change = .{},
    peer_count: usize = 0,
    allowed_ip_count: usize = 0,
    diagnostic: *Diagnostic,

    fn readLine(parser: *Parser, line: []const u8) Error!void {
        parser.diagnostic.column = 1;
        const equals = std.mem.findScalar(u8, line, '=') orelse {
            parser.diagnostic.message = if (line.len == 0) "empty line before the end" else "line without '='";
            return error.Protocol;
        };
        const name = line[0..equals];
        const value = line[equals + 1 ..];
        if (std.meta.stringToEnum(DeviceKey, name)) |key| {
            if (parser.peer_count > 0) return parser.refuse("key of the device after the first public_key");
            parser.setColumn(equals);
            return parser.readDeviceLine(key, value);
        }
        const key = std.meta.stringToEnum(PeerKey, name) orelse return parser.refuse("unknown key");
        if (key == .public_key) parser.openSection();
        if (parser.peer_count == 0) return parser.refuse("key of a peer before the first public_key");
        parser.setColumn(equals);
        return parser.readPeerLine(&parser.change.peers[parser.peer_count - 1], key, value);
    }

    fn openSection(parser: *Parser) void {
        parser.change.peers[parser.peer_count] = .{
            .public_key = @splat(0),
            .line = parser.diagnostic.line,
            .allowed_ips = parser.change.allowed_ips[parser.allowed_ip_count..][0..0],
        };
        parser.peer_count += 1;
    }

    fn readDeviceLine(parser: *Parser, key: DeviceKey, value: []const u8) Error!void {
        const change = &parser.change;
        switch (key) {
            .private_key => {
                change.private_key = @as([32]u8, undefined);
                try parser.readKey("private_key", value, &change.private_key.?);
            },
            .listen_port => change.listen_port = parseNumber(u16, value, 10) orelse
                return parser.refuse("listen_port is not a number from 0 to 65535"),
            .fwmark => change.fwmark = parseMark(value) orelse
                return parser.refuse("fwmark is not a number of 32 bits"),
            .replace_peers => change.replace_peers = try parser.readTrue("replace_peers", value),
            .pywg_bind_device => change.bind_interface = wire.binding.InterfaceName.parse(value) orelse
                return parser.refuse("pywg_bind_device is not the name of an interface"),
            .pywg_bind_address => try parser.readBindAddress(value),
        }
    }

    /// The lines of one text are the whole list, and an empty one begins it anew.
    fn readBindAddress(parser: *Parser, value: []const u8) Error!void {
        const before = parser.change.bind_addresses orelse wire.binding.Addresses{};
        parser.change.bind_addresses = .{};
        if (value.len == 0) return;
        const address = wire.Address.parse(value) orelse return parser.refuse("pywg_bind_address is not an IP address");
        if (before.get(address.family) != null) return parser.refuse("a second pywg_bind_address of the same family");
        parser.change.bind_addresses = before;
        parser.change.bind_addresses.?.put(address);
    }

    fn readPeerLine(parser: *Parser, peer: *PeerChange, key: PeerKey, value: []const u8) Error!void {
        switch (key) {
            .public_key => try parser.readKey("public_key", value, &peer.public_key),
            .update_only => peer.update_only = try parser.readTrue("update_only", value),
            .remove => peer.remove = try parser.readTrue("remove", value),
            .preshared_key => {
                peer.preshared_key = @as([32]u8, undefined);
                try parser.readKey("preshared_key", value, &peer.preshared_key.?);
            },
            .endpoint => peer.endpoint = wire.SocketAddress.parse(value) orelse
                return parser.refuse("endpoint is not ADDRESS:PORT in numbers"),
            .persistent_keepalive_interval => peer.persistent_keepalive_interval = parseNumber(u16, value, 10) orelse
                return parser.refuse("persistent_keepalive_interval is not a number from 0 to 65535"),
            .replace_allowed_ips => {
                peer.replace_allowed_ips = try parser.readTrue("replace_allowed_ips", value);
                peer.replace_after = peer.allowed_ips.len;
            },
            .allowed_ip => try parser.readAllowedIp(peer, value),
            .protocol_version => if (!std.mem.eql(u8, value, "1")) return parser.refuse("protocol_version is not 1"),
        }
    }

    fn readAllowedIp(parser: *Parser, peer: *PeerChange, value: []const u8) Error!void {
        const is_signed = value.len > 0 and (value[0] == '-' or value[0] == '+');
        const prefix = wire.Prefix.parse(value[@intFromBool(is_signed)..]) orelse
            return parser.refuse("allowed_ip is not ADDRESS/LENGTH");
        const change: AllowedIpChange = .{ .prefix = prefix, .remove = is_signed and value[0] == '-' };
        parser.change.allowed_ips[parser.allowed_ip_count] = change;
        parser.allowed_ip_count += 1;
        peer.allowed_ips.len += 1; // the section's part of the array grows with it
    }

    fn readKey(parser: *Parser, comptime name: []const u8, value: []const u8, out: *[32]u8) Error!void {
        if (value.len != 64 or !decodeHex(value[0..64], out)) {
            return parser.refuse(name ++ " is not 64 hexadecimal digits");
        }
    }

    fn readTrue(parser: *Parser, comptime name: []const u8, value: []const u8) Error!bool {
        if (!std.mem.eql(u8, value, "true")) return parser.refuse(name ++ " is not 'true'");
        return true;
    }

    fn setColumn(parser: *Parser, equals: usize) void {
        parser.diagnostic.column = @intCast(equals + 2);
    }

    fn refuse(parser: *Parser, message: []const u8) error{Invalid} {
        parser.diagnostic.message = message;
        return error.Invalid;
    }
};

/// Digits only: no sign, no space, no underscore.
fn parseNumber(comptime T: type, text: []const u8, comptime base: u8) ?T {
    if (text.len == 0) return null;
    var value: T = 0;
    for (text) |character| {
        const digit = std.fmt.charToDigit(character, base) catch return null;
        value = std.math.mul(T, value, base) catch return null;
        value = std.math.add(T, value, digit) catch return null;
    }
    return value;
}

/// Decimal as the protocol has it, or hexadecimal as people write marks.
fn parseMark(text: []const u8) ?u32 {
    if (std.mem.startsWith(u8, text, "0x")) return parseNumber(u32, text[2..], 16);
    return parseNumber(u32, text, 10);
}

/// Without branch or look-up on the digits: they are keys. False when one is no digit.
pub fn decodeHex(digits: *const [64]u8, out: *[32]u8) bool {
    var all_valid: i32 = -1;
    for (out, 0..) |*byte, i| {
        const high = decodeDigit(digits[i * 2]);
        const low = decodeDigit(digits[i * 2 + 1]);
        all_valid &= high.valid & low.valid;
        // Not @intCast: its check would be a branch on the key.
        byte.* = @truncate(@as(u32, @bitCast(high.value << 4 | low.value)));
    }
    return all_valid != 0;
}

/// `valid` is all ones or zero; without it `value` is zero.
fn decodeDigit(character: u8) struct { value: i32, valid: i32 } {
    const lower = character | 0x20;
    const is_number = maskWithin(character, '0', '9');
    const is_letter = maskWithin(lower, 'a', 'f');
    const number = is_number & (@as(i32, character) - '0');
    const letter = is_letter & (@as(i32, lower) - 'a' + 10);
    return .{ .value = number | letter, .valid = is_number | is_letter };
}

/// All ones when low <= value <= high, else zero.
fn maskWithin(value: u8, comptime low: i32, comptime high: i32) i32 {
    const v: i32 = value;
    return concealed(~((v - low) | (high - v)) >> 31);
}

/// Lowercase; without branch or look-up on the nibbles.
pub fn encodeHex(bytes: *const [32]u8, out: *[64]u8) void {
    for (bytes, 0..) |byte, i| {
        out[i * 2] = encodeNibble(byte >> 4);
        out[i * 2 + 1] = encodeNibble(byte & 15);
    }
}

fn encodeNibble(nibble: u8) u8 {
    const value: i32 = nibble;
    const beyond_nine = concealed((9 - value) >> 31);
    return @truncate(@as(u32, @bitCast(value + '0' + (beyond_nine & ('a' - '0' - 10)))));
}

/// The mask itself. The optimizer knows it as any number, else it turns a mask back into a branch (LLVM 22 did).
inline fn concealed(mask: i32) i32 {
    var value = mask;
    asm volatile (""
        : [value] "+r" (value),
    );
    return value;
}

fn writeKey(writer: *Writer, comptime name: []const u8, bytes: *const [32]u8) Writer.Error!void {
    var digits: [64]u8 = undefined;
    defer std.crypto.secureZero(u8, &digits);
    encodeHex(bytes, &digits);
    try writer.writeAll(name ++ "=");
    try writer.writeAll(&digits);
    try writer.writeByte('\n');
}

fn writeNumber(writer: *Writer, comptime name: []const u8, number: u32) Writer.Error!void {
    try wire.text.print(writer, name ++ "={d}\n", .{number});
}

const testing = std.testing;

fn repeat(comptime text: []const u8, comptime times: usize) *const [text.len * times]u8 {
    return comptime blk: {
        var result: [text.len * times]u8 = undefined;
        for (&result, 0..) |*byte, i| byte.* = text[i % text.len];
        const constant = result;
        break :blk &constant;
    };
}

const key_a = repeat("a0", 32);
const key_b = repeat("0B", 32);

fn parseText(text: []const u8) Error!Change {
    var diagnostic: Diagnostic = .{};
    return parse(testing.allocator, text, &diagnostic);
}

test "a whole dialogue becomes a change" {
    var change = try parseText("private_key=" ++ key_a ++ "\nlisten_port=51820\nfwmark=0x2A\nreplace_peers=true\n" ++
        "public_key=" ++ key_b ++ "\nupdate_only=true\nremove=true\npreshared_key=" ++ key_a ++
        "\nprotocol_version=1\nendpoint=[fe80::1%3]:5\npersistent_keepalive_interval=65535\n" ++
        "replace_allowed_ips=true\nallowed_ip=10.0.0.1/8\nallowed_ip=-fd00::/64\nallowed_ip=+0.0.0.0/0\n" ++
        "public_key=" ++ key_b ++ "\npublic_key=" ++ key_a ++ "\nallowed_ip=::/0\n\n");
    defer change.deinit(testing.allocator);
    try testing.expectEqual(@as([32]u8, @splat(0xa0)), change.private_key.?);
    try testing.expectEqual(51820, change.listen_port);
    try testing.expectEqual(42, change.fwmark);
    try testing.expect(change.replace_peers);
    try testing.expectEqual(3, change.peers.len);

    const first = change.peers[0];
    try testing.expectEqual(@as([32]u8, @splat(0x0b)), first.public_key);
    try testing.expect(first.update_only and first.remove and first.replace_allowed_ips);
    try testing.expectEqual(@as([32]u8, @splat(0xa0)), first.preshared_key.?);
    try testing.expectEqual(wire.SocketAddress.parse("[fe80::1%3]:5"), first.endpoint);
    try testing.expectEqual(65535, first.persistent_keepalive_interval);
    try testing.expectEqual(5, first.line);
    const expected = [_]AllowedIpChange{
        .{ .prefix = wire.Prefix.parse("10.0.0.1/8").? },
        .{ .prefix = wire.Prefix.parse("fd00::/64").?, .remove = true },
        .{ .prefix = wire.Prefix.parse("0.0.0.0/0").? },
    };
    try testing.expectEqualSlices(AllowedIpChange, &expected, first.allowed_ips);

    const second = change.peers[1];
    try testing.expectEqual(first.public_key, second.public_key);
    try testing.expect(!second.update_only and !second.remove and !second.replace_allowed_ips);
    try testing.expectEqual(null, second.preshared_key);
    try testing.expectEqual(null, second.endpoint);
    try testing.expectEqual(null, second.persistent_keepalive_interval);
    try testing.expectEqual(0, second.allowed_ips.len);
    try testing.expectEqual(16, second.line);
    try testing.expectEqual(1, change.peers[2].allowed_ips.len);
}

test "bind addresses of one text are the whole list, one for each family" {
    const Row = struct { []const u8, ?[]const u8, ?[]const u8 };
    for ([_]Row{
        .{ "pywg_bind_address=", null, null },
        .{ "pywg_bind_address=192.0.2.1", "192.0.2.1", null },
        .{ "pywg_bind_address=::1\npywg_bind_address=192.0.2.1", "192.0.2.1", "::1" },
        .{ "pywg_bind_address=::1\npywg_bind_address=\npywg_bind_address=::2", null, "::2" },
        .{ "pywg_bind_address=::1\npywg_bind_address=", null, null },
    }) |row| {
        var change = try parseText(row[0]);
        defer change.deinit(testing.allocator);
        const expected: wire.binding.Addresses = .{
            .ipv4 = if (row[1]) |text| wire.Address.parse(text) else null,
            .ipv6 = if (row[2]) |text| wire.Address.parse(text) else null,
        };
        try testing.expectEqual(expected, change.bind_addresses.?);
        try testing.expectEqual(null, change.bind_interface);
    }
    var change = try parseText("pywg_bind_device=eth0\npywg_bind_device=");
    defer change.deinit(testing.allocator);
    try testing.expect(change.bind_interface.?.isEmpty());
    try testing.expectEqual(null, change.bind_addresses);
}

test "what is not said is left alone" {
    for ([_][]const u8{ "", "\n", "\n\n" }) |text| {
        var change = try parseText(text);
        defer change.deinit(testing.allocator);
        try testing.expectEqual(null, change.private_key);
        try testing.expectEqual(null, change.listen_port);
        try testing.expectEqual(null, change.fwmark);
        try testing.expectEqual(null, change.bind_interface);
        try testing.expectEqual(null, change.bind_addresses);
        try testing.expect(!change.replace_peers);
        try testing.expectEqual(0, change.peers.len);
    }
}

test "good lines are accepted" {
    const peer = "public_key=" ++ key_a ++ "\n";
    for ([_][]const u8{
        "private_key=" ++ repeat("0", 64),     "private_key=" ++ repeat("aAbBcCdDeEfF0189", 4),
        "listen_port=0",                       "listen_port=65535",
        "fwmark=0",                            "fwmark=4294967295",
        "fwmark=0xffffffff",                   "listen_port=1\nlisten_port=2",
        "pywg_bind_device=",                   "pywg_bind_device=0123456789abcde",
        "pywg_bind_address=",                  "pywg_bind_address=0.0.0.0\npywg_bind_address=::",
        peer ++ "endpoint=1.2.3.4:5",          peer ++ "endpoint=[::1]:65535",
        peer ++ "endpoint=[::ffff:1.2.3.4]:1", peer ++ "persistent_keepalive_interval=0",
        peer ++ "allowed_ip=10.0.0.1",         peer ++ "allowed_ip=::1",
        peer ++ "allowed_ip=-0.0.0.0/0",       peer ++ "protocol_version=1",
    }) |text| {
        var change = try parseText(text);
        change.deinit(testing.allocator);
    }
}

test "bad lines are refused, with their place and without their value" {
    const peer = "public_key=" ++ key_a ++ "\n";
    const Row = struct { []const u8, Error, u32, u32 };
    for ([_]Row{
        // Lines that are none.
        .{ "x", error.Protocol, 1, 1 },
        .{ "listen_port", error.Protocol, 1, 1 },
        .{ key_a, error.Protocol, 1, 1 },
        .{ "\nlisten_port=1", error.Protocol, 1, 1 },
        .{ "listen_port=1\n\nfwmark=1", error.Protocol, 2, 1 },
        .{ "\x00", error.Protocol, 1, 1 },
        // Keys.
        .{ "=", error.Invalid, 1, 1 },
        .{ "=1", error.Invalid, 1, 1 },
        .{ "set=1", error.Invalid, 1, 1 },
        .{ "Listen_port=1", error.Invalid, 1, 1 },
        .{ "listen_port =1", error.Invalid, 1, 1 },
        .{ " listen_port=1", error.Invalid, 1, 1 },
        .{ "oKoqKiqiqiqiqiqiqiqiqiqiqiqiqiqiqiqiqiqiqig=", error.Invalid, 1, 1 },
        .{ peer ++ "last_handshake_time_sec=1", error.Invalid, 2, 1 },
        // Order.
        .{ "allowed_ip=::/0", error.Invalid, 1, 1 },
        .{ "listen_port=1\nprotocol_version=1", error.Invalid, 2, 1 },
        .{ peer ++ "listen_port=1", error.Invalid, 2, 1 },
        .{ peer ++ "private_key=" ++ key_b, error.Invalid, 2, 1 },
        .{ peer ++ "replace_peers=true", error.Invalid, 2, 1 },
        .{ peer ++ "pywg_bind_device=eth0", error.Invalid, 2, 1 },
        .{ peer ++ "pywg_bind_address=::1", error.Invalid, 2, 1 },
        // Keys of 64 digits.
        .{ "private_key=", error.Invalid, 1, 13 },
        .{ "private_key=" ++ repeat("a", 63), error.Invalid, 1, 13 },
        .{ "private_key=" ++ repeat("a", 65), error.Invalid, 1, 13 },
        .{ "private_key=" ++ repeat("a", 63) ++ "g", error.Invalid, 1, 13 },
        .{ "private_key=" ++ "@" ++ repeat("a", 63), error.Invalid, 1, 13 },
        .{ "private_key=" ++ repeat("a", 63) ++ "\r", error.Invalid, 1, 13 },
        .{ "public_key=" ++ repeat("a", 62) ++ "0x", error.Invalid, 1, 12 },
        .{ peer ++ "preshared_key=" ++ repeat("a", 62), error.Invalid, 2, 15 },
        // Numbers.
        .{ "listen_port=", error.Invalid, 1, 13 },
        .{ "listen_port=65536", error.Invalid, 1, 13 },
        .{ "listen_port=-1", error.Invalid, 1, 13 },
        .{ "listen_port=+1", error.Invalid, 1, 13 },
        .{ "listen_port=1_0", error.Invalid, 1, 13 },
        .{ "listen_port=0x1", error.Invalid, 1, 13 },
        .{ "listen_port=1=1", error.Invalid, 1, 13 },
        .{ "listen_port=1\r", error.Invalid, 1, 13 },
        .{ "fwmark=4294967296", error.Invalid, 1, 8 },
        .{ "fwmark=0x", error.Invalid, 1, 8 },
        .{ "fwmark=0x100000000", error.Invalid, 1, 8 },
        .{ "fwmark=off", error.Invalid, 1, 8 },
        .{ "fwmark=a", error.Invalid, 1, 8 },
        // What the sockets are bound to.
        .{ "pywg_bind_device=0123456789abcdef", error.Invalid, 1, 18 },
        .{ "pywg_bind_device=a/b", error.Invalid, 1, 18 },
        .{ "pywg_bind_address=eth0", error.Invalid, 1, 19 },
        .{ "pywg_bind_address=192.0.2.0/24", error.Invalid, 1, 19 },
        .{ "pywg_bind_address=fe80::1%2", error.Invalid, 1, 19 },
        .{ "pywg_bind_address=192.0.2.1\npywg_bind_address=192.0.2.2", error.Invalid, 2, 19 },
        .{ peer ++ "persistent_keepalive_interval=off", error.Invalid, 2, 31 },
        .{ peer ++ "persistent_keepalive_interval=65536", error.Invalid, 2, 31 },
        .{ peer ++ "protocol_version=2", error.Invalid, 2, 18 },
        .{ peer ++ "protocol_version=01", error.Invalid, 2, 18 },
        // Only true is a boolean.
        .{ "replace_peers=false", error.Invalid, 1, 15 },
        .{ "replace_peers=1", error.Invalid, 1, 15 },
        .{ peer ++ "update_only=TRUE", error.Invalid, 2, 13 },
        .{ peer ++ "remove=", error.Invalid, 2, 8 },
        .{ peer ++ "replace_allowed_ips=true ", error.Invalid, 2, 21 },
        // Addresses.
        .{ peer ++ "endpoint=", error.Invalid, 2, 10 },
        .{ peer ++ "endpoint=example.com:51820", error.Invalid, 2, 10 },
        .{ peer ++ "endpoint=1.2.3.4", error.Invalid, 2, 10 },
        .{ peer ++ "endpoint=1.2.3.4:65536", error.Invalid, 2, 10 },
        .{ peer ++ "endpoint=::1:5", error.Invalid, 2, 10 },
        .{ peer ++ "endpoint=[fe80::1%eth0]:5", error.Invalid, 2, 10 },
        .{ peer ++ "allowed_ip=", error.Invalid, 2, 12 },
        .{ peer ++ "allowed_ip=-", error.Invalid, 2, 12 },
        .{ peer ++ "allowed_ip=--::/0", error.Invalid, 2, 12 },
        .{ peer ++ "allowed_ip=10.0.0.0/33", error.Invalid, 2, 12 },
        .{ peer ++ "allowed_ip=::/129", error.Invalid, 2, 12 },
        .{ peer ++ "allowed_ip=10.0.0.0/8,10.0.0.0/9", error.Invalid, 2, 12 },
        .{ peer ++ "allowed_ip= 10.0.0.0/8", error.Invalid, 2, 12 },
    }) |row| {
        var diagnostic: Diagnostic = .{};
        try testing.expectError(row[1], parse(testing.allocator, row[0], &diagnostic));
        errdefer std.debug.print("text: {q}\n", .{row[0]});
        try testing.expectEqual(row[2], diagnostic.line);
        try testing.expectEqual(row[3], diagnostic.column);
        try testing.expect(diagnostic.message.len > 0);
        try testing.expectEqual(null, std.mem.find(u8, diagnostic.message, "aaaa"));
    }
}

test "hexadecimal survives both ways, and every other character is refused" {
    for (0..256) |value| {
        const bytes: [32]u8 = @splat(@intCast(value));
        var digits: [64]u8 = undefined;
        encodeHex(&bytes, &digits);
        var expected: [2]u8 = undefined;
        _ = try std.mem.print(&expected, "{x:0>2}", .{value});
        try testing.expectEqualStrings(&expected, digits[62..]);
        var back: [32]u8 = undefined;
        try testing.expect(decodeHex(&digits, &back));
        try testing.expectEqual(bytes, back);
        for ([_]usize{ 0, 31, 63 }) |place| {
            var wrong = digits;
            wrong[place] = @intCast(value);
            try testing.expectEqual(std.ascii.isHex(@intCast(value)), decodeHex(&wrong, &back));
        }
    }
}

fn expectGet(
    expected: []const u8,
    device: DeviceSnapshot,
    peers: []const PeerSnapshot,
    table: *const AllowedIps,
) !void {
    var buffer: [4096]u8 = undefined;
    var writer: Writer = .fixed(&buffer);
    try writeDevice(&writer, device);
    for (peers, 0..) |peer, i| {
        var allowed_ips = table.iterate(@intCast(i));
        try writePeer(&writer, peer, &allowed_ips);
    }
    try testing.expectEqualStrings(expected, writer.buffered());
}

test "get writes what is set, in the order of the protocol" {
    const gpa = testing.allocator;
    var table: AllowedIps = .init;
    defer table.deinit(gpa);
    for ([_][]const u8{ "192.168.4.5/24", "::/0" }) |text| try table.insert(gpa, wire.Prefix.parse(text).?, 0);
    const peers = [_]PeerSnapshot{ .{
        .public_key = &@splat(0xb8),
        .preshared_key = &@splat(0x0f),
        .endpoint = wire.SocketAddress.parse("[2001:db8::1]:51820"),
        .last_handshake_unix_ns = 1_700_000_000_000_000_005,
        .tx_bytes = std.math.maxInt(u64),
        .rx_bytes = 148,
        .persistent_keepalive_interval = 25,
    }, .{ .public_key = &@splat(0xa0), .preshared_key = &@splat(0) } };
    try expectGet("", .{}, &.{}, &table);
    const expected = "private_key=" ++ repeat("e8", 32) ++ "\nlisten_port=12912\nfwmark=51820\n" ++
        "public_key=" ++ repeat("b8", 32) ++ "\npreshared_key=" ++ repeat("0f", 32) ++ "\nprotocol_version=1\n" ++
        "endpoint=[2001:db8::1]:51820\nlast_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\n" ++
        "tx_bytes=18446744073709551615\nrx_bytes=148\npersistent_keepalive_interval=25\n" ++
        "allowed_ip=192.168.4.0/24\nallowed_ip=::/0\n" ++
        "public_key=" ++ repeat("a0", 32) ++ "\npreshared_key=" ++ repeat("00", 32) ++ "\nprotocol_version=1\n" ++
        "last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n" ++
        "persistent_keepalive_interval=0\n";
    const device: DeviceSnapshot = .{ .private_key = &@splat(0xe8), .listen_port = 12912, .fwmark = 51820 };
    try expectGet(expected, device, &peers, &table);
}

test "a failing set answers a negative number, a failing get a positive one" {
    var buffer: [64]u8 = undefined;
    var writer: Writer = .fixed(&buffer);
    try writeErrno(&writer, .set, 22);
    try writeErrno(&writer, .get, 22);
    try writeErrno(&writer, .set, 0);
    try writeErrno(&writer, .get, 0);
    try testing.expectEqualStrings("errno=-22\n\nerrno=22\n\nerrno=0\n\nerrno=0\n\n", writer.buffered());
}

test "what is written can be read again" {
    const gpa = testing.allocator;
    var table: AllowedIps = .init;
    defer table.deinit(gpa);
    var prng: std.Random.DefaultPrng = .init(9);
    const random = prng.random();
    for (0..50) |_| {
        var octets: [16]u8 = undefined;
        random.bytes(&octets);
        try table.insert(gpa, .{ .address = .fromIpv6(octets), .length = random.uintAtMost(u8, 128) }, 0);
        try table.insert(gpa, .{ .address = .fromIpv4(octets[0..4].*), .length = random.uintAtMost(u8, 32) }, 0);
    }
    var keys: [3][32]u8 = undefined;
    random.bytes(std.mem.asBytes(&keys));
    const endpoint = wire.SocketAddress.parse("192.0.2.1:7");
    var output: Writer.Allocating = .init(gpa);
    defer output.deinit();
    try writeDevice(&output.writer, .{ .private_key = &keys[0], .listen_port = 7, .fwmark = 8 });
    try output.writer.print("public_key={x}\npreshared_key={x}\n", .{ &keys[1], &keys[2] });
    try output.writer.print("endpoint={f}\n", .{endpoint.?});
    var written = table.iterate(0);
    while (written.next()) |prefix| try output.writer.print("allowed_ip={f}\n", .{prefix});

    var change = try parseText(output.written());
    defer change.deinit(gpa);
    try testing.expectEqual(keys[0], change.private_key);
    try testing.expectEqual(keys[1], change.peers[0].public_key);
    try testing.expectEqual(keys[2], change.peers[0].preshared_key);
    try testing.expectEqual(endpoint, change.peers[0].endpoint);
    var iterator = table.iterate(0);
    for (change.peers[0].allowed_ips) |allowed_ip| try testing.expectEqual(iterator.next(), allowed_ip.prefix);
    try testing.expectEqual(null, iterator.next());
}

test "130 560 allowed IPs and 24 000 peers parse" {
    const gpa = testing.allocator;
    var output: Writer.Allocating = .init(gpa);
    defer output.deinit();
    try output.writer.print("public_key={s}\n", .{key_a});
    for (0..130_560) |i| try output.writer.print("allowed_ip=10.{d}.{d}.{d}/32\n", .{ i >> 16, i >> 8 & 255, i & 255 });
    for (0..24_000) |i| try output.writer.print("public_key={x:0>64}\nallowed_ip=fd00::{x}/128\n", .{ i, i });
    var change = try parseText(output.written());
    defer change.deinit(gpa);
    try testing.expectEqual(24_001, change.peers.len);
    try testing.expectEqual(130_560, change.peers[0].allowed_ips.len);
    try testing.expectEqual(wire.Prefix.parse("10.1.253.255/32").?, change.peers[0].allowed_ips[130_559].prefix);
    try testing.expectEqual(wire.Prefix.parse("fd00::5dbf/128").?, change.peers[24_000].allowed_ips[0].prefix);
}

test "a line of 64 KiB is refused like a short one" {
    const gpa = testing.allocator;
    const long = try gpa.alloc(u8, 65536);
    defer gpa.free(long);
    @memset(long, '1');
    try testing.expectError(error.Protocol, parseText(long));
    @memcpy(long[0..12], "listen_port=");
    try testing.expectError(error.Invalid, parseText(long));
    long[0] = '=';
    try testing.expectError(error.Invalid, parseText(long));
}

test "a text that cannot be held leaks nothing" {
    try testing.checkAllAllocationFailures(testing.allocator, struct {
        fn run(gpa: Allocator) !void {
            var diagnostic: Diagnostic = .{};
            var change = try parse(gpa, "public_key=" ++ key_a ++ "\nallowed_ip=::/0", &diagnostic);
            change.deinit(gpa);
        }
    }.run, .{});
}

test "random texts never crash the parser" {
    const fragments = [_][]const u8{
        "public_key=" ++ key_a, "private_key=" ++ key_b, "allowed_ip=",        "10.0.0.0/8",
        "endpoint=",            "fd00::/64",             "1.2.3.4:5",          "[::1%2]:3",
        "remove=",              "update_only=",          "true",               "=",
        "listen_port=",         "fwmark=0x",             "99999",              "%",
        "replace_peers=",       "\x00",                  "protocol_version=1", "\xff",
        "\n",                   "\n",                    "\n",                 "\n",
        "-",                    "+",                     "pywg_bind_device=",  "pywg_bind_address=::",
    };
    var prng: std.Random.DefaultPrng = .init(10);
    const random = prng.random();
    var accepted: u32 = 0;
    for (0..20_000) |_| {
        var buffer: [4096]u8 = undefined;
        var writer: Writer = .fixed(&buffer);
        for (0..random.uintLessThan(usize, 24)) |_| {
            const fragment = fragments[random.uintLessThan(usize, fragments.len)];
            const whole = random.uintLessThan(u8, 8) != 0;
            try writer.writeAll(if (whole) fragment else fragment[0..random.uintAtMost(usize, fragment.len)]);
            if (random.uintLessThan(u8, 16) == 0) try writer.writeByte(random.int(u8));
        }
        var diagnostic: Diagnostic = .{};
        if (parse(testing.allocator, writer.buffered(), &diagnostic)) |change| {
            var owned = change;
            owned.deinit(testing.allocator);
            accepted += 1;
        } else |err| {
            try testing.expect(err != error.OutOfMemory);
            try testing.expect(diagnostic.line > 0 and diagnostic.column > 0 and diagnostic.message.len > 0);
        }
    }
    try testing.expect(accepted > 100);
}
