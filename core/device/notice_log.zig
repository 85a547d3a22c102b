//! Notice log: what becomes of notices in the log: one line when something begins, one when it is over.
//! Invariant: however much is noted, so many lines in a window and no more; those left out are counted.
const std = @import("std");
const Log = @import("log.zig").Log;
const protocol = @import("protocol");
const notices = protocol.notices;

const lines_max = 10;
const window_ns = 10 * std.time.ns_per_s;

pub const NoticeLog = struct {
    window: protocol.Instant = .{ .ns = 0 },
    lines: u32 = 0,
    left_out: u64 = 0,

    pub fn tell(self: *NoticeLog, log: *Log, notice: *const notices.Notice, now: protocol.Instant) void {
        if (now.since(self.window) >= window_ns) {
            if (self.left_out != 0) log.err("{d} more lines of this kind were left out", .{self.left_out});
            self.* = .{ .window = now };
        }
        if (self.lines == lines_max) {
            self.left_out += 1;
            return;
        }
        self.lines += 1;
        log.err("{f}", .{Line{ .notice = notice }});
    }
};

const Line = struct {
    notice: *const notices.Notice,

    pub fn format(line: Line, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        const notice = line.notice;
        const remote: Remote = .{ .notice = notice };
        if (notice.kind.isOfPeer()) try writer.print("peer {f}: ", .{Key{ .bytes = &notice.key }});
        switch (notice.kind) {
            .no_peer => try writer.print(
                "no peer has {f} in its AllowedIPs: packets to it are dropped",
                .{notice.address.?},
            ),
            .stranger => try writer.print(
                "a handshake from {f} was refused: its public key {f} is no peer's here",
                .{ remote, Key{ .bytes = &notice.key } },
            ),
            .other_key => try writer.print(
                "a handshake from {f} was refused: it is for another public key than ours",
                .{remote},
            ),
            .no_answer => try writer.print(
                "no answer from {f} to {d} handshakes; it is tried again",
                .{ remote, protocol.attempts.asked_in_vain },
            ),
            .wrong_answer => try writer.print(
                "{f} answers by another preshared key, or by other keys than these",
                .{remote},
            ),
            .under_load => try writer.print("{f} is under load and asks for a cookie", .{remote}),
            .port_unreachable => try line.network(writer, "nobody listens on that port"),
            .host_unreachable => try line.network(writer, "the host cannot be reached"),
            .net_unreachable => try line.network(writer, "the network cannot be reached"),
            .prohibited => try line.network(writer, "a firewall forbids it"),
            .too_big => {
                try line.network(writer, "the packets are too long");
                if (notice.mtu != 0) try writer.print(", the path takes {d} bytes", .{notice.mtu});
            },
            .no_route => try writer.print("this host has no route to {f}", .{remote}),
            .not_let_out => try writer.print("a firewall of this host lets nothing out to {f}", .{remote}),
            .unconfirmed => try writer.print(
                "handshakes from {f} were answered and never confirmed: " ++
                    "its preshared key is another, or our answers do not arrive",
                .{remote},
            ),
            .old_timestamp => try writer.print(
                "a handshake from {f} was refused: it is older than one before; " ++
                    "its clock was set back, or it was repeated",
                .{remote},
            ),
            .disallowed_source => try writer.print(
                "packets from {f} are dropped: it is not in the peer's AllowedIPs",
                .{notice.address.?},
            ),
            .hole => try writer.print(
                "packets of {d} bytes seem not to arrive, while shorter ones come back: a lower MTU may help",
                .{notice.mtu},
            ),
            .over => try writer.print("there is a session again", .{}),
        }
    }

    fn network(line: Line, writer: *std.Io.Writer, what: []const u8) std.Io.Writer.Error!void {
        const notice = line.notice;
        try writer.print("{f}: {s}", .{ Remote{ .notice = notice }, what });
        if (notice.address) |by| try writer.print(" (ICMP from {f})", .{by});
    }
};

const Remote = struct {
    notice: *const notices.Notice,

    pub fn format(self: Remote, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        if (self.notice.remote) |remote| return writer.print("{f}", .{remote});
        try writer.writeAll("(no endpoint)");
    }
};

/// A public one, as wg prints it.
const Key = struct {
    bytes: *const [32]u8,

    pub fn format(key: Key, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        var text: [44]u8 = undefined;
        try writer.writeAll(std.base64.standard.Encoder.encode(&text, key.bytes));
    }
};

const testing = std.testing;

test "every kind has its line, and each is one line that fits" {
    for (std.enums.values(notices.Kind)) |kind| {
        var buffer: [400]u8 = undefined;
        const notice: notices.Notice = .{
            .kind = kind,
            .key = @splat(0xaa),
            .remote = .{ .address = .fromIpv6(@splat(0x2a)), .port = 51820 },
            .address = .fromIpv6(@splat(0x2a)),
            .mtu = 1280,
        };
        const text = try std.mem.print(&buffer, "{f}", .{Line{ .notice = &notice }});
        try testing.expect(std.mem.findScalar(u8, text, '\n') == null);
    }
    const notice: notices.Notice = .{
        .kind = .port_unreachable,
        .key = @splat(0),
        .remote = .{ .address = .fromIpv4(.{ 192, 0, 2, 2 }), .port = 9 },
        .address = .fromIpv4(.{ 192, 0, 2, 2 }),
    };
    var buffer: [400]u8 = undefined;
    try testing.expectEqualStrings(
        "peer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=: 192.0.2.2:9: " ++
            "nobody listens on that port (ICMP from 192.0.2.2)",
        try std.mem.print(&buffer, "{f}", .{Line{ .notice = &notice }}),
    );
}
