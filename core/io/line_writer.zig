//! Lines to a descriptor that a user gave us, for which nobody is to wait: a pipe that nobody empties, a terminal that
//! is stopped, a socket whose other end is gone. Knows bytes; not what they say.
//! Invariant: never blocks, and raises no SIGPIPE, which would end a program that only loaded us.
const std = @import("std");
const sys = @import("linux.zig");
const assert = @import("wire").assert;
const linux = std.os.linux;

/// Whether the line went out; it may be cut if a socket had no room for the rest. At most PIPE_BUF bytes.
pub fn write(fd: sys.fd_t, line: []const u8) bool {
    assert(line.len <= 4096);
    const flags = linux.MSG.DONTWAIT | linux.MSG.NOSIGNAL;
    return switch (linux.errno(linux.sendto(fd, line.ptr, line.len, flags, null, 0))) {
        .SUCCESS => true,
        .NOTSOCK => writeElsewhere(fd, line),
        else => false,
    };
}

fn writeElsewhere(fd: sys.fd_t, line: []const u8) bool {
    const guard: PipeGuard = .begin();
    defer guard.end();
    const vector: [1]sys.iovec_const = .{.{ .base = line.ptr, .len = line.len }};
    switch (linux.errno(linux.pwritev2(fd, &vector, vector.len, -1, linux.RWF.NOWAIT))) {
        .SUCCESS => return true,
        // Pipes take the flag since Linux 6.5, some files and terminals never; files may be said to wait for a disk.
        .OPNOTSUPP, .INVAL, .NOSYS, .PERM, .AGAIN => {},
        else => return false,
    }
    // Before 6.5 somebody else may fill the pipe between this look and the write.
    return isWritable(fd) and linux.errno(linux.write(fd, line.ptr, line.len)) == .SUCCESS;
}

fn isWritable(fd: sys.fd_t) bool {
    var polled: [1]linux.pollfd = .{.{ .fd = fd, .events = linux.POLL.OUT, .revents = 0 }};
    if (linux.errno(linux.poll(&polled, 1, 0)) != .SUCCESS) return false;
    return polled[0].revents & linux.POLL.OUT != 0 and polled[0].revents & linux.POLL.ERR == 0;
}

/// Holds back the SIGPIPE of a write by this thread, and takes it away: its other settings are the program's.
const PipeGuard = struct {
    before: linux.sigset_t,
    was_pending: bool,

    fn begin() PipeGuard {
        var guard: PipeGuard = .{ .before = undefined, .was_pending = isPending() };
        _ = linux.sigprocmask(linux.SIG.BLOCK, &pipeAlone(), &guard.before);
        return guard;
    }

    fn end(guard: *const PipeGuard) void {
        if (!guard.was_pending and isPending()) takePending();
        _ = linux.sigprocmask(linux.SIG.SETMASK, &guard.before, null);
    }

    fn pipeAlone() linux.sigset_t {
        var set = linux.sigemptyset();
        linux.sigaddset(&set, .PIPE);
        return set;
    }

    /// Where it cannot be asked: yes, so that none is taken away.
    fn isPending() bool {
        var set = linux.sigemptyset();
        const rc = linux.syscall2(.rt_sigpending, @intFromPtr(&set), @sizeOf(linux.sigset_t));
        return linux.errno(rc) != .SUCCESS or linux.sigismember(&set, .PIPE);
    }

    fn takePending() void {
        const call = if (@hasField(linux.SYS, "rt_sigtimedwait")) .rt_sigtimedwait else .rt_sigtimedwait_time64;
        const at_once: [2]u64 = .{ 0, 0 }; // no time, in either form of struct timespec
        const set = pipeAlone();
        _ = linux.syscall4(call, @intFromPtr(&set), 0, @intFromPtr(&at_once), @sizeOf(linux.sigset_t));
    }
};

const testing = std.testing;

fn openPipe() ![2]sys.fd_t {
    var ends: [2]sys.fd_t = undefined;
    if (linux.errno(linux.pipe2(&ends, .{ .CLOEXEC = true })) != .SUCCESS) return error.SkipZigTest;
    return ends;
}

fn openSockets(kind: u32) ![2]sys.fd_t {
    var ends: [2]sys.fd_t = undefined;
    const rc = linux.socketpair(linux.AF.UNIX, kind | linux.SOCK.CLOEXEC, 0, &ends);
    if (linux.errno(rc) != .SUCCESS) return error.SkipZigTest;
    return ends;
}

test "a pipe or socket that nobody empties takes lines until it is full, and again when it is emptied" {
    for ([_][2]sys.fd_t{
        try openPipe(),
        try openSockets(linux.SOCK.STREAM),
        try openSockets(linux.SOCK.DGRAM),
    }) |ends| {
        defer for (ends) |fd| sys.close(fd);
        const line: [500]u8 = @splat('a');
        var count: usize = 0;
        while (write(ends[1], &line)) count += 1;
        try testing.expect(count > 5);
        try testing.expect(!write(ends[1], &line));
        var buffer: [1 << 17]u8 = undefined;
        for (0..count) |_| _ = linux.read(ends[0], &buffer, line.len);
        try testing.expect(write(ends[1], &line));
    }
}

test "a reader that is gone ends nothing, whatever the program does with SIGPIPE" {
    for ([_][2]sys.fd_t{ try openPipe(), try openSockets(linux.SOCK.STREAM) }) |ends| {
        sys.close(ends[0]);
        defer sys.close(ends[1]);
        const child: linux.pid_t = switch (sys.result(linux.fork())) {
            .value => |pid| @intCast(pid),
            .failure => return error.SkipZigTest,
        };
        if (child == 0) {
            const default: linux.Sigaction = .{
                .handler = .{ .handler = linux.SIG.DFL },
                .mask = linux.sigemptyset(),
                .flags = 0,
            };
            _ = linux.sigaction(.PIPE, &default, null);
            if (write(ends[1], "one\n") or write(ends[1], "two\n")) linux.exit_group(1);
            // A pipe that is closed between the look and the write.
            const guard: PipeGuard = .begin();
            _ = linux.write(ends[1], "three\n", 6);
            guard.end();
            if (PipeGuard.isPending()) linux.exit_group(2);
            linux.exit_group(0);
        }
        var status: i32 = 0;
        try testing.expectEqual(@as(usize, @intCast(child)), linux.waitpid(child, &status, 0));
        try testing.expectEqual(0, status);
    }
}

test "files and devices take every line, and what is not open takes none" {
    const null_fd: sys.fd_t = @intCast(linux.open("/dev/null", .{ .ACCMODE = .RDWR, .CLOEXEC = true }, 0));
    defer sys.close(null_fd);
    try testing.expect(write(null_fd, "line\n"));
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    const file = try folder.dir.createFile(testing.io, "log", .{ .read = true });
    defer file.close(testing.io);
    for (0..3) |_| try testing.expect(write(file.handle, "line\n"));
    var buffer: [32]u8 = undefined;
    try testing.expectEqual(15, linux.pread(file.handle, &buffer, buffer.len, 0));
    try testing.expectEqualStrings("line\nline\nline\n", buffer[0..15]);
    try testing.expect(!write(-1, "line\n"));
}
