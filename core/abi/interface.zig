//! pywg_interface_*: the protocol alone, bytes in and bytes out, time and randomness from the caller.
//! Batched: a batch of one is fine. Contracts are in include/pywg.h.
const std = @import("std");
const linux = std.os.linux;
const cipher = @import("cipher");
const device = @import("device");
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
    mutex: device.Mutex,
    /// The thread that is in the caller's entropy function; 0 for none.
    asking: std.atomic.Value(i32),
    interface: protocol.Interface,
    entropy: ?EntropyFn,
    entropy_context: ?*anyopaque,

    /// Waits for another thread's call to end.
    fn enter(handle: ?*Handle) status.Refused!*Handle {
        const target = handle orelse return error.NoHandle;
        if (!target.owner.isThisProcess()) return error.Forked;
        const asking = target.asking.load(.monotonic);
        if (asking != 0 and asking == linux.gettid()) return error.Reentered;
        target.mutex.acquire();
        return target;
    }

    fn leave(handle: *Handle) void {
        handle.mutex.release();
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

pub fn get(handle: ?*Handle, buffer: ?[*]u8, capacity: usize, length: ?*usize) callconv(.c) i32 {
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

pub fn seal(handle: ?*Handle, now: ?*const Now, in: ?[*]const Packet, out: ?[*]Packet, count: usize) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    const instant = (now orelse return Status.invalid_argument.value()).value();
    if (count == 0) return Status.ok.value();
    const sources = (in orelse return Status.invalid_argument.value())[0..count];
    const destinations = (out orelse return Status.invalid_argument.value())[0..count];
    for (sources, destinations) |*source, *destination| {
        if (source.data == null or destination.data == null) return Status.invalid_argument.value();
        if (destination.capacity < source.length +| seal_room) return Status.buffer_too_small.value();
    }
    if (overlap.isForbidden(sources, destinations)) return Status.invalid_argument.value();
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
    handle: ?*Handle,
    now: ?*const Now,
    packets: ?[*]Packet,
    count: usize,
    under_load: u32,
) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    const instant = (now orelse return Status.invalid_argument.value()).value();
    if (count == 0) return Status.ok.value();
    const batch = (packets orelse return Status.invalid_argument.value())[0..count];
    for (batch) |*packet| {
        if (packet.length != 0 and packet.data == null) return Status.invalid_argument.value();
        if (packet.endpoint.value() == null) return Status.invalid_argument.value();
    }
    for (batch) |*packet| receiveOne(&target.interface, instant, packet, if (under_load != 0) .always else .never);
    return Status.ok.value();
}

fn receiveOne(interface: *protocol.Interface, now: protocol.Now, packet: *Packet, demand: protocol.Demand) void {
    const datagram: []u8 = if (packet.data) |data| data[0..packet.length] else &.{};
    const from = packet.endpoint.value().?;
    const ticket = switch (interface.prepareOpen(datagram, now)) {
        .open => |ticket| ticket,
        .handshake => {
            if (interface.handleHandshake(datagram, &from, demand, now)) |reason| return packet.refuse(reason);
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
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    target.interface.expire((now orelse return Status.invalid_argument.value()).value());
    cipher.scrubStack();
    return Status.ok.value();
}

pub fn poll(handle: ?*Handle, now: ?*const Now, packets: ?[*]Packet, count: usize, written: ?*usize) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
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
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    const out = boot_ns orelse return Status.invalid_argument.value();
    out.* = if (target.interface.deadline()) |instant| instant.ns else std.math.maxInt(u64);
    return Status.ok.value();
}

pub fn dropped(handle: ?*Handle, drop: u32, count: ?*u64) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    defer target.leave();
    const out = count orelse return Status.invalid_argument.value();
    if (drop >= protocol.Drop.count) return Status.not_found.value();
    out.* = target.interface.counters.values[drop];
    return Status.ok.value();
}

pub fn close(handle: ?*Handle) callconv(.c) void {
    const target = Handle.enter(handle) catch return; // what a child could free is wiped
    target.interface.deinit();
    cipher.scrubStack();
    gpa.destroy(target);
}
