"""Deliberate bugs for scripts/sim: what is changed in a copy of core/protocol/, and only there.

All of them are compiled into one program, each behind a switch, so that one compilation serves all.
The sources have no such switch, and so no install can have one. A text that is no longer in its
file exactly once is an error: a mutation cannot be lost unseen.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    """Of core/protocol/."""
    old: str
    new: str
    """ON stands for the question whether it is switched on."""
    sign: str
    """What the simulation says of it: a regular expression."""
    words: tuple[str, ...] = ()
    """Options of the simulation without which it cannot show."""


MUTATIONS = (
    # ---- copies of a machine, memory that ends ----
    Mutation(
        "copy_unnoticed",
        "interface/renewal.zig",
        "peer.sessions.stopSending(&interface.sessions);",
        "if (!ON) peer.sessions.stopSending(&interface.sessions);",
        "used nonce",
    ),
    Mutation(
        "half_a_change",
        "interface/control.zig",
        ".count => try steps.count(),",
        ".count => blk: {\n                if (ON) interface.listen_port +%= 1;\n"
        "                break :blk try steps.count();\n            },",
        "a change for which there was no memory has changed something",
    ),
    # ---- workers that the system lets wait, peers where nobody is ----
    Mutation(
        "late_train_as_it_is",
        "interface.zig",
        "if (current.send_counter - (ticket.counter + count) <= distance_max) return null;",
        "if (ON or current.send_counter - (ticket.counter + count) <= distance_max) return null;",
        "nonces after its turn",
    ),
    Mutation(
        "late_nonces_not_taken",
        "interface.zig",
        "return current.reserve(count, now.boot);\n    }\n\n    fn refuseReserved",
        "return if (ON) current.send_counter else current.reserve(count, now.boot);\n"
        "    }\n\n    fn refuseReserved",
        "used nonce",
    ),
    Mutation(
        "late_nonces_of_the_next_session",
        "interface.zig",
        "if (!crypto.eql32(&current.sending_key, key)) return null;\n"
        "        assert(ticket.counter + count <= current.send_counter);",
        "if (!ON and !crypto.eql32(&current.sending_key, key)) return null;\n"
        "        assert(ON or ticket.counter + count <= current.send_counter);",
        "used nonce|overflow",
    ),
    Mutation(
        "opened_for_a_later_session",
        "interface.zig",
        "if (opened_by.local_index != ticket.receiver_index) return",
        "if (!ON and opened_by.local_index != ticket.receiver_index) return",
        r"takes the same datagram of \d+ twice",
    ),
    Mutation(
        "silent_given_up",
        "interface/handshakes.zig",
        ".persistent_keepalive => if (peer.timers.persistent_keepalive_interval != 0)",
        ".persistent_keepalive => if (!(ON and peer.timers.handshake_attempts > 9) and\n"
        "            peer.timers.persistent_keepalive_interval != 0)",
        "the way to a silent peer open",
        ("--silent", "200"),
    ),
    # ---- replay window ----
    Mutation(
        "replay_unchecked",
        "replay.zig",
        "if (!window.check(counter)) return false;",
        "if (!ON and !window.check(counter)) return false;",
        r"takes the same datagram of \d+ twice",
    ),
    Mutation(
        "window_without_end",
        "replay.zig",
        "if (window.next - 1 - counter > constants.replay_window_bits) return false;",
        "if (!ON and window.next - 1 - counter > constants.replay_window_bits) return false;",
        r"takes the same datagram of \d+ twice",
    ),
    Mutation(
        "window_shift_short",
        "replay.zig",
        "for (1..@as(usize, @intCast(steps)) + 1) |step| {",
        "for (1..@as(usize, @intCast(if (ON) steps -| 1 else steps)) + 1) |step| {",
        "takes a new datagram of .* for a replay",
    ),
    Mutation(
        "window_shift_long",
        "replay.zig",
        "if (steps >= word_count) {",
        "if (steps >= if (ON) 1 else word_count) {",
        r"takes the same datagram of \d+ twice",
    ),
    # ---- sessions ----
    Mutation(
        "nonce_kept",
        "session.zig",
        "session.send_counter = first + count;",
        "session.send_counter = first + if (ON) 0 else count;",
        "used nonce",
    ),
    Mutation(
        "nonces_of_a_batch",
        "session.zig",
        "if (first >= constants.REJECT_AFTER_MESSAGES or count",
        "defer if (ON) {\n            session.send_counter = first + 1;\n        };\n"
        "        if (first >= constants.REJECT_AFTER_MESSAGES or count",
        "used nonce",
    ),
    Mutation(
        "sent_past_its_time",
        "session.zig",
        "session.age(now) >= constants.REJECT_AFTER_TIME) return null;",
        "(!ON and session.age(now) >= constants.REJECT_AFTER_TIME)) return null;",
        "with a key past REJECT_AFTER_TIME",
    ),
    Mutation(
        "taken_past_its_time",
        "session.zig",
        "return session.age(now) < constants.REJECT_AFTER_TIME and counter",
        "return (ON or session.age(now) < constants.REJECT_AFTER_TIME) and counter",
        "takes data .* with a key past REJECT_AFTER_TIME",
    ),
    Mutation(
        "sent_past_its_messages",
        "session.zig",
        "count > constants.REJECT_AFTER_MESSAGES - first) return null;",
        "count > constants.REJECT_AFTER_MESSAGES - first) if (!ON) return null;",
        "past REJECT_AFTER_MESSAGES",
    ),
    Mutation(
        "no_renewal",
        "session.zig",
        "(session.is_initiator and session.age(now) >= constants.REKEY_AFTER_TIME);",
        "(!ON and session.is_initiator and session.age(now) >= constants.REKEY_AFTER_TIME);",
        "does not renew its session",
    ),
    Mutation(
        "no_renewal_when_worn",
        "session.zig",
        "return session.send_counter > constants.REKEY_AFTER_MESSAGES or",
        "return (!ON and session.send_counter > constants.REKEY_AFTER_MESSAGES) or",
        "does not renew its worn session",
    ),
    Mutation(
        "old_key_kept_in_use",
        "session.zig",
        "if (sessions.current) |slot| pool.at(slot).may_send = false;",
        "if (sessions.current) |slot| pool.at(slot).may_send = ON;",
        "with a session of an old private key",
    ),
    Mutation(
        "sent_before_confirmation",
        "interface/handshakes.zig",
        "peer.timers.sessionDerived(now.boot);",
        "if (ON and !keys.is_initiator) peer.sessions.confirm();\n"
        "    peer.timers.sessionDerived(now.boot);",
        "before its session is confirmed",
    ),
    Mutation(
        "never_confirmed",
        "interface.zig",
        "if (sessions.isNext(ticket.slot)) interface.confirmSession",
        "if (!ON and sessions.isNext(ticket.slot)) interface.confirmSession",
        "nothing of host|not renew|for nothing",
    ),
    Mutation(
        "keys_not_zeroed",
        "session.zig",
        "crypto.zero(session);",
        "if (!ON) crypto.zero(session);",
        "a session that ended left its keys",
    ),
    Mutation(
        "wrong_receiver_index",
        "interface.zig",
        ".receiver_index = current.remote_index,",
        ".receiver_index = if (ON) current.local_index else current.remote_index,",
        "by an index that no session has",
    ),
    # ---- timers ----
    Mutation(
        "no_retransmission",
        "timers.zig",
        "timers.arm(.retransmit_handshake, now, constants.REKEY_TIMEOUT + jitter_ns);",
        "if (!ON) timers.arm(.retransmit_handshake, now, constants.REKEY_TIMEOUT + jitter_ns);",
        "neither be sent nor given up|lost the packet that waited",
    ),
    Mutation(
        "no_giving_up",
        "interface/handshakes.zig",
        "if (peer.timers.handshake_attempts <= constants.MAX_TIMER_HANDSHAKES) {",
        "if (ON or peer.timers.handshake_attempts <= constants.MAX_TIMER_HANDSHAKES) {",
        "to which it has nothing to say",
    ),
    Mutation(
        "no_detection",
        "timers.zig",
        "if (timers.isPending(.new_handshake)) return;",
        "if (ON or timers.isPending(.new_handshake)) return;",
        "nothing of host|has not answered",
    ),
    Mutation(
        "keys_never_forgotten",
        "timers.zig",
        "timers.arm(.zero_key_material, now, constants.REJECT_AFTER_TIME * 3);",
        "if (!ON) timers.arm(.zero_key_material, now, constants.REJECT_AFTER_TIME * 3);",
        "keeps of .*: a session",
    ),
    Mutation(
        "no_keepalive",
        "timers.zig",
        "timers.arm(.send_keepalive, now, constants.KEEPALIVE_TIMEOUT);",
        "if (!ON) timers.arm(.send_keepalive, now, constants.KEEPALIVE_TIMEOUT);",
        "has not answered|for nothing",
    ),
    Mutation(
        "keepalives_answered",
        "interface.zig",
        "if (inner_length != 0) peer.timers.dataReceived(now.boot);",
        "if (ON or inner_length != 0) peer.timers.dataReceived(now.boot);",
        "to which it has nothing to say",
    ),
    Mutation(
        "no_persistent_keepalive",
        "timers.zig",
        "if (timers.persistent_keepalive_interval == 0) return;",
        "if (ON or timers.persistent_keepalive_interval == 0) return;",
        "has not kept the way",
    ),
    Mutation(
        "no_pause_between_initiations",
        "interface/handshakes.zig",
        "if (now.boot.since(last) >= constants.REKEY_TIMEOUT) return false;",
        "if (ON or now.boot.since(last) >= constants.REKEY_TIMEOUT) return false;",
        "two initiations",
    ),
    Mutation(
        "deadline_not_in_the_heap",
        "interface.zig",
        "interface.deadlines.set(index, next.ns);",
        "if (!ON) interface.deadlines.set(index, next.ns);",
        "a deadline is not in the heap",
    ),
    # ---- handshakes ----
    Mutation(
        "initiation_replayed",
        "interface/handshakes.zig",
        "if (!time.isLater(timestamp, peer.latest_timestamp)) {",
        "if (!ON and !time.isLater(timestamp, peer.latest_timestamp)) {",
        "that is not later than the last",
    ),
    Mutation(
        "clock_believed",
        "peer.zig",
        "if (time.isLater(label, last)) label",
        "if (ON or time.isLater(label, last)) label",
        "a time that is not later",
    ),
    Mutation(
        "preshared_key_ignored",
        "noise.zig",
        "&running.chaining_key, preshared);",
        "&running.chaining_key, if (ON) &@as([32]u8, @splat(0)) else preshared);",
        "with another preshared key",
    ),
    Mutation(
        "mac1_unchecked",
        "cookie.zig",
        "return crypto.eql16(&mac1, mac1Of(message_bytes));",
        "return ON or crypto.eql16(&mac1, mac1Of(message_bytes));",
        "takes a damaged",
    ),
    Mutation(
        "no_cookie_needed",
        "cookie.zig",
        "return crypto.eql16(&mac2, message_bytes[start..][0..mac_length]);",
        "return ON or crypto.eql16(&mac2, message_bytes[start..][0..mac_length]);",
        "under load",
    ),
    Mutation(
        "cookie_for_any_port",
        "cookie.zig",
        "std.mem.writeInt(u16, source[address.len..][0..2], from.port, .big);",
        "std.mem.writeInt(u16, source[address.len..][0..2], if (ON) 0 else from.port, .big);",
        "under load, from where it never sent a cookie",
    ),
    Mutation(
        "cookie_never_sent_back",
        "cookie.zig",
        "maker.cookie_birth = now;",
        "if (!ON) maker.cookie_birth = now;",
        "nothing of host|lost the packet|not renew",
    ),
    Mutation(
        "response_not_remembered",
        "interface/handshakes.zig",
        "peer.pending.response = true; //",
        "peer.pending.response = !ON; //",
        "nothing of host|lost the packet|not renew",
    ),
    # ---- load ----
    Mutation(
        "junk_counts_as_load",
        "interface/handshakes.zig",
        "if (!interface.checker.checkMac1(datagram)) return .invalid_mac1;",
        "if (!interface.checker.checkMac1(datagram)) {\n"
        "        if (ON) interface.load.charge(.unproven, 1, now.boot);\n"
        "        return .invalid_mac1;\n    }",
        "demands a cookie, although",
    ),
    Mutation(
        "cookie_reply_counts_as_load",
        "interface/handshakes.zig",
        ".cookie_reply => return consumeCookieReply(interface, @ptrCast(datagram.ptr), now),",
        ".cookie_reply => {\n            if (ON) interface.load.charge(.unproven, 1, now.boot);\n"
        "            return consumeCookieReply(interface, @ptrCast(datagram.ptr), now);\n"
        "        },",
        "demands a cookie, although",
    ),
    Mutation(
        "responses_count_as_load",
        "interface/handshakes.zig",
        ".response => consumeResponse(interface, local, datagram, from, demand, now),",
        ".response => blk: {\n"
        "            if (ON) interface.load.charge(.unproven, 200, now.boot);\n"
        "            break :blk consumeResponse(interface, local, datagram, from, demand, now);\n"
        "        },",
        "demands a cookie, although",
    ),
    Mutation(
        "no_bound_without_a_cookie",
        "interface/handshakes.zig",
        ".under_load => if (interface.load.allows(.unproven, now.boot)) {",
        ".under_load => if (ON or interface.load.allows(.unproven, now.boot)) {",
        "of two seconds on initiations",
    ),
    Mutation(
        "no_total_bound",
        "interface/handshakes.zig",
        "if (!interface.load.allows(payer, now.boot)) return .{ .drop = .overloaded };",
        "if (!ON and !interface.load.allows(payer, now.boot)) return .{ .drop = .overloaded };",
        "of two seconds on initiations",
    ),
    Mutation(
        "load_that_never_ends",
        "load.zig",
        "allowance.earned = begin.after(cost_ns *| allowance.one_in);",
        "const cost = if (ON) std.time.ns_per_day else cost_ns *| allowance.one_in;\n"
        "        allowance.earned = begin.after(cost);",
        "demands a cookie, although",
    ),
    Mutation(
        "cookie_shown_at_once",
        "timers.zig",
        "const retry = now.after(constants.COOKIE_RETRY_DELAY + jitter_ns);",
        "const retry = now.after(if (ON) 1 else constants.COOKIE_RETRY_DELAY + jitter_ns);",
        "sooner than COOKIE_RETRY_DELAY",
    ),
    # ---- where and who ----
    Mutation(
        "roaming_before_authentication",
        "interface.zig",
        "const inner = plaintext orelse return interface.refuseOpened(.not_authentic);",
        "if (ON) if (interface.get(ticket.peer)) |early| interface.roam(early, from);\n"
        "        const inner = plaintext orelse return interface.refuseOpened(.not_authentic);",
        "follows a datagram .* that it refuses",
    ),
    Mutation(
        "roaming_by_replay",
        "interface.zig",
        "if (!opened_by.window.commit(ticket.counter)) return",
        "if (ON) interface.roam(peer, from);\n"
        "        if (!opened_by.window.commit(ticket.counter)) return",
        "follows a datagram .* that it refuses",
    ),
    Mutation(
        "no_roaming",
        "interface.zig",
        "        peer.endpoint = from.*;",
        "        if (!ON) peer.endpoint = from.*;",
        "does not follow",
    ),
    Mutation(
        "source_of_another_peer",
        "interface.zig",
        "if (owner == null or owner.? != id.index) {",
        "if (owner == null or (!ON and owner.? != id.index)) {",
        "with a source that",
    ),
    Mutation(
        "shortest_match",
        "allowed_ips.zig",
        "if (node.peer != none) best = node.peer;",
        "if (node.peer != none and !(ON and best != none)) best = node.peer;",
        "to another peer than it should|a source that",
    ),
    Mutation(
        "stale_look_up",
        "allowed_ips.zig",
        "table.epoch += 1;",
        "if (!ON) table.epoch += 1;",
        "to another peer than it should|a source that|finds no peer|deadline|peer that it",
    ),
    Mutation(
        "padding_delivered",
        "interface.zig",
        "return .{ .deliver = inner[0..packet.bytes.len] };",
        "return .{ .deliver = if (ON) inner else inner[0..packet.bytes.len] };",
        "that was changed",
    ),
    # ---- what waits, what goes ----
    Mutation(
        "staging_lost",
        "interface/handshakes.zig",
        "peer.pending.keepalive = true; // confirms",
        "if (ON) _ = interface.staging_pool.clear(&peer.staged);\n"
        "    peer.pending.keepalive = true; // confirms",
        "lost the packet that waited|nothing of host",
    ),
    Mutation(
        "chunk_lost",
        "staging.zig",
        "pool.free_count += chunk_count;",
        "pool.free_count += chunk_count - @intFromBool(ON and chunk_count > 0);",
        "staging lost a chunk",
    ),
    Mutation(
        "staging_held_by_the_silent",
        "staging.zig",
        "const is_first = queue.packets == 0 or",
        "const is_first = !ON and queue.packets == 0 or !ON and",
        "for which others hold all the room",
    ),
    # ---- what is sent in a turn ----
    Mutation(
        "turn_without_end",
        "interface/handshakes.zig",
        "            budget.looks -= 1;",
        "            budget.looks -= @intFromBool(!ON);",
        "does more in a turn than it may",
    ),
    Mutation(
        "initiations_without_end",
        "interface/handshakes.zig",
        "        looks.* -= 1;",
        "        looks.* -= @intFromBool(!ON);",
        "does more in a turn than it may",
    ),
    Mutation(
        "initiations_first",
        "interface/handshakes.zig",
        "    if (pollUrgent(interface, buffer, &budget, now)) |transmit| return transmit;\n"
        "    var draft",
        "    if (!ON or !wantsInitiation(interface)) {\n"
        "        if (pollUrgent(interface, buffer, &budget, now)) |transmit| return transmit;\n"
        "    }\n"
        "    var draft",
        "wait for an initiation",
    ),
    Mutation(
        "wish_forgotten",
        "wishes.zig",
        "if (!peer.pending.has(wish) or peer.links.queued.has(wish)) continue;",
        "if (!peer.pending.has(wish) or peer.links.queued.has(wish)) continue;\n"
        "            if (ON and wish == .attempt) continue;",
        "a wish is in no queue|neither be sent nor given up",
    ),
    Mutation(
        "order_of_peers_broken",
        "interface/control.zig",
        "    interface.last_peer = index;\n",
        "    if (!ON or last == none) interface.last_peer = index;\n",
        "order of the peers|from their order",
    ),
    Mutation(
        "session_outlives_its_index",
        "interface/handshakes.zig",
        "const retired = peer.sessions.clear(&interface.sessions);\n"
        "    interface.forgetIndices(retired.slice());",
        "const retired = peer.sessions.clear(&interface.sessions);\n"
        "    if (!ON) interface.forgetIndices(retired.slice());",
        "panic|an index leads to nothing|leads elsewhere",
    ),
    Mutation(
        "session_outlives_its_peer",
        "interface/control.zig",
        "    handshakes.clearKeys(interface, peer);\n    const staged",
        "    if (ON) peer.sessions = .{} else handshakes.clearKeys(interface, peer);\n"
        "    const staged",
        "panic|a session is lost|an index leads to nothing",
    ),
    Mutation(
        "allowed_ips_outlive_their_peer",
        "interface/control.zig",
        "    interface.allowed_ips.removePeer(index);\n    _ = interface.by_key",
        "    if (!ON) interface.allowed_ips.removePeer(index);\n    _ = interface.by_key",
        "a removed peer has allowed IPs|to another peer|a source that|that it removed",
    ),
)

SWITCH = """//! Made by scripts/sim --mutations: which deliberate bug is on.
const std = @import("std");
pub const Mutation = enum {{ none, {names} }};
var current: Mutation = .none;
pub fn is(comptime mutation: Mutation) bool {{
    return current == mutation;
}}
pub fn select(name: []const u8) bool {{
    current = std.meta.stringToEnum(Mutation, name) orelse return false;
    return true;
}}
"""


def write(room: Path, directory: Path) -> tuple[Path, Path]:
    """Copies the room with every mutation in it; returns the copy's root file and the switch."""
    copy = directory / "protocol"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(room, copy)
    for mutation in MUTATIONS:
        path = copy / mutation.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutation.old) != 1:
            raise SystemExit(
                f"mutation {mutation.name}: not once in {mutation.file}: {mutation.old}"
            )
        asked = f'@import("mutation").is(.{mutation.name})'
        text = text.replace(mutation.old, mutation.new.replace("ON", asked))
        path.write_text(text, encoding="utf-8")
    switch = directory / "mutation.zig"
    names = ", ".join(mutation.name for mutation in MUTATIONS)
    switch.write_text(SWITCH.format(names=names), encoding="utf-8")
    return copy / "protocol.zig", switch
