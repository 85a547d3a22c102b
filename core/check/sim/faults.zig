//! Faults: what happens to hosts and to the network between them. In a storm anything at any time; in calm one thing
//! now and then, both ends agreeing, after which the pair has its time to recover.
//! Knows no promise.
//! Invariant: what a fault breaks is either undone by an event or put right by the next calm.
const std = @import("std");
const wire = @import("wire");
const protocol = @import("protocol");
const constants = protocol.constants;
const bounds = @import("bounds.zig");
const flood = @import("flood.zig");
const Host = @import("host.zig").Host;
const network = @import("network.zig");
const packet = @import("packet.zig");
const traffic = @import("traffic.zig");
const world_file = @import("world.zig");
const World = world_file.World;
const Error = world_file.Error;

const second = std.time.ns_per_s;

const Fault = enum {
    restart,
    reboot,
    link,
    suspension,
    wall_clock,
    move,
    remove_peer,
    preshared_key,
    private_key,
    allowed_ip,
    lose_network,
    keepalive,
    partition,
    cut,
    counter,
    entropy,
    load,
    junk,
    flood,
    same_again,
    wrong_endpoint,
    copy,
    little_memory,
};

/// Until the next fault: more often where there are more hosts.
pub fn pause(world: *World) u64 {
    const r = world.random();
    const usual = r.intRangeAtMost(u64, second / 10, 6 * second);
    return switch (world.phase) {
        .storm => usual / (1 + world.hosts.len / 8),
        .calm => 10 * usual,
        .silence, .wake => usual,
    };
}

pub fn strike(world: *World) Error!void {
    const r = world.random();
    if (world.phase == .silence or world.phase == .wake) return;
    if (world.phase == .calm and world.random().boolean()) return;
    const fault = r.enumValue(Fault);
    const host = &world.hosts[r.uintLessThan(usize, world.hosts.len)];
    if (host.neighbours.items.len == 0) return;
    const place: u32 = @intCast(r.uintLessThan(usize, host.neighbours.items.len));
    world.stats.faults += 1;
    world.note('f', host.number, @tagName(fault));
    if (world.phase == .storm) {
        try strikeHard(world, fault, host, place);
    } else try strikeSoftly(world, fault, host, place);
}

fn strikeHard(world: *World, fault: Fault, host: *Host, place: u32) Error!void {
    const r = world.random();
    const neighbour = &host.neighbours.items[place];
    const long = r.intRangeAtMost(u64, second / 10, 250 * second);
    switch (fault) {
        .restart, .reboot => try restart(world, host, fault == .reboot),
        .link => {
            host.setUp(false);
            try world.schedule(long / 5, .{ .undo = .{ .link = host.number } });
        },
        .suspension => try sleep(world, host, long),
        .wall_clock => jump(world, host),
        .move => if (host.roams) world.move(host),
        .remove_peer => {
            showTrueTime(world, host);
            try host.removePeer(place);
            try world.schedule(long / 5, .{ .undo = .{ .add = .{ .host = host.number, .place = place } } });
        },
        .preshared_key => if (neighbour.present) {
            r.bytes(&neighbour.psk);
            try host.changePeer(place, .{ .public_key = undefined, .preshared_key = neighbour.psk });
            if (r.boolean()) return;
            const other = &world.hosts[neighbour.host];
            const back = &other.neighbours.items[neighbour.back];
            back.psk = neighbour.psk;
            if (back.present) {
                try other.changePeer(neighbour.back, .{ .public_key = undefined, .preshared_key = back.psk });
            }
        },
        .private_key => try host.setKey(),
        .allowed_ip => try moveGuest(world, host, place),
        .lose_network => if (neighbour.present) {
            host.dropRoutes(place);
            if (r.boolean()) try host.giveNetworks(place);
            try host.setPeer(place);
        },
        .keepalive => try setKeepalive(world, host, place),
        .partition => {
            for (world.groups) |*group| group.* = r.uintLessThan(u8, 2);
            try world.schedule(long, .{ .undo = .join });
        },
        .cut => {
            world.edges.items[neighbour.edge].is_cut = true;
            try world.schedule(long, .{ .undo = .{ .heal = neighbour.edge } });
        },
        .counter => wear(world, host, place),
        .entropy => {
            host.has_entropy = false;
            try world.schedule(long / 10, .{ .undo = .{ .entropy = host.number } });
        },
        .load => host.is_loaded = !host.is_loaded,
        .junk => try flood.pour(world, host, .junk),
        .flood => {
            try flood.pour(world, host, .unproven);
            try flood.pour(world, host, .proven);
        },
        .same_again => try host.configureAll(),
        .wrong_endpoint => if (neighbour.present) {
            const endpoint = network.elsewhere(r, host.address);
            try host.changePeer(place, .{ .public_key = undefined, .endpoint = endpoint });
        },
        .copy => {
            try host.takeSnapshot();
            try world.schedule(long / 20, .{ .undo = .{ .set_back = host.number } });
        },
        .little_memory => try endMemory(world, host),
    }
    try traffic.settle(world, host);
}

/// What may happen to a tunnel that is looked after.
fn strikeSoftly(world: *World, fault: Fault, host: *Host, place: u32) Error!void {
    const neighbour = &host.neighbours.items[place];
    const other = &world.hosts[neighbour.host];
    switch (fault) {
        .restart, .reboot => {
            world.tap.clear(world.gpa); // whoever has forgotten all would believe an old initiation
            try restart(world, host, fault == .reboot);
            bounds.disturbAll(world, host);
        },
        .link => {
            host.setUp(false);
            host.setUp(true);
            bounds.disturbAll(world, host);
        },
        .suspension => {
            const nap = world.random().intRangeAtMost(u64, second, 20 * second);
            try sleep(world, host, nap);
            bounds.disturbAll(world, host);
            for (host.neighbours.items) |*each| {
                const back = &world.hosts[each.host].neighbours.items[each.back];
                if (each.calm_since != std.math.maxInt(u64)) each.calm_since += nap;
                if (back.calm_since != std.math.maxInt(u64)) back.calm_since += nap;
            }
        },
        .wall_clock => jump(world, host), // disturbs nobody
        .move => if (host.roams) {
            world.move(host);
            bounds.disturbAll(world, host);
        },
        .remove_peer => {
            world.tap.clear(world.gpa);
            showTrueTime(world, host);
            const address = neighbour.endpoint;
            try host.removePeer(place);
            neighbour.endpoint = address;
            try host.giveNetworks(place);
            try host.setPeer(place);
            bounds.disturb(world, host, place);
        },
        .preshared_key => {
            const edge = &world.edges.items[neighbour.edge];
            if (edge.is_mute) return;
            world.random().bytes(&edge.psk);
            neighbour.psk = edge.psk;
            other.neighbours.items[neighbour.back].psk = edge.psk;
            try host.changePeer(place, .{ .public_key = undefined, .preshared_key = edge.psk });
            try other.changePeer(neighbour.back, .{ .public_key = undefined, .preshared_key = edge.psk });
            bounds.disturb(world, host, place); // a handshake may be under way
        },
        .private_key => {
            try host.setKey();
            for (host.neighbours.items) |each| {
                const neighbouring = &world.hosts[each.host];
                showTrueTime(world, neighbouring);
                try neighbouring.removePeer(each.back);
                neighbouring.neighbours.items[each.back].public = host.public;
                try neighbouring.giveNetworks(each.back);
                try neighbouring.setPeer(each.back);
            }
            bounds.disturbAll(world, host);
        },
        .allowed_ip => try moveGuest(world, host, place), // disturbs no usual traffic
        .counter => {
            wear(world, host, place);
            bounds.disturb(world, host, place);
        },
        .same_again => try host.configureAll(), // disturbs nobody
        .junk => try flood.pour(world, host, .junk), // disturbs nobody
        .flood => {
            try flood.pour(world, host, .unproven);
            try flood.pour(world, host, .proven);
            bounds.disturbAll(world, host);
        },
        .copy => {
            try host.takeSnapshot();
            try world.schedule(second, .{ .undo = .{ .set_back = host.number } });
        },
        .little_memory => try endMemory(world, host), // disturbs nobody
        .lose_network, .keepalive, .partition, .cut, .entropy, .load, .wrong_endpoint => {},
    }
    try traffic.settle(world, host);
    try traffic.settle(world, other);
}

pub fn undo(world: *World, what: world_file.Undo) Error!void {
    switch (what) {
        .link => |number| if (!world.hosts[number].is_up) world.hosts[number].setUp(true),
        .entropy => |number| world.hosts[number].has_entropy = true,
        .heal => |edge| world.edges.items[edge].is_cut = false,
        .join => @memset(world.groups, 0),
        .set_back => |number| {
            const host = &world.hosts[number];
            host.goBack(world.time);
            bounds.disturbAll(world, host);
            try traffic.settle(world, host);
        },
        .add => |peer| {
            const host = &world.hosts[peer.host];
            const neighbour = &host.neighbours.items[peer.place];
            if (world.phase != .storm or neighbour.present) return;
            neighbour.public = world.hosts[neighbour.host].public;
            try host.giveNetworks(peer.place);
            try host.setPeer(peer.place);
            try traffic.settle(world, host);
        },
    }
}

// ---- the single faults ----

/// Without any state but its configuration.
fn restart(world: *World, host: *Host, is_reboot: bool) Error!void {
    host.stop();
    if (host.memory.live != 0) {
        return world.ledger.fail("host {d} leaves {d} bytes behind", .{ host.number, host.memory.live });
    }
    host.memory = .{ .backing = world.gpa };
    if (is_reboot) host.boot_offset = second - @as(i64, @intCast(world.time));
    host.suspended_until = 0;
    host.wake_at = std.math.maxInt(u64);
    showTrueTime(world, host);
    try host.start();
}

/// What forgets the timestamps it has sent may not show earlier ones, not even later: its peers would refuse them, as
/// they should, and might not know where it is. One host may all the same where clocks lie; were it both of a pair,
/// each would refuse the other for ever.
pub fn showTrueTime(world: *World, host: *Host) void {
    if (world.clocks_lie and host.number == 0) return;
    host.has_forgotten = true;
    const shown = host.now(world.time).unix_ns;
    if (shown > host.wall_high) return;
    host.wall_offset += @intCast(host.wall_high - shown + second);
}

fn endMemory(world: *World, host: *Host) Error!void {
    if (try host.configureShort(world.random().uintLessThan(usize, 6))) return;
    return world.ledger.fail("host {d}: a change for which there was no memory has changed something", .{host.number});
}

fn jump(world: *World, host: *Host) void {
    const r = world.random();
    const furthest: i64 = switch (r.uintLessThan(u8, 3)) {
        0 => 10 * second,
        1 => 3600 * second,
        else => 365 * 24 * 3600 * @as(i64, second),
    };
    host.wall_offset += r.intRangeAtMost(i64, -furthest, furthest);
    if (host.has_forgotten) showTrueTime(world, host);
}

/// Boot time goes on meanwhile.
fn sleep(world: *World, host: *Host, duration: u64) Error!void {
    host.suspended_until = world.time + duration;
    host.wake_at = host.suspended_until;
    try world.schedule(duration, .{ .wake = host.number });
}

/// An address of somebody's network that may be given to others.
pub fn guest(world: *World, host: *const Host) wire.Prefix {
    const r = world.random();
    const family: wire.Family = if (r.boolean()) .ipv4 else .ipv6;
    const whose = host.neighbours.items[r.uintLessThan(usize, host.neighbours.items.len)].host;
    const address = packet.addressOf(family, whose, r.intRangeAtMost(u8, 200, 210));
    return .{ .address = address, .length = family.bitLength() };
}

fn moveGuest(world: *World, host: *Host, place: u32) Error!void {
    if (!host.neighbours.items[place].present) return;
    const prefix = guest(world, host);
    const is_gone = world.random().uintLessThan(u8, 3) == 0;
    if (is_gone) {
        for (host.routes.items, 0..) |route, i| {
            if (route.owner != place or route.prefix.length != prefix.length) continue;
            if (!route.prefix.address.eql(prefix.address)) continue;
            _ = host.routes.orderedRemove(i);
            break;
        }
    } else try host.giveRoute(prefix, place);
    var entries = [_]protocol.change.AllowedIpChange{.{ .prefix = prefix, .remove = is_gone }};
    try host.changePeer(place, .{ .public_key = undefined, .allowed_ips = &entries });
}

fn setKeepalive(world: *World, host: *Host, place: u32) Error!void {
    const neighbour = &host.neighbours.items[place];
    neighbour.keepalive = if (world.random().boolean()) 0 else world.random().intRangeAtMost(u16, 1, 60);
    if (neighbour.present) {
        try host.changePeer(place, .{ .public_key = undefined, .persistent_keepalive_interval = neighbour.keepalive });
    }
}

/// Brings a session's counter ahead, as if much had been sent: to the limits, or around the replay window.
fn wear(world: *World, host: *Host, place: u32) void {
    const r = world.random();
    const peer = host.interface.get(host.neighbours.items[place].id orelse return) orelse return;
    const session = host.interface.sessions.at(peer.sessions.current orelse return);
    const target: u64 = switch (r.uintLessThan(u8, 6)) {
        0 => constants.REKEY_AFTER_MESSAGES - r.uintAtMost(u64, 5),
        1 => constants.REJECT_AFTER_MESSAGES - r.uintAtMost(u64, 8),
        2 => session.send_counter +| r.uintAtMost(u64, 40_000),
        else => session.send_counter +| (constants.replay_bitmap_bits - r.uintAtMost(u64, 200)),
    };
    session.send_counter = @min(constants.REJECT_AFTER_MESSAGES, @max(target, session.send_counter));
}
