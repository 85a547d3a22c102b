//! What must hold of each datagram: when a host sends it, takes it, refuses it or delivers what it carries. Held
//! against the ledger, which knows what was sent and which sessions there were; what may take how long is in
//! bounds.zig.
//! Invariant: changes nothing but the ledger and the notes it keeps of neighbours.
const std = @import("std");
const wire = @import("wire");
const messages = wire.messages;
const protocol = @import("protocol");
const constants = protocol.constants;
const bounds = @import("bounds.zig");
const Host = @import("host.zig").Host;
const Neighbour = @import("host.zig").Neighbour;
const lanes = @import("lanes.zig");
const Opening = lanes.Opening;
const ledger_file = @import("ledger.zig");
const Error = ledger_file.Error;
const Datagram = @import("network.zig").Datagram;
const packet = @import("packet.zig");
const World = @import("world.zig").World;

const second = std.time.ns_per_s;

pub fn sent(world: *World, host: *Host, datagram: *Datagram, id: ?protocol.PeerId) Error!void {
    const ledger = &world.ledger;
    const kind = messages.classify(datagram.bytes) orelse
        return ledger.fail("host {d} sends what is no message", .{host.number});
    if (kind == .cookie_reply) return ledger.noteCookie(host.number, datagram.to);
    const place = host.neighbourOf(id.?) orelse return toSilent(world, host, id.?, kind);
    const neighbour = &host.neighbours.items[place];
    const peer = host.interface.get(id.?) orelse
        return ledger.fail("host {d} sends to a peer that it removed", .{host.number});
    if (!neighbour.present or !std.mem.eql(u8, &peer.remote.static, &neighbour.public)) {
        return ledger.fail("host {d} takes one peer for another", .{host.number});
    }
    switch (kind) {
        .cookie_reply => unreachable,
        .initiation => {
            world.stats.handshakes += 1;
            try pace(world, host, neighbour);
            neighbour.initiated_at = world.time;
            datagram.timestamp = peer.last_sent_timestamp;
            if (!protocol.time.isLater(datagram.timestamp, neighbour.sent_timestamp)) {
                return ledger.fail(
                    "host {d} shows {d} a time that is not later than the last",
                    .{ host.number, neighbour.host },
                );
            }
            neighbour.sent_timestamp = datagram.timestamp;
            const label = std.mem.readInt(u64, datagram.timestamp[0..8], .big) - 0x4000_0000_0000_000a;
            host.wall_high = @max(host.wall_high, (label + 1) * second);
            try need(world, host, place, peer);
        },
        .response => {
            const index = std.mem.readInt(u32, datagram.bytes[4..8], .little);
            datagram.psk = neighbour.psk;
            try ledger.bear(host.number, index, .{
                .at = world.time,
                .neighbour = place,
                .entry = neighbour.entry,
                .key_epoch = host.key_epoch,
                .psk = neighbour.psk,
                .is_initiator = false,
                .is_confirmed = false,
            });
        },
        .transport => {
            const receiver = std.mem.readInt(u32, datagram.bytes[4..8], .little);
            const counter = std.mem.readInt(u64, datagram.bytes[8..16], .little);
            const key = try reserved(world, host, place, receiver, counter);
            try ledger.noteNonce(host.number, key, counter);
        },
    }
    neighbour.sent_at = world.time;
}

/// One that never answers: there are only attempts, and no more of them than to any other.
fn toSilent(world: *World, host: *Host, id: protocol.PeerId, kind: messages.Kind) Error!void {
    const last = host.silentAt(id.index) orelse
        return world.ledger.fail("host {d} sends to a peer that it has not", .{host.number});
    if (kind != .initiation) {
        return world.ledger.fail("host {d} sends a {t} to a peer that has never spoken", .{ host.number, kind });
    }
    world.stats.handshakes += 1;
    if (last.*) |at| if (world.time - at < constants.REKEY_TIMEOUT) {
        return world.ledger.fail("host {d} sends a silent peer two initiations within REKEY_TIMEOUT", .{host.number});
    };
    last.* = world.time;
    const sent_timestamp = host.interface.get(id).?.last_sent_timestamp;
    const label = std.mem.readInt(u64, sent_timestamp[0..8], .big) - 0x4000_0000_0000_000a;
    host.wall_high = @max(host.wall_high, (label + 1) * second);
}

/// A datagram of a train leaves. Others may have overtaken it, but not by more than the receiver waits for.
pub fn left(world: *World, host: *Host, train: *const lanes.Train, counter: u64) Error!void {
    const ledger = &world.ledger;
    try ledger.noteNonce(host.number, &train.key, counter);
    if (!isSentBy(world, host, train)) return;
    const behind = ledger.newestNonce(&train.key) - counter;
    if (behind > lanes.distance_max + train.count) {
        return ledger.fail("host {d} sends a datagram {d} nonces after its turn", .{ host.number, behind });
    }
}

/// Whether the peer is still sent to by this train's key, so that there are later nonces to be had.
fn isSentBy(world: *const World, host: *const Host, train: *const lanes.Train) bool {
    const peer = host.interface.get(train.ticket.peer) orelse return false;
    const session = host.interface.sessions.at(peer.sessions.current orelse return false);
    if (!session.may_send or session.age(host.now(world.time).boot) >= constants.REJECT_AFTER_TIME) return false;
    if (session.send_counter + train.count > constants.REJECT_AFTER_MESSAGES) return false;
    return std.mem.eql(u8, &session.sending_key, &train.key);
}

/// Initiations are REKEY_TIMEOUT apart, but for one in between that shows a cookie.
fn pace(world: *World, host: *Host, neighbour: *Neighbour) Error!void {
    const names = .{ host.number, neighbour.host };
    const since = if (neighbour.initiated_at) |last| world.time - last else constants.REKEY_TIMEOUT;
    if (since >= constants.REKEY_TIMEOUT) {
        neighbour.cookie_retry = .unused;
        return;
    }
    if (neighbour.cookie_retry != .due) {
        return world.ledger.fail("host {d} sends two initiations to {d} within REKEY_TIMEOUT", names);
    }
    if (since < constants.COOKIE_RETRY_DELAY) {
        return world.ledger.fail("host {d} shows {d} a cookie sooner than COOKIE_RETRY_DELAY", names);
    }
    neighbour.cookie_retry = .spent;
}

/// Nothing is wrong, and a session is young: then there is no reason for another handshake. (Whose clock was set back
/// may try in vain: the peer refuses its timestamps, and its own initiations are what keeps the pair together.)
fn need(world: *World, host: *Host, place: u32, peer: anytype) Error!void {
    if (world.clocks_lie or !bounds.isQuiet(world, host, place)) return;
    const slot = peer.sessions.current orelse return;
    const birth = world.ledger.birthOf(host.number, host.interface.sessions.at(slot).local_index) orelse return;
    if (birth.worn_since != null or world.time - birth.at >= constants.REKEY_AFTER_TIME) return;
    return world.ledger.fail("host {d} shakes hands with {d} again after {d} s, for nothing", .{
        host.number, host.neighbours.items[place].host, (world.time - birth.at) / second,
    });
}

/// Nonces up to `counter` are taken, of a session that may be sent by; answers its key.
pub fn reserved(world: *World, host: *Host, place: u32, receiver: u32, counter: u64) Error!*const [32]u8 {
    const ledger = &world.ledger;
    const neighbour = &host.neighbours.items[place];
    const peer = host.interface.get(neighbour.id.?).?;
    const session = inline for (.{ peer.sessions.current, peer.sessions.next, peer.sessions.previous }) |role| {
        if (role) |slot| {
            if (host.interface.sessions.at(slot).remote_index == receiver) break host.interface.sessions.at(slot);
        }
    } else return ledger.fail(
        "host {d} sends to {d} by an index that no session has",
        .{ host.number, neighbour.host },
    );
    const birth = ledger.birthOf(host.number, session.local_index) orelse {
        return ledger.fail("host {d} sends with a session that no handshake made", .{host.number});
    };
    const age = world.time - birth.at;
    const names = .{ host.number, neighbour.host };
    if (birth.neighbour != place or birth.entry != neighbour.entry) {
        return ledger.fail("host {d} sends to {d} with a session of another peer", names);
    }
    if (birth.key_epoch != host.key_epoch) {
        return ledger.fail("host {d} sends to {d} with a session of an old private key", names);
    }
    if (!birth.is_initiator and !birth.is_confirmed) {
        return ledger.fail("host {d} sends to {d} before its session is confirmed", names);
    }
    if (age >= constants.REJECT_AFTER_TIME) {
        return ledger.fail("host {d} sends to {d} with a key past REJECT_AFTER_TIME", names);
    }
    // The counter stands one further when it is looked at.
    if (counter >= constants.REKEY_AFTER_MESSAGES and birth.worn_since == null) birth.worn_since = world.time;
    if (bounds.isQuiet(world, host, place)) try renewed(world, host, place, birth);
    return &session.sending_key;
}

/// Nothing is wrong: then no session is sent by for much longer than it should be.
fn renewed(world: *World, host: *Host, place: u32, birth: *const ledger_file.Birth) Error!void {
    const ledger = &world.ledger;
    const age = world.time - birth.at;
    const names = .{ host.number, host.neighbours.items[place].host };
    const patience = bounds.renewalTime(world, host, place);
    if (birth.is_initiator and age > constants.REKEY_AFTER_TIME + patience) {
        return ledger.fail("host {d} does not renew its session with {d}", names);
    }
    if (birth.worn_since) |since| {
        // Whoever shows a time before one it has shown is refused, so the other end renews, by the session's age.
        const is_refused = world.clocks_lie and host.number == 0;
        if (!is_refused and world.time - since > patience) {
            return ledger.fail("host {d} does not renew its worn session with {d}", names);
        }
    }
}

fn isFoundByComputing(reason: protocol.Drop) bool {
    for ([_]protocol.Drop{ .invalid_handshake, .unknown_peer, .replayed_initiation, .initiation_flood }) |each| {
        if (reason == each) return true;
    }
    return false;
}

/// What a handshake message has cost, and whether it was treated as that allows.
pub fn load(world: *World, host: *Host, kind: messages.Kind, refused: ?protocol.Drop) Error!void {
    if (host.is_loaded) return; // then it asks without a reason, and bounds nothing
    const operations: u64 = if (refused) |reason| @intFromBool(isFoundByComputing(reason)) else 4;
    const is_initiation = kind == .initiation;
    if (is_initiation or kind == .response) host.work.add(world.time, operations, is_initiation);
    const work = &host.work;
    const spent = (work.all[0] + work.all[1]) * host.curve_ns;
    if (refused == .cookie_required and spent < bounds.work_that_is_no_load) {
        return world.ledger.fail(
            "host {d} demands a cookie, although handshakes cost it no more than {d} us of late",
            .{ host.number, spent / std.time.ns_per_us },
        );
    }
    const of_initiations = (work.initiations[0] + work.initiations[1]) * host.curve_ns;
    if (of_initiations > bounds.work_max) {
        return world.ledger.fail(
            "host {d} spends {d} ms of two seconds on initiations",
            .{ host.number, of_initiations / std.time.ns_per_ms },
        );
    }
}

pub fn handshake(world: *World, host: *Host, datagram: *const Datagram, maybe_place: ?u32) Error!void {
    const ledger = &world.ledger;
    const kind = messages.classify(datagram.bytes).?;
    const names = .{ host.number, kind, datagram.author };
    if (datagram.damage == .real) return ledger.fail("host {d} takes a damaged {t} of {d}", names);
    if (datagram.damage == .mac2_only and host.is_loaded) {
        return ledger.fail("host {d} takes a {t} of {d} with a wrong MAC2 under load", names);
    }
    if (kind == .cookie_reply) {
        const neighbour = &host.neighbours.items[maybe_place orelse return];
        if (neighbour.cookie_retry == .unused) neighbour.cookie_retry = .due;
        return;
    }
    const place = maybe_place orelse return ledger.fail("host {d} takes a {t} of {d}, which is no peer", names);
    const neighbour = &host.neighbours.items[place];
    if (!neighbour.present or !std.mem.eql(u8, &neighbour.public, &datagram.author_public)) {
        return ledger.fail("host {d} takes a {t} of {d} under a key that it does not have for it", names);
    }
    if (host.is_loaded and !ledger.mayHaveCookie(host.number, datagram.from)) {
        return ledger.fail("host {d} takes a {t} of {d} under load, from where it never sent a cookie", names);
    }
    neighbour.heard_at = world.time;
    switch (kind) {
        .cookie_reply, .transport => unreachable,
        .initiation => {
            if (!protocol.time.isLater(datagram.timestamp, neighbour.latest_timestamp)) {
                return ledger.fail("host {d} takes an {t} of {d} that is not later than the last", names);
            }
            neighbour.latest_timestamp = datagram.timestamp;
        },
        .response => {
            if (!std.mem.eql(u8, &datagram.psk, &neighbour.psk)) {
                return ledger.fail("host {d} takes a {t} of {d} with another preshared key", names);
            }
            try ledger.bear(host.number, std.mem.readInt(u32, datagram.bytes[8..12], .little), .{
                .at = world.time,
                .neighbour = place,
                .entry = neighbour.entry,
                .key_epoch = host.key_epoch,
                .psk = neighbour.psk,
                .is_initiator = true,
                .is_confirmed = true,
            });
        },
    }
}

/// Refused before it was opened.
pub fn unopened(world: *World, host: *Host, datagram: *const Datagram, reason: protocol.Drop) Error!void {
    if (datagram.damage == .real) return;
    if (reason == .malformed) {
        return world.ledger.fail("host {d} finds a datagram of {d} malformed", .{ host.number, datagram.author });
    }
    if (reason != .expired_session) return;
    const index = std.mem.readInt(u32, datagram.bytes[4..8], .little);
    const birth = world.ledger.birthOf(host.number, index) orelse return;
    const counter = std.mem.readInt(u64, datagram.bytes[8..16], .little);
    if (world.time - birth.at < constants.REJECT_AFTER_TIME and counter < constants.REJECT_AFTER_MESSAGES) {
        return world.ledger.fail(
            "host {d} takes a session with {d} for expired that is not",
            .{ host.number, datagram.author },
        );
    }
}

/// Whether the datagram was taken as authentic and new.
pub fn opened(world: *World, host: *Host, opening: *const Opening, outcome: anytype) Error!bool {
    const ledger = &world.ledger;
    const datagram = opening.datagram;
    const names = .{ host.number, datagram.author };
    const was_accepted = switch (outcome) {
        .deliver, .keepalive => true,
        .drop => |reason| reason == .disallowed_source or reason == .malformed_inner,
    };
    const birth = ledger.birthOf(host.number, opening.ticket.receiver_index);
    if (!was_accepted) {
        if (outcome.drop == .replayed) try replay(world, host, opening, birth);
        if (outcome.drop == .not_authentic and opening.plain_length != null) {
            return ledger.fail("host {d} refuses an authentic datagram of {d}", names);
        }
        return false;
    }
    if (opening.plain_length == null or datagram.damage == .real) {
        return ledger.fail("host {d} takes a forged datagram of {d}", names);
    }
    const from = birth orelse
        return ledger.fail("host {d} takes data of {d} with a session that no handshake made", names);
    const neighbour = &host.neighbours.items[from.neighbour];
    if (neighbour.host != datagram.author or neighbour.entry != from.entry) {
        return ledger.fail("host {d} takes data of {d} with a session of another peer", names);
    }
    if (opening.looked_up_at - from.at >= constants.REJECT_AFTER_TIME) {
        return ledger.fail("host {d} takes data of {d} with a key past REJECT_AFTER_TIME", names);
    }
    if (opening.ticket.counter >= constants.REJECT_AFTER_MESSAGES) {
        return ledger.fail("host {d} takes data of {d} past REJECT_AFTER_MESSAGES", names);
    }
    if (ledger.wasAccepted(datagram.number)) return ledger.fail("host {d} takes the same datagram of {d} twice", names);
    try ledger.accept(datagram.number);
    from.next = @max(from.next, opening.ticket.counter + 1);
    from.is_confirmed = true;
    neighbour.heard_at = world.time;
    switch (outcome) {
        .keepalive => {},
        .deliver => |inner| try delivered(world, host, from.neighbour, inner),
        .drop => |reason| {
            if (reason == .malformed_inner) return ledger.fail("host {d} finds a packet of {d} malformed", names);
            const owner = host.ownerOf(sourceOf(opening.plain[0..opening.plain_length.?]));
            if (owner != null and owner.? == from.neighbour) {
                return ledger.fail("host {d} refuses a source that {d} may use", names);
            }
        },
    }
    return true;
}

fn replay(world: *World, host: *Host, opening: *const Opening, birth: ?*ledger_file.Birth) Error!void {
    if (world.ledger.wasAccepted(opening.datagram.number)) return;
    const known = birth orelse return;
    const newest = known.next -| 1;
    const is_old = newest > opening.ticket.counter and newest - opening.ticket.counter > constants.replay_window_bits;
    if (is_old) return;
    return world.ledger.fail("host {d} takes a new datagram of {d} for a replay", .{
        host.number, opening.datagram.author,
    });
}

fn delivered(world: *World, host: *Host, place: u32, inner: []const u8) Error!void {
    const ledger = &world.ledger;
    const neighbour = &host.neighbours.items[place];
    const names = .{ host.number, neighbour.host };
    const stamp = packet.read(inner) orelse
        return ledger.fail("host {d} delivers a packet of {d} that was changed", names);
    if (stamp.receiver != host.number or stamp.sender != neighbour.host) {
        return ledger.fail("host {d} delivers a packet of {d} that was from {d} to {d}", .{
            host.number, neighbour.host, stamp.sender, stamp.receiver,
        });
    }
    if (stamp.id >= world.stats.packets or ledger.wasDelivered(stamp.id)) {
        return ledger.fail("host {d} delivers a packet of {d} twice", names);
    }
    const owner = host.ownerOf(sourceOf(inner));
    if (owner == null or owner.? != place) {
        return ledger.fail("host {d} delivers a packet of {d} with a source that {d} may not use", .{
            host.number, neighbour.host, neighbour.host,
        });
    }
    try ledger.deliver(stamp.id);
    world.hosts[neighbour.host].neighbours.items[neighbour.back].arrived_at = world.time;
}

fn sourceOf(inner: []const u8) wire.Address {
    return if (inner[0] >> 4 == 4) .fromIpv4(inner[12..16].*) else .fromIpv6(inner[8..24].*);
}

/// A peer's endpoint moves to where an authentic, new datagram came from, and only then.
pub fn endpoint(
    world: *World,
    host: *Host,
    place: ?u32,
    before: ?wire.SocketAddress,
    datagram: *const Datagram,
    was_accepted: bool,
) Error!void {
    const after = host.endpointOf(place) orelse return;
    if (was_accepted) {
        if (!after.eql(datagram.from)) {
            return world.ledger.fail("host {d} does not follow {d}", .{ host.number, datagram.author });
        }
    } else if (before == null or !before.?.eql(after)) {
        return world.ledger.fail(
            "host {d} follows a datagram of {d} that it refuses",
            .{ host.number, datagram.author },
        );
    }
}
