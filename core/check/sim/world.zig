//! World: hosts, the network between them, one queue of events and one generator of chance. Others make things happen
//! in it; all of it goes into the trace.
//! Invariant: seed and options decide every event, so the hash of the trace is theirs too.
const std = @import("std");
const messages = @import("wire").messages;
const Allocator = std.mem.Allocator;
const Chance = @import("chance").Chance;
const Host = @import("host.zig").Host;
const lanes = @import("lanes.zig");
const ledger_file = @import("ledger.zig");
const Ledger = ledger_file.Ledger;
pub const Error = ledger_file.Error;
const network = @import("network.zig");
const Datagram = network.Datagram;
const report = @import("report");

pub const second: u64 = std.time.ns_per_s;
const ms: u64 = std.time.ns_per_ms;

pub const Phase = enum { storm, calm, silence, wake };

/// What ends by itself.
pub const Undo = union(enum) {
    link: u32,
    entropy: u32,
    heal: u32,
    join,
    add: struct { host: u32, place: u32 },
    set_back: u32,
};

pub const Options = struct {
    seed: u64,
    /// What is decided by chance is read from these bytes first, so that a fuzzer can steer it.
    chance: []const u8 = "",
    peers: ?u32 = null,
    /// Peers of the first host where nobody is.
    silent: u32 = 0,
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
        undo: Undo,
        /// A worker goes on with what it had in hand.
        train: *lanes.Train,
        batch: *lanes.Batch,
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
    chance: Chance,
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
    phase: Phase = .storm,
    phase_began: u64 = 0,
    phase_ends: u64 = 0,
    /// Restarted hosts keep a wall clock that was set back; then nobody moves, for else some could not be found again.
    clocks_lie: bool,
    base_interval_ns: u64 = second,

    pub fn random(world: *World) std.Random {
        return world.chance.random();
    }

    pub fn init(world: *World, gpa: Allocator, options: Options) Error!void {
        var mixer: std.Random.SplitMix64 = .init(options.seed);
        world.* = .{
            .gpa = gpa,
            .chance = .of(options.chance, mixer.next()),
            .ledger = .{ .gpa = gpa },
            .trace = options.seed,
            .told_from = options.told_from,
            .clocks_lie = false,
        };
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
        world.hosts[0].silent_count = options.silent;
        // Whoever has thousands of peers serves them in turns.
        if (options.silent != 0) world.hosts[0].turn_budget = 1;
        try world.connect(count);
    }

    pub fn deinit(world: *World) void {
        const gpa = world.gpa;
        while (world.events.pop()) |event| switch (event.what) {
            .arrival => |datagram| datagram.destroy(gpa),
            .train => |train| gpa.destroy(train),
            .batch => |batch| batch.destroy(gpa),
            .turn, .wake, .talk, .fault, .undo, .attack, .check, .phase => {},
        };
        world.events.deinit(gpa);
        world.tap.clear(gpa);
        for (world.hosts) |*host| host.deinit();
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
            .index_shards = r.intRangeAtMost(u8, 1, 8),
            .curve_ns = if (r.uintLessThan(u8, 4) == 0) std.time.ns_per_ms else 20_000,
            .turn_budget = undefined,
            .lanes = undefined,
            .prng = .init(world.chance.seeded().int(u64)), // keys of its own, whatever is steered
            .boot_offset = r.intRangeAtMost(i64, 1, 100_000) * std.time.ns_per_s,
            .wall_offset = (1_700_000_000 + r.intRangeAtMost(i64, 0, 100)) * std.time.ns_per_s,
            .address = network.addressOf(number, 0),
        };
        // Two that move could lose each other, so a mover's neighbours stay where they are.
        host.roams = !world.clocks_lie and number % 2 == 1 and r.boolean();
        host.is_translated = host.roams and r.boolean();
        // Of what is drawn already, so that seeds from before there were turns and lanes mean what they meant.
        const spread = host.staging_chunks *% 7 + host.index_shards;
        host.turn_budget = if (spread % 2 == 0) 0 else 1 + spread / 2 % 4;
        host.lanes = @intCast(1 + spread / 8 % 3);
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
                const kind = messages.classify(bytes) orelse
                    return report.say("{d}.{d:0>3} {d} {c} noise", .{ seconds, rest, who, what });
                report.say("{d}.{d:0>3} {d} {c} {t} {x} {x}", .{
                    seconds, rest, who, what, kind, bytes[4..8], bytes[8..16],
                });
            },
        }
    }

    pub fn ownerOf(world: *const World, host: *const Host) lanes.Owner {
        return .{ .host = host.number, .life = host.life, .generation = world.generation };
    }

    pub fn move(world: *World, host: *Host) void {
        _ = world;
        host.moves += 1;
        host.address = network.addressOf(host.number, host.moves);
    }

    pub fn isCut(world: *const World, from: u32, to: u32) bool {
        const place = world.hosts[from].placeOf(to) orelse return false;
        return world.edges.items[world.hosts[from].neighbours.items[place].edge].is_cut;
    }
};
