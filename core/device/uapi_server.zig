//! The UAPI socket in the loop: accepts clients, hands each request to the device, sends the answers.
//! Knows polling and buffers; what a request means is in control.zig.
const std = @import("std");
const Device = @import("device.zig").Device;
const device_file = @import("device.zig");
const io = @import("io");
const uapi_client = io.uapi_client;
const uapi_listener = io.uapi_listener;
const Token = @import("lane.zig").Token;

/// Requests of one client served in one turn, so that packets are not kept waiting.
const requests_per_turn = 16;

/// The reply to a request, allocated with the device's allocator; null when memory is short.
pub const AnswerFn = fn (device: *Device, request: []const u8) ?[]u8;

pub const Server = struct {
    listener: uapi_listener.Listener,
    clients: uapi_client.Clients = .{},

    pub fn open(options: *const device_file.Options, name: []const u8, poller: io.poller.Poller, diagnostic: *device_file.Diagnostic) device_file.OpenError!Server {
        var failure: io.linux.Failure = .{};
        const listener = if (options.uapi_fd) |fd|
            uapi_listener.Listener.fromFd(fd, &failure)
        else
            uapi_listener.Listener.listen(options.uapi_folder, name, &failure);
        var server: Server = .{ .listener = listener catch |err| return refuse(err, options.uapi_folder, name, failure, diagnostic) };
        errdefer server.listener.close();
        errdefer diagnostic.set("no memory left to watch the UAPI socket", .{});
        poller.add(server.listener.fd, Token.uapi_listener.value(), io.poller.in) catch return error.System;
        if (server.listener.watch_fd) |fd| poller.add(fd, Token.uapi_removed.value(), io.poller.in) catch return error.System;
        return server;
    }

    fn refuse(err: uapi_listener.ListenError, folder: []const u8, name: []const u8, failure: io.linux.Failure, diagnostic: *device_file.Diagnostic) device_file.OpenError {
        diagnostic.errno = @intCast(@backingInt(failure.errno));
        switch (err) {
            error.InUse => {
                diagnostic.set("{s}/{s}.sock is served by another process: choose another name, or end that process first", .{ folder, name });
                return error.NameInUse;
            },
            error.PermissionDenied => {
                diagnostic.set("no permission to make {s}/{s}.sock: run as root", .{ folder, name });
                return error.Permission;
            },
            error.NameTooLong, error.NotListening => {
                diagnostic.set("cannot listen for configuration: {t}", .{err});
                return error.InvalidArgument;
            },
            error.SystemResources => {
                diagnostic.set("cannot listen on {s}/{s}.sock: {f}", .{ folder, name, failure });
                return error.System;
            },
        }
    }

    pub fn close(server: *Server, gpa: std.mem.Allocator) void {
        server.clients.deinit(gpa);
        server.listener.close();
    }

    /// No event tells of the socket file's removal: ask now and then.
    pub fn isUnwatched(server: *const Server) bool {
        return server.listener.watch_fd == null;
    }

    /// Call now and then while a client is in the middle of something.
    pub fn closeStuck(server: *Server, gpa: std.mem.Allocator, now_ns: u64) void {
        server.clients.removeStuck(gpa, now_ns);
    }

    pub const Outcome = enum { more, removed };

    pub fn handle(server: *Server, event: io.poller.Event, device: *Device, comptime answer: AnswerFn) Outcome {
        switch (@as(Token, @fromBackingInt(event.data.u64))) {
            .uapi_listener => server.accept(device),
            .uapi_removed => if (server.listener.wasRemoved()) return .removed,
            else => {
                const slot: usize = @intCast(event.data.u64 - Token.uapi_first_client.value());
                server.serve(device, slot, answer);
            },
        }
        return .more;
    }

    fn accept(server: *Server, device: *Device) void {
        while (server.listener.accept()) |fd| {
            const slot = server.clients.add(device.gpa, fd, io.clock.bootNs());
            device.first().poller.add(fd, tokenOf(slot), io.poller.in) catch server.clients.remove(device.gpa, slot);
        }
    }

    fn serve(server: *Server, device: *Device, slot: usize, comptime answer: AnswerFn) void {
        const client = server.clients.get(slot) orelse return; // closed earlier in this turn
        client.last_active_ns = io.clock.bootNs();
        if (client.flush(device.gpa) == .closed) return server.clients.remove(device.gpa, slot);
        const has_more = for (0..requests_per_turn) |_| {
            const is_open = switch (client.readable(device.gpa)) {
                .request => |request| reply(client, device, answer(device, request)),
                .more => break false,
                .closed => false,
                .too_long => blk: {
                    _ = client.reply(device.gpa, "errno=-7\n\n"); // E2BIG
                    break :blk false;
                },
            };
            if (!is_open) return server.clients.remove(device.gpa, slot);
        } else true;
        // What was read already makes no socket readable; one that can be written to brings us back next turn.
        const interest = client.interest() | if (has_more) io.poller.out else 0;
        device.first().poller.modify(client.fd, tokenOf(slot), interest) catch server.clients.remove(device.gpa, slot);
    }

    fn reply(client: *uapi_client.Client, device: *Device, text: ?[]u8) bool {
        const owned = text orelse return false;
        defer {
            std.crypto.secureZero(u8, owned);
            device.gpa.free(owned);
        }
        return client.reply(device.gpa, owned) != .closed;
    }

    fn tokenOf(slot: usize) u64 {
        return Token.uapi_first_client.value() + slot;
    }
};
