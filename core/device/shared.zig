//! Shared: what all workers of a device use.
//! Invariant: `interface` is touched in a turn with `mutex` held, or while the turns of all workers are held
//! (`Workers.pause`). Everything else may be used by any thread at any time.
const std = @import("std");
const Allocator = std.mem.Allocator;
const curve_price = @import("curve_price.zig");
const Queue = @import("events.zig").Queue;
const io = @import("io");
const LimitedAllocator = @import("limited_allocator.zig").LimitedAllocator;
const Log = @import("log.zig").Log;
const Mutex = @import("mutex.zig").Mutex;
const NoticeLog = @import("notice_log.zig").NoticeLog;
const Options = @import("options.zig").Options;
const Pool = @import("cipher_pool.zig").Pool;
const protocol = @import("protocol");
const Reading = @import("suspension.zig").Reading;
const Suspension = @import("suspension.zig").Suspension;

pub fn now() protocol.Now {
    return .{ .boot = .{ .ns = io.clock.bootNs() }, .unix_ns = io.clock.unixNs() };
}

pub const Shared = struct {
    /// Lends what `limited` allows.
    gpa: Allocator,
    limited: LimitedAllocator,
    log: Log,
    /// Guarded by the mutex.
    notice_log: NoticeLog = .{},
    version: []const u8,
    /// When the device was opened, on the clock that runs through suspension.
    opened: protocol.Instant,
    stop_requested: std.atomic.Value(bool) = .init(false),
    /// Another process has everything now.
    handed_over: std.atomic.Value(bool) = .init(false),

    /// Guards `interface`, for as long as looking something up takes.
    mutex: Mutex = .{},
    interface: protocol.Interface,
    /// Nonces that workers have reserved, of all sessions: how much has gone by while one of them was held up.
    reserved: std.atomic.Value(usize) = .init(0),
    /// Guarded by the mutex.
    suspension: Suspension,

    /// The interface is in the namespace of our sockets. Written with the turns of all workers held.
    is_here: bool = true,
    icmp: io.icmp_sender.IcmpSender = .{},
    /// In that namespace. Written with the turns of all workers held.
    tunnels: io.tunnels.Tunnels = .{},

    /// Why there are no sockets although the link is up; told once. Written with the turns of all workers held.
    refused: ?Refused = null,
    /// For whoever has asked for events. Written with the turns of all workers held, once.
    events: std.atomic.Value(?*Queue) = .init(null),

    inherited: ?*io.fork.Inherited,

    pool: Pool = .{},
    /// Features whose stepping down was told, by bit.
    told: u32 = 0,

    /// It must stay where it is: `gpa` points into it.
    pub fn init(shared: *Shared, gpa: Allocator, options: *const Options) error{OutOfMemory}!void {
        shared.* = .{
            .gpa = shared.limited.allocator(),
            .limited = .{ .child = gpa, .limit = limitOf(options) },
            .log = .{ .fd = options.log_fd, .level = options.log_level },
            .version = options.version,
            .opened = .{ .ns = io.clock.bootNs() },
            .interface = undefined,
            .inherited = options.inherited,
            .suspension = .init(readClocks()),
        };
        shared.interface = protocol.Interface.init(.{
            .allocator = shared.gpa,
            .entropy = .{ .context = null, .fillFn = fillFromKernel },
            .curve_ns = curve_price.measure(),
        }) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.EntropyUnavailable => unreachable, // io.entropy aborts rather than fail
        };
    }

    fn limitOf(options: *const Options) usize {
        if (options.memory_limit == 0) return LimitedAllocator.unlimited;
        return std.math.cast(usize, options.memory_limit) orelse LimitedAllocator.unlimited;
    }

    fn fillFromKernel(_: ?*anyopaque, out: []u8) bool {
        io.entropy.fill(out);
        return true;
    }

    /// Such a descriptor was opened.
    pub fn noteOpened(shared: *Shared, fd: i32) void {
        if (shared.inherited) |inherited| inherited.add(fd);
    }

    /// It is about to be closed.
    pub fn noteClosing(shared: *Shared, fd: i32) void {
        if (shared.inherited) |inherited| inherited.remove(fd);
    }

    pub const Refused = struct { port: u16, errno: io.linux.E };

    /// After all that was allocated with `gpa` was given back.
    pub fn deinit(shared: *Shared) void {
        shared.interface.events = null;
        if (shared.events.load(.monotonic)) |queue| queue.close(shared.gpa);
        shared.icmp.close();
        shared.interface.deinit();
        std.debug.assert(shared.limited.used.load(.monotonic) == 0);
    }

    /// Makes all workers return. Async-signal-safe.
    pub fn stop(shared: *Shared) void {
        shared.stop_requested.store(true, .release);
        shared.pool.wakeAll();
    }

    /// What has slept may have been written to a disk, and be woken from there again. For any worker, in its turn.
    pub fn followSuspension(shared: *Shared, time: protocol.Now) void {
        shared.mutex.acquire();
        defer shared.mutex.release();
        if (!shared.suspension.look(readClocks())) return;
        shared.log.verbose("the host has slept: all sessions are renewed", .{});
        shared.interface.renewSessions(time);
    }

    fn readClocks() Reading {
        const before_ns = io.clock.monotonicNs();
        const boot_ns = io.clock.bootNs();
        return .{ .before_ns = before_ns, .boot_ns = boot_ns, .after_ns = io.clock.monotonicNs() };
    }

    pub fn isHandedOver(shared: *const Shared) bool {
        return shared.handed_over.load(.acquire);
    }

    pub fn isStopping(shared: *const Shared) bool {
        return shared.stop_requested.load(.acquire);
    }

    /// Another process has everything: nothing is sealed here any more, and whatever both have is left to it.
    pub fn handOver(shared: *Shared) void {
        shared.handed_over.store(true, .release);
        shared.stop();
    }

    /// Interface or UAPI socket are gone: nobody could use the device any more.
    pub fn end(shared: *Shared, reason: []const u8) void {
        shared.log.verbose("{s}: ending", .{reason});
        shared.interface.note(.removed);
        shared.stop();
    }

    /// After something may have been noted.
    pub fn tellEvents(shared: *Shared) void {
        if (shared.events.load(.acquire)) |queue| queue.tell();
    }

    /// Notices that are new go to the log. For any worker, in its turn.
    pub fn tellNotices(shared: *Shared, time: protocol.Now) void {
        const noted = &shared.interface.notices;
        if (!shared.notice_log.wants(noted, time.boot)) return; // nearly always
        shared.mutex.acquire();
        defer shared.mutex.release();
        shared.notice_log.tell(&shared.log, noted, time.boot);
    }

    /// Of what a worker finds out by itself, in its turn.
    pub fn note(shared: *Shared, event: protocol.events.Event) void {
        shared.mutex.acquire();
        defer shared.mutex.release();
        shared.interface.note(event);
    }

    /// Of several workers that lose a feature only the first tells.
    pub fn isNews(shared: *Shared, feature: io.offload.Feature) bool {
        shared.mutex.acquire();
        defer shared.mutex.release();
        defer shared.told |= feature.bit();
        return shared.told & feature.bit() == 0;
    }
};
