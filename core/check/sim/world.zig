//! World: hosts, the network between them, one queue of events and one generator of chance. Drives each Interface as the
//! device does, in batches of datagrams and packets, and holds everything that passes against the ledger.
//! Invariant: seed and options decide every event, so the hash of the trace is theirs too.
const std = @import("std");
const wire = @import("wire");
const messages = wire.messages;
const protocol = @import("protocol");
const constants = protocol.constants;
const Allocator = std.mem.Allocator;
const audit = @import("audit.zig");
const faults = @import("faults.zig");
const hosts_file = @import("host.zig");
const Host = hosts_file.Host;
const Neighbour = hosts_file.Neighbour;
const ledger_file = @import("ledger.zig");
const Ledger = ledger_file.Ledger;
pub const Error = ledger_file.Error;
const network = @import("network.zig");
const Datagram = network.Datagram;
const packet = @import("packet.zig");
const phases = @import("phases.zig");
const report = @import("report");

pub const second: u64 = std.time.ns_per_s;
const ms: u64 = std.time.ns_per_ms;

/// How late a timer may be served: the loop of a device has other things to do.
const lateness_max = 10 * ms;
/// A mapping of a translator that carried nothing for so long is gone.
const translation_ns = 60 * second;

pub const Options = struct {
    seed: u64,
    peers: ?u32 = null,
    /// What happens from this time on is told, one line each.
    told_from: u64 = std.math.maxInt(u64),
};

/// Two hosts that have each other as peers.
pub const Edge = struct {
    ends: [2]u32,
    /// Places among the neighbours of the ends.
    places: [2]u32,
    psk: [32]u8,
    is_cut: bool = false,
    /// The ends have different preshared keys, on purpose.
    is_mute: bool = false,
};

pub const Event = struct {
    at: u64,
    order: u64,
    what: union(enum) {
        arrival: *Datagram,
        turn: u32,
        wake: u32,
        talk: struct { host: u32, place: u32 },
        fault,
        undo: faults.Undo,
        attack,
        check,
        phase,
    },

    fn compare(_: void, a: Event, b: Event) std.math.Order {
        return if (a.at == b.at) std.math.order(a.order, b.order) else std.math.order(a.at, b.at);
    }
};

pub const Stats = struct {
    events: u64 = 0,
    datagrams: u64 = 0,
    packets: u64 = 0,
    handshakes: u64 = 0,
    faults: u64 = 0,
};

pub const World = struct {
    gpa: Allocator,
    prng: std.Random.DefaultPrng,
    ledger: Ledger,
    time: u64 = 0,
    trace: u64,
    told_from: u64 = 0,
    stats: Stats = .{},
    events: std.PriorityQueue(Event, void, Event.compare) = .empty,
    order: u64 = 0,

    hosts: []Host = &.{},
    /// What arrived at a host and waits for its next turn.
    inboxes: []std.ArrayList(*Datagram) = &.{},
    edges: std.ArrayList(Edge) = .empty,
    /// Hosts of different groups do not hear each other.
    groups: []u8 = &.{},
    weather: network.Weather = .{},
    tap: network.Tap = .{},
    generation: u32 = 0,
    phase: phases.Phase = .storm,
    phase_began: u64 = 0,
    phase_ends: u64 = 0,
    /// Restarted hosts keep a wall clock that was set back; then nobody moves, for else some could not be found again.
    clocks_lie: bool,
    base_interval_ns: u64 = second,

    pub fn random(world: *World) std.Random {
        return world.prng.random();
    }

    // ---- life ----

    pub fn init(world: *World, gpa: Allocator, options: Options) Error!void {
        var mixer: std.Random.SplitMix64 = .init(options.seed);
        world.* = .{ .gpa = gpa, .prng = .init(mixer.next()), .ledger = .{ .gpa = gpa }, .trace = options.seed, .told_from = options.told_from, .clocks_lie = false };
        const r = world.random();
        world.clocks_lie = r.uintLessThan(u8, 4) == 0;
        const count = options.peers orelse switch (r.uintLessThan(u8, 10)) {
            0...4 => 2,
            5...7 => r.intRangeAtMost(u32, 3, 5),
            else => r.intRangeAtMost(u32, 6, 16),
        };
        world.base_interval_ns = second * @max(1, count / 32);
        world.hosts = try gpa.alloc(Host, count);
        world.groups = try gpa.alloc(u8, count);
        @memset(world.groups, 0);
        world.inboxes = try gpa.alloc(std.ArrayList(*Datagram), count);
        for (world.hosts, world.inboxes, 0..) |*host, *inbox, i| {
            inbox.* = .empty;
            world.makeHost(host, @intCast(i));
        }
        try world.connect(count);
        for (world.hosts) |*host| try host.start();
        for (world.hosts) |*host| for (host.neighbours.items, 0..) |_, k| {
            try world.schedule(r.uintLessThan(u64, world.base_interval_ns), .{ .talk = .{ .host = host.number, .place = @intCast(k) } });
        };
        for (world.hosts) |*host| try world.settle(host);
        try world.schedule(0, .phase);
        try world.schedule(second, .check);
        try world.schedule(second, .attack);
        try world.schedule(second, .fault);
    }

    pub fn deinit(world: *World) void {
        const gpa = world.gpa;
        while (world.events.pop()) |event| switch (event.what) {
            .arrival => |datagram| datagram.destroy(gpa),
            else => {},
        };
        world.events.deinit(gpa);
        world.tap.clear(gpa);
        for (world.hosts) |*host| {
            host.stop();
            host.neighbours.deinit(gpa);
            host.routes.deinit(gpa);
            host.by_index.deinit(gpa);
        }
        for (world.inboxes) |*inbox| {
            for (inbox.items) |datagram| datagram.destroy(gpa);
            inbox.deinit(gpa);
        }
        gpa.free(world.hosts);
        gpa.free(world.inboxes);
        gpa.free(world.groups);
        world.edges.deinit(gpa);
        world.ledger.deinit();
    }

    fn makeHost(world: *World, host: *Host, number: u32) void {
        const r = world.random();
        host.* = .{
            .number = number,
            .gpa = world.gpa,
            .memory = .{ .backing = world.gpa },
            .staging_chunks = r.intRangeAtMost(u32, 4, 64),
            .lanes = r.intRangeAtMost(u8, 1, 8),
            .prng = .init(r.int(u64)),
            .boot_offset = r.intRangeAtMost(i64, 1, 100_000) * std.time.ns_per_s,
            .wall_offset = (1_700_000_000 + r.intRangeAtMost(i64, 0, 100)) * std.time.ns_per_s,
            .address = network.addressOf(number, 0),
        };
        // Two that move could lose each other, so a mover's neighbours stay where they are.
        host.roams = !world.clocks_lie and number % 2 == 1 and r.boolean();
        host.is_translated = host.roams and r.boolean();
        host.drawKey();
    }

    /// Everyone with everyone, or a star with some more ways.
    fn connect(world: *World, count: u32) Error!void {
        const r = world.random();
        const is_full = count <= 5;
        for (0..count) |a| for (a + 1..count) |b| {
            const wanted = is_full or a == 0 or r.uintLessThan(usize, count) == 0;
            if (!wanted or world.hosts[a].roams and world.hosts[b].roams) continue;
            var edge: Edge = .{ .ends = .{ @intCast(a), @intCast(b) }, .places = undefined, .psk = @splat(0) };
            if (r.boolean()) r.bytes(&edge.psk);
            for (&edge.places, edge.ends, 0..) |*place, end, i| {
                place.* = @intCast(world.hosts[end].neighbours.items.len);
                const other = &world.hosts[edge.ends[1 - i]];
                try world.hosts[end].neighbours.append(world.gpa, .{
                    .host = other.number,
                    .back = undefined,
                    .edge = @intCast(world.edges.items.len),
                    .present = true,
                    .public = other.public,
                    .psk = edge.psk,
                    .endpoint = if (other.roams) null else other.address,
                });
            }
            for (edge.places, edge.ends, 0..) |place, end, i| {
                world.hosts[end].neighbours.items[place].back = edge.places[1 - i];
                try world.hosts[end].giveNetworks(place);
            }
            try world.edges.append(world.gpa, edge);
        };
    }

    // ---- events ----

    pub fn schedule(world: *World, delay: u64, what: @FieldType(Event, "what")) Error!void {
        world.order += 1;
        try world.events.push(world.gpa, .{ .at = world.time + delay, .order = world.order, .what = what });
    }

    /// Into the hash: what, who, and any bytes.
    pub fn note(world: *World, what: u8, who: u32, bytes: []const u8) void {
        var head: [13]u8 = undefined;
        head[0] = what;
        std.mem.writeInt(u32, head[1..5], who, .little);
        std.mem.writeInt(u64, head[5..13], world.time, .little);
        world.trace = std.hash.Wyhash.hash(std.hash.Wyhash.hash(world.trace, &head), bytes);
        if (world.time >= world.told_from) world.tell(what, who, bytes);
    }

    fn tell(world: *const World, what: u8, who: u32, bytes: []const u8) void {
        const seconds = world.time / second;
        const rest = world.time % second / ms;
        switch (what) {
            'p' => report.say("{d}.{d:0>3} {t}", .{ seconds, rest, world.phase }),
            'f', '!' => report.say("{d}.{d:0>3} {d} {s}", .{ seconds, rest, who, bytes }),
            else => {
                const kind = messages.classify(bytes) orelse return report.say("{d}.{d:0>3} {d} {c} noise", .{ seconds, rest, who, what });
                report.say("{d}.{d:0>3} {d} {c} {t} {x} {x}", .{ seconds, rest, who, what, kind, bytes[4..8], bytes[8..16] });
            },
        }
    }

    pub fn run(world: *World, duration: u64) Error!void {
        while (world.events.peek()) |next| {
            if (next.at > duration) break;
            const event = world.events.pop().?;
            world.time = event.at;
            world.ledger.time = event.at;
            world.stats.events += 1;
            try world.handle(event);
        }
    }

    fn handle(world: *World, event: Event) Error!void {
        switch (event.what) {
            .arrival => |datagram| try world.arrive(datagram),
            .turn => |number| try world.turn(&world.hosts[number]),
            .wake => |number| try world.wake(&world.hosts[number], event.at),
            .talk => |flow| try world.talk(flow.host, flow.place),
            .fault => {
                try faults.strike(world);
                try world.schedule(faults.pause(world), .fault);
            },
            .undo => |undo| try faults.undo(world, undo),
            .attack => {
                try world.attack();
                try world.schedule(world.random().intRangeAtMost(u64, 20, 1000) * ms, .attack);
            },
            .check => {
                try phases.check(world);
                try world.schedule(second, .check);
            },
            .phase => try phases.next(world),
        }
    }

    fn wake(world: *World, host: *Host, at: u64) Error!void {
        if (host.wake_at != at) return;
        host.wake_at = std.math.maxInt(u64);
        if (!host.isAwake(world.time)) return;
        host.interface.expire(host.now(world.time));
        try world.settle(host);
    }

    /// Sends what the protocol wants sent, and looks when it wants to be called again.
    pub fn settle(world: *World, host: *Host) Error!void {
        if (!host.isAwake(world.time)) return;
        var buffer: [packet.length_max + 48]u8 = undefined;
        var sent: usize = 0;
        const now = host.now(world.time);
        while (host.interface.pollTransmit(&buffer, now)) |transmit| {
            sent += 1;
            if (sent > 100_000) return world.ledger.fail("host {d} does not stop sending", .{host.number});
            try world.emit(host, buffer[0..transmit.length], transmit.endpoint.remote, transmit.peer);
        }
        const deadline = host.interface.deadline() orelse return;
        const delay = deadline.since(now.boot) + world.random().uintAtMost(u64, lateness_max);
        if (deadline.ns == protocol.Instant.never.ns or world.time + delay >= host.wake_at) return;
        host.wake_at = world.time + delay;
        try world.schedule(delay, .{ .wake = host.number });
    }

    // ---- out ----

    fn talk(world: *World, number: u32, place: u32) Error!void {
        const host = &world.hosts[number];
        const neighbour = &host.neighbours.items[place];
        const r = world.random();
        try world.schedule(r.intRangeAtMost(u64, neighbour.talk_interval_ns / 2, neighbour.talk_interval_ns), .{ .talk = .{ .host = number, .place = place } });
        if (!neighbour.talks or !host.isAwake(world.time)) return;
        const is_odd = r.uintLessThan(u8, 8) == 0;
        const count = if (r.uintLessThan(u8, 4) == 0) r.intRangeAtMost(u32, 2, 5) else 1;
        // What is odd comes apart, for it may go elsewhere.
        if (is_odd) _ = try world.send(host, place, 1, true);
        _ = try world.send(host, place, count, false);
        try world.settle(host);
    }

    /// Packets for a neighbour, or, if odd, with addresses that may be another's. Returns the number of the first.
    pub fn send(world: *World, host: *Host, place: u32, count: u32, is_odd: bool) Error!u64 {
        const r = world.random();
        const family: wire.Family = if (r.boolean()) .ipv4 else .ipv6;
        const source_host = if (is_odd and r.boolean()) r.uintLessThan(u32, @intCast(world.hosts.len)) else host.number;
        // Guests from 200 on change hands.
        const low: u8, const high: u8 = if (is_odd) .{ 195, 210 } else .{ 1, 199 };
        const source = packet.addressOf(family, source_host, r.intRangeAtMost(u8, low, high));
        const destination = packet.addressOf(family, host.neighbours.items[place].host, r.intRangeAtMost(u8, low, high));
        const owner = host.ownerOf(destination);
        const length = if (r.uintLessThan(u8, 16) == 0) packet.length_max else r.intRangeAtMost(usize, packet.length_min, 200);
        var plain: [packet.length_max]u8 = undefined;
        const first = world.stats.packets;
        const receiver = if (owner) |k| host.neighbours.items[k].host else network.nobody;
        const stamp: packet.Stamp = .{ .id = first, .sender = host.number, .receiver = receiver };
        const id = switch (host.interface.route(packet.write(&plain, source, destination, stamp, length))) {
            .peer => |id| id,
            .drop => return if (owner == null) first else world.ledger.fail("host {d} finds no peer for {f}", .{ host.number, destination }),
        };
        const found = host.neighbourOf(id);
        if (found == null or owner == null or found.? != owner.?) {
            return world.ledger.fail("host {d} routes {f} to another peer than it should", .{ host.number, destination });
        }
        world.stats.packets += count;
        const now = host.now(world.time);
        switch (host.interface.prepareSeal(id, count, now)) {
            .drop => {},
            .stage => for (0..count) |i| {
                host.interface.stage(id, packet.write(&plain, source, destination, .{ .id = first + i, .sender = host.number, .receiver = receiver }, length));
            },
            .seal => |ticket| {
                const key = ticket.key.*;
                const padded = messages.paddedLength(length, packet.length_max);
                const endpoint = host.interface.finishSeal(ticket, count * (padded + messages.transport_overhead), now) orelse {
                    return world.ledger.fail("host {d} may seal, but not send", .{host.number});
                };
                for (0..count) |i| {
                    const inner = packet.write(&plain, source, destination, .{ .id = first + i, .sender = host.number, .receiver = receiver }, length);
                    var datagram: [packet.length_max + 48]u8 = undefined;
                    datagram[0..16].* = std.mem.toBytes(messages.TransportHeader.init(ticket.receiver_index, ticket.counter + i));
                    const body = datagram[16..][0 .. padded + 16];
                    @memcpy(body[0..inner.len], inner);
                    @memset(body[inner.len..padded], 0);
                    protocol.crypto.aeadSeal(body, &key, ticket.counter + i, body[0..padded], "");
                    try world.emit(host, datagram[0 .. padded + 32], endpoint.remote, ticket.peer);
                }
            },
        }
        return first;
    }

    /// A datagram leaves a host: judged, then given to the network.
    fn emit(world: *World, host: *Host, bytes: []const u8, to: wire.SocketAddress, id: ?protocol.PeerId) Error!void {
        world.note('>', host.number, bytes);
        const datagram = try world.gpa.create(Datagram);
        datagram.* = .{
            .bytes = world.gpa.dupe(u8, bytes) catch |err| {
                world.gpa.destroy(datagram);
                return err;
            },
            .number = world.stats.datagrams,
            .author = host.number,
            .author_public = host.public,
            .from = undefined,
            .to = to,
            .generation = world.generation,
        };
        defer datagram.destroy(world.gpa);
        world.stats.datagrams += 1;
        try world.judgeSent(host, datagram, id);
        if (host.is_translated) {
            if (world.time - host.translated_at > translation_ns) world.move(host);
            host.translated_at = world.time;
        }
        datagram.from = host.address;
        try world.carry(datagram);
    }

    pub fn move(world: *World, host: *Host) void {
        _ = world;
        host.moves += 1;
        host.address = network.addressOf(host.number, host.moves);
    }

    fn carry(world: *World, datagram: *const Datagram) Error!void {
        const r = world.random();
        const weather = &world.weather;
        const is_storm = world.phase == .storm;
        const number = network.numberOf(datagram.to);
        if (number >= world.hosts.len) return;
        const is_cut = world.groups[number] != world.groups[datagram.author] or world.isCut(datagram.author, number);
        const is_lost = is_cut or network.happens(r, weather.lost);
        // In fair weather only what has arrived is ever repeated: see `attack`.
        if (is_storm) try world.tap.keep(world.gpa, r, datagram);
        if (is_lost) return;
        const copies: usize = if (network.happens(r, weather.doubled)) 2 else 1;
        for (0..copies) |_| {
            const copy = try datagram.copy(world.gpa);
            if (network.happens(r, weather.damaged)) network.damage(copy, r);
            if (network.happens(r, weather.diverted)) copy.from = network.elsewhere(r, copy.from);
            try world.schedule(weather.delay(r), .{ .arrival = copy });
        }
    }

    fn isCut(world: *const World, from: u32, to: u32) bool {
        const place = world.hosts[from].placeOf(to) orelse return false;
        return world.edges.items[world.hosts[from].neighbours.items[place].edge].is_cut;
    }

    /// Somebody repeats what was seen, as it was or changed, from there or elsewhere.
    fn attack(world: *World) Error!void {
        const r = world.random();
        const seen = world.tap.any(r) orelse return;
        const copy = try seen.copy(world.gpa);
        if (r.boolean()) network.damage(copy, r);
        if (r.uintLessThan(u8, 4) == 0) copy.from = network.elsewhere(r, copy.from);
        if (r.uintLessThan(u8, 16) == 0) {
            const noise = copy.bytes[r.uintLessThan(usize, copy.bytes.len - 16)..]; // beyond MAC2, which may not count
            const before = noise[0];
            r.bytes(noise);
            if (noise[0] == before) noise[0] ^= 1; // chance may leave all but MAC2 as it was
            copy.damage = .real;
        }
        copy.generation = world.generation;
        const number = network.numberOf(copy.to);
        if (number < world.hosts.len) copy.to = world.hosts[number].address;
        try world.schedule(0, .{ .arrival = copy });
    }

    // ---- in ----

    fn arrive(world: *World, datagram: *Datagram) Error!void {
        const number = network.numberOf(datagram.to);
        const host = &world.hosts[number];
        const is_lost = datagram.generation != world.generation or !host.address.eql(datagram.to) or
            !host.isAwake(world.time) or !host.is_up or
            host.is_translated and world.time - host.translated_at > translation_ns;
        if (is_lost) return datagram.destroy(world.gpa);
        const inbox = &world.inboxes[number];
        inbox.append(world.gpa, datagram) catch |err| {
            datagram.destroy(world.gpa);
            return err;
        };
        if (inbox.items.len > 1) return; // its turn comes
        const is_busy = world.random().uintLessThan(u8, 4) == 0;
        try world.schedule(if (is_busy) world.random().uintAtMost(u64, 5 * ms) else 0, .{ .turn = number });
    }

    /// As the device does it: a batch is looked up, then opened, then finished; handshakes in between end it.
    fn turn(world: *World, host: *Host) Error!void {
        var batch: std.ArrayList(*Datagram) = world.inboxes[host.number];
        world.inboxes[host.number] = .empty;
        defer {
            for (batch.items) |datagram| datagram.destroy(world.gpa);
            batch.deinit(world.gpa);
        }
        if (!host.isAwake(world.time) or !host.is_up) return;
        const now = host.now(world.time);
        var tickets: [32]Opening = undefined;
        var count: usize = 0;
        for (batch.items) |datagram| {
            world.note('<', host.number, datagram.bytes);
            switch (host.interface.prepareOpen(datagram.bytes, now)) {
                .drop => |reason| {
                    world.note('!', host.number, @tagName(reason));
                    try world.judgeUnopened(host, datagram, reason);
                },
                .handshake => {
                    try world.finishBatch(host, tickets[0..count], now);
                    count = 0;
                    try world.handshake(host, datagram, now);
                },
                .open => |ticket| {
                    tickets[count] = .{ .ticket = ticket, .datagram = datagram };
                    count += 1;
                    if (count < tickets.len) continue;
                    try world.finishBatch(host, tickets[0..count], now);
                    count = 0;
                },
            }
        }
        try world.finishBatch(host, tickets[0..count], now);
        // In fair weather, what arrived can be seen, and repeated: to no avail.
        if (world.phase != .storm) for (batch.items) |datagram| {
            if (datagram.damage == .none) try world.tap.keep(world.gpa, world.random(), datagram);
        };
        try world.settle(host);
    }

    const Opening = struct {
        ticket: protocol.OpenTicket,
        datagram: *Datagram,
        plain: [packet.length_max + 48]u8 = undefined,
        plain_length: ?usize = null,
    };

    fn finishBatch(world: *World, host: *Host, batch: []Opening, now: protocol.Now) Error!void {
        for (batch) |*opening| {
            const sealed = opening.datagram.bytes[16..];
            const length = sealed.len - 16;
            const is_authentic = protocol.crypto.aeadOpen(opening.plain[0..length], opening.ticket.key, opening.ticket.counter, sealed, "");
            opening.plain_length = if (is_authentic) length else null;
        }
        for (batch) |*opening| {
            const place = host.neighbourOf(opening.ticket.peer);
            const before = endpointOf(host, place);
            const from: wire.Endpoint = .{ .remote = opening.datagram.from, .source = .{ .address = host.address.address, .interface_index = 2 } };
            const plaintext: ?[]u8 = if (opening.plain_length) |length| opening.plain[0..length] else null;
            const opened = host.interface.finishOpen(opening.ticket, plaintext, &from, now);
            if (opened == .drop) world.note('!', host.number, @tagName(opened.drop));
            const was_accepted = try world.judgeOpened(host, opening, opened);
            try world.judgeEndpoint(host, place, before, opening.datagram, was_accepted);
        }
    }

    fn endpointOf(host: *Host, place: ?u32) ?wire.SocketAddress {
        const id = host.neighbours.items[place orelse return null].id orelse return null;
        const peer = host.interface.get(id) orelse return null;
        return if (peer.endpoint) |endpoint| endpoint.remote else null;
    }

    fn handshake(world: *World, host: *Host, datagram: *Datagram, now: protocol.Now) Error!void {
        const place = host.placeOf(datagram.author);
        const before = endpointOf(host, place);
        const from: wire.Endpoint = .{ .remote = datagram.from, .source = .{ .address = host.address.address, .interface_index = 2 } };
        const refused = host.interface.handleHandshake(datagram.bytes, &from, host.is_loaded, now);
        if (refused) |reason| world.note('!', host.number, @tagName(reason));
        if (refused == null) try world.judgeHandshake(host, datagram, place);
        const kind = messages.classify(datagram.bytes);
        const may_move = refused == null and kind != .cookie_reply;
        try world.judgeEndpoint(host, place, before, datagram, may_move);
        // The device, too, sends answers when it has handled a message.
        try world.settle(host);
    }

    // ---- what must hold ----

    fn judgeSent(world: *World, host: *Host, datagram: *Datagram, id: ?protocol.PeerId) Error!void {
        const ledger = &world.ledger;
        const kind = messages.classify(datagram.bytes) orelse return ledger.fail("host {d} sends what is no message", .{host.number});
        if (kind == .cookie_reply) return ledger.noteCookie(host.number, datagram.to);
        const place = host.neighbourOf(id.?) orelse return ledger.fail("host {d} sends to a peer that it has not", .{host.number});
        const neighbour = &host.neighbours.items[place];
        const peer = host.interface.get(id.?) orelse return ledger.fail("host {d} sends to a peer that it removed", .{host.number});
        if (!neighbour.present or !std.mem.eql(u8, &peer.remote.static, &neighbour.public)) {
            return ledger.fail("host {d} takes one peer for another", .{host.number});
        }
        switch (kind) {
            .cookie_reply => unreachable,
            .initiation => {
                world.stats.handshakes += 1;
                if (neighbour.initiated_at) |last| if (world.time - last < constants.REKEY_TIMEOUT) {
                    return ledger.fail("host {d} sends two initiations to {d} within REKEY_TIMEOUT", .{ host.number, neighbour.host });
                };
                neighbour.initiated_at = world.time;
                datagram.timestamp = peer.last_sent_timestamp;
                if (!protocol.time.isLater(datagram.timestamp, neighbour.sent_timestamp)) {
                    return ledger.fail("host {d} shows {d} a time that is not later than the last", .{ host.number, neighbour.host });
                }
                neighbour.sent_timestamp = datagram.timestamp;
                const label = std.mem.readInt(u64, datagram.timestamp[0..8], .big) - 0x4000_0000_0000_000a;
                host.wall_high = @max(host.wall_high, (label + 1) * second);
                try world.judgeNeed(host, place, peer);
            },
            .response => {
                const index = std.mem.readInt(u32, datagram.bytes[4..8], .little);
                datagram.psk = neighbour.psk;
                try ledger.bear(host.number, index, .{
                    .at = world.time,
                    .neighbour = place,
                    .entry = neighbour.entry,
                    .key_epoch = host.key_epoch,
                    .psk = neighbour.psk,
                    .is_initiator = false,
                    .is_confirmed = false,
                });
            },
            .transport => try world.judgeSealed(host, place, peer, datagram),
        }
        neighbour.sent_at = world.time;
    }

    /// Nothing is wrong, and a session is young: then there is no reason for another handshake. (Whose clock was set back
    /// may try in vain: the peer refuses its timestamps, and its own initiations are what keeps the pair together.)
    fn judgeNeed(world: *World, host: *Host, place: u32, peer: anytype) Error!void {
        if (world.clocks_lie or !phases.isQuiet(world, host, place)) return;
        const slot = peer.sessions.current orelse return;
        const birth = world.ledger.birthOf(host.number, host.interface.sessions.at(slot).local_index) orelse return;
        if (birth.worn_since != null or world.time - birth.at >= constants.REKEY_AFTER_TIME) return;
        return world.ledger.fail("host {d} shakes hands with {d} again after {d} s, for nothing", .{
            host.number, host.neighbours.items[place].host, (world.time - birth.at) / second,
        });
    }

    fn judgeSealed(world: *World, host: *Host, place: u32, peer: anytype, datagram: *const Datagram) Error!void {
        const ledger = &world.ledger;
        const receiver = std.mem.readInt(u32, datagram.bytes[4..8], .little);
        const counter = std.mem.readInt(u64, datagram.bytes[8..16], .little);
        const neighbour = &host.neighbours.items[place];
        const session = inline for (.{ peer.sessions.current, peer.sessions.next, peer.sessions.previous }) |role| {
            if (role) |slot| if (host.interface.sessions.at(slot).remote_index == receiver) break host.interface.sessions.at(slot);
        } else return ledger.fail("host {d} sends to {d} by an index that no session has", .{ host.number, neighbour.host });
        try ledger.noteNonce(host.number, &session.sending_key, counter);
        const birth = ledger.birthOf(host.number, session.local_index) orelse {
            return ledger.fail("host {d} sends with a session that no handshake made", .{host.number});
        };
        const age = world.time - birth.at;
        const names = .{ host.number, neighbour.host };
        if (birth.neighbour != place or birth.entry != neighbour.entry) return ledger.fail("host {d} sends to {d} with a session of another peer", names);
        if (birth.key_epoch != host.key_epoch) return ledger.fail("host {d} sends to {d} with a session of an old private key", names);
        if (!birth.is_initiator and !birth.is_confirmed) return ledger.fail("host {d} sends to {d} before its session is confirmed", names);
        if (age >= constants.REJECT_AFTER_TIME) return ledger.fail("host {d} sends to {d} with a key past REJECT_AFTER_TIME", names);
        // The counter stands one further when it is looked at.
        if (counter >= constants.REKEY_AFTER_MESSAGES and birth.worn_since == null) birth.worn_since = world.time;
        if (!phases.isQuiet(world, host, place)) return;
        const patience = phases.renewalTime(world, host, place);
        if (birth.is_initiator and age > constants.REKEY_AFTER_TIME + patience) return ledger.fail("host {d} does not renew its session with {d}", names);
        if (birth.worn_since) |since| if (world.time - since > patience) return ledger.fail("host {d} does not renew its worn session with {d}", names);
    }

    fn judgeHandshake(world: *World, host: *Host, datagram: *const Datagram, maybe_place: ?u32) Error!void {
        const ledger = &world.ledger;
        const kind = messages.classify(datagram.bytes).?;
        const names = .{ host.number, kind, datagram.author };
        if (datagram.damage == .real) return ledger.fail("host {d} takes a damaged {t} of {d}", names);
        if (datagram.damage == .mac2_only and host.is_loaded) return ledger.fail("host {d} takes a {t} of {d} with a wrong MAC2 under load", names);
        if (kind == .cookie_reply) return;
        const place = maybe_place orelse return ledger.fail("host {d} takes a {t} of {d}, which is no peer", names);
        const neighbour = &host.neighbours.items[place];
        if (!neighbour.present or !std.mem.eql(u8, &neighbour.public, &datagram.author_public)) {
            return ledger.fail("host {d} takes a {t} of {d} under a key that it does not have for it", names);
        }
        if (host.is_loaded and !ledger.mayHaveCookie(host.number, datagram.from)) {
            return ledger.fail("host {d} takes a {t} of {d} under load, from where it never sent a cookie", names);
        }
        neighbour.heard_at = world.time;
        switch (kind) {
            .cookie_reply, .transport => unreachable,
            .initiation => {
                if (!protocol.time.isLater(datagram.timestamp, neighbour.latest_timestamp)) {
                    return ledger.fail("host {d} takes an {t} of {d} that is not later than the last", names);
                }
                neighbour.latest_timestamp = datagram.timestamp;
            },
            .response => {
                if (!std.mem.eql(u8, &datagram.psk, &neighbour.psk)) return ledger.fail("host {d} takes a {t} of {d} with another preshared key", names);
                try ledger.bear(host.number, std.mem.readInt(u32, datagram.bytes[8..12], .little), .{
                    .at = world.time,
                    .neighbour = place,
                    .entry = neighbour.entry,
                    .key_epoch = host.key_epoch,
                    .psk = neighbour.psk,
                    .is_initiator = true,
                    .is_confirmed = true,
                });
            },
        }
    }

    /// Refused before it was opened.
    fn judgeUnopened(world: *World, host: *Host, datagram: *const Datagram, reason: protocol.Drop) Error!void {
        if (datagram.damage == .real) return;
        if (reason == .malformed) return world.ledger.fail("host {d} finds a datagram of {d} malformed", .{ host.number, datagram.author });
        if (reason != .expired_session) return;
        const index = std.mem.readInt(u32, datagram.bytes[4..8], .little);
        const birth = world.ledger.birthOf(host.number, index) orelse return;
        if (world.time - birth.at < constants.REJECT_AFTER_TIME and std.mem.readInt(u64, datagram.bytes[8..16], .little) < constants.REJECT_AFTER_MESSAGES) {
            return world.ledger.fail("host {d} takes a session with {d} for expired that is not", .{ host.number, datagram.author });
        }
    }

    /// Whether the datagram was taken as authentic and new.
    fn judgeOpened(world: *World, host: *Host, opening: *const Opening, opened: anytype) Error!bool {
        const ledger = &world.ledger;
        const datagram = opening.datagram;
        const names = .{ host.number, datagram.author };
        const was_accepted = switch (opened) {
            .deliver, .keepalive => true,
            .drop => |reason| reason == .disallowed_source or reason == .malformed_inner,
        };
        const birth = ledger.birthOf(host.number, opening.ticket.receiver_index);
        if (!was_accepted) {
            if (opened.drop == .replayed) try world.judgeReplay(host, opening, birth);
            if (opened.drop == .not_authentic and opening.plain_length != null) return ledger.fail("host {d} refuses an authentic datagram of {d}", names);
            return false;
        }
        if (opening.plain_length == null or datagram.damage == .real) return ledger.fail("host {d} takes a forged datagram of {d}", names);
        const from = birth orelse return ledger.fail("host {d} takes data of {d} with a session that no handshake made", names);
        const neighbour = &host.neighbours.items[from.neighbour];
        if (neighbour.host != datagram.author or neighbour.entry != from.entry) return ledger.fail("host {d} takes data of {d} with a session of another peer", names);
        if (world.time - from.at >= constants.REJECT_AFTER_TIME) return ledger.fail("host {d} takes data of {d} with a key past REJECT_AFTER_TIME", names);
        if (opening.ticket.counter >= constants.REJECT_AFTER_MESSAGES) return ledger.fail("host {d} takes data of {d} past REJECT_AFTER_MESSAGES", names);
        if (ledger.wasAccepted(datagram.number)) return ledger.fail("host {d} takes the same datagram of {d} twice", names);
        try ledger.accept(datagram.number);
        from.next = @max(from.next, opening.ticket.counter + 1);
        from.is_confirmed = true;
        neighbour.heard_at = world.time;
        switch (opened) {
            .keepalive => {},
            .deliver => |inner| try world.judgeDelivered(host, from.neighbour, inner),
            .drop => |reason| {
                if (reason == .malformed_inner) return ledger.fail("host {d} finds a packet of {d} malformed", names);
                const owner = host.ownerOf(sourceOf(opening.plain[0..opening.plain_length.?]));
                if (owner != null and owner.? == from.neighbour) return ledger.fail("host {d} refuses a source that {d} may use", names);
            },
        }
        return true;
    }

    fn judgeReplay(world: *World, host: *Host, opening: *const Opening, birth: ?*ledger_file.Birth) Error!void {
        if (world.ledger.wasAccepted(opening.datagram.number)) return;
        const known = birth orelse return;
        const is_old = known.next != 0 and known.next - 1 > opening.ticket.counter and known.next - 1 - opening.ticket.counter > constants.replay_window_bits;
        if (is_old) return;
        return world.ledger.fail("host {d} takes a new datagram of {d} for a replay", .{ host.number, opening.datagram.author });
    }

    fn judgeDelivered(world: *World, host: *Host, place: u32, inner: []const u8) Error!void {
        const ledger = &world.ledger;
        const neighbour = &host.neighbours.items[place];
        const names = .{ host.number, neighbour.host };
        const stamp = packet.read(inner) orelse return ledger.fail("host {d} delivers a packet of {d} that was changed", names);
        if (stamp.receiver != host.number or stamp.sender != neighbour.host) {
            return ledger.fail("host {d} delivers a packet of {d} that was from {d} to {d}", .{ host.number, neighbour.host, stamp.sender, stamp.receiver });
        }
        if (stamp.id >= world.stats.packets or ledger.wasDelivered(stamp.id)) return ledger.fail("host {d} delivers a packet of {d} twice", names);
        const owner = host.ownerOf(sourceOf(inner));
        if (owner == null or owner.? != place) return ledger.fail("host {d} delivers a packet of {d} with a source that {d} may not use", .{ host.number, neighbour.host, neighbour.host });
        try ledger.deliver(stamp.id);
        world.hosts[neighbour.host].neighbours.items[neighbour.back].arrived_at = world.time;
    }

    fn sourceOf(inner: []const u8) wire.Address {
        return if (inner[0] >> 4 == 4) .fromIpv4(inner[12..16].*) else .fromIpv6(inner[8..24].*);
    }

    /// A peer's endpoint moves to where an authentic, new datagram came from, and only then.
    fn judgeEndpoint(world: *World, host: *Host, place: ?u32, before: ?wire.SocketAddress, datagram: *const Datagram, was_accepted: bool) Error!void {
        const after = endpointOf(host, place) orelse return;
        if (was_accepted) {
            if (!after.eql(datagram.from)) return world.ledger.fail("host {d} does not follow {d}", .{ host.number, datagram.author });
        } else if (before == null or !before.?.eql(after)) {
            return world.ledger.fail("host {d} follows a datagram of {d} that it refuses", .{ host.number, datagram.author });
        }
    }
};
