//! The virtio-net header before each packet of a TUN opened with IFF_VNET_HDR (include/linux/virtio_net.h).
//! Knows the layout and the values pywg negotiates; what they demand of a packet is in gso.zig and gro.zig.
//! Invariant: ten bytes in native byte order, which is the kernel's default until TUNSETVNETLE or TUNSETVNETBE; where
//! superpackets inside UDP tunnels are negotiated, as many as the whole struct has.
const std = @import("std");

pub const VnetHeader = extern struct {
    flags: u8 = 0,
    gso_type: u8 = GSO_NONE,
    /// All headers, on packets we write. On packets we read it lies when they were forwarded.
    hdr_len: u16 = 0,
    gso_size: u16 = 0,
    csum_start: u16 = 0,
    /// Relative to csum_start.
    csum_offset: u16 = 0,
    /// What follows is struct virtio_net_hdr_v1_hash_tunnel; all of it but the last two is of no use on a TUN.
    num_buffers: u16 = 0,
    hash_value: u32 = 0,
    hash_report: u16 = 0,
    padding: u16 = 0,
    /// Where the tunnel's UDP header begins, on packets we read. What we write: `outerTransportFor`.
    outer_transport: u16 = 0,
    /// Where the IP header inside the tunnel begins.
    inner_network: u16 = 0,

    pub const length = 10;
    /// Where superpackets inside UDP tunnels are negotiated.
    pub const tunnel_length = @sizeOf(VnetHeader);

    pub const NEEDS_CSUM = 1;
    pub const DATA_VALID = 2;
    /// The tunnel's own UDP header has a checksum, too.
    pub const UDP_TUNNEL_CSUM = 8;

    pub const GSO_NONE = 0;
    pub const GSO_TCPV4 = 1;
    /// UFO, which we never ask for: known so that it can be refused.
    pub const GSO_UDP = 3;
    pub const GSO_TCPV6 = 4;
    pub const GSO_UDP_L4 = 5;
    /// Beside a type: that is inside a UDP tunnel over IPv4, or over IPv6. Linux 6.17.
    pub const GSO_UDP_TUNNEL_IPV4 = 0x20;
    pub const GSO_UDP_TUNNEL_IPV6 = 0x40;
    pub const GSO_UDP_TUNNEL = GSO_UDP_TUNNEL_IPV4 | GSO_UDP_TUNNEL_IPV6;
    /// A flag beside a TCP type: the first segment carries CWR.
    pub const GSO_ECN = 0x80;

    /// What Linux 6.17 and 6.18 want to be told: they take a TUN's packets to begin with an Ethernet header and refuse
    /// the true offset of the UDP header. It is used for nothing else: the IP layer finds the UDP header by itself.
    pub fn outerTransportFor(outer_transport: u16) u16 {
        return outer_transport + ethernet_length;
    }

    const ethernet_length = 14;

    /// Copies the header out of a buffer of any alignment.
    pub fn parse(bytes: *const [length]u8) VnetHeader {
        var header: VnetHeader = .{};
        std.mem.asBytes(&header)[0..length].* = bytes.*;
        return header;
    }

    pub fn asBytes(header: *const VnetHeader) *const [length]u8 {
        return std.mem.asBytes(header)[0..length];
    }
};

comptime {
    std.debug.assert(VnetHeader.tunnel_length == 24);
    std.debug.assert(@offsetOf(VnetHeader, "num_buffers") == VnetHeader.length);
}

test "a header survives its bytes" {
    const header: VnetHeader = .{
        .flags = VnetHeader.NEEDS_CSUM,
        .gso_type = VnetHeader.GSO_TCPV6,
        .hdr_len = 60,
        .gso_size = 1360,
        .csum_start = 40,
        .csum_offset = 16,
    };
    const bytes = header.asBytes();
    try std.testing.expectEqual(header, VnetHeader.parse(bytes));
    try std.testing.expectEqual(1360, std.mem.readInt(u16, bytes[4..6], .native));
    const zero: VnetHeader = .{};
    try std.testing.expect(std.mem.allEqual(u8, zero.asBytes(), 0));
}

test "offsets of a tunnel lie where the kernel has them" {
    const header: VnetHeader = .{ .outer_transport = 0x1122, .inner_network = 0x3344 };
    const bytes = std.mem.asBytes(&header);
    try std.testing.expectEqual(0x1122, std.mem.readInt(u16, bytes[20..22], .native));
    try std.testing.expectEqual(0x3344, std.mem.readInt(u16, bytes[22..24], .native));
}
