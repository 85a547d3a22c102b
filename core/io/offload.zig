//! What we currently believe the kernel can offload, and what it has refused: one value that TUN and
//! UDP share. Belief only goes down: a feature that failed in a way that concerns all stays off, a destination
//! that refused GSO, or on the way to which trains get lost, gets none for a while. Makes no system call.
//! Invariant: every feature can be switched off from outside, and the user can see each state and its cause.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");

const SocketAddress = wire.SocketAddress;

/// The bits are PYWG_OFFLOAD_* of pywg.h.
pub const Feature = enum(u3) {
    /// Whole TCP superpackets through TUN, both ways.
    tun_tso,
    /// Whole UDP superpackets through TUN, both ways. Linux 6.2.
    tun_uso,
    /// UDP_SEGMENT on send. Linux 4.18.
    udp_gso,
    /// UDP_GRO on receive. Linux 5.12, the first that can be asked whether it is on.
    udp_gro,
    /// Whole superpackets inside VXLAN and Geneve through TUN, both ways. Linux 6.17, and never without `tun_tso`.
    tun_tunnel,

    pub const count = @typeInfo(Feature).@"enum".field_names.len;

    pub fn bit(feature: Feature) u32 {
        return @as(u32, 1) << @backingInt(feature);
    }
};

pub const State = enum {
    active,
    /// By option or environment.
    disabled,
    /// The kernel does not have it.
    unsupported,
    /// It was there and failed at run time.
    stepped_down,
};

pub const Counters = struct {
    /// Trains that the kernel refused and that went out as single datagrams.
    gso_resent: u64 = 0,
    /// TUN superpackets that the kernel refused and that were written packet by packet.
    tun_resent: u64 = 0,
};

/// A destination may not be reachable with GSO while plain datagrams are: the refusal is the path's.
pub const Refusal = struct {
    remote: SocketAddress,
    until_ns: u64,
    cause: Cause,
    /// How often in a row trains were found to be lost.
    times_lost: u6 = 0,
    is_told: bool = false,

    pub const Cause = enum {
        /// The device of the route is to blame (EIO), and that of other destinations may be the same.
        device,
        /// A train does not fit.
        path,
        /// The kernel takes trains, and they do not arrive.
        lost,
    };
};

/// Destinations that a device may refuse before it is taken for the device of them all: each costs a refused send.
const by_device_max = 16;

/// Destinations remembered; the one whose time ends first makes way. More narrow paths than this at
/// once cost a refused send each, no more.
const refusals_max = 64;
/// Then the path may have changed, and is tried again.
pub const refusal_time_ns = 60 * std.time.ns_per_s;
/// To find out again that trains get lost costs some of them, so the next time comes after twice as long, up to half an
/// hour.
const times_lost_max = 6;

pub const Offload = struct {
    states: [Feature.count]State = @splat(.active),
    /// Why a feature stepped down or is unsupported; SUCCESS when the kernel gave no errno.
    causes: [Feature.count]sys.E = @splat(.SUCCESS),
    counters: Counters = .{},
    refusals: [refusals_max]Refusal = undefined,
    refusals_length: usize = 0,
    /// Some refusal is not told.
    has_news: bool = false,
    /// The latest time seen, so that the report can leave out refusals that are over.
    latest_ns: u64 = 0,

    /// Features whose bit is set are never used. Unknown bits mean nothing.
    pub fn init(disable_mask: u32) Offload {
        var offload: Offload = .{};
        for (std.enums.values(Feature)) |feature| {
            if (disable_mask & feature.bit() != 0) offload.states[@backingInt(feature)] = .disabled;
        }
        return offload;
    }

    pub fn isActive(offload: *const Offload, feature: Feature) bool {
        return offload.state(feature) == .active;
    }

    pub fn state(offload: *const Offload, feature: Feature) State {
        return offload.states[@backingInt(feature)];
    }

    /// A probe found that the kernel lacks the feature.
    pub fn setUnsupported(offload: *Offload, feature: Feature, errno: sys.E) void {
        if (!offload.isActive(feature)) return;
        offload.states[@backingInt(feature)] = .unsupported;
        offload.causes[@backingInt(feature)] = errno;
    }

    /// True the first time: then the caller tells the user.
    pub fn stepDown(offload: *Offload, feature: Feature, errno: sys.E) bool {
        if (!offload.isActive(feature)) return false;
        offload.states[@backingInt(feature)] = .stepped_down;
        offload.causes[@backingInt(feature)] = errno;
        return true;
    }

    /// No GSO to this destination for a while. A path that is tried again each minute and fails again is not news.
    pub fn refuseGso(offload: *Offload, remote: SocketAddress, errno: sys.E, now_ns: u64) void {
        offload.refuse(remote, if (errno == .IO) .device else .path, now_ns);
        if (errno == .IO and offload.countByDevice(now_ns) > by_device_max) _ = offload.stepDown(.udp_gso, errno);
    }

    /// Trains to this destination do not arrive, where single datagrams do.
    pub fn loseGso(offload: *Offload, remote: SocketAddress, now_ns: u64) void {
        offload.refuse(remote, .lost, now_ns);
    }

    fn refuse(offload: *Offload, remote: SocketAddress, cause: Refusal.Cause, now_ns: u64) void {
        offload.latest_ns = @max(offload.latest_ns, now_ns);
        const known = offload.findRefusal(remote);
        const times_before: u6 = if (known) |refusal| refusal.times_lost else 0;
        const times_lost = if (cause == .lost) @min(times_before + 1, times_lost_max) else 0;
        const is_told = if (known) |refusal| refusal.is_told and refusal.cause == cause else false;
        (known orelse offload.newRefusal()).* = .{
            .remote = remote,
            .until_ns = now_ns +| (@as(u64, refusal_time_ns) << (times_lost -| 1)),
            .cause = cause,
            .times_lost = times_lost,
            .is_told = is_told,
        };
        offload.has_news = offload.has_news or !is_told;
    }

    /// A refusal that the user does not know of, once.
    pub fn takeNews(offload: *Offload) ?Refusal {
        if (!offload.has_news) return null; // nearly always
        for (offload.refusals[0..offload.refusals_length]) |*refusal| {
            if (refusal.is_told) continue;
            refusal.is_told = true;
            return refusal.*;
        }
        offload.has_news = false;
        return null;
    }

    fn countByDevice(offload: *const Offload, now_ns: u64) usize {
        var count: usize = 0;
        for (offload.refusals[0..offload.refusals_length]) |*refusal| {
            count += @intFromBool(refusal.cause == .device and refusal.until_ns > now_ns);
        }
        return count;
    }

    pub fn gsoAllowed(offload: *Offload, remote: SocketAddress, now_ns: u64) bool {
        if (!offload.isActive(.udp_gso)) return false;
        if (offload.refusals_length == 0) return true; // nearly always
        offload.latest_ns = @max(offload.latest_ns, now_ns);
        const refusal = offload.findRefusal(remote) orelse return true;
        return refusal.until_ns <= now_ns;
    }

    fn findRefusal(offload: *Offload, remote: SocketAddress) ?*Refusal {
        for (offload.refusals[0..offload.refusals_length]) |*refusal| {
            if (refusal.remote.eql(remote)) return refusal;
        }
        return null;
    }

    fn newRefusal(offload: *Offload) *Refusal {
        if (offload.refusals_length < refusals_max) {
            offload.refusals_length += 1;
            return &offload.refusals[offload.refusals_length - 1];
        }
        var oldest = &offload.refusals[0];
        for (offload.refusals[1..]) |*refusal| {
            if (refusal.until_ns < oldest.until_ns) oldest = refusal;
        }
        return oldest;
    }

    /// Another belief about the same kernel, of another worker: what either has lost is lost.
    pub fn merge(offload: *Offload, other: *const Offload) void {
        for (&offload.states, &offload.causes, other.states, other.causes) |*known, *cause, state_there, cause_there| {
            if (known.* != .active or state_there == .active) continue;
            known.* = state_there;
            cause.* = cause_there;
        }
        offload.counters.gso_resent += other.counters.gso_resent;
        offload.counters.tun_resent += other.counters.tun_resent;
        offload.latest_ns = @max(offload.latest_ns, other.latest_ns);
        for (other.refusals[0..other.refusals_length]) |*refusal| {
            const own = offload.findRefusal(refusal.remote) orelse offload.newRefusal();
            own.* = refusal.*;
        }
    }

    /// `key=value` lines for the report.
    pub fn format(offload: *const Offload, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        for (std.enums.values(Feature)) |feature| {
            const cause = offload.causes[@backingInt(feature)];
            try wire.text.print(writer, "offload_{t}={t}", .{ feature, offload.state(feature) });
            if (cause != .SUCCESS) try wire.text.print(writer, " {f}", .{sys.ErrnoName{ .code = cause }});
            try writer.writeByte('\n');
        }
        for (offload.refusals[0..offload.refusals_length]) |refusal| {
            if (refusal.until_ns <= offload.latest_ns) continue;
            const word = if (refusal.cause == .lost) "lost" else "refused";
            try wire.text.print(writer, "gso_{s}={f}\n", .{ word, refusal.remote });
        }
        try wire.text.print(writer, "gso_resent={d}\ntun_resent={d}\n", .{
            offload.counters.gso_resent,
            offload.counters.tun_resent,
        });
    }
};

/// A list such as "udp_gso,tun_tso", "all" or "" to the mask that `init` takes.
pub fn parseList(text: []const u8) error{UnknownFeature}!u32 {
    var mask: u32 = 0;
    var names = std.mem.splitScalar(u8, text, ',');
    while (names.next()) |padded| {
        const name = std.mem.trim(u8, padded, " \t");
        if (name.len == 0) continue;
        if (std.mem.eql(u8, name, "all")) {
            mask |= all;
        } else {
            const feature = std.meta.stringToEnum(Feature, name) orelse return error.UnknownFeature;
            mask |= feature.bit();
        }
    }
    return mask;
}

pub const all: u32 = (1 << Feature.count) - 1;

const testing = std.testing;

fn remoteAt(port: u16) SocketAddress {
    return .{ .address = .fromIpv4(.{ 1, 2, 3, 4 }), .port = port };
}

test "the bits are those of pywg.h" {
    try testing.expectEqual(1, Feature.tun_tso.bit());
    try testing.expectEqual(2, Feature.tun_uso.bit());
    try testing.expectEqual(4, Feature.udp_gso.bit());
    try testing.expectEqual(8, Feature.udp_gro.bit());
    try testing.expectEqual(16, Feature.tun_tunnel.bit());
}

test "lists of features parse to their bits" {
    try testing.expectEqual(0, try parseList(""));
    try testing.expectEqual(31, try parseList("all"));
    try testing.expectEqual(5, try parseList("udp_gso,tun_tso"));
    try testing.expectEqual(8, try parseList(" udp_gro , "));
    for ([_][]const u8{ "gso", "udp_gso;tun_tso", "ALL", "1" }) |text| {
        try testing.expectError(error.UnknownFeature, parseList(text));
    }
}

test "a feature steps down once and never comes back" {
    var offload: Offload = .init(Feature.tun_uso.bit());
    try testing.expect(offload.isActive(.udp_gso));
    try testing.expect(offload.stepDown(.udp_gso, .IO));
    try testing.expect(!offload.stepDown(.udp_gso, .INVAL));
    try testing.expect(!offload.stepDown(.tun_uso, .INVAL)); // disabled stays disabled
    offload.setUnsupported(.udp_gro, .NOPROTOOPT);
    offload.setUnsupported(.udp_gso, .NOPROTOOPT);
    try testing.expectEqual(.stepped_down, offload.state(.udp_gso));
    var buffer: [512]u8 = undefined;
    try testing.expectEqualStrings(
        \\offload_tun_tso=active
        \\offload_tun_uso=disabled
        \\offload_udp_gso=stepped_down EIO
        \\offload_udp_gro=unsupported ENOPROTOOPT
        \\offload_tun_tunnel=active
        \\gso_resent=0
        \\tun_resent=0
        \\
    , try std.mem.print(&buffer, "{f}", .{offload}));
}

test "a destination is refused GSO for a minute, and is news only once" {
    var offload: Offload = .init(0);
    const second = std.time.ns_per_s;
    offload.refuseGso(remoteAt(5), .MSGSIZE, 0);
    try testing.expect(offload.takeNews().?.remote.eql(remoteAt(5)));
    try testing.expect(!offload.gsoAllowed(remoteAt(5), 59 * second));
    try testing.expect(offload.gsoAllowed(remoteAt(6), 59 * second));
    var buffer: [512]u8 = undefined;
    const report = try std.mem.print(&buffer, "{f}", .{offload});
    try testing.expect(std.mem.find(u8, report, "gso_refused=1.2.3.4:5\n") != null);
    try testing.expect(offload.gsoAllowed(remoteAt(5), 60 * second));
    const later = try std.mem.print(&buffer, "{f}", .{offload});
    try testing.expect(std.mem.find(u8, later, "gso_refused") == null);
    offload.refuseGso(remoteAt(5), .MSGSIZE, 60 * second);
    try testing.expectEqual(null, offload.takeNews());
    try testing.expect(!offload.gsoAllowed(remoteAt(5), 119 * second));
}

test "where trains get lost they are tried again, each time after twice as long" {
    var offload: Offload = .init(0);
    offload.refuseGso(remoteAt(5), .MSGSIZE, 0);
    var time_ns: u64 = refusal_time_ns;
    for ([_]u64{ 1, 2, 4, 8, 16, 32, 32, 32 }) |minutes| {
        offload.loseGso(remoteAt(5), time_ns);
        time_ns += minutes * refusal_time_ns;
        try testing.expect(!offload.gsoAllowed(remoteAt(5), time_ns - 1));
        try testing.expect(offload.gsoAllowed(remoteAt(5), time_ns));
    }
    // Lost is news where refused was known.
    try testing.expectEqual(.lost, offload.takeNews().?.cause);
    try testing.expectEqual(null, offload.takeNews());
    offload.loseGso(remoteAt(5), time_ns);
    var buffer: [512]u8 = undefined;
    const report = try std.mem.print(&buffer, "{f}", .{offload});
    try testing.expect(std.mem.find(u8, report, "gso_lost=1.2.3.4:5\n") != null);
}

test "a device that refuses one destination spares the others, until it has refused many" {
    var offload: Offload = .init(0);
    for (0..by_device_max) |i| {
        for (0..2) |_| offload.refuseGso(remoteAt(@intCast(i)), .IO, i);
        try testing.expect(!offload.gsoAllowed(remoteAt(@intCast(i)), i + 1));
        try testing.expect(offload.gsoAllowed(remoteAt(1000), i + 1));
    }
    // Those of long ago do not count, nor do narrow paths.
    offload.refuseGso(remoteAt(1000), .MSGSIZE, 1000);
    try testing.expect(offload.isActive(.udp_gso));
    offload.refuseGso(remoteAt(1001), .IO, 2 * refusal_time_ns);
    try testing.expect(offload.isActive(.udp_gso));
    for (0..by_device_max) |i| offload.refuseGso(remoteAt(@intCast(i)), .IO, 2 * refusal_time_ns);
    try testing.expectEqual(.stepped_down, offload.state(.udp_gso));
    try testing.expectEqual(sys.E.IO, offload.causes[@backingInt(Feature.udp_gso)]);
}

test "what two workers believe is reported as one" {
    var ours: Offload = .init(0);
    var theirs: Offload = .init(0);
    try testing.expect(theirs.stepDown(.udp_gso, .IO));
    ours.refuseGso(remoteAt(1), .MSGSIZE, 5);
    theirs.refuseGso(remoteAt(1), .MSGSIZE, 7);
    theirs.refuseGso(remoteAt(2), .MSGSIZE, 7);
    ours.counters.tun_resent = 1;
    theirs.counters.tun_resent = 2;
    ours.merge(&theirs);
    try testing.expectEqual(.stepped_down, ours.state(.udp_gso));
    try testing.expectEqual(2, ours.refusals_length);
    try testing.expectEqual(7 + refusal_time_ns, ours.findRefusal(remoteAt(1)).?.until_ns);
    try testing.expectEqual(3, ours.counters.tun_resent);
}

test "the table of refusals replaces the oldest" {
    var offload: Offload = .init(0);
    for (0..refusals_max + 1) |i| offload.refuseGso(remoteAt(@intCast(i)), .MSGSIZE, i);
    try testing.expect(offload.gsoAllowed(remoteAt(0), 100));
    for (1..refusals_max + 1) |i| try testing.expect(!offload.gsoAllowed(remoteAt(@intCast(i)), 100));
    try testing.expectEqual(refusals_max, offload.refusals_length);
}
