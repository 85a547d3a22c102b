//! Host: one end with a real Interface, its clocks, its address outside, and a second opinion on its configuration:
//! who its peers are and what they may send, kept here in the obvious way and never read from the protocol.
//! Knows neither network nor events.
//! Invariant: every change of the configuration goes through here, so model and Interface say the same.
const std = @import("std");
const wire = @import("wire");
const protocol = @import("protocol");
const Change = protocol.change.Change;
const AllowedIpChange = protocol.change.AllowedIpChange;
const PeerChange = protocol.change.PeerChange;
const lanes = @import("lanes.zig");
const packet = @import("packet.zig");
const Allocator = std.mem.Allocator;

const Error = Allocator.Error;
const second = std.time.ns_per_s;
/// More peers than tables that were made for a few have room for.
const strangers_max = 100;
/// Of a peer where nobody is, in seconds.
pub const silent_keepalive = 25;

/// Counts what an interface holds, and sees whether it asks for more when it should not.
pub const Memory = struct {
    backing: Allocator,
    live: usize = 0,
    /// How often more may be had; null for as often as it is asked for.
    left: ?usize = null,
    is_open: bool = true,
    /// Something was allocated while the door was shut.
    broke_in: bool = false,

    pub fn allocator(memory: *Memory) Allocator {
        return .{ .ptr = memory, .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free } };
    }

    fn alloc(context: *anyopaque, length: usize, alignment: std.mem.Alignment, address: usize) ?[*]u8 {
        const memory: *Memory = @ptrCast(@alignCast(context));
        memory.broke_in = memory.broke_in or !memory.is_open;
        if (memory.left) |*left| {
            if (left.* == 0) return null;
            left.* -= 1;
        }
        const bytes = memory.backing.rawAlloc(length, alignment, address) orelse return null;
        memory.live += length;
        return bytes;
    }

    fn resize(context: *anyopaque, bytes: []u8, alignment: std.mem.Alignment, length: usize, address: usize) bool {
        const memory: *Memory = @ptrCast(@alignCast(context));
        memory.broke_in = memory.broke_in or !memory.is_open;
        if (!memory.backing.rawResize(bytes, alignment, length, address)) return false;
        memory.live = memory.live - bytes.len + length;
        return true;
    }

    fn remap(_: *anyopaque, _: []u8, _: std.mem.Alignment, _: usize, _: usize) ?[*]u8 {
        return null;
    }

    fn free(context: *anyopaque, bytes: []u8, alignment: std.mem.Alignment, address: usize) void {
        const memory: *Memory = @ptrCast(@alignCast(context));
        memory.live -= bytes.len;
        memory.backing.rawFree(bytes, alignment, address);
    }
};

/// Another host as this one has it in its configuration, and what is known of the way between them.
pub const Neighbour = struct {
    host: u32,
    /// Our place among its neighbours.
    back: u32,
    edge: u32,

    present: bool = false,
    public: [32]u8 = @splat(0),
    psk: [32]u8 = @splat(0),
    keepalive: u16 = 0,
    endpoint: ?wire.SocketAddress = null,
    id: ?protocol.PeerId = null,
    /// Counts the peers there have been here: what came before is forgotten.
    entry: u32 = 0,

    /// Of the latest initiation of this peer that was accepted.
    latest_timestamp: protocol.time.Timestamp = @splat(0),
    /// Of the last initiation we sent it.
    sent_timestamp: protocol.time.Timestamp = @splat(0),
    /// When we last sent an initiation; forgotten when the protocol may forget it.
    initiated_at: ?u64 = null,
    /// Whether that may go again before its time, with a cookie.
    cookie_retry: enum { unused, due, spent } = .unused,
    /// When anything of ours last left for it, and anything authentic of it last came.
    sent_at: u64 = 0,
    heard_at: u64 = 0,

    // The traffic towards it.
    talks: bool = false,
    talk_interval_ns: u64 = second,
    /// Nothing has gone wrong on this way since then.
    calm_since: u64 = 0,
    /// When a packet of ours last arrived there.
    arrived_at: u64 = 0,
    /// Packet that must arrive in spite of a cut, and until when.
    awaited: ?struct { id: u64, until: u64 } = null,
};

/// What handshakes cost of late, in curve operations: those of this second, and of the one before.
pub const Work = struct {
    second: u64 = 0,
    all: [2]u64 = @splat(0),
    /// Of initiations alone: nothing but load bounds these.
    initiations: [2]u64 = @splat(0),

    pub fn add(work: *Work, time: u64, operations: u64, is_initiation: bool) void {
        work.passTo(time / std.time.ns_per_s);
        work.all[0] += operations;
        if (is_initiation) work.initiations[0] += operations;
    }

    fn passTo(work: *Work, second_now: u64) void {
        if (second_now == work.second) return;
        const has_just_begun = second_now == work.second + 1;
        work.second = second_now;
        for ([_]*[2]u64{ &work.all, &work.initiations }) |sums| {
            sums[1] = if (has_just_begun) sums[0] else 0;
            sums[0] = 0;
        }
    }
};

/// A sending key, and how far it was used when a snapshot of the machine was taken.
const Saved = struct { slot: u30, key: [32]u8, counter: u64 };

pub const Route = struct { prefix: wire.Prefix, owner: u32 };

pub const Host = struct {
    number: u32,
    gpa: Allocator,
    memory: Memory,
    memory_max: usize = 0,
    interface: protocol.Interface = undefined,
    staging_chunks: u32,
    index_shards: u8,
    /// What it sends of its own accord in one turn; 0 is all there is.
    turn_budget: u32,
    /// Workers that read and send for it at a time, each of which the system may let wait.
    lanes: u8,
    prng: std.Random.DefaultPrng,
    has_entropy: bool = true,

    private: [32]u8 = @splat(0),
    public: [32]u8 = @splat(0),
    /// Counts private keys.
    key_epoch: u32 = 0,
    neighbours: std.ArrayList(Neighbour) = .empty,
    routes: std.ArrayList(Route) = .empty,
    /// Peer index -> neighbour.
    by_index: std.ArrayList(?u32) = .empty,
    saved: std.ArrayList(Saved) = .empty,
    /// Peers where nobody is, kept open all the same.
    silent_count: u32 = 0,
    /// Peer index -> when such a peer was last sent an initiation, if it was.
    silent: std.AutoArrayHashMapUnmanaged(u32, ?u64) = .empty,
    /// Counts its starts, and how often its machine was set back: what its workers had in hand is gone each time.
    life: u32 = 0,

    is_up: bool = true,
    suspended_until: u64 = 0,
    /// It demands a cookie of everyone.
    is_loaded: bool = false,
    /// What a curve operation is said to take.
    curve_ns: u64,
    work: Work = .{},
    boot_offset: i64,
    wall_offset: i64,
    /// The latest wall time it has shown anyone.
    wall_high: u64 = 0,
    /// Once it restarted, or removed a peer: it no longer knows what it has shown.
    has_forgotten: bool = false,

    address: wire.SocketAddress,
    moves: u16 = 0,
    roams: bool = false,
    is_translated: bool = false,
    translated_at: u64 = 0,

    wake_at: u64 = std.math.maxInt(u64),

    pub fn now(host: *const Host, time: u64) protocol.Now {
        return .{
            .boot = .{ .ns = @intCast(@as(i128, time) + host.boot_offset) },
            .unix_ns = @intCast(@max(0, @as(i128, time) + host.wall_offset)),
        };
    }

    pub fn demand(host: *const Host) protocol.Demand {
        return if (host.is_loaded) .always else .under_load;
    }

    pub fn isAwake(host: *const Host, time: u64) bool {
        return time >= host.suspended_until;
    }

    // ---- life ----

    pub fn start(host: *Host) Error!void {
        host.memory.is_open = true;
        host.has_entropy = true; // else it would be started again until there is some
        host.interface = protocol.Interface.init(.{
            .allocator = host.memory.allocator(),
            .entropy = .{ .context = host, .fillFn = fill },
            .staging_chunks = host.staging_chunks,
            .index_shards = host.index_shards,
            .curve_ns = host.curve_ns,
        }) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.EntropyUnavailable => unreachable,
        };
        host.work = .{};
        host.memory.is_open = false;
        host.saved.clearRetainingCapacity();
        host.life += 1;
        for (host.neighbours.items) |*neighbour| forget(neighbour);
        try host.configureAll();
        try host.addSilent();
        host.interface.setActive(true);
        host.is_up = true;
        if (host.memory_max == 0) host.memory_max = 2 * host.memory.live + (1 << 18);
    }

    /// What it still holds afterwards is a leak.
    pub fn stop(host: *Host) void {
        host.interface.deinit();
    }

    pub fn deinit(host: *Host) void {
        host.stop();
        host.neighbours.deinit(host.gpa);
        host.routes.deinit(host.gpa);
        host.saved.deinit(host.gpa);
        host.by_index.deinit(host.gpa);
        host.silent.deinit(host.gpa);
    }

    fn fill(context: ?*anyopaque, out: []u8) bool {
        const host: *Host = @ptrCast(@alignCast(context.?));
        if (!host.has_entropy) return false;
        host.prng.random().bytes(out);
        return true;
    }

    pub fn drawKey(host: *Host) void {
        host.prng.random().bytes(&host.private);
        protocol.crypto.clamp(&host.private);
        host.public = protocol.crypto.publicKey(&host.private);
        host.key_epoch += 1;
    }

    // ---- configuration ----

    fn forget(neighbour: *Neighbour) void {
        neighbour.entry += 1;
        neighbour.latest_timestamp = @splat(0);
        neighbour.sent_timestamp = @splat(0);
        neighbour.initiated_at = null;
    }

    /// Nothing was sent to anybody under this key, or since it was up.
    fn forgetInitiations(host: *Host) void {
        for (host.neighbours.items) |*neighbour| neighbour.initiated_at = null;
        for (host.silent.values()) |*at| at.* = null;
    }

    fn addSilent(host: *Host) Error!void {
        host.silent.clearRetainingCapacity();
        if (host.silent_count == 0) return;
        const sections = try host.gpa.alloc(PeerChange, host.silent_count);
        defer host.gpa.free(sections);
        for (sections, 0..) |*each, i| {
            const low: u16 = @truncate(i);
            each.* = .{
                .public_key = undefined,
                .persistent_keepalive_interval = silent_keepalive,
                .endpoint = .{ .address = .fromIpv4(.{ 198, 19, @truncate(i >> 16), 1 }), .port = low },
            };
            host.prng.random().bytes(&each.public_key);
        }
        try host.configure(&.{ .peers = sections });
        for (sections) |*each| try host.silent.put(host.gpa, host.interface.by_key.find(&each.public_key).?, null);
    }

    /// When it was last sent an initiation; null if the index is of no such peer.
    pub fn silentAt(host: *Host, index: u32) ?*?u64 {
        return host.silent.getPtr(index);
    }

    pub fn configure(host: *Host, change: *const Change) Error!void {
        host.memory.is_open = true;
        defer host.memory.is_open = false;
        host.interface.configure(change) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.LimitExceeded => unreachable,
        };
        host.by_index.clearRetainingCapacity();
        try host.by_index.appendNTimes(host.gpa, null, host.interface.peer_high);
        for (host.neighbours.items, 0..) |*neighbour, k| {
            neighbour.id = null;
            if (!neighbour.present) continue;
            const index = host.interface.by_key.find(&neighbour.public) orelse continue;
            neighbour.id = host.interface.idOf(index);
            host.by_index.items[index] = @intCast(k);
        }
    }

    /// All of it, as from a file: what is there already stays as it is.
    pub fn configureAll(host: *Host) Error!void {
        const gpa = host.gpa;
        var sections: std.ArrayList(PeerChange) = .empty;
        defer sections.deinit(gpa);
        var prefixes: std.ArrayList(AllowedIpChange) = .empty;
        defer prefixes.deinit(gpa);
        try prefixes.ensureTotalCapacity(gpa, host.routes.items.len);
        for (host.neighbours.items, 0..) |*neighbour, k| {
            if (neighbour.present) try sections.append(gpa, host.section(@intCast(k), &prefixes));
        }
        try host.configure(&.{ .private_key = host.private, .peers = sections.items });
    }

    fn section(host: *const Host, k: u32, prefixes: *std.ArrayList(AllowedIpChange)) PeerChange {
        const neighbour = &host.neighbours.items[k];
        const first = prefixes.items.len;
        for (host.routes.items) |route| {
            if (route.owner == k) prefixes.appendAssumeCapacity(.{ .prefix = route.prefix });
        }
        return .{
            .public_key = neighbour.public,
            .preshared_key = neighbour.psk,
            .endpoint = neighbour.endpoint,
            .persistent_keepalive_interval = neighbour.keepalive,
            .replace_allowed_ips = true,
            .allowed_ips = prefixes.items[first..],
        };
    }

    /// Adds the peer or sets all that the model says of it.
    pub fn setPeer(host: *Host, k: u32) Error!void {
        var prefixes: std.ArrayList(AllowedIpChange) = .empty;
        defer prefixes.deinit(host.gpa);
        try prefixes.ensureTotalCapacity(host.gpa, host.routes.items.len);
        host.neighbours.items[k].present = true;
        var sections = [_]PeerChange{host.section(k, &prefixes)};
        try host.configure(&.{ .peers = &sections });
    }

    /// With its allowed IPs, which go with it.
    pub fn removePeer(host: *Host, k: u32) Error!void {
        const neighbour = &host.neighbours.items[k];
        if (!neighbour.present) return;
        var sections = [_]PeerChange{.{ .public_key = neighbour.public, .remove = true }};
        neighbour.present = false;
        forget(neighbour);
        host.dropRoutes(k);
        try host.configure(&.{ .peers = &sections });
    }

    /// One section of a change to a peer that stays.
    pub fn changePeer(host: *Host, k: u32, change: PeerChange) Error!void {
        var sections = [_]PeerChange{change};
        sections[0].public_key = host.neighbours.items[k].public;
        sections[0].update_only = true;
        try host.configure(&.{ .peers = &sections });
    }

    pub fn setKey(host: *Host) Error!void {
        host.drawKey();
        host.forgetInitiations();
        try host.configure(&.{ .private_key = host.private });
    }

    pub fn setUp(host: *Host, is_up: bool) void {
        host.is_up = is_up;
        host.interface.setActive(is_up);
        host.forgetInitiations();
    }

    /// A change for which memory ends after so many pieces; if they suffice, it is taken back. False if a change that
    /// was refused has changed something.
    pub fn configureShort(host: *Host, pieces: usize) Error!bool {
        const before = host.configurationHash();
        var strangers: [strangers_max]PeerChange = undefined;
        for (&strangers) |*stranger| {
            stranger.* = .{ .public_key = undefined };
            host.prng.random().bytes(&stranger.public_key);
        }
        host.memory.is_open = true;
        host.memory.left = pieces;
        const outcome = host.interface.configure(&.{ .listen_port = 4711, .peers = &strangers });
        host.memory.left = null;
        host.memory.is_open = false;
        outcome catch return host.configurationHash() == before;
        for (&strangers) |*stranger| stranger.remove = true;
        try host.configure(&.{ .listen_port = 0, .peers = &strangers });
        return true;
    }

    fn configurationHash(host: *Host) u64 {
        var buffer: [256]u8 = undefined;
        var hashing: std.Io.Writer.Hashing(std.hash.Wyhash) = .initHasher(.init(0), &buffer);
        host.interface.writeConfiguration(&hashing.writer) catch unreachable; // it cannot fail
        hashing.writer.flush() catch unreachable;
        return hashing.hasher.final();
    }

    /// As if its other workers sent so much by the key of a train, while one waits with that.
    pub fn reserveForOthers(host: *Host, train: *const lanes.Train, count: u64) void {
        const peer = host.interface.get(train.ticket.peer) orelse return;
        const session = host.interface.sessions.at(peer.sessions.current orelse return);
        const is_worn = session.send_counter > protocol.constants.REKEY_AFTER_MESSAGES - count;
        if (is_worn or !std.mem.eql(u8, &session.sending_key, &train.key)) return;
        session.send_counter += count;
    }

    // ---- a snapshot of the machine ----

    pub fn takeSnapshot(host: *Host) Error!void {
        host.saved.clearRetainingCapacity();
        for (host.neighbours.items) |*neighbour| {
            const peer = host.interface.get(neighbour.id orelse continue) orelse continue;
            const slot = peer.sessions.current orelse continue;
            const session = host.interface.sessions.at(slot);
            try host.saved.append(host.gpa, .{
                .slot = slot,
                .key = session.sending_key,
                .counter = session.send_counter,
            });
        }
    }

    /// The counters are those of the snapshot again, which is what matters; and the kernel says so.
    pub fn goBack(host: *Host, time: u64) void {
        for (host.saved.items) |*saved| {
            const session = host.interface.sessions.at(saved.slot);
            if (!std.mem.eql(u8, &session.sending_key, &saved.key)) continue;
            session.send_counter = @min(session.send_counter, saved.counter);
        }
        host.saved.clearRetainingCapacity();
        host.life += 1;
        host.interface.renewSessions(host.now(time));
        host.forgetInitiations();
    }

    // ---- allowed IPs, in the obvious way ----

    pub fn dropRoutes(host: *Host, k: u32) void {
        var i: usize = 0;
        while (i < host.routes.items.len) {
            if (host.routes.items[i].owner == k) _ = host.routes.orderedRemove(i) else i += 1;
        }
    }

    pub fn giveRoute(host: *Host, prefix: wire.Prefix, k: u32) Error!void {
        for (host.routes.items) |*route| {
            if (route.prefix.length == prefix.length and route.prefix.address.eql(prefix.address)) {
                route.owner = k;
                return;
            }
        }
        try host.routes.append(host.gpa, .{ .prefix = prefix, .owner = k });
    }

    pub fn giveNetworks(host: *Host, k: u32) Error!void {
        const other = host.neighbours.items[k].host;
        try host.giveRoute(packet.networkOf(.ipv4, other), k);
        try host.giveRoute(packet.networkOf(.ipv6, other), k);
    }

    /// The neighbour with the longest prefix around the address.
    pub fn ownerOf(host: *const Host, address: wire.Address) ?u32 {
        var best: ?Route = null;
        for (host.routes.items) |route| {
            if (!host.neighbours.items[route.owner].present or route.prefix.address.family != address.family) continue;
            const masked = (wire.Prefix{ .address = address, .length = route.prefix.length }).masked();
            if (!masked.address.eql(route.prefix.address)) continue;
            if (best == null or route.prefix.length > best.?.prefix.length) best = route;
        }
        return if (best) |route| route.owner else null;
    }

    pub fn neighbourOf(host: *const Host, id: protocol.PeerId) ?u32 {
        if (id.index >= host.by_index.items.len) return null;
        return host.by_index.items[id.index];
    }

    pub fn placeOf(host: *const Host, other: u32) ?u32 {
        for (host.neighbours.items, 0..) |neighbour, k| {
            if (neighbour.host == other) return @intCast(k);
        }
        return null;
    }

    /// Where it would send to this neighbour now.
    pub fn endpointOf(host: *Host, place: ?u32) ?wire.SocketAddress {
        const id = host.neighbours.items[place orelse return null].id orelse return null;
        const peer = host.interface.get(id) orelse return null;
        return if (peer.endpoint) |endpoint| endpoint.remote else null;
    }
};
