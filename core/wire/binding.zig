//! Binding: what the sockets of a device are held to besides their port: an interface, and one address of each family.
//! Values only: io/ asks the kernel for it, and knows whether there is such an interface or address.
//! Invariant: bytes of a name beyond its length are zero, so values compare bytewise.
const std = @import("std");
const address_file = @import("address.zig");
const Address = address_file.Address;
const Family = address_file.Family;

pub const Binding = struct {
    interface: InterfaceName = .none,
    addresses: Addresses = .{},

    pub fn isEmpty(binding: *const Binding) bool {
        return binding.interface.isEmpty() and binding.addresses.isEmpty();
    }

    pub fn eql(a: *const Binding, b: *const Binding) bool {
        return std.meta.eql(a.*, b.*);
    }

    /// Whether sockets of both would stand in each other's way on one port: whatever is not named, or named as the
    /// unspecified address, overlaps with all.
    pub fn overlaps(a: *const Binding, b: *const Binding, family: Family) bool {
        if (!a.addresses.admit(family) or !b.addresses.admit(family)) return false;
        const any: Address = .{ .family = family, .bytes = @splat(0) };
        const one = a.addresses.get(family) orelse any;
        const other = b.addresses.get(family) orelse any;
        if (!one.eql(any) and !other.eql(any) and !one.eql(other)) return false;
        return a.interface.isEmpty() or b.interface.isEmpty() or std.meta.eql(a.interface, b.interface);
    }
};

/// As the kernel has it: at most 15 bytes, and none that a path, an alias or a line could end at.
pub const InterfaceName = struct {
    bytes: [length_max]u8,
    length: u8,

    pub const length_max = 15;
    pub const none: InterfaceName = .{ .bytes = @splat(0), .length = 0 };

    /// Empty text is `none`; null when no interface can be called that.
    pub fn parse(text: []const u8) ?InterfaceName {
        if (text.len > length_max) return null;
        if (std.mem.eql(u8, text, ".") or std.mem.eql(u8, text, "..")) return null;
        for (text) |byte| {
            if (byte == '/' or byte == ':' or std.ascii.isWhitespace(byte) or std.ascii.isControl(byte)) return null;
        }
        var name = none;
        @memcpy(name.bytes[0..text.len], text);
        name.length = @intCast(text.len);
        return name;
    }

    pub fn slice(name: *const InterfaceName) []const u8 {
        return name.bytes[0..name.length];
    }

    pub fn isEmpty(name: *const InterfaceName) bool {
        return name.length == 0;
    }
};

/// With any address given, a family that has none gets no socket: nothing leaves from where nobody asked it to.
pub const Addresses = struct {
    ipv4: ?Address = null,
    ipv6: ?Address = null,

    pub fn get(addresses: *const Addresses, family: Family) ?Address {
        return switch (family) {
            .ipv4 => addresses.ipv4,
            .ipv6 => addresses.ipv6,
        };
    }

    pub fn put(addresses: *Addresses, address: Address) void {
        switch (address.family) {
            .ipv4 => addresses.ipv4 = address,
            .ipv6 => addresses.ipv6 = address,
        }
    }

    pub fn isEmpty(addresses: *const Addresses) bool {
        return addresses.ipv4 == null and addresses.ipv6 == null;
    }

    /// Whether the family gets a socket.
    pub fn admit(addresses: *const Addresses, family: Family) bool {
        return addresses.isEmpty() or addresses.get(family) != null;
    }
};

const testing = std.testing;

test "names are what the kernel takes, and nothing else" {
    for ([_][]const u8{ "e", "eth0", "wg-home", "0123456789abcde", "br.100", "..." }) |text| {
        try testing.expectEqualStrings(text, InterfaceName.parse(text).?.slice());
    }
    try testing.expect(InterfaceName.parse("").?.isEmpty());
    for ([_][]const u8{ "0123456789abcdef", ".", "..", "a/b", "eth0:1", "a b", "a\tb", "a\x00", "\x7f" }) |text| {
        try testing.expectEqual(null, InterfaceName.parse(text));
    }
}

test "an address of one family keeps the other without a socket" {
    var addresses: Addresses = .{};
    try testing.expect(addresses.admit(.ipv4) and addresses.admit(.ipv6));
    addresses.put(Address.parse("2001:db8::1").?);
    try testing.expect(!addresses.admit(.ipv4) and addresses.admit(.ipv6));
    addresses.put(Address.parse("192.0.2.1").?);
    try testing.expect(addresses.admit(.ipv4) and addresses.admit(.ipv6));
    try testing.expect(addresses.get(.ipv4).?.eql(Address.parse("192.0.2.1").?));
}

test "bindings with equal words are equal" {
    var a: Binding = .{};
    try testing.expect(a.isEmpty() and a.eql(&.{}));
    a.interface = InterfaceName.parse("eth0").?;
    try testing.expect(!a.isEmpty() and !a.eql(&.{}));
    try testing.expect(a.eql(&.{ .interface = InterfaceName.parse("eth0").? }));
    a.addresses.put(Address.parse("192.0.2.1").?);
    try testing.expect(!a.eql(&.{ .interface = InterfaceName.parse("eth0").? }));
}

test "bindings overlap unless both name an interface, or an address of the family, and not the same" {
    var all: Binding = .{};
    var first: Binding = .{ .interface = InterfaceName.parse("eth0").? };
    var second: Binding = .{ .interface = InterfaceName.parse("eth1").? };
    try testing.expect(all.overlaps(&first, .ipv4) and first.overlaps(&all, .ipv6) and first.overlaps(&first, .ipv4));
    try testing.expect(!first.overlaps(&second, .ipv4));
    all.addresses.put(Address.parse("192.0.2.1").?);
    try testing.expect(all.overlaps(&first, .ipv4) and first.overlaps(&all, .ipv4));
    try testing.expect(!all.overlaps(&first, .ipv6)); // it has no socket there
    first.addresses.put(Address.parse("192.0.2.2").?);
    try testing.expect(!all.overlaps(&first, .ipv4));
    second.addresses.put(Address.parse("192.0.2.1").?);
    try testing.expect(all.overlaps(&second, .ipv4));
    all.addresses.put(Address.parse("0.0.0.0").?);
    try testing.expect(all.overlaps(&first, .ipv4) and first.overlaps(&all, .ipv4));
}
