//! Opening: the TUN with its queues, and what watches the interface; in words for the user when one of them fails.
const io = @import("io");
const Diagnostic = @import("diagnostic.zig").Diagnostic;
const Link = @import("link.zig").Link;
const OpenError = @import("options.zig").OpenError;
const Options = @import("options.zig").Options;
const Shared = @import("shared.zig").Shared;
const Sockets = @import("sockets.zig").Sockets;
const Token = @import("token.zig").Token;
const Worker = @import("worker.zig").Worker;
const Workers = @import("workers.zig").Workers;

/// One worker for each thread, if there can be a queue for each. What was opened is left to `Workers.close`.
pub fn openWorkers(workers: *Workers, options: *const Options, diagnostic: *Diagnostic) OpenError!void {
    var failure: io.linux.Failure = .{};
    const was_there = if (io.link.index(options.name)) |_| true else |_| false;
    const leading = try addWorker(workers, options, diagnostic);
    const queues = openFirstQueue(leading, options, &failure) catch |err| {
        workers.dropLast();
        return tunError(err, options.name, failure, diagnostic);
    };
    for (1..queues) |_| {
        const worker = try addWorker(workers, options, diagnostic);
        worker.offload = leading.offload; // what was negotiated holds for all queues
        worker.tun = io.tun.Tun.openQueue(&leading.tun, &worker.offload, &failure) catch |err| {
            workers.dropLast();
            return tunError(err, options.name, failure, diagnostic);
        };
    }
    if (queues > 1) {
        workers.writer = io.tun.Tun.openQueue(&leading.tun, &leading.offload, &failure) catch |err|
            return tunError(err, options.name, failure, diagnostic);
        for (workers.all()) |worker| worker.tun.writeTo(&workers.writer.?);
    }
    if (options.tun_fd == null) {
        if (!was_there) io.link_settings.leaveGroups(leading.tun.name());
        io.link.setMtu(leading.tun.name(), options.mtu) catch |err| {
            diagnostic.set("cannot set the MTU of {s} to {d}: {t}", .{ leading.tun.name(), options.mtu, err });
            return error.System;
        };
    }
}

pub fn addWorker(workers: *Workers, options: *const Options, diagnostic: *Diagnostic) OpenError!*Worker {
    return workers.add(options.offload_disable) catch |err| switch (err) {
        error.OutOfMemory => outOfMemory(options, diagnostic),
        error.SystemResources => noWatch(diagnostic),
    };
}

/// Returns how many queues there can be: an interface that was there before keeps the one that it has.
fn openFirstQueue(leading: *Worker, options: *const Options, failure: *io.linux.Failure) io.tun.OpenError!u8 {
    const offload = &leading.offload;
    if (options.tun_fd) |fd| {
        leading.tun = try io.tun.Tun.fromFd(options.calls, fd, offload, failure);
        return 1;
    }
    if (options.threads > 1) {
        if (io.tun.Tun.openMultiQueue(options.calls, options.name, offload, failure)) |tun| {
            leading.tun = tun;
            return options.threads;
        } else |_| {}
    }
    leading.tun = try io.tun.Tun.open(options.calls, options.name, offload, failure);
    return 1;
}

/// Those that are given, by descriptors of our own.
pub fn adoptSockets(options: *const Options, diagnostic: *Diagnostic) OpenError!io.given_sockets.GivenSockets {
    return io.given_sockets.GivenSockets.adopt(options.udp_fds) catch |err| {
        diagnostic.set("cannot use the UDP sockets that were given (udp4_fd, udp6_fd): {s}", .{switch (err) {
            error.NotUdp => "one is no UDP socket of its family",
            error.NotBound => "one is not bound to a port",
            error.BothFamilies => "that of IPv6 takes IPv4 as well; set IPV6_V6ONLY before it is bound",
            error.PortsDiffer => "they are bound to different ports",
            error.SystemResources => "no descriptor is left; raise 'ulimit -n'",
        }});
        return if (err == error.SystemResources) error.System else error.InvalidArgument;
    };
}

/// With the first worker watching the interface, the routes and its queue of the TUN.
pub fn openLink(shared: *Shared, workers: *Workers, sockets: *Sockets, diagnostic: *Diagnostic) OpenError!Link {
    const leading = workers.first();
    var monitor = io.link.Monitor.open(leading.tun.fd) catch return noWatch(diagnostic);
    errdefer monitor.close();
    var routes = io.route.Monitor.open() catch return noWatch(diagnostic);
    errdefer routes.close();
    for ([_]struct { i32, Token }{
        .{ monitor.fd(), .monitor },
        .{ routes.fd(), .routes },
        .{ leading.tun.fd, .tun },
    }) |watched| {
        const fd, const token = watched;
        leading.poller.add(fd, token.value(), io.poller.in) catch return noWatch(diagnostic);
    }
    return .{
        .shared = shared,
        .workers = workers,
        .sockets = sockets,
        .monitor = monitor,
        .routes = routes,
        .vm_generation = openVmGeneration(leading),
    };
}

/// Null where the kernel tells nobody.
fn openVmGeneration(leading: *Worker) ?io.vm_generation.Monitor {
    var monitor = io.vm_generation.Monitor.open() catch return null;
    leading.poller.add(monitor.fd(), Token.vm_generation.value(), io.poller.in) catch {
        monitor.close();
        return null;
    };
    return monitor;
}

pub fn outOfMemory(options: *const Options, diagnostic: *Diagnostic) error{OutOfMemory} {
    if (options.memory_limit == 0) {
        diagnostic.set("out of memory", .{});
    } else {
        diagnostic.set(
            "out of memory: a device with {d} threads needs more than the limit of {d} KiB",
            .{ options.threads, options.memory_limit >> 10 },
        );
    }
    return error.OutOfMemory;
}

fn noWatch(diagnostic: *Diagnostic) error{System} {
    diagnostic.set("cannot watch the interface: raise 'ulimit -n', or allow netlink and epoll", .{});
    return error.System;
}

fn tunError(
    err: io.tun.OpenError,
    wanted: []const u8,
    failure: io.linux.Failure,
    diagnostic: *Diagnostic,
) OpenError {
    diagnostic.errno = @intCast(@backingInt(failure.errno));
    switch (err) {
        error.NotFound => {
            diagnostic.set(
                "no /dev/net/tun: run 'modprobe tun', or give the container '--device /dev/net/tun'",
                .{},
            );
            return error.NotFound;
        },
        error.PermissionDenied => {
            diagnostic.set("no permission to make the interface {s}: run as root or with CAP_NET_ADMIN, " ++
                "and with access to /dev/net/tun", .{wanted});
            return error.Permission;
        },
        error.NameInUse => {
            diagnostic.set("an interface called {s} exists already: choose another name, " ++
                "or remove it with 'ip link delete {s}'", .{ wanted, wanted });
            return error.NameInUse;
        },
        error.InvalidName => {
            diagnostic.set("the kernel does not take '{s}' as an interface name", .{wanted});
            return error.InvalidArgument;
        },
        error.NotTun => {
            diagnostic.set("the descriptor to take over as the TUN (tun_fd; WG_TUN_FD of a daemon) is no TUN " ++
                "interface with IFF_NO_PI", .{});
            return error.InvalidArgument;
        },
        error.SystemResources => {
            diagnostic.set("cannot make the interface {s}: {f}", .{ wanted, failure });
            return error.System;
        },
    }
}
