//! The control plane of Interface: applies a Change, writes the configuration, link up and down.
//! A Change is applied whole or not at all: everything that can fail is reserved before anything is touched. A big one
//! is applied in steps, and packets that pass between two of them find each peer as it was or as it is to be.
//! As in the kernel, peers are updated in place and equal settings are no-ops.
const std = @import("std");
const Allocator = std.mem.Allocator;
const attempts = @import("../attempts.zig");
const change_file = @import("../change.zig");
const Change = change_file.Change;
const PeerChange = change_file.PeerChange;
const constants = @import("../constants.zig");
const crypto = @import("../crypto.zig");
const handshakes = @import("handshakes.zig");
const interface_file = @import("../interface.zig");
const Interface = interface_file.Interface;
const noise = @import("../noise.zig");
const notices = @import("../notices.zig");
const Peer = @import("../peer.zig").Peer;
const session = @import("../session.zig");
const Instant = @import("../time.zig").Instant;
const Now = @import("../time.zig").Now;
const uapi = @import("../uapi.zig");
const wire = @import("wire");
const none = @import("../wishes.zig").none;

pub const Error = error{ OutOfMemory, LimitExceeded };

/// Handshake and sessions: what one peer may have in the index table.
const indices_per_peer = 1 + session.sessions_max;

pub fn configure(interface: *Interface, change: *const Change) Error!void {
    var steps: Steps = .begin(interface, change);
    while (try steps.next()) {}
}

/// A change that is being applied. Between two steps packets may go both ways, timers expire and everything be read;
/// only configuring and `setActive` have to wait for the last.
pub const Steps = struct {
    interface: *Interface,
    change: *const Change,
    stage: Stage = .count,
    /// How far a stage has come that takes several steps.
    done: usize = 0,
    /// Peers of the change that are not there yet: a table twice as large as need be would stay so.
    fresh: usize = 0,
    prefixes: usize = 0,

    /// Until `device` nothing is touched, and memory may end.
    const Stage = enum { count, peers, sessions, by_key, by_index, lists, prefixes, device, replace, key, apply, end };

    /// Peers to deal with in one step.
    const step_length = 64;

    pub fn begin(interface: *Interface, change: *const Change) Steps {
        return .{ .interface = interface, .change = change };
    }

    /// Does the next step; false when that was the last. After an error nothing has changed.
    pub fn next(steps: *Steps) Error!bool {
        const interface = steps.interface;
        // Peers and sessions are nearly all of it: they come first, and go back when anything fails.
        errdefer {
            interface.peers.shrinkCapacity(interface.gpa, interface.peer_high);
            interface.attempts.shrinkCapacity(interface.gpa, interface.peer_high);
            interface.sessions.shrinkPeerCapacity(interface.gpa, interface.peer_high);
        }
        const is_done = switch (steps.stage) {
            .count => try steps.count(),
            .peers, .sessions, .by_key, .by_index, .lists, .prefixes => try steps.reserve(steps.stage),
            .device => steps.applyDevice(),
            .replace => steps.replacePeers(),
            .key => blk: {
                if (steps.change.private_key) |*private_key| setPrivateKey(interface, private_key);
                break :blk true;
            },
            .apply => steps.applyPeers(),
            .end => unreachable,
        };
        if (is_done) {
            steps.stage = @fromBackingInt(@as(u4, @intCast(@backingInt(steps.stage) + 1)));
            steps.done = 0;
        }
        return steps.stage != .end;
    }

    /// The part of the change's peers that this step deals with.
    fn takePeers(steps: *Steps) []const PeerChange {
        const peers = steps.change.peers[steps.done..];
        const part = peers[0..@min(peers.len, step_length)];
        steps.done += part.len;
        return part;
    }

    fn isThrough(steps: *const Steps) bool {
        return steps.done == steps.change.peers.len;
    }

    fn count(steps: *Steps) Error!bool {
        for (steps.takePeers()) |*peer| {
            const is_there = !steps.change.replace_peers and steps.interface.by_key.find(&peer.public_key) != null;
            steps.fresh += @intFromBool(!is_there);
            steps.prefixes += peer.allowed_ips.len;
        }
        if (!steps.isThrough()) return false;
        if (steps.fresh > constants.peers_max - steps.kept()) return error.LimitExceeded;
        return true;
    }

    fn kept(steps: *const Steps) u32 {
        return if (steps.change.replace_peers) 0 else steps.interface.peer_count;
    }

    fn reserve(steps: *Steps, stage: Stage) Error!bool {
        const interface = steps.interface;
        const gpa = interface.gpa;
        const total = steps.kept() + @as(u32, @intCast(steps.fresh));
        const slots = @max(interface.peer_high, total); // peers that went left theirs to new ones
        switch (stage) {
            .peers => {
                steps.done = @min(steps.done + step_length * 8, slots);
                try interface.peers.ensureCapacity(gpa, steps.done);
                try interface.attempts.ensureCapacity(gpa, steps.done);
                return steps.done == slots;
            },
            .sessions => {
                steps.done = @min(steps.done + step_length * 8, slots);
                try interface.sessions.ensurePeerCapacity(gpa, @intCast(steps.done));
                return steps.done == slots;
            },
            .by_key => try interface.by_key.ensureUnusedCapacity(gpa, total -| interface.by_key.count),
            .by_index => {
                const wanted = total * indices_per_peer;
                try interface.by_index.ensureUnusedCapacity(gpa, wanted -| interface.by_index.count);
            },
            .lists => {
                try interface.free_peers.ensureTotalCapacity(gpa, slots);
                try interface.deadlines.ensureCapacity(gpa, slots);
                try interface.allowed_ips.ensurePeerCapacity(gpa, slots);
            },
            .prefixes => try interface.allowed_ips.ensureUnusedCapacity(gpa, steps.prefixes),
            .count, .device, .replace, .key, .apply, .end => unreachable,
        }
        return true;
    }

    fn applyDevice(steps: *const Steps) bool {
        const interface = steps.interface;
        const change = steps.change;
        if (change.listen_port) |port| interface.listen_port = port;
        if (change.fwmark) |fwmark| interface.fwmark = fwmark;
        if (change.bind_interface) |name| interface.binding.interface = name;
        if (change.bind_addresses) |addresses| interface.binding.addresses = addresses;
        return true;
    }

    /// The last to come goes first: then those that come in their place take the slots in the same order.
    fn replacePeers(steps: *const Steps) bool {
        if (!steps.change.replace_peers) return true;
        for (0..step_length) |_| {
            if (steps.interface.last_peer == none) return true;
            removePeer(steps.interface, steps.interface.last_peer);
        }
        return false;
    }

    fn applyPeers(steps: *Steps) bool {
        for (steps.takePeers()) |*peer_change| applyPeer(steps.interface, peer_change);
        return steps.isThrough();
    }
};

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
        peer.remote.forgetAgreement();
        handshakes.clearHandshakes(interface, peer);
        peer.sessions.stopSending(&interface.sessions);
        peer.timers.last_sent_handshake = null; // the new key may shake hands at once
        interface.attempts.at(index).begin();
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
    if (change.preshared_key) |*key| {
        if (!crypto.eql32(key, &peer.remote.preshared)) interface.attempts.at(index).begin();
        peer.remote.preshared = key.*;
    }
    const had_endpoint = peer.endpoint != null;
    if (change.endpoint) |remote| setEndpoint(interface, index, remote);
    if (change.replace_allowed_ips) {
        // Those before that line go again, but their owners have lost them: line by line, as wireguard-go.
        applyAllowedIps(interface, index, change.allowed_ips[0..change.replace_after]);
        interface.allowed_ips.removePeer(index);
    }
    applyAllowedIps(interface, index, change.allowed_ips[change.replace_after..]);
    if (change.persistent_keepalive_interval) |interval| setPersistentKeepalive(interface, peer, index, interval);
    if (!had_endpoint and peer.endpoint != null) wake(interface, index);
    handshakes.requestStaged(interface, index);
}

fn applyAllowedIps(interface: *Interface, index: u32, entries: []const change_file.AllowedIpChange) void {
    for (entries) |*entry| {
        if (entry.remove) {
            _ = interface.allowed_ips.remove(entry.prefix, index);
        } else {
            interface.allowed_ips.insertAssumeCapacity(entry.prefix, index);
        }
    }
}

/// What this peer waited to send for want of a link, a key or an endpoint.
fn wake(interface: *Interface, index: u32) void {
    if (!interface.is_active) return;
    const peer = interface.peers.at(index);
    if (peer.timers.persistent_keepalive_interval != 0) handshakes.requestKeepalive(interface, index);
    handshakes.requestStaged(interface, index);
}

fn setEndpoint(interface: *Interface, index: u32, remote: wire.SocketAddress) void {
    const peer = interface.peers.at(index);
    // The same address again keeps the source we learnt with it.
    if (peer.endpoint) |*known| if (known.remote.eql(remote)) return;
    peer.endpoint = .{ .remote = remote };
    peer.shunned = null;
    interface.attempts.at(index).begin();
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
    interface.peers.at(index).init(public_key);
    interface.attempts.at(index).* = .{};
    joinPeers(interface, index);
    return index;
}

/// Behind those that came before.
pub fn joinPeers(interface: *Interface, index: u32) void {
    joinOrder(interface, index);
    interface.by_key.insertAssumeCapacity(&interface.peers.at(index).remote.static, index);
    interface.peer_count += 1;
}

fn joinOrder(interface: *Interface, index: u32) void {
    const last = interface.last_peer;
    interface.peers.at(index).previous = last;
    if (last == none) interface.first_peer = index else interface.peers.at(last).next = index;
    interface.last_peer = index;
}

fn leaveOrder(interface: *Interface, peer: *const Peer) void {
    const previous = peer.previous;
    const next = peer.next;
    if (previous == none) interface.first_peer = next else interface.peers.at(previous).next = next;
    if (next == none) interface.last_peer = previous else interface.peers.at(next).previous = previous;
}

fn removePeer(interface: *Interface, index: u32) void {
    const peer = interface.peers.at(index);
    handshakes.clearKeys(interface, peer);
    const staged = interface.staging_pool.clear(&peer.staged);
    interface.counters.add(.peer_removed, staged);
    interface.allowed_ips.removePeer(index);
    _ = interface.by_key.remove(&peer.remote.static);
    interface.deadlines.remove(index);
    leaveOrder(interface, peer);
    interface.note(.{ .gone = peer.remote.static });
    interface.notices.forget(&peer.remote.static);
    peer.deinit();
    interface.free_peers.appendAssumeCapacity(index);
    interface.peer_count -= 1;
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
            interface.attempts.at(index).begin();
            peer.pending = .{};
            interface.deadlines.remove(index);
            peer.heap_deadline = .never;
        }
    }
}

/// Writes the answer to UAPI get=1, without the errno line.
pub fn write(interface: *Interface, writer: *std.Io.Writer) std.Io.Writer.Error!void {
    var at: Answer = .begin;
    while (!at.isComplete()) try at.writeNext(interface, writer);
}

/// How far an answer to UAPI get=1 has come that is written peer by peer, in the order in which they were added, as the
/// kernel tells them. Whoever lets others use the Interface meanwhile configures nothing until it is complete.
pub const Answer = union(enum) {
    device,
    peer: u32,

    pub const begin: Answer = .device;

    pub fn isComplete(answer: Answer) bool {
        return answer == .peer and answer.peer == none;
    }

    pub fn writeNext(answer: *Answer, interface: *Interface, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        switch (answer.*) {
            .device => {
                try uapi.writeDevice(writer, .{
                    .private_key = if (interface.local) |*local| &local.private else null,
                    .listen_port = interface.listen_port,
                    .fwmark = interface.fwmark,
                });
                answer.* = .{ .peer = interface.first_peer };
            },
            .peer => |index| {
                try writePeer(interface, index, writer);
                answer.* = .{ .peer = interface.peers.at(index).next };
            },
        }
    }
};

/// What has become of a peer so far. No secrets.
pub const PeerCounters = struct {
    public_key: [32]u8,
    endpoint: ?wire.SocketAddress,
    /// 0 for never.
    last_handshake_unix_ns: u64,
    rx_bytes: u64,
    tx_bytes: u64,
};

/// Those of the peer at `index`, and which one comes next, in the order in which they were added.
pub fn counters(interface: *const Interface, index: u32) struct { PeerCounters, u32 } {
    const peer = interface.peers.at(index);
    return .{ .{
        .public_key = peer.remote.static,
        .endpoint = if (peer.endpoint) |endpoint| endpoint.remote else null,
        .last_handshake_unix_ns = peer.last_handshake_unix_ns,
        .rx_bytes = peer.rx_bytes,
        .tx_bytes = peer.tx_bytes,
    }, peer.next };
}

/// What became of a peer lately, for a user. No secrets.
pub const Trace = struct {
    public_key: [32]u8,
    has_endpoint: bool,
    has_session: bool,
    /// Initiations without an answer, responses that were not confirmed, both since the last session; and since when.
    asked: u16,
    answered: u16,
    asked_for_ns: u64,
    /// What came back in the place of a session.
    refused: ?notices.Kind,
    /// Since something authentic came; null for never.
    silence_ns: ?u64,
    /// What was sent and has no answer, although one is due after KEEPALIVE_TIMEOUT.
    unanswered_ns: u64,
    /// It had no answer, and so it is asked.
    is_silent: bool,
    /// By reason, in the order of `attempts.drops`.
    dropped: [attempts.drops.len]u32,

    /// Nothing was tried, and nothing came.
    pub fn isQuiet(self: *const Trace) bool {
        const was_tried = self.asked != 0 or self.answered != 0 or self.refused != null or self.unanswered_ns != 0;
        return !was_tried and self.silence_ns == null and std.mem.allEqual(u32, &self.dropped, 0);
    }

    pub fn format(self: *const Trace, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        try writer.print("{x} endpoint={d} session={d} asked={d} answered={d}", .{
            &self.public_key, @intFromBool(self.has_endpoint), @intFromBool(self.has_session),
            self.asked,       self.answered,
        });
        if (self.asked != 0) try writer.print(" asked_for_ms={d}", .{self.asked_for_ns / std.time.ns_per_ms});
        if (self.refused) |kind| try writer.print(" refused={t}", .{kind});
        if (self.silence_ns) |ns| try writer.print(" heard_ms_ago={d}", .{ns / std.time.ns_per_ms});
        if (self.unanswered_ns != 0) {
            try writer.print(" unanswered_ms={d}", .{self.unanswered_ns / std.time.ns_per_ms});
        }
        if (self.is_silent) try writer.writeAll(" silent=1");
        for (attempts.drops, self.dropped) |reason, count| {
            if (count != 0) try writer.print(" dropped_{t}={d}", .{ reason, count });
        }
    }
};

/// That of the peer at `index`, and which one comes next, in the order in which they were added.
pub fn trace(interface: *const Interface, index: u32, now: Now) struct { Trace, u32 } {
    const peer = interface.peers.at(index);
    const tried = interface.attempts.at(index);
    return .{ .{
        .public_key = peer.remote.static,
        .has_endpoint = peer.endpoint != null,
        .has_session = peer.sessions.current != null,
        .asked = tried.asked,
        .answered = tried.answered,
        .asked_for_ns = if (tried.asked == 0) 0 else askedUntil(peer, now).since(tried.since),
        .refused = tried.refused(),
        .silence_ns = peer.timers.silence(now.boot),
        .unanswered_ns = peer.timers.unanswered(now.boot),
        .is_silent = tried.is_silent,
        .dropped = tried.dropped,
    }, peer.next };
}

/// Until when an answer was waited for: one that was given up is not asked any more.
fn askedUntil(peer: *const Peer, now: Now) Instant {
    const last = peer.timers.last_sent_handshake orelse return now.boot;
    const end = last.after(constants.REKEY_TIMEOUT);
    return if (end.isBefore(now.boot)) end else now.boot;
}

/// Why there is no handshake now, as far as it can be known beforehand.
pub const HandshakeError = error{ NoSuchPeer, NoPrivateKey, NoEndpoint, LinkDown };

/// A handshake with the peer as soon as one is allowed, REKEY_TIMEOUT after the last, whatever session there is.
pub fn requestHandshake(interface: *Interface, public_key: *const [32]u8, now: Now) HandshakeError!void {
    const index = interface.by_key.find(public_key) orelse return error.NoSuchPeer;
    if (interface.local == null) return error.NoPrivateKey;
    if (interface.peers.at(index).endpoint == null) return error.NoEndpoint;
    if (!interface.is_active) return error.LinkDown;
    handshakes.requestInitiation(interface, index, now, .first);
}

fn writePeer(interface: *Interface, index: u32, writer: *std.Io.Writer) std.Io.Writer.Error!void {
    const peer = interface.peers.at(index);
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
