//! Superpackets from the TUN: one with a right header, whose bytes decide what it is like. Its parts are whole packets
//! that hold the payload once, in order; joined and taken apart again they are the same.
const std = @import("std");
const io = @import("io");
const report = @import("report");
const Chance = @import("chance").Chance;
const gro = @import("gro.zig");
const packet_file = @import("packet.zig");
const Shape = packet_file.Shape;
const Splitter = io.gso.Splitter;
const VnetHeader = io.VnetHeader;

/// What is planted to see that it is found.
const Fault = enum { none, early_fin, last_sum };
var fault: Fault = .none;

const parts_max = 96;
var superpacket: [1 << 17]u8 = undefined;
var memory: [1 << 18]u8 = undefined;

pub fn prepare(wanted: ?[]const u8) bool {
    fault = std.meta.stringToEnum(Fault, wanted orelse "none") orelse return false;
    return gro.prepare(null);
}

pub fn judge(bytes: []const u8) report.Error!void {
    var chance: Chance = .of(bytes, 1);
    const random = chance.random();
    const shape = makeShape(random);
    const size = 1 + random.uintLessThan(u16, if (random.boolean()) 1500 else 65000);
    if (shape.payload_length / size >= parts_max) return;
    const packet = packet_file.write(&superpacket, shape);
    packet_file.putSeed(packet, shape);
    const splitter = Splitter.init(headerOf(random, shape, size), packet) catch
        return describe("a right superpacket is refused", packet);
    if (splitter.count != @max(1, (@as(usize, shape.payload_length) + size - 1) / size)) {
        return describe("a superpacket becomes another count of packets", packet);
    }
    var parts: [parts_max][]const u8 = undefined;
    var used: usize = 0;
    for (parts[0..splitter.count], 0..) |*part, i| {
        const written = splitter.write(i, memory[used..]);
        part.* = memory[used..][0..written];
        used += written;
        try judgePart(packet, part.*, shape, size, i, i + 1 == splitter.count);
    }
    try gro.judgeBatch(parts[0..splitter.count], .{ .tcp = true, .udp = true });
}

fn makeShape(random: std.Random) Shape {
    const choice = random.int(u8);
    var shape: Shape = .{
        .v6 = choice & 1 != 0,
        .tcp = choice & 2 != 0,
        .dont_fragment = choice & 4 != 0,
        .sequence = random.int(u32),
        .identification = random.int(u16),
        .flags = random.int(u8),
        .tos = random.int(u8),
        .ttl = random.int(u8),
        .options = random.uintLessThan(u4, 11),
        .payload_length = 0,
    };
    const most: u16 = if (choice & 8 != 0) 65000 else 9000;
    shape.payload_length = random.uintAtMost(u16, most);
    return shape;
}

fn headerOf(random: std.Random, shape: Shape, size: u16) VnetHeader {
    const kind: u8 = if (!shape.tcp)
        VnetHeader.GSO_UDP_L4
    else if (shape.v6) VnetHeader.GSO_TCPV6 else VnetHeader.GSO_TCPV4;
    const ecn: u8 = if (shape.tcp and shape.flags & Shape.cwr != 0) VnetHeader.GSO_ECN else 0;
    return .{
        .flags = VnetHeader.NEEDS_CSUM,
        .gso_type = kind | ecn,
        .hdr_len = random.int(u16), // it lies when a packet was forwarded
        .gso_size = size,
        .csum_start = @intCast(shape.transport()),
        .csum_offset = @intCast(shape.checksumAt() - shape.transport()),
    };
}

fn judgePart(
    packet: []const u8,
    part: []const u8,
    shape: Shape,
    size: u16,
    number: usize,
    is_last: bool,
) report.Error!void {
    const head = shape.headerLength();
    const start = number * size;
    const payload = packet[head..][start..@min(start + size, shape.payload_length)];
    if (!std.mem.eql(u8, payload, part[head..])) return describe("a part has another payload", part);
    if (!packet_file.isWhole(part, shape) or (fault == .last_sum and is_last and number > 0)) {
        return describe("a part's checksum is wrong", part);
    }
    const said = std.mem.readInt(u16, part[if (shape.v6) 4 else 2..][0..2], .big);
    if (said + @as(usize, if (shape.v6) 40 else 0) != part.len) return describe("a part's length is wrong", part);
    if (!shape.v6) {
        const expected = shape.identification +% @as(u16, @intCast(number));
        const got = std.mem.readInt(u16, part[4..6], .big);
        if (got != expected) return describe("a part has another identification", part);
    }
    if (!shape.tcp) return;
    const header = part[shape.transport()..];
    const sequence = std.mem.readInt(u32, header[4..8], .big);
    if (sequence != shape.sequence +% @as(u32, @intCast(start))) return describe("a part has another sequence", part);
    var flags = shape.flags;
    if (!is_last and fault != .early_fin) flags &= ~@as(u8, Shape.fin | Shape.push);
    if (number > 0) flags &= ~@as(u8, Shape.cwr);
    if (header[13] != flags) return describe("a part has other flags", part);
}

fn describe(what: []const u8, packet: []const u8) report.Error {
    return report.mismatch("{s}: {d} bytes {x}", .{ what, packet.len, packet[0..@min(packet.len, 120)] });
}
