//! ICMP answers (RFC 792, RFC 1122 section 3.2.2, RFC 4443) to outgoing inner packets that no peer may carry.
//! Knows when silence is due, not how often to speak: the caller limits the rate.
//! Invariant: no error is ever answered by an error, and a reply never exceeds the minimum MTU of its version.
const std = @import("std");
const address = @import("address.zig");
const checksum = @import("checksum.zig");
const ip = @import("ip.zig");
const assert = @import("assert.zig").assert;
const Family = address.Family;
const writeInt = std.mem.writeInt;

const header_length = 8;

/// The whole reply, IP header included (RFC 1812 section 4.3.2.3; RFC 4443 section 2.4 c).
const ipv4_reply_length_max = 576;
const ipv6_reply_length_max = 1280;

const ipv4_quoted_length_max = ipv4_reply_length_max - ip.ipv4_header_length_min - header_length;
const ipv6_quoted_length_max = ipv6_reply_length_max - ip.ipv6_header_length - header_length;

/// What `out` must hold for any reply.
pub const reply_length_max = ipv6_reply_length_max;

/// Builds "host unreachable" or "address unreachable" for a packet refused on its way out, in the name
/// of its destination. Null when the packet must not be answered.
pub fn hostUnreachable(packet: []const u8, out: []u8) ?[]u8 {
    assert(out.len >= reply_length_max);
    const original = ip.Packet.parse(packet) orelse return null;
    if (!mayAnswer(original)) return null;
    return switch (original.family) {
        .ipv4 => replyIpv4(original, out),
        .ipv6 => replyIpv6(original, out),
    };
}

fn replyIpv4(original: ip.Packet, out: []u8) []u8 {
    const quoted = original.bytes[0..@min(original.bytes.len, ipv4_quoted_length_max)];
    const reply = out[0 .. ip.ipv4_header_length_min + header_length + quoted.len];
    // Precedence "internetwork control", as the kernel's ICMP errors have; atomic, so no identification.
    reply[0..12].* = .{ 0x45, 0xc0, 0, 0, 0, 0, 0x40, 0, 64, @backingInt(ip.Protocol.icmp), 0, 0 };
    reply[12..16].* = original.destinationBytes()[0..4].*;
    reply[16..20].* = original.sourceBytes()[0..4].*;
    ip.setLength(reply, .ipv4, reply.len);
    const message = reply[ip.ipv4_header_length_min..];
    message[0..header_length].* = .{ 3, 1, 0, 0, 0, 0, 0, 0 };
    @memcpy(message[header_length..], quoted);
    writeInt(u16, message[2..4], checksum.finish(checksum.sum(message, 0)), .big);
    return reply;
}

fn replyIpv6(original: ip.Packet, out: []u8) []u8 {
    const quoted = original.bytes[0..@min(original.bytes.len, ipv6_quoted_length_max)];
    const reply = out[0 .. ip.ipv6_header_length + header_length + quoted.len];
    reply[0..8].* = .{ 0x60, 0, 0, 0, 0, 0, @backingInt(ip.Protocol.icmpv6), 64 };
    reply[8..24].* = original.destinationBytes()[0..16].*;
    reply[24..40].* = original.sourceBytes()[0..16].*;
    ip.setLength(reply, .ipv6, reply.len);
    const message = reply[ip.ipv6_header_length..];
    message[0..header_length].* = .{ 1, 3, 0, 0, 0, 0, 0, 0 };
    @memcpy(message[header_length..], quoted);
    const pseudo = checksum.pseudoHeader(reply[8..40], @backingInt(ip.Protocol.icmpv6), message.len);
    writeInt(u16, message[2..4], checksum.finish(checksum.sum(message, pseudo)), .big);
    return reply;
}

fn mayAnswer(original: ip.Packet) bool {
    const upper = original.upper() orelse return false;
    if (upper.fragment_offset != 0) return false;
    if (!isHost(original.family, original.sourceBytes())) return false;
    if (isGroup(original.family, original.destinationBytes())) return false;
    return !isError(upper, original.bytes);
}

/// An ICMP error, or an ICMP message too short to tell.
fn isError(upper: ip.Packet.Upper, bytes: []const u8) bool {
    const message = bytes[upper.offset..];
    return switch (upper.protocol) {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        .icmp => message.len == 0 or switch (message[0]) {
            3, 4, 5, 11, 12 => true,
            else => false,
        },
        // Errors are the types below 128; a redirect, 137, must not be answered either.
        .icmpv6 => message.len == 0 or message[0] < 128 or message[0] == 137,
        else => false,
    };
}

/// Does this source stand for one machine that can be answered?
fn isHost(family: Family, source: []const u8) bool {
    return switch (family) {
        // Not "this network", loopback, multicast, reserved or broadcast (RFC 1812 section 4.3.2.7).
        .ipv4 => source[0] != 0 and source[0] != 127 and source[0] < 224,
        .ipv6 => source[0] != 0xff and !std.mem.allEqual(u8, source, 0),
    };
}

fn isGroup(family: Family, destination: []const u8) bool {
    return switch (family) {
        .ipv4 => destination[0] & 0xf0 == 0xe0 or std.mem.allEqual(u8, destination, 0xff),
        .ipv6 => destination[0] == 0xff,
    };
}

const testing = std.testing;

fn obviousSum(parts: []const []const u8) u16 {
    var total: u16 = 0;
    for (parts) |part| total = checksum.testing.sum(part, total);
    return total;
}

fn ipv4Sample(buffer: []u8, length: usize) []u8 {
    for (buffer, 0..) |*byte, i| byte.* = @truncate(i);
    buffer[0..20].* = .{ 0x45, 0, 0, 0, 0, 7, 0, 0, 63, 17, 0, 0, 10, 1, 2, 3, 192, 0, 2, 1 };
    ip.setLength(buffer, .ipv4, length);
    return buffer[0..length];
}

fn ipv6Sample(buffer: []u8, length: usize) []u8 {
    for (buffer, 0..) |*byte, i| byte.* = @truncate(i);
    buffer[0..8].* = .{ 0x60, 0, 0, 0, 0, 0, 17, 64 };
    buffer[8..24].* = address.Address.parse("2001:db8::1").?.bytes;
    buffer[24..40].* = address.Address.parse("2001:db8:1::2").?.bytes;
    ip.setLength(buffer, .ipv6, length);
    return buffer[0..length];
}

test "an IPv4 packet is answered with host unreachable of at most 576 bytes" {
    var buffer: [2000]u8 = undefined;
    var out: [reply_length_max]u8 = undefined;
    for ([_]usize{ 20, 21, 28, 547, 548, 549, 1420 }) |length| {
        const packet = ipv4Sample(&buffer, length);
        const reply = hostUnreachable(packet, &out).?;
        try testing.expectEqual(@min(576, length + 28), reply.len);
        try testing.expectEqual(reply.len, ip.Packet.parse(reply).?.bytes.len);
        try testing.expectEqual(0xffff, obviousSum(&.{reply[0..20]}));
        try testing.expectEqual(0xffff, obviousSum(&.{reply[20..]}));
        try testing.expectEqualSlices(u8, &.{ 192, 0, 2, 1, 10, 1, 2, 3, 3, 1 }, reply[12..22]);
        try testing.expectEqualSlices(u8, packet[0 .. reply.len - 28], reply[28..]);
    }
}

test "an IPv6 packet is answered with address unreachable of at most 1280 bytes" {
    var buffer: [2000]u8 = undefined;
    var out: [reply_length_max]u8 = undefined;
    for ([_]usize{ 40, 41, 48, 1231, 1232, 1233, 1420 }) |length| {
        const packet = ipv6Sample(&buffer, length);
        const reply = hostUnreachable(packet, &out).?;
        try testing.expectEqual(@min(1280, length + 48), reply.len);
        try testing.expectEqual(reply.len, ip.Packet.parse(reply).?.bytes.len);
        var tail: [8]u8 = .{ 0, 0, 0, 0, 0, 0, 0, 58 };
        writeInt(u32, tail[0..4], @intCast(reply.len - 40), .big);
        try testing.expectEqual(0xffff, obviousSum(&.{ reply[8..40], &tail, reply[40..] }));
        try testing.expectEqualSlices(u8, &.{ 1, 3 }, reply[40..42]);
        try testing.expectEqualSlices(u8, packet[24..40], reply[8..24]);
        try testing.expectEqualSlices(u8, packet[8..24], reply[24..40]);
        try testing.expectEqualSlices(u8, packet[0 .. reply.len - 48], reply[48..]);
    }
}

test "errors, later fragments, groups and nonsense are met with silence" {
    var buffer: [200]u8 = undefined;
    var out: [reply_length_max]u8 = undefined;
    try testing.expectEqual(null, hostUnreachable(&.{}, &out));
    try testing.expectEqual(null, hostUnreachable(ipv4Sample(&buffer, 100)[0..99], &out));
    const Patch = struct { at: usize, bytes: []const u8 };
    const silent_v4 = [_][]const Patch{
        &.{.{ .at = 6, .bytes = &.{ 0, 1 } }}, // second fragment
        &.{ .{ .at = 9, .bytes = &.{1} }, .{ .at = 20, .bytes = &.{3} } },
        &.{ .{ .at = 9, .bytes = &.{1} }, .{ .at = 20, .bytes = &.{11} } },
        &.{.{ .at = 12, .bytes = &.{ 0, 0, 0, 0 } }},
        &.{.{ .at = 12, .bytes = &.{ 224, 0, 0, 1 } }},
        &.{.{ .at = 12, .bytes = &.{ 255, 255, 255, 255 } }},
        &.{.{ .at = 16, .bytes = &.{ 239, 1, 1, 1 } }},
        &.{.{ .at = 16, .bytes = &.{ 255, 255, 255, 255 } }},
    };
    for (silent_v4) |patches| {
        const packet = ipv4Sample(&buffer, 100);
        for (patches) |patch| @memcpy(packet[patch.at..][0..patch.bytes.len], patch.bytes);
        try testing.expectEqual(null, hostUnreachable(packet, &out));
    }
    const silent_v6 = [_][]const Patch{
        &.{ .{ .at = 6, .bytes = &.{44} }, .{ .at = 40, .bytes = &.{ 17, 0, 0, 8 } } }, // second fragment
        &.{ .{ .at = 6, .bytes = &.{58} }, .{ .at = 40, .bytes = &.{1} } },
        &.{ .{ .at = 6, .bytes = &.{58} }, .{ .at = 40, .bytes = &.{137} } },
        &.{ .{ .at = 6, .bytes = &.{0} }, .{ .at = 40, .bytes = &.{ 58, 0, 1, 4, 0, 0, 0, 0, 3 } } },
        &.{ .{ .at = 6, .bytes = &.{0} }, .{ .at = 40, .bytes = &.{ 58, 200 } } }, // extension beyond the end
        &.{.{ .at = 8, .bytes = &@as([16]u8, @splat(0)) }},
        &.{.{ .at = 8, .bytes = &.{0xff} }},
        &.{.{ .at = 24, .bytes = &.{0xff} }},
    };
    for (silent_v6) |patches| {
        const packet = ipv6Sample(&buffer, 100);
        for (patches) |patch| @memcpy(packet[patch.at..][0..patch.bytes.len], patch.bytes);
        try testing.expectEqual(null, hostUnreachable(packet, &out));
    }
}

test "echo requests and first fragments are answered" {
    var buffer: [200]u8 = undefined;
    var out: [reply_length_max]u8 = undefined;
    const four = ipv4Sample(&buffer, 100);
    four[9] = 1;
    four[20] = 8;
    try testing.expect(hostUnreachable(four, &out) != null);
    four[6] = 0x20;
    try testing.expect(hostUnreachable(four, &out) != null);
    const six = ipv6Sample(&buffer, 100);
    six[6] = 58;
    six[40] = 128;
    try testing.expect(hostUnreachable(six, &out) != null);
}
