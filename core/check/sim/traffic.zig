//! Traffic: packets into a host and out of it, datagrams through the network, as a device drives its Interface, in
//! batches. Each datagram is judged where it leaves and where it arrives.
const std = @import("std");
const wire = @import("wire");
const messages = wire.messages;
const protocol = @import("protocol");
const Host = @import("host.zig").Host;
const judge = @import("judge.zig");
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
        try emit(world, host, datagram, transmit.endpoint.remote, transmit.peer);
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
        try emit(world, host, buffer[0..transmit.length], transmit.endpoint.remote, transmit.peer);
    }
    var looks = host.turn_budget;
    var draft: protocol.Draft = undefined;
    while (interface.beginInitiation(&draft, &looks, now)) {
        draft.compute(&interface.local.?);
        sent += 1;
        const transmit = interface.finishInitiation(&draft, &buffer, now) orelse continue;
        try emit(world, host, buffer[0..transmit.length], transmit.endpoint.remote, transmit.peer);
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
            const key = ticket.key.*;
            const remote = ticket.endpoint.remote;
            for (0..count) |i| {
                stamp.id = first + i;
                const inner = packet.write(&plain, source, destination, stamp, length);
                var datagram: [packet.length_max + 48]u8 = undefined;
                const header: messages.TransportHeader = .init(ticket.receiver_index, ticket.counter + i);
                datagram[0..16].* = std.mem.toBytes(header);
                const body = datagram[16..][0 .. padded + 16];
                @memcpy(body[0..inner.len], inner);
                @memset(body[inner.len..padded], 0);
                protocol.crypto.aeadSeal(body, &key, ticket.counter + i, body[0..padded], "");
                try emit(world, host, datagram[0 .. padded + 32], remote, ticket.peer);
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
    try judge.sent(world, host, datagram, id);
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
    var tickets: [32]judge.Opening = undefined;
    var count: usize = 0;
    for (batch.items) |datagram| {
        world.note('<', host.number, datagram.bytes);
        switch (host.interface.prepareOpen(datagram.bytes, now)) {
            .drop => |reason| {
                world.note('!', host.number, @tagName(reason));
                try judge.unopened(world, host, datagram, reason);
            },
            .handshake => {
                try finishBatch(world, host, tickets[0..count], now);
                count = 0;
                try handshake(world, host, datagram, now);
            },
            .open => |ticket| {
                tickets[count] = .{ .ticket = ticket, .datagram = datagram };
                count += 1;
                if (count < tickets.len) continue;
                try finishBatch(world, host, tickets[0..count], now);
                count = 0;
            },
        }
    }
    try finishBatch(world, host, tickets[0..count], now);
    // In fair weather, what arrived can be seen, and repeated: to no avail.
    if (world.phase != .storm) for (batch.items) |datagram| {
        if (datagram.damage == .none) try world.tap.keep(world.gpa, world.random(), datagram);
    };
    try settle(world, host);
}

fn finishBatch(world: *World, host: *Host, batch: []judge.Opening, now: protocol.Now) Error!void {
    for (batch) |*opening| {
        const sealed = opening.datagram.bytes[16..];
        const length = sealed.len - 16;
        const is_authentic = protocol.crypto.aeadOpen(
            opening.plain[0..length],
            opening.ticket.key,
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

// ---- floods: of no host, and from addresses where none is ----

pub const FloodKind = enum { junk, unproven, proven };

/// Many messages at one instant. Junk, as anybody can send; or initiations with a right MAC1, as who knows the public
/// key can make, without a cookie or each with the right one for its source.
pub fn flood(world: *World, host: *Host, kind: FloodKind) Error!void {
    if (!host.isAwake(world.time) or !host.is_up) return;
    const now = host.now(world.time);
    // Enough for more than may be spent at once; where that is much, less must do.
    const count: usize = if (host.curve_ns >= ms) 700 else 100;
    for (0..count) |_| {
        var bytes: [@sizeOf(messages.Initiation)]u8 = undefined;
        var from: wire.Endpoint = undefined;
        const message = fabricate(world, host, kind, &bytes, &from);
        const refused = host.interface.handleHandshake(message, &from, host.demand(), now) orelse
            return world.ledger.fail("host {d} takes what nobody has said", .{host.number});
        world.note('!', host.number, @tagName(refused));
        try judge.load(world, host, messages.classify(message).?, refused);
    }
    try settle(world, host);
}

fn fabricate(
    world: *World,
    host: *const Host,
    kind: FloodKind,
    bytes: *[@sizeOf(messages.Initiation)]u8,
    from: *wire.Endpoint,
) []u8 {
    const r = world.random();
    from.* = .{ .remote = .{ .address = .fromIpv4(.{ 198, 18, r.int(u8), r.int(u8) }), .port = r.int(u16) } };
    r.bytes(bytes);
    const what: messages.Kind = if (kind != .junk) .initiation else switch (r.uintLessThan(u8, 3)) {
        0 => .initiation,
        1 => .response,
        else => .cookie_reply,
    };
    bytes[0..4].* = .{ @backingInt(what), 0, 0, 0 };
    const length: usize = switch (what) {
        .initiation => @sizeOf(messages.Initiation),
        .response => @sizeOf(messages.Response),
        .cookie_reply => @sizeOf(messages.CookieReply),
        .transport => unreachable,
    };
    if (kind == .junk) return bytes[0..length];
    const checker = &host.interface.checker;
    bytes[116..132].* = protocol.crypto.mac(&checker.mac1_key, bytes[0..116]);
    bytes[132..148].* = @splat(0);
    if (kind == .proven and checker.secret_birth != null) {
        const cookie = checker.makeCookie(&from.remote); // the source has received it
        bytes[132..148].* = protocol.crypto.mac(&cookie, bytes[0..132]);
    }
    return bytes[0..length];
}
