//! Watch: whether trains get lost where single datagrams arrive. Some kernels, cards and hypervisors damage or drop
//! datagrams that were handed over as a train, and say nothing. What is lost shows in the TCP inside the tunnel, which
//! sends it again. A peer whose superpackets are often sent again is put to a test: chance decides for each of them
//! whether it goes as a train or as single datagrams. Only if those fare far better are trains to blame; congestion, a
//! dead path or a forger strikes both alike.
//! Knows packets and peers, not sockets or addresses outside.
//! Invariant: a peer is convicted only by superpackets of one test, about as many of either form.
const std = @import("std");
const protocol = @import("protocol");
const wire = @import("wire");
const ip = wire.ip;
const Tcp = wire.transport.Tcp;
const PeerId = protocol.PeerId;
const second = std.time.ns_per_s;

pub const Form = enum(u1) { train, singles };

/// How a superpacket is sent. Packets that differ in any of it share no train.
pub const Manner = struct {
    form: Form = .train,
    /// Not 0 in a test, and then another for each: what befalls a train befalls one superpacket.
    mark: u8 = 0,
};

/// Superpackets remembered of a flow: 4 MiB on the way.
const ranges_max = 64;
/// TCP connections that send superpackets at a time.
const flows_max = 64;
/// One that was silent for so long makes way for another.
const flow_idle_ns = second / 4;
const suspects_max = 16;

/// Trains sent again in a row, or of the last eight, that make a peer suspect.
const in_a_row = 3;
const of_eight = 4;
const test_max_ns = 30 * second;

/// What is enough to convict: so many superpackets of either form, at least this part of the trains lost, and at most
/// this part of the singles, in percent. By chance alone a path that treats both alike meets any of these in less than
/// one of 1000 tests, whatever it loses.
const Proof = struct { count: u32, trains_lost: u32, singles_lost: u32 };
const proofs = [_]Proof{
    .{ .count = 6, .trains_lost = 100, .singles_lost = 0 },
    .{ .count = 16, .trains_lost = 75, .singles_lost = 7 },
    .{ .count = 32, .trains_lost = 60, .singles_lost = 15 },
    .{ .count = 32, .trains_lost = 30, .singles_lost = 0 },
};
/// After an acquittal there is no test for so long, and each time twice as long.
const rest_ns = 60 * second;
const rest_doublings_max = 6;

/// Bytes of a TCP connection that one superpacket carried.
const Range = struct {
    start: u32,
    end: u32,
    form: Form,
    /// Whether it is known what became of it.
    is_judged: bool,
    /// Of the test it was sent in, or 0.
    test_number: u32,
};

const Flow = struct {
    /// 0: there is none.
    key: u64 = 0,
    peer: PeerId = undefined,
    used_ns: u64 = 0,
    /// What follows the last byte that was ever sent.
    next: u32 = 0,
    /// All superpackets so far; the latest are in `ranges`.
    count: usize = 0,
    ranges: [ranges_max]Range = undefined,
    /// The bytes that were last sent again, how often in a row, and since when.
    again: u32 = 0,
    again_count: u32 = 0,
    again_since_ns: u64 = 0,

    /// From the oldest that is remembered.
    fn firstNumber(flow: *const Flow) usize {
        return flow.count -| ranges_max;
    }

    fn at(flow: *Flow, number: usize) *Range {
        return &flow.ranges[number % ranges_max];
    }
};

/// Packets that do not arrive, as TCP has it: it waits twice as long before each further try, so that as many as
/// `stuck_after` take more than a second.
pub const Stuck = struct { peer: PeerId, length: u16, since_ns: u64 };
const stuck_after = 3;
/// A shorter one that is lost is none of those that do not fit.
const long_packet = 1000;

/// A peer of which something was sent again.
const Suspect = struct {
    /// Null: there is none.
    peer: ?PeerId = null,
    /// Of the last trains, outside of tests: set where it was sent again. The latest is the lowest bit.
    recent: u8 = 0,
    /// 0: there is no test.
    test_number: u32 = 0,
    test_ends_ns: u64 = 0,
    judged: [2]u32 = @splat(0),
    lost: [2]u32 = @splat(0),
    rests_until_ns: u64 = 0,
    rest_doublings: u6 = 0,
    is_convicted: bool = false,
};

pub const Watch = struct {
    flows: [flows_max]Flow = @splat(.{}),
    suspects: [suspects_max]Suspect = @splat(.{}),
    tests: u32 = 0,
    prng: std.Random.DefaultPrng,
    mark: u8 = 0,
    /// Somebody is.
    any_convicted: bool = false,
    /// The last that was found.
    stuck: ?Stuck = null,

    pub fn init(seed: u64) Watch {
        return .{ .prng = .init(seed) };
    }

    /// A packet for a peer, in the order of TUN. Answers how it is to be sent if it is a superpacket.
    pub fn note(watch: *Watch, peer: PeerId, packet: []const u8, is_super: bool, now_ns: u64) Manner {
        const segment = Segment.of(packet) orelse return .{};
        const flow = watch.flowOf(peer, &segment, is_super, now_ns) orelse return .{};
        flow.used_ns = now_ns;
        const end = segment.sequence +% segment.length;
        if (isBefore(segment.sequence, flow.next)) {
            watch.sentAgain(flow, segment.sequence, end, now_ns);
            if (!is_super) watch.noteAgain(flow, segment.sequence, packet.len, now_ns);
        }
        if (isBefore(flow.next, end)) flow.next = end;
        if (!is_super) return .{};
        const suspect = watch.suspectOf(peer);
        const test_number = if (suspect) |known| known.test_number else 0;
        const manner: Manner = if (test_number != 0) watch.draw() else .{};
        if (flow.count >= ranges_max) watch.judge(flow, flow.at(flow.count), false, now_ns);
        flow.at(flow.count).* = .{
            .start = segment.sequence,
            .end = end,
            .form = manner.form,
            .is_judged = false,
            .test_number = test_number,
        };
        flow.count += 1;
        return manner;
    }

    fn draw(watch: *Watch) Manner {
        watch.mark = @max(1, watch.mark +% 1);
        return .{ .form = watch.prng.random().enumValue(Form), .mark = watch.mark };
    }

    /// Once for each time that trains to a peer were found to be lost.
    pub fn takeConviction(watch: *Watch, peer: PeerId) bool {
        if (!watch.any_convicted) return false;
        const suspect = watch.suspectOf(peer) orelse return false;
        if (!suspect.is_convicted) return false;
        suspect.* = .{};
        watch.any_convicted = for (&watch.suspects) |*other| {
            if (other.is_convicted) break true;
        } else false;
        return true;
    }

    /// Single packets belong to flows that are known, but begin none.
    fn flowOf(watch: *Watch, peer: PeerId, segment: *const Segment, is_super: bool, now_ns: u64) ?*Flow {
        const key = segment.key(peer);
        const flow = &watch.flows[@intCast(key % flows_max)];
        if (flow.key == key) return flow;
        if (!is_super or flow.key != 0 and now_ns -| flow.used_ns < flow_idle_ns) return null;
        flow.key = key;
        flow.peer = peer;
        flow.next = segment.sequence;
        flow.count = 0;
        flow.again_count = 0;
        return flow;
    }

    fn suspectOf(watch: *Watch, peer: PeerId) ?*Suspect {
        const suspect = &watch.suspects[peer.index % suspects_max];
        const known = suspect.peer orelse return null;
        return if (known.eql(peer)) suspect else null;
    }

    /// What carried these bytes before was lost. What TCP left out, which was sent before and comes before in the
    /// stream, has arrived: it sends again in the order of the stream.
    fn sentAgain(watch: *Watch, flow: *Flow, start: u32, end: u32, now_ns: u64) void {
        var latest: ?usize = null;
        for (flow.firstNumber()..flow.count) |number| {
            const range = flow.at(number);
            if (!isBefore(range.start, end) or !isBefore(start, range.end)) continue;
            watch.judge(flow, range, true, now_ns);
            latest = number;
        }
        const last = latest orelse return;
        const lost_start = flow.at(last).start;
        for (flow.firstNumber()..last) |number| {
            const range = flow.at(number);
            if (!isBefore(lost_start, range.end)) watch.judge(flow, range, false, now_ns);
        }
    }

    fn noteAgain(watch: *Watch, flow: *Flow, start: u32, length: usize, now_ns: u64) void {
        if (flow.again != start or flow.again_count == 0) {
            flow.again = start;
            flow.again_count = 0;
            flow.again_since_ns = now_ns;
        }
        flow.again_count +|= 1;
        if (flow.again_count < stuck_after or length < long_packet) return;
        watch.stuck = .{
            .peer = flow.peer,
            .length = std.math.lossyCast(u16, length),
            .since_ns = flow.again_since_ns,
        };
    }

    /// Once for each time that a long packet to the peer was sent again in vain.
    pub fn takeStuck(watch: *Watch, peer: PeerId) ?Stuck {
        const stuck = watch.stuck orelse return null;
        if (!stuck.peer.eql(peer)) return null;
        watch.stuck = null;
        return stuck;
    }

    fn judge(watch: *Watch, flow: *Flow, range: *Range, is_lost: bool, now_ns: u64) void {
        if (range.is_judged) return;
        range.is_judged = true;
        const known = watch.suspectOf(flow.peer) orelse if (is_lost) watch.newSuspect(flow.peer) else null;
        const suspect = known orelse return;
        if (suspect.test_number == 0) {
            if (range.form == .train) watch.weigh(suspect, is_lost, now_ns);
        } else if (range.test_number == suspect.test_number) {
            suspect.judged[@backingInt(range.form)] += 1;
            suspect.lost[@backingInt(range.form)] += @intFromBool(is_lost);
            watch.decide(suspect, now_ns);
        }
    }

    fn newSuspect(watch: *Watch, peer: PeerId) ?*Suspect {
        const suspect = &watch.suspects[peer.index % suspects_max];
        if (suspect.peer != null and (suspect.test_number != 0 or suspect.is_convicted)) return null;
        suspect.* = .{ .peer = peer };
        return suspect;
    }

    fn weigh(watch: *Watch, suspect: *Suspect, is_lost: bool, now_ns: u64) void {
        suspect.recent = suspect.recent << 1 | @intFromBool(is_lost);
        const row = (1 << in_a_row) - 1;
        const is_suspicious = suspect.recent & row == row or @popCount(suspect.recent) >= of_eight;
        if (!is_suspicious or now_ns < suspect.rests_until_ns or suspect.is_convicted) return;
        watch.tests +%= 1;
        suspect.test_number = @max(1, watch.tests);
        suspect.test_ends_ns = now_ns + test_max_ns;
        suspect.judged = @splat(0);
        suspect.lost = @splat(0);
    }

    fn decide(watch: *Watch, suspect: *Suspect, now_ns: u64) void {
        const judged = suspect.judged;
        const lost = suspect.lost;
        const fewest = @min(judged[0], judged[1]);
        const is_guilty = for (proofs) |proof| {
            const trains_lost = 100 * lost[0] >= proof.trains_lost * judged[0];
            const singles_arrive = 100 * lost[1] <= proof.singles_lost * judged[1];
            if (fewest >= proof.count and trains_lost and singles_arrive) break true;
        } else false;
        const most = proofs[proofs.len - 1].count;
        const is_over = fewest >= most or judged[0] + judged[1] >= 4 * most or now_ns >= suspect.test_ends_ns;
        if (!is_guilty and !is_over) return;
        suspect.test_number = 0;
        suspect.recent = 0;
        suspect.is_convicted = is_guilty;
        watch.any_convicted = watch.any_convicted or is_guilty;
        if (is_guilty) return;
        suspect.rests_until_ns = now_ns +| (@as(u64, rest_ns) << suspect.rest_doublings);
        suspect.rest_doublings = @min(suspect.rest_doublings + 1, rest_doublings_max);
    }
};

/// What TCP data a packet carries. Fragments, options of IPv6 and what has no data are of no use here.
const Segment = struct {
    /// Addresses and ports.
    addresses: []const u8,
    ports: []const u8,
    sequence: u32,
    length: u32,

    fn of(bytes: []const u8) ?Segment {
        const packet = ip.Packet.parse(bytes) orelse return null;
        if (packet.protocol() != .tcp) return null;
        const upper = packet.upper() orelse return null;
        if (upper.fragmented) return null;
        const tcp = Tcp.parse(packet.bytes[upper.offset..]) orelse return null;
        const length = packet.bytes.len - upper.offset - tcp.headerLength();
        if (length == 0) return null;
        return .{
            .addresses = packet.addresses(),
            .ports = tcp.bytes[0..4],
            .sequence = tcp.sequence(),
            .length = @intCast(length),
        };
    }

    fn key(segment: *const Segment, peer: PeerId) u64 {
        const ports = std.mem.readInt(u32, segment.ports[0..4], .little);
        const hash = std.hash.Wyhash.hash(@as(u64, peer.index) << 32 | ports, segment.addresses);
        return @max(1, hash);
    }
};

/// In the numbers of TCP, which go round (RFC 9293 section 3.4).
fn isBefore(a: u32, b: u32) bool {
    return @as(i32, @bitCast(a -% b)) < 0;
}

const testing = std.testing;

/// A TCP that sends superpackets through a path, and again what the path has lost, a round at a time.
const Sender = struct {
    watch: Watch,
    random: std.Random.DefaultPrng,
    peer: PeerId = .{ .index = 5, .generation = 1 },
    time_ns: u64 = second,
    next: u32 = 0xffff_0000, // soon to go round
    convictions: u32 = 0,
    singles: u32 = 0,

    const packet_length = 10_000;
    const payload_length = packet_length - 40;

    /// The chance that a superpacket of this form loses something, out of 100.
    const Path = [2]u8;

    fn init(seed: u64) Sender {
        return .{ .watch = .init(seed), .random = .init(seed) };
    }

    fn packet(sender: *const Sender, sequence: u32) [packet_length]u8 {
        var bytes: [packet_length]u8 = @splat(0);
        bytes[0..4].* = .{ 0x45, 0, packet_length >> 8, packet_length & 0xff };
        bytes[9] = 6;
        bytes[12..20].* = .{ 10, 0, 0, 1, 10, 0, 0, @intCast(sender.peer.index) };
        std.mem.writeInt(u32, bytes[24..28], sequence, .big);
        bytes[32] = 0x50;
        return bytes;
    }

    /// Sends one superpacket, and answers whether the path lost it.
    fn put(sender: *Sender, sequence: u32, path: Path) bool {
        const bytes = sender.packet(sequence);
        const form = sender.watch.note(sender.peer, &bytes, true, sender.time_ns).form;
        sender.singles += @intFromBool(form == .singles);
        if (sender.watch.takeConviction(sender.peer)) sender.convictions += 1;
        return sender.random.random().uintLessThan(u8, 100) < path[@backingInt(form)];
    }

    /// A window of new data, and then what was lost of it, until all has arrived.
    fn round(sender: *Sender, path: Path) void {
        var window: [12]struct { sequence: u32, is_lost: bool } = undefined;
        for (&window) |*one| {
            one.* = .{ .sequence = sender.next, .is_lost = sender.put(sender.next, path) };
            sender.next +%= payload_length;
        }
        for (0..20) |_| {
            sender.time_ns += 20 * std.time.ns_per_ms;
            var any = false;
            for (&window) |*one| {
                if (!one.is_lost) continue;
                any = true;
                one.is_lost = sender.put(one.sequence, path);
            }
            if (!any) break;
        }
    }
};

test "a path that loses all trains is found out within a few rounds, one that damages most of them as well" {
    for ([_]Sender.Path{ .{ 100, 0 }, .{ 90, 2 }, .{ 95, 3 }, .{ 60, 0 } }) |path| for (0..100) |seed| {
        var sender: Sender = .init(seed);
        for (0..12) |_| {
            sender.round(path);
            if (sender.convictions != 0) break;
        } else return error.NotFoundOut;
        try testing.expect(sender.convictions != 0);
        try testing.expect(sender.time_ns < 6 * second);
    };
}

test "a path that loses either alike is not blamed on trains, and is seldom tested" {
    for ([_]Sender.Path{ .{ 100, 100 }, .{ 90, 90 }, .{ 50, 50 }, .{ 20, 20 }, .{ 5, 5 } }) |path| for (0..10) |seed| {
        var sender: Sender = .init(seed);
        for (0..2000) |_| sender.round(path);
        try testing.expectEqual(0, sender.convictions);
        try testing.expect(sender.watch.tests < 10);
    };
}

test "an outage is nobody's fault" {
    for (0..20) |seed| {
        var sender: Sender = .init(seed);
        for (0..200) |i| sender.round(if (i % 20 < 3) .{ 100, 100 } else .{ 0, 0 });
        try testing.expectEqual(0, sender.convictions);
    }
}

test "in a test each superpacket travels by itself" {
    var sender: Sender = .init(2);
    for (0..in_a_row + 1) |_| _ = sender.put(sender.next, .{ 100, 100 }); // the same again and again
    try testing.expectEqual(1, sender.watch.tests);
    var before: Manner = .{};
    for (0..300) |_| {
        const manner = sender.watch.note(sender.peer, &sender.packet(sender.next), true, sender.time_ns);
        try testing.expect(manner.mark != 0 and manner.mark != before.mark);
        before = manner;
        sender.next +%= Sender.payload_length;
        if (sender.watch.suspectOf(sender.peer).?.test_number == 0) break;
    } else return error.TestNotOver;
}

test "a path that is fine is never tested" {
    var sender: Sender = .init(1);
    for (0..10_000) |_| sender.round(.{ 0, 0 });
    try testing.expectEqual(0, sender.singles);
    try testing.expectEqual(0, sender.watch.tests);
}

test "who was found out is watched anew: a path that stays bad is found out again" {
    var sender: Sender = .init(3);
    for (0..60) |_| sender.round(.{ 100, 0 });
    try testing.expect(sender.convictions > 3);
    const found = sender.convictions;
    for (0..60) |_| sender.round(.{ 0, 0 });
    try testing.expect(sender.convictions <= found + 1);
}

test "peers, connections and packets that are no superpackets do not mix" {
    var sender: Sender = .init(4);
    const other: PeerId = .{ .index = 6, .generation = 1 };
    for (0..200) |_| {
        sender.round(.{ 100, 0 });
        var bytes = sender.packet(77);
        bytes[19] = 6;
        // The same bytes of another again and again, one by one: it began no flow.
        try testing.expectEqual(Manner{}, sender.watch.note(other, &bytes, false, sender.time_ns));
        try testing.expect(!sender.watch.takeConviction(other));
    }
    try testing.expectEqual(null, sender.watch.suspectOf(other));
}

test "what is no TCP, has no data or is cut off is left alone" {
    var watch: Watch = .init(0);
    const sender: Sender = .init(0);
    const whole = sender.packet(1);
    const peer = sender.peer;
    var udp = whole;
    udp[9] = 17;
    var fragment = whole;
    fragment[6] = 0x20;
    var acknowledgment: [40]u8 = whole[0..40].*;
    acknowledgment[2..4].* = .{ 0, 40 };
    for ([_][]const u8{ &udp, &fragment, &acknowledgment, whole[0..30], whole[0..0] }) |bytes| {
        try testing.expectEqual(Manner{}, watch.note(peer, bytes, true, second));
    }
    for (&watch.flows) |*flow| try testing.expectEqual(0, flow.key);
}

test "a long packet that is sent again alone, again and again, is told once each time" {
    var watch: Watch = .init(0);
    const sender: Sender = .init(0);
    const peer = sender.peer;
    const super = sender.packet(1000);
    _ = watch.note(peer, &super, true, second);
    var single: [1420]u8 = super[0..1420].*;
    single[2..4].* = .{ 1420 >> 8, 1420 & 0xff };
    for (1..stuck_after) |i| {
        _ = watch.note(peer, &single, false, (1 + i) * second);
        try testing.expectEqual(null, watch.takeStuck(peer));
    }
    _ = watch.note(peer, &single, false, 9 * second);
    try testing.expectEqual(null, watch.takeStuck(.{ .index = 6, .generation = 1 }));
    try testing.expectEqual(Stuck{ .peer = peer, .length = 1420, .since_ns = 2 * second }, watch.takeStuck(peer).?);
    try testing.expectEqual(null, watch.takeStuck(peer));
    // Other bytes begin anew, and short ones say nothing.
    single[24] = 0;
    std.mem.writeInt(u32, single[24..28], 2000, .big);
    _ = watch.note(peer, &single, false, 10 * second);
    try testing.expectEqual(null, watch.takeStuck(peer));
    var short: [200]u8 = super[0..200].*;
    short[2..4].* = .{ 0, 200 };
    for (0..5) |_| _ = watch.note(peer, &short, false, 11 * second);
    try testing.expectEqual(null, watch.takeStuck(peer));
}
