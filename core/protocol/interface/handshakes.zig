//! The cold half of Interface: handshake messages in (whitepaper sections 5.3, 5.4), timers (section 6),
//! and what the protocol itself wants sent. Replies leave by `pollTransmit`, never from here.
//! Invariant: a forged or replayed message changes nothing but a counter.
const std = @import("std");
const assert = @import("wire").assert;
const wire = @import("wire");
const messages = wire.messages;
const constants = @import("../constants.zig");
const cookie_file = @import("../cookie.zig");
const crypto = @import("../crypto.zig");
const Drop = @import("../drop.zig").Drop;
const interface_file = @import("../interface.zig");
const Interface = interface_file.Interface;
const Transmit = interface_file.Transmit;
const load_file = @import("../load.zig");
const noise = @import("../noise.zig");
const Peer = @import("../peer.zig").Peer;
const time = @import("../time.zig");
const timers = @import("../timers.zig");
const trouble = @import("trouble.zig");
const wishes = @import("../wishes.zig");
const Now = time.Now;

// ---- in ----

/// Takes an initiation, response or cookie reply. Answers why it was dropped, or null.
pub fn handle(
    interface: *Interface,
    datagram: []const u8,
    from: *const wire.Endpoint,
    demand: Demand,
    now: Now,
) ?Drop {
    const reason = route(interface, datagram, from, demand, now) orelse return null;
    interface.counters.add(reason, 1);
    const is_for_another = reason == .invalid_mac1 and interface.local != null;
    if (is_for_another and messages.classify(datagram) == .initiation) {
        trouble.noteStranger(interface, null, from, now);
    }
    return reason;
}

fn route(interface: *Interface, datagram: []const u8, from: *const wire.Endpoint, demand: Demand, now: Now) ?Drop {
    switch (messages.classify(datagram) orelse return .malformed) {
        .transport => return .malformed,
        .cookie_reply => return consumeCookieReply(interface, @ptrCast(datagram.ptr), now),
        .initiation, .response => {},
    }
    const local = if (interface.local) |*local| local else return .invalid_mac1;
    // First of all and without any secret: who does not know our public key costs us one hash, and is no load.
    if (!interface.checker.checkMac1(datagram)) return .invalid_mac1;
    return switch (messages.classify(datagram).?) {
        .transport, .cookie_reply => unreachable,
        .initiation => consumeInitiation(interface, local, datagram, from, demand, now),
        .response => consumeResponse(interface, local, datagram, from, demand, now),
    };
}

// ---- in: who pays ----

/// When a handshake message has to show a cookie.
pub const Demand = enum {
    never,
    always,
    /// When those without one have used up what `Load` allows them; and then those with one have an allowance, too.
    under_load,
};

const Admitted = union(enum) { by: load_file.Payer, drop: Drop };

/// Whether a message with a right MAC1 is worth so many curve operations; if so, they are charged.
fn admit(
    interface: *Interface,
    datagram: []const u8,
    operations: u64,
    from: *const wire.Endpoint,
    demand: Demand,
    now: Now,
) Admitted {
    switch (demand) {
        .never => return .{ .by = .none },
        .always => {},
        .under_load => if (interface.load.allows(.unproven, now.boot)) {
            interface.load.charge(.unproven, operations, now.boot);
            return .{ .by = .unproven };
        },
    }
    if (!showsCookie(interface, datagram, from, demand, now)) return .{ .drop = .cookie_required };
    const payer: load_file.Payer = if (demand == .under_load) .proven else .none;
    if (!interface.load.allows(payer, now.boot)) return .{ .drop = .overloaded };
    if (!interface.limiter.allow(from.remote.address, now.boot)) return .{ .drop = .rate_limited };
    interface.load.charge(payer, operations, now.boot);
    return .{ .by = payer };
}

/// Whether the message has a right MAC2. If not, a cookie reply is sent, unless there are too many already.
fn showsCookie(
    interface: *Interface,
    datagram: []const u8,
    from: *const wire.Endpoint,
    demand: Demand,
    now: Now,
) bool {
    const claims_one = cookie_file.hasMac2(datagram);
    // Most of a flood ends here, for no more than MAC1.
    if (!claims_one and !mayReply(interface, demand, now)) return false;
    if (!refreshSecret(interface, now)) return false;
    var cookie = interface.checker.makeCookie(&from.remote);
    defer crypto.zero(&cookie);
    if (claims_one) {
        if (cookie_file.checkMac2(datagram, &cookie)) return true;
        if (!mayReply(interface, demand, now)) return false;
    }
    replyWithCookie(interface, datagram, from, &cookie);
    return false;
}

/// Whether there is room for one more cookie reply, which then is sent.
fn mayReply(interface: *Interface, demand: Demand, now: Now) bool {
    if (interface.cookie_reply_count == interface.cookie_replies.len) return false; // it will ask again
    return demand != .under_load or interface.load.takeReply(now.boot);
}

/// False when the secret is due, and there is no randomness for another.
fn refreshSecret(interface: *Interface, now: Now) bool {
    if (!interface.checker.needsSecret(now.boot)) return true;
    var fresh: cookie_file.Fresh = .{};
    defer fresh.zero();
    if (!interface.entropy.fill(&fresh.secret) or !interface.entropy.fill(&fresh.nonce_prefix)) return false;
    interface.checker.refresh(&fresh, now.boot);
    return true;
}

fn replyWithCookie(
    interface: *Interface,
    datagram: []const u8,
    from: *const wire.Endpoint,
    cookie: *const [16]u8,
) void {
    assert(interface.cookie_reply_count < interface.cookie_replies.len);
    const place = (interface.cookie_reply_first + interface.cookie_reply_count) % interface.cookie_replies.len;
    const out = &interface.cookie_replies[place];
    out.endpoint = from.*;
    const receiver_index = std.mem.readInt(u32, datagram[4..8], .little); // the sender of either message
    interface.checker.createReply(&out.message, datagram, cookie, receiver_index);
    interface.cookie_reply_count += 1;
}

// ---- in: what a message does ----

fn consumeCookieReply(interface: *Interface, message: *const messages.CookieReply, now: Now) ?Drop {
    const receiver_index = std.mem.readInt(u32, &message.receiver, .little);
    const entry = interface.by_index.lookup(receiver_index) orelse return .unknown_index;
    const peer = interface.get(entry.peer) orelse return .unknown_index;
    // It does not move the endpoint: anyone who saw our initiation could have sent it.
    if (!peer.cookie_maker.consumeReply(message, now.boot)) return .invalid_cookie_reply;
    // A response cannot be sent again: its initiator begins anew.
    if (entry.kind == .handshake) {
        trouble.noteLoad(interface, entry.peer.index);
        peer.timers.cookieReceived(now.boot, interface.nextJitter());
        interface.reschedule(entry.peer.index);
    }
    return null;
}

fn consumeInitiation(
    interface: *Interface,
    local: *const noise.Local,
    datagram: []const u8,
    from: *const wire.Endpoint,
    demand: Demand,
    now: Now,
) ?Drop {
    const payer = switch (admit(interface, datagram, load_file.operations_of_initiation, from, demand, now)) {
        .by => |payer| payer,
        .drop => |reason| return reason,
    };
    const message: *const messages.Initiation = @ptrCast(datagram.ptr);
    var opened = noise.openInitiation(local, message) orelse return .invalid_handshake;
    defer opened.zero();
    const index = interface.by_key.find(&opened.static) orelse {
        trouble.noteStranger(interface, &opened.static, from, now);
        return .unknown_peer;
    };
    const peer = interface.peers.at(index);
    var timestamp: time.Timestamp = undefined;
    peer.remote.agree(local);
    if (!noise.finishInitiation(&opened, &peer.remote, message, &timestamp)) return .invalid_handshake;
    if (!time.isLater(timestamp, peer.latest_timestamp)) {
        trouble.noteRefused(interface, index, .old_timestamp, from.remote, now);
        return .replayed_initiation;
    }
    if (now.boot.isBefore(peer.initiations_admitted_from)) return .initiation_flood;
    interface.load.charge(payer, load_file.operations_of_answer, now.boot);
    peer.latest_timestamp = timestamp;
    peer.initiations_admitted_from = now.boot.after(std.time.ns_per_s / constants.INITIATIONS_PER_SECOND);
    peer.answer.acceptInitiation(&opened, message);
    // Without randomness there may be no answer, and so no session whose end would forget this.
    if (!peer.timers.isPending(.zero_key_material)) {
        peer.timers.arm(.zero_key_material, now.boot, constants.REJECT_AFTER_TIME * 3);
    }
    peer.pending.response = true; // and goes before our own initiation, which then is too soon
    noteAuthenticated(interface, peer, index, @sizeOf(messages.Initiation), from, now);
    enqueue(interface, index);
    return null;
}

fn consumeResponse(
    interface: *Interface,
    local: *const noise.Local,
    datagram: []const u8,
    from: *const wire.Endpoint,
    demand: Demand,
    now: Now,
) ?Drop {
    const message: *const messages.Response = @ptrCast(datagram.ptr);
    const receiver_index = std.mem.readInt(u32, &message.receiver, .little);
    const entry = interface.by_index.lookup(receiver_index) orelse return .unknown_index;
    if (entry.kind != .handshake) return .unknown_index;
    const peer = interface.get(entry.peer) orelse return .unknown_index;
    const index = entry.peer.index;
    // The first to each of our initiations we have asked for: it shows what only a cookie could show else, and there
    // are no more of them than we send. Further ones are somebody's on the path.
    if (demand != .under_load or peer.response_was_tried) {
        switch (admit(interface, datagram, load_file.operations_of_response, from, demand, now)) {
            .by => {},
            .drop => |reason| return reason,
        }
    }
    peer.response_was_tried = true;
    if (!peer.handshake.consumeResponse(local, &peer.remote, message)) {
        trouble.noteRefused(interface, index, .wrong_answer, from.remote, now);
        return .invalid_handshake;
    }
    noteAuthenticated(interface, peer, index, @sizeOf(messages.Response), from, now);
    forgetHandshakeIndex(interface, peer);
    beginSession(interface, peer, index, &peer.handshake, now);
    noteSession(interface, peer, index, now);
    peer.pending.initiation = false;
    peer.pending.attempt = false;
    peer.pending.keepalive = true; // confirms the session to the responder, unless data does
    interface.reschedule(index);
    requestStaged(interface, index);
    return null;
}

fn noteAuthenticated(
    interface: *Interface,
    peer: *Peer,
    index: u32,
    bytes: u64,
    from: *const wire.Endpoint,
    now: Now,
) void {
    interface.roam(peer, from);
    peer.rx_bytes += bytes;
    peer.timers.anyAuthenticatedPacketReceived();
    peer.timers.noteHeard(now.boot);
    peer.timers.anyAuthenticatedPacketTraversal(now.boot);
    interface.reschedule(index);
}

/// The peer has shown that it has the session, too.
pub fn noteSession(interface: *Interface, peer: *Peer, index: u32, now: Now) void {
    peer.timers.handshakeComplete();
    peer.last_handshake_unix_ns = now.unix_ns;
    peer.is_told_stale = false;
    trouble.noteOver(interface, index, now);
    interface.note(.{ .handshake = peer.remote.static });
}

fn noteStale(interface: *Interface, peer: *Peer) void {
    if (peer.is_told_stale) return;
    peer.is_told_stale = true;
    interface.note(.{ .stale = peer.remote.static });
}

fn beginSession(interface: *Interface, peer: *Peer, index: u32, handshake: *noise.Handshake, now: Now) void {
    var keys = handshake.beginSession().?;
    defer keys.zero();
    const added = peer.sessions.add(&interface.sessions, &keys, now.boot);
    interface.forgetIndices(added.retired.slice());
    interface.by_index.insertAssumeCapacity(keys.local_index, .{
        .peer = interface.idOf(index),
        .kind = .session,
        .slot = added.slot,
    });
    peer.timers.sessionDerived(now.boot);
    interface.reschedule(index);
}

// ---- timers ----

/// Lets every timer that is due fire.
pub fn expire(interface: *Interface, now: Now) void {
    expireSome(interface, std.math.maxInt(u32), now);
}

/// Those of `peers_max` peers, the earliest first. With more of them due, `deadline` goes on to say so.
pub fn expireSome(interface: *Interface, peers_max: u32, now: Now) void {
    for (0..peers_max) |_| {
        const first = interface.deadlines.min() orelse return;
        if (now.boot.ns < first.deadline) return;
        const peer = interface.peers.at(first.peer);
        interface.deadlines.remove(first.peer);
        peer.heap_deadline = .never;
        while (peer.timers.expired(now.boot)) |kind| fire(interface, peer, first.peer, kind, now);
        interface.reschedule(first.peer);
    }
}

fn fire(interface: *Interface, peer: *Peer, index: u32, kind: timers.Kind, now: Now) void {
    switch (kind) {
        .retransmit_handshake => switch (peer.timers.cookie_retry) {
            .due => retryWithCookie(interface, peer, index, now),
            .unused, .spent => retransmitOrGiveUp(interface, peer, index, now),
        },
        .send_keepalive => {
            requestKeepalive(interface, index);
            if (peer.timers.need_another_keepalive) {
                peer.timers.need_another_keepalive = false;
                peer.timers.arm(.send_keepalive, now.boot, constants.KEEPALIVE_TIMEOUT);
            }
        },
        .new_handshake => {
            peer.clearSource();
            interface.attempts.at(index).is_silent = true;
            requestInitiation(interface, index, now, .first);
        },
        .zero_key_material => {
            // Without a session it was the end of attempts, which was told.
            if (peer.sessions.current != null) noteStale(interface, peer);
            clearKeys(interface, peer);
        },
        .persistent_keepalive => if (peer.timers.persistent_keepalive_interval != 0) requestKeepalive(interface, index),
    }
}

/// The responder was under load, and has sent a cookie: this is no further attempt, but the same one, and so it neither
/// waits for REKEY_TIMEOUT nor counts.
fn retryWithCookie(interface: *Interface, peer: *Peer, index: u32, now: Now) void {
    peer.timers.cookie_retry = .spent;
    // Unless we have answered an initiation of the peer's meanwhile: then there is a session soon.
    if (peer.sessions.next == null) peer.timers.last_sent_handshake = null;
    requestInitiation(interface, index, now, .retry);
}

fn retransmitOrGiveUp(interface: *Interface, peer: *Peer, index: u32, now: Now) void {
    peer.timers.cookie_retry = .unused;
    if (peer.timers.handshake_attempts <= constants.MAX_TIMER_HANDSHAKES) {
        peer.timers.handshake_attempts += 1;
        peer.clearSource();
        return requestInitiation(interface, index, now, .retry);
    }
    peer.timers.cancel(.send_keepalive);
    const given_up = interface.staging_pool.clear(&peer.staged);
    interface.counters.add(.handshake_gave_up, given_up);
    if (given_up != 0) interface.attempts.at(index).drop(.handshake_gave_up, given_up);
    noteStale(interface, peer);
    if (!peer.timers.isPending(.zero_key_material)) {
        peer.timers.arm(.zero_key_material, now.boot, constants.REJECT_AFTER_TIME * 3);
    }
}

/// Forgets handshakes and sessions of a peer.
pub fn clearKeys(interface: *Interface, peer: *Peer) void {
    clearHandshakes(interface, peer);
    const retired = peer.sessions.clear(&interface.sessions);
    interface.forgetIndices(retired.slice());
}

pub fn clearHandshakes(interface: *Interface, peer: *Peer) void {
    abandonInitiation(interface, peer);
    peer.answer.clear();
}

/// Our initiation is no longer needed, or no longer good: its response will find nothing.
pub fn abandonInitiation(interface: *Interface, peer: *Peer) void {
    forgetHandshakeIndex(interface, peer);
    peer.handshake.clear();
}

fn forgetHandshakeIndex(interface: *Interface, peer: *Peer) void {
    if (peer.handshake_index) |old| _ = interface.by_index.remove(old);
    peer.handshake_index = null;
    peer.response_was_tried = false;
}

// ---- wishes ----

/// Puts a peer into the queues of all that is to be sent for it.
pub fn enqueue(interface: *Interface, index: u32) void {
    interface.queues.enqueue(&interface.peers, index);
}

/// What was staged is to go out now: there may be a session, or else one is asked for.
pub fn requestStaged(interface: *Interface, index: u32) void {
    const peer = interface.peers.at(index);
    if (peer.staged.packets != 0) wish(peer, .staged);
    enqueue(interface, index);
}

/// What takes a session waits for it elsewhere: the queues of what can be sent stay short, however many peers have
/// none.
fn wish(peer: *Peer, what: wishes.Wish) void {
    if (peer.sessions.current != null) return peer.pending.put(what, true);
    peer.timers.handshake_attempts = 0;
    wishInitiation(peer, .first);
}

/// Of thousands that do not answer none comes before one for whom something waits.
fn wishInitiation(peer: *Peer, attempt: Attempt) void {
    const is_awaited = attempt == .first and (peer.staged.packets != 0 or peer.sessions.current != null);
    peer.pending.put(if (is_awaited) .initiation else .attempt, true);
}

const Attempt = enum { first, retry };

/// A new handshake, as soon as it is allowed.
pub fn requestInitiation(interface: *Interface, index: u32, now: Now, attempt: Attempt) void {
    const peer = interface.peers.at(index);
    if (attempt == .first) peer.timers.handshake_attempts = 0;
    if (postponeInitiation(interface, peer, index, now)) return;
    wishInitiation(peer, attempt);
    enqueue(interface, index);
}

/// True when we began or answered a handshake less than REKEY_TIMEOUT ago. The wish is then left to the retransmission
/// timer: a response of ours that got lost has none, and what is staged would wait for ever.
fn postponeInitiation(interface: *Interface, peer: *Peer, index: u32, now: Now) bool {
    const last = peer.timers.last_sent_handshake orelse return false;
    if (now.boot.since(last) >= constants.REKEY_TIMEOUT) return false;
    if (!peer.timers.isPending(.retransmit_handshake)) {
        peer.timers.handshakeInitiated(last, interface.nextJitter());
        interface.reschedule(index);
    }
    return true;
}

pub fn requestKeepalive(interface: *Interface, index: u32) void {
    wish(interface.peers.at(index), .keepalive);
    enqueue(interface, index);
}

// ---- out ----

/// What `pollUrgent` may do before the caller looks after other things.
pub const Budget = struct {
    /// Peers to look at. Each takes at most one datagram.
    looks: u32,
    /// Answers to initiations, each of which takes three operations on the curve.
    responses: u32,

    pub const unlimited: Budget = .{ .looks = std.math.maxInt(u32), .responses = std.math.maxInt(u32) };
};

/// Writes the next datagram that the protocol itself wants sent; null when there is none.
/// `buffer` must hold the MTU and 48 bytes, and any handshake message.
pub fn pollTransmit(interface: *Interface, buffer: []u8, now: Now) ?Transmit {
    var budget: Budget = .unlimited;
    if (pollUrgent(interface, buffer, &budget, now)) |transmit| return transmit;
    var draft: Draft = undefined;
    while (beginInitiation(interface, &draft, &budget.looks, now)) {
        draft.compute(&interface.local.?);
        if (finishInitiation(interface, &draft, buffer, now)) |transmit| return transmit;
    }
    return null;
}

/// The same without initiations, and null also when the budget is spent.
pub fn pollUrgent(interface: *Interface, buffer: []u8, budget: *Budget, now: Now) ?Transmit {
    assert(buffer.len >= messages.handshake_length_max);
    if (pollCookieReply(interface, buffer)) |transmit| return transmit;
    for ([_]wishes.Wish{ .staged, .response, .keepalive }) |kind| {
        while (interface.queues.first(kind)) |index| {
            if (budget.looks == 0) return null;
            if (kind == .response) {
                if (budget.responses == 0) break;
                budget.responses -= 1;
            }
            budget.looks -= 1;
            if (fulfil(interface, kind, index, buffer, now)) |transmit| return transmit;
        }
    }
    return null;
}

/// Whether `pollUrgent` left something.
pub fn wantsUrgent(interface: *const Interface) bool {
    const queues = &interface.queues;
    return interface.cookie_reply_count != 0 or
        !queues.isEmpty(.staged) or !queues.isEmpty(.response) or !queues.isEmpty(.keepalive);
}

/// Whether `beginInitiation` left something.
pub fn wantsInitiation(interface: *const Interface) bool {
    return !interface.queues.isEmpty(.initiation) or !interface.queues.isEmpty(.attempt);
}

/// Writes the next cookie reply; null when there is none. `pollTransmit` begins with them, too; who asks for them apart
/// can send them when nothing of the interface is needed any more: they come in floods, and no order binds them.
pub fn pollCookieReply(interface: *Interface, buffer: []u8) ?Transmit {
    if (interface.cookie_reply_count == 0) return null;
    const out = &interface.cookie_replies[interface.cookie_reply_first];
    interface.cookie_reply_first = (interface.cookie_reply_first + 1) % interface.cookie_replies.len;
    interface.cookie_reply_count -= 1;
    @memcpy(buffer[0..@sizeOf(messages.CookieReply)], std.mem.asBytes(&out.message));
    return .{ .endpoint = out.endpoint, .length = @sizeOf(messages.CookieReply), .tos = 0, .peer = null };
}

/// Sends for the first peer of a queue. It keeps its place only while more of its packets wait.
fn fulfil(interface: *Interface, kind: wishes.Wish, index: u32, buffer: []u8, now: Now) ?Transmit {
    const peer = interface.peers.at(index);
    const is_wanted = peer.in_use and interface.is_active and peer.pending.has(kind);
    if (!is_wanted or peer.endpoint == null) {
        interface.queues.drop(&interface.peers, kind);
        return null;
    }
    const id = interface.idOf(index);
    const endpoint = peer.endpoint.?;
    if (kind == .response) {
        interface.queues.drop(&interface.peers, kind);
        const length = writeResponse(interface, peer, index, buffer, now) orelse return null;
        return .{ .endpoint = endpoint, .length = length, .tos = interface_file.handshake_tos, .peer = id };
    }
    const has_work = kind == .keepalive or peer.staged.packets != 0;
    const ticket = if (has_work) interface.sessionForSending(peer, id, 1, now) else null;
    if (ticket == null) interface.queues.drop(&interface.peers, kind);
    const granted = ticket orelse {
        // What is staged waits for the session; a keepalive has done its work by asking for one.
        if (has_work) requestInitiation(interface, index, now, .first);
        return null;
    };
    peer.pending.keepalive = false;
    const written = writeTransport(interface, peer, index, granted, buffer, now);
    if (kind == .keepalive or peer.staged.packets == 0) interface.queues.drop(&interface.peers, kind);
    return .{ .endpoint = endpoint, .length = written.length, .tos = written.ecn, .peer = id };
}

/// An initiation under way: what it takes is noted, then it is computed, which takes nothing but the key of our own
/// that was there when it began; at last it becomes the peer's. So others may use the Interface meanwhile. Secret.
pub const Draft = struct {
    peer: interface_file.PeerId,
    local_index: u32,
    timestamp: time.Timestamp,
    ephemeral: [32]u8,
    remote: noise.Remote,
    handshake: noise.Handshake,
    message: messages.Initiation,
    is_complete: bool,

    pub fn compute(draft: *Draft, local: *const noise.Local) void {
        draft.remote.agree(local);
        draft.is_complete = if (draft.handshake.createInitiation(
            local,
            &draft.remote,
            draft.local_index,
            &draft.ephemeral,
            &draft.timestamp,
            &draft.message,
        )) |_| true else |_| false;
    }

    pub fn zero(draft: *Draft) void {
        crypto.zero(draft);
    }
};

/// Begins the next initiation that is due; false when there is none, or `looks` peers were looked at. The draft is to
/// be computed and given to `finishInitiation`. Until then no configuration may change.
pub fn beginInitiation(interface: *Interface, draft: *Draft, looks: *u32, now: Now) bool {
    for ([_]wishes.Wish{ .initiation, .attempt }) |kind| while (interface.queues.first(kind)) |index| {
        if (looks.* == 0) return false;
        looks.* -= 1;
        const peer = interface.peers.at(index);
        const is_wanted = peer.in_use and interface.is_active and peer.pending.has(kind);
        interface.queues.drop(&interface.peers, kind);
        if (!is_wanted or peer.endpoint == null) continue;
        // Asked again: a response may have gone out since it was requested.
        if (postponeInitiation(interface, peer, index, now)) continue;
        if (begin(interface, peer, index, draft, now)) return true;
    };
    return false;
}

fn begin(interface: *Interface, peer: *Peer, index: u32, draft: *Draft, now: Now) bool {
    // Before all that can fail: what waits for this handshake must be sent or given up in the end, and the beat go on.
    peer.timers.handshakeInitiated(now.boot, interface.nextJitter());
    peer.timers.anyAuthenticatedPacketTraversal(now.boot);
    interface.reschedule(index);
    if (interface.local == null) return false;
    const timestamp = peer.nextTimestamp(now);
    const local_index = freshIndexAndEphemeral(interface, index, &draft.ephemeral) orelse return false;
    peer.timers.last_sent_handshake = now.boot;
    abandonInitiation(interface, peer);
    peer.handshake_index = local_index;
    interface.by_index.insertAssumeCapacity(local_index, .{
        .peer = interface.idOf(index),
        .kind = .handshake,
        .slot = 0,
    });
    draft.peer = interface.idOf(index);
    draft.local_index = local_index;
    draft.timestamp = timestamp;
    draft.remote = peer.remote;
    draft.handshake = .zeroed;
    draft.is_complete = false;
    return true;
}

/// Zeroes the draft. Null when there is nothing to send: the peer's key has a small order, or what it was for came
/// about in another way.
pub fn finishInitiation(interface: *Interface, draft: *Draft, buffer: []u8, now: Now) ?Transmit {
    defer draft.zero();
    const peer = interface.get(draft.peer) orelse return null;
    if (peer.handshake_index != draft.local_index) return null;
    peer.remote.agreement = draft.remote.agreement;
    peer.remote.static_static = draft.remote.static_static;
    if (!draft.is_complete or peer.endpoint == null) {
        forgetHandshakeIndex(interface, peer);
        return null;
    }
    peer.handshake = draft.handshake;
    const bytes = buffer[0..@sizeOf(messages.Initiation)];
    @memcpy(bytes, std.mem.asBytes(&draft.message));
    peer.cookie_maker.addMacs(bytes, now.boot);
    noteHandshakeSent(peer, bytes.len, now);
    trouble.noteAsked(interface, draft.peer.index, now);
    interface.reschedule(draft.peer.index);
    return .{
        .endpoint = peer.endpoint.?,
        .length = bytes.len,
        .tos = interface_file.handshake_tos,
        .peer = draft.peer,
    };
}

fn writeResponse(interface: *Interface, peer: *Peer, index: u32, buffer: []u8, now: Now) ?usize {
    if (peer.answer.state != .consumed_initiation) return null;
    var ephemeral: [32]u8 = undefined;
    defer crypto.zero(&ephemeral);
    const local_index = freshIndexAndEphemeral(interface, index, &ephemeral) orelse return null;
    peer.timers.last_sent_handshake = now.boot;
    const message: *messages.Response = @ptrCast(buffer.ptr);
    peer.answer.createResponse(&peer.remote, local_index, &ephemeral, message) catch return null;
    const bytes = buffer[0..@sizeOf(messages.Response)];
    peer.cookie_maker.addMacs(bytes, now.boot);
    beginSession(interface, peer, index, &peer.answer, now);
    noteHandshakeSent(peer, bytes.len, now);
    trouble.noteAnswered(interface, index, now);
    interface.reschedule(index);
    return bytes.len;
}

fn noteHandshakeSent(peer: *Peer, bytes: u64, now: Now) void {
    peer.tx_bytes += bytes;
    peer.timers.anyAuthenticatedPacketTraversal(now.boot);
    peer.timers.anyAuthenticatedPacketSent();
}

/// The table is never so full that more would be needed, but for a source that repeats itself.
const index_attempts = 32;

/// Null when there is no randomness: then nothing is sent.
fn freshIndexAndEphemeral(interface: *Interface, peer_index: u32, ephemeral: *[32]u8) ?u32 {
    if (!interface.entropy.fill(ephemeral)) return null;
    for (0..index_attempts) |_| {
        var bytes: [4]u8 = undefined;
        if (!interface.entropy.fill(&bytes)) return null;
        bytes[0] = inShard(bytes[0], peer_index, interface.index_shards);
        const index = std.mem.readInt(u32, &bytes, .little);
        if (!interface.by_index.contains(index)) return index;
    }
    return null;
}

/// A random byte, bent to a peer's shard.
fn inShard(random: u8, peer_index: u32, shards: u8) u8 {
    const shard: u8 = @intCast(peer_index % shards);
    const whole = random / shards * shards;
    return if (whole > 255 - shard) whole - shards + shard else whole + shard;
}

/// The oldest staged packet, or an empty one (a keepalive) when nothing is staged.
fn writeTransport(
    interface: *Interface,
    peer: *Peer,
    index: u32,
    ticket: interface_file.SealTicket,
    buffer: []u8,
    now: Now,
) struct { length: usize, ecn: u2 } {
    const is_keepalive = peer.staged.packets == 0;
    const plain_length = if (is_keepalive) 0 else interface.staging_pool.peekLength(&peer.staged).?;
    const padded = messages.paddedLength(plain_length, interface.mtu);
    const total = padded + messages.transport_overhead;
    assert(buffer.len >= total);
    const body = buffer[@sizeOf(messages.TransportHeader)..total];
    if (!is_keepalive) _ = interface.staging_pool.pop(&peer.staged, body).?;
    const ecn = if (is_keepalive) 0 else wire.ip.ecnEncapsulate(wire.ip.trafficClassOf(body));
    @memset(body[plain_length..padded], 0);
    const header: messages.TransportHeader = .init(ticket.receiver_index, ticket.counter);
    @memcpy(buffer[0..@sizeOf(messages.TransportHeader)], std.mem.asBytes(&header));
    crypto.aeadSeal(body, ticket.key, ticket.counter, body[0..padded], "");
    interface.noteSent(peer, index, total, !is_keepalive, now);
    return .{ .length = total, .ecn = ecn };
}

test "an index keeps its peer's shard, whatever the random byte" {
    for ([_]u8{ 1, 2, 3, 7, 64, 255 }) |shards| for (0..256) |random| for ([_]u32{ 0, 1, 5, 1000 }) |peer_index| {
        try std.testing.expectEqual(peer_index % shards, inShard(@intCast(random), peer_index, shards) % shards);
    };
}
