//! Notice log: what becomes of notices in the log: one line when something begins, one when it is over.
//! Invariant: however much is noted, so many lines in a window and no more. Strangers have few of their own. What is
//! said of peers waits for its turn; what is left out, since it found no room to wait, or was a stranger's, is counted.
const std = @import("std");
const io = @import("io");
const Log = @import("log.zig").Log;
const protocol = @import("protocol");
const wire = @import("wire");
const notices = protocol.notices;
const Instant = protocol.Instant;

const Allowance = struct {
    lines_max: u32,
    window_ns: u64,
    window: Instant = .{ .ns = 0 },
    lines: u32 = 0,
    left_out: u64 = 0,

    /// Whether a line may be written now. In a new window there is first one about those before it.
    fn allows(allowance: *Allowance, log: *Log, now: Instant) bool {
        if (now.since(allowance.window) >= allowance.window_ns) {
            if (allowance.left_out != 0) log.err("{d} more lines of this kind were left out", .{allowance.left_out});
            allowance.window = now;
            allowance.lines = 0;
            allowance.left_out = 0;
        }
        return allowance.lines < allowance.lines_max;
    }

    fn write(allowance: *Allowance, log: *Log, notice: *const notices.Notice) void {
        allowance.lines += 1;
        log.err("{f}", .{Line{ .notice = notice }});
    }
};

pub const NoticeLog = struct {
    peers: Allowance = .{ .lines_max = 10, .window_ns = 10 * std.time.ns_per_s },
    strangers: Allowance = .{ .lines_max = 3, .window_ns = std.time.ns_per_min },
    /// Until then no line about a peer is let through, in seconds of the boot clock: 32 bits are read without the mutex
    /// on every machine.
    peers_wait_until_s: std.atomic.Value(u32) = .init(0),

    /// Whether `tell` has something to do. For whoever may not wait: it may be wrong for a moment.
    pub fn wants(self: *const NoticeLog, noted: *const notices.Notices, now: Instant) bool {
        if (noted.hasNewsOfStrangers()) return true;
        return noted.hasNewsOfPeers() and now.ns / std.time.ns_per_s >= self.peers_wait_until_s.load(.monotonic);
    }

    pub fn tell(self: *NoticeLog, log: *Log, noted: *notices.Notices, now: Instant) void {
        const peers = &self.peers;
        if (noted.hasNewsOfPeers()) {
            peers.left_out +|= noted.takeUntoldOfPeers();
            while (peers.allows(log, now)) {
                const entry = noted.takeNewsOfPeers() orelse break;
                peers.write(log, &entry.notice);
            } else {
                const end_ns = peers.window.ns +| peers.window_ns;
                const end_s = std.math.divCeil(u64, end_ns, std.time.ns_per_s) catch unreachable;
                self.peers_wait_until_s.store(std.math.lossyCast(u32, end_s), .monotonic);
            }
        }
        while (noted.takeNewsOfStrangers()) |entry| {
            if (self.strangers.allows(log, now)) {
                self.strangers.write(log, &entry.notice);
            } else self.strangers.left_out +|= 1;
        }
    }
};

const Line = struct {
    notice: *const notices.Notice,

    pub fn format(line: Line, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        const notice = line.notice;
        const remote: Remote = .{ .notice = notice };
        if (notice.kind.isOfPeer()) try wire.text.print(writer, "peer {f}: ", .{Key{ .bytes = &notice.key }});
        switch (notice.kind) {
            .no_peer => try wire.text.print(
                writer,
                "no peer has {f} in its AllowedIPs: packets to it are dropped",
                .{notice.address.?},
            ),
            .stranger => try wire.text.print(
                writer,
                "a handshake from {f} was refused: its public key {f} is no peer's here",
                .{ remote, Key{ .bytes = &notice.key } },
            ),
            .other_key => try wire.text.print(
                writer,
                "a handshake from {f} was refused: it is for another public key than ours",
                .{remote},
            ),
            .no_answer => try wire.text.print(
                writer,
                "no answer from {f} to {d} handshakes; it is tried again",
                .{ remote, protocol.attempts.asked_in_vain },
            ),
            .wrong_answer => try wire.text.print(
                writer,
                "{f} answers by another preshared key, or by other keys than these",
                .{remote},
            ),
            .under_load => try wire.text.print(writer, "{f} is under load and asks for a cookie", .{remote}),
            .port_unreachable => try line.network(writer, "nobody listens on that port"),
            .host_unreachable => try line.network(writer, "the host cannot be reached"),
            .net_unreachable => try line.network(writer, "the network cannot be reached"),
            .prohibited => try line.network(writer, "a firewall forbids it"),
            .too_big => {
                try line.network(writer, "the packets are too long");
                if (notice.mtu != 0) try wire.text.print(writer, ", the path takes {d} bytes", .{notice.mtu});
            },
            .no_route => try wire.text.print(writer, "this host has no route to {f}", .{remote}),
            .not_let_out => try wire.text.print(writer, "a firewall of this host lets nothing out to {f}", .{remote}),
            .unconfirmed => try wire.text.print(
                writer,
                "handshakes from {f} were answered and never confirmed: " ++
                    "its preshared key is another, or our answers do not arrive",
                .{remote},
            ),
            .old_timestamp => try wire.text.print(
                writer,
                "a handshake from {f} was refused: it is older than one before; " ++
                    "its clock was set back, or it was repeated",
                .{remote},
            ),
            .disallowed_source => try wire.text.print(
                writer,
                "packets from {f} are dropped: it is not in the peer's AllowedIPs",
                .{notice.address.?},
            ),
            .hole => try wire.text.print(
                writer,
                "packets of {d} bytes seem not to arrive, while shorter ones come back: a lower MTU may help",
                .{notice.mtu},
            ),
            .over => try wire.text.print(writer, "there is a session again", .{}),
        }
    }

    fn network(line: Line, writer: *std.Io.Writer, what: []const u8) std.Io.Writer.Error!void {
        const notice = line.notice;
        try wire.text.print(writer, "{f}: {s}", .{ Remote{ .notice = notice }, what });
        if (notice.address) |by| try wire.text.print(writer, " (ICMP from {f})", .{by});
    }
};

const Remote = struct {
    notice: *const notices.Notice,

    pub fn format(self: Remote, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        if (self.notice.remote) |remote| return wire.text.print(writer, "{f}", .{remote});
        try writer.writeAll("(no endpoint)");
    }
};

/// Without std.base64.standard, which has the tables of its decoder beside it.
const encoder: std.base64.Base64Encoder = .init(std.base64.standard_alphabet_chars, '=');

/// A public one, as wg prints it.
const Key = struct {
    bytes: *const [32]u8,

    pub fn format(key: Key, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        var text: [44]u8 = undefined;
        try writer.writeAll(encoder.encode(&text, key.bytes));
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

/// The lines that came through the pipe since this was asked last.
fn linesOf(fd: i32, buffer: []u8) []const u8 {
    const length = std.os.linux.read(fd, buffer.ptr, buffer.len);
    return if (std.os.linux.errno(length) == .SUCCESS) buffer[0..length] else "";
}

test "strangers have few lines of their own, and what is said of peers comes later where it finds no room" {
    const linux = std.os.linux;
    var ends: [2]i32 = undefined;
    if (linux.errno(linux.pipe2(&ends, .{ .CLOEXEC = true, .NONBLOCK = true })) != .SUCCESS) return error.SkipZigTest;
    defer for (ends) |fd| io.linux.close(fd);
    var log: Log = .{ .fd = ends[1], .level = .err, .name = "wg0" };
    var noted: notices.Notices = .{};
    var told: NoticeLog = .{};
    var buffer: [1 << 16]u8 = undefined;
    const start: Instant = .{ .ns = std.time.ns_per_hour };
    for (0..16) |i| noted.note(&.{ .kind = .stranger, .key = @splat(@intCast(1 + i)) }, start);
    told.tell(&log, &noted, start);
    try testing.expectEqual(3, std.mem.countScalar(u8, linesOf(ends[0], &buffer), '\n'));
    // They take no line of a peer's.
    for (0..16) |i| noted.note(&.{ .kind = .no_answer, .key = @splat(@intCast(1 + i)) }, start);
    told.tell(&log, &noted, start);
    try testing.expectEqual(10, std.mem.count(u8, linesOf(ends[0], &buffer), ": no answer from "));
    try testing.expect(!told.wants(&noted, .{ .ns = start.ns + std.time.ns_per_s }));
    // Those that wait come in the next window.
    noted.note(&.{ .kind = .no_answer, .key = @splat(100) }, .{ .ns = start.ns + std.time.ns_per_s });
    noted.note(&.{ .kind = .no_answer, .key = @splat(101) }, .{ .ns = start.ns + std.time.ns_per_s });
    const later: Instant = .{ .ns = start.ns + 10 * std.time.ns_per_s };
    try testing.expect(told.wants(&noted, later));
    told.tell(&log, &noted, later);
    const lines = linesOf(ends[0], &buffer);
    try testing.expectEqual(8, std.mem.count(u8, lines, ": no answer from "));
    try testing.expectEqual(8, std.mem.countScalar(u8, lines, '\n'));
    try testing.expect(!told.wants(&noted, later));
    // Those that found no room to wait are counted.
    for (0..20) |i| noted.note(&.{ .kind = .no_answer, .key = @splat(@intCast(120 + i)) }, later);
    told.tell(&log, &noted, later);
    try testing.expectEqual(2, std.mem.countScalar(u8, linesOf(ends[0], &buffer), '\n'));
    const minute: Instant = .{ .ns = start.ns + std.time.ns_per_min };
    told.tell(&log, &noted, minute);
    const left_out = "pywg: wg0: 4 more lines of this kind were left out\n";
    try testing.expectStringStartsWith(linesOf(ends[0], &buffer), left_out);
    noted.note(&.{ .kind = .stranger, .key = @splat(100) }, minute);
    told.tell(&log, &noted, minute);
    try testing.expectStringStartsWith(
        linesOf(ends[0], &buffer),
        "pywg: wg0: 13 more lines of this kind were left out\n",
    );
}
