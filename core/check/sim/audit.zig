//! Audit: that a host keeps to its memory, that its Interface is sound, and that a peer that fell silent left no
//! secret. Looks inside, unlike the rest of the simulation.
const std = @import("std");
const protocol = @import("protocol");
const Interface = protocol.Interface;
const Host = @import("host.zig").Host;

/// Null, or what is wrong.
pub fn unsound(host: *Host) ?[]const u8 {
    if (host.memory.broke_in) return "memory was allocated outside of a configuration";
    if (host.memory.live > host.memory_max) return "it holds more memory than it may";
    return protocol.soundness.unsound(&host.interface);
}

/// Null, or what secret of this peer is still there long after all of them should be gone.
pub fn remainder(interface: *Interface, id: protocol.PeerId) ?[]const u8 {
    const peer = interface.get(id) orelse return "the peer itself is gone";
    const sessions = &peer.sessions;
    if (sessions.next != null or sessions.current != null or sessions.previous != null) return "a session";
    const zero: [32]u8 = @splat(0);
    if (!std.mem.eql(u8, &peer.handshake.ephemeral_private, &zero)) return "an ephemeral key";
    if (!std.mem.eql(u8, &peer.handshake.chaining_key, &zero)) return "the chaining key of an initiation";
    if (!std.mem.eql(u8, &peer.answer.chaining_key, &zero)) return "the chaining key of an answer";
    return null;
}
