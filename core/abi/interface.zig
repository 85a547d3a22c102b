//! pywg_interface_*: the protocol alone, bytes in and bytes out, time and randomness from the caller.
//! Batched: a batch of one is fine. Contracts are in include/pywg.h.
const std = @import("std");
const linux = std.os.linux;
const cipher = @import("cipher");
const device = @import("device");
const handles = @import("handles.zig");
const io = @import("io");
const protocol = @import("protocol");
const status = @import("status.zig");
const overlap = @import("overlap.zig");
const packet_file = @import("packet.zig");
const Endpoint = packet_file.Endpoint;
const Packet = packet_file.Packet;
const text_file = @import("text.zig");
const Diagnostic = status.Diagnostic;
const Status = status.Status;
const wire = @import("wire");
const messages = wire.messages;

/// A forked child finds all of it wiped.
const gpa = io.fork.allocator;
const header_length = @sizeOf(messages.TransportHeader);
/// Header, tag and at most 15 bytes of padding, rounded up.
const seal_room = 48;

pub const Now = extern struct {
    boot_ns: u64,
    unix_ns: u64,

    fn value(now: *const Now) protocol.Now {
        return .{ .boot = .{ .ns = now.boot_ns }, .unix_ns = now.unix_ns };
    }
};

pub const EntropyFn = *const fn (context: ?*anyopaque, out: [*]u8, length: usize) callconv(.c) i32;

pub const Options = extern struct {
    size: usize,
    mtu: u32,
    reserved: u32,
    entropy: ?EntropyFn,
    entropy_context: ?*anyopaque,
};

/// The value and what its entropy needs, at one address for life. Each call is between `enter` and `leave`: neither a
/// forked child nor a second thread may seal another packet with the same nonce.
pub const Handle = struct {
    owner: io.fork.Owner,
    slot: *handles.Slot,
    mutex: device.Mutex,
    /// The thread that is in the caller's entropy function; 0 for none.
    asking: std.atomic.Value(i32),
    interface: protocol.Interface,
    entropy: ?EntropyFn,
    entropy_context: ?*anyopaque,

    /// Waits for another thread's call to end.
    fn enter(number: usize) status.Refused!*Handle {
        const entered = try handles.enter(.interface, number);
        errdefer handles.leave(entered.slot);
        const target: *Handle = @ptrCast(@alignCast(entered.target));
        if (!target.owner.isThisProcess()) return error.Forked;
        const asking = target.asking.load(.monotonic);
        if (asking != 0 and asking == linux.gettid()) return error.Reentered;
        target.slot = entered.slot;
        target.mutex.acquire();
        return target;
    }

    fn leave(handle: *Handle) void {
        const slot = handle.slot;
        handle.mutex.release();
        handles.leave(slot);
    }

    fn fill(context: ?*anyopaque, out: []u8) bool {
        const handle: *Handle = @ptrCast(@alignCast(context.?));
        const entropy = handle.entropy orelse {
            io.entropy.fill(out);
            return true;
        };
        handle.asking.store(linux.gettid(), .monotonic);
        defer handle.asking.store(0, .monotonic);
        return entropy(handle.entropy_context, out.ptr, out.len) == 0;
    }
};

/// What callers know a peer by.
const peer_number = struct {
    /// 0 for none: generations count from 1.
    fn of(peer: ?protocol.PeerId) u64 {
        const known = peer orelse return 0;
        return @as(u64, known.generation) << 32 | known.index;
    }

    fn id(number: u64) ?protocol.PeerId {
        if (number >> 32 == 0) return null;
        return .{ .index = @truncate(number), .generation = @intCast(number >> 32) };
    }
};

pub fn open(options: ?*const Options, out: ?*usize, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return Status.invalid_argument.value();
    const given = options orelse return status.fail(diagnostic, .invalid_argument, "options is NULL");
    const target = out orelse return status.fail(diagnostic, .invalid_argument, "out is NULL");
    target.* = 0;
    if (given.size < @sizeOf(Options)) {
        return status.fail(diagnostic, .invalid_argument, "options.size is not sizeof(pywg_interface_options)");
    }
    if (given.reserved != 0) return status.fail(diagnostic, .invalid_argument, "options.reserved is not 0");
    if (given.mtu > device.mtu_max) {
        return status.fail(diagnostic, .invalid_argument, "options.mtu is larger than 65535");
    }
    const handle = gpa.create(Handle) catch return status.fail(diagnostic, .out_of_memory, "out of memory");
    handle.owner.claim();
    handle.mutex = .{};
    handle.asking = .init(0);
    handle.entropy = given.entropy;
    handle.entropy_context = given.entropy_context;
    handle.interface = protocol.Interface.init(.{
        .allocator = gpa,
        .entropy = .{ .context = handle, .fillFn = Handle.fill },
        .mtu = if (given.mtu == 0) device.mtu_default else given.mtu,
    }) catch |err| {
        gpa.destroy(handle);
        return switch (err) {
            error.OutOfMemory => status.fail(diagnostic, .out_of_memory, "out of memory"),
            error.EntropyUnavailable => status.fail(diagnostic, .system, "the entropy function failed"),
        };
    };
    handle.interface.setActive(true);
    target.* = handles.add(.interface, handle) catch {
        handle.interface.deinit();
        gpa.destroy(handle);
        return status.fail(diagnostic, .out_of_memory, "too many handles are open");
    };
    return Status.ok.value();
}

pub fn set(
    handle: usize,
    now: ?*const Now,
    text: ?[*]const u8,
    length: usize,
    diagnostic: ?*Diagnostic,
) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return Status.invalid_argument.value();
    const target = Handle.enter(handle) catch |refused| return status.refuse(diagnostic, refused);
    defer target.leave();
    if (now == null) return status.fail(diagnostic, .invalid_argument, "now is NULL");
    const bytes = text_file.slice(text, length) orelse
        return status.fail(diagnostic, .invalid_argument, "text is NULL");
    var why: protocol.uapi.Diagnostic = .{};
    var change = protocol.uapi.parse(gpa, bytes, &why) catch |err| {
        if (err == error.OutOfMemory) return status.fail(diagnostic, .out_of_memory, "out of memory");
        var described: device.Diagnostic = .{ .line = why.line, .column = why.column };
        described.set("line {d}: {s}", .{ why.line, why.message });
        return status.report(diagnostic, .configuration, &described);
    };
    defer cipher.scrubStack(); // copies of keys, which the compiler made
    defer change.deinit(gpa);
    target.interface.configure(&change) catch |err| return switch (err) {
        error.OutOfMemory => status.fail(diagnostic, .out_of_memory, "out of memory"),
        error.LimitExceeded => status.fail(diagnostic, .limit, "too many peers"),
    };
    return Status.ok.value();
}

pub fn get(handle: usize, buffer: ?[*]u8, capacity: usize, length: ?*usize) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    return text_file.fill(target, writeConfiguration, buffer, capacity, length);
}

/// Its length, and the text if it fits.
fn writeConfiguration(handle: *Handle, out: []u8) usize {
    var scratch: [256]u8 = undefined;
    defer std.crypto.secureZero(u8, &scratch);
    var counting: std.Io.Writer.Discarding = .init(&scratch);
    handle.interface.writeConfiguration(&counting.writer) catch unreachable; // it cannot fail
    const length: usize = @intCast(counting.fullCount());
    if (length <= out.len) {
        var writer: std.Io.Writer = .fixed(out[0..length]);
        handle.interface.writeConfiguration(&writer) catch unreachable; // measured above
    }
    return length;
}

pub fn seal(handle: usize, now: ?*const Now, in: ?[*]const Packet, out: ?[*]Packet, count: usize) callconv(.c) i32 {
    return sealBatch(handle, now, in, out, null, count, null);
}

pub fn sealBatch(
    handle: usize,
    now: ?*const Now,
    in: ?[*]const Packet,
    out: ?[*]Packet,
    peers: ?[*]u64,
    count: usize,
    diagnostic: ?*Diagnostic,
) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return Status.invalid_argument.value();
    const target = Handle.enter(handle) catch |refused| return status.refuse(diagnostic, refused);
    defer target.leave();
    const instant = (now orelse return status.fail(diagnostic, .invalid_argument, "now is NULL")).value();
    if (count == 0) return Status.ok.value();
    const sources = (in orelse return status.fail(diagnostic, .invalid_argument, "in is NULL"))[0..count];
    const destinations = (out orelse return status.fail(diagnostic, .invalid_argument, "out is NULL"))[0..count];
    for (sources, destinations, 0..) |*source, *destination, i| {
        if (source.data == null) return refusePacket(diagnostic, .invalid_argument, "in", i, "data is NULL");
        if (destination.data == null) return refusePacket(diagnostic, .invalid_argument, "out", i, "data is NULL");
        if (destination.capacity < source.length +| seal_room) {
            return refusePacket(diagnostic, .buffer_too_small, "out", i, "capacity is less than in's length + 48");
        }
    }
    if (overlap.isForbidden(sources, destinations)) {
        return status.fail(diagnostic, .invalid_argument, "a packet or a buffer meets the buffer of another one");
    }
    for (sources, destinations, 0..) |*source, *destination, i| {
        const peer = sealOne(&target.interface, instant, source, destination);
        if (peers) |numbers| numbers[i] = peer_number.of(peer);
    }
    return Status.ok.value();
}

fn refusePacket(diagnostic: ?*Diagnostic, why: Status, array: []const u8, index: usize, text: []const u8) i32 {
    var described: device.Diagnostic = .{};
    described.set("{s}[{d}].{s}", .{ array, index, text });
    return status.report(diagnostic, why, &described);
}

/// The peer it is for, if one was found.
fn sealOne(
    interface: *protocol.Interface,
    now: protocol.Now,
    source: *const Packet,
    destination: *Packet,
) ?protocol.PeerId {
    destination.length = 0;
    const packet = source.data.?[0..source.length];
    // Longer ones could be staged and then not fit the buffers that poll asks for.
    if (packet.len > interface.mtu) {
        interface.counters.add(.malformed_outgoing, 1);
        destination.refuse(.malformed_outgoing);
        return null;
    }
    const id = switch (interface.route(packet)) {
        .peer => |id| id,
        .drop => |reason| {
            destination.refuse(reason);
            return null;
        },
    };
    const padded = messages.paddedLength(packet.len, interface.mtu);
    const length = padded + messages.transport_overhead;
    switch (interface.reserve(id, 1, length, now)) {
        .seal => |*ticket| sealBy(ticket, packet, padded, destination),
        .stage => if (interface.stage(id, packet)) destination.settle(.staged) else destination.refuse(.staging_full),
        .drop => |reason| destination.refuse(reason),
    }
    return id;
}

fn sealBy(ticket: *const protocol.SealTicket, packet: []const u8, padded: usize, destination: *Packet) void {
    const length = padded + messages.transport_overhead;
    const datagram = destination.data.?[0..length];
    const header: messages.TransportHeader = .init(ticket.receiver_index, ticket.counter);
    const body = datagram[header_length..];
    @memmove(body[0..packet.len], packet); // it may lie in the datagram
    datagram[0..header_length].* = std.mem.toBytes(header);
    @memset(body[packet.len..padded], 0);
    cipher.sealBatch(
        ticket.key,
        ticket.counter,
        &.{.{ .source = body.ptr, .destination = body.ptr, .length = padded }},
    );
    destination.length = length;
    destination.endpoint = .from(ticket.endpoint.remote);
    destination.settle(.sealed);
}

pub fn receive(
    handle: usize,
    now: ?*const Now,
    packets: ?[*]Packet,
    count: usize,
    under_load: u32,
) callconv(.c) i32 {
    return receiveAll(handle, now, packets, null, count, under_load, null, .unchecked);
}

pub fn receiveBatch(
    handle: usize,
    now: ?*const Now,
    packets: ?[*]Packet,
    peers: ?[*]u64,
    count: usize,
    under_load: u32,
    diagnostic: ?*Diagnostic,
) callconv(.c) i32 {
    return receiveAll(handle, now, packets, peers, count, under_load, diagnostic, .checked);
}

fn receiveAll(
    handle: usize,
    now: ?*const Now,
    packets: ?[*]Packet,
    peers: ?[*]u64,
    count: usize,
    under_load: u32,
    diagnostic: ?*Diagnostic,
    capacities: enum { checked, unchecked },
) i32 {
    if (!status.isUsable(diagnostic)) return Status.invalid_argument.value();
    const target = Handle.enter(handle) catch |refused| return status.refuse(diagnostic, refused);
    defer target.leave();
    const instant = (now orelse return status.fail(diagnostic, .invalid_argument, "now is NULL")).value();
    if (count == 0) return Status.ok.value();
    const batch = (packets orelse return status.fail(diagnostic, .invalid_argument, "packets is NULL"))[0..count];
    for (batch, 0..) |*packet, i| {
        if (packet.length != 0 and packet.data == null) {
            return refusePacket(diagnostic, .invalid_argument, "packets", i, "data is NULL");
        }
        if (capacities == .checked and packet.length > packet.capacity) {
            return refusePacket(diagnostic, .invalid_argument, "packets", i, "length is more than its capacity");
        }
        if (packet.endpoint.value() == null) {
            return refusePacket(diagnostic, .invalid_argument, "packets", i, "endpoint.family is neither 4 nor 6");
        }
    }
    const demand: protocol.Demand = if (under_load != 0) .always else .never;
    for (batch, 0..) |*packet, i| {
        const peer = receiveOne(&target.interface, instant, packet, demand);
        if (peers) |numbers| numbers[i] = peer_number.of(peer);
    }
    return Status.ok.value();
}

/// The peer that it is from, if its tag is right.
fn receiveOne(
    interface: *protocol.Interface,
    now: protocol.Now,
    packet: *Packet,
    demand: protocol.Demand,
) ?protocol.PeerId {
    const datagram: []u8 = if (packet.data) |data| data[0..packet.length] else &.{};
    const from = packet.endpoint.value().?;
    switch (interface.prepareOpen(datagram, now)) {
        .open => |ticket| return openOne(interface, now, packet, datagram, &from, ticket),
        .handshake => if (interface.handleHandshake(datagram, &from, demand, now)) |reason| {
            packet.refuse(reason);
        } else packet.settle(.handshake),
        .drop => |reason| packet.refuse(reason),
    }
    return null;
}

fn openOne(
    interface: *protocol.Interface,
    now: protocol.Now,
    packet: *Packet,
    datagram: []u8,
    from: *const wire.Endpoint,
    ticket: protocol.OpenTicket,
) ?protocol.PeerId {
    const body = datagram[header_length..];
    var job: [1]cipher.Open = .{.{
        .data = body.ptr,
        .length = body.len - cipher.tag_length,
        .counter = ticket.counter,
        .authentic = false,
    }};
    cipher.openBatch(ticket.key, &job);
    const plaintext: ?[]u8 = if (job[0].authentic) body[0..job[0].length] else null;
    switch (interface.finishOpen(ticket, plaintext, from, now)) {
        .deliver => |inner| {
            packet.data = inner.ptr;
            packet.length = inner.len;
            packet.settle(.deliver);
        },
        .keepalive => packet.settle(.keepalive),
        .drop => |reason| packet.refuse(reason),
    }
    return if (plaintext == null) null else ticket.peer;
}

pub fn expire(handle: usize, now: ?*const Now) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    target.interface.expire((now orelse return Status.invalid_argument.value()).value());
    cipher.scrubStack();
    return Status.ok.value();
}

pub fn poll(handle: usize, now: ?*const Now, packets: ?[*]Packet, count: usize, written: ?*usize) callconv(.c) i32 {
    return pollBatch(handle, now, packets, null, count, written, null);
}

pub fn pollBatch(
    handle: usize,
    now: ?*const Now,
    packets: ?[*]Packet,
    peers: ?[*]u64,
    count: usize,
    written: ?*usize,
    diagnostic: ?*Diagnostic,
) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return Status.invalid_argument.value();
    const target = Handle.enter(handle) catch |refused| return status.refuse(diagnostic, refused);
    defer target.leave();
    const instant = (now orelse return status.fail(diagnostic, .invalid_argument, "now is NULL")).value();
    const filled = written orelse return status.fail(diagnostic, .invalid_argument, "written is NULL");
    filled.* = 0;
    if (count == 0) return Status.ok.value();
    const batch = (packets orelse return status.fail(diagnostic, .invalid_argument, "packets is NULL"))[0..count];
    const needed = @max(messages.handshake_length_max, target.interface.mtu + seal_room);
    for (batch, 0..) |*packet, i| {
        if (packet.data == null) return refusePacket(diagnostic, .invalid_argument, "packets", i, "data is NULL");
        if (packet.capacity < needed) {
            return refusePacket(diagnostic, .buffer_too_small, "packets", i, "capacity is less than MTU + 48, or 148");
        }
    }
    for (batch, 0..) |*packet, i| {
        const next = target.interface.pollTransmit(packet.data.?[0..packet.capacity], instant) orelse break;
        packet.length = next.length;
        packet.endpoint = .from(next.endpoint.remote);
        packet.settle(.sealed);
        if (peers) |numbers| numbers[i] = peer_number.of(next.peer);
        filled.* += 1;
    }
    return Status.ok.value();
}

pub fn peerKey(handle: usize, peer: u64, public_key: ?*[32]u8) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    const out = public_key orelse return Status.invalid_argument.value();
    const id = peer_number.id(peer) orelse return Status.not_found.value();
    const found = target.interface.get(id) orelse return Status.not_found.value();
    out.* = found.remote.static;
    return Status.ok.value();
}

pub fn peerNumber(handle: usize, public_key: ?*const [32]u8, peer: ?*u64) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    const key = public_key orelse return Status.invalid_argument.value();
    const out = peer orelse return Status.invalid_argument.value();
    out.* = 0;
    const index = target.interface.by_key.find(key) orelse return Status.not_found.value();
    out.* = peer_number.of(target.interface.idOf(index));
    return Status.ok.value();
}

pub fn deadline(handle: usize, boot_ns: ?*u64) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    const out = boot_ns orelse return Status.invalid_argument.value();
    out.* = if (target.interface.deadline()) |instant| instant.ns else std.math.maxInt(u64);
    return Status.ok.value();
}

pub fn dropped(handle: usize, drop: u32, count: ?*u64) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    const out = count orelse return Status.invalid_argument.value();
    if (drop >= protocol.Drop.count) return Status.not_found.value();
    out.* = target.interface.counters.values[drop];
    return Status.ok.value();
}

pub fn close(handle: usize) callconv(.c) void {
    const entered = Handle.enter(handle) catch return; // what a child could free is wiped
    entered.leave();
    const target: *Handle = @ptrCast(@alignCast(handles.retire(.interface, handle) catch return));
    target.interface.deinit();
    cipher.scrubStack();
    gpa.destroy(target);
}
