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
    /// Said in words.
    given: []const wire.Prefix,
    mtu: ?u32,
    /// Bytes; 0 for no limit.
    memory_limit: u64,
    is_up: bool,
    makes_routes: bool,

    /// What is said in words comes before what is said in the file. error.Invalid: what is wrong with it was said.
    pub fn gather(arguments: *const Arguments) error{Invalid}!Wanted {
        var wanted: Wanted = .{
            .file = null,
            .given = arguments.addresses(),
            .mtu = arguments.mtu,
            .memory_limit = arguments.memory_limit,
            .is_up = arguments.is_up,
            .makes_routes = arguments.makes_routes,
        };
        const path = arguments.config_path orelse return wanted;
        wanted.file = try ConfigFile.load(path, .{ .leaves_hooks = arguments.leaves_hooks });
        errdefer wanted.forget();
        const settings = &wanted.file.?.settings;
        if (!settings.has_private_key)
            words.tell(&.{ words.shownPath(path), ": no PrivateKey: no tunnel can come up" });
        try wanted.checkRoutes();
        if (wanted.mtu == null) wanted.mtu = settings.mtu;
        if (wanted.memory_limit == 0) wanted.memory_limit = @as(u64, settings.memory_limit orelse 0) << 20;
        return wanted;
    }

    fn addresses(wanted: *const Wanted) []const wire.Prefix {
        if (wanted.given.len > 0) return wanted.given;
        return if (wanted.file) |*file| file.settings.addresses() else &.{};
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
        if (wanted.file) |*file| {
            var why: device.Diagnostic = .{};
            opened.set(file.change, &why) catch {
                words.tell(&.{ words.shownPath(file.path), ": ", why.text() });
                return error.Failed;
            };
        }
        if (wanted.mtu) |mtu| io.link.setMtu(name, mtu) catch |err| return refused(name, "the MTU", err);
        for (wanted.addresses()) |prefix| try addAddress(name, prefix);
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
        try wanted.addRoutes(name);
    }

    // ---- routes

    /// A route for everything needs rules beside it: else our own datagrams would go into the tunnel, too.
    fn checkRoutes(wanted: *const Wanted) error{Invalid}!void {
        const file = &wanted.file.?;
        if (file.settings.table == 0) return;
        var networks: Networks = .of(wanted);
        const first = networks.next() orelse return;
        const path = words.shownPath(file.path);
        if (!wanted.makes_routes) return words.tell(&.{ path, ": no routes are made for AllowedIPs: see --routes" });
        var network: ?wire.Prefix = first;
        while (network) |one| : (network = networks.next()) if (one.length == 0) {
            words.tell(&.{ path, ": --routes makes no default route: use wg-quick or pywg up" });
            return error.Invalid;
        };
    }

    fn addRoutes(wanted: *const Wanted, name: []const u8) error{Failed}!void {
        const file = if (wanted.file) |*file| file else return;
        if (!wanted.makes_routes or file.settings.table == 0) return;
        const index = io.link.index(name) catch |err| return refused(name, "a route", err);
        var networks: Networks = .of(wanted);
        while (networks.next()) |network| {
            io.route.add(index, network, file.settings.table) catch {
                if (isRouted(index, network)) continue; // two peers have it
                var spelling: [64]u8 = undefined;
                const text = config.values.spelled(network, &spelling);
                words.tell(&.{ name, ": the kernel refused a route to ", text, ": is there one already?" });
                return error.Failed;
            };
        }
    }
};

/// Those of AllowedIPs that no address of the interface makes a route for.
const Networks = struct {
    addresses: []const wire.Prefix,
    lines: std.mem.TokenIterator(u8, .scalar),

    fn of(wanted: *const Wanted) Networks {
        return .{
            .addresses = wanted.addresses(),
            .lines = std.mem.tokenizeScalar(u8, wanted.file.?.change, '\n'),
        };
    }

    fn next(networks: *Networks) ?wire.Prefix {
        while (networks.lines.next()) |line| {
            const head = "allowed_ip=";
            if (!std.mem.startsWith(u8, line, head)) continue;
            const network = wire.Prefix.parse(line[head.len..]) orelse continue; // one that is taken back
            if (!networks.isNear(network)) return network;
        }
        return null;
    }

    fn isNear(networks: *const Networks, network: wire.Prefix) bool {
        for (networks.addresses) |prefix| {
            if (prefix.length > network.length or prefix.address.family != network.address.family) continue;
            const within: wire.Prefix = .{ .address = network.address, .length = prefix.length };
            if (within.masked().address.eql(prefix.masked().address)) return true;
        }
        return false;
    }
};

fn isRouted(index: u32, network: wire.Prefix) bool {
    var lookup = io.route.Lookup.open() catch return false;
    defer lookup.close();
    return (lookup.interfaceTo(network.address, null, 0, 0) catch null) == index;
}

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
