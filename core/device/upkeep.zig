//! What the first lane does besides packets: timers, link up and down, routes, and the sockets of all lanes.
//! While it changes what others use, their turns are held: `Device.pauseOthers`.
const std = @import("std");
const cipher = @import("cipher");
const control = @import("control.zig");
const Device = @import("device.zig").Device;
const lanes_max = @import("fan.zig").lanes_max;
const io = @import("io");
const lane_file = @import("lane.zig");
const Lane = lane_file.Lane;
const Token = lane_file.Token;
const protocol = @import("protocol");
const train = @import("train.zig");
const wire = @import("wire");

/// What sends no event, or too many of them, is looked at this often.
const probe_interval_ms = 1000;

// ---- timers: kept by the first lane; who makes an earlier deadline wakes it ----

/// Milliseconds until something is due, -1 for never.
pub fn timeout(device: *Device) i32 {
    const limit: i32 = if (needsProbe(device)) probe_interval_ms else -1;
    const deadline = blk: {
        device.mutex.acquire();
        defer device.mutex.release();
        device.watched_deadline = device.interface.deadline() orelse .never;
        break :blk device.watched_deadline;
    };
    if (deadline.ns == protocol.Instant.never.ns) return limit;
    const left_ns = deadline.since(.{ .ns = io.clock.bootNs() });
    const left_ms = std.math.divCeil(u64, left_ns, std.time.ns_per_ms) catch unreachable;
    const capped: i32 = @intCast(@min(left_ms, std.time.ms_per_hour));
    return if (limit >= 0) @min(limit, capped) else capped;
}

/// After a turn of another lane.
pub fn watchDeadline(device: *Device) void {
    device.mutex.acquire();
    defer device.mutex.release();
    const deadline = device.interface.deadline() orelse return;
    if (!deadline.isBefore(device.watched_deadline)) return;
    device.watched_deadline = deadline;
    device.first().wakeup.signal();
}

pub fn expire(device: *Device, now: protocol.Now, was_woken_by_timer: bool) void {
    device.mutex.acquire();
    device.interface.expire(now);
    device.mutex.release();
    if (!was_woken_by_timer) return;
    // It ended sessions perhaps; traffic would overwrite what they left on the stacks by itself.
    cipher.scrubStack();
    for (device.all()[1..]) |lane| lane.wakeup.signal();
}

/// An event of the first lane that is not about packets.
pub fn serve(device: *Device, event: io.poller.Event) void {
    device.pauseOthers();
    defer device.resumeOthers();
    switch (@as(Token, @fromBackingInt(event.data.u64))) {
        .tun, .udp_ipv4, .udp_ipv6, .wakeup => unreachable, // every lane has these
        .monitor => followLink(device),
        .routes => if (device.routes.drain()) {
            device.routes_changed = true;
        },
        .uapi_listener, .uapi_removed, .uapi_first_client, _ => control.serve(device, event),
    }
}

// ---- link ----

/// Brings sockets and protocol in line with the interface: up, down, MTU, gone.
pub fn followLink(device: *Device) void {
    while (device.monitor.read()) |event| {
        switch (event) {
            .up => device.link_is_up = true,
            .down => device.link_is_up = false,
            .mtu => |mtu| setMtu(device, mtu),
            .renamed => device.log.name = device.monitor.name(),
            .blind => device.log.err("the interface moved to a namespace that cannot be followed: asking for its state each second", .{}),
            .gone => return gone(device, "the interface was removed"),
        }
    }
    if (device.link_is_up) goUp(device) else goDown(device);
}

fn setMtu(device: *Device, mtu: u32) void {
    device.interface.mtu = mtu;
    device.log.verbose("mtu {d}", .{mtu});
    fitSuperpackets(device);
}

fn needsProbe(device: *const Device) bool {
    const is_asked = if (device.uapi) |*server| server.isUnwatched() or server.clients.isAnyWaiting() else false;
    return device.monitor.is_blind or device.routes_changed or is_asked;
}

pub fn probe(device: *Device, now: protocol.Now) void {
    if (!needsProbe(device)) return;
    if (now.boot.since(device.probed) < probe_interval_ms * std.time.ns_per_ms) return;
    device.probed = now.boot;
    device.pauseOthers();
    defer device.resumeOthers();
    if (device.monitor.is_blind) probeLink(device);
    if (device.uapi) |*server| {
        if (server.isUnwatched() and server.listener.wasRemoved()) gone(device, "the UAPI socket was removed");
        server.closeStuck(device.gpa, now.boot.ns);
    }
    if (device.routes_changed) {
        device.routes_changed = false;
        followBinding(device);
        device.interface.forgetSources(device, isStale);
    }
}

/// Whether the kernel would now send from the source by another interface than the peer spoke to.
fn isStale(device: *const Device, endpoint: *const wire.Endpoint) bool {
    const source = endpoint.source.?;
    const found = io.route.interfaceTo(endpoint.remote.address, source.address, device.interface.fwmark, device.bound_index) catch return true;
    if (device.bound_index != 0) return found == null; // by another it cannot go, and of a VRF we would get the member
    return found == null or found.? != source.interface_index;
}

/// An interface or address to bind to that comes late, or comes back: routes change with it. One that comes back is
/// another to the kernel, and sockets bound to the old one are deaf.
fn followBinding(device: *Device) void {
    const binding = &device.interface.binding;
    if (!device.link_is_up or binding.isEmpty()) return;
    if (!device.interface.is_active) return goUp(device);
    if (binding.interface.isEmpty()) return;
    const index = io.link.index(binding.interface.slice()) catch return; // gone: wait for it
    if (index == device.bound_index) return;
    const set = openSockets(device, placeOf(device)) catch |err| {
        return device.log.err("cannot bind to {s} again: {t} ({f})", .{ binding.interface.slice(), err, device.first().udp.failure });
    };
    install(device, &set);
    device.log.verbose("bound to {s} again", .{binding.interface.slice()});
}

fn probeLink(device: *Device) void {
    switch (io.link.probe(device.first().tun.fd, device.first().tun.has_vnet_header)) {
        .up => device.link_is_up = true,
        .down => device.link_is_up = false,
        .gone => return gone(device, "the interface was removed"),
    }
    followLink(device);
}

/// One superpacket read from TUN should fit one UDP_SEGMENT send.
fn fitSuperpackets(device: *Device) void {
    // In another namespace the index is another interface's here.
    if (device.monitor.is_blind or device.monitor.namespace != null) return;
    const padded = wire.messages.paddedLength(device.interface.mtu, device.interface.mtu);
    const datagram = padded + wire.messages.transport_overhead;
    const segments = std.math.clamp(train.bytes_max / datagram, 1, train.packets_max);
    io.link.setGsoMaxSegs(device.monitor.interface_index, @intCast(segments)) catch {}; // a train is then cut in two, no more
}

fn goUp(device: *Device) void {
    if (device.interface.is_active) return;
    const place = placeOf(device);
    const set = openSockets(device, place) catch |err| {
        return device.log.err("cannot listen on port {d}: {t} ({f})", .{ place.port, err, device.first().udp.failure });
    };
    install(device, &set);
    device.interface.listen_port = set.port;
    activate(device);
}

/// The sockets are there: packets may flow.
pub fn activate(device: *Device) void {
    fitSuperpackets(device);
    device.interface.setActive(true);
    device.log.verbose("up, listening on port {d}", .{device.interface.listen_port});
    device.first().transmit(Device.now());
}

fn goDown(device: *Device) void {
    if (!device.interface.is_active) return;
    device.interface.setActive(false);
    install(device, &.{ .port = 0 });
    device.log.verbose("down", .{});
}

/// The kernel's word on a read; the first lane looks what has become of the interface.
pub fn tunFailed(lane: *Lane, err: io.tun.ReadError) void {
    const device = lane.device;
    if (!lane.isFirst()) return device.first().wakeup.signal();
    device.pauseOthers();
    defer device.resumeOthers();
    switch (err) {
        error.Down => followLink(device),
        error.Gone => gone(device, "the interface is gone"),
    }
}

pub fn gone(device: *Device, reason: []const u8) void {
    device.log.verbose("{s}: ending", .{reason});
    device.end();
}

// ---- sockets: one pair for each lane that has a thread, all on one port ----

pub const SocketSet = struct {
    lanes: [lanes_max]io.udp.Sockets = @splat(.{ null, null }),
    port: u16,

    pub fn close(set: *SocketSet) void {
        for (&set.lanes) |*sockets| io.udp.closeSockets(sockets);
    }
};

/// Where the configuration has them.
pub fn placeOf(device: *const Device) io.udp.Place {
    const interface = &device.interface;
    return .{ .port = interface.listen_port, .fwmark = interface.fwmark, .binding = interface.binding };
}

/// Opens beside what is in use, and has it watched; nothing is left behind on an error, of which the first lane's
/// `udp.failure` tells.
pub fn openSockets(device: *Device, wanted: io.udp.Place) io.udp.OpenError!SocketSet {
    var place = wanted;
    var set: SocketSet = .{ .port = place.port };
    errdefer set.close();
    const leading = device.first();
    place.takes_over = leading.udp.isOpen() and place.port == device.interface.listen_port;
    if (place.takes_over) yieldAll(device, true);
    defer if (place.takes_over) yieldAll(device, false);
    set.port = try leading.udp.openAside(&set.lanes[0], place);
    place.port = set.port;
    try watch(leading, &set.lanes[0]);
    var count: u8 = 1;
    for (device.all()[1..]) |lane| {
        if (!lane.is_manned.load(.monotonic)) continue;
        joinSockets(lane, &set, place) catch |err| {
            device.log.err("lane {d} stays without sockets: {t} ({f})", .{ lane.fan.number, err, lane.udp.failure });
            continue;
        };
        count += 1;
    }
    if (count > 1) leading.udp.steer(&set.lanes[0], count);
    return set;
}

/// While sockets are opened on the port that these have.
fn yieldAll(device: *Device, yields: bool) void {
    var open: u8 = 0;
    for (device.all()) |lane| open += @intFromBool(lane.udp.isOpen());
    for (device.all()) |lane| lane.udp.yield(yields, open > 1);
}

fn joinSockets(lane: *Lane, set: *SocketSet, place: io.udp.Place) io.udp.OpenError!void {
    const own = &set.lanes[lane.fan.number];
    try lane.udp.joinAside(own, &set.lanes[0], place);
    errdefer io.udp.closeSockets(own);
    try watch(lane, own);
}

fn watch(lane: *Lane, sockets: *const io.udp.Sockets) io.udp.OpenError!void {
    for (sockets, [_]Token{ .udp_ipv4, .udp_ipv6 }) |socket, token| {
        lane.poller.add(socket orelse continue, token.value(), io.poller.in) catch {
            lane.udp.failure.set("epoll_ctl", .NOSPC);
            return error.SystemResources;
        };
    }
}

/// Puts a set in the place of the one in use. Closing is not left to the kernel's count of descriptors: a host that
/// forked holds them open, and epoll would go on telling of them.
pub fn install(device: *Device, set: *const SocketSet) void {
    for (device.all(), set.lanes[0..device.all().len]) |lane, sockets| {
        for (lane.udp.sockets) |socket| if (socket) |fd| lane.poller.remove(fd);
        lane.udp.close();
        lane.udp.sockets = sockets;
        lane.readTun(lane.udp.isOpen());
    }
    const interface = &device.interface.binding.interface;
    device.bound_index = if (interface.isEmpty()) 0 else io.link.index(interface.slice()) catch 0;
    // Other sockets may take another route: learnt sources are no longer to be trusted.
    device.interface.forgetAllSources();
}

/// A thread has come for a further lane. Should it get no queue or sockets, it still helps the others.
pub fn man(lane: *Lane) void {
    const device = lane.device;
    lane.is_manned.store(true, .release);
    if (lane.isFirst() or !device.interface.is_active) return;
    var set: SocketSet = .{ .port = device.interface.listen_port };
    set.lanes[0] = device.first().udp.sockets;
    joinSockets(lane, &set, placeOf(device)) catch |err| {
        return device.log.err("lane {d} stays without sockets: {t} ({f})", .{ lane.fan.number, err, lane.udp.failure });
    };
    lane.udp.sockets = set.lanes[lane.fan.number];
    var count: u8 = 0;
    for (device.all()) |other| count += @intFromBool(other.udp.isOpen());
    device.first().udp.steer(&device.first().udp.sockets, count);
    lane.readTun(true);
}
