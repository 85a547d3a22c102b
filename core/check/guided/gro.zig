//! Superpackets towards the TUN: a few flows, interleaved, whose bytes decide what each packet is like and what is odd
//! about it. Every packet comes out once, in its flow's order, and what was joined is taken apart again by gso into
//! the same bytes.
const std = @import("std");
const io = @import("io");
const report = @import("report");
const Chance = @import("chance").Chance;
const packet_file = @import("packet.zig");
const Shape = packet_file.Shape;
const gro = io.gro;
const Splitter = io.gso.Splitter;

/// What is planted to see that it is found.
const Fault = enum { none, swapped, changed };
var fault: Fault = .none;

const packets_max = 96;
var heap: [1 << 20]u8 = undefined;
var made: [1 << 19]u8 = undefined;
var whole: [1 << 17]u8 = undefined;
var part: [1 << 17]u8 = undefined;
var coalescer: gro.Coalescer = undefined;

pub fn prepare(wanted: ?[]const u8) bool {
    fault = std.meta.stringToEnum(Fault, wanted orelse "none") orelse return false;
    var fixed: std.heap.FixedBufferAllocator = .init(&heap);
    coalescer = gro.Coalescer.init(fixed.allocator()) catch return false;
    return true;
}

pub fn judge(bytes: []const u8) report.Error!void {
    var chance: Chance = .of(bytes, 1);
    const random = chance.random();
    var flows: [4]Shape = undefined;
    for (&flows, 0..) |*flow, i| flow.* = makeFlow(random, @intCast(i));
    var packets: [packets_max][]u8 = undefined;
    var count: usize = 0;
    var used: usize = 0;
    while (count < packets_max and !chance.isSpent()) : (count += 1) {
        const flow = &flows[random.uintLessThan(u8, flows.len)];
        if (made.len - used < 4000) break;
        packets[count] = makePacket(random, flow, made[used..]);
        used += packets[count].len;
    }
    const options: gro.Options = .{ .tcp = random.uintLessThan(u8, 8) != 0, .udp = random.uintLessThan(u8, 8) != 0 };
    try judgeBatch(packets[0..count], options);
}

fn makeFlow(random: std.Random, number: u8) Shape {
    const choice = random.int(u8);
    return .{
        .v6 = choice & 1 != 0,
        .tcp = choice & 2 != 0,
        .host = 1 + (choice >> 2 & 1),
        .port = 1000 + @as(u16, choice >> 3 & 1) * number,
        .sequence = if (choice & 16 != 0) 0xffff_fff0 else 0,
        .identification = if (choice & 32 != 0) 0xfffe else 0,
        .dont_fragment = choice & 64 == 0,
        .options = if (choice & 128 != 0) 3 else 0,
        .payload_length = 1 + @as(u16, random.int(u8)) * 6,
    };
}

/// Goes on in its flow as it should, but for now and then.
fn makePacket(random: std.Random, flow: *Shape, out: []u8) []u8 {
    var shape = flow.*;
    const odd = random.uintLessThan(u8, 32);
    const value = if (odd < 14) random.int(u8) else 0;
    switch (odd) {
        0 => shape.flags = value,
        1 => shape.tos = value,
        2 => shape.ttl = value,
        3 => shape.dont_fragment = value & 1 != 0,
        4 => shape.options = @truncate(value % 11),
        5 => shape.sequence +%= value,
        6 => shape.identification +%= value,
        7 => shape.payload_length = value,
        8 => shape.payload_length +|= value,
        9 => shape.flags |= Shape.push,
        10 => shape.flags |= Shape.fin,
        else => {},
    }
    var packet = packet_file.write(out, shape);
    switch (odd) {
        11 => packet[value % packet.len] ^= 1, // some checksum is wrong
        12 => packet[value % @min(packet.len, 48)] ^= value | 1, // no longer such a packet, perhaps
        13 => packet = packet[0..@min(packet.len, 1 + @as(usize, value))],
        else => {},
    }
    flow.sequence +%= shape.payload_length;
    if (flow.identification != 0 or !flow.dont_fragment) flow.identification +%= 1;
    return packet;
}

// ---- what must hold -----------------------------------------------------------------------------------------------

pub fn judgeBatch(packets: []const []const u8, options: gro.Options) report.Error!void {
    var order: [packets_max]usize = undefined;
    var count: usize = 0;
    coalescer.reset(options);
    for (packets) |packet| if (!coalescer.add(packet)) return report.mismatch("there is no room for a packet", .{});
    var frames = coalescer.frames();
    while (frames.next()) |frame| {
        const first = count;
        var originals = frame.originals();
        while (originals.next()) |original| : (count += 1) {
            order[count] = find(packets, original) orelse return report.mismatch("a packet that was not given", .{});
            for (order[0..count]) |earlier| if (earlier == order[count]) {
                return describe("a packet comes twice", original);
            };
        }
        if (count - first != frame.packet_count) return report.mismatch("a frame has another count of packets", .{});
        if (fault == .swapped and count - first > 2) std.mem.swap(usize, &order[first], &order[first + 1]);
        try judgeFrame(&frame, packets, order[first..count]);
    }
    if (count != packets.len) return report.mismatch("{d} packets come out of {d}", .{ count, packets.len });
    try judgeOrder(packets, order[0..count], options.tcp and options.udp);
}

fn find(packets: []const []const u8, wanted: []const u8) ?usize {
    for (packets, 0..) |packet, i| if (packet.ptr == wanted.ptr and packet.len == wanted.len) return i;
    return null;
}

fn judgeFrame(frame: *const gro.Frame, packets: []const []const u8, members: []const usize) report.Error!void {
    var header: io.VnetHeader = .{};
    const prefix = frame.iovecs[0];
    @memcpy(std.mem.asBytes(&header)[0..prefix.len], prefix.base[0..prefix.len]);
    var length: usize = 0;
    for (frame.iovecs[1..]) |vector| {
        @memcpy(whole[length..][0..vector.len], vector.base[0..vector.len]);
        length += vector.len;
    }
    if (length != frame.length) return report.mismatch("a frame has another length than it says", .{});
    if (fault == .changed and members.len > 1) whole[length - 1] ^= 1;
    const splitter = Splitter.init(header, whole[0..length]) catch
        return describe("a frame cannot be taken apart", whole[0..length]);
    if (splitter.count != members.len) return describe("a frame becomes another count of packets", whole[0..length]);
    const is_unnumbered = for (members) |member| {
        if (!isUnnumbered(packets[member])) break false;
    } else members.len > 1;
    for (members, 0..) |member, i| {
        const written = splitter.write(i, &part);
        if (is_unnumbered) forgetNumber(&part);
        if (!std.mem.eql(u8, part[0..written], packets[member])) {
            return describe("a packet is changed by being joined", packets[member]);
        }
    }
}

/// Numbers that count up from what were all zeros with DF are the one thing that is lost.
fn isUnnumbered(packet: []const u8) bool {
    return packet.len >= 20 and packet[0] >> 4 == 4 and packet[6] & 0x40 != 0 and packet[4] | packet[5] == 0;
}

fn forgetNumber(packet: []u8) void {
    packet[4..6].* = .{ 0, 0 };
    packet[10..12].* = .{ 0, 0 };
    std.mem.writeInt(u16, packet[10..12], packet_file.fold(packet_file.sum(packet[0..20])), .big);
}

/// No packet overtakes one of its flow, nor one whose flow cannot be seen and which may be its own.
/// When one protocol is not joined, the hidden packets of it are in nobody's way.
fn judgeOrder(packets: []const []const u8, order: []const usize, judges_hidden: bool) report.Error!void {
    for (order, 0..) |first, i| for (order[i + 1 ..]) |second| {
        if (first < second) continue;
        const one = Flow.of(packets[first]) orelse continue;
        const other = Flow.of(packets[second]) orelse continue;
        if (!judges_hidden and (one.ports == null or other.ports == null)) continue;
        if (one.mayBe(&other)) return describe("a packet is overtaken", packets[second]);
    };
}

const Flow = struct {
    pair: []const u8,
    protocol: u8,
    /// Null where they cannot be seen.
    ports: ?[]const u8,

    /// Null for what is no whole packet, which nobody puts in order.
    fn of(packet: []const u8) ?Flow {
        if (packet.len < 20) return null;
        const is_v6 = packet[0] >> 4 == 6;
        const said = std.mem.readInt(u16, packet[if (is_v6) 4 else 2..][0..2], .big);
        if (said + @as(usize, if (is_v6) 40 else 0) != packet.len) return null;
        if (is_v6) {
            if (packet.len < 40) return null;
            const is_hidden = switch (packet[6]) {
                0, 43, 44, 60 => true,
                6, 17 => false,
                else => return null,
            };
            const is_short = packet.len < 44;
            return .{
                .pair = packet[8..40],
                .protocol = packet[6],
                .ports = if (is_hidden or is_short) null else packet[40..44],
            };
        }
        if (packet[0] >> 4 != 4 or packet[9] != 6 and packet[9] != 17) return null;
        const header = @as(usize, packet[0] & 15) * 4;
        if (header < 20 or header > packet.len) return null;
        const is_hidden = header != 20 or packet[6] & 0x3f != 0 or packet[7] != 0 or packet.len < 24;
        return .{ .pair = packet[12..20], .protocol = packet[9], .ports = if (is_hidden) null else packet[20..24] };
    }

    fn mayBe(flow: *const Flow, other: *const Flow) bool {
        if (!std.mem.eql(u8, flow.pair, other.pair)) return false;
        const ports = flow.ports orelse return true;
        return flow.protocol == other.protocol and std.mem.eql(u8, ports, other.ports orelse return true);
    }
};

fn describe(what: []const u8, packet: []const u8) report.Error {
    return report.mismatch("{s}: {d} bytes {x}", .{ what, packet.len, packet[0..@min(packet.len, 120)] });
}
