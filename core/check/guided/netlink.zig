//! What the kernel answers and tells by rtnetlink: datagrams of any bytes, read by the monitor of a link and by the
//! question for a route, from a socket that is no netlink socket. Beside it a second reading of the same bytes.
//! The input is datagrams, each after its length in two bytes, little-endian.
const std = @import("std");
const linux = std.os.linux;
const io = @import("io");
const wire = @import("wire");
const report = @import("report");
const link = io.link;
const netlink = io.netlink;

/// What is planted to see that it is found.
const Fault = enum { none, no_mtu, short_name };
var fault: Fault = .none;

/// The core reads from the first; what is written to the second arrives there.
var sockets: [2]i32 = undefined;
var datagram: [netlink.reply_capacity]u8 align(4) = undefined;

const our_index = 7;
const datagrams_max = 16;

pub fn prepare(wanted: ?[]const u8) bool {
    fault = std.meta.stringToEnum(Fault, wanted orelse "none") orelse return false;
    const kind = linux.SOCK.DGRAM | linux.SOCK.NONBLOCK;
    return linux.errno(linux.socketpair(linux.AF.UNIX, kind, 0, &sockets)) == .SUCCESS;
}

pub fn judge(bytes: []const u8) report.Error!void {
    try watch(bytes);
    try ask(bytes);
}

const Datagrams = struct {
    rest: []const u8,

    fn next(datagrams: *Datagrams) ?[]const u8 {
        const rest = datagrams.rest;
        if (rest.len < 2) return null;
        const length = @min(rest[0] + @as(usize, rest[1]) * 256, rest.len - 2, datagram.len);
        datagrams.rest = rest[2 + length ..];
        return rest[2..][0..length];
    }
};

fn put(bytes: []const u8) bool {
    return linux.errno(linux.write(sockets[1], bytes.ptr, bytes.len)) == .SUCCESS;
}

// ---- a link -------------------------------------------------------------------------------------------------------

/// What an interface is like as far as we are told.
const State = struct { up: bool = false, mtu: u32 = 0, name: [16]u8 = @splat(0), is_gone: bool = false };

fn watch(bytes: []const u8) report.Error!void {
    var monitor: link.Monitor = .{
        .socket = sockets[0],
        .tun_fd = -1, // whoever asks where the interface is finds none
        .interface_index = our_index,
        .known = .{},
        .latest = .{},
    };
    var expected: State = .{};
    var datagrams: Datagrams = .{ .rest = bytes };
    for (0..datagrams_max) |_| {
        const one = datagrams.next() orelse break;
        if (!put(one)) break;
        readAnew(&expected, one);
        try drain(&monitor, bytes);
        if (fault == .no_mtu) expected.mtu = 0;
        const latest = &monitor.latest;
        if (monitor.is_gone != expected.is_gone) return describe("gone, or not", bytes);
        if (expected.is_gone) break;
        if (latest.up != expected.up) return describe("up, or not", bytes);
        if (latest.mtu != expected.mtu) return describe("the MTU is another", bytes);
        if (!std.mem.eql(u8, &latest.name.bytes, &expected.name)) return describe("the name is another", bytes);
        if (monitor.name().len > 15) return describe("the name has no end", bytes);
    }
}

/// All that the monitor has to tell of one datagram: at most each thing once, or that it is gone.
fn drain(monitor: *link.Monitor, bytes: []const u8) report.Error!void {
    for (0..8) |_| {
        const event = monitor.read() orelse return;
        if (event == .gone) return;
    }
    return describe("there is always more to tell", bytes);
}

/// rtnetlink(7) by plain arithmetic.
fn readAnew(state: *State, bytes: []const u8) void {
    var at: usize = 0;
    while (at + 16 <= bytes.len) {
        const length = number(u32, bytes[at..]);
        if (length < 16) return;
        const body = bytes[at + 16 .. @min(at + length, bytes.len)];
        readMessage(state, number(u16, bytes[at + 4 ..]), body);
        at += (@as(usize, length) + 3) / 4 * 4;
    }
}

fn readMessage(state: *State, kind: u16, body: []const u8) void {
    if (kind != 16 and kind != 17 or body.len < 16 or number(u32, body[4..]) != our_index) return;
    if (state.is_gone) return;
    if (kind == 17) {
        state.is_gone = true;
        return;
    }
    state.up = number(u32, body[8..]) & 1 != 0;
    if (find(body[16..], 4)) |data| if (data.len >= 4) {
        state.mtu = number(u32, data);
    };
    if (find(body[16..], 3)) |data| {
        state.name = @splat(0);
        const most: usize = if (fault == .short_name) 2 else 15;
        const length = @min(data.len, most);
        @memcpy(state.name[0..length], data[0..length]);
    }
}

/// The data of the first attribute of a kind.
fn find(bytes: []const u8, kind: u16) ?[]const u8 {
    var at: usize = 0;
    while (at + 4 <= bytes.len) {
        const length = number(u16, bytes[at..]);
        if (length < 4 or at + length > bytes.len) return null;
        if (number(u16, bytes[at + 2 ..]) & 0x3fff == kind) return bytes[at + 4 .. at + length];
        at += (@as(usize, length) + 3) / 4 * 4;
    }
    return null;
}

fn number(comptime Int: type, bytes: []const u8) Int {
    return std.mem.readInt(Int, bytes[0..@sizeOf(Int)], .native);
}

// ---- a route ------------------------------------------------------------------------------------------------------

fn ask(bytes: []const u8) report.Error!void {
    var datagrams: Datagrams = .{ .rest = bytes };
    const answer = datagrams.next() orelse return;
    if (!put(answer)) return;
    const lookup: io.route.Lookup = .{ .socket = sockets[0] };
    const remote: wire.Address = .fromIpv4(.{ 192, 0, 2, 1 });
    const told = lookup.interfaceTo(remote, remote, 1, 2) catch null;
    const asked = linux.read(sockets[1], &datagram, datagram.len);
    if (linux.errno(asked) != .SUCCESS) return describe("nothing was asked", bytes);
    if (number(u32, &datagram) != asked) return describe("a question has another length than it says", bytes);
    if (told != routeAnew(answer)) return describe("the route leads elsewhere", bytes);
}

fn routeAnew(bytes: []const u8) ?u32 {
    if (bytes.len < 16) return null;
    const length = number(u32, bytes);
    if (length < 16 or number(u16, bytes[4..]) != 24) return null;
    const body = bytes[16..@min(length, bytes.len)];
    if (body.len < 12) return null;
    const data = find(body[12..], 4) orelse return null;
    return if (data.len >= 4) number(u32, data) else null;
}

fn describe(what: []const u8, bytes: []const u8) report.Error {
    return report.mismatch("{s}: {d} bytes {x}", .{ what, bytes.len, bytes[0..@min(bytes.len, 600)] });
}
