//! Segmenting and coalescing for a judge at the other end of a pipe: requests on a descriptor, answers on standard
//! output, all numbers little-endian. Judges nothing itself: tools/reference/offload.py does, which knows none of our
//! code.
//!   request  'S' u32 length, virtio-net header, superpacket;  'C' u32 length, u8 options, u16 count, (u32, packet)...
//!   answer   u32 length, then 'S': u32 count or ~0 when refused, (u32, packet)...
//!            'C': u32 count, (virtio-net header, u32, packet, u16 count, u16 index of each packet in it...)...
const std = @import("std");
const linux = std.os.linux;
const io = @import("io");
const report = @import("report");
const VnetHeader = io.VnetHeader;
const Splitter = io.gso.Splitter;
const gro = io.gro;

/// What is planted to see that it is found.
const Fault = enum { none, checksum, length, order, identification, eager };
var fault: Fault = .none;

const refused = std.math.maxInt(u32);
var heap: [1 << 20]u8 = undefined;
var request: [1 << 21]u8 = undefined;
var answer: [1 << 23]u8 = undefined;
var packets: [gro.packets_max][]const u8 = undefined;

pub fn prepare(wanted: ?[]const u8) bool {
    fault = std.meta.stringToEnum(Fault, wanted orelse "none") orelse return false;
    return true;
}

pub fn iterate(_: std.Random) report.Error!void {
    return report.mismatch("segments are judged at the other end of a pipe: --file", .{});
}

pub fn replay(file: i32) report.Error!void {
    var fixed: std.heap.FixedBufferAllocator = .init(&heap);
    var coalescer = gro.Coalescer.init(fixed.allocator()) catch return report.mismatch("no memory", .{});
    var head: [5]u8 = undefined;
    while (readAll(file, &head)) {
        const body = request[0..std.mem.readInt(u32, head[1..5], .little)];
        if (!readAll(file, body)) return;
        var out: Out = .{};
        switch (head[0]) {
            'S' => split(body, &out),
            'C' => coalesce(&coalescer, body, &out),
            else => return report.mismatch("no such request", .{}),
        }
        out.finish();
    }
}

fn split(body: []u8, out: *Out) void {
    const splitter = Splitter.init(VnetHeader.parse(body[0..VnetHeader.length]), body[VnetHeader.length..]) catch {
        return out.number(u32, refused);
    };
    out.number(u32, splitter.count);
    for (0..splitter.count) |i| {
        const packet = out.room(splitter.length(i));
        const length = splitter.write(i, packet);
        if (fault == .checksum and i == 1) packet[length / 2] ^= 1;
        if (fault == .length and i + 1 == splitter.count and i > 0) packet[3] +%= 1;
        if (fault == .identification and i == 2 and packet[0] >> 4 == 4) packet[5] +%= 1;
    }
}

fn coalesce(coalescer: *gro.Coalescer, body: []const u8, out: *Out) void {
    const count = std.mem.readInt(u16, body[1..3], .little);
    var at: usize = 3;
    coalescer.reset(.{ .tcp = body[0] & 1 != 0, .udp = body[0] & 2 != 0 });
    for (packets[0..count]) |*packet| {
        const length = std.mem.readInt(u32, body[at..][0..4], .little);
        packet.* = body[at + 4 ..][0..length];
        at += 4 + length;
        if (!coalescer.add(packet.*)) unreachable; // the judge sends no more than there is room for
    }
    const count_at = out.length;
    out.number(u32, 0);
    var frames = coalescer.frames();
    var made: u32 = 0;
    while (frames.next()) |frame| : (made += 1) putFrame(&frame, packets[0..count], out);
    std.mem.writeInt(u32, answer[count_at..][0..4], made, .little);
}

fn putFrame(frame: *const gro.Frame, given: []const []const u8, out: *Out) void {
    for (frame.iovecs[0..1]) |part| @memcpy(out.bytes(part.len), part.base[0..part.len]);
    const whole = out.room(frame.length);
    var at: usize = 0;
    for (frame.iovecs[1..]) |part| {
        @memcpy(whole[at..][0..part.len], part.base[0..part.len]);
        at += part.len;
    }
    if (fault == .eager and frame.packet_count > 1) whole[1] ^= 4;
    out.number(u16, @intCast(frame.packet_count));
    const first = out.length;
    var originals = frame.originals();
    while (originals.next()) |packet| {
        for (given, 0..) |candidate, i| {
            if (candidate.ptr == packet.ptr and candidate.len == packet.len) out.number(u16, @intCast(i));
        }
    }
    if (fault == .order and frame.packet_count > 2) {
        std.mem.swap([2]u8, answer[first..][0..2], answer[first + 2 ..][0..2]);
    }
}

const Out = struct {
    /// Its own length comes first.
    length: usize = 4,

    fn bytes(out: *Out, count: usize) []u8 {
        defer out.length += count;
        return answer[out.length..][0..count];
    }

    fn room(out: *Out, count: usize) []u8 {
        out.number(u32, @intCast(count));
        return out.bytes(count);
    }

    fn number(out: *Out, comptime Int: type, value: Int) void {
        std.mem.writeInt(Int, out.bytes(@sizeOf(Int))[0..@sizeOf(Int)], value, .little);
    }

    fn finish(out: *Out) void {
        std.mem.writeInt(u32, answer[0..4], @intCast(out.length - 4), .little);
        var left: []const u8 = answer[0..out.length];
        while (left.len > 0) {
            const written = linux.write(1, left.ptr, left.len);
            if (linux.errno(written) != .SUCCESS) return; // nobody listens
            left = left[written..];
        }
    }
};

fn readAll(file: i32, out: []u8) bool {
    var left = out;
    while (left.len > 0) {
        const length = linux.read(file, left.ptr, left.len);
        if (linux.errno(length) != .SUCCESS or length == 0) return false;
        left = left[length..];
    }
    return true;
}
