//! Control: UAPI requests to changes, and sockets made to match what they wish.
//! A set is applied whole or not at all: a port that is taken refuses it before anything changed.
//! Invariant: called with the turns of all workers held.
const std = @import("std");
const Allocator = std.mem.Allocator;
const Change = protocol.change.Change;
const cipher = @import("cipher");
const Client = io.uapi_client.Client;
const Diagnostic = @import("diagnostic.zig").Diagnostic;
const E = std.os.linux.E;
const handover = @import("handover.zig");
const io = @import("io");
const LimitedAllocator = @import("limited_allocator.zig").LimitedAllocator;
const Link = @import("link.zig").Link;
const protocol = @import("protocol");
const report = @import("report.zig");
const Server = @import("uapi_server.zig").Server;
const Shared = @import("shared.zig").Shared;
const shared_file = @import("shared.zig");
const SocketSet = @import("sockets.zig").SocketSet;
const Sockets = @import("sockets.zig").Sockets;
const uapi = protocol.uapi;
const wire = @import("wire");
const Pause = @import("workers.zig").Pause;
const Workers = @import("workers.zig").Workers;
const Writer = std.Io.Writer;
const zones = @import("zones.zig");

pub const SetError = error{ Invalid, Protocol, OutOfMemory, LimitExceeded, AddressInUse, Permission, System };

pub const Control = struct {
    shared: *Shared,
    workers: *Workers,
    sockets: *Sockets,
    link: *Link,
    server: ?Server,

    // ---- a set ----

    /// Applies the lines of a set request. With many of them packets pass in between. What is to be sent then is left
    /// to the turns of the workers.
    pub fn set(control: *Control, text: []const u8, pause: *Pause, diagnostic: *Diagnostic) SetError!void {
        const gpa = control.shared.gpa;
        const numeric = zones.resolve(gpa, text) catch return control.outOfMemory(diagnostic);
        defer if (numeric) |owned| zones.free(gpa, owned);
        var why: uapi.Diagnostic = .{};
        var reader: uapi.Reader = .begin(numeric orelse text, &why);
        defer reader.deinit(gpa);
        while (reader.next(gpa) catch |err| {
            if (err == error.OutOfMemory) return control.outOfMemory(diagnostic);
            diagnostic.line = why.line;
            diagnostic.column = why.column;
            diagnostic.set("line {d}: {s}", .{ why.line, why.message });
            return err;
        }) pause.offer();
        var change = reader.take();
        defer change.deinit(gpa);
        try control.apply(&change, pause, diagnostic);
    }

    fn apply(control: *Control, change: *Change, pause: *Pause, diagnostic: *Diagnostic) SetError!void {
        const interface = &control.shared.interface;
        try control.keepGivenSockets(change, diagnostic);
        dropNoOps(interface, change);
        const wanted = control.wantedAfter(change);
        if (isRebound(change)) try control.checkBinding(&wanted.binding, diagnostic);
        var replacement: ?SocketSet = null;
        errdefer if (replacement) |*set_aside| set_aside.close();
        var is_marked = false;
        errdefer if (is_marked) control.sockets.setFwmark(interface.fwmark) catch {}; // it held this mark before
        if (control.link.is_up and (change.listen_port != null or isRebound(change) or !interface.is_active)) {
            replacement = try control.openReplacement(change, &wanted, diagnostic);
        } else if (interface.is_active and change.fwmark != null) {
            is_marked = true;
            control.sockets.setFwmark(wanted.fwmark) catch |err| return control.bindError(err, &wanted, diagnostic);
        } else if (isRebound(change)) {
            try control.tryBinding(&wanted, diagnostic);
        }
        var steps: protocol.Interface.ConfigureSteps = .begin(interface, change);
        while (steps.next() catch |err| switch (err) {
            error.OutOfMemory => return control.outOfMemory(diagnostic),
            error.LimitExceeded => {
                diagnostic.set("more than {d} peers", .{protocol.constants.peers_max});
                return error.LimitExceeded;
            },
        }) pause.offer();
        // Another mark may take another route: learnt sources are no longer to be trusted. `install` does the same.
        if (is_marked) {
            interface.forgetAllSources();
            control.link.sources.request(); // those that packets under way bring back are looked at, too
        }
        if (replacement) |*opened| {
            control.sockets.install(opened);
            replacement = null;
            if (!interface.is_active) control.link.activate();
        }
    }

    /// Sockets of somebody else's are bound already.
    fn keepGivenSockets(control: *const Control, change: *Change, diagnostic: *Diagnostic) error{Invalid}!void {
        const given = &control.workers.first().udp.given;
        if (given.isEmpty()) return;
        if (change.listen_port == 0) change.listen_port = null;
        const keeps_port = change.listen_port == null or change.listen_port == given.port;
        const binding = bindingAfter(&control.shared.interface, change);
        if (keeps_port and binding.isEmpty()) return;
        diagnostic.errno = @backingInt(E.INVAL);
        diagnostic.set("the UDP sockets were given (udp4_fd, udp6_fd): port {d} and what they are bound to stay; " ++
            "leave ListenPort, BindDevice and BindAddress out", .{given.port});
        return error.Invalid;
    }

    fn wantedAfter(control: *const Control, change: *const Change) io.udp.BindOptions {
        var wanted = control.sockets.configured();
        if (change.listen_port) |port| wanted.port = port;
        if (change.fwmark) |fwmark| wanted.fwmark = fwmark;
        wanted.binding = bindingAfter(&control.shared.interface, change);
        return wanted;
    }

    /// What the kernel would take, or would refuse without saying why.
    fn checkBinding(control: *const Control, binding: *const wire.Binding, diagnostic: *Diagnostic) SetError!void {
        const monitor = &control.link.monitor;
        // In another namespace the name is another interface's here.
        const is_here = !monitor.is_blind and monitor.namespace == null;
        if (is_here and std.mem.eql(u8, binding.interface.slice(), monitor.name())) {
            diagnostic.errno = @backingInt(E.INVAL);
            diagnostic.set(
                "{s} cannot be bound to itself (BindDevice): name the interface that its datagrams leave by",
                .{monitor.name()},
            );
            return error.Invalid;
        }
        const address = binding.addresses.ipv6 orelse return;
        if (!binding.interface.isEmpty() or !address.isLinkLocal()) return;
        diagnostic.errno = @backingInt(E.INVAL);
        diagnostic.set(
            "the link-local address {f} (BindAddress) means nothing without its interface: name that with BindDevice",
            .{address},
        );
        return error.Invalid;
    }

    /// With the link down no sockets are opened yet; but a mistake is told to its maker, not to the log when it is up.
    fn tryBinding(control: *Control, wanted: *const io.udp.BindOptions, diagnostic: *Diagnostic) SetError!void {
        if (wanted.binding.isEmpty()) return;
        const udp = &control.workers.first().udp;
        var pair: io.udp.Sockets = .{ null, null };
        // On any port: whoever has ours may have gone by the time the link is up.
        const trial: io.udp.BindOptions = .{ .binding = wanted.binding };
        _ = udp.openAside(&pair, trial) catch |err| return control.bindError(err, &trial, diagnostic);
        io.udp.closeSockets(&pair);
    }

    /// Sockets on the wished port. Without a wish they are for a link that came up when its port was taken:
    /// null if it still is, for then the change has no part in that.
    fn openReplacement(
        control: *Control,
        change: *Change,
        wanted: *const io.udp.BindOptions,
        diagnostic: *Diagnostic,
    ) SetError!?SocketSet {
        const opened = control.sockets.open(wanted.*) catch |err| {
            if (change.listen_port == null and change.fwmark == null and !isRebound(change)) return null;
            return control.bindError(err, wanted, diagnostic);
        };
        change.listen_port = opened.port;
        return opened;
    }

    fn bindError(
        control: *const Control,
        err: io.udp.OpenError,
        wanted: *const io.udp.BindOptions,
        diagnostic: *Diagnostic,
    ) SetError {
        const failure = control.sockets.failure();
        const is_of_interface = std.mem.eql(u8, failure.operation, "SO_BINDTODEVICE");
        diagnostic.errno = @intCast(@backingInt(failure.errno));
        switch (err) {
            error.AddressInUse => {
                diagnostic.set(
                    "UDP port {d} is in use by another program: choose another ListenPort, or leave it out",
                    .{wanted.port},
                );
                return error.AddressInUse;
            },
            error.PermissionDenied => {
                if (is_of_interface) {
                    diagnostic.set(
                        "no permission to bind to the interface {s} (BindDevice): needs CAP_NET_RAW",
                        .{wanted.binding.interface.slice()},
                    );
                } else {
                    diagnostic.set("no permission for port {d} with fwmark {d}: needs CAP_NET_ADMIN " ++
                        "(and CAP_NET_BIND_SERVICE below 1024)", .{ wanted.port, wanted.fwmark });
                }
                return error.Permission;
            },
            error.FamilyUnsupported, error.SystemResources => {
                control.explainSystem(err, wanted, diagnostic);
                return error.System;
            },
        }
    }

    fn explainSystem(
        control: *const Control,
        err: io.udp.OpenError,
        wanted: *const io.udp.BindOptions,
        diagnostic: *Diagnostic,
    ) void {
        const udp = &control.workers.first().udp;
        const failure = udp.failure;
        const address = wanted.binding.addresses.get(udp.failed_family);
        if (std.mem.eql(u8, failure.operation, "SO_BINDTODEVICE") and failure.errno == .NODEV) {
            diagnostic.set(
                "there is no interface {s} to bind to (BindDevice): make it first, or correct its name",
                .{wanted.binding.interface.slice()},
            );
        } else if (address != null and failure.errno == .ADDRNOTAVAIL) {
            diagnostic.set(
                "no interface has the address {f} to bind to (BindAddress): add it first, or correct it",
                .{address.?},
            );
        } else if (address != null and err == error.FamilyUnsupported) {
            diagnostic.set(
                "this host has no {t} for the address {f} (BindAddress): leave it out",
                .{ udp.failed_family, address.? },
            );
        } else {
            diagnostic.set("cannot open UDP sockets on port {d}: {f}", .{ wanted.port, failure });
        }
    }

    fn outOfMemory(control: *const Control, diagnostic: *Diagnostic) error{OutOfMemory} {
        const limited = &control.shared.limited;
        if (limited.limit == LimitedAllocator.unlimited) {
            diagnostic.set("out of memory", .{});
        } else {
            diagnostic.set(
                "out of memory: this takes more than the limit of {d} KiB; {d} are in use",
                .{ limited.limit >> 10, limited.used.load(.monotonic) >> 10 },
            );
        }
        return error.OutOfMemory;
    }

    // ---- the UAPI socket ----

    pub fn serve(control: *Control, event: io.poller.Event, pause: *Pause) void {
        const server = if (control.server) |*server| server else return;
        // What a request left on the stack may be keys.
        defer cipher.scrubStack();
        switch (server.handle(event, &Request{ .control = control, .pause = pause }, Request.answer)) {
            .more => {},
            .removed => control.shared.end("the UAPI socket was removed"),
        }
    }

    pub fn needsProbe(control: *const Control) bool {
        return if (control.server) |*server| server.needsProbe() else false;
    }

    pub fn probe(control: *Control, now: protocol.Now) void {
        const server = if (control.server) |*server| server else return;
        if (server.wasRemoved()) control.shared.end("the UAPI socket was removed");
        server.closeStuck(now.boot.ns);
    }

    /// Text is allocated here, and zeroed by whoever frees it.
    fn answer(control: *Control, request: []const u8, client: *const Client, pause: *Pause) Server.Reply {
        const end = std.mem.findScalar(u8, request, '\n') orelse request.len;
        const operation = request[0..end];
        const body = request[@min(end + 1, request.len)..];
        for ([_][]const u8{ handover.take_over, handover.hand_over }) |start| {
            if (!std.mem.startsWith(u8, operation, start)) continue;
            // What is said after it is for whoever hands over, and would not be found here.
            if (client.hasSaidMore()) return .close;
            const giver: handover.Giver = .{
                .shared = control.shared,
                .workers = control.workers,
                .sockets = control.sockets,
                .link = control.link,
                .listener_fd = control.server.?.listener.fd,
            };
            return switch (handover.answer(&giver, operation, client.fd)) {
                .done => .said,
                .close => .close,
            };
        }
        return .{ .text = control.answerText(operation, body, pause) orelse return .close };
    }

    /// Null when memory is short.
    fn answerText(control: *Control, operation: []const u8, body: []const u8, pause: *Pause) ?[]u8 {
        if (std.mem.eql(u8, operation, "get=1")) return control.answerGet(pause);
        if (std.mem.eql(u8, operation, "pywg_get=1")) return control.answerReport(pause);
        if (std.mem.eql(u8, operation, "set=1")) return control.answerSet(body, pause);
        return control.answerErrno(.get, .PROTO);
    }

    fn answerGet(control: *Control, pause: *Pause) ?[]u8 {
        return control.gather(report.Configuration{ .workers = control.workers }, pause);
    }

    fn answerReport(control: *Control, pause: *Pause) ?[]u8 {
        const begin: report.Report = .{ .workers = control.workers, .now = shared_file.now() };
        return control.gather(begin, pause);
    }

    fn gather(control: *Control, begin: anytype, pause: *Pause) ?[]u8 {
        const gpa = control.shared.gpa;
        var text: SecretText = .{};
        defer text.deinit(gpa);
        text.grow(gpa, control.shared.interface.peer_count * usual_peer_length) catch return null;
        var rest = begin;
        while (!rest.isComplete()) {
            var writer: Writer = .fixed(text.room());
            if (rest.writeNext(&writer)) |_| {
                text.length += writer.end;
                pause.offer();
            } else |_| text.grow(gpa, 0) catch return null;
        }
        while (text.room().len < get_tail.len) text.grow(gpa, 0) catch return null;
        @memcpy(text.room()[0..get_tail.len], get_tail);
        text.length += get_tail.len;
        return text.take(gpa);
    }

    fn answerSet(control: *Control, body: []const u8, pause: *Pause) ?[]u8 {
        var diagnostic: Diagnostic = .{};
        control.set(body, pause, &diagnostic) catch |err| {
            control.shared.log.err("configuration refused: {s}", .{diagnostic.text()});
            const errno: E = switch (err) {
                error.Invalid => .INVAL,
                error.Protocol => .PROTO,
                error.OutOfMemory => .NOMEM,
                error.LimitExceeded => .NOSPC,
                error.AddressInUse => .ADDRINUSE,
                error.Permission => .PERM,
                error.System => if (diagnostic.errno == 0) .IO else @fromBackingInt(diagnostic.errno),
            };
            return control.answerErrno(.set, errno);
        };
        return control.answerErrno(.set, .SUCCESS);
    }

    fn answerErrno(control: *Control, operation: uapi.Operation, errno: E) ?[]u8 {
        var buffer: [32]u8 = undefined;
        var writer: Writer = .fixed(&buffer);
        uapi.writeErrno(&writer, operation, @intCast(@backingInt(errno))) catch unreachable; // fits
        return control.shared.gpa.dupe(u8, writer.buffered()) catch null;
    }
};

const get_tail = "errno=0\n\n";
/// Of a peer with one allowed IP in the answer to "get".
const usual_peer_length = 400;

/// What one request is answered with.
const Request = struct {
    control: *Control,
    pause: *Pause,

    fn answer(request: *const Request, text: []const u8, client: *const Client) Server.Reply {
        return request.control.answer(text, client, request.pause);
    }
};

/// Text with keys in it that grows as it is written.
const SecretText = struct {
    memory: []u8 = &.{},
    length: usize = 0,

    fn deinit(text: *SecretText, gpa: Allocator) void {
        std.crypto.secureZero(u8, text.memory);
        gpa.free(text.memory);
    }

    fn room(text: *SecretText) []u8 {
        return text.memory[text.length..];
    }

    fn grow(text: *SecretText, gpa: Allocator, least: usize) Allocator.Error!void {
        const grown = try gpa.alloc(u8, @max(4096, least, text.memory.len * 2));
        @memcpy(grown[0..text.length], text.memory[0..text.length]);
        text.deinit(gpa);
        text.memory = grown;
    }

    /// The text alone. Nothing was written behind it.
    fn take(text: *SecretText, gpa: Allocator) ?[]u8 {
        if (!gpa.resize(text.memory, text.length)) return gpa.dupe(u8, text.memory[0..text.length]) catch null;
        defer text.* = .{};
        return text.memory[0..text.length];
    }
};

// ---- what a change asks of the sockets ----

/// The port, mark and binding that are there already keep their sockets, as in the kernel.
fn dropNoOps(interface: *const protocol.Interface, change: *Change) void {
    if (change.fwmark == interface.fwmark) change.fwmark = null;
    if (!interface.is_active) return;
    if (change.listen_port == interface.listen_port) change.listen_port = null;
    const binding = bindingAfter(interface, change);
    if (!binding.eql(&interface.binding)) return;
    change.bind_interface = null;
    change.bind_addresses = null;
}

fn isRebound(change: *const Change) bool {
    return change.bind_interface != null or change.bind_addresses != null;
}

fn bindingAfter(interface: *const protocol.Interface, change: *const Change) wire.Binding {
    return .{
        .interface = change.bind_interface orelse interface.binding.interface,
        .addresses = change.bind_addresses orelse interface.binding.addresses,
    };
}
