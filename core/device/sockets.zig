//! Sockets: UDP sockets for each worker that has a thread, all on one port, as the configuration wishes them.
//! New ones are opened beside those in use, so that what fails leaves these as they are.
//! Invariant: called with the turns of all workers held.
const io = @import("io");
const Shared = @import("shared.zig").Shared;
const Token = @import("token.zig").Token;
const Worker = @import("worker.zig").Worker;
const Workers = @import("workers.zig").Workers;
const workers_max = @import("cipher_pool.zig").workers_max;

/// Opened, but not in use yet.
pub const SocketSet = struct {
    /// By the workers' numbers.
    pairs: [workers_max]io.udp.Sockets = @splat(.{ null, null }),
    port: u16,

    pub fn close(set: *SocketSet) void {
        for (&set.pairs) |*pair| io.udp.closeSockets(pair);
    }
};

pub const Sockets = struct {
    shared: *Shared,
    workers: *Workers,
    /// Of the interface that the sockets are bound to, when they were opened; 0 for none.
    bound_index: u32 = 0,

    /// Where the configuration has them.
    pub fn configured(sockets: *const Sockets) io.udp.BindOptions {
        const interface = &sockets.shared.interface;
        return .{ .port = interface.listen_port, .fwmark = interface.fwmark, .binding = interface.binding };
    }

    /// Of the last call that failed.
    pub fn failure(sockets: *const Sockets) io.linux.Failure {
        return sockets.workers.first().udp.failure;
    }

    /// Opens beside what is in use, and has it watched; nothing is left behind on an error, see `failure`.
    pub fn open(sockets: *Sockets, wanted: io.udp.BindOptions) io.udp.OpenError!SocketSet {
        var options = wanted;
        var set: SocketSet = .{ .port = options.port };
        errdefer set.close();
        const leading = sockets.workers.first();
        const interface = &sockets.shared.interface;
        const takes_over = leading.udp.isOpen() and options.port == interface.listen_port;
        if (takes_over) options.takes_over = interface.binding;
        const was_shared = sockets.countOpen() > 1;
        if (takes_over) sockets.shareAll(true);
        defer if (takes_over) sockets.shareAll(was_shared);
        set.port = try leading.udp.openAside(&set.pairs[0], options);
        options.port = set.port;
        try watch(leading, &set.pairs[0]);
        var count: u8 = 1;
        for (sockets.workers.all()[1..]) |worker| {
            if (!worker.has_thread.load(.monotonic)) continue;
            join(worker, &set, options) catch {
                sockets.logMissing(worker);
                continue;
            };
            count += 1;
        }
        if (count > 1) leading.udp.steer(&set.pairs[0], count) else leading.udp.share(&set.pairs[0], false);
        return set;
    }

    /// While sockets are opened on the port that these have.
    fn shareAll(sockets: *Sockets, shares: bool) void {
        for (sockets.workers.all()) |worker| worker.udp.share(&worker.udp.sockets, shares);
    }

    fn countOpen(sockets: *const Sockets) u8 {
        var count: u8 = 0;
        for (sockets.workers.all()) |worker| count += @intFromBool(worker.udp.isOpen());
        return count;
    }

    /// Puts a set in the place of the one in use. Closing is not left to the kernel's count of descriptors: a host that
    /// forked holds them open, and epoll would go on telling of them.
    pub fn install(sockets: *Sockets, set: *const SocketSet) void {
        const workers = sockets.workers.all();
        // From the last to the first: new sockets may be in one group with the old (SO_REUSEPORT), and the kernel puts
        // the last of a group in the place of one that is closed. So the new end in the order of their workers.
        var number = workers.len;
        while (number > 0) {
            number -= 1;
            const worker = workers[number];
            const pair = set.pairs[number];
            for (worker.udp.sockets) |socket| if (socket) |fd| {
                worker.poller.remove(fd);
                sockets.shared.noteClosing(fd);
            };
            worker.udp.close();
            worker.udp.sockets = pair;
            for (pair) |socket| if (socket) |fd| sockets.shared.noteOpened(fd);
            worker.readTun(worker.udp.isOpen());
        }
        const interface = &sockets.shared.interface.binding.interface;
        sockets.bound_index = if (interface.isEmpty()) 0 else io.link.index(interface.slice()) catch 0;
        // Other sockets may take another route: learnt sources are no longer to be trusted.
        sockets.shared.interface.forgetAllSources();
    }

    pub fn setFwmark(sockets: *Sockets, fwmark: u32) io.udp.OpenError!void {
        for (sockets.workers.all()) |worker| try worker.udp.setFwmark(fwmark);
    }

    /// A thread has come for a further worker. Should it get no queue or sockets, it still helps the others.
    pub fn extend(sockets: *Sockets, worker: *Worker) void {
        if (worker.isFirst() or !sockets.shared.interface.is_active) return;
        const leading = sockets.workers.first();
        var set: SocketSet = .{ .port = sockets.shared.interface.listen_port };
        set.pairs[0] = leading.udp.sockets;
        join(worker, &set, sockets.configured()) catch return sockets.logMissing(worker);
        worker.udp.sockets = set.pairs[worker.share.number];
        for (worker.udp.sockets) |socket| if (socket) |fd| sockets.shared.noteOpened(fd);
        leading.udp.steer(&leading.udp.sockets, sockets.countOpen());
        worker.readTun(true);
    }

    fn logMissing(sockets: *const Sockets, worker: *const Worker) void {
        const arguments = .{ worker.share.number, worker.udp.failure };
        sockets.shared.log.err("lane {d} stays without sockets: {f}", arguments);
    }
};

fn join(worker: *Worker, set: *SocketSet, options: io.udp.BindOptions) io.udp.OpenError!void {
    const own = &set.pairs[worker.share.number];
    try worker.udp.joinAside(own, &set.pairs[0], options);
    errdefer io.udp.closeSockets(own);
    try watch(worker, own);
}

fn watch(worker: *Worker, pair: *const io.udp.Sockets) io.udp.OpenError!void {
    for (pair, [_]Token{ .udp_ipv4, .udp_ipv6 }) |socket, token| {
        worker.poller.add(socket orelse continue, token.value(), io.poller.in) catch {
            worker.udp.failure.set("epoll_ctl", .NOSPC);
            return error.SystemResources;
        };
    }
}
