//! Serving a tunnel: the device is opened, goes to the background unless told not to, and runs in its sandbox until
//! it is stopped.
//! Invariant: returns 0 to whoever waits only when the TUN exists and the UAPI socket listens.
const std = @import("std");
const linux = std.os.linux;
const device = @import("device");
const io = @import("io");
const options = @import("build_options");
const arguments_file = @import("arguments.zig");
const capabilities = @import("capabilities.zig");
const landlock = @import("landlock.zig");
const seccomp = @import("seccomp.zig");
const setting_up = @import("setting_up.zig");
const words = @import("words.zig");
const Arguments = arguments_file.Arguments;
const complain = words.complain;

/// Written only while the signals that read it are blocked.
var running: ?*device.Device = null;

fn onSignal(_: linux.SIG) callconv(.c) void {
    if (running) |active| active.stop();
}

/// From before there is a socket file until there is somebody to take it away, a signal has to wait.
fn blockSignals(how: enum { block, unblock }) void {
    var set = linux.sigemptyset();
    linux.sigaddset(&set, .TERM);
    linux.sigaddset(&set, .INT);
    _ = linux.sigprocmask(if (how == .block) linux.SIG.BLOCK else linux.SIG.UNBLOCK, &set, null);
}

fn catchSignals() void {
    const action: linux.Sigaction = .{ .handler = .{ .handler = onSignal }, .mask = linux.sigemptyset(), .flags = 0 };
    _ = linux.sigaction(.TERM, &action, null);
    _ = linux.sigaction(.INT, &action, null);
    const ignore: linux.Sigaction = .{
        .handler = .{ .handler = linux.SIG.IGN },
        .mask = linux.sigemptyset(),
        .flags = 0,
    };
    _ = linux.sigaction(.PIPE, &ignore, null);
    _ = linux.sigaction(.HUP, &ignore, null);
}

/// Returns when the tunnel has ended, or in the parent of the process that serves it.
pub fn serve(arguments: *const Arguments) u8 {
    var wanted = setting_up.Wanted.gather(arguments) catch return 1;
    defer wanted.forget();
    blockSignals(.block);
    var why: device.Diagnostic = .{};
    const opened = device.Device.open(std.heap.page_allocator, &.{
        .name = arguments.name,
        .mtu = wanted.mtu orelse device.mtu_default,
        .offload_disable = arguments.offload_disable,
        .tun_fd = arguments.tun_fd,
        .uapi_fd = arguments.uapi_fd,
        .threads = arguments.threads orelse defaultThreads(),
        .memory_limit = wanted.memory_limit,
        .log_level = arguments.log_level,
        .log_fd = 2,
        .version = options.version,
    }, &why) catch {
        complain("{s}", .{why.text()});
        return 1;
    };
    wanted.apply(opened) catch {
        opened.close(); // nothing is left half done
        return 1;
    };
    wanted.forget();
    // Said while somebody reads it.
    if (arguments.is_confined and !seccomp.isAvailable()) {
        complain("this kernel has no seccomp filters: going on without one", .{});
    }
    if (!arguments.is_foreground) {
        switch (detach(arguments.keeps_log)) {
            .parent => return 0,
            .child => {},
            .failed => {
                complain("cannot go to the background: fork failed", .{});
                opened.close();
                return 1;
            },
        }
    }
    defer opened.close();
    running = opened;
    catchSignals();
    blockSignals(.unblock);
    defer blockSignals(.block); // it is going to end anyway
    if (arguments.is_confined) lockMemory();
    return runAll(opened, arguments.priority, arguments.is_confined);
}

/// Half of the cores this process may use: the kernel's share of the work and the programs behind it need the others.
fn defaultThreads() u8 {
    return @intCast(std.math.clamp(coreCount() / 2, 1, 4));
}

fn coreCount() usize {
    return std.Thread.getCpuCount() catch 1;
}

/// Threads that come before all ordinary ones must not be able to fill every core.
fn isRealtime(wanted: arguments_file.Priority, threads: usize) bool {
    return switch (wanted) {
        .auto => threads < coreCount(),
        .realtime => true,
        .normal => false,
    };
}

/// Keys are not to be swapped out. Only with the capability: else a limit would make later allocations fail.
fn lockMemory() void {
    if (!capabilities.has(linux.CAP.IPC_LOCK)) return;
    _ = linux.mlockall(.{ .CURRENT = true, .FUTURE = true, .ONFAULT = true });
}

/// All is open: from here this thread can do what a running tunnel does, and nothing else.
fn confine(opened: *const device.Device, kept: u64) void {
    _ = capabilities.keepOnly(kept);
    if (!seccomp.forbidNewPrivileges()) return;
    var folder: [108]u8 = @splat(0);
    const path = std.fs.path.dirname(opened.socketPath().?);
    if (path) |known| @memcpy(folder[0..known.len], known);
    _ = landlock.forbidFiles(if (path) |known| folder[0..known.len :0] else null);
    _ = seccomp.install();
}

/// One thread for each worker of the device, this one for the first.
fn runAll(opened: *device.Device, wanted: arguments_file.Priority, is_confined: bool) u8 {
    const is_realtime = isRealtime(wanted, opened.threads());
    const returns_by_limit = !is_realtime or io.priority.allowRealtime();
    const kept = capabilities.needed | if (returns_by_limit) 0 else capabilities.nice;
    var threads: [device.threads_max]std.Thread = undefined;
    var count: usize = 0;
    defer for (threads[0..count]) |thread| thread.join();
    for (1..opened.threads()) |_| {
        const arguments = .{ opened, is_realtime, if (is_confined) kept else null };
        threads[count] = std.Thread.spawn(.{ .stack_size = 1 << 20 }, runWorker, arguments) catch break; // fewer, then
        count += 1;
    }
    return runWorker(opened, is_realtime, if (is_confined) kept else null);
}

/// `kept`: the capabilities that it keeps in the sandbox; null without one.
fn runWorker(opened: *device.Device, is_realtime: bool, kept: ?u64) u8 {
    if (is_realtime) _ = io.priority.makeRealtime();
    if (kept) |capabilities_kept| confine(opened, capabilities_kept);
    var why: device.Diagnostic = .{};
    opened.run(&why) catch {
        complain("{s}", .{why.text()});
        return 1;
    };
    return 0;
}

/// The child owns everything from here; the parent's copies of the descriptors go with its exit.
fn detach(keeps_log: bool) enum { parent, child, failed } {
    const rc = linux.fork();
    if (linux.errno(rc) != .SUCCESS) return .failed;
    if (rc != 0) return .parent;
    _ = linux.setsid();
    _ = linux.chdir("/");
    const null_fd = linux.open("/dev/null", .{ .ACCMODE = .RDWR }, 0);
    if (linux.errno(null_fd) == .SUCCESS) {
        const fd: i32 = @intCast(null_fd);
        _ = linux.dup2(fd, 0);
        _ = linux.dup2(fd, 1);
        if (!keeps_log) _ = linux.dup2(fd, 2);
        if (fd > 2) _ = linux.close(fd);
    }
    return .child;
}
