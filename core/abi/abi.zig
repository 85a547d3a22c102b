//! Root of libpywg: every exported symbol on one screen. Contracts are in include/pywg.h, in this order.
const std = @import("std");
const cipher = @import("cipher");
const device = @import("device.zig");
const interface = @import("interface.zig");
const keys = @import("keys.zig");
const options = @import("build_options");
const protocol = @import("protocol");
const runtime = @import("runtime");
const status = @import("status.zig");

pub const abi_version: u32 = 1;

comptime {
    for (.{
        .{ "abi_version", &abiVersion },
        .{ "version", &version },
        .{ "cipher_path", &cipherPath },
        .{ "cipher_select", &cipherSelect },
        .{ "status_name", &statusName },
        .{ "key_generate", &keys.generate },
        .{ "key_public", &keys.public },
        .{ "device_open", &device.open },
        .{ "device_set", &device.set },
        .{ "device_get", &device.get },
        .{ "device_report", &device.report },
        .{ "device_name", &device.name },
        .{ "device_counters", &device.counters },
        .{ "device_handshake", &device.handshake },
        .{ "device_events_open", &device.eventsOpen },
        .{ "device_events", &device.events },
        .{ "device_run", &device.run },
        .{ "device_stop", &device.stop },
        .{ "device_close", &device.close },
        .{ "interface_open", &interface.open },
        .{ "interface_set", &interface.set },
        .{ "interface_get", &interface.get },
        .{ "interface_seal", &interface.seal },
        .{ "interface_receive", &interface.receive },
        .{ "interface_expire", &interface.expire },
        .{ "interface_poll", &interface.poll },
        .{ "interface_deadline", &interface.deadline },
        .{ "interface_dropped", &interface.dropped },
        .{ "interface_close", &interface.close },
        .{ "interface_seal_batch", &interface.sealBatch },
        .{ "interface_receive_batch", &interface.receiveBatch },
        .{ "interface_poll_batch", &interface.pollBatch },
        .{ "interface_peer_key", &interface.peerKey },
        .{ "interface_peer_number", &interface.peerNumber },
        .{ "drop_name", &dropName },
    }) |entry| @export(entry[1], .{ .name = "pywg_" ++ entry[0] });
}

fn abiVersion() callconv(.c) u32 {
    return abi_version;
}

fn version() callconv(.c) [*:0]const u8 {
    return options.version ++ "\x00";
}

fn cipherPath() callconv(.c) [*:0]const u8 {
    return cipher.path().ptr;
}

fn cipherSelect(name: ?[*:0]const u8) callconv(.c) void {
    cipher.select(if (name) |given| std.mem.span(given) else null);
}

fn statusName(value: i32) callconv(.c) [*:0]const u8 {
    return status.name(value);
}

fn dropName(drop: u32) callconv(.c) ?[*:0]const u8 {
    if (drop >= protocol.Drop.count) return null;
    return @tagName(@as(protocol.Drop, @fromBackingInt(@as(u8, @intCast(drop))))).ptr;
}

pub const std_options = runtime.std_options;
pub const panic = runtime.panic;

test {
    _ = @import("handles.zig");
    _ = @import("overlap.zig");
    _ = @import("records.zig");
}
