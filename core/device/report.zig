//! Report: what `get` and `report` answer, as text.
//! Invariant: called with the turns of all workers held. Packets pass in between, so each part is measured as it is
//! written.
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
    if (shared.version.len != 0) try writer.print("version={s}\n", .{shared.version});
    // Not the time since: a report must not grow between being measured and being written.
    try writer.print("opened={d}\n", .{shared.opened.ns / std.time.ns_per_s});
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
    try writeAll("udp", &workers.udpCounters(), writer);
    try writeAll("tun", &workers.tunCounters(), writer);
}

fn writeAll(comptime prefix: []const u8, counters: anytype, writer: *Writer) Writer.Error!void {
    inline for (comptime std.meta.fieldNames(@TypeOf(counters.*))) |name| {
        try writer.print(prefix ++ "_" ++ name ++ "={d}\n", .{@field(counters, name)});
    }
}

/// The answer to `get`, part by part. No configuration may change until it is complete.
pub const Configuration = struct {
    workers: *const Workers,
    answer: protocol.Interface.Answer = .begin,

    pub fn isComplete(rest: *const Configuration) bool {
        return rest.answer.isComplete();
    }

    pub fn writeNext(rest: *Configuration, writer: *Writer) Writer.Error!void {
        try rest.answer.writeNext(&rest.workers.shared.interface, writer);
    }
};

/// The report, part by part: of the device, then of each peer, in the order in which they were added.
pub const Report = struct {
    workers: *const Workers,
    now: protocol.Now,
    at: ?u32 = null,

    pub fn isComplete(rest: *const Report) bool {
        return rest.at == protocol.no_peer;
    }

    pub fn writeNext(rest: *Report, writer: *Writer) Writer.Error!void {
        const interface = &rest.workers.shared.interface;
        const index = rest.at orelse {
            try writeReport(rest.workers, writer);
            try writeNotices(rest.workers, rest.now, writer);
            rest.at = interface.first_peer;
            return;
        };
        const trace, const next = interface.traceOf(index, rest.now);
        if (!trace.isQuiet()) try writer.print("peer={f}\n", .{trace});
        rest.at = next;
    }
};

fn writeNotices(workers: *const Workers, now: protocol.Now, writer: *Writer) Writer.Error!void {
    const notices = &workers.shared.interface.notices;
    var i: usize = 0;
    while (notices.at(i)) |entry| : (i += 1) {
        try writer.writeAll("notice=");
        try entry.write(writer, now.boot);
        try writer.writeByte('\n');
    }
}

/// The length of an answer, which may hold keys; it is written only if it fits. Packets pass in between, so it may grow
/// while it is written: then the buffer is zeroed, and the caller tries again.
pub fn writeInto(begin: anytype, pause: *Pause, buffer: []u8) usize {
    const measured = writeParts(begin, pause, null);
    if (measured > buffer.len) return measured;
    const written = writeParts(begin, pause, buffer);
    if (written > buffer.len) std.crypto.secureZero(u8, buffer);
    return written;
}

/// Measures what there is no buffer for, or no room.
fn writeParts(begin: anytype, pause: *Pause, buffer: ?[]u8) usize {
    var rest = begin;
    var scratch: [256]u8 = undefined;
    defer std.crypto.secureZero(u8, &scratch);
    var length: usize = 0;
    while (!rest.isComplete()) : (pause.offer()) {
        if (buffer) |room| if (length <= room.len) {
            var writer: Writer = .fixed(room[length..]);
            if (rest.writeNext(&writer)) |_| {
                length += writer.end;
                continue;
            } else |_| {}
        };
        var counting: Writer.Discarding = .init(&scratch);
        rest.writeNext(&counting.writer) catch unreachable; // it cannot fail
        length += @intCast(counting.fullCount());
    }
    return length;
}
