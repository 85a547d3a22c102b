//! The interface as the network administrator sees it: MTU, up and down, name, removal; also after it was
//! moved to another network namespace. rtnetlink and interface ioctls; no allocation.
//! Knows one interface by its TUN descriptor; nothing of packets.
//!
//! A moved interface: the kernel tells our namespace RTM_DELLINK and nothing after that, while the TUN
//! descriptor goes on working. TUNGETDEVNETNS (Linux 5.7) names the new namespace, RTM_NEWNSID gives it an
//! id in ours, and NETLINK_LISTEN_ALL_NSID then brings its events to the socket we have. This takes
//! CAP_NET_ADMIN and CAP_NET_BROADCAST in it, and no thread ever leaves its own namespace. Where that
//! fails the monitor goes blind, and the state is had by `probe`.
//! Invariant: `read` ends, and after any loss of events the state is asked for anew.
const std = @import("std");
const sys = @import("linux.zig");
const control_message = @import("control_message.zig");
const netlink = @import("netlink.zig");
const tunnels = @import("tunnels.zig");
pub const Error = netlink.Error;

const linux = std.os.linux;
const assert = std.debug.assert;

// ---- by ioctl, in the thread's own namespace -----------------------------------------------------------

pub fn index(name: []const u8) Error!u32 {
    var request = sys.Ifreq.init(name) orelse return error.NotFound;
    try control(linux.SIOCGIFINDEX, &request);
    return @intCast(request.value.integer);
}

pub fn mtu(name: []const u8) Error!u32 {
    var request = sys.Ifreq.init(name) orelse return error.NotFound;
    try control(linux.SIOCGIFMTU, &request);
    return std.math.cast(u32, request.value.integer) orelse error.SystemResources;
}

pub fn setMtu(name: []const u8, value: u32) Error!void {
    var request = sys.Ifreq.init(name) orelse return error.NotFound;
    request.value.integer = std.math.cast(i32, value) orelse return error.SystemResources;
    try control(linux.SIOCSIFMTU, &request);
}

pub fn isUp(name: []const u8) Error!bool {
    var request = sys.Ifreq.init(name) orelse return error.NotFound;
    try control(linux.SIOCGIFFLAGS, &request);
    return request.value.flags & iff_up != 0;
}

pub fn setUp(name: []const u8) Error!void {
    var request = sys.Ifreq.init(name) orelse return error.NotFound;
    try control(linux.SIOCGIFFLAGS, &request);
    request.value.flags |= iff_up;
    try control(linux.SIOCSIFFLAGS, &request);
}

const iff_up = 1;

fn control(request: u32, argument: *sys.Ifreq) Error!void {
    const socket = switch (sys.result(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0))) {
        .value => |fd| @as(sys.fd_t, @intCast(fd)),
        // A kernel without IPv4 has the same ioctls on IPv6 sockets.
        .failure => switch (sys.result(linux.socket(linux.AF.INET6, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0))) {
            .value => |fd| @as(sys.fd_t, @intCast(fd)),
            .failure => |code| return netlink.errorOf(code),
        },
    };
    defer sys.close(socket);
    const errno = linux.errno(linux.ioctl(socket, request, @intFromPtr(argument)));
    if (errno != .SUCCESS) return netlink.errorOf(errno);
}

// ---- by rtnetlink --------------------------------------------------------------------------------------

/// Bounds the superpackets that TUN hands us, so that one read becomes one UDP_SEGMENT send.
pub fn setGsoMaxSegs(interface_index: u32, segments: u32) Error!void {
    var request: netlink.Request = .init(sys.RTM_NEWLINK, sys.NLM_F_ACK);
    request.putHeader(linkHeader(interface_index));
    request.putAttribute(sys.IFLA_GSO_MAX_SEGS, std.mem.asBytes(&segments));
    var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
    _ = try request.exchange(&buffer);
}

fn linkHeader(interface_index: u32) linux.ifinfomsg {
    return .{ .family = 0, .type = 0, .index = @intCast(interface_index), .flags = 0, .change = 0 };
}

// ---- the monitor -----------------------------------------------------------------------------------

pub const Event = union(enum) {
    up,
    down,
    mtu: u32,
    /// `Monitor.name` has the new one.
    renamed,
    /// The interface was deleted; nothing follows.
    gone,
    /// It moved to where we cannot follow: from now on `probe` tells.
    blind,
};

pub const Name = struct {
    bytes: [16]u8 = @splat(0),

    pub fn slice(name: *const Name) []const u8 {
        return std.mem.sliceTo(&name.bytes, 0);
    }
};

const State = struct {
    up: bool = false,
    mtu: u32 = 0,
    name: Name = .{},
};

pub const Monitor = struct {
    socket: sys.fd_t,
    tun_fd: sys.fd_t,
    interface_index: u32,
    /// Id of the interface's namespace in ours; null while it is ours.
    namespace: ?i32 = null,
    /// What the caller knows, and what the kernel said last: `read` tells the difference one by one.
    known: State,
    latest: State,
    is_gone: bool = false,
    is_blind: bool = false,
    blind_told: bool = false,
    /// Something was told of an interface that is a UDP tunnel, or may have been. The caller's to take back.
    tunnels_changed: bool = true,

    /// The first reads tell the MTU, and `up` if it is up.
    pub fn open(tun_fd: sys.fd_t) Error!Monitor {
        const socket = try netlink.open(sys.RTMGRP_LINK);
        errdefer sys.close(socket);
        var monitor: Monitor = .{
            .socket = socket,
            .tun_fd = tun_fd,
            .interface_index = 0,
            .known = .{},
            .latest = .{},
        };
        monitor.locate();
        if (monitor.is_gone) return error.NotFound;
        monitor.known.name = monitor.latest.name;
        return monitor;
    }

    pub fn close(monitor: *Monitor) void {
        sys.close(monitor.socket);
        monitor.* = undefined;
    }

    pub fn fd(monitor: *const Monitor) sys.fd_t {
        return monitor.socket;
    }

    pub fn name(monitor: *const Monitor) []const u8 {
        return monitor.known.name.slice();
    }

    /// The next event, or null when there is none now.
    pub fn read(monitor: *Monitor) ?Event {
        while (true) {
            if (monitor.difference()) |event| return event;
            if (monitor.is_gone or !monitor.receive()) return null;
        }
    }

    fn difference(monitor: *Monitor) ?Event {
        const known = &monitor.known;
        const latest = &monitor.latest;
        if (monitor.is_gone) {
            // Told for ever: whoever asks again must not wait for more.
            return .gone;
        }
        if (monitor.is_blind != monitor.blind_told) {
            monitor.blind_told = monitor.is_blind;
            if (monitor.is_blind) return .blind;
        }
        if (known.mtu != latest.mtu) {
            known.mtu = latest.mtu;
            return .{ .mtu = latest.mtu };
        }
        if (!std.mem.eql(u8, &known.name.bytes, &latest.name.bytes)) {
            known.name = latest.name;
            return .renamed;
        }
        if (known.up != latest.up) {
            known.up = latest.up;
            return if (latest.up) .up else .down;
        }
        return null;
    }

    /// One datagram from the kernel. False when there is none.
    fn receive(monitor: *Monitor) bool {
        var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
        var control_bytes: [64]u8 align(8) = undefined;
        var vector = [1]sys.iovec{.{ .base = &buffer, .len = buffer.len }};
        var message: linux.msghdr = .{
            .name = null,
            .namelen = 0,
            .iov = &vector,
            .iovlen = 1,
            .control = &control_bytes,
            .controllen = control_bytes.len,
            .flags = 0,
        };
        switch (sys.result(linux.recvmsg(monitor.socket, &message, 0))) {
            .value => |length| {
                const from = namespaceOf(control_bytes[0..@min(message.controllen, control_bytes.len)]);
                var messages: netlink.Iterator = .{ .rest = buffer[0..length] };
                while (messages.next()) |each| monitor.judge(each, from);
                return true;
            },
            .failure => |code| switch (code) {
                .AGAIN => return false,
                .INTR => return true,
                else => {
                    monitor.tunnels_changed = true;
                    monitor.locate(); // ENOBUFS: events were lost
                    return code == .NOBUFS;
                },
            },
        }
    }

    fn namespaceOf(bytes: []const u8) ?i32 {
        var iterator: control_message.Iterator = .{ .rest = bytes };
        while (iterator.next()) |message| {
            if (message.level != sys.SOL_NETLINK or message.kind != sys.NETLINK_LISTEN_ALL_NSID) continue;
            if (message.data.len >= 4) return std.mem.readInt(i32, message.data[0..4], .native);
        }
        return null;
    }

    fn judge(monitor: *Monitor, message: netlink.Message, from: ?i32) void {
        const info = linkInfo(message) orelse return;
        if (from == null and tunnels.concerns(message)) monitor.tunnels_changed = true;
        if (monitor.is_gone or from != monitor.namespace) return;
        if (info.index != monitor.interface_index) return;
        switch (message.kind) {
            sys.RTM_NEWLINK => monitor.update(message),
            // Deleted, or moved to another namespace: the TUN descriptor knows which.
            sys.RTM_DELLINK => monitor.locate(),
            else => {},
        }
    }

    fn update(monitor: *Monitor, message: netlink.Message) void {
        const info = linkInfo(message) orelse return;
        const attributes = message.body[@sizeOf(linux.ifinfomsg)..];
        monitor.latest.up = info.flags & iff_up != 0;
        if (netlink.attributeInt(u32, attributes, sys.IFLA_MTU)) |value| monitor.latest.mtu = value;
        if (netlink.attribute(attributes, sys.IFLA_IFNAME)) |text| {
            var fresh: Name = .{};
            const length = @min(text.len, fresh.bytes.len - 1);
            @memcpy(fresh.bytes[0..length], text[0..length]);
            monitor.latest.name = fresh;
        }
    }

    /// Finds the interface wherever it is now, and its state.
    fn locate(monitor: *Monitor) void {
        var request: sys.Ifreq = .{};
        if (linux.errno(linux.ioctl(monitor.tun_fd, sys.TUNGETIFF, @intFromPtr(&request))) != .SUCCESS) {
            monitor.is_gone = true;
            return;
        }
        monitor.namespace = monitor.findNamespace() catch |err| switch (err) {
            error.NotFound => {
                monitor.is_gone = true;
                return;
            },
            error.PermissionDenied, error.SystemResources => return monitor.goBlind(&request),
        };
        monitor.query(&request) catch return monitor.goBlind(&request);
        monitor.is_blind = false;
    }

    fn goBlind(monitor: *Monitor, request: *const sys.Ifreq) void {
        monitor.is_blind = true;
        monitor.interface_index = 0;
        monitor.latest.name = .{ .bytes = request.name };
    }

    /// Null for our own namespace; else its id, assigned if need be, with its events turned on.
    fn findNamespace(monitor: *Monitor) Error!?i32 {
        const theirs: sys.fd_t = switch (sys.result(linux.ioctl(monitor.tun_fd, sys.TUNGETDEVNETNS, 0))) {
            .value => |descriptor| @intCast(descriptor),
            .failure => |code| switch (code) {
                .BADFD => return error.NotFound,
                // Too old to ask. Our own namespace, as long as `query` finds it there.
                .INVAL, .NOTTY => return null,
                else => return netlink.errorOf(code),
            },
        };
        defer sys.close(theirs);
        if (try isOwnNamespace(theirs)) return null;
        const id = try namespaceId(theirs);
        const one: c_int = 1;
        const errno = linux.errno(linux.setsockopt(
            monitor.socket,
            sys.SOL_NETLINK,
            sys.NETLINK_LISTEN_ALL_NSID,
            std.mem.asBytes(&one),
            @sizeOf(c_int),
        ));
        return if (errno == .SUCCESS) id else netlink.errorOf(errno);
    }

    /// Asks for the state by name. The answer's index is the truth: moving may have changed it.
    fn query(monitor: *Monitor, interface: *const sys.Ifreq) Error!void {
        var request: netlink.Request = .init(sys.RTM_GETLINK, 0);
        request.putHeader(linkHeader(0));
        const text = interface.nameSlice();
        request.putAttribute(sys.IFLA_IFNAME, interface.name[0 .. text.len + 1]);
        if (monitor.namespace) |id| request.putAttribute(sys.IFLA_TARGET_NETNSID, std.mem.asBytes(&id));
        var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
        const reply = try request.exchange(&buffer);
        const info = linkInfo(reply) orelse return error.SystemResources;
        monitor.interface_index = @intCast(info.index);
        monitor.update(reply);
    }
};

fn linkInfo(message: netlink.Message) ?linux.ifinfomsg {
    if (message.kind != sys.RTM_NEWLINK and message.kind != sys.RTM_DELLINK) return null;
    if (message.body.len < @sizeOf(linux.ifinfomsg)) return null;
    const info = std.mem.bytesToValue(linux.ifinfomsg, message.body[0..@sizeOf(linux.ifinfomsg)]);
    return if (info.index > 0) info else null;
}

fn isOwnNamespace(other: sys.fd_t) Error!bool {
    var ours: linux.Statx = undefined;
    var theirs: linux.Statx = undefined;
    const at: sys.fd_t = linux.AT.FDCWD;
    const mask: linux.STATX = .{ .INO = true };
    const first = linux.errno(linux.statx(at, "/proc/thread-self/ns/net", 0, mask, &ours));
    // Without /proc we take it to be our own; if not, `query` does not find the interface.
    if (first != .SUCCESS) return true;
    const second = linux.errno(linux.statx(other, "", linux.AT.EMPTY_PATH, mask, &theirs));
    if (second != .SUCCESS) return netlink.errorOf(second);
    return ours.ino == theirs.ino and ours.dev_major == theirs.dev_major and ours.dev_minor == theirs.dev_minor;
}

/// The id by which our namespace calls another one. The kernel gives one when an interface moves there;
/// after a second move we give it ourselves.
fn namespaceId(other: sys.fd_t) Error!i32 {
    if (try askNamespaceId(other)) |id| return id;
    const any: i32 = -1;
    var request: netlink.Request = .init(sys.RTM_NEWNSID, sys.NLM_F_ACK);
    request.putHeader([4]u8{ 0, 0, 0, 0 });
    request.putAttribute(sys.NETNSA_NSID, std.mem.asBytes(&any));
    request.putAttribute(sys.NETNSA_FD, std.mem.asBytes(&other));
    var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
    _ = request.exchange(&buffer) catch |err| if (err == error.PermissionDenied) return err;
    return (try askNamespaceId(other)) orelse error.SystemResources;
}

fn askNamespaceId(other: sys.fd_t) Error!?i32 {
    var request: netlink.Request = .init(sys.RTM_GETNSID, 0);
    request.putHeader([4]u8{ 0, 0, 0, 0 }); // struct rtgenmsg and its padding
    request.putAttribute(sys.NETNSA_FD, std.mem.asBytes(&other));
    var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
    const reply = try request.exchange(&buffer);
    if (reply.kind != sys.RTM_NEWNSID or reply.body.len < 4) return error.SystemResources;
    const id = netlink.attributeInt(i32, reply.body[4..], sys.NETNSA_NSID) orelse return error.SystemResources;
    return if (id >= 0) id else null;
}

pub const Probed = enum { up, down, gone };

/// The state of an interface that no namespace tells us about, by writing to it: EIO is down, EBADFD gone.
/// The null write that other implementations use says EINVAL for both up and down since the check for
/// IFF_UP moved behind those of the packet (4.20). So this writes a whole IPv4 header that the stack
/// discards: its checksum is wrong and its TTL is 0. It counts as one received packet.
/// `header_length` is that of the virtio-net header before each packet, or 0.
pub fn probe(tun_fd: sys.fd_t, header_length: usize) Probed {
    var buffer: [24 + 20]u8 = @splat(0);
    const bytes = buffer[0 .. header_length + 20];
    const packet = bytes[header_length..];
    packet[0] = 0x45;
    packet[3] = 20;
    return switch (sys.result(linux.write(tun_fd, bytes.ptr, bytes.len))) {
        .value => .up,
        .failure => |code| switch (code) {
            .IO => .down,
            .BADFD, .NODEV, .BADF => .gone,
            else => .up,
        },
    };
}

// ---- tests -------------------------------------------------------------------------------------------

const testing = std.testing;

const TestTun = struct {
    fd: sys.fd_t,

    fn open(name: []const u8) !TestTun {
        const flags: linux.O = .{ .ACCMODE = .RDWR, .CLOEXEC = true, .NONBLOCK = true };
        const tun_fd: sys.fd_t = switch (sys.result(linux.open("/dev/net/tun", flags, 0))) {
            .value => |descriptor| @intCast(descriptor),
            .failure => return error.SkipZigTest,
        };
        var request = sys.Ifreq.init(name).?;
        request.value.flags = sys.IFF_TUN | sys.IFF_NO_PI | sys.IFF_VNET_HDR;
        if (linux.errno(linux.ioctl(tun_fd, sys.TUNSETIFF, @intFromPtr(&request))) != .SUCCESS) {
            sys.close(tun_fd);
            return error.SkipZigTest;
        }
        return .{ .fd = tun_fd };
    }
};

/// Sends a link request with one attribute to the current namespace.
fn changeLink(kind: u16, interface_index: u32, attribute_kind: u16, data: []const u8) !void {
    var request: netlink.Request = .init(kind, sys.NLM_F_ACK);
    request.putHeader(linkHeader(interface_index));
    if (data.len != 0) request.putAttribute(attribute_kind, data);
    var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
    _ = try request.exchange(&buffer);
}

const ifla_net_ns_fd = 28;

test "MTU, flags, index and segment limit are set and read" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    const tun: TestTun = try .open("pywgtest0");
    defer sys.close(tun.fd);
    try setMtu("pywgtest0", 1420);
    try testing.expectEqual(1420, try mtu("pywgtest0"));
    try testing.expect(!try isUp("pywgtest0"));
    try setUp("pywgtest0");
    try testing.expect(try isUp("pywgtest0"));
    try setGsoMaxSegs(try index("pywgtest0"), 45);
    try testing.expectError(error.NotFound, index("nothing"));
    try testing.expectError(error.NotFound, setUp("nothing"));
    try testing.expectError(error.NotFound, mtu("a name that is too long"));
    try testing.expectError(error.NotFound, setGsoMaxSegs(12345, 45));
    try testing.expect(setGsoMaxSegs(try index("pywgtest0"), 1_000_000) == error.SystemResources);
}

test "the monitor tells MTU, up, down, name and removal, each once" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    const tun: TestTun = try .open("pywgtest0");
    defer sys.close(tun.fd);
    var monitor: Monitor = try .open(tun.fd);
    defer monitor.close();
    try testing.expectEqual(Event{ .mtu = 1500 }, monitor.read().?);
    try testing.expectEqual(null, monitor.read());
    try testing.expectEqualStrings("pywgtest0", monitor.name());
    try setMtu("pywgtest0", 1280);
    try testing.expectEqual(Event{ .mtu = 1280 }, monitor.read().?);
    try testing.expectEqual(null, monitor.read());
    try sys.TestNamespace.setUp("pywgtest0", true);
    try testing.expectEqual(Event.up, monitor.read().?);
    try testing.expectEqual(null, monitor.read());
    // A short absence is not lost: both events stand in the queue.
    try sys.TestNamespace.setUp("pywgtest0", false);
    try sys.TestNamespace.setUp("pywgtest0", true);
    try testing.expectEqual(Event.down, monitor.read().?);
    try testing.expectEqual(Event.up, monitor.read().?);
    try testing.expectEqual(null, monitor.read());
    // Other interfaces are not ours.
    const other: TestTun = try .open("pywgtest1");
    try sys.TestNamespace.setUp("pywgtest1", true);
    sys.close(other.fd);
    try testing.expectEqual(null, monitor.read());
    try sys.TestNamespace.setUp("pywgtest0", false);
    try testing.expectEqual(Event.down, monitor.read().?);
    try changeLink(sys.RTM_NEWLINK, monitor.interface_index, sys.IFLA_IFNAME, "renamed\x00");
    try testing.expectEqual(Event.renamed, monitor.read().?);
    try testing.expectEqualStrings("renamed", monitor.name());
    try testing.expectEqual(null, monitor.read());
    try changeLink(sys.RTM_DELLINK, monitor.interface_index, 0, &.{});
    try testing.expectEqual(Event.gone, monitor.read().?);
    try testing.expectEqual(.gone, probe(tun.fd, 10));
}

test "the probe knows up, down and gone" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    const tun: TestTun = try .open("pywgtest0");
    defer sys.close(tun.fd);
    try testing.expectEqual(.down, probe(tun.fd, 10));
    try sys.TestNamespace.setUp("pywgtest0", true);
    try testing.expectEqual(.up, probe(tun.fd, 10));
    try sys.TestNamespace.setUp("pywgtest0", false);
    try testing.expectEqual(.down, probe(tun.fd, 10));
    try changeLink(sys.RTM_DELLINK, try index("pywgtest0"), 0, &.{});
    try testing.expectEqual(.gone, probe(tun.fd, 10));
}

test "the monitor follows an interface through two other namespaces and back" {
    const home: sys.TestNamespace = try .enter();
    defer home.leave();
    const tun: TestTun = try .open("pywgtest0");
    defer sys.close(tun.fd);
    const home_fd: sys.fd_t = @intCast(linux.open("/proc/thread-self/ns/net", .{ .CLOEXEC = true }, 0));
    defer sys.close(home_fd);
    var monitor: Monitor = try .open(tun.fd);
    defer monitor.close();
    try testing.expectEqual(Event{ .mtu = 1500 }, monitor.read().?);
    var places: [2]sys.fd_t = undefined;
    for (&places) |*place| {
        const inside: sys.TestNamespace = try .enter();
        defer inside.leave();
        place.* = @intCast(linux.open("/proc/thread-self/ns/net", .{ .CLOEXEC = true }, 0));
    }
    defer for (places) |place| sys.close(place);
    var current = home_fd;
    for ([_]sys.fd_t{ places[0], places[1], home_fd, places[1] }, 0..) |next, step| {
        const target = std.mem.asBytes(&next);
        const move = .{ sys.RTM_NEWLINK, monitor.interface_index, ifla_net_ns_fd, target };
        try visit(current, home_fd, changeLink, move);
        current = next;
        try testing.expectEqual(null, monitor.read());
        try testing.expect(!monitor.is_blind);
        try testing.expectEqual(next == home_fd, monitor.namespace == null);
        try visit(current, home_fd, sys.TestNamespace.setUp, .{ "pywgtest0", true });
        try testing.expectEqual(Event.up, monitor.read().?);
        const value: u32 = @intCast(1300 + step);
        try visit(current, home_fd, setMtu, .{ "pywgtest0", value });
        try testing.expectEqual(Event{ .mtu = value }, monitor.read().?);
        try visit(current, home_fd, sys.TestNamespace.setUp, .{ "pywgtest0", false });
        try testing.expectEqual(Event.down, monitor.read().?);
        try testing.expectEqual(null, monitor.read());
    }
    try visit(current, home_fd, changeLink, .{ sys.RTM_DELLINK, monitor.interface_index, 0, "" });
    try testing.expectEqual(Event.gone, monitor.read().?);
}

/// Calls `function` inside a namespace.
fn visit(place: sys.fd_t, home: sys.fd_t, function: anytype, arguments: anytype) !void {
    assert(linux.errno(linux.setns(place, linux.CLONE.NEWNET)) == .SUCCESS);
    defer assert(linux.errno(linux.setns(home, linux.CLONE.NEWNET)) == .SUCCESS);
    try @call(.auto, function, arguments);
}

test "an interface that moves while it is up is told down, as the kernel takes it down" {
    const home: sys.TestNamespace = try .enter();
    defer home.leave();
    const tun: TestTun = try .open("pywgtest0");
    defer sys.close(tun.fd);
    try sys.TestNamespace.setUp("pywgtest0", true);
    var monitor: Monitor = try .open(tun.fd);
    defer monitor.close();
    try testing.expectEqual(Event{ .mtu = 1500 }, monitor.read().?);
    try testing.expectEqual(Event.up, monitor.read().?);
    const place = blk: {
        const inside: sys.TestNamespace = try .enter();
        defer inside.leave();
        break :blk @as(sys.fd_t, @intCast(linux.open("/proc/thread-self/ns/net", .{ .CLOEXEC = true }, 0)));
    };
    defer sys.close(place);
    try changeLink(sys.RTM_NEWLINK, monitor.interface_index, ifla_net_ns_fd, std.mem.asBytes(&place));
    try testing.expectEqual(Event.down, monitor.read().?);
    try testing.expectEqual(null, monitor.read());
}

test "a link message of any bytes is read within its bounds" {
    var prng: std.Random.DefaultPrng = .init(0x2545f4914f6cdd1d);
    const random = prng.random();
    var body: [64]u8 = undefined;
    for (0..10_000) |_| {
        const length = random.uintAtMost(usize, body.len);
        random.bytes(body[0..length]);
        const info = linkInfo(.{ .kind = sys.RTM_NEWLINK, .body = body[0..length] }) orelse continue;
        try testing.expect(length >= @sizeOf(linux.ifinfomsg) and info.index > 0);
    }
}
