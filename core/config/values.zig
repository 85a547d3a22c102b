//! The text of one value to what it means, as pywg/config/values.py reads it and wg(8) does.
//! Knows no key but its name. What is wrong is said with its place.
//! Invariant: no message holds what could be a key.
const std = @import("std");
const wire = @import("wire");
const base64 = @import("base64.zig");
const notes_file = @import("notes.zig");
const text_file = @import("text.zig");
const Line = notes_file.Line;
const Notes = notes_file.Notes;

pub const Error = error{Bad};

pub const mtu_min = 68; // the least IPv4 can live with (RFC 791)
pub const mtu_max = 65_535;
const port_max = 65_535;
/// Characters of a peer's name.
const name_max = 64;
/// Without whitespace. What is longer is no value of ours.
pub const value_max = 320;

/// What is being read: a value of one key, in one line. Places are parts of that line.
pub const Reading = struct {
    notes: *Notes,
    line: *const Line,
    name: []const u8,

    pub fn bad(reading: *const Reading, place: []const u8, parts: []const []const u8) Error {
        reading.say(.problem, place, parts);
        return error.Bad;
    }

    pub fn warn(reading: *const Reading, place: []const u8, parts: []const []const u8) void {
        reading.say(.warning, place, parts);
    }

    pub fn say(reading: *const Reading, kind: notes_file.Kind, place: []const u8, parts: []const []const u8) void {
        var all: [10][]const u8 = undefined;
        all[0] = reading.name;
        all[1] = ": ";
        @memcpy(all[2..][0..parts.len], parts);
        reading.notes.add(kind, reading.line.number, reading.line.column(place), all[0 .. parts.len + 2]);
    }

    /// `"WHAT IT SAYS" is ...`
    fn badWord(reading: *const Reading, place: []const u8, word: []const u8, comptime what: []const u8) Error {
        var buffer: [text_file.masked_max]u8 = undefined;
        return reading.bad(place, &.{ "\"", text_file.masked(word, &buffer), "\" " ++ what });
    }
};

// ---- keys

pub fn key(reading: *const Reading, text: []const u8) Error![32]u8 {
    var buffer: [base64.length]u8 = undefined;
    defer std.crypto.secureZero(u8, &buffer);
    const word = text_file.squeeze(text, &buffer) orelse "";
    var count = text_file.characters(text);
    for (text) |character| count -= @intFromBool(text_file.isSpace(character));
    if (count != base64.length) {
        var digits: [20]u8 = undefined;
        const found = notes_file.decimal(count, &digits);
        return reading.bad(text, &.{ found, " characters, a key has 44 (32 bytes in base64)" });
    }
    if (word.len != base64.length) return reading.bad(text, &.{"not base64"}); // some are no ASCII
    var out: [32]u8 = undefined;
    base64.decode(word[0..base64.length], &out) catch |err| return reading.bad(text, &.{switch (err) {
        error.NotBase64 => "not base64",
        error.NotCanonical => "not 32 bytes in canonical base64",
    }});
    return out;
}

// ---- numbers

/// As strtoul(3) reads digits: with zeros before them. Null for anything else.
pub fn decimalOf(word: []const u8) ?u64 {
    if (word.len == 0) return null;
    var value: u64 = 0;
    for (word) |digit| {
        if (digit < '0' or digit > '9' or value >= 10_000_000_000) return null;
        value = value * 10 + digit - '0';
    }
    return if (value < 10_000_000_000) value else null;
}

fn hexadecimalOf(digits: []const u8) ?u64 {
    if (digits.len == 0) return null;
    var value: u32 = 0;
    for (digits) |character| {
        const digit = std.fmt.charToDigit(character, 16) catch return null;
        if (value >> 28 != 0) return null;
        value = value << 4 | digit;
    }
    return value;
}

/// Without whitespace. What has no room is no value, and becomes one that no reader takes.
fn squeezed(text: []const u8, buffer: *[value_max]u8) []const u8 {
    return text_file.squeeze(text, buffer) orelse "\x00";
}

pub fn isBlank(text: []const u8) bool {
    return text_file.trim(text).len == 0;
}

pub fn number(reading: *const Reading, text: []const u8, comptime least: u32, comptime most: u32) Error!u32 {
    var buffer: [value_max]u8 = undefined;
    const value = decimalOf(squeezed(text, &buffer)) orelse
        return reading.bad(text, &.{std.fmt.comptimePrint("expected a number from {d} to {d}", .{ least, most })});
    if (value >= least and value <= most) return @intCast(value);
    return outOfRange(reading, text, value, std.fmt.comptimePrint(" is not between {d} and {d}", .{ least, most }));
}

fn outOfRange(reading: *const Reading, place: []const u8, value: u64, why: []const u8) Error {
    var digits: [20]u8 = undefined;
    return reading.bad(place, &.{ notes_file.decimal(value, &digits), why });
}

pub fn port(reading: *const Reading, text: []const u8) Error!u16 {
    var buffer: [value_max]u8 = undefined;
    return portOf(reading, text, squeezed(text, &buffer));
}

/// Without whitespace. Names of services are not known here.
fn portOf(reading: *const Reading, place: []const u8, word: []const u8) Error!u16 {
    const digits = if (word.len > 0 and word[0] == '+') word[1..] else word;
    const value = decimalOf(digits) orelse return reading.bad(place, &.{"expected a port from 0 to 65535"});
    if (value > port_max) return outOfRange(reading, place, value, " is not between 0 and 65535");
    return @intCast(value);
}

pub fn fwmark(reading: *const Reading, text: []const u8) Error!u32 {
    var buffer: [value_max]u8 = undefined;
    const word = squeezed(text, &buffer);
    if (std.ascii.eqlIgnoreCase(word, "off")) return 0;
    const value = if (std.mem.startsWith(u8, word, "0x")) hexadecimalOf(word[2..]) else decimalOf(word);
    if (value) |found| if (found <= std.math.maxInt(u32)) return @intCast(found);
    return reading.bad(text, &.{"expected \"off\" or a number from 0 to 0xffffffff"});
}

/// Seconds; 0 for off.
pub fn keepalive(reading: *const Reading, text: []const u8) Error!u16 {
    var buffer: [value_max]u8 = undefined;
    const word = squeezed(text, &buffer);
    if (std.ascii.eqlIgnoreCase(word, "off")) return 0;
    if (decimalOf(word)) |value| if (value <= std.math.maxInt(u16)) return @intCast(value);
    return reading.bad(text, &.{"expected \"off\" or seconds from 0 to 65535"});
}

/// Of the main routing table, which `auto` means too.
pub const table_main = 254;

/// The number of the table in which routes are wanted; 0 for off.
pub fn table(reading: *const Reading, text: []const u8) Error!u32 {
    var buffer: [value_max]u8 = undefined;
    const word = squeezed(text, &buffer);
    if (word.len == 0) return table_main;
    const names = [_]struct { []const u8, u32 }{
        .{ "auto", table_main }, .{ "off", 0 }, .{ "default", 253 }, .{ "main", table_main }, .{ "local", 255 },
    };
    for (names) |row| if (std.ascii.eqlIgnoreCase(word, row[0])) return row[1];
    const is_hexadecimal = word.len > 2 and std.ascii.eqlIgnoreCase(word[0..2], "0x");
    const value: ?u64 = if (is_hexadecimal)
        (if (word.len <= 10) hexadecimalOf(word[2..]) else null)
    else
        (if (word.len <= 10) decimalOf(word) else null);
    if (value) |found| if (found > 0 and found <= std.math.maxInt(u32)) return @intCast(found);
    return reading.bad(text, &.{"expected \"auto\", \"off\", \"main\" or the number of a routing table"});
}

// ---- words

/// Which of them, in whatever case.
pub fn oneOf(reading: *const Reading, text: []const u8, known: []const []const u8, expected: []const u8) Error!usize {
    var buffer: [value_max]u8 = undefined;
    const word = squeezed(text, &buffer);
    for (known, 0..) |one, i| if (std.ascii.eqlIgnoreCase(word, one)) return i;
    return reading.bad(text, &.{expected});
}

pub fn boolean(reading: *const Reading, text: []const u8) Error!bool {
    return try oneOf(reading, text, &.{ "false", "true" }, "expected \"true\" or \"false\"") == 1;
}

pub fn peerName(reading: *const Reading, text: []const u8) Error!void {
    const count = text_file.characters(text);
    var is_printable = true;
    for (text) |character| is_printable = is_printable and character >= ' ' and character != 0x7f;
    if (count >= 1 and count <= name_max and is_printable) return;
    return reading.bad(text, &.{"expected a name of 1 to 64 printable characters"});
}

pub fn interfaceName(reading: *const Reading, text: []const u8) Error!wire.binding.InterfaceName {
    if (text.len > 0) if (wire.binding.InterfaceName.parse(text)) |name| return name;
    return reading.bad(text, &.{"expected the name of a network interface"});
}

pub fn netns(reading: *const Reading, text: []const u8) Error!void {
    const is_name = for (text) |character| {
        if (text_file.isSpace(character) or character == '/') break false;
    } else text.len >= 1 and text.len <= 255 and !std.mem.eql(u8, text, ".") and !std.mem.eql(u8, text, "..");
    if (!is_name) return reading.bad(text, &.{"expected the name of a network namespace, as in: ip netns list"});
}

// ---- addresses

/// An address that may have a zone behind it.
fn zoned(text: []const u8) ?wire.Address {
    const percent = std.mem.findScalar(u8, text, '%') orelse return wire.Address.parse(text);
    const zone = text[percent + 1 ..];
    if (zone.len == 0 or std.mem.findAny(u8, zone, "%/") != null) return null;
    const address = wire.Address.parse(text[0..percent]) orelse return null;
    return if (address.family == .ipv6) address else null;
}

/// `ADDRESS` or `ADDRESS/LENGTH` of an interface: no netmask, no zone, no leading zeros.
pub fn prefix(text: []const u8) ?wire.Prefix {
    const slash = std.mem.findScalar(u8, text, '/') orelse text.len;
    const address = wire.Address.parse(text[0..slash]) orelse return null;
    const most = address.family.bitLength();
    if (slash == text.len) return .{ .address = address, .length = most };
    const digits = text[slash + 1 ..];
    if (digits.len < 1 or digits.len > 3 or (digits.len > 1 and digits[0] == '0')) return null;
    const length = decimalOf(digits) orelse return null;
    return if (length <= most) .{ .address = address, .length = @intCast(length) } else null;
}

pub fn badPrefix(reading: *const Reading, place: []const u8, word: []const u8) Error {
    return reading.badWord(place, word, "is not an IP address with an optional /length");
}

/// A server is an address; null for a domain.
pub fn dns(reading: *const Reading, item: []const u8) Error!?wire.Address {
    const is_address = std.mem.findScalar(u8, item, ':') != null or isDotted(item);
    if (is_address) return zoned(item) orelse return reading.badWord(item, item, "is not an IP address");
    const is_domain = for (item) |character| switch (character) {
        'a'...'z', 'A'...'Z', '0'...'9', '_', '.', '~', '-' => {},
        else => break false,
    } else item.len <= 253 and item[0] != '-' and !std.mem.eql(u8, item, "~");
    if (!is_domain) return reading.badWord(item, item, "is no address and no domain");
    return null;
}

/// Whether all of it is digits and dots.
fn isDotted(text: []const u8) bool {
    return std.mem.findNone(u8, text, "0123456789.") == null;
}

pub fn bindAddresses(reading: *const Reading, text: []const u8) Error!wire.binding.Addresses {
    var found: wire.binding.Addresses = .{};
    var is_list = true;
    var items = text_file.words(text);
    while (items.next()) |item| {
        const address = try dns(reading, item);
        if (address == null or found.get(address.?.family) != null) is_list = false;
        if (address) |one| found.put(one);
    }
    if (is_list and (found.ipv4 != null or found.ipv6 != null)) return found;
    return reading.bad(text, &.{"expected one IPv4 address, one IPv6 address or one of each"});
}

/// The items of a list as wg splits them: by commas, with whitespace of no meaning.
pub const Items = struct {
    reading: *const Reading,
    rest: ?[]const u8,

    pub fn of(reading: *const Reading, text: []const u8) Items {
        return .{ .reading = reading, .rest = if (isBlank(text)) null else text };
    }

    /// With whitespace inside, perhaps.
    pub fn next(items: *Items) Error!?[]const u8 {
        const rest = items.rest orelse return null;
        const comma = std.mem.findScalar(u8, rest, ',');
        items.rest = if (comma) |at| rest[at + 1 ..] else null;
        const part = rest[0 .. comma orelse rest.len];
        const item = text_file.trim(part);
        if (item.len == 0) return items.reading.bad(part[part.len..], &.{"an empty item in the list"});
        return item;
    }
};

pub const AllowedIp = struct { prefix: wire.Prefix, sign: enum { none, plus, minus } };

/// Bits beyond the length of a network are told and dropped.
pub fn allowedIp(reading: *const Reading, item: []const u8) Error!AllowedIp {
    var buffer: [value_max]u8 = undefined;
    var word = squeezed(item, &buffer);
    var found: AllowedIp = .{ .prefix = undefined, .sign = .none };
    if (word[0] == '+' or word[0] == '-') {
        found.sign = if (word[0] == '+') .plus else .minus;
        word = word[1..];
    }
    const given = networkOf(word) orelse return badPrefix(reading, item, word);
    found.prefix = given.masked();
    if (!found.prefix.address.eql(given.address)) {
        var network: [64]u8 = undefined;
        reading.warn(item, &.{ word, " has host bits set, ", spelled(found.prefix, &network), " is meant" });
    }
    return found;
}

/// An address alone is all of its bits.
fn networkOf(word: []const u8) ?wire.Prefix {
    const slash = std.mem.findScalar(u8, word, '/') orelse word.len;
    const address = wire.Address.parse(word[0..slash]) orelse return null;
    const most = address.family.bitLength();
    const length = if (slash == word.len) most else decimalOf(word[slash + 1 ..]) orelse return null;
    return if (length <= most) .{ .address = address, .length = @intCast(length) } else null;
}

/// As text. The buffer is as long as any address with all that may stand around it.
pub fn spelled(value: anytype, buffer: *[64]u8) []const u8 {
    var writer: std.Io.Writer = .fixed(buffer);
    value.format(&writer) catch unreachable; // it has room for the longest
    return writer.buffered();
}

// ---- endpoints

pub const Endpoint = struct {
    kind: enum { address, name },
    /// An address without brackets, perhaps with a zone.
    host: []const u8,
    port: u16,
};

/// `HOST:PORT` or `[IPv6]:PORT`. The host may be a name, in brackets too.
pub fn endpoint(reading: *const Reading, text: []const u8, buffer: *[value_max]u8) Error!Endpoint {
    const value = squeezed(text, buffer);
    const is_bracketed = value.len > 0 and value[0] == '[';
    const expected = "expected HOST:PORT or [IPv6]:PORT";
    if (value.len > buffer.len - short_room) return reading.bad(text, &.{expected});
    const host_start = @intFromBool(is_bracketed);
    const end = if (is_bracketed) std.mem.findScalar(u8, value, ']') else std.mem.findScalarLast(u8, value, ':');
    const host_end = end orelse
        return reading.bad(text, &.{if (is_bracketed) "the bracket is not closed" else expected});
    const host = value[host_start..host_end];
    const rest = value[host_end + host_start ..];
    if (host.len == 0 or rest.len < 2 or rest[0] != ':') return reading.bad(text, &.{expected});
    var found: Endpoint = .{ .kind = .name, .host = host, .port = 0 };
    try readHost(reading, text, &found, is_bracketed, buffer);
    found.port = try portOf(reading, text, rest[1..]);
    if (std.mem.findScalar(u8, host, ':') != null and !is_bracketed) {
        var digits: [20]u8 = undefined;
        const port_text = notes_file.decimal(found.port, &digits);
        reading.warn(text, &.{ "an IPv6 address goes in brackets: [", host, "]:", port_text, " is meant" });
    }
    if (found.port == 0) reading.warn(text, &.{"nothing can be sent to port 0"});
    return found;
}

/// At the end of the buffer, for an address that is read from a short one.
const short_room = 16;

fn readHost(
    reading: *const Reading,
    text: []const u8,
    found: *Endpoint,
    is_bracketed: bool,
    buffer: *[value_max]u8,
) Error!void {
    if (std.mem.findScalar(u8, found.host, ':') != null) {
        if (zoned(found.host) == null) return reading.bad(text, &.{if (is_bracketed)
            "the brackets do not hold an IPv6 address"
        else
            "an IPv6 address goes in brackets: [IPv6]:PORT"});
        found.kind = .address;
    } else if (isDotted(found.host)) {
        found.kind = .address;
        if (wire.Address.parse(found.host) != null) return;
        const octets = shortIpv4(found.host) orelse
            return reading.badWord(text, found.host, "is not an IPv4 address");
        var spelling: [64]u8 = undefined;
        const address = spelled(wire.Address.fromIpv4(octets), &spelling);
        reading.warn(text, &.{ found.host, " is read as ", address });
        const place = buffer[buffer.len - short_room ..];
        @memcpy(place[0..address.len], address);
        found.host = place[0..address.len];
    }
}

/// The C library also reads 10.1 and octal numbers (inet(3)), and so does wg.
fn shortIpv4(text: []const u8) ?[4]u8 {
    var parts: [4]u32 = undefined;
    var count: usize = 0;
    var iterator = std.mem.splitScalar(u8, text, '.');
    while (iterator.next()) |part| : (count += 1) {
        if (count == parts.len or part.len == 0) return null;
        const base: u8 = if (part[0] == '0') 8 else 10;
        var value: u64 = 0;
        for (part) |digit| {
            if (digit - '0' >= base) return null;
            value = value * base + digit - '0';
            if (value > std.math.maxInt(u32)) return null;
        }
        parts[count] = @intCast(value);
    }
    var address: u32 = 0;
    for (parts[0 .. count - 1], 0..) |part, i| {
        if (part > 255) return null;
        address |= part << @intCast(24 - 8 * i);
    }
    const last = parts[count - 1];
    if (count > 1 and last >> @intCast(8 * (5 - count)) != 0) return null;
    var octets: [4]u8 = undefined;
    std.mem.writeInt(u32, &octets, address | last, .big);
    return octets;
}

const testing = std.testing;

test "short addresses are read as the C library reads them" {
    for ([_]struct { []const u8, ?[4]u8 }{
        .{ "10.1", .{ 10, 0, 0, 1 } },
        .{ "010.0.0.1", .{ 8, 0, 0, 1 } },
        .{ "1", .{ 0, 0, 0, 1 } },
        .{ "4294967295", .{ 255, 255, 255, 255 } },
        .{ "1.65535", .{ 1, 0, 255, 255 } },
        .{ "1.16777216", null },
        .{ "1.2.3.256", null },
        .{ "256.1", null },
        .{ "08.0.0.1", null },
        .{ "1..2", null },
        .{ "1.2.3.4.5", null },
        .{ ".", null },
        .{ "4294967296", null },
    }) |row| try testing.expectEqual(row[1], shortIpv4(row[0]));
}

test "an interface's address has a length in plain digits" {
    try testing.expectEqual(24, prefix("10.0.0.2/24").?.length);
    try testing.expectEqual(128, prefix("fd00::1").?.length);
    for ([_][]const u8{ "10.0.0.2/", "10.0.0.2/024", "10.0.0.2/33", "10.0.0.2/255.0.0.0", "fe80::1%eth0/64" }) |text|
        try testing.expectEqual(null, prefix(text));
}
