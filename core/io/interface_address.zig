//! Addresses of an interface, by rtnetlink in the thread's own network namespace.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const netlink = @import("netlink.zig");
pub const Error = netlink.Error;

const linux = std.os.linux;

/// One more, or the same again.
pub fn add(interface_index: u32, prefix: wire.Prefix) Error!void {
    var request: netlink.Request = .init(rtm_newaddr, sys.NLM_F_ACK | nlm_f_create | nlm_f_replace);
    request.putHeader(AddressMessage{
        .family = switch (prefix.address.family) {
            .ipv4 => linux.AF.INET,
            .ipv6 => linux.AF.INET6,
        },
        .length = prefix.length,
        .index = interface_index,
    });
    request.putAttribute(ifa_local, prefix.address.slice());
    request.putAttribute(ifa_address, prefix.address.slice());
    var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
    _ = try request.exchange(&buffer);
}

/// struct ifaddrmsg of <linux/if_addr.h>.
const AddressMessage = extern struct { family: u8, length: u8, flags: u8 = 0, scope: u8 = 0, index: u32 };

const rtm_newaddr = 20;
const ifa_address = 1;
const ifa_local = 2;
const nlm_f_replace = 0x100;
const nlm_f_create = 0x400;

const testing = std.testing;

test "an address of each family is there, and once more does no harm" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    const link = @import("link.zig");
    const loopback = try link.index("lo");
    const route = @import("route.zig");
    var lookup: route.Lookup = try .open();
    defer lookup.close();
    for ([_][]const u8{ "192.0.2.1/24", "fd00:1::1/64" }) |text| {
        const prefix = wire.Prefix.parse(text).?;
        try testing.expectEqual(null, try lookup.interfaceTo(prefix.address, null, 0, 0));
        add(loopback, prefix) catch |err| switch (err) {
            error.PermissionDenied => return error.SkipZigTest, // a kernel without IPv6
            else => return err,
        };
        try add(loopback, prefix);
        try testing.expectEqual(loopback, try lookup.interfaceTo(prefix.address, null, 0, 0));
    }
    try testing.expectError(error.NotFound, add(12345, wire.Prefix.parse("192.0.2.1/24").?));
}
