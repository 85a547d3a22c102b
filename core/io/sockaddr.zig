//! A socket address as the kernel has it (struct sockaddr_in, sockaddr_in6), to and from wire.SocketAddress.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const linux = std.os.linux;

/// Room for the socket address of either family.
pub const Name = extern union {
    family: u16,
    ipv4: sys.SockaddrIn,
    ipv6: sys.SockaddrIn6,

    pub fn set(name: *Name, remote: wire.SocketAddress) linux.socklen_t {
        var port: [2]u8 = undefined;
        std.mem.writeInt(u16, &port, remote.port, .big);
        switch (remote.address.family) {
            .ipv4 => {
                name.ipv4 = .{ .port = port, .address = remote.address.bytes[0..4].* };
                return @sizeOf(sys.SockaddrIn);
            },
            .ipv6 => {
                name.ipv6 = .{ .port = port, .address = remote.address.bytes, .scope_id = remote.scope_id };
                return @sizeOf(sys.SockaddrIn6);
            },
        }
    }

    pub fn get(name: *const Name) ?wire.SocketAddress {
        return switch (name.family) {
            linux.AF.INET => .{
                .address = .fromIpv4(name.ipv4.address),
                .port = std.mem.readInt(u16, &name.ipv4.port, .big),
            },
            linux.AF.INET6 => .{
                .address = .fromIpv6(name.ipv6.address),
                .port = std.mem.readInt(u16, &name.ipv6.port, .big),
                .scope_id = name.ipv6.scope_id,
            },
            else => null,
        };
    }
};
