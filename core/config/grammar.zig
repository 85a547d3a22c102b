//! Every key of a configuration, as pywg/config/grammar.py has them: which section it belongs in, and who reads it.
//! Invariant: names are spelled as in the manual pages; case does not matter to whoever looks them up.
const std = @import("std");
const close_words = @import("close_words.zig");

pub const Section = enum {
    interface,
    peer,

    pub fn name(section: Section) []const u8 {
        return switch (section) {
            .interface => "Interface",
            .peer => "Peer",
        };
    }
};

pub const Key = enum {
    private_key,
    listen_port,
    fwmark,
    address,
    mtu,
    dns,
    table,
    /// PreUp, PostUp: commands that may be what keeps traffic in.
    hook_up,
    /// PreDown, PostDown, OnPeerUp and its like.
    hook,
    save_config,
    /// PrivateKeyFile, PresharedKeyFile.
    key_file,
    bind_device,
    bind_address,
    backend,
    /// Netns, SocketNetns.
    netns,
    memory_limit,
    kill_switch,
    /// Only, Except.
    owners,
    pool,
    public_endpoint,
    client_dns,
    public_key,
    preshared_key,
    allowed_ips,
    endpoint,
    persistent_keepalive,
    endpoint_family,
    excluded_ips,
    name,
    replaces,
    endpoint_dns,
};

pub const Row = struct {
    name: []const u8,
    section: Section,
    key: Key,
    /// Written as `#!pywg Key = value`: to wg and wg-quick it is a comment.
    is_extension: bool = false,
};

pub const rows = [_]Row{
    .{ .name = "PrivateKey", .section = .interface, .key = .private_key },
    .{ .name = "ListenPort", .section = .interface, .key = .listen_port },
    .{ .name = "FwMark", .section = .interface, .key = .fwmark },
    .{ .name = "Address", .section = .interface, .key = .address },
    .{ .name = "MTU", .section = .interface, .key = .mtu },
    .{ .name = "DNS", .section = .interface, .key = .dns },
    .{ .name = "Table", .section = .interface, .key = .table },
    .{ .name = "PreUp", .section = .interface, .key = .hook_up },
    .{ .name = "PostUp", .section = .interface, .key = .hook_up },
    .{ .name = "PreDown", .section = .interface, .key = .hook },
    .{ .name = "PostDown", .section = .interface, .key = .hook },
    .{ .name = "SaveConfig", .section = .interface, .key = .save_config },
    .{ .name = "PrivateKeyFile", .section = .interface, .key = .key_file, .is_extension = true },
    .{ .name = "BindDevice", .section = .interface, .key = .bind_device, .is_extension = true },
    .{ .name = "BindAddress", .section = .interface, .key = .bind_address, .is_extension = true },
    .{ .name = "Backend", .section = .interface, .key = .backend, .is_extension = true },
    .{ .name = "Netns", .section = .interface, .key = .netns, .is_extension = true },
    .{ .name = "SocketNetns", .section = .interface, .key = .netns, .is_extension = true },
    .{ .name = "MemoryLimit", .section = .interface, .key = .memory_limit, .is_extension = true },
    .{ .name = "KillSwitch", .section = .interface, .key = .kill_switch, .is_extension = true },
    .{ .name = "Only", .section = .interface, .key = .owners, .is_extension = true },
    .{ .name = "Except", .section = .interface, .key = .owners, .is_extension = true },
    .{ .name = "OnPeerUp", .section = .interface, .key = .hook, .is_extension = true },
    .{ .name = "OnPeerDown", .section = .interface, .key = .hook, .is_extension = true },
    .{ .name = "OnEndpointChange", .section = .interface, .key = .hook, .is_extension = true },
    .{ .name = "Pool", .section = .interface, .key = .pool, .is_extension = true },
    .{ .name = "PublicEndpoint", .section = .interface, .key = .public_endpoint, .is_extension = true },
    .{ .name = "ClientDNS", .section = .interface, .key = .client_dns, .is_extension = true },
    .{ .name = "PublicKey", .section = .peer, .key = .public_key },
    .{ .name = "PresharedKey", .section = .peer, .key = .preshared_key },
    .{ .name = "AllowedIPs", .section = .peer, .key = .allowed_ips },
    .{ .name = "Endpoint", .section = .peer, .key = .endpoint },
    .{ .name = "PersistentKeepalive", .section = .peer, .key = .persistent_keepalive },
    .{ .name = "PresharedKeyFile", .section = .peer, .key = .key_file, .is_extension = true },
    .{ .name = "EndpointFamily", .section = .peer, .key = .endpoint_family, .is_extension = true },
    .{ .name = "ExcludedIPs", .section = .peer, .key = .excluded_ips, .is_extension = true },
    .{ .name = "Name", .section = .peer, .key = .name, .is_extension = true },
    .{ .name = "Replaces", .section = .peer, .key = .replaces, .is_extension = true },
    .{ .name = "EndpointDns", .section = .peer, .key = .endpoint_dns, .is_extension = true },
};

/// No two rows have one name.
pub fn called(name: []const u8) ?*const Row {
    for (&rows) |*row| if (std.ascii.eqlIgnoreCase(row.name, name)) return row;
    return null;
}

/// The key of the section that a mistyped one is like.
pub fn closest(name: []const u8, section: Section, is_extension: bool) ?[]const u8 {
    var names: [rows.len][]const u8 = undefined;
    var count: usize = 0;
    for (&rows) |*row| {
        if (row.section != section or row.is_extension != is_extension) continue;
        names[count] = row.name;
        count += 1;
    }
    return close_words.find(name, names[0..count]);
}

const testing = std.testing;

test "keys are found in any case, and mistyped ones where they belong" {
    try testing.expectEqual(.allowed_ips, called("allowedips").?.key);
    try testing.expectEqual(null, called("allowed"));
    try testing.expectEqualStrings("AllowedIPs", closest("AlowedIPs", .peer, false).?);
    try testing.expectEqual(null, closest("AlowedIPs", .interface, false));
    try testing.expectEqualStrings("KillSwitch", closest("Kilswitch", .interface, true).?);
    for (rows, 0..) |row, i| for (rows[i + 1 ..]) |other| {
        try testing.expect(!std.ascii.eqlIgnoreCase(row.name, other.name));
    };
}
