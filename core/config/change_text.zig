//! The lines of a UAPI set, as they are made from a file: those of the device, then those of its peers.
//! The buffer holds keys: it is the caller's, who zeroes it.
const std = @import("std");
const protocol = @import("protocol");
const wire = @import("wire");
const notes = @import("notes.zig");
const values = @import("values.zig");

pub const Error = error{NoRoom};

/// How a running device is to become what the file says.
pub const Way = enum {
    /// As if it had no peers.
    replace,
    /// Peers that stay keep their sessions. Whoever else is there, the caller removes.
    keep,
};

/// What a file says of the device itself. Null where it says nothing.
pub const Device = struct {
    private_key: ?[32]u8 = null,
    listen_port: ?u16 = null,
    fwmark: u32 = 0,
    bind_interface: wire.binding.InterfaceName = .none,
    bind_addresses: wire.binding.Addresses = .{},

    pub fn clear(device: *Device) void {
        std.crypto.secureZero(u8, std.mem.asBytes(&device.private_key));
    }
};

/// What a section of a file says of a peer, but for its allowed IPs, which are written as they are read.
pub const Peer = struct {
    public_key: ?[32]u8 = null,
    preshared_key: ?[32]u8 = null,
    persistent_keepalive: ?u16 = null,
    /// What stands behind `endpoint=`.
    endpoint: []const u8 = "",
    /// The allowed IPs replace what the peer has.
    replaces: bool = true,

    pub fn clear(peer: *Peer) void {
        std.crypto.secureZero(u8, std.mem.asBytes(&peer.preshared_key));
    }
};

pub const ChangeText = struct {
    buffer: []u8,
    way: Way,
    /// The device knows pywg's own keys.
    is_pywg: bool,
    length: usize = device_room,
    /// Where the allowed IPs of the peer begin that is being read.
    section: usize = device_room,

    /// For the lines of the device, which are written last: they may stand anywhere in a file.
    const device_room = 768;
    /// Of the lines of a peer before its allowed IPs.
    const peer_room = 640;

    /// Room that is enough for a file of this length.
    pub fn capacity(file_length: usize) usize {
        // "::," is the shortest that becomes a line of its own; no key grows as much.
        return device_room + peer_room + file_length * 8;
    }

    pub fn init(buffer: []u8, way: Way, is_pywg: bool) ChangeText {
        return .{ .buffer = buffer, .way = way, .is_pywg = is_pywg };
    }

    fn put(text: *ChangeText, parts: []const []const u8) Error!void {
        for (parts) |part| {
            if (part.len > text.buffer.len - text.length) return error.NoRoom;
            @memcpy(text.buffer[text.length..][0..part.len], part);
            text.length += part.len;
        }
    }

    pub fn beginPeer(text: *ChangeText) void {
        text.section = text.length;
    }

    pub fn allowedIp(text: *ChangeText, allowed: values.AllowedIp) Error!void {
        var spelling: [64]u8 = undefined;
        const sign: []const u8 = if (allowed.sign == .minus) "-" else "";
        try text.put(&.{ "allowed_ip=", sign, values.spelled(allowed.prefix, &spelling), "\n" });
    }

    /// The other lines of the peer, which go before those.
    pub fn endPeer(text: *ChangeText, peer: *const Peer) Error!void {
        var room: [peer_room]u8 = undefined;
        defer std.crypto.secureZero(u8, &room);
        var head: Lines = .{ .buffer = &room };
        head.key("public_key=", &(peer.public_key orelse return));
        if (peer.preshared_key) |*preshared_key| {
            head.key("preshared_key=", preshared_key);
        } else if (text.way == .keep) head.key("preshared_key=", &@as([32]u8, @splat(0)));
        if (peer.endpoint.len > 0) head.put(&.{ "endpoint=", peer.endpoint, "\n" });
        if (peer.persistent_keepalive orelse if (text.way == .keep) @as(?u16, 0) else null) |seconds|
            head.number("persistent_keepalive_interval=", seconds);
        if (peer.replaces) head.put(&.{"replace_allowed_ips=true\n"});
        const lines = head.written();
        if (lines.len > text.buffer.len - text.length) return error.NoRoom;
        const allowed = text.buffer[text.section..text.length];
        std.mem.copyBackwards(u8, text.buffer[text.section + lines.len ..][0..allowed.len], allowed);
        @memcpy(text.buffer[text.section..][0..lines.len], lines);
        text.length += lines.len;
    }

    /// Whole, once all peers are there.
    pub fn finish(text: *ChangeText, device: *const Device) []u8 {
        var room: [device_room]u8 = undefined;
        defer std.crypto.secureZero(u8, &room);
        var head: Lines = .{ .buffer = &room };
        head.key("private_key=", &(device.private_key orelse @as([32]u8, @splat(0))));
        if (device.listen_port orelse if (text.way == .replace) @as(?u16, 0) else null) |port|
            head.number("listen_port=", port);
        head.number("fwmark=", device.fwmark);
        const is_bound = !device.bind_interface.isEmpty() or !device.bind_addresses.isEmpty();
        if (text.is_pywg or is_bound)
            head.put(&.{ "pywg_bind_device=", device.bind_interface.slice(), "\npywg_bind_address=\n" });
        for ([_]?wire.Address{ device.bind_addresses.ipv4, device.bind_addresses.ipv6 }) |bound| {
            var spelling: [64]u8 = undefined;
            if (bound) |address| head.put(&.{ "pywg_bind_address=", values.spelled(address, &spelling), "\n" });
        }
        if (text.way == .replace) head.put(&.{"replace_peers=true\n"});
        const lines = head.written();
        const start = device_room - lines.len;
        @memcpy(text.buffer[start..device_room], lines);
        return text.buffer[start..text.length];
    }
};

/// A few lines, for which there is room.
const Lines = struct {
    buffer: []u8,
    length: usize = 0,

    fn put(lines: *Lines, parts: []const []const u8) void {
        for (parts) |part| {
            @memcpy(lines.buffer[lines.length..][0..part.len], part);
            lines.length += part.len;
        }
    }

    fn key(lines: *Lines, name: []const u8, bytes: *const [32]u8) void {
        lines.put(&.{name});
        protocol.uapi.encodeHex(bytes, lines.buffer[lines.length..][0..64]);
        lines.length += 64;
        lines.put(&.{"\n"});
    }

    fn number(lines: *Lines, name: []const u8, value: u32) void {
        var digits: [20]u8 = undefined;
        lines.put(&.{ name, notes.decimal(value, &digits), "\n" });
    }

    fn written(lines: *const Lines) []const u8 {
        return lines.buffer[0..lines.length];
    }
};
