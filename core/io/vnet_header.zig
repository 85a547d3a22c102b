//! The virtio-net header before each packet of a TUN opened with IFF_VNET_HDR (include/linux/virtio_net.h).
//! Knows the layout and the values pywg negotiates; what they demand of a packet is in gso.zig and gro.zig.
//! Invariant: ten bytes in native byte order, which is the kernel's default until TUNSETVNETLE or TUNSETVNETBE.
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

    pub const length = 10;

    pub const NEEDS_CSUM = 1;
    pub const DATA_VALID = 2;

    pub const GSO_NONE = 0;
    pub const GSO_TCPV4 = 1;
    /// UFO, which we never ask for: known so that it can be refused.
    pub const GSO_UDP = 3;
    pub const GSO_TCPV6 = 4;
    pub const GSO_UDP_L4 = 5;
    /// A flag beside a TCP type: the first segment carries CWR.
    pub const GSO_ECN = 0x80;

    /// Copies the header out of a buffer of any alignment.
    pub fn parse(bytes: *const [length]u8) VnetHeader {
        return std.mem.bytesToValue(VnetHeader, bytes);
    }

    pub fn asBytes(header: *const VnetHeader) *const [length]u8 {
        return std.mem.asBytes(header);
    }
};

comptime {
    std.debug.assert(@sizeOf(VnetHeader) == VnetHeader.length);
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
    try std.testing.expectEqual(1360, @as(u16, @bitCast(bytes[4..6].*)));
    const zero: VnetHeader = .{};
    try std.testing.expect(std.mem.allEqual(u8, zero.asBytes(), 0));
}
