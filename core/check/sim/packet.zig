//! Inner packets that say who sent what to whom, so that whoever gets one can judge it.
//! Knows addresses and bytes, not hosts or keys.
//! Invariant: `read` gives a stamp only if no byte of the packet differs from what `write` made.
const std = @import("std");
const wire = @import("wire");
const Address = wire.Address;
const Prefix = wire.Prefix;

pub const Stamp = struct { id: u64, sender: u32, receiver: u32 };

/// The mark of the whole packet, then id, sender and receiver.
const stamp_length = 8 + 8 + 4 + 4;

pub const length_min = 40 + stamp_length;
pub const length_max = 1420;

/// Who lives at this address inside: /24 and /64 of a host are its own.
pub fn addressOf(family: wire.Family, host: u32, guest: u8) Address {
    const high: u8 = @truncate(host >> 8);
    const low: u8 = @truncate(host);
    return switch (family) {
        .ipv4 => .fromIpv4(.{ 10, high, low, guest }),
        .ipv6 => .fromIpv6(.{ 0xfd, 0, 0, 0, 0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, guest }),
    };
}

pub fn networkOf(family: wire.Family, host: u32) Prefix {
    return .{ .address = addressOf(family, host, 0), .length = if (family == .ipv4) 24 else 64 };
}

pub fn write(buffer: []u8, source: Address, destination: Address, stamp: Stamp, length: usize) []u8 {
    const packet = buffer[0..length];
    @memset(packet, @truncate(stamp.id));
    const header_length = putHeader(packet, source, destination);
    const body = packet[header_length..][0..stamp_length];
    std.mem.writeInt(u64, body[8..16], stamp.id, .little);
    std.mem.writeInt(u32, body[16..20], stamp.sender, .little);
    std.mem.writeInt(u32, body[20..24], stamp.receiver, .little);
    std.mem.writeInt(u64, body[0..8], markOf(packet, body), .little);
    return packet;
}

fn putHeader(packet: []u8, source: Address, destination: Address) usize {
    switch (source.family) {
        .ipv4 => {
            packet[0] = 0x45;
            packet[1] = 0;
            std.mem.writeInt(u16, packet[2..4], @intCast(packet.len), .big);
            packet[12..16].* = source.bytes[0..4].*;
            packet[16..20].* = destination.bytes[0..4].*;
            return 20;
        },
        .ipv6 => {
            packet[0] = 0x60;
            packet[1] = 0;
            std.mem.writeInt(u16, packet[4..6], @intCast(packet.len - 40), .big);
            packet[8..24].* = source.bytes;
            packet[24..40].* = destination.bytes;
            return 40;
        },
    }
}

pub fn read(packet: []const u8) ?Stamp {
    if (packet.len < length_min or packet.len > length_max) return null;
    var copy: [length_max]u8 = undefined;
    @memcpy(copy[0..packet.len], packet);
    const start: usize = switch (packet[0]) {
        0x45 => 20,
        0x60 => 40,
        else => return null,
    };
    const body = copy[start..][0..stamp_length];
    if (std.mem.readInt(u64, body[0..8], .little) != markOf(copy[0..packet.len], body)) return null;
    return .{
        .id = std.mem.readInt(u64, body[8..16], .little),
        .sender = std.mem.readInt(u32, body[16..20], .little),
        .receiver = std.mem.readInt(u32, body[20..24], .little),
    };
}

/// Over everything, the mark's own place being zero.
fn markOf(packet: []const u8, body: *[stamp_length]u8) u64 {
    @memset(body[0..8], 0);
    return std.hash.Wyhash.hash(0, packet);
}

test "a packet is read as it was written, and not when any bit differs" {
    for ([_]wire.Family{ .ipv4, .ipv6 }) |family| {
        var buffer: [100]u8 = undefined;
        const stamp: Stamp = .{ .id = 77, .sender = 3, .receiver = 260 };
        const made = write(&buffer, addressOf(family, 3, 1), addressOf(family, 260, 9), stamp, 90);
        try std.testing.expectEqual(stamp, read(made));
        try std.testing.expectEqual(null, read(buffer[0..91]));
        try std.testing.expectEqual(null, read(buffer[0..89]));
        for (0..90 * 8) |bit| {
            made[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
            try std.testing.expectEqual(null, read(made));
            made[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
        }
    }
}
