//! The control plane of Interface: applies a Change, writes the configuration, link up and down.
//! A Change is applied whole or not at all: everything that can fail is reserved before anything is touched.
//! As in the kernel, peers are updated in place and equal settings are no-ops.
const std = @import("std");
const Allocator = std.mem.Allocator;
const change_file = @import("../change.zig");
const Change = change_file.Change;
const PeerChange = change_file.PeerChange;
const constants = @import("../constants.zig");
const crypto = @import("../crypto.zig");
const handshakes = @import("handshakes.zig");
const interface_file = @import("../interface.zig");
const Interface = interface_file.Interface;
const noise = @import("../noise.zig");
const Peer = @import("../peer.zig").Peer;
const session = @import("../session.zig");
const uapi = @import("../uapi.zig");
const wire = @import("wire");

pub const Error = error{ OutOfMemory, LimitExceeded };

/// Handshake and sessions: what one peer may have in the index table.
const indices_per_peer = 1 + session.sessions_max;

pub fn configure(interface: *Interface, change: *const Change) Error!void {
    try reserve(interface, change);
    if (change.listen_port) |port| interface.listen_port = port;
    if (change.fwmark) |fwmark| interface.fwmark = fwmark;
    if (change.bind_interface) |name| interface.binding.interface = name;
    if (change.bind_addresses) |addresses| interface.binding.addresses = addresses;
    if (change.replace_peers) removeAllPeers(interface);
    if (change.private_key) |*private_key| setPrivateKey(interface, private_key);
    for (change.peers) |*peer_change| applyPeer(interface, peer_change);
}

fn reserve(interface: *Interface, change: *const Change) Error!void {
    const gpa = interface.gpa;
    const kept = if (change.replace_peers) 0 else interface.peer_count;
    const fresh = countFresh(interface, change);
    if (fresh > constants.peers_max - kept) return error.LimitExceeded;
    const total = kept + @as(u32, @intCast(fresh));
    const slots = @max(interface.peer_high, total); // peers that went left theirs to new ones
    // Peers and sessions are nearly all of it: they come first, and go back when anything fails.
    errdefer {
        interface.peers.shrinkCapacity(gpa, interface.peer_high);
        interface.sessions.shrinkPeerCapacity(gpa, interface.peer_high);
    }
    try interface.peers.ensureCapacity(gpa, slots);
    try interface.sessions.ensurePeerCapacity(gpa, slots);
    try interface.free_peers.ensureTotalCapacity(gpa, slots);
    try interface.by_key.ensureUnusedCapacity(gpa, total -| interface.by_key.count);
    try interface.by_index.ensureUnusedCapacity(gpa, total * indices_per_peer -| interface.by_index.count);
    try interface.deadlines.ensureCapacity(gpa, slots);
    var prefixes: usize = 0;
    for (change.peers) |*peer_change| prefixes += peer_change.allowed_ips.len;
    try interface.allowed_ips.ensurePeerCapacity(gpa, slots);
    try interface.allowed_ips.ensureUnusedCapacity(gpa, prefixes);
}

/// How many of the change's peers may be new ones: a table twice as large as need be would stay so.
fn countFresh(interface: *const Interface, change: *const Change) usize {
    if (change.replace_peers) return change.peers.len;
    var fresh: usize = 0;
    for (change.peers) |*peer_change| fresh += @intFromBool(interface.by_key.find(&peer_change.public_key) == null);
    return fresh;
}

fn setPrivateKey(interface: *Interface, private_key: *const [32]u8) void {
    const had_key = interface.local != null;
    if (std.mem.allEqual(u8, private_key, 0)) {
        if (interface.local) |*local| local.zero();
        interface.local = null;
    } else {
        var clamped = private_key.*;
        defer crypto.zero(&clamped);
        crypto.clamp(&clamped);
        if (interface.local) |*local| if (crypto.eql32(&local.private, &clamped)) return;
        interface.local = noise.Local.init(&clamped);
        interface.checker.setKey(&interface.local.?.public);
        if (interface.by_key.find(&interface.local.?.public)) |index| removePeer(interface, index);
    }
    var index: u32 = 0;
    while (index < interface.peer_high) : (index += 1) {
        const peer = interface.peers.at(index);
        if (!peer.in_use) continue;
        peer.remote.precompute(if (interface.local) |*local| local else null);
        handshakes.clearHandshakes(interface, peer);
        peer.sessions.stopSending(&interface.sessions);
        peer.timers.last_sent_handshake = null; // the new key may shake hands at once
        if (!had_key and interface.local != null) wake(interface, index);
    }
}

fn applyPeer(interface: *Interface, change: *const PeerChange) void {
    const index = interface.by_key.find(&change.public_key) orelse blk: {
        if (change.remove or change.update_only) return;
        // Our own key as a peer is a dummy, as in the kernel.
        if (interface.local) |*local| if (std.mem.eql(u8, &local.public, &change.public_key)) return;
        break :blk addPeer(interface, &change.public_key);
    };
    if (change.remove) return removePeer(interface, index);
    const peer = interface.peers.at(index);
    if (change.preshared_key) |*key| peer.remote.preshared = key.*;
    const had_endpoint = peer.endpoint != null;
    if (change.endpoint) |remote| setEndpoint(peer, remote);
    if (change.replace_allowed_ips) interface.allowed_ips.removePeer(index);
    for (change.allowed_ips) |*entry| {
        if (entry.remove) {
            _ = interface.allowed_ips.remove(entry.prefix, index);
        } else {
            interface.allowed_ips.insertAssumeCapacity(entry.prefix, index);
        }
    }
    if (change.persistent_keepalive_interval) |interval| setPersistentKeepalive(interface, peer, index, interval);
    if (!had_endpoint and peer.endpoint != null) wake(interface, index);
    handshakes.requestStaged(interface, index);
}

/// What this peer waited to send for want of a link, a key or an endpoint.
fn wake(interface: *Interface, index: u32) void {
    if (!interface.is_active) return;
    const peer = interface.peers.at(index);
    if (peer.timers.persistent_keepalive_interval != 0) handshakes.requestKeepalive(interface, index);
    handshakes.requestStaged(interface, index);
}

fn setEndpoint(peer: *Peer, remote: wire.SocketAddress) void {
    // The same address again keeps the source we learnt with it.
    if (peer.endpoint) |*known| if (known.remote.eql(remote)) return;
    peer.endpoint = .{ .remote = remote };
    peer.shunned = null;
}

fn setPersistentKeepalive(interface: *Interface, peer: *Peer, index: u32, interval: u16) void {
    const was_off = peer.timers.persistent_keepalive_interval == 0;
    peer.timers.persistent_keepalive_interval = interval;
    if (interval == 0) peer.timers.cancel(.persistent_keepalive);
    if (was_off and interval != 0 and interface.is_active) handshakes.requestKeepalive(interface, index);
}

fn addPeer(interface: *Interface, public_key: *const [32]u8) u32 {
    const index = interface.free_peers.pop() orelse blk: {
        const fresh = interface.peer_high;
        interface.peer_high += 1;
        interface.peers.at(fresh).initEmpty();
        break :blk fresh;
    };
    interface.peers.at(index).init(if (interface.local) |*local| local else null, public_key);
    interface.by_key.insertAssumeCapacity(public_key, index);
    interface.peer_count += 1;
    return index;
}

fn removePeer(interface: *Interface, index: u32) void {
    const peer = interface.peers.at(index);
    handshakes.clearKeys(interface, peer);
    const staged = interface.staging_pool.clear(&peer.staged);
    interface.counters.add(.peer_removed, staged);
    interface.allowed_ips.removePeer(index);
    _ = interface.by_key.remove(&peer.remote.static);
    interface.deadlines.remove(index);
    peer.deinit();
    interface.free_peers.appendAssumeCapacity(index);
    interface.peer_count -= 1;
}

fn removeAllPeers(interface: *Interface) void {
    var index: u32 = 0;
    while (index < interface.peer_high) : (index += 1) {
        if (interface.peers.at(index).in_use) removePeer(interface, index);
    }
}

/// Link up: persistent keepalives and staged packets go out. Link down: sessions are forgotten.
pub fn setActive(interface: *Interface, is_active: bool) void {
    if (interface.is_active == is_active) return;
    interface.is_active = is_active;
    var index: u32 = 0;
    while (index < interface.peer_high) : (index += 1) {
        const peer = interface.peers.at(index);
        if (!peer.in_use) continue;
        if (is_active) {
            wake(interface, index);
        } else {
            const given_up = interface.staging_pool.clear(&peer.staged);
            interface.counters.add(.handshake_gave_up, given_up);
            handshakes.clearKeys(interface, peer);
            peer.timers.stop();
            peer.pending = .{};
            interface.deadlines.remove(index);
            peer.heap_deadline = .never;
        }
    }
}

/// Writes the answer to UAPI get=1, without the errno line.
pub fn write(interface: *Interface, writer: *std.Io.Writer) std.Io.Writer.Error!void {
    try uapi.writeDevice(writer, .{
        .private_key = if (interface.local) |*local| &local.private else null,
        .listen_port = interface.listen_port,
        .fwmark = interface.fwmark,
    });
    var index: u32 = 0;
    while (index < interface.peer_high) : (index += 1) {
        const peer = interface.peers.at(index);
        if (!peer.in_use) continue;
        var prefixes = interface.allowed_ips.iterate(index);
        try uapi.writePeer(writer, .{
            .public_key = &peer.remote.static,
            .preshared_key = &peer.remote.preshared,
            .endpoint = if (peer.endpoint) |endpoint| endpoint.remote else null,
            .last_handshake_unix_ns = peer.last_handshake_unix_ns,
            .tx_bytes = peer.tx_bytes,
            .rx_bytes = peer.rx_bytes,
            .persistent_keepalive_interval = peer.timers.persistent_keepalive_interval,
        }, &prefixes);
    }
}
