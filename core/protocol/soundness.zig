//! What ties the tables of an Interface together between two calls, and that no slot that ended holds a secret. For
//! tests: those of this room and the simulation ask after each step. Nothing of it is in an install.
const std = @import("std");
const Instant = @import("time.zig").Instant;
const Interface = @import("interface.zig").Interface;
const wishes = @import("wishes.zig");

/// Null, or what is wrong.
pub fn unsound(interface: *Interface) ?[]const u8 {
    return unsoundPeers(interface) orelse unsoundQueues(interface) orelse unsoundPool(interface);
}

fn unsoundPeers(interface: *Interface) ?[]const u8 {
    var indices: usize = 0;
    var live: usize = 0;
    var chunks: usize = interface.staging_pool.free_count;
    for (0..interface.peer_high) |i| {
        const index: u32 = @intCast(i);
        const peer = interface.peers.at(i);
        if (!peer.in_use) {
            if (interface.deadlines.get(index) != null) return "a removed peer has a deadline";
            if (interface.allowed_ips.iterate(index).node != std.math.maxInt(u32)) {
                return "a removed peer has allowed IPs";
            }
            continue;
        }
        live += 1;
        chunks += peer.staged.chunks;
        if (interface.by_key.find(&peer.remote.static) != index) return "a peer is not found by its key";
        if (peer.handshake_index) |local_index| {
            indices += 1;
            const entry = interface.by_index.lookup(local_index) orelse return "a handshake is not found by its index";
            if (entry.kind != .handshake or entry.peer.index != index) {
                return "the index of a handshake leads elsewhere";
            }
        }
        inline for (.{ peer.sessions.next, peer.sessions.current, peer.sessions.previous }) |role| {
            if (role) |slot| {
                indices += 1;
                const found = interface.by_index.lookup(interface.sessions.at(slot).local_index);
                const entry = found orelse return "a session is not found by its index";
                if (entry.kind != .session or entry.slot != slot or !entry.peer.eql(interface.idOf(index)))
                    return "the index of a session leads elsewhere";
            }
        }
        if (interface.deadlines.get(index)) |deadline| {
            if (deadline != peer.heap_deadline.ns) return "the heap has another deadline than the peer";
        } else if (peer.heap_deadline.ns != Instant.never.ns) return "a deadline is not in the heap";
        if (peer.timers.deadline().isBefore(peer.heap_deadline)) return "a timer is earlier than the heap knows";
        const can_send = interface.is_active and peer.endpoint != null and !peer.links.queued.any();
        if (can_send and peer.staged.packets != 0 and !peer.timers.isPending(.retransmit_handshake))
            return "what waits for a session will neither be sent nor given up";
    }
    if (live != interface.peer_count) return "peers are miscounted";
    var listed: usize = 0;
    var before: u32 = wishes.none;
    var at = interface.first_peer;
    while (at != wishes.none) : (at = interface.peers.at(at).next) {
        const peer = interface.peers.at(at);
        if (listed == live or !peer.in_use or peer.previous != before) return "the order of the peers is broken";
        listed += 1;
        before = at;
    }
    if (listed != live or interface.last_peer != before) return "a peer is missing from their order";
    if (live + interface.free_peers.items.len != interface.peer_high) return "a slot for a peer is lost";
    if (indices != interface.by_index.count) return "an index leads to nothing";
    if (interface.staging_pool.links.len != chunks) return "staging lost a chunk";
    return null;
}

fn unsoundQueues(interface: *Interface) ?[]const u8 {
    for (wishes.Wish.all) |wish| if (unsoundQueue(interface, wish)) |what| return what;
    return null;
}

fn unsoundQueue(interface: *Interface, wish: wishes.Wish) ?[]const u8 {
    const place = @backingInt(wish);
    var queued: usize = 0;
    for (0..interface.peer_high) |i| {
        const peer = interface.peers.at(i);
        queued += @intFromBool(peer.links.queued.has(wish));
        if (peer.in_use and peer.pending.has(wish) and !peer.links.queued.has(wish)) return "a wish is in no queue";
    }
    var last: u32 = wishes.none;
    var at = interface.queues.heads[place];
    while (at != wishes.none) : (at = interface.peers.at(at).links.next[place]) {
        if (queued == 0 or !interface.peers.at(at).links.queued.has(wish)) return "a queue of wishes is broken";
        queued -= 1;
        last = at;
    }
    if (interface.queues.tails[place] != last) return "a queue of wishes has another end than it says";
    return if (queued == 0) null else "a peer has left a queue of wishes unheard";
}

/// A session that no peer holds is zero but for its link.
fn unsoundPool(interface: *Interface) ?[]const u8 {
    const pool = &interface.sessions;
    var held: usize = 0;
    for (0..interface.peer_high) |i| {
        const peer = interface.peers.at(i);
        if (!peer.in_use) continue;
        const sessions = &peer.sessions;
        inline for (.{ sessions.next, sessions.current, sessions.previous }) |role| held += @intFromBool(role != null);
    }
    var free: usize = 0;
    var at = pool.free_head;
    while (at != std.math.maxInt(u32)) {
        if (free == pool.high) return "the list of free sessions has no end";
        const session = pool.at(@intCast(at));
        const zeros = std.mem.allEqual(u8, &session.sending_key, 0) and std.mem.allEqual(u8, &session.receiving_key, 0);
        if (!zeros or session.send_counter != 0 or session.local_index != 0) {
            return "a session that ended left its keys";
        }
        free += 1;
        at = session.next_free;
    }
    return if (held + free == pool.high) null else "a session is lost";
}
