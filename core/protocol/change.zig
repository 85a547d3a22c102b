//! The values that cross the control plane: Change goes in, snapshots come out. Plain data: text is uapi.zig's
//! business, and what a change means is interface/control.zig's.
//! Invariant: a Change owns its memory and zeroes it when it goes, for it holds keys.
const std = @import("std");
const wire = @import("wire");
const Allocator = std.mem.Allocator;

/// One "set": applied as a whole or not at all. Null means: leave as it is.
pub const Change = struct {
    /// Zeros remove the key.
    private_key: ?[32]u8 = null,
    /// 0 picks a free one.
    listen_port: ?u16 = null,
    /// 0 turns it off.
    fwmark: ?u32 = null,
    /// Extensions, for who has the sockets. Empty: any interface.
    bind_interface: ?wire.binding.InterfaceName = null,
    /// All of them; empty: any address.
    bind_addresses: ?wire.binding.Addresses = null,
    /// All peers go before the first section is applied.
    replace_peers: bool = false,
    /// In the order of the text; the same peer may come several times.
    peers: []PeerChange = &.{},
    /// Where all the peers' allowed_ips lie.
    allowed_ips: []AllowedIpChange = &.{},

    /// Memory for so many of each, all of it to be filled.
    pub fn init(gpa: Allocator, peer_count: usize, allowed_ip_count: usize) Allocator.Error!Change {
        const peers = try gpa.alloc(PeerChange, peer_count);
        errdefer gpa.free(peers);
        return .{ .peers = peers, .allowed_ips = try gpa.alloc(AllowedIpChange, allowed_ip_count) };
    }

    pub fn deinit(change: *Change, gpa: Allocator) void {
        change.wipe();
        gpa.free(change.peers);
        gpa.free(change.allowed_ips);
        change.* = undefined;
    }

    fn wipe(change: *Change) void {
        std.crypto.secureZero(u8, std.mem.sliceAsBytes(change.peers));
        std.crypto.secureZero(u8, std.mem.asBytes(&change.private_key));
    }
};

/// One section of a peer. `remove` goes before everything else in it, wherever in the section it stands: as in the
/// kernel, where it is a flag.
pub const PeerChange = struct {
    public_key: [32]u8,
    /// Not to be created if it is not there.
    update_only: bool = false,
    remove: bool = false,
    /// Zeros remove the key.
    preshared_key: ?[32]u8 = null,
    endpoint: ?wire.SocketAddress = null,
    /// Seconds; 0 turns it off.
    persistent_keepalive_interval: ?u16 = null,
    replace_allowed_ips: bool = false,
    /// How many of `allowed_ips` stand before the last such line: they are taken from their owners, and then go.
    replace_after: usize = 0,
    /// In the order of the text.
    allowed_ips: []AllowedIpChange = &.{},
    /// Where the section starts in the text, from 1.
    line: u32 = 0,
};

pub const AllowedIpChange = struct {
    /// Host bits are still there.
    prefix: wire.Prefix,
    remove: bool = false,
};

pub const DeviceSnapshot = struct {
    private_key: ?*const [32]u8 = null,
    listen_port: u16 = 0,
    fwmark: u32 = 0,
};

/// A peer but for its allowed IPs, which stay in their table.
pub const PeerSnapshot = struct {
    public_key: *const [32]u8,
    /// Zeros when there is none.
    preshared_key: *const [32]u8,
    endpoint: ?wire.SocketAddress = null,
    /// 0 is never.
    last_handshake_unix_ns: u64 = 0,
    tx_bytes: u64 = 0,
    rx_bytes: u64 = 0,
    persistent_keepalive_interval: u16 = 0,
};

test "a change that goes leaves no key behind" {
    const gpa = std.testing.allocator;
    var change: Change = try .init(gpa, 2, 1);
    defer change.deinit(gpa);
    change.private_key = @splat(0x5a);
    for (change.peers) |*peer| peer.* = .{ .public_key = @splat(1), .preshared_key = @splat(0x5a) };
    change.wipe();
    try std.testing.expectEqual(null, std.mem.findScalar(u8, std.mem.asBytes(&change.private_key), 0x5a));
    try std.testing.expect(std.mem.allEqual(u8, std.mem.sliceAsBytes(change.peers), 0));
}

test "memory that cannot be had is no change" {
    try std.testing.checkAllAllocationFailures(std.testing.allocator, struct {
        fn run(gpa: Allocator) !void {
            var change: Change = try .init(gpa, 3, 4);
            change.deinit(gpa);
        }
    }.run, .{});
}
