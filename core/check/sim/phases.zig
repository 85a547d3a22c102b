//! Phases: a storm in which everything goes wrong, then calm in which everyone must find each other within the bounds
//! of bounds.zig, at times silence after which no secret may be left, and a first packet into a cut.
//! Knows what is promised when, not how it comes about.
//! Invariant: a bound counts from the last time that something was done to either end.
const std = @import("std");
const protocol = @import("protocol");
const constants = protocol.constants;
const audit = @import("audit.zig");
const bounds = @import("bounds.zig");
const faults = @import("faults.zig");
const Host = @import("host.zig").Host;
const network = @import("network.zig");
const packet = @import("packet.zig");
const traffic = @import("traffic.zig");
const world_file = @import("world.zig");
const World = world_file.World;
const Error = world_file.Error;
const Phase = world_file.Phase;
const attempt = bounds.attempt;
const never = bounds.never;
const slack = bounds.slack;

const second = std.time.ns_per_s;

// ---- changes of phase ----

pub fn next(world: *World) Error!void {
    const r = world.random();
    const after: Phase = switch (world.phase) {
        .storm => .calm,
        .calm => if (r.uintLessThan(u8, 3) == 0) .silence else .storm,
        .silence => .wake,
        .wake => .storm,
    };
    const duration: u64 = switch (after) {
        .storm => r.intRangeAtMost(u64, 20, 400) * second,
        .calm => r.intRangeAtMost(u64, 60, 400) * second,
        .silence => bounds.silenceSettles(world) + 3 * constants.REJECT_AFTER_TIME +
            r.intRangeAtMost(u64, 1, 30) * second,
        .wake => r.intRangeAtMost(u64, 1, 70) * second,
    };
    if (world.time != 0) try end(world);
    world.phase = if (world.time == 0) .storm else after;
    world.phase_began = world.time;
    world.phase_ends = world.time + duration;
    world.note('p', @backingInt(world.phase), "");
    switch (world.phase) {
        .storm => beginStorm(world),
        .calm => try beginCalm(world),
        .silence => try beginSilence(world),
        .wake => try beginWake(world),
    }
    try world.schedule(duration, .phase);
}

fn end(world: *World) Error!void {
    switch (world.phase) {
        .storm, .calm => {},
        .silence => try expectNoSecrets(world),
        .wake => for (world.edges.items) |*edge| {
            edge.is_cut = false;
        },
    }
    try world.ledger.prune();
}

fn beginStorm(world: *World) void {
    const r = world.random();
    world.weather = .storm(r);
    for (world.hosts) |*host| for (host.neighbours.items) |*neighbour| {
        neighbour.calm_since = never;
        neighbour.talks = r.uintLessThan(u8, 4) != 0;
        neighbour.talk_interval_ns = @max(world.base_interval_ns, r.intRangeAtMost(u64, 1, 10) * second);
    };
}

/// Everything is put right, and from now on only little goes wrong.
fn beginCalm(world: *World) Error!void {
    const r = world.random();
    world.weather = .fair(r);
    world.generation += 1; // what was under way is lost, so that no bound must wait for it
    world.tap.clear(world.gpa);
    @memset(world.groups, 0);
    for (world.edges.items) |*edge| {
        edge.is_cut = false;
        edge.is_mute = world.edges.items.len > 1 and r.uintLessThan(u8, 8) == 0;
    }
    for (world.hosts) |*host| {
        host.suspended_until = 0;
        host.has_entropy = true;
        host.is_loaded = r.uintLessThan(u8, 6) == 0;
        if (!host.is_up) host.setUp(true);
        try setRight(world, host);
        host.wake_at = never;
    }
    for (world.edges.items) |*edge| chooseTraffic(world, edge);
    for (world.hosts) |*host| try traffic.settle(world, host);
}

/// The configuration that the others' makes necessary.
fn setRight(world: *World, host: *Host) Error!void {
    const r = world.random();
    for (host.neighbours.items, 0..) |*neighbour, k| {
        const other = &world.hosts[neighbour.host];
        if (neighbour.present and !std.mem.eql(u8, &neighbour.public, &other.public)) {
            faults.showTrueTime(world, host);
            try host.removePeer(@intCast(k));
        }
    }
    host.routes.clearRetainingCapacity();
    for (host.neighbours.items, 0..) |*neighbour, k| {
        const other = &world.hosts[neighbour.host];
        const edge = &world.edges.items[neighbour.edge];
        neighbour.present = true;
        neighbour.public = other.public;
        neighbour.psk = edge.psk;
        if (edge.is_mute and host.number == edge.ends[0]) neighbour.psk[0] ^= 0x55;
        neighbour.endpoint = if (other.roams) null else other.address;
        neighbour.keepalive = if (r.uintLessThan(u8, 5) == 0) r.intRangeAtMost(u16, 5, 60) else 0;
        try host.giveNetworks(@intCast(k));
    }
    // Some guests live with others.
    for (0..3) |_| {
        const owner = r.uintLessThan(usize, host.neighbours.items.len + 1);
        if (owner == host.neighbours.items.len) break;
        try host.giveRoute(faults.guest(world, host), @intCast(owner));
    }
    try host.configureAll();
}

fn chooseTraffic(world: *World, edge: *const world_file.Edge) void {
    const r = world.random();
    const kind = r.uintLessThan(u8, 8);
    for (edge.ends, edge.places, 0..) |number, place, i| {
        const host = &world.hosts[number];
        const neighbour = &host.neighbours.items[place];
        // Who is not to be found must speak, and a clock that went back may close one direction.
        const must_talk = host.roams or world.clocks_lie;
        const listens = !must_talk and (kind == i or kind == 2 + i);
        neighbour.talks = !listens;
        const seldom: u64 = if (kind >= 2 and kind <= 4) r.intRangeAtMost(u64, 2, 15) else 1;
        neighbour.talk_interval_ns = @max(world.base_interval_ns, seldom * second);
        neighbour.calm_since = if (edge.is_mute) never else world.time;
        neighbour.arrived_at = world.time;
        neighbour.awaited = null;
    }
}

fn beginSilence(world: *World) Error!void {
    const r = world.random();
    for (world.edges.items) |*edge| edge.is_cut = r.uintLessThan(u8, 3) == 0;
    for (world.hosts) |*host| {
        for (host.neighbours.items, 0..) |*neighbour, k| {
            if (world.edges.items[neighbour.edge].is_cut) _ = try traffic.send(world, host, @intCast(k), 1, false);
            neighbour.talks = false;
            neighbour.calm_since = never;
        }
        try traffic.settle(world, host);
    }
}

fn isIdle(world: *const World, host: *const Host, place: u32) bool {
    const neighbour = &host.neighbours.items[place];
    const back = &world.hosts[neighbour.host].neighbours.items[neighbour.back];
    return neighbour.keepalive == 0 and back.keepalive == 0;
}

fn expectNoSecrets(world: *World) Error!void {
    for (world.hosts) |*host| for (host.neighbours.items, 0..) |*neighbour, k| {
        if (!isIdle(world, host, @intCast(k))) continue;
        const rest = audit.remainder(&host.interface, neighbour.id.?) orelse continue;
        return world.ledger.fail("host {d} keeps of {d}, idle for {d} s: {s}", .{
            host.number, neighbour.host, (world.time - world.phase_began) / second, rest,
        });
    };
}

/// One packet goes into a cut, and must arrive when that heals, by the next attempt at the latest.
fn beginWake(world: *World) Error!void {
    const r = world.random();
    for (world.edges.items) |*edge| {
        edge.is_cut = false;
        const side = r.uintLessThan(usize, 2);
        const host = &world.hosts[edge.ends[side]];
        const place = edge.places[side];
        const neighbour = &host.neighbours.items[place];
        const other = &world.hosts[neighbour.host];
        const peer = host.interface.get(neighbour.id.?) orelse continue;
        if (edge.is_mute or world.clocks_lie or other.roams or peer.endpoint == null or !isIdle(world, host, place)) {
            continue;
        }
        // One for each neighbour finds room, whatever was left there before.
        if (host.staging_chunks < host.neighbours.items.len) continue;
        edge.is_cut = true;
        const id = try traffic.send(world, host, place, 1, false);
        try traffic.settle(world, host);
        const cut_for = r.intRangeAtMost(u64, 0, (world.phase_ends - world.time) / second) * second;
        const until = world.time + cut_for + attempt + bounds.loadTime(host, other) + slack;
        neighbour.awaited = .{ .id = id, .until = until };
        try world.schedule(cut_for, .{ .undo = .{ .heal = neighbour.edge } });
    }
    world.phase_ends = @max(world.phase_ends, world.time + 70 * second + 5 * attempt + 2 * slack);
}

// ---- once a second ----

pub fn check(world: *World) Error!void {
    const r = world.random();
    for (world.hosts) |*host| {
        if (world.hosts.len > 16 and r.uintLessThan(usize, world.hosts.len) >= 4) continue;
        if (audit.unsound(host)) |what| return world.ledger.fail("host {d}: {s}", .{ host.number, what });
    }
    for (world.hosts) |*host| for (host.neighbours.items, 0..) |*neighbour, k| {
        const place: u32 = @intCast(k);
        switch (world.phase) {
            .storm => {},
            .calm => {
                try checkArrival(world, host, place);
                try checkAnswer(world, host, place);
                try checkBeat(world, host, place);
            },
            .silence => {
                try checkBeat(world, host, place);
                const settled = world.phase_began + bounds.silenceSettles(world);
                if (isIdle(world, host, place) and neighbour.sent_at > settled) {
                    return world.ledger.fail(
                        "host {d} speaks to {d}, to which it has nothing to say",
                        .{ host.number, neighbour.host },
                    );
                }
            },
            .wake => if (neighbour.awaited) |awaited| {
                if (world.time <= awaited.until or world.ledger.wasDelivered(awaited.id)) continue;
                return world.ledger.fail(
                    "host {d} lost the packet that waited for a handshake with {d}",
                    .{ host.number, neighbour.host },
                );
            },
        }
    };
    if (world.phase == .silence) for (world.hosts) |*host| try checkAttempts(world, host);
}

/// Who can talk does. A renewal may interrupt for one attempt: two ends that began at the same instant have a session
/// each, and who answers the initiation lets go of the one that the other sends with; if the answer is lost, or waits
/// for a cookie, that lasts until the next attempt.
fn checkArrival(world: *World, host: *Host, place: u32) Error!void {
    const neighbour = &host.neighbours.items[place];
    if (!neighbour.talks or !bounds.isQuiet(world, host, place)) return;
    const gap = world.time - neighbour.arrived_at;
    if (gap <= 2 * neighbour.talk_interval_ns + attempt + bounds.loadTime(host, &world.hosts[neighbour.host]) + slack) {
        return;
    }
    return world.ledger.fail("nothing of host {d} has reached {d} for {d} s, although nothing is wrong since {d} s", .{
        host.number, neighbour.host, gap / second, (world.time - neighbour.calm_since) / second,
    });
}

/// Who only listens answers after KEEPALIVE_TIMEOUT.
fn checkAnswer(world: *World, host: *Host, place: u32) Error!void {
    const neighbour = &host.neighbours.items[place];
    const back = &world.hosts[neighbour.host].neighbours.items[neighbour.back];
    if (neighbour.talks or !back.talks or !bounds.isQuiet(world, host, place)) return;
    const gap = world.time - neighbour.sent_at;
    if (gap <= back.talk_interval_ns + constants.KEEPALIVE_TIMEOUT + slack) return;
    return world.ledger.fail("host {d} has not answered {d} for {d} s", .{ host.number, neighbour.host, gap / second });
}

/// The persistent keepalive: the way is used once per interval, or a handshake is tried instead.
fn checkBeat(world: *World, host: *Host, place: u32) Error!void {
    const neighbour = &host.neighbours.items[place];
    if (neighbour.keepalive == 0 or world.time - world.phase_began < 100 * second) return;
    const peer = host.interface.get(neighbour.id.?) orelse return;
    if (peer.endpoint == null or !host.isAwake(world.time) or !host.is_up) return;
    const gap = world.time - @max(neighbour.sent_at, neighbour.heard_at);
    if (gap <= @as(u64, neighbour.keepalive) * second + attempt + slack) return;
    return world.ledger.fail("host {d} has not kept the way to {d} open for {d} s", .{
        host.number, neighbour.host, gap / second,
    });
}

/// However many peers are silent, each is tried in its turn.
fn checkAttempts(world: *World, host: *Host) Error!void {
    if (world.time - world.phase_began < bounds.silentTime(host)) return;
    for (host.silent.values()) |at| {
        if (at != null and world.time - at.? <= bounds.silentTime(host)) continue;
        return world.ledger.fail("host {d} does not keep the way to a silent peer open", .{host.number});
    }
}
