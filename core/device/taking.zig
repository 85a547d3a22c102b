//! Taking over: a new device's part when it goes on with that of another process (handover.zig). All that takes time or
//! may fail comes before the other one stops, or before we say `mine`; until then nothing is changed that both share.
//! Invariant: nothing is sealed before the other end can no longer go on, and after it nothing here can fail.
const std = @import("std");
const Diagnostic = @import("diagnostic.zig").Diagnostic;
const handover = @import("handover.zig");
const io = @import("io");
const Channel = io.channel.Channel;
const opening = @import("opening.zig");
const OpenError = @import("options.zig").OpenError;
const Options = @import("options.zig").Options;
const protocol = @import("protocol");
const codec = protocol.codec;
const Link = @import("link.zig").Link;
const Shared = @import("shared.zig").Shared;
const Sockets = @import("sockets.zig").Sockets;
const Token = @import("token.zig").Token;
const Worker = @import("worker.zig").Worker;
const Workers = @import("workers.zig").Workers;
const workers_max = @import("cipher_pool.zig").workers_max;

/// The other one answers between two turns, and holds packets back only later.
const patience_ms = 10_000;
const total_ms = 30_000;

/// The parts of the new device that get something.
pub const Heir = struct { shared: *Shared, workers: *Workers, sockets: *Sockets, link: *Link };

/// The process that has the device so far.
pub const Predecessor = struct {
    channel: Channel,
    descriptors: io.channel.Descriptors,
    hello: handover.Hello,
    /// For what is said to users.
    name: []const u8,

    // ---- life ----

    /// Asks it who it is; it goes on.
    pub fn find(predecessor: *Predecessor, options: *const Options, diagnostic: *Diagnostic) OpenError!void {
        var failure: io.linux.Failure = .{};
        const fd = io.channel.connect(options.uapi_folder, options.name, &failure) catch |err|
            return refuse(err, options, failure, diagnostic);
        predecessor.* = .{
            .channel = .init(fd, patience_ms, total_ms),
            .descriptors = .{},
            .hello = undefined,
            .name = options.name,
        };
        errdefer predecessor.leave();
        const asked_ns = io.clock.bootNs();
        try predecessor.ask(handover.take_over, diagnostic);
        var buffer: [handover.frame_max]u8 = undefined;
        var reader: std.Io.Reader = .fixed(try predecessor.receiveFrame(&buffer, diagnostic));
        predecessor.hello = codec.read(&reader, handover.Hello) catch return predecessor.nonsense(diagnostic);
        try predecessor.check(asked_ns, diagnostic);
    }

    /// Without a word more it goes on, or has ended.
    pub fn leave(predecessor: *Predecessor) void {
        predecessor.descriptors.closeRest();
        io.linux.close(predecessor.channel.fd);
    }

    fn check(predecessor: *const Predecessor, asked_ns: u64, diagnostic: *Diagnostic) OpenError!void {
        const hello = &predecessor.hello;
        const count = @as(usize, hello.workers) + @intFromBool(hello.has_writer) + 1;
        if (hello.workers == 0 or hello.workers > workers_max or predecessor.descriptors.count != count) {
            return predecessor.nonsense(diagnostic);
        }
        if (hello.boot_ns < asked_ns or hello.boot_ns > io.clock.bootNs()) {
            diagnostic.set("the process that serves {s} has another clock: " ++
                "start this one in its time namespace", .{predecessor.name});
            return error.System;
        }
        if (!io.channel.isOfOurNamespace(predecessor.descriptors.fds[count - 1])) {
            diagnostic.set("the process that serves {s} is in another network namespace: " ++
                "start this one there", .{predecessor.name});
            return error.System;
        }
    }

    // ---- before it stops ----

    /// A worker for each of its own, with the same queue.
    pub fn takeQueues(
        predecessor: *Predecessor,
        workers: *Workers,
        options: *const Options,
        diagnostic: *Diagnostic,
    ) OpenError!void {
        const hello = &predecessor.hello;
        for (0..hello.workers) |_| {
            const worker = try opening.addWorker(workers, options, diagnostic);
            worker.tun = predecessor.takeQueue(&worker.offload, options) orelse {
                workers.dropLast();
                return predecessor.nonsense(diagnostic);
            };
        }
        if (!hello.has_writer) return;
        workers.writer = predecessor.takeQueue(&workers.first().offload, options) orelse
            return predecessor.nonsense(diagnostic);
        for (workers.all()) |worker| worker.tun.writeTo(&workers.writer.?);
    }

    fn takeQueue(predecessor: *Predecessor, offload: *io.Offload, options: *const Options) ?io.tun.Tun {
        const fd = predecessor.descriptors.pop() orelse return null;
        const hello = &predecessor.hello;
        const length: usize = if (hello.has_vnet_header) hello.header_length else 0;
        return io.tun.Tun.continued(options.calls, fd, length, offload) catch {
            io.linux.close(fd);
            return null;
        };
    }

    /// What listens for requests, by a descriptor that is the caller's.
    pub fn takeListener(predecessor: *Predecessor) io.linux.fd_t {
        return predecessor.descriptors.pop().?;
    }

    pub fn reserve(
        predecessor: *const Predecessor,
        heir: *const Heir,
        options: *const Options,
        diagnostic: *Diagnostic,
    ) OpenError!void {
        heir.shared.interface.reserveFor(predecessor.hello.sizes) catch |err| return switch (err) {
            error.OutOfMemory => opening.outOfMemory(options, diagnostic),
            error.Incomplete, error.Malformed => predecessor.nonsense(diagnostic),
        };
    }

    // ---- from here packets wait ----

    /// Makes it stop, and takes all that it knows. It goes on if this fails.
    pub fn takeState(
        predecessor: *Predecessor,
        heir: *const Heir,
        options: *const Options,
        diagnostic: *Diagnostic,
    ) OpenError!void {
        predecessor.descriptors = .{};
        try predecessor.ask(handover.hand_over, diagnostic);
        var frame: [handover.frame_max]u8 = undefined;
        var head: std.Io.Reader = .fixed(try predecessor.receiveFrame(&frame, diagnostic));
        predecessor.readState(&head, heir) catch |err| return switch (err) {
            error.SystemResources => predecessor.noWatch(diagnostic),
            error.Incomplete, error.Malformed => predecessor.nonsense(diagnostic),
        };
        var buffer: [64 << 10]u8 = undefined;
        defer std.crypto.secureZero(u8, &buffer);
        var reader: io.channel.Reader = .init(&predecessor.channel, &buffer);
        heir.shared.interface.readAll(&reader.interface) catch |err| return switch (err) {
            error.OutOfMemory => opening.outOfMemory(options, diagnostic),
            error.Incomplete => predecessor.gone(diagnostic),
            error.Malformed => predecessor.nonsense(diagnostic),
        };
        // It may not have heard yet what was told here.
        if (heir.link.observedMtu()) |mtu| heir.shared.interface.mtu = mtu;
        if (heir.shared.interface.index_shards != heir.workers.count) return predecessor.nonsense(diagnostic);
    }

    const StateError = codec.ReadError || error{SystemResources};

    fn readState(predecessor: *Predecessor, reader: *std.Io.Reader, heir: *const Heir) StateError!void {
        const state = try codec.read(reader, handover.State);
        const shared = heir.shared;
        const leading = heir.workers.first();
        heir.sockets.bound_index = state.bound_index;
        shared.suspension.ahead_max_ns = state.ahead_max_ns;
        shared.told = state.told;
        if (state.must_look_at_sources) heir.link.sources.request();
        leading.udp.counters = state.udp;
        leading.tun.counters = state.tun;
        for (heir.workers.all()) |worker| {
            const of_worker = try codec.read(reader, handover.WorkerState);
            try predecessor.takeSockets(worker, &of_worker);
        }
        for (state.has_given, &leading.udp.given.fds) |is_given, *place| {
            if (is_given) place.* = predecessor.descriptors.pop() orelse return error.Malformed;
        }
        leading.udp.given.port = state.given_port;
    }

    fn takeSockets(predecessor: *Predecessor, worker: *Worker, state: *const handover.WorkerState) StateError!void {
        for (state.has_sockets, &worker.udp.sockets, [_]Token{ .udp_ipv4, .udp_ipv6 }) |is_there, *place, token| {
            if (!is_there) continue;
            const fd = predecessor.descriptors.pop() orelse return error.Malformed;
            place.* = fd;
            try worker.poller.add(fd, token.value(), io.poller.in);
        }
        worker.udp.icmp_guard.is_deaf = state.is_deaf;
        for (&worker.offload.states, &worker.offload.causes, state.states, state.causes) |*own, *cause, was, number| {
            if (was == .active) continue;
            own.* = was;
            cause.* = @fromBackingInt(number);
        }
        if (worker.isFirst() or !state.is_reading) return;
        try worker.poller.add(worker.tun.fd, Token.tun.value(), io.poller.in);
        worker.is_reading = true;
    }

    /// From here it is ours.
    pub fn sayMine(predecessor: *const Predecessor, diagnostic: *Diagnostic) OpenError!void {
        predecessor.channel.send(&.{handover.mine}, &.{}) catch return predecessor.gone(diagnostic);
    }

    // ---- words ----

    fn ask(predecessor: *const Predecessor, what: []const u8, diagnostic: *Diagnostic) OpenError!void {
        var buffer: [64]u8 = undefined;
        const text = std.mem.print(&buffer, "{s}{d}\n\n", .{ what, handover.format }) catch unreachable; // fits
        predecessor.channel.send(text, &.{}) catch return predecessor.gone(diagnostic);
    }

    fn receiveFrame(predecessor: *Predecessor, buffer: []u8, diagnostic: *Diagnostic) OpenError![]u8 {
        const channel = &predecessor.channel;
        var start: [8]u8 = undefined;
        channel.receiveWith(&start, &predecessor.descriptors) catch |err|
            return predecessor.silent(err, diagnostic);
        if (!std.mem.eql(u8, start[0..4], &handover.magic)) return predecessor.refused(&start, diagnostic);
        const length = std.mem.readInt(u32, start[4..8], .little);
        if (length > buffer.len) return predecessor.nonsense(diagnostic);
        channel.receiveAll(buffer[0..length]) catch return predecessor.gone(diagnostic);
        return buffer[0..length];
    }

    /// As all requests are answered that it does not know, or not by this number.
    fn refused(predecessor: *const Predecessor, start: *const [8]u8, diagnostic: *Diagnostic) OpenError {
        if (std.mem.startsWith(u8, start, "pywg_for")) {
            var rest: [64]u8 = undefined;
            const length = predecessor.channel.receive(&rest) catch 0;
            const line = std.mem.sliceTo(rest[0..length], '\n');
            const equals = std.mem.findScalar(u8, line, '=') orelse return predecessor.nonsense(diagnostic);
            diagnostic.set("the pywg that serves {s} hands over by format {s}, and this one takes {d}: " ++
                "end it, and start this one without taking over", .{
                predecessor.name, line[equals + 1 ..], handover.format,
            });
            return error.System;
        }
        diagnostic.set("the program that serves {s} cannot hand over: " ++
            "end it, and start this one without taking over", .{predecessor.name});
        return error.System;
    }

    /// It does not let in whom it does not know, and others know no such request.
    fn silent(predecessor: *const Predecessor, err: io.channel.Error, diagnostic: *Diagnostic) OpenError {
        if (err == error.Stuck) return predecessor.gone(diagnostic);
        diagnostic.set("no answer from the process that serves {s}: it lets in root and its own user, " ++
            "and must be a pywg that can hand over", .{predecessor.name});
        return error.System;
    }

    fn gone(predecessor: *const Predecessor, diagnostic: *Diagnostic) OpenError {
        diagnostic.set("the process that serves {s} gave up handing over, or has ended", .{predecessor.name});
        return error.System;
    }

    fn nonsense(predecessor: *const Predecessor, diagnostic: *Diagnostic) OpenError {
        diagnostic.set("the process that serves {s} handed over what makes no sense", .{predecessor.name});
        return error.System;
    }

    fn noWatch(_: *const Predecessor, diagnostic: *Diagnostic) OpenError {
        diagnostic.set("cannot watch the sockets: raise 'ulimit -n', or allow epoll", .{});
        return error.System;
    }
};

fn refuse(
    err: io.channel.ConnectError,
    options: *const Options,
    failure: io.linux.Failure,
    diagnostic: *Diagnostic,
) OpenError {
    const place = .{ options.uapi_folder, options.name };
    diagnostic.errno = @intCast(@backingInt(failure.errno));
    switch (err) {
        error.NotFound => {
            diagnostic.set("there is nobody to take over from: nothing answers at {s}/{s}.sock", place);
            return error.NotFound;
        },
        error.PermissionDenied => {
            diagnostic.set("no permission to take over from who serves {s}/{s}.sock: " ++
                "run as root, or as its user", place);
            return error.Permission;
        },
        error.NameTooLong => {
            diagnostic.set("{s}/{s}.sock is too long for a socket: choose a shorter name", place);
            return error.InvalidArgument;
        },
        error.SystemResources => {
            diagnostic.set("cannot connect to {s}/{s}.sock: {f}", place ++ .{failure});
            return error.System;
        },
    }
}
