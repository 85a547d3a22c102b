//! Addresses as values: Address, Prefix, SocketAddress, Endpoint. Parse, format, compare.
//! Knows text and bytes, not sockets: io/ turns these into sockaddr. Nothing here allocates.
//! Invariant: bytes of an Address beyond its family's length are zero, so values compare bytewise.
const std = @import("std");

pub const Family = enum(u8) {
    ipv4 = 4,
    ipv6 = 6,

    /// Length of an address in bytes.
    pub fn byteLength(family: Family) u8 {
        return switch (family) {
            .ipv4 => 4,
            .ipv6 => 16,
        };
    }

    /// Length of an address in bits: the longest prefix.
    pub fn bitLength(family: Family) u8 {
        return family.byteLength() * 8;
    }
};

pub const Address = struct {
    family: Family,
    /// Network order; IPv4 uses the first four bytes.
    bytes: [16]u8,

    pub fn fromIpv4(octets: [4]u8) Address {
        var address: Address = .{ .family = .ipv4, .bytes = @splat(0) };
        address.bytes[0..4].* = octets;
        return address;
    }

    pub fn fromIpv6(octets: [16]u8) Address {
        return .{ .family = .ipv6, .bytes = octets };
    }

    pub fn slice(address: *const Address) []const u8 {
        return address.bytes[0..address.family.byteLength()];
    }

    pub fn eql(a: Address, b: Address) bool {
        return a.family == b.family and std.mem.eql(u8, &a.bytes, &b.bytes);
    }

    /// fe80::/10: means nothing without its link.
    pub fn isLinkLocal(address: *const Address) bool {
        return address.family == .ipv6 and address.bytes[0] == 0xfe and address.bytes[1] & 0xc0 == 0x80;
    }

    /// Text to Address without a zone; null when it is neither IPv4 nor IPv6 text.
    pub fn parse(text: []const u8) ?Address {
        if (std.mem.findScalar(u8, text, ':') != null) return fromIpv6(parseIpv6(text) orelse return null);
        return fromIpv4(parseIpv4(text) orelse return null);
    }

    pub fn format(address: Address, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        switch (address.family) {
            .ipv4 => {
                const b = address.bytes;
                try writer.print("{d}.{d}.{d}.{d}", .{ b[0], b[1], b[2], b[3] });
            },
            .ipv6 => try formatIpv6(&address.bytes, writer),
        }
    }
};

/// An address and the length of its network part. Host bits are kept until `masked`.
pub const Prefix = struct {
    address: Address,
    length: u8,

    /// `ADDRESS/LENGTH`, or a bare address, which stands for itself alone.
    pub fn parse(text: []const u8) ?Prefix {
        const slash = std.mem.findScalar(u8, text, '/') orelse {
            const address = Address.parse(text) orelse return null;
            return .{ .address = address, .length = address.family.bitLength() };
        };
        const address = Address.parse(text[0..slash]) orelse return null;
        const length = parseDecimal(u8, text[slash + 1 ..]) orelse return null;
        if (length > address.family.bitLength()) return null;
        return .{ .address = address, .length = length };
    }

    pub fn masked(prefix: Prefix) Prefix {
        var result = prefix;
        const full: usize = prefix.length / 8;
        if (full < 16) {
            const keep: u3 = @intCast(prefix.length % 8);
            result.address.bytes[full] &= ~(@as(u8, 0xff) >> keep);
            @memset(result.address.bytes[full + 1 ..], 0);
        }
        return result;
    }

    pub fn format(prefix: Prefix, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        try writer.print("{f}/{d}", .{ prefix.address, prefix.length });
    }
};

/// Where a datagram comes from or goes to.
pub const SocketAddress = struct {
    address: Address,
    port: u16,
    /// Interface index of a link-local IPv6 address, else 0.
    scope_id: u32 = 0,

    pub fn eql(a: SocketAddress, b: SocketAddress) bool {
        return a.port == b.port and a.scope_id == b.scope_id and a.address.eql(b.address);
    }

    /// `1.2.3.4:5`, `[2001:db8::1]:5` or `[fe80::1%3]:5`; the zone is an interface index.
    pub fn parse(text: []const u8) ?SocketAddress {
        const colon = std.mem.findScalarLast(u8, text, ':') orelse return null;
        const port = parseDecimal(u16, text[colon + 1 ..]) orelse return null;
        const host = text[0..colon];
        if (host.len < 2 or host[0] != '[') {
            return .{ .address = Address.fromIpv4(parseIpv4(host) orelse return null), .port = port };
        }
        if (host[host.len - 1] != ']') return null;
        const inner = host[1 .. host.len - 1];
        const percent = std.mem.findScalar(u8, inner, '%') orelse inner.len;
        const scope_id = if (percent == inner.len) 0 else parseDecimal(u32, inner[percent + 1 ..]) orelse return null;
        const octets = parseIpv6(inner[0..percent]) orelse return null;
        return .{ .address = Address.fromIpv6(octets), .port = port, .scope_id = scope_id };
    }

    pub fn format(self: SocketAddress, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        switch (self.address.family) {
            .ipv4 => try writer.print("{f}:{d}", .{ self.address, self.port }),
            .ipv6 => if (self.scope_id == 0)
                try writer.print("[{f}]:{d}", .{ self.address, self.port })
            else
                try writer.print("[{f}%{d}]:{d}", .{ self.address, self.scope_id, self.port }),
        }
    }
};

/// The local address and interface a datagram arrived on: replies leave from there (sticky source).
pub const Source = struct {
    address: Address,
    interface_index: u32,

    pub fn eql(a: Source, b: Source) bool {
        return a.interface_index == b.interface_index and a.address.eql(b.address);
    }
};

/// A peer's remote address and, once it has spoken to us, the source to answer from.
pub const Endpoint = struct {
    remote: SocketAddress,
    source: ?Source = null,

    pub fn eql(a: Endpoint, b: Endpoint) bool {
        if (!a.remote.eql(b.remote)) return false;
        const left = a.source orelse return b.source == null;
        return left.eql(b.source orelse return false);
    }
};

/// Digits only: no sign, no underscore, no leading plus, unlike std.fmt.parseInt.
fn parseDecimal(comptime T: type, text: []const u8) ?T {
    if (text.len == 0) return null;
    var value: T = 0;
    for (text) |character| {
        if (character < '0' or character > '9') return null;
        value = std.math.mul(T, value, 10) catch return null;
        value = std.math.add(T, value, character - '0') catch return null;
    }
    return value;
}

fn parseIpv4(text: []const u8) ?[4]u8 {
    var octets: [4]u8 = undefined;
    var parts = std.mem.splitScalar(u8, text, '.');
    for (&octets) |*octet| {
        const part = parts.next() orelse return null;
        if (part.len > 1 and part[0] == '0') return null; // 010 is octal to some, decimal to others
        octet.* = parseDecimal(u8, part) orelse return null;
    }
    return if (parts.next() == null) octets else null;
}

/// RFC 4291 section 2.2, with an embedded IPv4 tail.
fn parseIpv6(text: []const u8) ?[16]u8 {
    const gap = std.mem.find(u8, text, "::") orelse {
        var octets: [16]u8 = undefined;
        return if (parseGroups(text, &octets) == 16) octets else null;
    };
    if (std.mem.findScalar(u8, text[0..gap], '.') != null) return null; // an IPv4 address is a tail
    var head: [16]u8 = undefined;
    var tail: [16]u8 = undefined;
    const head_length = if (gap == 0) 0 else parseGroups(text[0..gap], &head) orelse return null;
    const rest = text[gap + 2 ..];
    const tail_length = if (rest.len == 0) 0 else parseGroups(rest, &tail) orelse return null;
    if (head_length + tail_length > 14) return null; // "::" stands for at least one group
    var octets: [16]u8 = @splat(0);
    @memcpy(octets[0..head_length], head[0..head_length]);
    @memcpy(octets[16 - tail_length ..], tail[0..tail_length]);
    return octets;
}

/// Groups of up to four hex digits, the last perhaps an IPv4 address; returns the bytes written.
fn parseGroups(text: []const u8, out: *[16]u8) ?usize {
    var length: usize = 0;
    var parts = std.mem.splitScalar(u8, text, ':');
    while (parts.next()) |part| {
        if (std.mem.findScalar(u8, part, '.') != null) {
            if (length > 12 or parts.next() != null) return null;
            out[length..][0..4].* = parseIpv4(part) orelse return null;
            return length + 4;
        }
        if (length > 14 or part.len == 0 or part.len > 4) return null;
        var group: u16 = 0;
        for (part) |character| {
            group = group << 4 | (std.fmt.charToDigit(character, 16) catch return null);
        }
        std.mem.writeInt(u16, out[length..][0..2], group, .big);
        length += 2;
    }
    return length;
}

/// RFC 5952: the longest run of two or more zero groups becomes "::".
fn formatIpv6(bytes: *const [16]u8, writer: *std.Io.Writer) std.Io.Writer.Error!void {
    var groups: [8]u16 = undefined;
    for (&groups, 0..) |*group, i| group.* = std.mem.readInt(u16, bytes[i * 2 ..][0..2], .big);
    var best_start: usize = 8;
    var best_length: usize = 1;
    var start: usize = 0;
    while (start < 8) {
        var end = start;
        while (end < 8 and groups[end] == 0) end += 1;
        if (end - start > best_length) {
            best_start = start;
            best_length = end - start;
        }
        start = @max(end, start + 1);
    }
    var i: usize = 0;
    while (i < 8) {
        if (i == best_start) {
            try writer.writeAll("::");
            i += best_length;
            continue;
        }
        if (i != 0 and i != best_start + best_length) try writer.writeByte(':');
        try writer.print("{x}", .{groups[i]});
        i += 1;
    }
}

const testing = std.testing;

fn expectFormat(expected: []const u8, value: anytype) !void {
    var buffer: [128]u8 = undefined;
    try testing.expectEqualStrings(expected, try std.mem.print(&buffer, "{f}", .{value}));
}

test "addresses survive parse and format" {
    const same = [_][]const u8{
        "1.2.3.4",     "255.255.255.255", "::",  "::1",
        "2001:db8::1", "fe80::1:0:0:1",   "1::", "1:2:3:4:5:6:7:8",
    };
    for (same) |text| try expectFormat(text, Address.parse(text).?);
    try expectFormat("::ffff:102:304", Address.parse("::ffff:1.2.3.4").?);
    try expectFormat("1::2:0:0:3:4", Address.parse("1:0:0:2:0:0:3:4").?);
    try expectFormat("0:1:2:3:4:5:6:7", Address.parse("0:1:2:3:4:5:6:7").?);
}

test "text that is no address is refused" {
    const bad = [_][]const u8{
        "",          "1.2.3",      "1.2.3.4.5",             "256.1.1.1",
        "01.2.3.4",  "1.2.3.4 ",   ":",                     ":::",
        "1::2::3",   "12345::",    "1:2:3:4:5:6:7:8:9",     "1:2:3:4:5:6:7::8",
        "::1.2.3",   "g::",        "1:2:3:4:5:6:7:1.2.3.4", "+1.2.3.4",
        "1.2.3.4::", "1.2.3.4::1",
    };
    for (bad) |text| try testing.expectEqual(null, Address.parse(text));
}

test "link-local are the addresses of fe80::/10" {
    for ([_][]const u8{ "fe80::1", "febf::" }) |text| try testing.expect(Address.parse(text).?.isLinkLocal());
    for ([_][]const u8{ "fe7f::1", "fec0::", "::1", "254.128.0.1" }) |text| {
        try testing.expect(!Address.parse(text).?.isLinkLocal());
    }
}

test "prefixes mask their host bits" {
    try expectFormat("10.0.0.0/8", Prefix.parse("10.1.2.3/8").?.masked());
    try expectFormat("10.1.2.3/32", Prefix.parse("10.1.2.3").?.masked());
    try expectFormat("2001:db8:8000::/33", Prefix.parse("2001:db8:ffff::1/33").?.masked());
    try expectFormat("::/0", Prefix.parse("ffff::/0").?.masked());
    for ([_][]const u8{ "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/+1", "/8" }) |text| {
        try testing.expectEqual(null, Prefix.parse(text));
    }
}

test "socket addresses with and without zone" {
    for ([_][]const u8{ "1.2.3.4:5", "[2001:db8::1]:51820", "[fe80::1%3]:1" }) |text| {
        try expectFormat(text, SocketAddress.parse(text).?);
    }
    const bad = [_][]const u8{
        "1.2.3.4", "1.2.3.4:65536", "1.2.3.4:", "[::1:5", "::1:5", "[1.2.3.4]:5", "[::1%eth0]:5", ":5",
    };
    for (bad) |text| {
        try testing.expectEqual(null, SocketAddress.parse(text));
    }
}
