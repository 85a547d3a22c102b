//! What an interface is to be from the start, by words and a file, and making it so: the device first, then its
//! addresses, then up. All of it before the sandbox closes.
//! Invariant: the file's keys are zeroed as soon as the device has them.
const std = @import("std");
const device = @import("device");
const io = @import("io");
const wire = @import("wire");
const Arguments = @import("arguments.zig").Arguments;
const ConfigFile = @import("config_file.zig").ConfigFile;
const config = @import("config");
const words = @import("words.zig");

pub const Wanted = struct {
    file: ?ConfigFile,
    addresses: []const wire.Prefix,
    mtu: ?u32,
    /// Bytes; 0 for no limit.
    memory_limit: u64,
    is_up: bool,

    /// What is said in words comes before what is said in the file. error.Invalid: what is wrong with it was said.
    pub fn gather(arguments: *const Arguments) error{Invalid}!Wanted {
        var wanted: Wanted = .{
            .file = null,
            .addresses = arguments.addresses(),
            .mtu = arguments.mtu,
            .memory_limit = arguments.memory_limit,
            .is_up = arguments.is_up,
        };
        const path = arguments.config_path orelse return wanted;
        wanted.file = try ConfigFile.load(path, .{ .leaves_hooks = arguments.leaves_hooks });
        const settings = &wanted.file.?.settings;
        if (!settings.has_private_key)
            words.tell(&.{ words.shownPath(path), ": no PrivateKey: no tunnel can come up" });
        if (wanted.mtu == null) wanted.mtu = settings.mtu;
        if (wanted.memory_limit == 0) wanted.memory_limit = @as(u64, settings.memory_limit orelse 0) << 20;
        return wanted;
    }

    /// The file, with its keys. More than once does no harm.
    pub fn forget(wanted: *Wanted) void {
        if (wanted.file) |*file| file.deinit();
        wanted.file = null;
    }

    /// error.Failed: why was said, and the interface is to go.
    pub fn apply(wanted: *const Wanted, opened: *device.Device) error{Failed}!void {
        var room: [16]u8 = undefined;
        const name = room[0..@min(opened.name(&room), room.len)];
        var addresses = wanted.addresses;
        if (wanted.file) |*file| {
            var why: device.Diagnostic = .{};
            opened.set(file.change, &why) catch {
                words.tell(&.{ words.shownPath(file.path), ": ", why.text() });
                return error.Failed;
            };
            if (addresses.len == 0) addresses = file.settings.addresses();
        }
        if (wanted.mtu) |mtu| io.link.setMtu(name, mtu) catch |err| return refused(name, "the MTU", err);
        for (addresses) |prefix| try addAddress(name, prefix);
        if (!wanted.is_up) return;
        io.link.setUp(name) catch |err| return refused(name, "that it be up", err);
        if (opened.follow()) |port| {
            var digits: [20]u8 = undefined;
            const number = config.notes.decimal(port.port, &digits);
            words.tell(&.{ name, ": cannot listen on UDP port ", number, switch (port.errno) {
                .ADDRINUSE => ": another program does; choose another ListenPort, or leave it out",
                .PERM, .ACCES => ": it needs CAP_NET_ADMIN, and CAP_NET_BIND_SERVICE below 1024",
                else => ": the kernel refused",
            } });
            return error.Failed;
        }
    }
};

fn addAddress(name: []const u8, prefix: wire.Prefix) error{Failed}!void {
    const index = io.link.index(name) catch |err| return refused(name, "an address", err);
    io.interface_address.add(index, prefix) catch |err| {
        var spelling: [64]u8 = undefined;
        const text = config.values.spelled(prefix, &spelling);
        const is_ipv6 = prefix.address.family == .ipv6;
        words.tell(&.{ name, ": the kernel refused the address ", text, ": ", switch (err) {
            error.PermissionDenied => if (is_ipv6)
                "IPv6 may be turned off (net.ipv6.conf.all.disable_ipv6), or CAP_NET_ADMIN is missing"
            else
                "it needs CAP_NET_ADMIN",
            error.NotFound => "the interface is gone",
            error.SystemResources => if (is_ipv6)
                "is the MTU below 1280, or IPv6 not there?"
            else
                "it means nothing to it",
        } });
        return error.Failed;
    };
}

fn refused(name: []const u8, what: []const u8, err: io.netlink.Error) error{Failed} {
    words.tell(&.{ name, ": the kernel refused ", what, ": ", switch (err) {
        error.PermissionDenied => "it needs CAP_NET_ADMIN",
        error.NotFound => "the interface is gone",
        error.SystemResources => "it says no more",
    } });
    return error.Failed;
}
