//! Report: what `get` and `report` answer, as text.
//! Invariant: called with the turns of all workers held, so that what is measured first is what is written then. Where
//! packets pass in between, each part is measured as it is written.
const std = @import("std");
const cipher = @import("cipher");
const io = @import("io");
const LimitedAllocator = @import("limited_allocator.zig").LimitedAllocator;
const protocol = @import("protocol");
const wire = @import("wire");
const Pause = @import("workers.zig").Pause;
const Workers = @import("workers.zig").Workers;
const Writer = std.Io.Writer;

/// Offloads, cipher and counters: no secrets.
pub fn writeReport(workers: *const Workers, writer: *Writer) Writer.Error!void {
    const shared = workers.shared;
    const limited = &shared.limited;
    try writer.print("cipher={s}\nmtu={d}\n", .{ cipher.path(), shared.interface.mtu });
    try writer.print("up={}\nthreads={d}\n", .{ shared.interface.is_active, workers.count });
    if (shared.refused) |refused| {
        try writer.print("listen_error={f}\n", .{io.linux.ErrnoName{ .code = refused.errno }});
    }
    try writer.print("memory_bytes={d}\n", .{limited.used.load(.monotonic)});
    if (limited.limit != LimitedAllocator.unlimited) try writer.print("memory_limit={d}\n", .{limited.limit});
    try writeBinding(&shared.interface.binding, writer);
    try writeOffload(workers, writer);
    try writeCounters(workers, writer);
    for (std.enums.values(protocol.Drop)) |reason| {
        try writer.print("dropped_{t}={d}\n", .{ reason, shared.interface.counters.get(reason) });
    }
}

/// Here and not in the answer to "get", which `wg` reads.
fn writeBinding(binding: *const wire.Binding, writer: *Writer) Writer.Error!void {
    if (!binding.interface.isEmpty()) try writer.print("pywg_bind_device={s}\n", .{binding.interface.slice()});
    for ([_]wire.Family{ .ipv4, .ipv6 }) |family| {
        if (binding.addresses.get(family)) |address| try writer.print("pywg_bind_address={f}\n", .{address});
    }
}

fn writeOffload(workers: *const Workers, writer: *Writer) Writer.Error!void {
    var offload = workers.first().offload;
    for (workers.all()[1..]) |worker| offload.merge(&worker.offload);
    try offload.format(writer);
}

fn writeCounters(workers: *const Workers, writer: *Writer) Writer.Error!void {
    var udp: io.udp.Counters = .{};
    var tun: io.tun.Counters = .{};
    for (workers.all()) |worker| {
        add(&udp, &worker.udp.counters);
        add(&tun, &worker.tun.counters);
    }
    try writeAll("udp", &udp, writer);
    try writeAll("tun", &tun, writer);
}

fn add(sum: anytype, counters: *const std.meta.Child(@TypeOf(sum))) void {
    inline for (comptime std.meta.fieldNames(@TypeOf(counters.*))) |name| @field(sum, name) += @field(counters, name);
}

fn writeAll(comptime prefix: []const u8, counters: anytype, writer: *Writer) Writer.Error!void {
    inline for (comptime std.meta.fieldNames(@TypeOf(counters.*))) |name| {
        try writer.print(prefix ++ "_" ++ name ++ "={d}\n", .{@field(counters, name)});
    }
}

/// The length of the report; it is written only if it fits.
pub fn writeInto(workers: *const Workers, buffer: []u8) usize {
    var scratch: [256]u8 = undefined;
    var counting: Writer.Discarding = .init(&scratch);
    writeReport(workers, &counting.writer) catch unreachable; // it cannot fail
    const length: usize = @intCast(counting.fullCount());
    if (length <= buffer.len) {
        var writer: Writer = .fixed(buffer[0..length]);
        writeReport(workers, &writer) catch unreachable; // measured above
    }
    return length;
}

/// The length of the answer to UAPI `get`, which holds keys; it is written only if it fits. Packets pass in between, so
/// it may grow while it is written: then the buffer is zeroed, and the caller tries again.
pub fn writeConfigurationInto(workers: *const Workers, pause: *Pause, buffer: []u8) usize {
    const measured = writeParts(workers, pause, null);
    if (measured > buffer.len) return measured;
    const written = writeParts(workers, pause, buffer);
    if (written > buffer.len) std.crypto.secureZero(u8, buffer);
    return written;
}

/// Measures what there is no buffer for, or no room.
fn writeParts(workers: *const Workers, pause: *Pause, buffer: ?[]u8) usize {
    const interface = &workers.shared.interface;
    var scratch: [256]u8 = undefined;
    defer std.crypto.secureZero(u8, &scratch);
    var length: usize = 0;
    var rest: protocol.Interface.Answer = .begin;
    while (!rest.isComplete()) : (pause.offer()) {
        if (buffer) |room| if (length <= room.len) {
            var writer: Writer = .fixed(room[length..]);
            if (rest.writeNext(interface, &writer)) |_| {
                length += writer.end;
                continue;
            } else |_| {}
        };
        var counting: Writer.Discarding = .init(&scratch);
        rest.writeNext(interface, &counting.writer) catch unreachable; // it cannot fail
        length += @intCast(counting.fullCount());
    }
    return length;
}
