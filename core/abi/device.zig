//! pywg_device_*: the whole thing behind an opaque handle. Checks everything a caller supplies and
//! returns a status; asserts nothing about it. Contracts are in include/pywg.h.
const std = @import("std");
const device = @import("device");
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

pub fn open(options: ?*const Options, out: ?*?*Device, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const given = options orelse return status.fail(diagnostic, .invalid_argument, "options is NULL");
    const target = out orelse return status.fail(diagnostic, .invalid_argument, "out is NULL");
    target.* = null;
    if (given.size < @sizeOf(Options)) {
        return status.fail(diagnostic, .invalid_argument, "options.size is not sizeof(pywg_device_options)");
    }
    if (given.log_level > @backingInt(device.LogLevel.verbose)) {
        return status.fail(diagnostic, .invalid_argument, "options.log_level is unknown");
    }
    var why: device.Diagnostic = .{};
    target.* = Device.open(std.heap.page_allocator, &.{
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
    }, &why) catch |err| return status.report(diagnostic, status.fromOpen(err), &why);
    return status.Status.ok.value();
}

pub fn set(handle: ?*Device, text: ?[*]const u8, length: usize, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const target = handle orelse return status.fail(diagnostic, .invalid_argument, "device is NULL");
    const bytes = text_file.slice(text, length) orelse
        return status.fail(diagnostic, .invalid_argument, "text is NULL");
    var why: device.Diagnostic = .{};
    target.set(bytes, &why) catch |err| return status.report(diagnostic, status.fromSet(err), &why);
    return status.Status.ok.value();
}

pub fn get(handle: ?*Device, buffer: ?[*]u8, capacity: usize, length: ?*usize) callconv(.c) i32 {
    return text_file.fill(handle, Device.get, buffer, capacity, length);
}

pub fn report(handle: ?*Device, buffer: ?[*]u8, capacity: usize, length: ?*usize) callconv(.c) i32 {
    return text_file.fill(handle, Device.report, buffer, capacity, length);
}

pub fn name(handle: ?*Device, buffer: ?[*]u8, capacity: usize, length: ?*usize) callconv(.c) i32 {
    return text_file.fill(handle, Device.name, buffer, capacity, length);
}

pub fn run(handle: ?*Device, diagnostic: ?*Diagnostic) callconv(.c) i32 {
    if (!status.isUsable(diagnostic)) return status.Status.invalid_argument.value();
    const target = handle orelse return status.fail(diagnostic, .invalid_argument, "device is NULL");
    var why: device.Diagnostic = .{};
    target.run(&why) catch |err| return status.report(diagnostic, status.fromRun(err), &why);
    return status.Status.ok.value();
}

pub fn stop(handle: ?*Device) callconv(.c) i32 {
    const target = handle orelse return status.Status.invalid_argument.value();
    target.stop();
    return status.Status.ok.value();
}

pub fn close(handle: ?*Device) callconv(.c) void {
    if (handle) |target| target.close();
}
