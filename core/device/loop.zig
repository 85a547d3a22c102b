//! The loop: wait, control, inbound, timers, transmit, outbound. One turn handles at most one batch each
//! way, so neither direction can starve the other, and reads the clocks once.
const std = @import("std");
const cipher = @import("cipher");
const control = @import("control.zig");
const Device = @import("device.zig").Device;
const io = @import("io");
const protocol = @import("protocol");
const train = @import("train.zig");
const wire = @import("wire");

/// Who an event is for; UAPI clients follow after the fixed ones.
pub const Token = enum(u64) {
    tun,
    udp_ipv4,
    udp_ipv6,
    wakeup,
    monitor,
    routes,
    uapi_listener,
    uapi_removed,
    uapi_first_client,
    _,

    pub fn value(token: Token) u64 {
        return @backingInt(token);
    }
};

/// Datagrams of the protocol itself in one send, and room for each: what no train took was never staged.
pub const transmits_max = 32;
pub const transmit_length = 65_536;

/// What sends no event, or too many of them, is looked at this often.
const probe_interval_ms = 1000;

pub fn run(device: *Device) void {
    defer cipher.scrubStack();
    var events: [32]io.poller.Event = undefined;
    while (!device.stop_requested.load(.acquire) and !device.is_gone) {
        device.lock.acquire();
        const timeout_ms = timeoutOf(device);
        device.lock.release();
        const ready = device.poller.wait(&events, timeout_ms);
        device.lock.acquire();
        defer device.lock.release();
        turn(device, ready);
    }
}

fn timeoutOf(device: *Device) i32 {
    const limit: i32 = if (needsProbe(device)) probe_interval_ms else -1;
    const deadline = device.interface.deadline() orelse return limit;
    const left_ns = deadline.since(.{ .ns = io.clock.bootNs() });
    const left_ms = std.math.divCeil(u64, left_ns, std.time.ns_per_ms) catch unreachable;
    const capped: i32 = @intCast(@min(left_ms, std.time.ms_per_hour));
    return if (limit >= 0) @min(limit, capped) else capped;
}

fn turn(device: *Device, ready: []const io.poller.Event) void {
    const now = Device.now();
    var tun_is_ready = false;
    probe(device, now);
    for (ready) |event| {
        switch (@as(Token, @fromBackingInt(event.data.u64))) {
            .tun => tun_is_ready = true,
            .udp_ipv4 => receive(device, .ipv4, now),
            .udp_ipv6 => receive(device, .ipv6, now),
            .wakeup => _ = device.wakeup.drain(),
            .monitor => followLink(device),
            .routes => if (device.routes.drain()) {
                device.routes_changed = true;
            },
            .uapi_listener, .uapi_removed, .uapi_first_client, _ => control.serve(device, event),
        }
        if (device.is_gone) return;
    }
    device.interface.expire(now);
    // A timer woke us, and ended sessions perhaps; traffic would overwrite what they left by itself.
    if (ready.len == 0) cipher.scrubStack();
    transmit(device, now);
    if (tun_is_ready) {
        sendFromTun(device, now);
        transmit(device, now);
    }
    logOffload(device);
}

fn receive(device: *Device, family: wire.Family, now: protocol.Now) void {
    _ = device.inbound.run(&.{
        .interface = &device.interface,
        .tun = &device.tun,
        .udp = &device.udp,
        .offload = &device.offload,
        .load = &device.load,
        .now = now,
    }, family);
}

fn sendFromTun(device: *Device, now: protocol.Now) void {
    device.outbound.run(&.{
        .interface = &device.interface,
        .tun = &device.tun,
        .udp = &device.udp,
        .now = now,
    }) catch |err| switch (err) {
        error.Down => followLink(device),
        error.Gone => gone(device, "the interface is gone"),
    };
}

/// Sends what the protocol itself wants sent, in batches, until there is nothing left.
pub fn transmit(device: *Device, now: protocol.Now) void {
    while (true) {
        var datagrams: [transmits_max]io.udp.Datagram = undefined;
        var peers: [transmits_max]?protocol.PeerId = undefined;
        var count: usize = 0;
        while (count < transmits_max) : (count += 1) {
            const buffer = device.transmit_buffers[count * transmit_length ..][0..transmit_length];
            const next = device.interface.pollTransmit(buffer, now) orelse break;
            datagrams[count] = .{
                .bytes = buffer[0..next.length],
                .segment_size = 0,
                .endpoint = next.endpoint,
                .tos = next.tos,
            };
            peers[count] = next.peer;
        }
        if (count == 0) return;
        const result = device.udp.send(datagrams[0..count], now.boot.ns);
        device.interface.counters.add(.send_failed, result.failed_datagrams);
        for (datagrams[0..count], peers[0..count]) |*datagram, peer| {
            if (datagram.source_refused) if (peer) |id| device.interface.forgetSource(id);
        }
        if (count < transmits_max) return;
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
    const is_unwatched = if (device.uapi) |*server| server.isUnwatched() else false;
    return device.monitor.is_blind or device.routes_changed or is_unwatched;
}

fn probe(device: *Device, now: protocol.Now) void {
    if (!needsProbe(device)) return;
    if (now.boot.since(device.probed) < probe_interval_ms * std.time.ns_per_ms) return;
    device.probed = now.boot;
    if (device.monitor.is_blind) probeLink(device);
    if (device.uapi) |*server| {
        if (server.isUnwatched() and server.listener.wasRemoved()) gone(device, "the UAPI socket was removed");
    }
    if (device.routes_changed) {
        device.routes_changed = false;
        device.interface.forgetSources(device.interface.fwmark, isStale);
    }
}

/// Whether the kernel would now send from the source by another interface than the peer spoke to.
fn isStale(fwmark: u32, endpoint: *const wire.Endpoint) bool {
    const source = endpoint.source.?;
    const found = io.link.routeInterface(endpoint.remote.address, source.address, fwmark) catch return true;
    return found == null or found.? != source.interface_index;
}

fn probeLink(device: *Device) void {
    switch (io.link.probe(device.tun.fd, device.tun.has_vnet_header)) {
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
    const port = openUdp(device, &device.udp, device.interface.listen_port, device.interface.fwmark) catch |err| {
        return device.log.err("cannot listen on port {d}: {t} ({f})", .{ device.interface.listen_port, err, device.udp.failure });
    };
    device.interface.listen_port = port;
    activate(device);
}

/// The sockets are there: packets may flow.
pub fn activate(device: *Device) void {
    fitSuperpackets(device);
    device.interface.setActive(true);
    device.log.verbose("up, listening on port {d}", .{device.interface.listen_port});
    transmit(device, Device.now());
}

fn goDown(device: *Device) void {
    if (!device.interface.is_active) return;
    device.interface.setActive(false);
    closeUdp(device);
    device.log.verbose("down", .{});
}

/// Opens sockets and has them watched, or leaves nothing behind.
pub fn openUdp(device: *Device, udp: *io.udp.Udp, port: u16, fwmark: u32) io.udp.OpenError!u16 {
    const bound = try udp.open(port, fwmark);
    errdefer udp.close();
    for ([_]wire.Family{ .ipv4, .ipv6 }, [_]Token{ .udp_ipv4, .udp_ipv6 }) |family, token| {
        device.poller.add(udp.fd(family) orelse continue, token.value(), io.poller.in) catch {
            udp.failure.set("epoll_ctl", .NOSPC);
            return error.SystemResources;
        };
    }
    return bound;
}

/// Not left to `close`: a host that forked holds the sockets open, and epoll would go on telling of them.
pub fn closeUdp(device: *Device) void {
    for ([_]wire.Family{ .ipv4, .ipv6 }) |family| {
        if (device.udp.fd(family)) |fd| device.poller.remove(fd);
    }
    device.udp.close();
}

pub fn gone(device: *Device, reason: []const u8) void {
    device.is_gone = true;
    device.log.verbose("{s}: ending", .{reason});
}

// ---- what the user should know ----

fn logOffload(device: *Device) void {
    for (std.enums.values(io.offload.Feature), &device.logged.states) |feature, *logged| {
        const state = device.offload.state(feature);
        if (state == logged.*) continue;
        logged.* = state;
        if (state != .stepped_down) continue;
        const cause = device.offload.causes[@backingInt(feature)];
        device.log.err("{t} switched off: the kernel answered {f}; what it refused was sent again without", .{ feature, io.linux.ErrnoName{ .code = cause } });
    }
    if (device.offload.refusals_length > device.logged.refusals) {
        for (device.offload.refusals[device.logged.refusals..device.offload.refusals_length]) |*refusal| {
            device.log.err("udp_gso is not used towards {f} for a minute: the path refused a train", .{refusal.remote});
        }
        device.logged.refusals = device.offload.refusals_length;
    }
}
