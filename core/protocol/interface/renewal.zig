//! The memory that holds our keys may exist twice: a virtual machine was cloned or set back, or a host woke from an
//! image that can be woken from again. The other one would seal other packets by the same keys and counters, which
//! tells whoever sees both what is in them. So nothing more is sent by the sessions there are, as in the kernel's
//! driver (wg_vm_notification); unlike there, who had one begins another at once. Does not know how that was found out.
//! Invariant: after it no nonce is used with a sending key from before.
const handshakes = @import("handshakes.zig");
const Interface = @import("../interface.zig").Interface;
const Now = @import("../time.zig").Now;
const Peer = @import("../peer.zig").Peer;

/// What is under way to us may still arrive: by receiving no nonce is used.
pub fn renewSessions(interface: *Interface, now: Now) void {
    var index: u32 = 0;
    while (index < interface.peer_high) : (index += 1) {
        const peer = interface.peers.at(index);
        if (!peer.in_use) continue;
        const is_in_touch = wantsSession(peer);
        // An ephemeral key that both have gives both the same session.
        handshakes.clearHandshakes(interface, peer);
        peer.sessions.stopSending(&interface.sessions);
        peer.timers.last_sent_handshake = null; // another may begin at once
        if (is_in_touch and interface.is_active) handshakes.requestInitiation(interface, index, now, .first);
    }
}

/// It has a session, or is about to have one.
fn wantsSession(peer: *const Peer) bool {
    return peer.sessions.current != null or peer.sessions.next != null or peer.staged.packets != 0 or
        peer.handshake_index != null;
}
