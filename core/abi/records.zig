//! Records that a caller takes in an array: what happened, and what was counted. They hold no secrets.
//! The caller says how long its records are, so that ours may grow at the end. Contracts are in include/pywg.h.
const std = @import("std");
const device = @import("device");
const Endpoint = @import("packet.zig").Endpoint;
const protocol = @import("protocol");

const no_endpoint: Endpoint = .{ .family = 0, .reserved = 0, .port = 0, .scope_id = 0, .address = @splat(0) };

const Kind = enum(u32) {
    lost = 0,
    handshake = 1,
    endpoint = 2,
    stale = 3,
    gone = 4,
    stepped_down = 5,
    port_failed = 6,
    healed = 7,
    removed = 8,
    trouble = 9,
};

pub const Event = extern struct {
    kind: Kind,
    os_errno: i32 = 0,
    lost: u64 = 0,
    offload: u32 = 0,
    port: u32 = 0,
    public_key: [32]u8 = @splat(0),
    endpoint: Endpoint = no_endpoint,

    pub fn from(event: device.Event) Event {
        return switch (event) {
            .lost => |count| .{ .kind = .lost, .lost = count },
            .handshake => |key| .{ .kind = .handshake, .public_key = key },
            .endpoint => |moved| .{
                .kind = .endpoint,
                .public_key = moved.peer,
                .endpoint = .from(moved.remote),
            },
            .stale => |key| .{ .kind = .stale, .public_key = key },
            .gone => |key| .{ .kind = .gone, .public_key = key },
            .trouble => |what| .{
                .kind = .trouble,
                .public_key = what.peer,
                .os_errno = @intCast(@backingInt(errnoOf(what.kind))),
            },
            .stepped_down => |what| .{
                .kind = .stepped_down,
                .offload = what.offload,
                .os_errno = what.errno,
                .endpoint = if (what.remote) |remote| .from(remote) else no_endpoint,
            },
            .port_failed => |what| .{ .kind = .port_failed, .port = what.port, .os_errno = what.errno },
            .healed => |what| .{ .kind = .healed, .port = what.port },
            .removed => .{ .kind = .removed },
        };
    }
};

/// What C has a name for.
fn errnoOf(kind: protocol.notices.Kind) std.os.linux.E {
    return switch (kind) {
        .no_answer, .over, .no_peer, .stranger, .other_key, .disallowed_source, .hole => .TIMEDOUT,
        .wrong_answer => .KEYREJECTED,
        .under_load => .BUSY,
        .port_unreachable => .CONNREFUSED,
        .host_unreachable => .HOSTUNREACH,
        .net_unreachable, .no_route => .NETUNREACH,
        .prohibited => .ACCES,
        .too_big => .MSGSIZE,
        .not_let_out => .PERM,
        .unconfirmed => .PROTO,
        .old_timestamp => .TIME,
    };
}

pub const PeerCounters = extern struct {
    public_key: [32]u8,
    endpoint: Endpoint,
    last_handshake_unix_ns: u64,
    rx_bytes: u64,
    tx_bytes: u64,

    pub fn from(peer: *const protocol.PeerCounters) PeerCounters {
        return .{
            .public_key = peer.public_key,
            .endpoint = if (peer.endpoint) |remote| .from(remote) else no_endpoint,
            .last_handshake_unix_ns = peer.last_handshake_unix_ns,
            .rx_bytes = peer.rx_bytes,
            .tx_bytes = peer.tx_bytes,
        };
    }
};

/// A caller's array of records of type `Record`, each `size` bytes long.
pub fn Array(comptime Record: type) type {
    return struct {
        bytes: [*]u8,
        size: usize,
        count: usize,

        const Self = @This();

        /// Null when they cannot be written there. No array is fine for none.
        pub fn of(pointer: ?*anyopaque, size: usize, count: usize) ?Self {
            if (size < @sizeOf(Record) or size % @alignOf(Record) != 0) return null;
            _ = std.math.mul(usize, size, count) catch return null;
            if (count == 0) return .{ .bytes = undefined, .size = size, .count = 0 };
            const given = pointer orelse return null;
            if (@intFromPtr(given) % @alignOf(Record) != 0) return null;
            return .{ .bytes = @ptrCast(given), .size = size, .count = count };
        }

        /// What the caller's records have and ours have not is zero.
        pub fn put(array: *const Self, i: usize, record: *const Record) void {
            std.debug.assert(i < array.count);
            const target = array.bytes[i * array.size ..][0..array.size];
            @memcpy(target[0..@sizeOf(Record)], std.mem.asBytes(record));
            @memset(target[@sizeOf(Record)..], 0);
        }
    };
}

test "records are as long as the caller says, and a caller that is wrong gets none" {
    const Records = Array(PeerCounters);
    var room: [3 * 88]u8 align(8) = @splat(0xaa);
    const record: PeerCounters = .{
        .public_key = @splat(1),
        .endpoint = no_endpoint,
        .last_handshake_unix_ns = 2,
        .rx_bytes = 3,
        .tx_bytes = 4,
    };
    const array = Records.of(&room, 88, 3).?;
    array.put(1, &record);
    try std.testing.expect(std.mem.allEqual(u8, room[0..88], 0xaa));
    try std.testing.expectEqualSlices(u8, std.mem.asBytes(&record), room[88..][0..80]);
    try std.testing.expect(std.mem.allEqual(u8, room[88 + 80 .. 176], 0));
    try std.testing.expect(std.mem.allEqual(u8, room[176..], 0xaa));
    try std.testing.expect(Records.of(null, 80, 0) != null);
    try std.testing.expectEqual(null, Records.of(null, 80, 1));
    try std.testing.expectEqual(null, Records.of(&room, 79, 1));
    try std.testing.expectEqual(null, Records.of(&room, 80 + @alignOf(PeerCounters) / 2, 1));
    try std.testing.expectEqual(null, Records.of(&room[1], 80, 1));
    try std.testing.expectEqual(null, Records.of(&room, 88, std.math.maxInt(usize)));
}
