//! pywg_interface_*: the protocol alone, bytes in and bytes out, time and randomness from the caller.
//! Batched: a batch of one is fine. Contracts are in include/pywg.h.
const std = @import("std");
const cipher = @import("cipher");
const device = @import("device");
const io = @import("io");
const protocol = @import("protocol");
const status = @import("status.zig");
const text_file = @import("text.zig");
const Diagnostic = status.Diagnostic;
const Status = status.Status;
const wire = @import("wire");
const messages = wire.messages;

const gpa = std.heap.page_allocator;
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

pub const Endpoint = extern struct {
    family: u8,
    reserved: u8,
    port: u16,
    scope_id: u32,
    address: [16]u8,

    fn from(remote: wire.SocketAddress) Endpoint {
        return .{
            .family = @backingInt(remote.address.family),
            .reserved = 0,
            .port = remote.port,
            .scope_id = remote.scope_id,
            .address = remote.address.bytes,
        };
    }

    fn value(endpoint: *const Endpoint) ?wire.Endpoint {
        const address: wire.Address = switch (endpoint.family) {
            4 => .fromIpv4(endpoint.address[0..4].*),
            6 => .fromIpv6(endpoint.address),
            else => return null,
        };
        return .{ .remote = .{ .address = address, .port = endpoint.port, .scope_id = endpoint.scope_id } };
    }
};

pub const Verdict = enum(u32) { dropped = 0, sealed = 1, staged = 2, deliver = 3, handshake = 4, keepalive = 5 };

pub const Packet = extern struct {
    data: ?[*]u8,
    length: usize,
    capacity: usize,
    endpoint: Endpoint,
    verdict: u32,
    drop: u32,

    fn settle(packet: *Packet, verdict: Verdict) void {
        packet.verdict = @backingInt(verdict);
        packet.drop = 0;
    }

    fn refuse(packet: *Packet, reason: protocol.Drop) void {
        packet.verdict = @backingInt(Verdict.dropped);
        packet.drop = @backingInt(reason);
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

/// The value and what its entropy needs, at one address for life.
pub const Handle = struct {
    interface: protocol.Interface,
    entropy: ?EntropyFn,
    entropy_context: ?*anyopaque,

    fn fill(context: ?*anyopaque, out: []u8) bool {
        const handle: *Handle = @ptrCast(@alignCast(context.?));
        const entropy = handle.entropy orelse {
            io.entropy.fill(out);
            return true;
        };
        return entropy(handle.entropy_context, out.ptr, out.len) == 0;
    }
};

pub fn open(options: ?*const Options, out: ?*?*Handle, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return Status.invalid_argument.value();
    const given = options orelse return status.fail(diagnostic, .invalid_argument, "options is NULL");
    const target = out orelse return status.fail(diagnostic, .invalid_argument, "out is NULL");
    target.* = null;
    if (given.size < @sizeOf(Options)) {
        return status.fail(diagnostic, .invalid_argument, "options.size is not sizeof(pywg_interface_options)");
    }
    if (given.mtu > device.mtu_max) {
        return status.fail(diagnostic, .invalid_argument, "options.mtu is larger than 65535");
    }
    const handle = gpa.create(Handle) catch return status.fail(diagnostic, .out_of_memory, "out of memory");
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
    target.* = handle;
    return Status.ok.value();
}

pub fn set(
    handle: ?*Handle,
    now: ?*const Now,
    text: ?[*]const u8,
    length: usize,
    diagnostic: ?*Diagnostic,
) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return Status.invalid_argument.value();
    const target = handle orelse return status.fail(diagnostic, .invalid_argument, "interface is NULL");
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

pub fn get(handle: ?*Handle, buffer: ?[*]u8, capacity: usize, length: ?*usize) callconv(.c) i32 {
    return text_file.fill(handle, writeConfiguration, buffer, capacity, length);
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

pub fn seal(handle: ?*Handle, now: ?*const Now, in: ?[*]const Packet, out: ?[*]Packet, count: usize) callconv(.c) i32 {
    const target = handle orelse return Status.invalid_argument.value();
    const instant = (now orelse return Status.invalid_argument.value()).value();
    if (count == 0) return Status.ok.value();
    const sources = (in orelse return Status.invalid_argument.value())[0..count];
    const destinations = (out orelse return Status.invalid_argument.value())[0..count];
    for (sources, destinations) |*source, *destination| {
        if (source.data == null or destination.data == null) return Status.invalid_argument.value();
        if (destination.capacity < source.length +| seal_room) return Status.buffer_too_small.value();
    }
    for (sources, destinations) |*source, *destination| sealOne(&target.interface, instant, source, destination);
    return Status.ok.value();
}

fn sealOne(interface: *protocol.Interface, now: protocol.Now, source: *const Packet, destination: *Packet) void {
    destination.length = 0;
    const packet = source.data.?[0..source.length];
    // Longer ones could be staged and then not fit the buffers that poll asks for.
    if (packet.len > interface.mtu) {
        interface.counters.add(.malformed_outgoing, 1);
        return destination.refuse(.malformed_outgoing);
    }
    const id = switch (interface.route(packet)) {
        .peer => |id| id,
        .drop => |reason| return destination.refuse(reason),
    };
    const padded = messages.paddedLength(packet.len, interface.mtu);
    const length = padded + messages.transport_overhead;
    const ticket = switch (interface.reserve(id, 1, length, now)) {
        .seal => |ticket| ticket,
        .stage => {
            if (!interface.stage(id, packet)) return destination.refuse(.staging_full);
            return destination.settle(.staged);
        },
        .drop => |reason| return destination.refuse(reason),
    };
    const datagram = destination.data.?[0..length];
    const header: messages.TransportHeader = .init(ticket.receiver_index, ticket.counter);
    datagram[0..header_length].* = std.mem.toBytes(header);
    const body = datagram[header_length..];
    @memcpy(body[0..packet.len], packet);
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
    handle: ?*Handle,
    now: ?*const Now,
    packets: ?[*]Packet,
    count: usize,
    under_load: u32,
) callconv(.c) i32 {
    const target = handle orelse return Status.invalid_argument.value();
    const instant = (now orelse return Status.invalid_argument.value()).value();
    if (count == 0) return Status.ok.value();
    const batch = (packets orelse return Status.invalid_argument.value())[0..count];
    for (batch) |*packet| {
        if (packet.length != 0 and packet.data == null) return Status.invalid_argument.value();
        if (packet.endpoint.value() == null) return Status.invalid_argument.value();
    }
    for (batch) |*packet| receiveOne(&target.interface, instant, packet, under_load != 0);
    return Status.ok.value();
}

fn receiveOne(interface: *protocol.Interface, now: protocol.Now, packet: *Packet, under_load: bool) void {
    const datagram: []u8 = if (packet.data) |data| data[0..packet.length] else &.{};
    const from = packet.endpoint.value().?;
    const ticket = switch (interface.prepareOpen(datagram, now)) {
        .open => |ticket| ticket,
        .handshake => {
            if (interface.handleHandshake(datagram, &from, under_load, now)) |reason| return packet.refuse(reason);
            return packet.settle(.handshake);
        },
        .drop => |reason| return packet.refuse(reason),
    };
    const body = datagram[header_length..];
    var job: [1]cipher.Open = .{.{
        .data = body.ptr,
        .length = body.len - cipher.tag_length,
        .counter = ticket.counter,
        .authentic = false,
    }};
    cipher.openBatch(ticket.key, &job);
    const plaintext: ?[]u8 = if (job[0].authentic) body[0..job[0].length] else null;
    switch (interface.finishOpen(ticket, plaintext, &from, now)) {
        .deliver => |inner| {
            packet.data = inner.ptr;
            packet.length = inner.len;
            packet.settle(.deliver);
        },
        .keepalive => packet.settle(.keepalive),
        .drop => |reason| packet.refuse(reason),
    }
}

pub fn expire(handle: ?*Handle, now: ?*const Now) callconv(.c) i32 {
    const target = handle orelse return Status.invalid_argument.value();
    target.interface.expire((now orelse return Status.invalid_argument.value()).value());
    cipher.scrubStack();
    return Status.ok.value();
}

pub fn poll(handle: ?*Handle, now: ?*const Now, packets: ?[*]Packet, count: usize, written: ?*usize) callconv(.c) i32 {
    const target = handle orelse return Status.invalid_argument.value();
    const instant = (now orelse return Status.invalid_argument.value()).value();
    const filled = written orelse return Status.invalid_argument.value();
    filled.* = 0;
    if (count == 0) return Status.ok.value();
    const batch = (packets orelse return Status.invalid_argument.value())[0..count];
    const needed = @max(messages.handshake_length_max, target.interface.mtu + seal_room);
    for (batch) |*packet| {
        if (packet.data == null) return Status.invalid_argument.value();
        if (packet.capacity < needed) return Status.buffer_too_small.value();
    }
    for (batch) |*packet| {
        const next = target.interface.pollTransmit(packet.data.?[0..packet.capacity], instant) orelse break;
        packet.length = next.length;
        packet.endpoint = .from(next.endpoint.remote);
        packet.settle(.sealed);
        filled.* += 1;
    }
    return Status.ok.value();
}

pub fn deadline(handle: ?*Handle, boot_ns: ?*u64) callconv(.c) i32 {
    const target = handle orelse return Status.invalid_argument.value();
    const out = boot_ns orelse return Status.invalid_argument.value();
    out.* = if (target.interface.deadline()) |instant| instant.ns else std.math.maxInt(u64);
    return Status.ok.value();
}

pub fn dropped(handle: ?*Handle, drop: u32, count: ?*u64) callconv(.c) i32 {
    const target = handle orelse return Status.invalid_argument.value();
    const out = count orelse return Status.invalid_argument.value();
    if (drop >= protocol.Drop.count) return Status.not_found.value();
    out.* = target.interface.counters.values[drop];
    return Status.ok.value();
}

pub fn close(handle: ?*Handle) callconv(.c) void {
    const target = handle orelse return;
    target.interface.deinit();
    cipher.scrubStack();
    gpa.destroy(target);
}
