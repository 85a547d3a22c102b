//! pywgd: the daemon for hosts without Python, with wireguard-go's contract: `pywgd [-f] NAME`.
//! Returns 0 only when the TUN exists and the UAPI socket listens; then goes on in the background.
const std = @import("std");
const linux = std.os.linux;
const cipher = @import("cipher");
const device = @import("device");
const io = @import("io");
const options = @import("build_options");
const runtime = @import("runtime");
const capabilities = @import("capabilities.zig");
const landlock = @import("landlock.zig");
const seccomp = @import("seccomp.zig");

const usage =
    \\usage: pywgd [-f | --foreground] [--threads N] [--priority KIND] [--memory-limit MIB]
    \\             [--no-offload LIST] [--take-over] NAME
    \\
    \\Makes the WireGuard interface NAME and serves it; configure it with wg or pywg.
    \\  -f, --foreground    stay in the foreground, log to stderr
    \\  --threads N         use up to N cores (default: half of those there are, 1 to 4)
    \\  --priority KIND     realtime: before ordinary programs; normal: as one of them; auto (the default): realtime
    \\                      where it is allowed and the threads leave a core to the others
    \\  --memory-limit MIB  what buffers and peers may take together (default: no limit)
    \\  --no-offload LIST   do without these: tun_tso,tun_uso,tun_tunnel,udp_gso,udp_gro or all
    \\  --take-over         take interface, sockets, peers and live sessions over from the process that serves NAME,
    \\                      which then ends; if it cannot be, that one goes on
    \\  --no-sandbox        keep every capability and system call (for debugging)
    \\  --version           print the version
    \\Environment: WG_PROCESS_FOREGROUND=1, WG_TUN_FD, WG_UAPI_FD, PYWG_THREADS=N, PYWG_PRIORITY=KIND,
    \\  PYWG_MEMORY_LIMIT=MIB, PYWG_NO_OFFLOAD=LIST, PYWG_NO_SANDBOX=1, PYWG_CPU=baseline|v3|v4|v4ifma,
    \\  LOG_LEVEL=verbose|debug|error|silent
    \\
;

const Arguments = struct {
    name: []const u8 = "",
    is_foreground: bool = false,
    offload_disable: u32 = 0,
    threads: ?u8 = null,
    priority: Priority = .auto,
    memory_limit: u64 = 0,
    is_confined: bool = true,
    takes_over: bool = false,
    tun_fd: ?i32 = null,
    uapi_fd: ?i32 = null,
    log_level: device.LogLevel = .err,
    /// LOG_LEVEL was given: then the log outlives the terminal's foreground.
    keeps_log: bool = false,
};

const Priority = enum { auto, realtime, normal };

pub fn main(init: std.process.Init.Minimal) u8 {
    harden();
    fillStandardDescriptors();
    var arguments: Arguments = .{};
    readEnvironment(&arguments, init.environ) catch return 2;
    if (readArguments(&arguments, init.args)) |exit_code| return exit_code;
    return serve(&arguments);
}

/// No core dump and no debugger of the same user may see the keys.
fn harden() void {
    _ = linux.prctl(@backingInt(linux.PR.SET_DUMPABLE), 0, 0, 0, 0);
    const none: linux.rlimit = .{ .cur = 0, .max = 0 };
    _ = linux.setrlimit(.CORE, &none);
}

/// Started with 0, 1 or 2 closed, the TUN would get that number, and the log or /dev/null would take its place.
fn fillStandardDescriptors() void {
    while (true) {
        const rc = linux.open("/dev/null", .{ .ACCMODE = .RDWR }, 0);
        if (linux.errno(rc) != .SUCCESS) return;
        if (rc <= 2) continue;
        _ = linux.close(@intCast(rc));
        return;
    }
}

fn complain(comptime format: []const u8, values: anytype) void {
    var buffer: [512]u8 = undefined;
    const text = std.mem.print(&buffer, "pywgd: " ++ format ++ "\n", values) catch buffer[0..];
    _ = linux.write(2, text.ptr, text.len);
}

fn readEnvironment(arguments: *Arguments, environment: std.process.Environ) error{Invalid}!void {
    if (environment.getPosix("WG_PROCESS_FOREGROUND")) |value| arguments.is_foreground = std.mem.eql(u8, value, "1");
    if (environment.getPosix("WG_TUN_FD")) |value| arguments.tun_fd = try descriptor("WG_TUN_FD", value);
    if (environment.getPosix("WG_UAPI_FD")) |value| arguments.uapi_fd = try descriptor("WG_UAPI_FD", value);
    if (environment.getPosix("PYWG_NO_OFFLOAD")) |value| arguments.offload_disable = try offloads(value);
    if (environment.getPosix("PYWG_THREADS")) |value| arguments.threads = try threadCount(value);
    if (environment.getPosix("PYWG_PRIORITY")) |value| arguments.priority = try priority(value);
    if (environment.getPosix("PYWG_NO_SANDBOX")) |value| arguments.is_confined = !std.mem.eql(u8, value, "1");
    if (environment.getPosix("PYWG_MEMORY_LIMIT")) |value| arguments.memory_limit = try mebibytes(value);
    cipher.select(environment.getPosix("PYWG_CPU"));
    if (environment.getPosix("LOG_LEVEL")) |value| {
        arguments.keeps_log = true;
        if (std.mem.eql(u8, value, "verbose") or std.mem.eql(u8, value, "debug")) {
            arguments.log_level = .verbose;
        } else if (std.mem.eql(u8, value, "silent")) {
            arguments.log_level = .silent;
        }
    }
}

fn descriptor(variable: []const u8, text: []const u8) error{Invalid}!i32 {
    const fd = std.fmt.parseInt(u31, text, 10) catch {
        complain("{s} must be the number of an open file descriptor", .{variable});
        return error.Invalid;
    };
    return fd;
}

/// A word of a user in a message. No value of ours is as long; what is may be a key in the wrong place.
fn shown(text: []const u8) []const u8 {
    return if (text.len <= 40) text else "(a long word)";
}

fn offloads(text: []const u8) error{Invalid}!u32 {
    return io.offload.parseList(text) catch {
        const names = "tun_tso, tun_uso, tun_tunnel, udp_gso, udp_gro, all";
        complain("unknown offload in '{s}': the names are " ++ names, .{shown(text)});
        return error.Invalid;
    };
}

fn threadCount(text: []const u8) error{Invalid}!u8 {
    const count = std.fmt.parseInt(u8, text, 10) catch 0;
    if (count >= 1 and count <= device.threads_max) return count;
    complain("'{s}' is no number of threads: 1 to {d}", .{ shown(text), device.threads_max });
    return error.Invalid;
}

fn priority(text: []const u8) error{Invalid}!Priority {
    return std.meta.stringToEnum(Priority, text) orelse {
        complain("'{s}' is no priority: auto, realtime or normal", .{shown(text)});
        return error.Invalid;
    };
}

/// In bytes.
fn mebibytes(text: []const u8) error{Invalid}!u64 {
    const count = std.fmt.parseInt(u20, text, 10) catch 0;
    if (count >= 1) return @as(u64, count) << 20;
    complain("'{s}' is no memory limit: a number of MiB", .{shown(text)});
    return error.Invalid;
}

/// An exit code when there is nothing to run.
fn readArguments(arguments: *Arguments, raw: std.process.Args) ?u8 {
    var iterator = raw.iterate();
    _ = iterator.next();
    var has_name = false;
    while (iterator.next()) |argument| {
        if (std.mem.eql(u8, argument, "-f") or std.mem.eql(u8, argument, "--foreground")) {
            arguments.is_foreground = true;
        } else if (std.mem.eql(u8, argument, "--version")) {
            say("pywgd " ++ options.version ++ "\n");
            return 0;
        } else if (std.mem.eql(u8, argument, "-h") or std.mem.eql(u8, argument, "--help")) {
            say(usage);
            return 0;
        } else if (std.mem.eql(u8, argument, "--threads")) {
            const text = iterator.next() orelse return misuse("--threads needs a number");
            arguments.threads = threadCount(text) catch return 2;
        } else if (std.mem.startsWith(u8, argument, "--threads=")) {
            arguments.threads = threadCount(argument["--threads=".len..]) catch return 2;
        } else if (std.mem.eql(u8, argument, "--priority")) {
            const text = iterator.next() orelse return misuse("--priority needs a word");
            arguments.priority = priority(text) catch return 2;
        } else if (std.mem.startsWith(u8, argument, "--priority=")) {
            arguments.priority = priority(argument["--priority=".len..]) catch return 2;
        } else if (std.mem.eql(u8, argument, "--memory-limit")) {
            const text = iterator.next() orelse return misuse("--memory-limit needs a number");
            arguments.memory_limit = mebibytes(text) catch return 2;
        } else if (std.mem.startsWith(u8, argument, "--memory-limit=")) {
            arguments.memory_limit = mebibytes(argument["--memory-limit=".len..]) catch return 2;
        } else if (std.mem.eql(u8, argument, "--take-over")) {
            arguments.takes_over = true;
        } else if (std.mem.eql(u8, argument, "--no-sandbox")) {
            arguments.is_confined = false;
        } else if (std.mem.eql(u8, argument, "--no-offload")) {
            const list = iterator.next() orelse return misuse("--no-offload needs a list");
            arguments.offload_disable |= offloads(list) catch return 2;
        } else if (std.mem.startsWith(u8, argument, "--no-offload=")) {
            arguments.offload_disable |= offloads(argument["--no-offload=".len..]) catch return 2;
        } else if (argument.len > 1 and argument[0] == '-') {
            return misuse("unknown option");
        } else {
            if (has_name) return misuse("one interface name, please");
            arguments.name = argument;
            has_name = true;
        }
    }
    return if (has_name) null else misuse("which interface?");
}

fn say(text: []const u8) void {
    _ = linux.write(1, text.ptr, text.len);
}

fn misuse(why: []const u8) u8 {
    complain("{s}", .{why});
    _ = linux.write(2, usage, usage.len);
    return 2;
}

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

fn serve(arguments: *const Arguments) u8 {
    blockSignals(.block);
    if (arguments.takes_over and arguments.is_confined) lockMemory(); // it gets keys while it opens
    var why: device.Diagnostic = .{};
    const opened = device.Device.open(std.heap.page_allocator, &.{
        .name = arguments.name,
        .offload_disable = arguments.offload_disable,
        .tun_fd = arguments.tun_fd,
        .uapi_fd = arguments.uapi_fd,
        .threads = arguments.threads orelse defaultThreads(),
        .memory_limit = arguments.memory_limit,
        .log_level = arguments.log_level,
        .log_fd = 2,
        .version = options.version,
        .takes_over = arguments.takes_over,
    }, &why) catch {
        complain("{s}", .{why.text()});
        return 1;
    };
    if (arguments.takes_over) hurry();
    // Said while somebody reads it.
    if (arguments.is_confined and !seccomp.isAvailable()) {
        complain("this kernel has no seccomp filters: going on without one", .{});
    }
    if (!arguments.is_foreground) {
        switch (detach(arguments.keeps_log)) {
            .parent => return 0,
            .child => if (arguments.takes_over) hurry(),
            .failed => {
                complain("cannot go to the background: fork failed", .{});
                if (!arguments.takes_over) {
                    opened.close();
                    return 1;
                } // nobody else has the tunnel any more: better in the foreground than not at all
            },
        }
    }
    defer opened.close();
    running = opened;
    catchSignals();
    blockSignals(.unblock);
    defer blockSignals(.block); // it is going to end anyway
    // Not twice, while packets wait; a child has to do it again.
    const is_locked = arguments.takes_over and arguments.is_foreground;
    if (arguments.is_confined and !is_locked) lockMemory();
    return runAll(opened, arguments.priority, arguments.is_confined);
}

/// Packets wait for the threads that will move them, which then choose their own priority.
fn hurry() void {
    _ = io.priority.makeRealtime();
}

/// Half of the cores this process may use: the kernel's share of the work and the programs behind it need the others.
fn defaultThreads() u8 {
    return @intCast(std.math.clamp(coreCount() / 2, 1, 4));
}

fn coreCount() usize {
    return std.Thread.getCpuCount() catch 1;
}

/// Threads that come before all ordinary ones must not be able to fill every core.
fn isRealtime(wanted: Priority, threads: usize) bool {
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
fn runAll(opened: *device.Device, wanted: Priority, is_confined: bool) u8 {
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
    if (is_realtime) {
        _ = io.priority.makeRealtime();
    } else if (io.priority.isRealtimeByUs()) _ = io.priority.makeOrdinary();
    if (kept) |capabilities_kept| confine(opened, capabilities_kept);
    var why: device.Diagnostic = .{};
    _ = opened.run(&why) catch {
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

pub const std_options = runtime.std_options;
pub const panic = runtime.panic;

test {
    _ = seccomp;
}
