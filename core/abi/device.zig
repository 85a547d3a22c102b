//! pywg_device_*: the whole thing behind an opaque handle. Checks everything a caller supplies and
//! returns a status; asserts nothing about it. Contracts are in include/pywg.h.
const std = @import("std");
const device = @import("device");
const handles = @import("handles.zig");
const Device = device.Device;
const io = @import("io");
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
};

/// A forked child finds all of it wiped.
const gpa = io.fork.allocator;

/// What a caller holds. A child must not move packets with its parent's keys and counters.
pub const Handle = struct {
    owner: io.fork.Owner,
    device: *Device,

    fn enter(handle: usize) status.Refused!*Device {
        const target: *Handle = @ptrCast(@alignCast(try handles.find(.device, handle)));
        if (!target.owner.isThisProcess()) return error.Forked;
        return target.device;
    }
};

pub fn open(options: ?*const Options, out: ?*usize, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const given = options orelse return status.fail(diagnostic, .invalid_argument, "options is NULL");
    const target = out orelse return status.fail(diagnostic, .invalid_argument, "out is NULL");
    target.* = 0;
    if (given.size < @sizeOf(Options)) {
        return status.fail(diagnostic, .invalid_argument, "options.size is not sizeof(pywg_device_options)");
    }
    if (given.log_level > @backingInt(device.LogLevel.verbose)) {
        return status.fail(diagnostic, .invalid_argument, "options.log_level is unknown");
    }
    const handle = gpa.create(Handle) catch return status.fail(diagnostic, .out_of_memory, "out of memory");
    handle.owner.claim();
    var why: device.Diagnostic = .{};
    handle.device = Device.open(gpa, &.{
        .name = if (given.name) |name_pointer| std.mem.span(name_pointer) else "",
        .mtu = if (given.mtu == 0) device.mtu_default else given.mtu,
        .tun_fd = if (given.tun_fd < 0) null else given.tun_fd,
        .uapi_fd = if (given.uapi_fd < 0) null else given.uapi_fd,
        .offload_disable = given.offload_disable,
        .threads = std.math.cast(u8, @max(given.threads, 1)) orelse std.math.maxInt(u8), // too many: refused below
        .memory_limit = given.memory_limit,
        .log_level = @fromBackingInt(given.log_level),
        .log_fd = given.log_fd,
        .has_uapi = given.no_uapi == 0,
    }, &why) catch |err| {
        gpa.destroy(handle);
        return status.report(diagnostic, status.fromOpen(err), &why);
    };
    target.* = handles.add(.device, handle) catch {
        handle.device.close();
        gpa.destroy(handle);
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

pub fn run(handle: usize, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const target = Handle.enter(handle) catch |refused| return status.refuse(diagnostic, refused);
    var why: device.Diagnostic = .{};
    target.run(&why) catch |err| return status.report(diagnostic, status.fromRun(err), &why);
    return status.Status.ok.value();
}

pub fn stop(handle: usize) callconv(.c) i32 {
    const target = Handle.enter(handle) catch |refused| return status.fromRefused(refused).value();
    target.stop();
    return status.Status.ok.value();
}

pub fn close(handle: usize) callconv(.c) void {
    _ = Handle.enter(handle) catch return; // interface and socket are the parent's
    const target: *Handle = @ptrCast(@alignCast(handles.retire(.device, handle) catch return));
    target.device.close();
    gpa.destroy(target);
}
