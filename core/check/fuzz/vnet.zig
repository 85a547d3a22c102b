//! What the kernel hands us beside a packet: the virtio-net header of a TUN and the control messages of a UDP socket,
//! arbitrary or nearly right. Input ends, and output begins and ends, where memory does, so an access out of place
//! crashes. What is accepted becomes packets that are as long as they say; whatever else comes is refused.
const std = @import("std");
const linux = std.os.linux;
const io = @import("io");
const wire = @import("wire");
const report = @import("report");
const VnetHeader = io.VnetHeader;
const Splitter = io.gso.Splitter;
const control_message = io.control_message;

/// What is planted to see that it is found.
const Fault = enum { none, no_bounds, short_packet, endless, wild_size, buried };
var fault: Fault = .none;

const packet_max = 65535;
const area_length = 1 << 17;
/// Each ends where a page without access begins.
var input: []u8 = undefined;
var output: []u8 = undefined;

pub fn prepare(wanted: ?[]const u8) bool {
    fault = std.meta.stringToEnum(Fault, wanted orelse "none") orelse return false;
    input = mapArea() orelse return false;
    output = mapArea() orelse return false;
    return true;
}

fn mapArea() ?[]u8 {
    const page = 1 << 16; // of every architecture
    const address = linux.mmap(
        null,
        area_length + page,
        .{ .READ = true, .WRITE = true },
        .{ .TYPE = .PRIVATE, .ANONYMOUS = true },
        -1,
        0,
    );
    if (linux.errno(address) != .SUCCESS) return null;
    if (linux.errno(linux.mprotect(@ptrFromInt(address + area_length), page, .{})) != .SUCCESS) return null;
    return @as([*]u8, @ptrFromInt(address))[0..area_length];
}

fn atEnd(area: []u8, length: usize) []u8 {
    return area[area.len - length ..];
}

pub fn iterate(random: std.Random) report.Error!void {
    const packet = makePacket(random);
    try split(makeHeader(random, packet), packet);
    try splitTunnel(random);
    try parseControl(makeControl(random));
}

/// A virtio-net header and a packet.
pub fn judge(bytes: []const u8) report.Error!void {
    if (bytes.len < VnetHeader.length or bytes.len > VnetHeader.length + packet_max) return;
    const packet = atEnd(input, bytes.len - VnetHeader.length);
    @memcpy(packet, bytes[VnetHeader.length..]);
    try split(VnetHeader.parse(bytes[0..VnetHeader.length]), packet);
}

/// Control messages.
pub fn judgeControl(bytes: []const u8) report.Error!void {
    const control = atEnd(input, @min(bytes.len, 512));
    @memcpy(control, bytes[0..control.len]);
    if (fault == .buried) try dig(control);
    try parseControl(control);
}

/// Four right bytes: never found by chance, and soon by whoever sees that each of them is something new.
fn dig(bytes: []const u8) report.Error!void {
    for ("pywg", 0..) |wanted, i| {
        if (bytes.len <= i or bytes[i] != wanted) return;
        @as(*volatile u8, &dug[i]).* = 1; // nobody here reads it
    }
    return report.mismatch("what was buried is found", .{});
}

/// A target is compiled without counters, so the planted fault has its own, where libFuzzer looks for such.
var dug: [4]u8 linksection("__libfuzzer_extra_counters") = @splat(0);

/// A virtio-net header and a packet; the same bytes are read as control messages as well.
pub fn replay(file: i32) report.Error!void {
    var bytes: [VnetHeader.length + packet_max]u8 = undefined;
    const length = linux.read(file, &bytes, bytes.len);
    if (linux.errno(length) != .SUCCESS) return report.mismatch("the file cannot be read", .{});
    if (length >= VnetHeader.length) {
        const packet = atEnd(input, length - VnetHeader.length);
        @memcpy(packet, bytes[VnetHeader.length..length]);
        try split(VnetHeader.parse(bytes[0..VnetHeader.length]), packet);
    }
    const control = atEnd(input, @min(length, 512));
    @memcpy(control, bytes[0..control.len]);
    try parseControl(control);
}

// ---- from TUN -----------------------------------------------------------------------------------------------------

fn split(header: VnetHeader, packet: []const u8) report.Error!void {
    if (fault == .no_bounds and header.csum_start != 0) std.mem.doNotOptimizeAway(packet.ptr[header.csum_start]);
    const splitter = Splitter.init(header, packet) catch {
        return if (isPlain(header)) describe("a packet that asks for nothing is refused", header, packet, 0) else {};
    };
    if (splitter.count == 0) return describe("it becomes no packet", header, packet, 0);
    if (splitter.count > packet_max) return describe("it becomes more packets than it has bytes", header, packet, 0);
    for (0..splitter.count) |i| {
        // All of the first and last; those between are alike.
        if (i > 40 and i + 3 < splitter.count) continue;
        const length = splitter.length(i);
        if (length > packet.len) return describe("a part is longer than the whole", header, packet, i);
        const out = atEnd(output, length);
        var written = splitter.write(i, out);
        if (fault == .short_packet and splitter.count > 1) written -= 1;
        if (written != length) return describe("a part is not as long as was said", header, packet, i);
        if (isPlain(header)) {
            if (!std.mem.eql(u8, packet, out)) {
                return describe("a packet that asks for nothing is changed", header, packet, i);
            }
        } else if (isSuper(header)) {
            const parsed = wire.ip.Packet.parse(out) orelse
                return describe("a part is no IP packet", header, packet, i);
            if (parsed.bytes.len != length) return describe("a part's header has another length", header, packet, i);
        }
    }
}

fn isPlain(header: VnetHeader) bool {
    return header.gso_type == VnetHeader.GSO_NONE and header.flags & VnetHeader.NEEDS_CSUM == 0;
}

fn isSuper(header: VnetHeader) bool {
    return header.gso_type & ~@as(u8, VnetHeader.GSO_ECN) != VnetHeader.GSO_NONE;
}

fn describe(what: []const u8, header: VnetHeader, packet: []const u8, part: usize) report.Error {
    return report.mismatch("{s}: part {d}, header {x}, packet of {d} bytes {x}", .{
        what, part, header.asBytes(), packet.len, packet[0..@min(packet.len, 200)],
    });
}

fn makeHeader(random: std.Random, packet: []const u8) VnetHeader {
    var header: VnetHeader = .{};
    if (random.uintLessThan(u8, 8) == 0) {
        var bytes: [VnetHeader.length]u8 = undefined;
        random.bytes(&bytes);
        return VnetHeader.parse(&bytes);
    }
    const is_v6 = packet.len > 6 and packet[0] >> 4 == 6;
    const is_arbitrary = random.uintLessThan(u8, 8) == 0 or packet.len < 40;
    const is_udp = if (is_arbitrary) random.boolean() else packet[if (is_v6) 6 else 9] == 17;
    header.flags = if (random.uintLessThan(u8, 8) == 0) random.int(u8) else VnetHeader.NEEDS_CSUM;
    header.gso_type = switch (random.uintLessThan(u8, 8)) {
        0 => VnetHeader.GSO_NONE,
        1 => random.int(u8),
        2 => VnetHeader.GSO_TCPV4 | VnetHeader.GSO_ECN,
        else => if (is_udp) VnetHeader.GSO_UDP_L4 else if (is_v6) VnetHeader.GSO_TCPV6 else VnetHeader.GSO_TCPV4,
    };
    header.hdr_len = if (random.boolean()) random.int(u16) else 40;
    header.gso_size = switch (random.uintLessThan(u8, 4)) {
        0 => random.int(u16),
        1 => random.uintAtMost(u16, 3),
        else => random.uintAtMost(u16, 1500),
    };
    const network: u16 = if (is_v6) 40 else if (packet.len > 0) @as(u16, packet[0] & 15) * 4 else 0;
    header.csum_start = if (random.uintLessThan(u8, 6) == 0) random.int(u16) else network;
    header.csum_offset = if (random.uintLessThan(u8, 6) == 0) random.int(u16) else if (is_udp) 6 else 16;
    return header;
}

/// A superpacket inside a UDP tunnel, mostly with offsets that are nearly right.
fn splitTunnel(random: std.Random) report.Error!void {
    const packet = makePacket(random);
    const is_v6 = random.boolean();
    const udp: u16 = if (is_v6) 40 else 20;
    const inner_at: u16 = udp + 8 + 22 + random.uintAtMost(u8, 1) * 4;
    if (packet.len < inner_at + 60) return;
    const inner = packet[inner_at..];
    _ = if (random.boolean()) writeIpv4(random, inner) else writeIpv6(random, inner);
    var header = makeHeader(random, inner);
    header.csum_start +%= inner_at;
    const kind: u8 = if (is_v6) VnetHeader.GSO_UDP_TUNNEL_IPV6 else VnetHeader.GSO_UDP_TUNNEL_IPV4;
    header.gso_type |= if (random.uintLessThan(u8, 8) == 0) random.int(u8) else kind;
    if (random.boolean()) header.flags |= VnetHeader.UDP_TUNNEL_CSUM;
    header.outer_transport = if (random.uintLessThan(u8, 8) == 0) random.int(u16) else udp;
    header.inner_network = if (random.uintLessThan(u8, 8) == 0) random.int(u16) else inner_at;
    if (is_v6) {
        packet[0] = 0x60;
        std.mem.writeInt(u16, packet[4..6], @intCast(packet.len - 40), .big);
        packet[6] = 17;
    } else {
        packet[0] = 0x45;
        std.mem.writeInt(u16, packet[2..4], @intCast(packet.len), .big);
        packet[6..10].* = .{ 0, 0, 64, 17 };
    }
    try split(header, packet);
}

fn makePacket(random: std.Random) []u8 {
    const length = switch (random.uintLessThan(u8, 8)) {
        0 => random.uintAtMost(usize, 70),
        1 => packet_max - random.uintAtMost(usize, 3),
        2 => random.uintAtMost(usize, packet_max),
        else => random.uintAtMost(usize, 4000),
    };
    const packet = atEnd(input, length);
    const head_length = @min(length, 120);
    random.bytes(packet[0..head_length]);
    @memset(packet[head_length..], 0); // else it would hold what an earlier iteration left
    if (length < 60 or random.uintLessThan(u8, 10) == 0) return packet;
    const transport = if (random.boolean()) writeIpv4(random, packet) else writeIpv6(random, packet);
    if (transport + 20 <= length and random.uintLessThan(u8, 4) != 0) {
        packet[transport + 12] = @as(u8, 5 + (random.int(u8) & 3)) << 4;
    }
    return packet;
}

/// Returns where the transport header begins.
fn writeIpv4(random: std.Random, packet: []u8) usize {
    packet[0] = if (random.uintLessThan(u8, 4) == 0) @as(u8, 0x40) | random.int(u4) else 0x45;
    std.mem.writeInt(u16, packet[2..4], oddLength(random, packet.len), .big);
    packet[6..8].* = if (random.uintLessThan(u8, 8) == 0) .{ random.int(u8), random.int(u8) } else .{ 0x40, 0 };
    packet[9] = if (random.boolean()) 6 else 17;
    return @as(usize, packet[0] & 15) * 4;
}

const extensions = [_]u8{ 0, 43, 44, 51, 60, 135 };

fn writeIpv6(random: std.Random, packet: []u8) usize {
    packet[0] = 0x60;
    std.mem.writeInt(u16, packet[4..6], oddLength(random, packet.len - 40), .big);
    packet[6] = if (random.boolean()) 6 else 17;
    var at: usize = 40;
    for (0..random.uintLessThan(usize, 3)) |_| {
        if (at + 8 > packet.len) break;
        const after = packet[if (at == 40) 6 else at - 8];
        packet[if (at == 40) 6 else at - 8] = extensions[random.uintLessThan(usize, extensions.len)];
        packet[at] = after;
        packet[at + 1] = if (random.uintLessThan(u8, 4) == 0) random.int(u8) else 0;
        at += 8;
    }
    return at;
}

/// Right, near it, or anything.
fn oddLength(random: std.Random, length: usize) u16 {
    return switch (random.uintLessThan(u8, 8)) {
        0 => random.int(u16),
        1 => @truncate(length +% 1),
        2 => @truncate(length -| random.uintLessThan(usize, 40)),
        else => @truncate(length),
    };
}

// ---- from UDP -----------------------------------------------------------------------------------------------------

const word = @sizeOf(usize);
const head = word + 8;

fn parseControl(control: []const u8) report.Error!void {
    var parsed = control_message.parse(control);
    if (fault == .wild_size) parsed.segment_size +%= 1;
    var walk: control_message.Iterator = .{ .rest = control };
    var steps: usize = 0;
    while (walk.next()) |message| : (steps += 1) {
        if (steps > control.len / head or (fault == .endless and steps > 1)) {
            return describeControl("the walk does not end", control);
        }
        const start = @intFromPtr(message.data.ptr) -% @intFromPtr(control.ptr);
        if (start > control.len or message.data.len > control.len - start) {
            return describeControl("a message lies outside", control);
        }
    }
    const expected = expectedSize(control);
    if (parsed.segment_size != expected) return describeControl("the size of segments is another", control);
}

/// The last UDP_GRO that is whole and fits, by plain arithmetic.
fn expectedSize(control: []const u8) u16 {
    var size: u16 = 0;
    var at: usize = 0;
    while (at + head <= control.len) {
        const length = std.mem.readInt(usize, control[at..][0..word], .native);
        if (length < head or length > control.len - at) break;
        const level = std.mem.readInt(i32, control[at + word ..][0..4], .native);
        const kind = std.mem.readInt(i32, control[at + word + 4 ..][0..4], .native);
        if (level == 17 and kind == 104 and length >= head + 4) {
            const value = std.mem.readInt(i32, control[at + head ..][0..4], .native);
            if (value >= 0 and value <= 65535) size = @intCast(value);
        }
        at += (length + word - 1) / word * word;
    }
    return size;
}

fn describeControl(what: []const u8, control: []const u8) report.Error {
    return report.mismatch("{s}: control of {d} bytes {x}", .{ what, control.len, control });
}

fn makeControl(random: std.Random) []u8 {
    const length = random.uintAtMost(usize, 200);
    const control = atEnd(input, length);
    random.bytes(control);
    var at: usize = 0;
    while (at + head <= length and random.uintLessThan(u8, 12) != 0) {
        const data = random.uintAtMost(usize, 24);
        const said = if (random.uintLessThan(u8, 8) == 0) random.int(usize) >> random.int(u6) else head + data;
        std.mem.writeInt(usize, control[at..][0..word], said, .native);
        const pairs = [_][2]i32{
            .{ 0, 8 }, .{ 0, 1 }, .{ 41, 50 }, .{ 41, 67 }, .{ 17, 104 }, .{ 17, 103 }, .{ 1, 1 },
        };
        const pair = pairs[random.uintLessThan(usize, pairs.len)];
        std.mem.writeInt(i32, control[at + word ..][0..4], pair[0], .native);
        std.mem.writeInt(i32, control[at + word + 4 ..][0..4], pair[1], .native);
        if (at + head + 4 <= length and random.uintLessThan(u8, 4) != 0) {
            std.mem.writeInt(i32, control[at + head ..][0..4], random.int(u16), .native);
        }
        at += (head + data + word - 1) / word * word;
    }
    return control;
}
