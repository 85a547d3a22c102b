//! Traffic: packets into a host and out of it, datagrams through the network, as a device drives its Interface, in
//! batches. Each datagram is judged where it leaves and where it arrives.
const std = @import("std");
const wire = @import("wire");
const messages = wire.messages;
const protocol = @import("protocol");
const Host = @import("host.zig").Host;
const judge = @import("judge.zig");
const lanes = @import("lanes.zig");
const network = @import("network.zig");
const Datagram = network.Datagram;
const packet = @import("packet.zig");
const world_file = @import("world.zig");
const World = world_file.World;
const Error = world_file.Error;

const second = std.time.ns_per_s;
const ms = std.time.ns_per_ms;

/// How late a timer may be served: the loop of a device has other things to do.
const lateness_max = 10 * ms;
/// Until the next turn of a host that left something.
const turn_ns = ms;
/// A mapping of a translator that carried nothing for so long is gone.
const translation_ns = 60 * second;

/// Sends what the protocol wants sent, and looks when it wants to be called again.
pub fn settle(world: *World, host: *Host) Error!void {
    if (!host.isAwake(world.time)) return;
    if (host.turn_budget != 0) return settleInTurns(world, host);
    var buffer: [packet.length_max + 48]u8 = undefined;
    var sent: usize = 0;
    var has_initiated = false;
    const now = host.now(world.time);
    while (host.interface.pollTransmit(&buffer, now)) |transmit| {
        sent += 1;
        if (sent > 100_000) return world.ledger.fail("host {d} does not stop sending", .{host.number});
        const datagram = buffer[0..transmit.length];
        const kind = messages.classify(datagram) orelse unreachable;
        if (kind == .initiation) {
            has_initiated = true;
        } else if (has_initiated) {
            return world.ledger.fail("host {d} lets a {t} wait for an initiation", .{ host.number, kind });
        }
        try emit(world, host, datagram, transmit.endpoint.remote, .{ .protocol = transmit.peer });
    }
    try wakeInTime(world, host, now);
}

/// As a device does: a part of it in each turn, and then others have one.
fn settleInTurns(world: *World, host: *Host) Error!void {
    const interface = &host.interface;
    var buffer: [packet.length_max + 48]u8 = undefined;
    const now = host.now(world.time);
    var sent: u32 = 0;
    var budget: protocol.Budget = .{ .looks = host.turn_budget, .responses = host.turn_budget };
    while (interface.pollUrgent(&buffer, &budget, now)) |transmit| {
        sent += @intFromBool(transmit.peer != null); // cookies are not counted
        try emit(world, host, buffer[0..transmit.length], transmit.endpoint.remote, .{ .protocol = transmit.peer });
    }
    var looks = host.turn_budget;
    var draft: protocol.Draft = undefined;
    while (interface.beginInitiation(&draft, &looks, now)) {
        draft.compute(&interface.local.?);
        sent += 1;
        const transmit = interface.finishInitiation(&draft, &buffer, now) orelse continue;
        try emit(world, host, buffer[0..transmit.length], transmit.endpoint.remote, .{ .protocol = transmit.peer });
    }
    if (sent > 2 * host.turn_budget) {
        return world.ledger.fail("host {d} does more in a turn than it may", .{host.number});
    }
    if (!interface.wantsUrgent() and !interface.wantsInitiation()) return wakeInTime(world, host, now);
    if (world.time + turn_ns >= host.wake_at) return;
    host.wake_at = world.time + turn_ns;
    try world.schedule(turn_ns, .{ .wake = host.number });
}

fn wakeInTime(world: *World, host: *Host, now: protocol.Now) Error!void {
    const deadline = host.interface.deadline() orelse return;
    const delay = deadline.since(now.boot) + world.random().uintAtMost(u64, lateness_max);
    if (deadline.ns == protocol.Instant.never.ns or world.time + delay >= host.wake_at) return;
    host.wake_at = world.time + delay;
    try world.schedule(delay, .{ .wake = host.number });
}

pub fn wake(world: *World, host: *Host, at: u64) Error!void {
    if (host.wake_at != at) return;
    host.wake_at = std.math.maxInt(u64);
    if (!host.isAwake(world.time)) return;
    host.interface.expire(host.now(world.time));
    try settle(world, host);
}

// ---- out ----

pub fn talk(world: *World, number: u32, place: u32) Error!void {
    const host = &world.hosts[number];
    const neighbour = &host.neighbours.items[place];
    const r = world.random();
    try world.schedule(
        r.intRangeAtMost(u64, neighbour.talk_interval_ns / 2, neighbour.talk_interval_ns),
        .{ .talk = .{ .host = number, .place = place } },
    );
    if (!neighbour.talks or !host.isAwake(world.time)) return;
    const is_odd = r.uintLessThan(u8, 8) == 0;
    const count = if (r.uintLessThan(u8, 4) == 0) r.intRangeAtMost(u32, 2, 5) else 1;
    // What is odd comes apart, for it may go elsewhere.
    if (is_odd) _ = try send(world, host, place, 1, true);
    _ = try send(world, host, place, count, false);
    try settle(world, host);
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
    const is_long = r.uintLessThan(u8, 16) == 0;
    const length = if (is_long) packet.length_max else r.intRangeAtMost(usize, packet.length_min, 200);
    var plain: [packet.length_max]u8 = undefined;
    const first = world.stats.packets;
    const receiver = if (owner) |k| host.neighbours.items[k].host else network.nobody;
    var stamp: packet.Stamp = .{ .id = first, .sender = host.number, .receiver = receiver };
    const id = switch (host.interface.route(packet.write(&plain, source, destination, stamp, length))) {
        .peer => |id| id,
        .drop => return if (owner == null) first else world.ledger.fail(
            "host {d} finds no peer for {f}",
            .{ host.number, destination },
        ),
    };
    const found = host.neighbourOf(id);
    if (found == null or owner == null or found.? != owner.?) {
        return world.ledger.fail("host {d} routes {f} to another peer than it should", .{ host.number, destination });
    }
    world.stats.packets += count;
    const now = host.now(world.time);
    const padded = messages.paddedLength(length, packet.length_max);
    const bytes = count * (padded + messages.transport_overhead);
    switch (host.interface.reserve(id, count, bytes, now)) {
        .drop => {},
        .stage => for (0..count) |i| {
            stamp.id = first + i;
            if (!host.interface.stage(id, packet.write(&plain, source, destination, stamp, length))) {
                return world.ledger.fail("host {d} keeps no packet for {d}, for which others hold all the room", .{
                    host.number, host.neighbours.items[found.?].host,
                });
            }
        },
        .seal => |ticket| {
            _ = try judge.reserved(world, host, found.?, ticket.receiver_index, ticket.counter + count - 1);
            host.neighbours.items[found.?].sent_at = world.time;
            try depart(world, host, .{
                .owner = world.ownerOf(host),
                .ticket = ticket,
                .key = ticket.key.*,
                .remote = ticket.endpoint.remote,
                .source = source,
                .destination = destination,
                .stamp = stamp,
                .length = length,
                .count = count,
            });
        },
    }
    return first;
}

/// At once, or when the worker that has the train in hand may go on.
fn depart(world: *World, host: *Host, train: lanes.Train) Error!void {
    const pause = if (host.lanes > 1) lanes.wait(world.random(), world.phase == .storm) else null;
    const delay = pause orelse return sealTrain(world, host, &train);
    if (world.random().uintLessThan(u8, 4) == 0) host.reserveForOthers(&train, world.random().uintAtMost(u64, 10_000));
    const held = try world.gpa.create(lanes.Train);
    errdefer world.gpa.destroy(held);
    held.* = train;
    try world.schedule(delay, .{ .train = held });
}

/// As a device does it: by later nonces if others have sent too much meanwhile.
pub fn release(world: *World, train: *lanes.Train) Error!void {
    const host = &world.hosts[train.owner.host];
    if (isHeldStill(world, train.owner) and !host.isAwake(world.time)) {
        return world.schedule(host.suspended_until - world.time, .{ .train = train });
    }
    defer world.gpa.destroy(train);
    if (!isHeldStill(world, train.owner) or !host.is_up) return;
    const now = host.now(world.time);
    if (host.interface.reserveAgain(&train.ticket, &train.key, train.count, lanes.distance_max, now)) |counter| {
        train.ticket.counter = counter;
    }
    try sealTrain(world, host, train);
}

fn isHeldStill(world: *const World, owner: lanes.Owner) bool {
    return std.meta.eql(owner, world.ownerOf(&world.hosts[owner.host]));
}

fn sealTrain(world: *World, host: *Host, train: *const lanes.Train) Error!void {
    const padded = messages.paddedLength(train.length, packet.length_max);
    var stamp = train.stamp;
    for (0..train.count) |i| {
        stamp.id = train.stamp.id + i;
        const counter = train.ticket.counter + i;
        var datagram: [packet.length_max + 48]u8 = undefined;
        const header: messages.TransportHeader = .init(train.ticket.receiver_index, counter);
        datagram[0..16].* = std.mem.toBytes(header);
        const body = datagram[16..][0 .. padded + 16];
        const inner = packet.write(body, train.source, train.destination, stamp, train.length);
        @memset(body[inner.len..padded], 0);
        protocol.crypto.aeadSeal(body, &train.key, counter, body[0..padded], "");
        try emit(world, host, datagram[0 .. padded + 32], train.remote, .{ .train = train });
    }
}

/// Where a datagram comes from: the protocol itself, for this peer if for one, or a train that was reserved before.
const Origin = union(enum) { protocol: ?protocol.PeerId, train: *const lanes.Train };

/// A datagram leaves a host: judged, then given to the network.
fn emit(world: *World, host: *Host, bytes: []const u8, to: wire.SocketAddress, origin: Origin) Error!void {
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
    switch (origin) {
        .protocol => |id| try judge.sent(world, host, datagram, id),
        .train => |train| try judge.left(world, host, train, std.mem.readInt(u64, bytes[8..16], .little)),
    }
    if (host.is_translated) {
        if (world.time - host.translated_at > translation_ns) world.move(host);
        host.translated_at = world.time;
    }
    datagram.from = host.address;
    try carry(world, datagram);
}

fn carry(world: *World, datagram: *const Datagram) Error!void {
    const r = world.random();
    const weather = &world.weather;
    const is_storm = world.phase == .storm;
    const number = network.numberOf(datagram.to);
    if (number >= world.hosts.len) return;
    const is_cut = world.groups[number] != world.groups[datagram.author] or world.isCut(datagram.author, number);
    const is_too_long = datagram.bytes.len > weather.longest;
    const is_lost = is_cut or is_too_long or network.happens(r, weather.lost);
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

/// Somebody repeats what was seen, as it was or changed, from there or elsewhere.
pub fn attack(world: *World) Error!void {
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

pub fn arrive(world: *World, datagram: *Datagram) Error!void {
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
pub fn turn(world: *World, host: *Host) Error!void {
    var batch: std.ArrayList(*Datagram) = world.inboxes[host.number];
    world.inboxes[host.number] = .empty;
    defer {
        for (batch.items) |datagram| datagram.destroy(world.gpa);
        batch.deinit(world.gpa);
    }
    if (!host.isAwake(world.time) or !host.is_up) return;
    const now = host.now(world.time);
    var openings: [32]lanes.Opening = undefined;
    var count: usize = 0;
    for (batch.items) |datagram| {
        world.note('<', host.number, datagram.bytes);
        switch (host.interface.prepareOpen(datagram.bytes, now)) {
            .drop => |reason| {
                world.note('!', host.number, @tagName(reason));
                try judge.unopened(world, host, datagram, reason);
            },
            .handshake => {
                try finish(world, host, openings[0..count]);
                count = 0;
                try handshake(world, host, datagram, now);
            },
            .open => |ticket| {
                openings[count] = .{
                    .ticket = ticket,
                    .key = ticket.key.*,
                    .looked_up_at = world.time,
                    .datagram = datagram,
                };
                count += 1;
                if (count < openings.len) continue;
                try finish(world, host, openings[0..count]);
                count = 0;
            },
        }
    }
    try finish(world, host, openings[0..count]);
    // In fair weather, what arrived can be seen, and repeated: to no avail.
    if (world.phase != .storm) for (batch.items) |datagram| {
        if (datagram.damage != .none or datagram.is_in_hand) continue;
        try world.tap.keep(world.gpa, world.random(), datagram);
    };
    try settle(world, host);
}

/// At once, or when the worker that has the batch in hand may go on.
fn finish(world: *World, host: *Host, openings: []lanes.Opening) Error!void {
    const pause = if (host.lanes > 1) lanes.wait(world.random(), world.phase == .storm) else null;
    const delay = pause orelse return finishBatch(world, host, openings);
    for (openings) |*opening| opening.datagram.is_in_hand = true;
    const batch: *lanes.Batch = try .create(world.gpa, world.ownerOf(host), openings);
    errdefer batch.destroy(world.gpa);
    try world.schedule(delay, .{ .batch = batch });
}

pub fn finishLate(world: *World, batch: *lanes.Batch) Error!void {
    const host = &world.hosts[batch.owner.host];
    if (isHeldStill(world, batch.owner) and !host.isAwake(world.time)) {
        return world.schedule(host.suspended_until - world.time, .{ .batch = batch });
    }
    defer batch.destroy(world.gpa);
    if (!isHeldStill(world, batch.owner) or !host.is_up) return;
    try finishBatch(world, host, batch.openings);
    if (world.phase != .storm) for (batch.openings) |*opening| {
        if (opening.datagram.damage == .none) try world.tap.keep(world.gpa, world.random(), opening.datagram);
    };
    try settle(world, host);
}

fn finishBatch(world: *World, host: *Host, batch: []lanes.Opening) Error!void {
    const now = host.now(world.time);
    for (batch) |*opening| {
        const sealed = opening.datagram.bytes[16..];
        const length = sealed.len - 16;
        const is_authentic = protocol.crypto.aeadOpen(
            opening.plain[0..length],
            &opening.key,
            opening.ticket.counter,
            sealed,
            "",
        );
        opening.plain_length = if (is_authentic) length else null;
    }
    for (batch) |*opening| {
        const place = host.neighbourOf(opening.ticket.peer);
        const before = host.endpointOf(place);
        const from: wire.Endpoint = .{
            .remote = opening.datagram.from,
            .source = .{ .address = host.address.address, .interface_index = 2 },
        };
        const plaintext: ?[]u8 = if (opening.plain_length) |length| opening.plain[0..length] else null;
        const opened = host.interface.finishOpen(opening.ticket, plaintext, &from, now);
        if (opened == .drop) world.note('!', host.number, @tagName(opened.drop));
        const was_accepted = try judge.opened(world, host, opening, opened);
        try judge.endpoint(world, host, place, before, opening.datagram, was_accepted);
    }
}

fn handshake(world: *World, host: *Host, datagram: *Datagram, now: protocol.Now) Error!void {
    const place = host.placeOf(datagram.author);
    const before = host.endpointOf(place);
    const from: wire.Endpoint = .{
        .remote = datagram.from,
        .source = .{ .address = host.address.address, .interface_index = 2 },
    };
    const refused = host.interface.handleHandshake(datagram.bytes, &from, host.demand(), now);
    if (refused) |reason| world.note('!', host.number, @tagName(reason));
    try judge.load(world, host, messages.classify(datagram.bytes).?, refused);
    if (refused == null) try judge.handshake(world, host, datagram, place);
    const kind = messages.classify(datagram.bytes);
    const may_move = refused == null and kind != .cookie_reply;
    try judge.endpoint(world, host, place, before, datagram, may_move);
    // The device, too, sends answers when it has handled a message.
    try settle(world, host);
}
