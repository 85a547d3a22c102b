//! Interface: one private key, its peers and tables; the front door of the protocol (whitepaper section 2).
//! The data plane is here: `reserve`, `prepareOpen`, `finishOpen`. Handshakes and what the protocol itself sends are in
//! interface/handshakes.zig, the control plane is in interface/control.zig; interface/renewal.zig is for a memory that
//! may exist twice.
//! Does no I/O and reads no clock. Nothing allocates outside `init` and `configure`.
//! Invariant: the key and the endpoint that a ticket points to stay until the next call that is no `route`, `reserve`,
//! `stage` or `prepareOpen`. Whoever keeps a ticket for longer copies them.
const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const wire = @import("wire");
const messages = wire.messages;
const allowed_ips = @import("allowed_ips.zig");
const Attempts = @import("attempts.zig").Attempts;
const control = @import("interface/control.zig");
const constants = @import("constants.zig");
const cookie = @import("cookie.zig");
const crypto = @import("crypto.zig");
const drop = @import("drop.zig");
const events_file = @import("events.zig");
const Drop = drop.Drop;
const handover = @import("interface/handover.zig");
const handshakes = @import("interface/handshakes.zig");
const load = @import("load.zig");
const deadlines_file = @import("deadlines.zig");
const index_table = @import("index_table.zig");
const noise = @import("noise.zig");
const notices_file = @import("notices.zig");
const Peer = @import("peer.zig").Peer;
const peer_table = @import("peer_table.zig");
pub const PeerId = peer_table.PeerId;
const rate_limiter = @import("rate_limiter.zig");
const renewal = @import("interface/renewal.zig");
const SegmentedArray = @import("segmented_array.zig").SegmentedArray;
const session = @import("session.zig");
const staging = @import("staging.zig");
const time = @import("time.zig");
const trouble = @import("interface/trouble.zig");
const untouched = @import("untouched.zig");
const wishes = @import("wishes.zig");
const Now = time.Now;
const Instant = time.Instant;

/// The only source of randomness. `fill` answers false when it has none: then nothing is sent.
pub const Entropy = struct {
    context: ?*anyopaque,
    fillFn: *const fn (context: ?*anyopaque, out: []u8) bool,

    pub fn fill(entropy: Entropy, out: []u8) bool {
        return entropy.fillFn(entropy.context, out);
    }
};

pub const Options = struct {
    allocator: Allocator,
    entropy: Entropy,
    /// Of the inner packets: bounds their padding.
    mtu: u32 = 1420,
    /// Chunks of 2 KiB that all peers share for packets waiting for a handshake.
    staging_chunks: u32 = 1024,
    /// The first byte of a receiver index, modulo this, is that of its peer: a kernel that shares datagrams out
    /// to so many sockets by that byte gives one peer's always to the same.
    index_shards: u8 = 1,
    /// What one curve operation takes on this machine, in nanoseconds: see load.zig.
    curve_ns: u64 = load.Load.curve_ns_default,
};

/// When a handshake message has to show a cookie.
pub const Demand = handshakes.Demand;

/// Leave to seal packets with consecutive nonces, the first of them `counter`, and to send them.
pub const SealTicket = struct {
    peer: PeerId,
    receiver_index: u32,
    counter: u64,
    key: *const [32]u8,
    endpoint: *const wire.Endpoint,
};

pub const Reserved = union(enum) {
    seal: SealTicket,
    /// No session: keep the packets with `stage`; a handshake is on its way.
    stage,
    drop: Drop,
};

/// A transport message with a session to open it.
pub const OpenTicket = struct {
    peer: PeerId,
    slot: session.Slot,
    receiver_index: u32,
    counter: u64,
    key: *const [32]u8,
};

pub const Open = union(enum) {
    open: OpenTicket,
    /// Not transport data: give it to `handleHandshake`.
    handshake,
    drop: Drop,
};

pub const Opened = union(enum) {
    /// The inner packet without padding.
    deliver: []u8,
    keepalive,
    drop: Drop,
};

/// A datagram that the protocol wants sent.
pub const Transmit = struct {
    endpoint: wire.Endpoint,
    length: usize,
    /// DSCP and ECN of the outer header.
    tos: u8,
    /// Null for a cookie reply, which goes to whoever asked.
    peer: ?PeerId,
};

/// Handshake datagrams carry DSCP AF41, as the kernel's do.
pub const handshake_tos: u8 = 0x88;

const CookieOut = struct { endpoint: wire.Endpoint, message: messages.CookieReply };
/// Cookie replies that wait to be sent: those of a turn.
pub const cookie_replies_max = 64;

/// The protocol without its I/O: the caller has the sockets, the clock and the cipher. Calls are of five kinds.
///
/// - A packet goes out: `route` finds its peer. `reserve` answers with a ticket: seal by it and send to its endpoint.
///   Or it answers `.stage`: give the packet to `stage`.
/// - A datagram comes in: `prepareOpen` answers with a ticket: open by it and give what comes out to `finishOpen`,
///   which says whether to deliver it. Or it answers `.handshake`: give the datagram to `handleHandshake`.
/// - Time passes: `deadline` tells when, and `expire` lets happen what is due.
/// - The configuration or the link changes: `configure`, `setActive`, `forgetSources`. The host is a copy:
///   `renewSessions`.
/// - `pollTransmit` writes what the protocol itself wants sent: handshakes, keepalives and staged packets. None of the
///   others sends. So after any of them, call it until it answers null; then ask for the `deadline` again.
///
/// One thread at a time. `now` must not go back; it may stand still.
pub const Interface = struct {
    gpa: Allocator,
    entropy: Entropy,
    jitter: std.Random.DefaultPrng,
    mtu: u32,
    index_shards: u8,
    /// Link up: timers run and packets flow.
    is_active: bool = false,

    local: ?noise.Local = null,
    listen_port: u16 = 0,
    fwmark: u32 = 0,
    /// Only kept here, for who has the sockets.
    binding: wire.Binding = .{},

    peers: SegmentedArray(Peer, 64) = .{},
    sessions: session.Pool = .{},
    /// By the same indices; apart from what packets touch. A segment is whole pages.
    attempts: SegmentedArray(Attempts, 1024) = .{},
    /// Indices below this have been used; those that are free again are in `free_peers`.
    peer_high: u32 = 0,
    free_peers: std.ArrayList(u32) = .empty,
    peer_count: u32 = 0,
    /// In the order in which they came.
    first_peer: u32 = wishes.none,
    last_peer: u32 = wishes.none,
    by_key: peer_table.PeerTable,
    by_index: index_table.IndexTable = .init,
    allowed_ips: allowed_ips.AllowedIps = .init,
    staging_pool: staging.Pool,
    deadlines: deadlines_file.Deadlines = .init,

    checker: cookie.Checker,
    limiter: rate_limiter.RateLimiter,
    load: load.Load,
    cookie_replies: [cookie_replies_max]CookieOut = undefined,
    cookie_reply_first: usize = 0,
    cookie_reply_count: usize = 0,
    queues: wishes.Queues = .{},

    counters: drop.Counters = .{},
    notices: notices_file.Notices = .{},
    looks: trouble.Looks = .{},
    /// The caller's, who reads it; null when nobody does.
    events: ?*events_file.Ring = null,

    // ---- life ----

    pub fn init(options: Options) error{ OutOfMemory, EntropyUnavailable }!Interface {
        var seed: [40]u8 = undefined;
        assert(options.index_shards > 0);
        if (!options.entropy.fill(&seed)) return error.EntropyUnavailable;
        defer crypto.zero(&seed);
        const gpa = options.allocator;
        const limiter_entries = try untouched.alloc(rate_limiter.Entry, gpa, rate_limiter.RateLimiter.entries_max);
        errdefer untouched.free(gpa, limiter_entries);
        return .{
            .gpa = gpa,
            .entropy = options.entropy,
            .jitter = .init(std.mem.readInt(u64, seed[32..40], .little)),
            .mtu = options.mtu,
            .index_shards = options.index_shards,
            .by_key = .init(seed[16..32].*),
            .staging_pool = try .init(gpa, options.staging_chunks),
            .checker = cookie.Checker.init,
            .limiter = .init(limiter_entries, seed[0..16]),
            .load = .init(options.curve_ns),
        };
    }

    pub fn deinit(interface: *Interface) void {
        const gpa = interface.gpa;
        for (0..interface.peer_high) |i| {
            const peer = interface.peers.at(i);
            _ = peer.sessions.clear(&interface.sessions);
            crypto.zero(peer);
        }
        interface.peers.deinit(gpa);
        interface.attempts.deinit(gpa);
        interface.sessions.deinit(gpa);
        interface.free_peers.deinit(gpa);
        interface.by_key.deinit(gpa);
        interface.by_index.deinit(gpa);
        interface.allowed_ips.deinit(gpa);
        interface.staging_pool.deinit(gpa);
        interface.deadlines.deinit(gpa);
        untouched.free(gpa, interface.limiter.entries);
        crypto.zero(interface);
    }

    // ---- control plane: interface/control.zig ----

    pub const ConfigureError = control.Error;
    pub const configure = control.configure;
    pub const ConfigureSteps = control.Steps;
    pub const writeConfiguration = control.write;
    pub const Answer = control.Answer;
    pub const countersOf = control.counters;
    pub const traceOf = control.trace;
    pub const requestHandshake = control.requestHandshake;
    pub const setActive = control.setActive;
    pub const joinPeers = control.joinPeers;
    pub const renewSessions = renewal.renewSessions;

    // ---- to another process: interface/handover.zig ----

    pub const Sizes = handover.Sizes;
    pub const handOverSizes = handover.sizes;
    pub const writeAll = handover.write;
    pub const reserveFor = handover.reserve;
    pub const readAll = handover.read;

    // ---- handshakes and timers: interface/handshakes.zig ----

    pub const handleHandshake = handshakes.handle;
    pub const expire = handshakes.expire;
    pub const pollTransmit = handshakes.pollTransmit;
    pub const pollCookieReply = handshakes.pollCookieReply;

    // ---- the same in slices, for who has other things to do ----

    pub const expireSome = handshakes.expireSome;
    pub const pollUrgent = handshakes.pollUrgent;
    pub const wantsUrgent = handshakes.wantsUrgent;
    pub const beginInitiation = handshakes.beginInitiation;
    pub const finishInitiation = handshakes.finishInitiation;
    pub const wantsInitiation = handshakes.wantsInitiation;

    /// When `expire` is next due.
    pub fn deadline(interface: *const Interface) ?Instant {
        const first = interface.deadlines.min() orelse return null;
        return .{ .ns = first.deadline };
    }

    // ---- out: an inner packet finds its peer, then a nonce ----

    /// The peer whose allowed IPs hold the packet's destination.
    pub fn route(interface: *Interface, packet: []const u8) union(enum) { peer: PeerId, drop: Drop } {
        const index = interface.lookupOutgoing(packet) catch {
            interface.counters.add(.malformed_outgoing, 1);
            return .{ .drop = .malformed_outgoing };
        } orelse {
            const reason: Drop = if (wire.ip.isToGroup(packet)) .multicast else .no_peer;
            interface.counters.add(reason, 1);
            return .{ .drop = reason };
        };
        if (interface.isOwnDatagram(index, packet)) {
            interface.counters.add(.routing_loop, 1);
            return .{ .drop = .routing_loop };
        }
        return .{ .peer = interface.idOf(index) };
    }

    /// Whether this is what we sealed for that very peer: its endpoint is routed into the tunnel. Sealed again and
    /// again it would keep a core busy for as long as the session lives. Another peer's is nothing bad: a tunnel in a
    /// tunnel.
    fn isOwnDatagram(interface: *const Interface, index: u32, packet: []const u8) bool {
        const payload = wire.ip.udpPayload(packet) orelse return false;
        if (payload.len < @sizeOf(messages.TransportHeader)) return false;
        const header: *const messages.TransportHeader = @ptrCast(payload.ptr);
        if (header.kind != @backingInt(messages.Kind.transport)) return false;
        const current = interface.peers.at(index).sessions.currentSession(&interface.sessions) orelse return false;
        return std.mem.readInt(u32, &header.receiver, .little) == current.remote_index;
    }

    fn lookupOutgoing(interface: *Interface, packet: []const u8) error{Malformed}!?u32 {
        if (packet.len == 0) return error.Malformed;
        switch (packet[0] >> 4) {
            4 => {
                if (packet.len < 20) return error.Malformed;
                return interface.allowed_ips.lookupBytes(.ipv4, packet[16..20]);
            },
            6 => {
                if (packet.len < 40) return error.Malformed;
                return interface.allowed_ips.lookupBytes(.ipv6, packet[24..40]);
            },
            else => return error.Malformed,
        }
    }

    /// Reserves nonces for `count` packets to one peer; `.stage` when there is no session to send them by. `bytes` are
    /// those of their datagrams, which are counted as sent now: statistics, timers, a rekey if it is time.
    pub fn reserve(interface: *Interface, id: PeerId, count: u32, bytes: u64, now: Now) Reserved {
        assert(count > 0);
        const peer = interface.get(id) orelse return interface.refuseReserved(.peer_removed, count);
        if (peer.endpoint == null) {
            interface.attempts.at(id.index).drop(.no_endpoint, count);
            return interface.refuseReserved(.no_endpoint, count);
        }
        if (peer.staged.packets != 0) return .stage; // those that wait go first
        const ticket = interface.sessionForSending(peer, id, count, now) orelse return .stage;
        interface.noteSent(peer, id.index, bytes, true, now);
        return .{ .seal = ticket };
    }

    /// Later nonces for `count` packets that were sealed by `ticket` and not sent, for a sender that was held up: more
    /// than `distance_max` of the session were reserved since, and what comes so late is a replay to the receiver. The
    /// old ones are given up, and what was counted is not counted again. Null when they are not late, or no longer of
    /// the session that is sent by: then they go as they are. `key`: the one they were sealed by.
    pub fn reserveAgain(
        interface: *Interface,
        ticket: *const SealTicket,
        key: *const [32]u8,
        count: u32,
        distance_max: u64,
        now: Now,
    ) ?u64 {
        const peer = interface.get(ticket.peer) orelse return null;
        const current = peer.sessions.currentSession(&interface.sessions) orelse return null;
        // The index is the other end's, which may choose the same for the next session: only the key tells.
        if (!crypto.eql32(&current.sending_key, key)) return null;
        assert(ticket.counter + count <= current.send_counter);
        if (current.send_counter - (ticket.counter + count) <= distance_max) return null;
        return current.reserve(count, now.boot);
    }

    fn refuseReserved(interface: *Interface, reason: Drop, count: u32) Reserved {
        interface.counters.add(reason, count);
        return .{ .drop = reason };
    }

    /// The peer has an endpoint.
    pub fn sessionForSending(interface: *Interface, peer: *Peer, id: PeerId, count: u32, now: Now) ?SealTicket {
        const current = peer.sessions.currentSession(&interface.sessions) orelse return null;
        const counter = current.reserve(count, now.boot) orelse return null;
        return .{
            .peer = id,
            .receiver_index = current.remote_index,
            .counter = counter,
            .key = &current.sending_key,
            .endpoint = &peer.endpoint.?,
        };
    }

    /// Keeps a copy of the packet until `pollTransmit` finds a session for it, or asks for one. False when it was
    /// dropped, and counted as such: it is longer than all the room that there is for it, or its peer is gone.
    pub fn stage(interface: *Interface, id: PeerId, packet: []const u8) bool {
        const peer = interface.get(id) orelse {
            interface.counters.add(.peer_removed, 1);
            return false;
        };
        const result = interface.staging_pool.push(&peer.staged, packet);
        const lost = result.dropped + @intFromBool(!result.stored);
        interface.counters.add(.staging_full, lost);
        if (lost != 0) interface.attempts.at(id.index).drop(.staging_full, lost);
        // This one is lost, but the next must find a session.
        if (!result.stored) handshakes.requestKeepalive(interface, id.index);
        handshakes.requestStaged(interface, id.index);
        return result.stored;
    }

    /// What follows from sending transport data: statistics, timers, a rekey if it is time.
    pub fn noteSent(interface: *Interface, peer: *Peer, index: u32, bytes: u64, has_data: bool, now: Now) void {
        peer.tx_bytes += bytes;
        peer.timers.anyAuthenticatedPacketTraversal(now.boot);
        peer.timers.anyAuthenticatedPacketSent();
        if (has_data) peer.timers.dataSent(now.boot, interface.nextJitter());
        if (peer.sessions.currentSession(&interface.sessions)) |current| {
            if (current.wantsRekeyAfterSend(now.boot)) handshakes.requestInitiation(interface, index, now, .first);
        }
        interface.reschedule(index);
    }

    // ---- in: a datagram finds its session, then its packet a peer ----

    pub fn prepareOpen(interface: *Interface, datagram: []const u8, now: Now) Open {
        const kind = messages.classify(datagram) orelse return interface.refuseOpen(.malformed);
        if (kind != .transport) return .handshake;
        const header: *const messages.TransportHeader = @ptrCast(datagram.ptr);
        const receiver_index = std.mem.readInt(u32, &header.receiver, .little);
        const entry = interface.by_index.lookup(receiver_index) orelse return interface.refuseOpen(.unknown_index);
        if (entry.kind != .session) return interface.refuseOpen(.unknown_index);
        const candidate = interface.sessions.at(entry.slot);
        assert(candidate.local_index == receiver_index);
        const counter = std.mem.readInt(u64, &header.counter, .little);
        if (!candidate.mayReceive(counter, now.boot)) return interface.refuseOpen(.expired_session);
        return .{ .open = .{
            .peer = entry.peer,
            .slot = entry.slot,
            .receiver_index = receiver_index,
            .counter = counter,
            .key = &candidate.receiving_key,
        } };
    }

    fn refuseOpen(interface: *Interface, reason: Drop) Open {
        interface.counters.add(reason, 1);
        return .{ .drop = reason };
    }

    /// `plaintext` is the opened message with its padding; null when the tag was wrong.
    pub fn finishOpen(
        interface: *Interface,
        ticket: OpenTicket,
        plaintext: ?[]u8,
        from: *const wire.Endpoint,
        now: Now,
    ) Opened {
        const inner = plaintext orelse return interface.refuseOpened(.not_authentic);
        const peer = interface.get(ticket.peer) orelse return interface.refuseOpened(.peer_removed);
        const index = ticket.peer.index;
        const sessions = &peer.sessions;
        // The session may have been retired by an earlier packet of this batch.
        if (!sessions.holds(ticket.slot)) return interface.refuseOpened(.expired_session);
        const opened_by = interface.sessions.at(ticket.slot);
        if (opened_by.local_index != ticket.receiver_index) return interface.refuseOpened(.expired_session);
        if (!opened_by.window.commit(ticket.counter)) return interface.refuseOpened(.replayed);

        interface.roam(peer, from);
        if (sessions.isNext(ticket.slot)) interface.confirmSession(peer, index, now);
        interface.noteReceived(peer, index, inner.len, now);
        const opened: Opened = if (inner.len == 0) .keepalive else interface.admit(ticket.peer, inner, now);
        // As in the kernel: what is refused for what it holds is not counted as received.
        if (opened != .drop) peer.rx_bytes += inner.len + messages.transport_overhead;
        return opened;
    }

    fn refuseOpened(interface: *Interface, reason: Drop) Opened {
        interface.counters.add(reason, 1);
        return .{ .drop = reason };
    }

    /// The peer is where its last authentic packet came from.
    pub fn roam(interface: *Interface, peer: *Peer, from: *const wire.Endpoint) void {
        if (peer.endpoint) |*known| if (known.eql(from.*)) return; // nearly always
        interface.follow(peer, from);
    }

    /// Apart, so that what each packet asks stays short.
    noinline fn follow(interface: *Interface, peer: *Peer, from: *const wire.Endpoint) void {
        var has_moved = true;
        if (peer.endpoint) |*known| {
            if (!known.remote.eql(from.remote)) {
                peer.shunned = null;
            } else {
                has_moved = false; // it spoke to another of our addresses
                if (from.source) |source| if (peer.shuns(source)) return;
            }
        }
        peer.endpoint = from.*;
        if (has_moved) interface.note(.{ .endpoint = .{ .peer = peer.remote.static, .remote = from.remote } });
    }

    /// The kernel no longer sends from the source that the peer last spoke to.
    pub fn forgetSource(interface: *Interface, id: PeerId) void {
        const peer = interface.get(id) orelse return;
        peer.clearSource();
    }

    /// Other sockets, another mark: all may be learnt anew.
    pub fn forgetAllSources(interface: *Interface) void {
        for (0..interface.peer_high) |i| {
            const peer = interface.peers.at(i);
            if (!peer.in_use) continue;
            peer.shunned = null;
            peer.clearSource();
        }
    }

    /// Routes changed: forgets the sources that `isStale` names. What the peer sends to them until it has followed us
    /// to another must not bring them back: each would call the other back for ever.
    /// Looks at up to `count` peers; answers the number of the next one to look at, or null at the end.
    pub fn forgetSources(
        interface: *Interface,
        first: u32,
        count: u32,
        context: anytype,
        comptime isStale: fn (@TypeOf(context), *const wire.Endpoint) bool,
    ) ?u32 {
        const end = @min(first +| count, interface.peer_high);
        for (@min(first, end)..end) |i| {
            const peer = interface.peers.at(i);
            if (!peer.in_use) continue;
            const endpoint = &(peer.endpoint orelse continue);
            if (peer.shunned) |source| {
                if (!isStale(context, &.{ .remote = endpoint.remote, .source = source })) peer.shunned = null;
            }
            if (endpoint.source == null or !isStale(context, endpoint)) continue;
            peer.shunned = endpoint.source;
            peer.clearSource();
        }
        return if (end < interface.peer_high) end else null;
    }

    fn confirmSession(interface: *Interface, peer: *Peer, index: u32, now: Now) void {
        peer.sessions.confirm();
        handshakes.abandonInitiation(interface, peer); // there is a session, and its ephemeral key need not be kept
        handshakes.noteSession(interface, peer, index, now);
        handshakes.requestStaged(interface, index);
    }

    fn noteReceived(interface: *Interface, peer: *Peer, index: u32, inner_length: usize, now: Now) void {
        if (peer.sessions.currentSession(&interface.sessions)) |current| {
            if (!peer.timers.sent_lastminute_handshake and current.wantsRekeyAfterReceive(now.boot)) {
                peer.timers.sent_lastminute_handshake = true;
                handshakes.requestInitiation(interface, index, now, .first);
            }
        }
        peer.timers.anyAuthenticatedPacketReceived();
        peer.timers.noteHeard(now.boot);
        peer.timers.anyAuthenticatedPacketTraversal(now.boot);
        if (inner_length != 0) peer.timers.dataReceived(now.boot);
        interface.reschedule(index);
    }

    /// Cryptokey routing (section 2): the source must be this very peer's, by longest match.
    fn admit(interface: *Interface, id: PeerId, inner: []u8, now: Now) Opened {
        const packet = wire.ip.Packet.parse(inner) orelse return interface.refuseOpened(.malformed_inner);
        const source = packet.source();
        const owner = interface.allowed_ips.lookup(&source);
        if (owner == null or owner.? != id.index) {
            trouble.noteDisallowed(interface, id.index, source, now);
            return interface.refuseOpened(.disallowed_source);
        }
        return .{ .deliver = inner[0..packet.bytes.len] };
    }

    // ---- what a user should be told: notices.zig, attempts.zig ----

    pub const noteUnreachable = trouble.noteUnreachable;
    pub const noteNotSent = trouble.noteNotSent;
    pub const noteHole = trouble.noteHole;
    pub const noteUnroutable = trouble.noteUnroutable;

    // ---- shared by the parts ----

    pub fn note(interface: *Interface, event: events_file.Event) void {
        if (interface.events) |ring| ring.note(event);
    }

    pub fn get(interface: *const Interface, id: PeerId) ?*Peer {
        if (id.index >= interface.peer_high) return null;
        const peer = interface.peers.at(id.index);
        return if (peer.in_use and peer.generation == id.generation) peer else null;
    }

    pub fn idOf(interface: *const Interface, index: u32) PeerId {
        return .{ .index = index, .generation = interface.peers.at(index).generation };
    }

    pub fn forgetIndices(interface: *Interface, indices: []const u32) void {
        for (indices) |index| _ = interface.by_index.remove(index);
    }

    /// Brings the heap up to date. Later deadlines are left to be found out when the old one fires.
    pub fn reschedule(interface: *Interface, index: u32) void {
        const peer = interface.peers.at(index);
        const next = peer.timers.deadline();
        if (!next.isBefore(peer.heap_deadline)) return;
        peer.heap_deadline = next;
        interface.deadlines.set(index, next.ns);
    }

    pub fn nextJitter(interface: *Interface) u64 {
        return interface.jitter.random().uintLessThan(u64, constants.REKEY_TIMEOUT_JITTER_MAX);
    }
};
