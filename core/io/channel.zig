//! The connection by which one process takes over from another: bytes and descriptors over a UNIX socket, with an end
//! to all waiting. Both ends are of one user, or of root.
//! Knows no meaning. Invariant: no call waits longer than the patience it was given since something last moved, and no
//! descriptor is left open that nobody was told of.
const std = @import("std");
const clock = @import("clock.zig");
const control_message = @import("control_message.zig");
const sys = @import("linux.zig");

const linux = std.os.linux;
const assert = @import("wire").assert;

/// With one message. The kernel takes 253.
pub const descriptors_max = 200;

pub const Error = error{
    /// The other end has gone.
    Closed,
    /// It did nothing for too long.
    Stuck,
};

pub const ConnectError = error{ NotFound, PermissionDenied, NameTooLong, SystemResources };

/// To the socket of `name` in `folder`, whoever serves it, if that is root or our own user.
pub fn connect(folder: []const u8, name: []const u8, failure: *sys.Failure) ConnectError!sys.fd_t {
    var address: linux.sockaddr.un = .{ .path = @splat(0) };
    var writer: std.Io.Writer = .fixed(address.path[0 .. address.path.len - 1]);
    writer.print("{s}/{s}.sock", .{ folder, name }) catch return error.NameTooLong;
    const kind = linux.SOCK.STREAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
    const fd: sys.fd_t = switch (sys.result(linux.socket(linux.AF.UNIX, kind, 0))) {
        .value => |value| @intCast(value),
        .failure => |code| {
            failure.set("socket", code);
            return error.SystemResources;
        },
    };
    errdefer sys.close(fd);
    const errno = linux.errno(linux.connect(fd, &address, @sizeOf(linux.sockaddr.un)));
    failure.set("connect", errno);
    switch (errno) {
        .SUCCESS => {},
        .NOENT, .CONNREFUSED => return error.NotFound,
        .ACCES, .PERM => return error.PermissionDenied,
        else => return error.SystemResources,
    }
    if (isTrusted(fd)) return fd;
    return error.PermissionDenied;
}

/// Whether the other end was made by root or by our own user.
pub fn isTrusted(fd: sys.fd_t) bool {
    const Credentials = extern struct { pid: i32, uid: u32, gid: u32 };
    var credentials: Credentials = .{ .pid = 0, .uid = std.math.maxInt(u32), .gid = 0 };
    var length: linux.socklen_t = @sizeOf(Credentials);
    const rc = linux.getsockopt(fd, linux.SOL.SOCKET, linux.SO.PEERCRED, std.mem.asBytes(&credentials), &length);
    if (linux.errno(rc) != .SUCCESS) return false;
    return credentials.uid == 0 or credentials.uid == linux.geteuid();
}

/// Whether a socket is of the network namespace that we make sockets in; true where the kernel cannot tell (before
/// Linux 5.14).
pub fn isOfOurNamespace(fd: sys.fd_t) bool {
    const own: sys.fd_t = switch (sys.result(linux.socket(linux.AF.UNIX, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0))) {
        .value => |value| @intCast(value),
        .failure => return true,
    };
    defer sys.close(own);
    const ours = namespaceOf(own) orelse return true;
    return ours == namespaceOf(fd);
}

const so_netns_cookie = 71;

fn namespaceOf(fd: sys.fd_t) ?u64 {
    var cookie: u64 = 0;
    var length: linux.socklen_t = @sizeOf(u64);
    const rc = linux.getsockopt(fd, linux.SOL.SOCKET, so_netns_cookie, std.mem.asBytes(&cookie), &length);
    return if (linux.errno(rc) == .SUCCESS) cookie else null;
}

pub const Channel = struct {
    /// A connected socket that does not block.
    fd: sys.fd_t,
    /// Until the other end does something.
    patience_ms: u32,
    /// Of all that is waited for together.
    deadline_ns: u64,

    pub fn init(fd: sys.fd_t, patience_ms: u32, total_ms: u64) Channel {
        const deadline_ns = clock.monotonicNs() + total_ms * std.time.ns_per_ms;
        return .{ .fd = fd, .patience_ms = patience_ms, .deadline_ns = deadline_ns };
    }

    // ---- out ----

    /// The descriptors arrive with the first byte.
    pub fn send(channel: *const Channel, bytes: []const u8, descriptors: []const sys.fd_t) Error!void {
        assert(bytes.len > 0 and descriptors.len <= descriptors_max);
        var done: usize = 0;
        while (done < bytes.len) {
            const rest = bytes[done..];
            const rc = if (done == 0 and descriptors.len > 0)
                sendWith(channel.fd, rest, descriptors)
            else
                linux.sendto(channel.fd, rest.ptr, rest.len, linux.MSG.NOSIGNAL, null, 0);
            switch (sys.result(rc)) {
                .value => |length| done += length,
                .failure => |code| switch (code) {
                    .INTR => {},
                    .AGAIN => try channel.wait(linux.POLL.OUT),
                    else => return error.Closed,
                },
            }
        }
    }

    /// By sendmmsg, which moves packets, too: what is confined needs no other call for it.
    fn sendWith(fd: sys.fd_t, bytes: []const u8, descriptors: []const sys.fd_t) usize {
        var control: [capacity]u8 align(control_message.alignment) = @splat(0);
        const data = std.mem.sliceAsBytes(descriptors);
        const header_length = control_message.space(0);
        const header: linux.cmsghdr = .{
            .len = header_length + data.len,
            .level = linux.SOL.SOCKET,
            .type = linux.SCM.RIGHTS,
        };
        @memcpy(control[0..@sizeOf(linux.cmsghdr)], std.mem.asBytes(&header));
        @memcpy(control[header_length..][0..data.len], data);
        var vectors = [1]sys.iovec{.{ .base = @constCast(bytes.ptr), .len = bytes.len }};
        var messages = [1]linux.mmsghdr{.{
            .hdr = .{
                .name = null,
                .namelen = 0,
                .iov = &vectors,
                .iovlen = 1,
                .control = &control,
                .controllen = control_message.space(data.len),
                .flags = 0,
            },
            .len = 0,
        }};
        const rc = linux.sendmmsg(fd, &messages, 1, linux.MSG.NOSIGNAL);
        return if (linux.errno(rc) == .SUCCESS) messages[0].len else rc;
    }

    const capacity = control_message.space(descriptors_max * @sizeOf(sys.fd_t));

    // ---- in ----

    /// Some bytes, at least one.
    pub fn receive(channel: *const Channel, out: []u8) Error!usize {
        assert(out.len > 0);
        while (true) {
            switch (sys.result(linux.recvfrom(channel.fd, out.ptr, out.len, 0, null, null))) {
                .value => |length| return if (length == 0) error.Closed else length,
                .failure => |code| switch (code) {
                    .INTR => {},
                    .AGAIN => try channel.wait(linux.POLL.IN),
                    else => return error.Closed,
                },
            }
        }
    }

    pub fn receiveAll(channel: *const Channel, out: []u8) Error!void {
        var done: usize = 0;
        while (done < out.len) done += try channel.receive(out[done..]);
    }

    /// As `receiveAll`, with the descriptors that come with the first byte: they are the caller's to close, also when
    /// bytes are missing.
    pub fn receiveWith(channel: *const Channel, out: []u8, descriptors: *Descriptors) Error!void {
        assert(descriptors.count == 0);
        const first = while (true) {
            var control: [capacity]u8 align(control_message.alignment) = undefined;
            var vectors = [1]sys.iovec{.{ .base = out.ptr, .len = out.len }};
            var header: linux.msghdr = .{
                .name = null,
                .namelen = 0,
                .iov = &vectors,
                .iovlen = 1,
                .control = &control,
                .controllen = control.len,
                .flags = 0,
            };
            switch (sys.result(linux.recvmsg(channel.fd, &header, linux.MSG.CMSG_CLOEXEC))) {
                .value => |length| {
                    descriptors.take(control[0..@min(header.controllen, control.len)]);
                    if (length == 0) return error.Closed;
                    break length;
                },
                .failure => |code| switch (code) {
                    .INTR => {},
                    .AGAIN => try channel.wait(linux.POLL.IN),
                    else => return error.Closed,
                },
            }
        };
        try channel.receiveAll(out[first..]);
    }

    fn wait(channel: *const Channel, events: i16) Error!void {
        const now_ns = clock.monotonicNs();
        const left_ms = (channel.deadline_ns -| now_ns) / std.time.ns_per_ms;
        const timeout_ms: i32 = @intCast(@min(left_ms, channel.patience_ms));
        if (timeout_ms == 0) return error.Stuck;
        var polled = [1]linux.pollfd{.{ .fd = channel.fd, .events = events, .revents = 0 }};
        switch (sys.result(linux.poll(&polled, 1, timeout_ms))) {
            .value => |count| if (count == 0) return error.Stuck,
            .failure => |code| if (code != .INTR) return error.Closed,
        }
    }

    /// Nothing gets through any more, either way; what has arrived can still be received.
    /// False where something does not let us: then the other end may still say what it likes.
    pub fn shutDown(channel: *const Channel) bool {
        return switch (linux.errno(linux.shutdown(channel.fd, linux.SHUT.RDWR))) {
            .SUCCESS, .NOTCONN => true,
            else => false,
        };
    }
};

/// Descriptors that came. Each is to be taken out by whoever goes on with it.
pub const Descriptors = struct {
    fds: [descriptors_max]sys.fd_t = undefined,
    count: usize = 0,
    /// Those before it were taken out.
    next: usize = 0,

    fn take(descriptors: *Descriptors, control: []const u8) void {
        var iterator: control_message.Iterator = .{ .rest = control };
        while (iterator.next()) |message| {
            if (message.level != linux.SOL.SOCKET or message.kind != linux.SCM.RIGHTS) continue;
            const count = message.data.len / @sizeOf(sys.fd_t);
            for (0..count) |i| {
                const bytes = message.data[i * @sizeOf(sys.fd_t) ..][0..@sizeOf(sys.fd_t)];
                descriptors.fds[descriptors.count] = std.mem.bytesToValue(sys.fd_t, bytes);
                descriptors.count += 1;
            }
        }
    }

    /// The next one, which is the caller's from now on.
    pub fn pop(descriptors: *Descriptors) ?sys.fd_t {
        if (descriptors.next == descriptors.count) return null;
        defer descriptors.next += 1;
        return descriptors.fds[descriptors.next];
    }

    pub fn closeRest(descriptors: *Descriptors) void {
        while (descriptors.pop()) |fd| sys.close(fd);
    }
};

/// What is written goes out as fast as the other end takes it. What passes may be keys: whoever lends the buffer zeroes
/// it.
pub const Writer = struct {
    channel: *const Channel,
    interface: std.Io.Writer,

    pub fn init(channel: *const Channel, buffer: []u8) Writer {
        return .{ .channel = channel, .interface = .{ .vtable = &.{ .drain = drain }, .buffer = buffer } };
    }

    fn drain(io_writer: *std.Io.Writer, data: []const []const u8, splat: usize) std.Io.Writer.Error!usize {
        const writer: *Writer = @alignCast(@fieldParentPtr("interface", io_writer));
        try writer.put(io_writer.buffered());
        io_writer.end = 0;
        var count: usize = 0;
        for (data[0 .. data.len - 1]) |part| {
            try writer.put(part);
            count += part.len;
        }
        for (0..splat) |_| {
            try writer.put(data[data.len - 1]);
            count += data[data.len - 1].len;
        }
        return count;
    }

    fn put(writer: *Writer, bytes: []const u8) std.Io.Writer.Error!void {
        if (bytes.len == 0) return;
        writer.channel.send(bytes, &.{}) catch return error.WriteFailed;
    }
};

/// The opposite of `Writer`, with the same care.
pub const Reader = struct {
    channel: *const Channel,
    interface: std.Io.Reader,

    pub fn init(channel: *const Channel, buffer: []u8) Reader {
        return .{
            .channel = channel,
            .interface = .{
                .vtable = &.{ .stream = stream, .readVec = readVec },
                .buffer = buffer,
                .seek = 0,
                .end = 0,
            },
        };
    }

    /// Always by the buffer: values are short, and each would be a system call.
    fn readVec(io_reader: *std.Io.Reader, _: [][]u8) std.Io.Reader.Error!usize {
        const reader: *Reader = @alignCast(@fieldParentPtr("interface", io_reader));
        if (io_reader.seek == io_reader.end) {
            io_reader.seek = 0;
            io_reader.end = 0;
        }
        io_reader.end += reader.channel.receive(io_reader.buffer[io_reader.end..]) catch |err| switch (err) {
            error.Closed => return error.EndOfStream,
            error.Stuck => return error.ReadFailed,
        };
        return 0;
    }

    fn stream(
        io_reader: *std.Io.Reader,
        out: *std.Io.Writer,
        limit: std.Io.Limit,
    ) std.Io.Reader.StreamError!usize {
        const reader: *Reader = @alignCast(@fieldParentPtr("interface", io_reader));
        const room = limit.slice(try out.writableSliceGreedy(1));
        const length = reader.channel.receive(room) catch |err| switch (err) {
            error.Closed => return error.EndOfStream,
            error.Stuck => return error.ReadFailed,
        };
        out.advance(length);
        return length;
    }
};

// ---- tests -------------------------------------------------------------------------------------------

const testing = std.testing;

fn pair() ![2]Channel {
    var ends: [2]sys.fd_t = undefined;
    const kind = linux.SOCK.STREAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
    try testing.expectEqual(.SUCCESS, linux.errno(linux.socketpair(linux.AF.UNIX, kind, 0, &ends)));
    return .{ .init(ends[0], 10_000, 60_000), .init(ends[1], 10_000, 60_000) };
}

test "descriptors arrive with the first byte, however it is read, and those that nobody takes are closed" {
    const ends = try pair();
    defer for (ends) |end| sys.close(end.fd);
    var pipe: [2]sys.fd_t = undefined;
    try testing.expectEqual(.SUCCESS, linux.errno(linux.pipe2(&pipe, .{ .CLOEXEC = true })));
    try ends[0].send("0123456789", &pipe);
    for (pipe) |fd| sys.close(fd);
    try ends[0].send("more", &.{});
    var bytes: [4]u8 = undefined;
    var descriptors: Descriptors = .{};
    try ends[1].receiveWith(&bytes, &descriptors);
    try testing.expectEqualStrings("0123", &bytes);
    try testing.expectEqual(2, descriptors.count);
    const out = descriptors.pop().?;
    var rest: [10]u8 = undefined;
    try ends[1].receiveAll(&rest);
    try testing.expectEqualStrings("456789more", &rest);
    descriptors.closeRest();
    try testing.expectEqual(null, descriptors.pop());
    // The end that was not taken was the only one to write to the pipe.
    try testing.expectEqual(0, linux.read(out, &bytes, 1));
    sys.close(out);
}

test "an end that has gone, and one that does nothing, are told apart and not waited for" {
    var ends = try pair();
    defer sys.close(ends[0].fd);
    ends[0].patience_ms = 1;
    var byte: [1]u8 = undefined;
    try testing.expectError(error.Stuck, ends[0].receive(&byte));
    const much: [1 << 20]u8 = @splat(0);
    try testing.expectError(error.Stuck, ends[0].send(&much, &.{}));
    ends[0].patience_ms = 10_000;
    ends[0].deadline_ns = 0;
    try testing.expectError(error.Stuck, ends[0].receive(&byte));
    sys.close(ends[1].fd);
    try testing.expectError(error.Closed, ends[0].receive(&byte));
    try testing.expectError(error.Closed, ends[0].send("x", &.{}));
}

test "after an end is shut down nothing more can be said to it, and what was said is there" {
    const ends = try pair();
    defer for (ends) |end| sys.close(end.fd);
    try ends[0].send("y", &.{});
    try testing.expect(ends[1].shutDown());
    try testing.expectError(error.Closed, ends[0].send("n", &.{}));
    var bytes: [2]u8 = undefined;
    try testing.expectEqual(1, try ends[1].receive(&bytes));
    try testing.expectEqual('y', bytes[0]);
    try testing.expectError(error.Closed, ends[1].receive(&bytes));
}

test "a stream passes through whole, however small the buffers are" {
    const ends = try pair();
    var sent: [100_000]u8 = undefined;
    var prng: std.Random.DefaultPrng = .init(1);
    prng.random().bytes(&sent);
    const Other = struct {
        fn run(end: *const Channel, bytes: []const u8) void {
            var buffer: [64]u8 = undefined;
            var writer: Writer = .init(end, &buffer);
            var at: usize = 0;
            var step: usize = 1;
            while (at < bytes.len) : (step = step % 300 + 1) {
                const part = bytes[at..@min(bytes.len, at + step)];
                writer.interface.writeAll(part) catch unreachable;
                at += part.len;
            }
            writer.interface.flush() catch unreachable;
            sys.close(end.fd);
        }
    };
    const thread = try std.Thread.spawn(.{}, Other.run, .{ &ends[0], &sent });
    defer thread.join();
    defer sys.close(ends[1].fd);
    var buffer: [64]u8 = undefined;
    var reader: Reader = .init(&ends[1], &buffer);
    var received: [100_000]u8 = undefined;
    try reader.interface.readSliceAll(&received);
    try testing.expectEqualSlices(u8, &sent, &received);
    try testing.expectError(error.EndOfStream, reader.interface.readSliceAll(received[0..1]));
}

test "sockets of the same namespace are known as such, and the other end of a pair is ours" {
    const ends = try pair();
    defer for (ends) |end| sys.close(end.fd);
    try testing.expect(isOfOurNamespace(ends[0].fd));
    try testing.expect(isTrusted(ends[0].fd));
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    if (namespaceOf(ends[0].fd) != null) try testing.expect(!isOfOurNamespace(ends[0].fd));
}
