//! Three ends with known keys: b and c are peers of a. What they say is recorded, then fed again: whole, damaged,
//! cut, spliced from two, to the wrong end, from elsewhere, under load or not, with time, timers and configuration
//! moving in between. What no end ever said must be dropped under one reason and move nothing: no endpoint, no session,
//! no statistics. What was said is taken once, by whom it was meant for. At the end everyone can shake hands anew.
//! A second way in skips the AEAD, as if a peer with the right keys sent nonsense: then the inner packet is judged.
const std = @import("std");
const linux = std.os.linux;
const protocol = @import("protocol");
const wire = @import("wire");
const report = @import("report");
const Interface = protocol.Interface;
const crypto = protocol.crypto;
const messages = wire.messages;

/// What is planted to see that it is found.
const Fault = enum { none, moved_endpoint, counted_bytes, replayed, admitted, uncounted, deaf };
var fault: Fault = .none;

const second = std.time.ns_per_s;
const mtu = 1420;
const ends_count = 3;
const recorded_max = 48;
const datagram_max = 2048;

var memory: [ends_count][4 << 20]u8 = undefined;
var net: Net = undefined;
var public_keys: [ends_count][32]u8 = undefined;

pub fn prepare(wanted: ?[]const u8) bool {
    fault = std.meta.stringToEnum(Fault, wanted orelse "none") orelse return false;
    for (&public_keys, 0..) |*key, i| key.* = crypto.publicKey(&privateKey(@intCast(i)));
    return true;
}

pub fn iterate(random: std.Random) report.Error!void {
    try net.open(random);
    for (0..random.intRangeAtMost(usize, 10, 60)) |_| try net.step();
    try net.expectFreshHandshake();
}

/// One datagram to every end, before and after they have shaken hands; and as an inner packet.
pub fn replay(file: i32) report.Error!void {
    var bytes: [datagram_max]u8 = undefined;
    const length = linux.read(file, &bytes, bytes.len);
    if (linux.errno(length) != .SUCCESS) return report.mismatch("the file cannot be read", .{});
    var prng: std.Random.DefaultPrng = .init(1);
    try net.open(prng.random());
    for (0..2) |_| {
        for (&net.ends) |*end| {
            try net.arrive(end, bytes[0..length], endpointOf(77, 77), false);
            try net.arrive(end, bytes[0..length], endpointOf(77, 77), true);
        }
        try net.send(&net.ends[0], 1);
        try net.inner(&net.ends[0], bytes[0..@min(length, mtu)]);
    }
    try net.expectFreshHandshake();
}

const End = struct {
    number: u8,
    interface: Interface,
    delivered: usize = 0,
};

/// A datagram that an end really said.
const Said = struct {
    bytes: [datagram_max]u8,
    length: usize,
    from: u8,
    /// Where it was sent to, once anyone knows.
    to: u8,
    taken: bool,

    fn slice(said: *const Said) []const u8 {
        return said.bytes[0..said.length];
    }
};

const Net = struct {
    random: std.Random,
    now: protocol.Now,
    ends: [ends_count]End,
    fixed: [ends_count]std.heap.FixedBufferAllocator,
    said: [recorded_max]Said,
    said_count: usize,
    /// Nothing arrives by itself: what is said is only recorded.
    is_cut: bool,

    fn open(self: *Net, random: std.Random) report.Error!void {
        self.random = random;
        self.now = .{ .boot = .{ .ns = 1000 * second }, .unix_ns = 1_700_000_000 * second };
        self.said_count = 0;
        self.is_cut = false;
        for (&self.ends, &self.fixed, &memory, 0..) |*end, *fixed, *bytes, i| {
            fixed.* = .init(bytes);
            end.* = .{
                .number = @intCast(i),
                .interface = Interface.init(.{
                    .allocator = fixed.allocator(),
                    .entropy = .{ .context = self, .fillFn = fill },
                    .staging_chunks = 16,
                }) catch return report.mismatch("no interface could be made", .{}),
            };
            try self.configureAnew(end);
            end.interface.setActive(true);
        }
    }

    fn fill(context: ?*anyopaque, out: []u8) bool {
        const self: *Net = @ptrCast(@alignCast(context.?));
        self.random.bytes(out);
        return true;
    }

    // ---- what happens

    fn step(self: *Net) report.Error!void {
        const end = self.anyEnd();
        switch (self.random.uintLessThan(u8, 32)) {
            0...5 => try self.send(end, self.otherThan(end)),
            6, 7 => try self.pass(self.random.uintLessThan(u64, 30 * second)),
            8 => try self.pass(self.random.uintLessThan(u64, 400 * second)),
            9 => self.is_cut = !self.is_cut,
            10 => try self.reconfigure(end),
            11 => end.interface.setActive(self.random.uintLessThan(u8, 3) != 0),
            12...15 => try self.replayOne(end),
            16...18 => {
                var packet: [200]u8 = undefined;
                try self.inner(end, self.makeInner(&packet, end));
            },
            else => try self.forge(end),
        }
        try self.settle();
    }

    fn anyEnd(self: *Net) *End {
        return &self.ends[self.random.uintLessThan(usize, ends_count)];
    }

    fn otherThan(self: *Net, end: *const End) u8 {
        if (end.number != 0) return 0;
        return self.random.intRangeAtMost(u8, 1, ends_count - 1);
    }

    /// Something an end said, again, to anyone.
    fn replayOne(self: *Net, end: *End) report.Error!void {
        if (self.said_count == 0) return;
        const said = &self.said[self.random.uintLessThan(usize, @min(self.said_count, recorded_max))];
        var copy = said.bytes;
        try self.arrive(end, copy[0..said.length], self.anyEndpoint(), self.random.uintLessThan(u8, 4) == 0);
    }

    fn forge(self: *Net, end: *End) report.Error!void {
        var bytes: [datagram_max]u8 = undefined;
        const length = self.makeForgery(&bytes);
        try self.arrive(end, bytes[0..length], self.anyEndpoint(), self.random.uintLessThan(u8, 4) == 0);
    }

    fn anyEndpoint(self: *Net) wire.Endpoint {
        if (self.random.boolean()) return endpointOf(self.random.uintLessThan(u8, ends_count), 51820);
        return endpointOf(99, self.random.int(u16));
    }

    fn makeForgery(self: *Net, out: *[datagram_max]u8) usize {
        const random = self.random;
        const known = @min(self.said_count, recorded_max);
        if (known == 0 or random.uintLessThan(u8, 10) == 0) return self.makeRaw(out);
        const said = &self.said[random.uintLessThan(usize, known)];
        out.* = said.bytes;
        var length = said.length;
        for (0..random.intRangeAtMost(usize, 1, 3)) |_| switch (random.uintLessThan(u8, 8)) {
            0, 1, 2 => out[random.uintLessThan(usize, length)] ^= @as(u8, 1) << random.int(u3),
            3 => length = @max(1, random.uintAtMost(usize, length)),
            4 => { // longer, by what lies there
                length = @min(datagram_max, length + random.intRangeAtMost(usize, 1, 64));
            },
            5 => { // the tail of another
                const other = &self.said[random.uintLessThan(usize, known)];
                const at = random.uintLessThan(usize, length);
                if (other.length > at) @memcpy(out[at..other.length], other.bytes[at..other.length]);
                length = @max(at + 1, other.length);
            },
            6 => if (length >= 4) {
                out[random.uintLessThan(usize, 4)] = random.int(u8) & 7;
            },
            else => { // a field
                const at = random.uintLessThan(usize, length);
                @memset(out[at..@min(length, at + 32)], if (random.boolean()) 0 else 0xff);
            },
        };
        // MAC1 is no secret: whoever knows the public key can make it right.
        if (random.boolean()) self.fixMac(out[0..length]);
        return length;
    }

    fn makeRaw(self: *Net, out: *[datagram_max]u8) usize {
        const lengths = [_]usize{ 0, 1, 15, 16, 31, 32, 33, 63, 64, 91, 92, 93, 147, 148, 149, 1452, datagram_max };
        const length = if (self.random.boolean())
            lengths[self.random.uintLessThan(usize, lengths.len)]
        else
            self.random.uintLessThan(usize, 300);
        self.random.bytes(out[0..length]);
        if (length >= 4) out[0..4].* = .{ self.random.uintLessThan(u8, 6), 0, 0, 0 };
        if (self.random.boolean()) self.fixMac(out[0..length]);
        return length;
    }

    fn fixMac(self: *Net, datagram: []u8) void {
        const at = macOffset(datagram) orelse return;
        datagram[at..][0..16].* = macOf(self.anyEnd().number, datagram[0..at]);
    }

    fn macOffset(datagram: []const u8) ?usize {
        if (datagram.len < 4) return null;
        if (datagram.len == 148 and datagram[0] == 1) return 116;
        return if (datagram.len == 92 and datagram[0] == 2) 60 else null;
    }

    fn macOf(number: u8, bytes: []const u8) [16]u8 {
        var key: [32]u8 = undefined;
        std.crypto.hash.blake2.Blake2s256.hash(blk: {
            var text: [40]u8 = undefined;
            text[0..8].* = "mac1----".*;
            text[8..40].* = public_keys[number];
            break :blk &text;
        }, &key, .{});
        const Mac = std.crypto.hash.blake2.Blake2s128;
        var mac: [16]u8 = undefined;
        Mac.hash(bytes, &mac, .{ .key = &key });
        return mac;
    }

    // ---- the wire

    /// Feeds one datagram and judges what it did.
    fn arrive(self: *Net, end: *End, bytes: []const u8, from: wire.Endpoint, under_load: bool) report.Error!void {
        var copy: [datagram_max]u8 = undefined;
        const datagram = copy[0..bytes.len];
        @memcpy(datagram, bytes);
        const said = self.find(bytes);
        const before = stateOf(&end.interface);
        const verdict = self.receive(end, datagram, &from, under_load);
        const after = stateOf(&end.interface);
        if (verdict == .dropped) {
            if (!before.equals(&after)) return describe("a refused message moved something", end, bytes);
            if (after.drops != before.drops + 1) return describe("a refused message is not counted once", end, bytes);
            return;
        }
        if (after.drops != before.drops) return describe("an accepted message is counted as refused", end, bytes);
        if (macOffset(bytes)) |at| {
            if (!std.mem.eql(u8, bytes[at..][0..16], &macOf(end.number, bytes[0..at]))) {
                return describe("a wrong MAC1 is accepted", end, bytes);
            }
        }
        const genuine = said orelse return describe("a message that nobody said is accepted", end, bytes);
        // A cookie reply repeats itself at will, and moves nothing.
        if (bytes[0] == 3) {
            return if (before.equals(&after)) {} else describe("a cookie reply moved something", end, bytes);
        }
        if (genuine.from == end.number) return describe("an end accepts its own message", end, bytes);
        if (genuine.to != end.number) return describe("a message to another is accepted", end, bytes);
        if (genuine.taken) return describe("a message is taken twice", end, bytes);
        genuine.taken = true;
    }

    const Verdict = enum { dropped, accepted };

    fn receive(self: *Net, end: *End, datagram: []u8, from: *const wire.Endpoint, under_load: bool) Verdict {
        const verdict = self.receiveHonestly(end, datagram, from, under_load);
        if (verdict == .dropped) switch (fault) {
            .moved_endpoint => {
                for (0..end.interface.peer_high) |i| end.interface.peers.at(i).endpoint = from.*;
            },
            .counted_bytes => {
                for (0..end.interface.peer_high) |i| end.interface.peers.at(i).rx_bytes += datagram.len;
            },
            .uncounted => end.interface.counters = .{},
            .none, .replayed, .admitted, .deaf => {}, // planted elsewhere
        };
        return verdict;
    }

    fn receiveHonestly(self: *Net, end: *End, datagram: []u8, from: *const wire.Endpoint, under_load: bool) Verdict {
        const interface = &end.interface;
        switch (interface.prepareOpen(datagram, self.now)) {
            .drop => return .dropped,
            .handshake => {
                const reason = interface.handleHandshake(datagram, from, under_load, self.now);
                return if (reason == null) .accepted else .dropped;
            },
            .open => |ticket| {
                if (fault == .replayed) interface.sessions.at(ticket.slot).window = .init;
                const sealed = datagram[16..];
                const plain = sealed[0 .. sealed.len - 16];
                const is_authentic = crypto.aeadOpen(plain, ticket.key, ticket.counter, sealed, "");
                return switch (interface.finishOpen(ticket, if (is_authentic) plain else null, from, self.now)) {
                    .deliver => blk: {
                        end.delivered += 1;
                        break :blk .accepted;
                    },
                    .keepalive => .accepted,
                    .drop => .dropped,
                };
            },
        }
    }

    /// What was said with these bytes. The sender index is covered by MAC1 alone, which anyone can make who knows the
    /// public key: so the protocol has it. MAC2 is only looked at under load, and then before all else.
    fn find(self: *Net, bytes: []const u8) ?*Said {
        for (self.said[0..@min(self.said_count, recorded_max)]) |*said| {
            const head = @min(4, bytes.len);
            if (said.length != bytes.len or !std.mem.eql(u8, said.bytes[0..head], bytes[0..head])) continue;
            const mac_at = macOffset(bytes) orelse {
                if (std.mem.eql(u8, said.slice(), bytes)) return said;
                continue;
            };
            if (std.mem.eql(u8, said.bytes[8..mac_at], bytes[8..mac_at])) return said;
        }
        return null;
    }

    fn record(self: *Net, from: *const End, to: u8, bytes: []const u8) *Said {
        const said = &self.said[self.said_count % recorded_max];
        self.said_count += 1;
        said.* = .{ .bytes = @splat(0), .length = bytes.len, .from = from.number, .to = to, .taken = false };
        @memcpy(said.bytes[0..bytes.len], bytes);
        return said;
    }

    /// From `from` to whoever it is meant for, or only into the record.
    fn cross(self: *Net, from: *const End, to: u8, bytes: []const u8) report.Error!void {
        const said = self.record(from, to, bytes);
        if (self.is_cut) return;
        var copy = said.bytes;
        try self.arrive(&self.ends[to], copy[0..bytes.len], endpointOf(from.number, 51820), false);
    }

    fn settle(self: *Net) report.Error!void {
        for (0..200) |_| {
            var any = false;
            for (&self.ends) |*end| any = try self.pump(end) or any;
            if (!any) return;
        }
        return report.mismatch("the ends talk for ever", .{});
    }

    fn pump(self: *Net, end: *End) report.Error!bool {
        var buffer: [datagram_max]u8 = undefined;
        var any = false;
        while (end.interface.pollTransmit(&buffer, self.now)) |transmit| {
            any = true;
            if (transmit.length > mtu + 48) return describe("a datagram is too long", end, buffer[0..transmit.length]);
            const id = transmit.peer orelse {
                _ = self.record(end, undefined, buffer[0..transmit.length]); // a cookie reply, to whoever asked
                continue;
            };
            const to = self.whose(end, id);
            if (fault != .deaf) try self.cross(end, to, buffer[0..transmit.length]);
        }
        return any;
    }

    /// Whom a peer stands for: its endpoint may be anywhere by now.
    fn whose(self: *Net, end: *End, id: protocol.PeerId) u8 {
        _ = self;
        const public = &end.interface.get(id).?.remote.static;
        for (&public_keys, 0..) |*known, i| if (std.mem.eql(u8, public, known)) return @intCast(i);
        unreachable;
    }

    fn send(self: *Net, end: *End, to: u8) report.Error!void {
        var packet: [mtu]u8 = undefined;
        const length = self.random.intRangeAtMost(usize, 20, mtu);
        writeInner(packet[0..length], end.number, to);
        const id = switch (end.interface.route(packet[0..length])) {
            .peer => |id| id,
            .drop => return,
        };
        const padded = messages.paddedLength(length, mtu);
        switch (end.interface.reserve(id, 1, padded + messages.transport_overhead, self.now)) {
            .drop => {},
            .stage => _ = end.interface.stage(id, packet[0..length]),
            .seal => |ticket| {
                var datagram: [datagram_max]u8 = undefined;
                const header: messages.TransportHeader = .init(ticket.receiver_index, ticket.counter);
                datagram[0..16].* = std.mem.toBytes(header);
                @memcpy(datagram[16..][0..length], packet[0..length]);
                @memset(datagram[16 + length ..][0 .. padded - length], 0);
                crypto.aeadSeal(
                    datagram[16..][0 .. padded + 16],
                    ticket.key,
                    ticket.counter,
                    datagram[16..][0..padded],
                    "",
                );
                try self.cross(end, to, datagram[0 .. padded + 32]);
            },
        }
        try self.settle();
    }

    // ---- behind the AEAD

    /// As if a peer with the right keys had sealed these bytes.
    fn inner(self: *Net, end: *End, bytes: []const u8) report.Error!void {
        const interface = &end.interface;
        for (0..interface.peer_high) |i| {
            const peer = interface.peers.at(i);
            if (!peer.in_use) continue;
            const slot = peer.sessions.current orelse continue;
            const opened_by = interface.sessions.at(slot);
            var head = std.mem.toBytes(
                messages.TransportHeader.init(
                    opened_by.local_index,
                    opened_by.window.next +| self.random.uintLessThan(u64, 3),
                ),
            );
            var datagram: [32]u8 = @splat(0);
            datagram[0..16].* = head;
            head = undefined;
            const ticket = switch (interface.prepareOpen(&datagram, self.now)) {
                .open => |ticket| ticket,
                .handshake => return describe("a transport header is taken for a handshake", end, &datagram),
                .drop => continue,
            };
            var copy: [mtu]u8 = undefined;
            const plain = copy[0..bytes.len];
            @memcpy(plain, bytes);
            const from: u8 = self.whose(end, ticket.peer);
            const rx_before = peer.rx_bytes;
            const from_endpoint = endpointOf(from, 51820);
            var verdict = interface.finishOpen(ticket, plain, &from_endpoint, self.now);
            const counted = if (verdict == .drop) 0 else bytes.len + 32;
            if (peer.rx_bytes != rx_before + counted) {
                return describe("not the bytes that were accepted are counted", end, bytes);
            }
            if (fault == .admitted and verdict == .drop) verdict = .{ .deliver = plain };
            try judgeInner(end, bytes, ownsByTable(bytes, from), verdict);
        }
    }

    fn judgeInner(end: *End, bytes: []const u8, expected: ?usize, verdict: anytype) report.Error!void {
        switch (verdict) {
            .deliver => |packet| {
                const length = expected orelse
                    return describe("an inner packet is delivered that must not be", end, bytes);
                if (packet.len != length or !std.mem.eql(u8, packet, bytes[0..length])) {
                    return describe("another inner packet is delivered", end, bytes);
                }
            },
            .keepalive => if (bytes.len != 0) return describe("a packet is taken for a keepalive", end, bytes),
            .drop => if (expected != null) return describe("an inner packet is refused", end, bytes),
        }
    }

    fn makeInner(self: *Net, out: *[200]u8, end: *const End) []u8 {
        const random = self.random;
        const length = random.uintAtMost(usize, if (random.boolean()) 100 else out.len);
        const packet = out[0..length];
        random.bytes(packet);
        const from = random.uintLessThan(u8, ends_count);
        const version: u8 = if (random.uintLessThan(u8, 5) == 0) random.int(u4) else if (random.boolean()) 4 else 6;
        if (length > 0) packet[0] = version << 4 | if (random.uintLessThan(u8, 3) == 0) @as(u8, random.int(u4)) else 5;
        if (length >= 6) {
            const whole: u16 = @intCast(length);
            const claimed = switch (random.uintLessThan(u8, 6)) {
                0 => random.int(u16),
                1 => whole +% 1,
                2 => random.uintAtMost(u16, whole),
                else => whole,
            };
            const field = if (version == 6) packet[4..6] else packet[2..4];
            std.mem.writeInt(u16, field, if (version == 6) claimed -| 40 else claimed, .big);
        }
        if (version == 4 and length >= 20) packet[12..16].* = .{ 10, 0, 0, from };
        if (version == 6 and length >= 40) packet[8..24].* = .{ 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, from };
        _ = end;
        return packet;
    }

    // ---- time and configuration

    fn pass(self: *Net, duration: u64) report.Error!void {
        const until = self.now.boot.after(duration);
        for (0..2000) |_| {
            var due = until;
            for (&self.ends) |*end| if (end.interface.deadline()) |instant| {
                if (instant.isBefore(due)) due = instant;
            };
            const elapsed = due.since(self.now.boot);
            self.now.boot = self.now.boot.after(elapsed);
            self.now.unix_ns += elapsed;
            for (&self.ends) |*end| end.interface.expire(self.now);
            try self.settle();
            if (!self.now.boot.isBefore(until)) return;
        }
        return report.mismatch("timers fire for ever", .{});
    }

    /// Sessions and keys may go, but peers stay, so that what was taken once stays known.
    fn reconfigure(self: *Net, end: *End) report.Error!void {
        const number = self.otherThan(end);
        const public = public_keys[number];
        var text: [512]u8 = undefined;
        var writer: std.Io.Writer = .fixed(&text);
        switch (self.random.uintLessThan(u8, 5)) {
            0 => writer.print("private_key={x}\n", .{&@as([32]u8, @splat(0))}) catch unreachable,
            1, 2 => writer.print("private_key={x}\n", .{&privateKey(end.number)}) catch unreachable,
            else => writer.print(
                "public_key={x}\nendpoint=192.0.2.{d}:51820\npersistent_keepalive_interval={d}\n",
                .{ &public, number, self.random.uintLessThan(u8, 3) * 10 },
            ) catch unreachable,
        }
        try set(end, writer.buffered());
    }

    fn configureAnew(self: *Net, end: *End) report.Error!void {
        _ = self;
        var text: [2048]u8 = undefined;
        var writer: std.Io.Writer = .fixed(&text);
        writer.print("private_key={x}\nreplace_peers=true\n", .{&privateKey(end.number)}) catch unreachable;
        for (0..ends_count) |i| {
            const number: u8 = @intCast(i);
            if (number == end.number or (number != 0 and end.number != 0)) continue;
            const public = public_keys[number];
            writer.print(
                "public_key={x}\nendpoint=192.0.2.{d}:51820\nallowed_ip=10.0.0.{d}/32\nallowed_ip=fd00::{x}/128\n",
                .{ &public, number, number, number },
            ) catch unreachable;
        }
        try set(end, writer.buffered());
    }

    fn expectFreshHandshake(self: *Net) report.Error!void {
        self.is_cut = false;
        self.said_count = 0;
        for (&self.ends) |*end| {
            end.interface.setActive(true);
            try self.configureAnew(end);
        }
        try self.pass(300 * second);
        for (1..ends_count) |i| {
            const before = .{ self.ends[0].delivered, self.ends[i].delivered };
            try self.send(&self.ends[0], @intCast(i));
            try self.pass(20 * second);
            try self.send(&self.ends[i], 0);
            try self.pass(20 * second);
            const is_whole = self.ends[0].delivered > before[0] and self.ends[i].delivered > before[1];
            if (!is_whole) return report.mismatch("ends 0 and {d} cannot shake hands anew", .{i});
        }
    }
};

fn set(end: *End, text: []const u8) report.Error!void {
    var diagnostic: protocol.uapi.Diagnostic = .{};
    var change = protocol.uapi.parse(end.interface.gpa, text, &diagnostic) catch return report.mismatch(
        "configuration refused: {s}",
        .{diagnostic.message},
    );
    defer change.deinit(end.interface.gpa);
    end.interface.configure(&change) catch return report.mismatch("the configuration has no room", .{});
}

/// What only an authentic message may move.
const State = struct {
    drops: u64 = 0,
    digest: u64 = 0,

    fn equals(a: *const State, b: *const State) bool {
        return a.digest == b.digest;
    }
};

fn stateOf(interface: *const Interface) State {
    var state: State = .{};
    for (interface.counters.values) |value| state.drops += value;
    var hasher: std.hash.Wyhash = .init(0);
    for (0..interface.peer_high) |i| {
        const peer = interface.peers.at(i);
        std.hash.autoHash(&hasher, peer.in_use);
        if (!peer.in_use) continue;
        std.hash.autoHash(&hasher, peer.endpoint);
        std.hash.autoHash(&hasher, .{ peer.rx_bytes, peer.tx_bytes, peer.last_handshake_unix_ns, peer.sessions });
        std.hash.autoHash(&hasher, .{ peer.latest_timestamp, peer.handshake_index, peer.timers.deadline().ns });
    }
    state.digest = hasher.final();
    return state;
}

fn privateKey(number: u8) [32]u8 {
    var key: [32]u8 = @splat(number + 1);
    crypto.clamp(&key);
    return key;
}

fn endpointOf(number: u8, port: u16) wire.Endpoint {
    return .{ .remote = .{ .address = .fromIpv4(.{ 192, 0, 2, number }), .port = port } };
}

fn writeInner(packet: []u8, from: u8, to: u8) void {
    @memset(packet, 0xa5);
    packet[0] = 0x45;
    std.mem.writeInt(u16, packet[2..4], @intCast(packet.len), .big);
    packet[12..16].* = .{ 10, 0, 0, from };
    packet[16..20].* = .{ 10, 0, 0, to };
}

/// How long the packet is that `from` may deliver with these bytes: RFC 791 and 8200 read anew.
fn ownsByTable(bytes: []const u8, from: u8) ?usize {
    if (bytes.len < 20) return null;
    const said = @as(usize, bytes[2]) * 256 + bytes[3];
    switch (bytes[0] >> 4) {
        4 => {
            const header = @as(usize, bytes[0] % 16) * 4;
            if (header < 20 or said < header or said > bytes.len) return null;
            return if (std.mem.eql(u8, bytes[12..16], &.{ 10, 0, 0, from })) said else null;
        },
        6 => {
            const whole = 40 + @as(usize, bytes[4]) * 256 + bytes[5];
            if (bytes.len < 40 or whole > bytes.len) return null;
            const address = [_]u8{ 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, from };
            return if (std.mem.eql(u8, bytes[8..24], &address)) whole else null;
        },
        else => return null,
    }
}

fn describe(what: []const u8, end: *const End, bytes: []const u8) report.Error {
    return report.mismatch("{s}: end {d}, {d} bytes {x}", .{
        what, end.number, bytes.len, bytes[0..@min(bytes.len, 400)],
    });
}
