//! pywg_device_*: the whole thing behind an opaque handle. Checks everything a caller supplies and
//! returns a status; asserts nothing about it. Contracts are in include/pywg.h.
const std = @import("std");
const device = @import("device");
const handles = @import("handles.zig");
const Device = device.Device;
const io = @import("io");
const protocol = @import("protocol");
const records = @import("records.zig");
const status = @import("status.zig");
const text_file = @import("text.zig");
const Diagnostic = status.Diagnostic;

pub const Options = extern struct {
    size: usize,
    name: ?[*:0]const u8,
    mtu: u32,
    tun_fd: i32,
    uapi_fd: i32,
    offload_disable: u32,
    log_level: u32,
    log_fd: i32,
    no_uapi: u32,
    threads: u32,
    memory_limit: u64,
    udp4_fd: i32,
    udp6_fd: i32,
    take_over: u32,

    /// Of the first version. What has come since is 0 for a caller that does not know it.
    const size_min = @offsetOf(Options, "memory_limit") + @sizeOf(u64);

    fn read(passed: *const Options) ?Options {
        if (passed.size < size_min) return null;
        var options: Options = undefined;
        const length = @min(passed.size, @sizeOf(Options));
        const bytes = std.mem.asBytes(&options);
        @memset(bytes, 0);
        @memcpy(bytes[0..length], @as([*]const u8, @ptrCast(passed))[0..length]);
        return options;
    }
};

/// A forked child finds all of it wiped.
const gpa = io.fork.allocator;

/// What a caller holds. A child must not move packets with its parent's keys and counters. It finds the first page
/// wiped, and in those that follow what it is to close.
pub const Handle = struct {
    owner: io.fork.Owner align(std.heap.page_size_max),
    device: *Device,
    inherited: io.fork.Inherited align(std.heap.page_size_max),

    fn create() ?*Handle {
        const handle = std.heap.page_allocator.create(Handle) catch return null;
        handle.owner.claim();
        handle.inherited = .{};
        return handle;
    }

    fn destroy(handle: *Handle) void {
        std.heap.page_allocator.destroy(handle);
    }

    fn enter(handle: usize) status.Refused!*Device {
        const target: *Handle = @ptrCast(@alignCast(try handles.find(.device, handle)));
        if (!target.owner.isThisProcess()) return error.Forked;
        return target.device;
    }
};

pub fn open(options: ?*const Options, out: ?*usize, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const passed = options orelse return status.fail(diagnostic, .invalid_argument, "options is NULL");
    const target = out orelse return status.fail(diagnostic, .invalid_argument, "out is NULL");
    target.* = 0;
    const given = Options.read(passed) orelse
        return status.fail(diagnostic, .invalid_argument, "options.size is not sizeof(pywg_device_options)");
    if (given.log_level > @backingInt(device.LogLevel.verbose)) {
        return status.fail(diagnostic, .invalid_argument, "options.log_level is unknown");
    }
    if (given.offload_disable & ~io.offload.all != 0) {
        return status.fail(diagnostic, .invalid_argument, "options.offload_disable has an unknown bit");
    }
    if (given.no_uapi > 1) return status.fail(diagnostic, .invalid_argument, "options.no_uapi is neither 0 nor 1");
    if (given.take_over > 1) return status.fail(diagnostic, .invalid_argument, "options.take_over is neither 0 nor 1");
    const handle = Handle.create() orelse return status.fail(diagnostic, .out_of_memory, "out of memory");
    var why: device.Diagnostic = .{};
    handle.device = Device.open(gpa, &.{
        .name = if (given.name) |name_pointer| std.mem.span(name_pointer) else "",
        .mtu = if (given.mtu == 0) device.mtu_default else given.mtu,
        .tun_fd = if (given.tun_fd < 0) null else given.tun_fd,
        .uapi_fd = if (given.uapi_fd < 0) null else given.uapi_fd,
        .udp_fds = .{
            if (given.udp4_fd <= 0) null else given.udp4_fd,
            if (given.udp6_fd <= 0) null else given.udp6_fd,
        },
        .offload_disable = given.offload_disable,
        .threads = std.math.cast(u8, @max(given.threads, 1)) orelse std.math.maxInt(u8), // too many: refused below
        .memory_limit = given.memory_limit,
        .log_level = @fromBackingInt(given.log_level),
        .log_fd = given.log_fd,
        .version = @import("build_options").version,
        .has_uapi = given.no_uapi == 0,
        .takes_over = given.take_over == 1,
        .inherited = &handle.inherited,
    }, &why) catch |err| {
        handle.destroy();
        return status.report(diagnostic, status.fromOpen(err), &why);
    };
    target.* = handles.add(.device, handle) catch {
        handle.device.close();
        handle.destroy();
        return status.fail(diagnostic, .out_of_memory, "too many handles are open");
    };
    return status.Status.ok.value();
}

pub fn set(handle: usize, text: ?[*]const u8, length: usize, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const target = Handle.enter(handle) catch |refused| return status.refuse(diagnostic, refused);
    const bytes = text_file.slice(text, length) orelse
        return status.fail(diagnostic, .invalid_argument, "text is NULL");
    var why: device.Diagnostic = .{};
    target.set(bytes, &why) catch |err| return status.report(diagnostic, status.fromSet(err), &why);
    return status.Status.ok.value();
}

pub fn get(handle: usize, buffer: ?[*]u8, capacity: usize, length: ?*usize) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    return text_file.fill(target, Device.get, buffer, capacity, length);
}

pub fn report(handle: usize, buffer: ?[*]u8, capacity: usize, length: ?*usize) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    return text_file.fill(target, Device.report, buffer, capacity, length);
}

pub fn name(handle: usize, buffer: ?[*]u8, capacity: usize, length: ?*usize) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    return text_file.fill(target, Device.name, buffer, capacity, length);
}

pub fn eventsOpen(handle: usize, capacity: u32, fd: ?*i32, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const target = Handle.enter(handle) catch |refused| return status.refuse(diagnostic, refused);
    const out = fd orelse return status.fail(diagnostic, .invalid_argument, "fd is NULL");
    if (capacity > device.events_max) {
        return status.fail(diagnostic, .invalid_argument, "capacity is more than 65536");
    }
    out.* = target.openEvents(capacity) catch |err| return switch (err) {
        error.OutOfMemory => status.fail(diagnostic, .out_of_memory, "out of memory for a queue of events"),
        error.SystemResources => status.fail(diagnostic, .system, "no eventfd: raise 'ulimit -n'"),
    };
    return status.Status.ok.value();
}

pub fn events(handle: usize, out: ?*anyopaque, size: usize, count: usize, written: ?*usize) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    const invalid = status.Status.invalid_argument.value();
    const array = records.Array(records.Event).of(out, size, count) orelse return invalid;
    const done = written orelse return invalid;
    done.* = 0;
    var buffer: [16]device.Event = undefined;
    while (done.* < count) {
        const wanted = @min(buffer.len, count - done.*);
        const fetched = target.fetchEvents(buffer[0..wanted]);
        for (buffer[0..fetched], done.*..) |event, i| array.put(i, &records.Event.from(event));
        done.* += fetched;
        if (fetched < wanted) break;
    }
    return status.Status.ok.value();
}

pub fn counters(handle: usize, out: ?*anyopaque, size: usize, count: usize, written: ?*usize) callconv(.c) i32 {
    const Records = records.Array(records.PeerCounters);
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    const invalid = status.Status.invalid_argument.value();
    const array = Records.of(out, size, count) orelse return invalid;
    const done = written orelse return invalid;
    const put = struct {
        fn put(target_array: *const Records, i: usize, peer: *const protocol.PeerCounters) void {
            target_array.put(i, &records.PeerCounters.from(peer));
        }
    }.put;
    done.* = target.counters(count, &array, put);
    const result: status.Status = if (done.* <= count) .ok else .buffer_too_small;
    return result.value();
}

pub fn handshake(handle: usize, public_key: ?*const [32]u8, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const target = Handle.enter(handle) catch |refused| return status.refuse(diagnostic, refused);
    const key = public_key orelse return status.fail(diagnostic, .invalid_argument, "public_key is NULL");
    target.requestHandshake(key) catch |err| return status.fail(diagnostic, switch (err) {
        error.NoSuchPeer => .not_found,
        error.NoPrivateKey, error.NoEndpoint, error.LinkDown => .configuration,
    }, switch (err) {
        error.NoSuchPeer => "there is no peer with this public key",
        error.NoPrivateKey => "there is no private key yet: set one first",
        error.NoEndpoint => "it is not known where this peer is: set its Endpoint, or let it speak first",
        error.LinkDown => "the interface has no sockets: set its link up first, on a port that is free",
    });
    return status.Status.ok.value();
}

pub fn run(handle: usize, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const target = Handle.enter(handle) catch |refused| return status.refuse(diagnostic, refused);
    var why: device.Diagnostic = .{};
    const ended = target.run(&why) catch |err| return status.report(diagnostic, status.fromRun(err), &why);
    return status.fromEnd(ended).value();
}

pub fn stop(handle: usize) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    target.stop();
    return status.Status.ok.value();
}

pub fn close(handle: usize) callconv(.c) void {
    _ = Handle.enter(handle) catch |refused| {
        // Interface and socket are the parent's; what the child has inherited of them it gives back.
        if (refused == error.Forked) inheritedBy(handle).close();
        return;
    };
    const target: *Handle = @ptrCast(@alignCast(handles.retire(.device, handle) catch return));
    target.device.close();
    target.destroy();
}

fn inheritedBy(handle: usize) *io.fork.Inherited {
    const target: *Handle = @ptrCast(@alignCast(handles.find(.device, handle) catch unreachable)); // it was entered
    return &target.inherited;
}
