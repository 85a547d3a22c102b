//! epoll and the eventfd that wakes it. Tokens are the caller's; nothing is known about descriptors.
//! Invariant: level-triggered, so an event that was not handled comes again.
const std = @import("std");
const assert = @import("wire").assert;
const linux = std.os.linux;
const sys = @import("linux.zig");

pub const Event = linux.epoll_event;
pub const in: u32 = linux.EPOLL.IN;
pub const out: u32 = linux.EPOLL.OUT;
pub const hangup: u32 = linux.EPOLL.HUP;
pub const failed: u32 = linux.EPOLL.ERR;

/// Out of descriptors, memory or user watches.
pub const Error = error{SystemResources};

pub const Poller = struct {
    fd: sys.fd_t,

    pub fn init() Error!Poller {
        return switch (sys.result(linux.epoll_create1(linux.EPOLL.CLOEXEC))) {
            .value => |fd| .{ .fd = @intCast(fd) },
            .failure => error.SystemResources,
        };
    }

    pub fn deinit(poller: *Poller) void {
        sys.close(poller.fd);
        poller.* = undefined;
    }

    pub fn add(poller: Poller, fd: sys.fd_t, token: u64, events: u32) Error!void {
        return poller.control(linux.EPOLL.CTL_ADD, fd, token, events);
    }

    pub fn modify(poller: Poller, fd: sys.fd_t, token: u64, events: u32) Error!void {
        return poller.control(linux.EPOLL.CTL_MOD, fd, token, events);
    }

    /// Closing the last descriptor of a file does the same; removing what is not there is harmless.
    pub fn remove(poller: Poller, fd: sys.fd_t) void {
        _ = linux.epoll_ctl(poller.fd, linux.EPOLL.CTL_DEL, fd, null);
    }

    fn control(poller: Poller, operation: u32, fd: sys.fd_t, token: u64, events: u32) Error!void {
        var event: Event = .{ .events = events, .data = .{ .u64 = token } };
        const rc = linux.epoll_ctl(poller.fd, operation, fd, &event);
        if (linux.errno(rc) != .SUCCESS) return error.SystemResources;
    }

    /// The events that are ready, in `buffer`; none after `timeout_ms` (-1 waits for ever) or on a signal.
    pub fn wait(poller: Poller, buffer: []Event, timeout_ms: i32) []Event {
        const rc = linux.epoll_wait(poller.fd, buffer.ptr, @intCast(buffer.len), timeout_ms);
        return switch (sys.result(rc)) {
            .value => |count| buffer[0..count],
            .failure => |code| {
                assert(code == .INTR); // anything else is a descriptor we broke ourselves
                return buffer[0..0];
            },
        };
    }
};

/// Another thread, or a signal handler, makes `wait` return.
pub const Wakeup = struct {
    fd: sys.fd_t,

    pub fn init() Error!Wakeup {
        return switch (sys.result(linux.eventfd(0, linux.EFD.CLOEXEC | linux.EFD.NONBLOCK))) {
            .value => |fd| .{ .fd = @intCast(fd) },
            .failure => error.SystemResources,
        };
    }

    pub fn deinit(wakeup: *Wakeup) void {
        sys.close(wakeup.fd);
        wakeup.* = undefined;
    }

    /// Async-signal-safe: one system call, no state. A full counter (EAGAIN) is as loud as it gets.
    pub fn signal(wakeup: Wakeup) void {
        const one: u64 = 1;
        _ = linux.write(wakeup.fd, std.mem.asBytes(&one), @sizeOf(u64));
    }

    /// True when somebody had signalled.
    pub fn drain(wakeup: Wakeup) bool {
        var count: u64 = 0;
        const rc = linux.read(wakeup.fd, std.mem.asBytes(&count), @sizeOf(u64));
        return linux.errno(rc) == .SUCCESS and count != 0;
    }
};

test "a signal wakes the poller with its token and is drained once" {
    var poller: Poller = try .init();
    defer poller.deinit();
    var wakeup: Wakeup = try .init();
    defer wakeup.deinit();
    try poller.add(wakeup.fd, 0xdead_beef_0000_0001, in);
    var events: [4]Event = undefined;
    try std.testing.expectEqual(0, poller.wait(&events, 0).len);
    wakeup.signal();
    wakeup.signal();
    const ready = poller.wait(&events, 1000);
    try std.testing.expectEqual(1, ready.len);
    try std.testing.expectEqual(0xdead_beef_0000_0001, ready[0].data.u64);
    try std.testing.expect(wakeup.drain());
    try std.testing.expect(!wakeup.drain());
    try poller.modify(wakeup.fd, 2, out);
    try std.testing.expectEqual(2, poller.wait(&events, 0)[0].data.u64);
    poller.remove(wakeup.fd);
    poller.remove(wakeup.fd);
    try std.testing.expectEqual(0, poller.wait(&events, 0).len);
}

test "a descriptor that cannot be polled is an error, not a crash" {
    var poller: Poller = try .init();
    defer poller.deinit();
    try std.testing.expectError(error.SystemResources, poller.add(-1, 0, in));
}
