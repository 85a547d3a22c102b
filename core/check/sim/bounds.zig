//! How long anything may take when nothing is wrong, derived from the protocol's own times. What is done to a pair of
//! hosts is told here (`disturb`), for then its bounds count anew.
const std = @import("std");
const constants = @import("protocol").constants;
const Host = @import("host.zig").Host;
const silent_keepalive = @import("host.zig").silent_keepalive;
const World = @import("world.zig").World;

const second = std.time.ns_per_s;

pub const never = std.math.maxInt(u64);

/// An initiation that got nowhere is sent again after this.
pub const attempt = constants.REKEY_TIMEOUT + constants.REKEY_TIMEOUT_JITTER_MAX;
/// Data that gets no answer makes a new handshake after this.
const detection = constants.KEEPALIVE_TIMEOUT + constants.REKEY_TIMEOUT + constants.REKEY_TIMEOUT_JITTER_MAX;
/// Six crossings of the network, and timers that are served late.
pub const slack = second;

/// When idle pairs have come to rest: an initiation that nobody answers ends with its last attempt, and may have been
/// caused by data that nobody answered.
pub fn silenceSettles(world: *const World) u64 {
    var queue: u64 = 0;
    for (world.hosts) |*host| queue = @max(queue, queueTime(host));
    return detection + (constants.MAX_TIMER_HANDSHAKES + 2) * (attempt + queue) + constants.KEEPALIVE_TIMEOUT +
        2 * slack;
}

/// Handshakes that cost less than this in a second are not to be asked for cookies: half of what may be spent at once.
pub const work_that_is_no_load = 5 * std.time.ns_per_ms;

/// What initiations may cost in two seconds: a fortieth of them without a cookie, a quarter with one, what either may
/// spend at once, and a handshake of each that was begun with the last of it.
pub const work_max = 2 * second / 40 + 2 * second / 4 + 2 * (10 + 4) * std.time.ns_per_ms;

/// Under load a message waits for a cookie, and goes again one attempt later. That may befall the initiation, then the
/// response, and each of them once more when the cookie's secret was near its end.
pub fn loadTime(a: *const Host, b: *const Host) u64 {
    return if (isBusy(a) or isBusy(b)) 4 * attempt else 0;
}

/// It may demand cookies: always, or because few handshakes are many for it.
fn isBusy(host: *const Host) bool {
    return host.is_loaded or host.curve_ns >= std.time.ns_per_ms;
}

/// From the last trouble until packets arrive again. In the worst case the one that talks has a session that the other
/// lost: it takes a packet and `detection` to see that; then the initiation may have to wait for one attempt since the
/// last one; and that handshake may be spoilt by one that the other end had begun, so one more.
fn recoveryTime(world: *const World, host: *const Host, place: u32) u64 {
    const neighbour = &host.neighbours.items[place];
    return slowest(world, host, place) + detection + 2 * attempt + loadTime(host, &world.hosts[neighbour.host]) + slack;
}

/// Between two packets on this way or back.
fn slowest(world: *const World, host: *const Host, place: u32) u64 {
    const neighbour = &host.neighbours.items[place];
    const back = &world.hosts[neighbour.host].neighbours.items[neighbour.back];
    return @max(if (neighbour.talks) neighbour.talk_interval_ns else 0, if (back.talks) back.talk_interval_ns else 0);
}

/// After REKEY_AFTER_TIME the next packet begins the handshake: one's own, or the keepalive that answers the other's.
pub fn renewalTime(world: *const World, host: *const Host, place: u32) u64 {
    const other = &world.hosts[host.neighbours.items[place].host];
    return slowest(world, host, place) + constants.KEEPALIVE_TIMEOUT + attempt + loadTime(host, other) + slack;
}

/// Between two attempts to reach a peer where nobody is: the last of a row is given up, and the keepalive begins
/// another; and all others may be before it, in turns.
pub fn silentTime(host: *const Host) u64 {
    return 2 * attempt + silent_keepalive * second + 2 * queueTime(host) + slack;
}

/// Until an attempt that nothing waits for has its turn, if all peers where nobody is are before it.
fn queueTime(host: *const Host) u64 {
    if (host.silent.count() == 0) return 0;
    return host.silent.count() * std.time.ns_per_ms / host.turn_budget;
}

/// Whether nothing has happened to a pair for so long that all is as it should be.
pub fn isQuiet(world: *const World, host: *const Host, place: u32) bool {
    if (world.phase != .calm) return false;
    const neighbour = &host.neighbours.items[place];
    const back = &world.hosts[neighbour.host].neighbours.items[neighbour.back];
    const since = @max(neighbour.calm_since, back.calm_since);
    return since != never and world.time > since + recoveryTime(world, host, place);
}

/// Something is done to the pair: its bounds count anew.
pub fn disturb(world: *World, host: *Host, place: u32) void {
    const neighbour = &host.neighbours.items[place];
    const back = &world.hosts[neighbour.host].neighbours.items[neighbour.back];
    if (neighbour.calm_since != never) neighbour.calm_since = world.time;
    if (back.calm_since != never) back.calm_since = world.time;
}

pub fn disturbAll(world: *World, host: *Host) void {
    for (0..host.neighbours.items.len) |place| disturb(world, host, @intCast(place));
}
