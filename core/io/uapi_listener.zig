//! The listening end of the configuration socket, /var/run/wireguard/NAME.sock: making its file, accepting, and seeing
//! that the file was taken away.
//! Knows who may connect; not what clients say (uapi_client.zig).
//! Invariant: a socket that somebody answers is never replaced, and no file but our own is unlinked.
const std = @import("std");
const channel = @import("channel.zig");
const sys = @import("linux.zig");
const wire = @import("wire");

const linux = std.os.linux;
const assert = @import("wire").assert;

pub const default_folder = "/var/run/wireguard";

/// Connections that wait to be accepted.
const backlog = 16;

pub const ListenError = error{
    /// Somebody answers there.
    InUse,
    PermissionDenied,
    /// Folder and name make a path that does not fit a socket address.
    NameTooLong,
    /// The descriptor to take over is not a listening UNIX socket.
    NotListening,
    /// Anything else; the `Failure` says what.
    SystemResources,
};

fn fail(failure: *sys.Failure, operation: []const u8, errno: sys.E) ListenError {
    failure.set(operation, errno);
    return switch (errno) {
        .PERM, .ACCES, .ROFS => error.PermissionDenied,
        else => error.SystemResources,
    };
}

pub const Listener = struct {
    fd: sys.fd_t,
    /// Tells that the socket file changed; null where inotify is not to be had, then ask `wasRemoved` now and then.
    watch_fd: ?sys.fd_t = null,
    /// NUL-terminated; empty for a descriptor taken over that has no path.
    path: [108]u8 = @splat(0),
    /// Which file it was, so that nobody else's is unlinked. No other has the number while we hold the socket.
    inode: u64 = 0,
    owns_path: bool = false,
    /// Given up for a moment when descriptors run out, to turn a client away: one that waits in the queue would
    /// keep the poller awake.
    spare_fd: ?sys.fd_t = null,

    /// Makes the folder (0755) and the socket (0600). A socket file that nobody answers on is a
    /// leftover of a process that was killed, and is replaced.
    pub fn listen(folder: []const u8, name: []const u8, failure: *sys.Failure) ListenError!Listener {
        var listener: Listener = .{ .fd = -1 };
        // One byte stays for the NUL.
        var writer: std.Io.Writer = .fixed(listener.path[0 .. listener.path.len - 1]);
        wire.text.print(&writer, "{s}/{s}.sock", .{ folder, name }) catch return error.NameTooLong;
        try makeFolder(folder, failure);
        try removeStale(&listener, failure);
        listener.fd = try openSocket(failure);
        errdefer sys.close(listener.fd);
        // The mode of the socket is that of its file: set before bind, it holds from the first moment, and the
        // umask, which belongs to the whole process, need not be touched.
        _ = linux.fchmod(listener.fd, 0o600);
        const address = listener.sockaddr();
        const bound = linux.errno(linux.bind(listener.fd, @ptrCast(&address), @sizeOf(linux.sockaddr.un)));
        if (bound == .ADDRINUSE) return error.InUse; // somebody was quicker
        if (bound != .SUCCESS) return fail(failure, "bind", bound);
        listener.owns_path = true;
        errdefer _ = linux.unlink(listener.pathZ());
        // Where sockets have no mode of their own (other kernels' emulations), this is the second best.
        const changed = linux.errno(linux.chmod(listener.pathZ(), 0o600));
        if (changed != .SUCCESS) return fail(failure, "chmod", changed);
        const listening = linux.errno(linux.listen(listener.fd, backlog));
        if (listening != .SUCCESS) return fail(failure, "listen", listening);
        listener.inode = inodeOf(listener.pathZ()) orelse 0;
        listener.watch();
        listener.openSpare();
        return listener;
    }

    /// Takes over a listening socket (WG_UAPI_FD), by a descriptor of its own: the one given stays the caller's to
    /// close. Its file is unlinked on close, as its maker expects.
    pub fn fromFd(fd: sys.fd_t, failure: *sys.Failure) ListenError!Listener {
        var listener: Listener = .{ .fd = -1 };
        var accepting: c_int = 0;
        var length: linux.socklen_t = @sizeOf(c_int);
        const rc = linux.getsockopt(fd, linux.SOL.SOCKET, linux.SO.ACCEPTCONN, std.mem.asBytes(&accepting), &length);
        if (linux.errno(rc) != .SUCCESS or accepting == 0) {
            failure.set("SO_ACCEPTCONN", linux.errno(rc));
            return error.NotListening;
        }
        const flags = linux.fcntl(fd, linux.F.GETFL, 0);
        if (linux.errno(flags) != .SUCCESS) return fail(failure, "fcntl", linux.errno(flags));
        const non_blocking: u32 = @bitCast(linux.O{ .NONBLOCK = true });
        _ = linux.fcntl(fd, linux.F.SETFL, flags | non_blocking);
        var address: linux.sockaddr.un = .{ .path = @splat(0) };
        length = @sizeOf(linux.sockaddr.un);
        const named = linux.errno(linux.getsockname(fd, @ptrCast(&address), &length));
        if (named != .SUCCESS) return fail(failure, "getsockname", named);
        if (address.family != linux.AF.UNIX) return error.NotListening;
        listener.fd = switch (sys.duplicate(fd)) {
            .value => |value| @intCast(value),
            .failure => |code| return fail(failure, "fcntl", code),
        };
        if (address.path[0] == '/' and address.path[address.path.len - 1] == 0) {
            listener.path = address.path;
            listener.inode = inodeOf(listener.pathZ()) orelse 0;
            listener.owns_path = listener.inode != 0;
            listener.watch();
        }
        listener.openSpare();
        return listener;
    }

    /// Unlinks the file if it is still ours.
    pub fn close(listener: *Listener) void {
        if (listener.owns_path and !listener.wasRemoved()) _ = linux.unlink(listener.pathZ());
        listener.letGo();
    }

    /// As `close`, but the file stays.
    pub fn letGo(listener: *Listener) void {
        if (listener.watch_fd) |fd| sys.close(fd);
        if (listener.spare_fd) |fd| sys.close(fd);
        sys.close(listener.fd);
        listener.* = undefined;
    }

    pub fn pathSlice(listener: *const Listener) []const u8 {
        return std.mem.sliceTo(&listener.path, 0);
    }

    /// The next client, or null when there is none. Only root and our own user get in, whatever the
    /// mode of the file has become.
    pub fn accept(listener: *Listener) ?sys.fd_t {
        while (true) {
            switch (sys.result(listener.acceptAny())) {
                .value => |value| {
                    const fd: sys.fd_t = @intCast(value);
                    if (channel.isTrusted(fd)) return fd;
                    sys.close(fd);
                },
                .failure => |code| switch (code) {
                    .INTR, .CONNABORTED => {},
                    .MFILE, .NFILE => if (!listener.turnAway()) return null,
                    else => return null,
                },
            }
        }
    }

    fn acceptAny(listener: *const Listener) usize {
        return linux.accept4(listener.fd, null, null, linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK);
    }

    fn turnAway(listener: *Listener) bool {
        sys.close(listener.spare_fd orelse return false);
        const accepted = sys.result(listener.acceptAny());
        if (accepted == .value) sys.close(@intCast(accepted.value));
        listener.openSpare();
        return accepted == .value;
    }

    fn openSpare(listener: *Listener) void {
        listener.spare_fd = switch (sys.duplicate(listener.fd)) {
            .value => |fd| @intCast(fd),
            .failure => null,
        };
    }

    /// Who connects from now on sees this process as the one that listens (SO_PEERCRED), and no longer the one that
    /// began to: by that others find the process that serves the interface.
    pub fn becomeOwner(listener: *const Listener) void {
        _ = linux.listen(listener.fd, backlog); // a socket that listens cannot refuse it
    }

    /// True when the socket file is gone or is another's: the administrator's way to end us.
    /// Call it when `watch_fd` is readable, or now and then.
    pub fn wasRemoved(listener: *const Listener) bool {
        if (listener.watch_fd) |fd| {
            var events: [512]u8 align(8) = undefined;
            // What happened does not matter; only the file's state does.
            while (linux.errno(linux.read(fd, &events, events.len)) == .SUCCESS) {}
        }
        if (!listener.owns_path) return false;
        return inodeOf(listener.pathZ()) != listener.inode;
    }

    /// While we hold the socket its inode lives, so an unlink shows as a change of the link count (IN_ATTRIB),
    /// not as IN_DELETE_SELF.
    fn watch(listener: *Listener) void {
        const fd: sys.fd_t = switch (sys.result(linux.inotify_init1(linux.IN.CLOEXEC | linux.IN.NONBLOCK))) {
            .value => |fd| @intCast(fd),
            .failure => return,
        };
        const mask = linux.IN.ATTRIB | linux.IN.DELETE_SELF | linux.IN.MOVE_SELF | linux.IN.UNMOUNT;
        const errno = linux.errno(linux.inotify_add_watch(fd, listener.pathZ(), mask));
        if (errno != .SUCCESS) return sys.close(fd);
        listener.watch_fd = fd;
    }

    fn pathZ(listener: *const Listener) [*:0]const u8 {
        assert(listener.path[listener.path.len - 1] == 0);
        return @ptrCast(&listener.path);
    }

    fn sockaddr(listener: *const Listener) linux.sockaddr.un {
        return .{ .path = listener.path };
    }
};

fn openSocket(failure: *sys.Failure) ListenError!sys.fd_t {
    const kind = linux.SOCK.STREAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
    return switch (sys.result(linux.socket(linux.AF.UNIX, kind, 0))) {
        .value => |fd| @intCast(fd),
        .failure => |code| fail(failure, "socket", code),
    };
}

/// Only the last part: /var/run exists. If we made it, its mode is 0755 whatever the umask.
fn makeFolder(folder: []const u8, failure: *sys.Failure) ListenError!void {
    var path: [109]u8 = @splat(0);
    if (folder.len >= path.len) return error.NameTooLong;
    @memcpy(path[0..folder.len], folder);
    const path_z: [*:0]const u8 = @ptrCast(&path);
    switch (linux.errno(linux.mkdir(path_z, 0o755))) {
        .SUCCESS => _ = linux.chmod(path_z, 0o755),
        .EXIST => {},
        else => |code| return fail(failure, "mkdir", code),
    }
}

fn removeStale(listener: *const Listener, failure: *sys.Failure) ListenError!void {
    const fd = try openSocket(failure);
    defer sys.close(fd);
    const address = listener.sockaddr();
    switch (linux.errno(linux.connect(fd, &address, @sizeOf(linux.sockaddr.un)))) {
        .NOENT => {},
        .CONNREFUSED => {
            const errno = linux.errno(linux.unlink(listener.pathZ()));
            if (errno != .SUCCESS and errno != .NOENT) return fail(failure, "unlink", errno);
        },
        // EAGAIN: there is a listener, with a full queue.
        .SUCCESS, .AGAIN => return error.InUse,
        else => |code| return fail(failure, "connect", code),
    }
}

fn inodeOf(path: [*:0]const u8) ?u64 {
    var status: linux.Statx = undefined;
    const rc = linux.statx(linux.AT.FDCWD, path, linux.AT.SYMLINK_NOFOLLOW, .{ .INO = true }, &status);
    return if (linux.errno(rc) == .SUCCESS) status.ino else null;
}

// ---- tests -------------------------------------------------------------------------------------------

const testing = std.testing;
const poller = @import("poller.zig");

/// A folder of its own for sockets.
const Folder = struct {
    buffer: [64]u8 = @splat(0),
    length: usize = 0,

    var number: u32 = 0;

    fn init() Folder {
        var folder: Folder = .{};
        number += 1;
        const names = .{ linux.getpid(), number };
        const text = std.mem.print(folder.buffer[0..63], "/tmp/pywg-test-{d}-{d}", names) catch unreachable;
        folder.length = text.len;
        return folder;
    }

    fn path(folder: *const Folder) []const u8 {
        return folder.buffer[0..folder.length];
    }

    fn deinit(folder: *Folder) void {
        const rc = linux.rmdir(@ptrCast(&folder.buffer));
        assert(linux.errno(rc) == .SUCCESS); // nothing is left behind
    }
};

fn connectTo(listener: *const Listener) !sys.fd_t {
    var failure: sys.Failure = .{};
    const fd = try openSocket(&failure);
    const address = listener.sockaddr();
    try testing.expectEqual(.SUCCESS, linux.errno(linux.connect(fd, &address, @sizeOf(linux.sockaddr.un))));
    return fd;
}

fn modeOf(path: [*:0]const u8) !u16 {
    var status: linux.Statx = undefined;
    const rc = linux.statx(linux.AT.FDCWD, path, 0, .{ .MODE = true }, &status);
    try testing.expectEqual(.SUCCESS, linux.errno(rc));
    return status.mode & 0o7777;
}

test "folder and socket have the modes that wg expects, and nothing is left after close" {
    var folder: Folder = .init();
    defer folder.deinit();
    const old_umask = linux.syscall1(.umask, 0);
    defer _ = linux.syscall1(.umask, old_umask);
    var failure: sys.Failure = .{};
    var listener: Listener = try .listen(folder.path(), "wg0", &failure);
    try testing.expectEqual(0o755, try modeOf(@ptrCast(&folder.buffer)));
    try testing.expectEqual(0o600, try modeOf(listener.pathZ()));
    try testing.expect(std.mem.endsWith(u8, listener.pathSlice(), "/wg0.sock"));
    try testing.expect(!listener.wasRemoved());
    try testing.expectEqual(null, listener.accept());
    listener.close();
}

test "a socket that is answered is in use, one that is not is replaced" {
    var folder: Folder = .init();
    defer folder.deinit();
    var failure: sys.Failure = .{};
    var listener: Listener = try .listen(folder.path(), "wg0", &failure);
    try testing.expectError(error.InUse, Listener.listen(folder.path(), "wg0", &failure));
    // As if killed: the file stays, nobody answers. A living listener's inode cannot be used again.
    listener.owns_path = false;
    listener.close();
    var second: Listener = try .listen(folder.path(), "wg0", &failure);
    // One whose file was removed must not take its successor's away when it ends.
    _ = linux.unlink(second.pathZ());
    var third: Listener = try .listen(folder.path(), "wg0", &failure);
    try testing.expect(second.wasRemoved());
    second.close();
    try testing.expect(!third.wasRemoved());
    third.close();
    const long: [100]u8 = @splat('n');
    try testing.expectError(error.NameTooLong, Listener.listen(folder.path(), &long, &failure));
}

test "removal of the socket file wakes the watch" {
    var folder: Folder = .init();
    defer folder.deinit();
    var failure: sys.Failure = .{};
    var listener: Listener = try .listen(folder.path(), "wg0", &failure);
    defer listener.close();
    const watch_fd = listener.watch_fd orelse return error.SkipZigTest;
    var waiting: poller.Poller = try .init();
    defer waiting.deinit();
    try waiting.add(watch_fd, 1, poller.in);
    var events: [1]poller.Event = undefined;
    try testing.expectEqual(0, waiting.wait(&events, 0).len);
    _ = linux.chmod(listener.pathZ(), 0o660); // wakes, too, but is no removal
    try testing.expectEqual(1, waiting.wait(&events, 1000).len);
    try testing.expect(!listener.wasRemoved());
    try testing.expectEqual(0, waiting.wait(&events, 0).len);
    _ = linux.unlink(listener.pathZ());
    try testing.expectEqual(1, waiting.wait(&events, 1000).len);
    try testing.expect(listener.wasRemoved());
}

test "a listening descriptor is taken over, any other is refused" {
    var folder: Folder = .init();
    defer folder.deinit();
    var failure: sys.Failure = .{};
    var first: Listener = try .listen(folder.path(), "wg0", &failure);
    var second: Listener = try .fromFd(first.fd, &failure);
    try testing.expect(second.fd != first.fd);
    try testing.expectEqualStrings(first.pathSlice(), second.pathSlice());
    const client = try connectTo(&second);
    defer sys.close(client);
    sys.close(second.accept().?);
    second.close();
    try testing.expect(first.wasRemoved());
    first.close();
    var ends: [2]sys.fd_t = undefined;
    const kind = linux.SOCK.STREAM | linux.SOCK.CLOEXEC;
    try testing.expectEqual(.SUCCESS, linux.errno(linux.socketpair(linux.AF.UNIX, kind, 0, &ends)));
    defer for (ends) |fd| sys.close(fd);
    try testing.expectError(error.NotListening, Listener.fromFd(ends[0], &failure));
    try testing.expectError(error.NotListening, Listener.fromFd(-1, &failure));
}

test "a client that comes when descriptors have run out is turned away" {
    var folder: Folder = .init();
    defer folder.deinit();
    var failure: sys.Failure = .{};
    var listener: Listener = try .listen(folder.path(), "wg0", &failure);
    defer listener.close();
    const clients = [2]sys.fd_t{ try connectTo(&listener), try connectTo(&listener) };
    defer for (clients) |fd| sys.close(fd);
    var old: linux.rlimit = undefined;
    try testing.expectEqual(.SUCCESS, linux.errno(linux.getrlimit(.NOFILE, &old)));
    var fillers: std.ArrayList(sys.fd_t) = .empty;
    defer fillers.deinit(testing.allocator);
    defer for (fillers.items) |fd| sys.close(fd);
    // Numbers up to the spare's may be used, and all of them are.
    _ = linux.setrlimit(.NOFILE, &.{ .cur = @intCast(listener.spare_fd.? + 1), .max = old.max });
    defer _ = linux.setrlimit(.NOFILE, &old);
    while (true) {
        const rc = linux.dup(listener.fd);
        if (linux.errno(rc) != .SUCCESS) break;
        try fillers.append(testing.allocator, @intCast(rc));
    }
    try testing.expectEqual(null, listener.accept());
    try testing.expect(listener.spare_fd != null);
    var byte: [1]u8 = undefined;
    for (clients) |fd| try testing.expectEqual(0, linux.read(fd, &byte, 1)); // closed, not kept waiting
}
