//! The control plane of a device: UAPI requests to changes, and sockets made to match what they wish.
//! A set is applied whole or not at all: a port that is taken refuses it before anything changed.
const std = @import("std");
const LimitedAllocator = @import("limited_allocator.zig").LimitedAllocator;
const cipher = @import("cipher");
const Device = @import("device.zig").Device;
const Diagnostic = @import("diagnostic.zig").Diagnostic;
const io = @import("io");
const upkeep = @import("upkeep.zig");
const protocol = @import("protocol");
const uapi = protocol.uapi;
const wire = @import("wire");
const Writer = std.Io.Writer;
const E = std.os.linux.E;

pub const SetError = error{ Invalid, Protocol, OutOfMemory, LimitExceeded, AddressInUse, Permission, System };

/// Applies the lines of a set request. All workers are held.
pub fn set(device: *Device, text: []const u8, diagnostic: *Diagnostic) SetError!void {
    const numeric = resolveZones(device, text) catch return outOfMemory(device, diagnostic);
    defer if (numeric) |owned| freeSecret(device, owned);
    var why: uapi.Diagnostic = .{};
    var change = uapi.parse(device.gpa, numeric orelse text, &why) catch |err| {
        if (err == error.OutOfMemory) return outOfMemory(device, diagnostic);
        diagnostic.line = why.line;
        diagnostic.column = why.column;
        diagnostic.set("line {d}: {s}", .{ why.line, why.message });
        return err;
    };
    defer change.deinit(device.gpa);
    try apply(device, &change, diagnostic);
    device.first().transmit(Device.now());
}

fn apply(device: *Device, change: *protocol.change.Change, diagnostic: *Diagnostic) SetError!void {
    const interface = &device.interface;
    dropNoOps(interface, change);
    const place = wishedPlace(device, change);
    if (isRebound(change)) try checkBinding(device, &place.binding, diagnostic);
    var replacement: ?upkeep.SocketSet = null;
    errdefer if (replacement) |*set_aside| set_aside.close();
    var is_marked = false;
    errdefer if (is_marked) setFwmark(device, interface.fwmark) catch {}; // it held this mark before
    if (device.link_is_up and (change.listen_port != null or isRebound(change) or !interface.is_active)) {
        replacement = try openReplacement(device, change, &place, diagnostic);
    } else if (interface.is_active and change.fwmark != null) {
        is_marked = true;
        setFwmark(device, place.fwmark) catch |err| return bindError(device, err, &place, diagnostic);
    } else if (isRebound(change)) {
        try tryBinding(device, &place, diagnostic);
    }
    interface.configure(change) catch |err| switch (err) {
        error.OutOfMemory => return outOfMemory(device, diagnostic),
        error.LimitExceeded => {
            diagnostic.set("more than {d} peers", .{protocol.constants.peers_max});
            return error.LimitExceeded;
        },
    };
    // Another mark may take another route: learnt sources are no longer to be trusted. `install` does the same.
    if (is_marked) {
        interface.forgetAllSources();
        device.routes_changed = true; // those that packets under way bring back are looked at, too
    }
    if (replacement) |*sockets| {
        upkeep.install(device, sockets);
        replacement = null;
        if (!interface.is_active) upkeep.activate(device);
    }
}

fn setFwmark(device: *Device, fwmark: u32) io.udp.OpenError!void {
    for (device.all()) |worker| try worker.udp.setFwmark(fwmark);
}

/// The port, mark and binding that are there already keep their sockets, as in the kernel.
fn dropNoOps(interface: *const protocol.Interface, change: *protocol.change.Change) void {
    if (change.fwmark == interface.fwmark) change.fwmark = null;
    if (!interface.is_active) return;
    if (change.listen_port == interface.listen_port) change.listen_port = null;
    const binding = bindingAfter(interface, change);
    if (!binding.eql(&interface.binding)) return;
    change.bind_interface = null;
    change.bind_addresses = null;
}

fn isRebound(change: *const protocol.change.Change) bool {
    return change.bind_interface != null or change.bind_addresses != null;
}

fn bindingAfter(interface: *const protocol.Interface, change: *const protocol.change.Change) wire.Binding {
    return .{
        .interface = change.bind_interface orelse interface.binding.interface,
        .addresses = change.bind_addresses orelse interface.binding.addresses,
    };
}

fn wishedPlace(device: *const Device, change: *const protocol.change.Change) io.udp.Place {
    var place = upkeep.placeOf(device);
    if (change.listen_port) |port| place.port = port;
    if (change.fwmark) |fwmark| place.fwmark = fwmark;
    place.binding = bindingAfter(&device.interface, change);
    return place;
}

// ---- what the sockets are bound to

/// What the kernel would take, or would refuse without saying why.
fn checkBinding(device: *Device, binding: *const wire.Binding, diagnostic: *Diagnostic) SetError!void {
    // In another namespace the name is another interface's here.
    const is_here = !device.monitor.is_blind and device.monitor.namespace == null;
    if (is_here and std.mem.eql(u8, binding.interface.slice(), device.monitor.name())) {
        diagnostic.errno = @backingInt(E.INVAL);
        diagnostic.set("{s} cannot be bound to itself (BindDevice): name the interface that its datagrams leave by", .{device.monitor.name()});
        return error.Invalid;
    }
    const address = binding.addresses.ipv6 orelse return;
    if (!binding.interface.isEmpty() or !address.isLinkLocal()) return;
    diagnostic.errno = @backingInt(E.INVAL);
    diagnostic.set("the link-local address {f} (BindAddress) means nothing without its interface: name that with BindDevice", .{address});
    return error.Invalid;
}

/// With the link down no sockets are opened yet; but a mistake is told to who made it, not to the log when it comes up.
fn tryBinding(device: *Device, place: *const io.udp.Place, diagnostic: *Diagnostic) SetError!void {
    if (place.binding.isEmpty()) return;
    const udp = &device.first().udp;
    var sockets: io.udp.Sockets = .{ null, null };
    const trial: io.udp.Place = .{ .binding = place.binding }; // on any port: who has ours may have gone by then
    _ = udp.openAside(&sockets, trial) catch |err| return bindError(device, err, &trial, diagnostic);
    io.udp.closeSockets(&sockets);
}

/// Sockets on the wished port. Without a wish they are for a link that came up when its port was taken:
/// null if it still is, for then the change has no part in that.
fn openReplacement(device: *Device, change: *protocol.change.Change, place: *const io.udp.Place, diagnostic: *Diagnostic) SetError!?upkeep.SocketSet {
    const opened = upkeep.openSockets(device, place.*) catch |err| {
        if (change.listen_port == null and change.fwmark == null and !isRebound(change)) return null;
        return bindError(device, err, place, diagnostic);
    };
    change.listen_port = opened.port;
    return opened;
}

fn bindError(device: *const Device, err: io.udp.OpenError, place: *const io.udp.Place, diagnostic: *Diagnostic) SetError {
    const udp = &device.first().udp;
    const failure = udp.failure;
    const is_of_interface = std.mem.eql(u8, failure.operation, "SO_BINDTODEVICE");
    diagnostic.errno = @intCast(@backingInt(failure.errno));
    switch (err) {
        error.AddressInUse => {
            diagnostic.set("UDP port {d} is in use by another program: choose another ListenPort, or leave it out", .{place.port});
            return error.AddressInUse;
        },
        error.PermissionDenied => {
            if (is_of_interface) {
                diagnostic.set("no permission to bind to the interface {s} (BindDevice): needs CAP_NET_RAW", .{place.binding.interface.slice()});
            } else {
                diagnostic.set("no permission for port {d} with fwmark {d}: needs CAP_NET_ADMIN (and CAP_NET_BIND_SERVICE below 1024)", .{ place.port, place.fwmark });
            }
            return error.Permission;
        },
        error.FamilyUnsupported, error.SystemResources => {
            const address = place.binding.addresses.get(udp.failed_family);
            if (is_of_interface and failure.errno == .NODEV) {
                diagnostic.set("there is no interface {s} to bind to (BindDevice): make it first, or correct its name", .{place.binding.interface.slice()});
            } else if (address != null and failure.errno == .ADDRNOTAVAIL) {
                diagnostic.set("no interface has the address {f} to bind to (BindAddress): add it first, or correct it", .{address.?});
            } else if (address != null and err == error.FamilyUnsupported) {
                diagnostic.set("this host has no {t} for the address {f} (BindAddress): leave it out", .{ udp.failed_family, address.? });
            } else {
                diagnostic.set("cannot open UDP sockets on port {d}: {t} ({f})", .{ place.port, err, failure });
            }
            return error.System;
        },
    }
}

fn outOfMemory(device: *const Device, diagnostic: *Diagnostic) error{OutOfMemory} {
    if (device.limited.limit == LimitedAllocator.unlimited) {
        diagnostic.set("out of memory", .{});
    } else {
        diagnostic.set("out of memory: this takes more than the limit of {d} KiB; {d} are in use", .{ device.limited.limit >> 10, device.limited.used.load(.monotonic) >> 10 });
    }
    return error.OutOfMemory;
}

/// `endpoint=[fe80::1%eth0]:5` to `[fe80::1%2]:5`: the protocol room cannot ask the kernel. Null when there is no zone.
fn resolveZones(device: *Device, text: []const u8) error{OutOfMemory}!?[]u8 {
    if (std.mem.findScalar(u8, text, '%') == null) return null;
    const index_digits = 10;
    const zones = std.mem.countScalar(u8, text, '%');
    const out = try device.gpa.alloc(u8, text.len + zones * index_digits);
    errdefer freeSecret(device, out);
    var writer: Writer = .fixed(out);
    var zone: Zone = .{};
    var lines = std.mem.splitScalar(u8, text, '\n');
    while (lines.next()) |line| {
        zone.writeLine(&writer, line) catch unreachable; // sized above
        if (lines.index != null) writer.writeByte('\n') catch unreachable;
    }
    const length = writer.buffered().len;
    if (device.gpa.resize(out, length)) return out[0..length];
    const exact = try device.gpa.dupe(u8, out[0..length]);
    freeSecret(device, out);
    return exact;
}

/// The last zone asked for: many peers share one, and each question is three system calls.
const Zone = struct {
    name: []const u8 = "",
    index: ?u32 = null,

    /// A zone that the kernel does not know stays as it is: the parser names the line.
    fn writeLine(zone: *Zone, writer: *Writer, line: []const u8) Writer.Error!void {
        if (std.mem.startsWith(u8, line, "endpoint=")) {
            if (std.mem.findScalar(u8, line, '%')) |percent| {
                const rest = line[percent + 1 ..];
                const end = std.mem.findScalar(u8, rest, ']') orelse rest.len;
                if (zone.find(rest[0..end])) |index| return writer.print("{s}{d}{s}", .{ line[0 .. percent + 1], index, rest[end..] });
            }
        }
        try writer.writeAll(line);
    }

    fn find(zone: *Zone, name: []const u8) ?u32 {
        if (!std.mem.eql(u8, name, zone.name)) zone.* = .{ .name = name, .index = io.link.index(name) catch null };
        return zone.index;
    }
};

fn freeSecret(device: *Device, memory: []u8) void {
    std.crypto.secureZero(u8, memory);
    device.gpa.free(memory);
}

// ---- answers ----

pub fn writeConfiguration(device: *Device, writer: *Writer) Writer.Error!void {
    try device.interface.writeConfiguration(writer);
}

/// Offloads, cipher and counters: no secrets.
pub fn writeReport(device: *Device, writer: *Writer) Writer.Error!void {
    try writer.print("cipher={s}\nmtu={d}\nup={}\n", .{ cipher.path(), device.interface.mtu, device.interface.is_active });
    try writer.print("threads={d}\nmemory_bytes={d}\n", .{ device.worker_count, device.limited.used.load(.monotonic) });
    if (device.limited.limit != LimitedAllocator.unlimited) try writer.print("memory_limit={d}\n", .{device.limited.limit});
    try writeBinding(&device.interface.binding, writer);
    var offload = device.first().offload;
    for (device.all()[1..]) |worker| offload.merge(&worker.offload);
    try offload.format(writer);
    var udp: io.udp.Counters = .{};
    var tun: io.tun.Counters = .{};
    for (device.all()) |worker| {
        udp.receive_errors += worker.udp.counters.receive_errors;
        udp.source_refused += worker.udp.counters.source_refused;
        tun.read_errors += worker.tun.counters.read_errors;
        tun.write_failed += worker.tun.counters.write_failed;
    }
    try writer.print("udp_receive_errors={d}\nudp_source_refused={d}\ntun_read_errors={d}\ntun_write_failed={d}\n", .{
        udp.receive_errors, udp.source_refused, tun.read_errors, tun.write_failed,
    });
    for (std.enums.values(protocol.Drop)) |reason| {
        try writer.print("dropped_{t}={d}\n", .{ reason, device.interface.counters.get(reason) });
    }
}

/// Here and not in the answer to "get", which `wg` reads.
fn writeBinding(binding: *const wire.Binding, writer: *Writer) Writer.Error!void {
    if (!binding.interface.isEmpty()) try writer.print("pywg_bind_device={s}\n", .{binding.interface.slice()});
    for ([_]wire.Family{ .ipv4, .ipv6 }) |family| {
        if (binding.addresses.get(family)) |address| try writer.print("pywg_bind_address={f}\n", .{address});
    }
}

const WriteFn = fn (device: *Device, writer: *Writer) Writer.Error!void;

/// The length of the answer; it is written only if it fits.
pub fn writeInto(device: *Device, comptime write: WriteFn, buffer: []u8) usize {
    var scratch: [256]u8 = undefined;
    defer std.crypto.secureZero(u8, &scratch);
    var counting: Writer.Discarding = .init(&scratch);
    write(device, &counting.writer) catch unreachable; // it cannot fail
    const length: usize = @intCast(counting.fullCount());
    if (length <= buffer.len) {
        var writer: Writer = .fixed(buffer[0..length]);
        write(device, &writer) catch unreachable; // measured above
    }
    return length;
}

// ---- the UAPI socket ----

pub fn serve(device: *Device, event: io.poller.Event) void {
    const server = if (device.uapi) |*server| server else return;
    switch (server.handle(event, device, answer)) {
        .more => {},
        .removed => upkeep.gone(device, "the UAPI socket was removed"),
    }
}

/// The answer to one request, allocated here and zeroed by whoever frees it; null when memory is short.
fn answer(device: *Device, request: []const u8) ?[]u8 {
    const end = std.mem.findScalar(u8, request, '\n') orelse request.len;
    const operation = request[0..end];
    const body = request[@min(end + 1, request.len)..];
    if (std.mem.eql(u8, operation, "get=1")) return answerGet(device, writeConfiguration);
    if (std.mem.eql(u8, operation, "pywg_get=1")) return answerGet(device, writeReport);
    if (std.mem.eql(u8, operation, "set=1")) return answerSet(device, body);
    return answerErrno(device, .get, .PROTO);
}

fn answerGet(device: *Device, comptime write: WriteFn) ?[]u8 {
    const tail = "errno=0\n\n";
    const length = writeInto(device, write, &.{});
    const text = device.gpa.alloc(u8, length + tail.len) catch return null;
    const written = writeInto(device, write, text[0..length]);
    std.debug.assert(written == length);
    @memcpy(text[length..], tail);
    return text;
}

fn answerSet(device: *Device, body: []const u8) ?[]u8 {
    var diagnostic: Diagnostic = .{};
    set(device, body, &diagnostic) catch |err| {
        device.log.err("configuration refused: {s}", .{diagnostic.text()});
        const errno: E = switch (err) {
            error.Invalid => .INVAL,
            error.Protocol => .PROTO,
            error.OutOfMemory => .NOMEM,
            error.LimitExceeded => .NOSPC,
            error.AddressInUse => .ADDRINUSE,
            error.Permission => .PERM,
            error.System => if (diagnostic.errno == 0) .IO else @fromBackingInt(diagnostic.errno),
        };
        return answerErrno(device, .set, errno);
    };
    return answerErrno(device, .set, .SUCCESS);
}

fn answerErrno(device: *Device, operation: uapi.Operation, errno: E) ?[]u8 {
    var buffer: [32]u8 = undefined;
    var writer: Writer = .fixed(&buffer);
    uapi.writeErrno(&writer, operation, @intCast(@backingInt(errno))) catch unreachable; // fits
    return device.gpa.dupe(u8, writer.buffered()) catch null;
}
