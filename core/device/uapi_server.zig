//! The UAPI socket in the loop: accepts clients, hands over each request to be answered, sends the answers.
//! Knows polling and buffers; what a request means is in control.zig.
const std = @import("std");
const Allocator = std.mem.Allocator;
const Diagnostic = @import("diagnostic.zig").Diagnostic;
const io = @import("io");
const OpenError = @import("options.zig").OpenError;
const Options = @import("options.zig").Options;
const uapi_client = io.uapi_client;
const uapi_listener = io.uapi_listener;
const Token = @import("token.zig").Token;

/// Requests of one client served in one turn, so that packets are not kept waiting.
const requests_per_turn = 16;

pub const Server = struct {
    gpa: Allocator,
    poller: io.poller.Poller,
    listener: uapi_listener.Listener,
    clients: uapi_client.Clients = .{},

    /// `name` is the interface's. The requests come as events of `poller`.
    pub fn open(
        gpa: Allocator,
        poller: io.poller.Poller,
        options: *const Options,
        name: []const u8,
        diagnostic: *Diagnostic,
    ) OpenError!Server {
        var failure: io.linux.Failure = .{};
        const opened = if (options.uapi_fd) |fd|
            uapi_listener.Listener.fromFd(fd, &failure)
        else
            uapi_listener.Listener.listen(options.uapi_folder, name, &failure);
        var listener = opened catch |err| return refuse(err, options.uapi_folder, name, failure, diagnostic);
        errdefer if (options.uapi_fd == null) listener.close() else listener.letGo();
        errdefer diagnostic.set("no memory left to watch the UAPI socket", .{});
        poller.add(listener.fd, Token.uapi_listener.value(), io.poller.in) catch return error.System;
        if (listener.watch_fd) |fd| {
            poller.add(fd, Token.uapi_removed.value(), io.poller.in) catch return error.System;
        }
        return .{ .gpa = gpa, .poller = poller, .listener = listener };
    }

    fn refuse(
        err: uapi_listener.ListenError,
        folder: []const u8,
        name: []const u8,
        failure: io.linux.Failure,
        diagnostic: *Diagnostic,
    ) OpenError {
        diagnostic.errno = @intCast(@backingInt(failure.errno));
        switch (err) {
            error.InUse => {
                diagnostic.set(
                    "{s}/{s}.sock is served by another process: choose another name, or end that process first",
                    .{ folder, name },
                );
                return error.NameInUse;
            },
            error.PermissionDenied => {
                diagnostic.set("no permission to make {s}/{s}.sock: run as root", .{ folder, name });
                return error.Permission;
            },
            error.NameTooLong => {
                diagnostic.set("{s}/{s}.sock is too long for a socket: choose a shorter name", .{ folder, name });
                return error.InvalidArgument;
            },
            error.NotListening => {
                diagnostic.set("the descriptor to take over as the UAPI socket (uapi_fd; WG_UAPI_FD of a daemon) is " ++
                    "no UNIX socket that listens", .{});
                return error.InvalidArgument;
            },
            error.SystemResources => {
                diagnostic.set("cannot listen on {s}/{s}.sock: {f}", .{ folder, name, failure });
                return error.System;
            },
        }
    }

    pub fn close(server: *Server) void {
        server.clients.deinit(server.gpa);
        server.listener.close();
    }

    /// As `close`, but another process goes on with the socket.
    pub fn letGo(server: *Server) void {
        server.clients.deinit(server.gpa);
        server.listener.letGo();
    }

    /// Whether the socket file may be removed without an event, or a client is in the middle of something: ask
    /// `wasRemoved` and call `closeStuck` now and then.
    pub fn needsProbe(server: *const Server) bool {
        return server.isUnwatched() or server.clients.isAnyWaiting();
    }

    fn isUnwatched(server: *const Server) bool {
        return server.listener.watch_fd == null;
    }

    /// For who has no event to tell it.
    pub fn wasRemoved(server: *Server) bool {
        return server.isUnwatched() and server.listener.wasRemoved();
    }

    pub fn closeStuck(server: *Server, now_ns: u64) void {
        server.clients.removeStuck(server.gpa, now_ns);
    }

    pub const Outcome = enum { more, removed };

    pub const Reply = union(enum) {
        /// Allocated with `gpa`.
        text: []u8,
        /// It was written to the client's descriptor.
        said,
        /// That is all there is for this client; or memory is short.
        close,
    };

    /// `answer` has the reply to a request of the client, to which nothing else is to be sent.
    pub fn handle(
        server: *Server,
        event: io.poller.Event,
        context: anytype,
        comptime answer: fn (@TypeOf(context), request: []const u8, client: *const uapi_client.Client) Reply,
    ) Outcome {
        switch (Token.of(event)) {
            .tun, .udp_ipv4, .udp_ipv6, .wakeup, .monitor, .routes, .vm_generation => unreachable, // not of this socket
            .uapi_listener => server.accept(),
            .uapi_removed => if (server.listener.wasRemoved()) return .removed,
            .uapi_first_client, _ => {
                const slot: usize = @intCast(event.data.u64 - Token.uapi_first_client.value());
                server.serve(slot, context, answer);
            },
        }
        return .more;
    }

    fn accept(server: *Server) void {
        while (server.listener.accept()) |fd| {
            const slot = server.clients.add(server.gpa, fd, io.clock.bootNs());
            server.poller.add(fd, tokenOf(slot), io.poller.in) catch server.clients.remove(server.gpa, slot);
        }
    }

    fn serve(
        server: *Server,
        slot: usize,
        context: anytype,
        comptime answer: fn (@TypeOf(context), request: []const u8, client: *const uapi_client.Client) Reply,
    ) void {
        const gpa = server.gpa;
        const client = server.clients.get(slot) orelse return; // closed earlier in this turn
        client.last_active_ns = io.clock.bootNs();
        if (client.flush(gpa) == .closed) return server.clients.remove(gpa, slot);
        const has_more = for (0..requests_per_turn) |_| {
            const is_open = switch (client.readable(gpa)) {
                .request => |request| server.reply(client, answer(context, request, client)),
                .more => break false,
                .closed => false,
                .too_long => blk: {
                    _ = client.reply(gpa, "errno=-7\n\n"); // E2BIG
                    break :blk false;
                },
            };
            if (!is_open) return server.clients.remove(gpa, slot);
        } else true;
        // What was read already makes no socket readable; one that can be written to brings us back next turn.
        const interest = client.interest() | if (has_more) io.poller.out else 0;
        server.poller.modify(client.fd, tokenOf(slot), interest) catch server.clients.remove(gpa, slot);
    }

    fn reply(server: *Server, client: *uapi_client.Client, made: Reply) bool {
        return switch (made) {
            .text => |text| client.replyOwned(server.gpa, text) != .closed,
            .said => true,
            .close => false,
        };
    }

    fn tokenOf(slot: usize) u64 {
        return Token.uapi_first_client.value() + slot;
    }
};
