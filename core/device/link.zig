//! Link: brings sockets and protocol in line with the interface, and with the routes around it: up, down, MTU, gone.
//! What the kernel does not tell, or tells too often, is asked for now and then: `probe`.
//! Invariant: called by the first worker, with the turns of all others held.
const std = @import("std");
const io = @import("io");
const protocol = @import("protocol");
const Shared = @import("shared.zig").Shared;
const shared_file = @import("shared.zig");
const Sockets = @import("sockets.zig").Sockets;
const sweep_file = @import("sweep.zig");
const Sweep = sweep_file.Sweep;
const train = @import("train.zig");
const wire = @import("wire");
const Workers = @import("workers.zig").Workers;

pub const Link = struct {
    shared: *Shared,
    workers: *Workers,
    sockets: *Sockets,
    monitor: io.link.Monitor,
    /// As far as the monitor has told.
    is_up: bool = false,
    routes: io.route.Monitor,
    /// Word that this machine is a copy.
    vm_generation: ?io.vm_generation.Monitor,
    /// Of sources that a change of routes may have made stale.
    sources: Sweep = .{},

    pub fn close(link: *Link) void {
        if (link.vm_generation) |*monitor| monitor.close();
        link.routes.close();
        link.monitor.close();
    }

    // ---- the interface ----

    pub fn follow(link: *Link) void {
        const log = &link.shared.log;
        while (link.monitor.read()) |event| {
            switch (event) {
                .up => link.is_up = true,
                .down => link.is_up = false,
                .mtu => |mtu| link.setMtu(mtu),
                .renamed => log.name = link.monitor.name(),
                .blind => log.err(
                    "the interface moved to a namespace that cannot be followed: asking for its state each second",
                    .{},
                ),
                .gone => return link.shared.end("the interface was removed"),
            }
        }
        const was_here = link.shared.is_here;
        link.shared.is_here = link.isHere();
        if (!was_here and link.shared.is_here) io.link_settings.refresh(link.monitor.interface_index);
        link.followTunnels();
        if (link.is_up) link.goUp() else link.goDown();
    }

    /// What is there already, for a device that is about to take over: nothing follows from it yet. It waits for locks
    /// that the kernel holds for whoever changes any interface, so it is done while packets still pass elsewhere.
    pub fn observe(link: *Link) void {
        while (link.monitor.read()) |event| switch (event) {
            .up => link.is_up = true,
            .down => link.is_up = false,
            .mtu => |mtu| link.shared.interface.mtu = mtu,
            .renamed => link.shared.log.name = link.monitor.name(),
            .blind => {},
            .gone => return, // `follow` hears it, too
        };
        link.shared.is_here = link.isHere();
        link.followTunnels();
    }

    /// The last that was told, if it was.
    pub fn observedMtu(link: *const Link) ?u32 {
        return if (link.monitor.known.mtu == 0) null else link.monitor.known.mtu;
    }

    /// In another namespace they are not ours to know.
    fn followTunnels(link: *Link) void {
        const tunnels = &link.shared.tunnels;
        if (!link.shared.is_here) {
            link.monitor.tunnels_changed = true; // when it comes back
            return tunnels.clear();
        }
        if (!link.monitor.tunnels_changed) return;
        link.monitor.tunnels_changed = false;
        const had_none = tunnels.count == 0;
        tunnels.refresh();
        if (had_none != (tunnels.count == 0)) link.fitSuperpackets();
    }

    /// In another namespace its name and index are another interface's here.
    fn isHere(link: *const Link) bool {
        return !link.monitor.is_blind and link.monitor.namespace == null;
    }

    /// Once, before this thread can open no files any more.
    pub fn settle(link: *Link) void {
        if (!link.isHere()) return;
        const name = link.monitor.name();
        const refused = io.link_settings.apply(name);
        const log = &link.shared.log;
        if (refused.link_local) log.err("IPv6 makes itself an address on {s} and looks for routers through it: " ++
            "set net.ipv6.conf.{s}.addr_gen_mode=1 before it is up", .{ name, name });
        if (refused.redirects) log.verbose("peers that send to one another may be told to do so directly: " ++
            "net.ipv4.conf.all.send_redirects cannot be set to 0", .{});
        if (refused.advertisements) log.verbose("router advertisements of peers are followed: " ++
            "net.ipv6.conf.{s}.accept_ra cannot be set to 0", .{name});
    }

    /// The kernel's word on a read from TUN.
    pub fn readFailed(link: *Link, err: io.tun.ReadError) void {
        switch (err) {
            error.Down => link.follow(),
            error.Gone => link.shared.end("the interface is gone"),
        }
    }

    fn setMtu(link: *Link, mtu: u32) void {
        const had_ipv6 = link.shared.interface.mtu >= io.link_settings.ipv6_mtu_min;
        link.shared.interface.mtu = mtu;
        // IPv6 is back, with the host's defaults.
        if (!had_ipv6 and link.isHere()) io.link_settings.refresh(link.monitor.interface_index);
        link.shared.log.verbose("mtu {d}", .{mtu});
        link.fitSuperpackets();
    }

    /// One superpacket read from TUN should fit one UDP_SEGMENT send. Inside a tunnel the kernel puts more segments in
    /// one than it would for this interface, and takes it apart itself if they are more than the bound: where there are
    /// tunnels, it may be two sends.
    fn fitSuperpackets(link: *Link) void {
        if (!link.isHere()) return;
        const mtu = link.shared.interface.mtu;
        const datagram = wire.messages.paddedLength(mtu, mtu) + wire.messages.transport_overhead;
        const one_train: u32 = @intCast(std.math.clamp(train.bytes_max / datagram, 1, train.packets_max));
        const segments = if (link.shared.tunnels.count == 0) one_train else 2 * one_train;
        // Without it a train is cut in two, no more.
        io.link.setGsoMaxSegs(link.monitor.interface_index, segments) catch {};
    }

    fn goUp(link: *Link) void {
        if (link.shared.interface.is_active) return;
        const wanted = link.sockets.configured();
        const set = link.sockets.open(wanted) catch return link.noteRefused(wanted.port);
        link.sockets.install(&set);
        link.shared.interface.listen_port = set.port;
        link.activate();
    }

    /// It is tried again by `probe`: a port may become free, and nobody tells us.
    fn noteRefused(link: *Link, port: u16) void {
        const failure = link.sockets.failure();
        if (link.shared.refused) |known| if (known.port == port and known.errno == failure.errno) return;
        link.shared.refused = .{ .port = port, .errno = failure.errno };
        link.shared.log.err("cannot listen on port {d}: {f}; it is tried again", .{ port, failure });
        const errno: u16 = @intCast(@backingInt(failure.errno));
        link.shared.interface.note(.{ .port_failed = .{ .port = port, .errno = errno } });
    }

    /// The sockets are there: packets may flow.
    pub fn activate(link: *Link) void {
        const interface = &link.shared.interface;
        link.fitSuperpackets();
        interface.setActive(true);
        link.shared.log.verbose("up, listening on port {d}", .{interface.listen_port});
        if (link.shared.refused != null) interface.note(.{ .healed = .{ .port = interface.listen_port } });
        link.shared.refused = null;
    }

    fn goDown(link: *Link) void {
        link.shared.refused = null;
        if (!link.shared.interface.is_active) return;
        link.shared.interface.setActive(false);
        link.sockets.install(&.{ .port = 0 });
        link.shared.log.verbose("down", .{});
    }

    // ---- what is asked for ----

    pub fn needsProbe(link: *const Link) bool {
        return link.monitor.is_blind or link.shared.refused != null;
    }

    pub fn probe(link: *Link) void {
        if (!link.monitor.is_blind) {
            if (link.shared.refused != null) link.goUp();
            return;
        }
        const tun = &link.workers.first().tun;
        switch (io.link.probe(tun.fd, tun.header_length)) {
            .up => link.is_up = true,
            .down => link.is_up = false,
            .gone => return link.shared.end("the interface was removed"),
        }
        link.follow();
    }

    // ---- copies ----

    pub fn noteVmGeneration(link: *Link) void {
        const monitor = if (link.vm_generation) |*monitor| monitor else return;
        if (!monitor.drain()) return;
        link.shared.log.verbose("this machine is a copy of another, or was set back: all sessions are renewed", .{});
        link.shared.interface.renewSessions(shared_file.now());
    }

    // ---- routes ----

    /// They come in swarms: what follows from them is left to `sweepSources`.
    pub fn noteRoutes(link: *Link) void {
        if (link.routes.drain()) link.sources.request();
    }

    /// A slice of what follows from changed routes, when `sources` says that it is due.
    pub fn sweepSources(link: *Link) void {
        if (link.sources.next == null) link.followBinding();
        var look: Look = .{ .link = link, .lookup = io.route.Lookup.open() catch null };
        defer if (look.lookup) |*lookup| lookup.close();
        link.sources.run(@as(*const Look, &look), Look.forgetStale, Look.clock);
    }

    /// An interface or address to bind to that comes late, or comes back: routes change with it. One that comes back is
    /// another to the kernel, and sockets bound to the old one are deaf.
    fn followBinding(link: *Link) void {
        const binding = &link.shared.interface.binding;
        if (!link.is_up or binding.isEmpty()) return;
        if (!link.shared.interface.is_active) return link.goUp();
        if (binding.interface.isEmpty()) return;
        const name = binding.interface.slice();
        const index = io.link.index(name) catch return; // gone: wait for it
        if (index == link.sockets.bound_index) return;
        const set = link.sockets.open(link.sockets.configured()) catch {
            return link.shared.log.err("cannot bind to {s} again: {f}", .{ name, link.sockets.failure() });
        };
        link.sockets.install(&set);
        link.shared.log.verbose("bound to {s} again", .{name});
        link.shared.interface.note(.{ .healed = .{ .port = link.shared.interface.listen_port } });
    }
};

/// What one slice of a sweep works with.
const Look = struct {
    link: *const Link,
    /// Null when memory is short.
    lookup: ?io.route.Lookup,

    fn forgetStale(look: *const Look, first: u32) ?u32 {
        return look.link.shared.interface.forgetSources(first, sweep_file.portion, look, isStale);
    }

    fn clock(_: *const Look) protocol.Instant {
        return .{ .ns = io.clock.bootNs() };
    }

    /// Whether the kernel would now send from the source by another interface than the peer spoke to. One that cannot
    /// be judged is given up.
    fn isStale(look: *const Look, endpoint: *const wire.Endpoint) bool {
        const lookup = if (look.lookup) |*lookup| lookup else return true;
        const source = endpoint.source.?;
        const fwmark = look.link.shared.interface.fwmark;
        const bound = look.link.sockets.bound_index;
        const remote = endpoint.remote.address;
        const found = lookup.interfaceTo(remote, source.address, fwmark, bound) catch return true;
        if (bound != 0) return found == null; // by another it cannot go, and of a VRF we would get the member
        return found == null or found.? != source.interface_index;
    }
};
