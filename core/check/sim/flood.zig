//! Floods: many messages at one instant, of no host, and from addresses where none is.
//! Knows what such messages look like, not what becomes of them.
//! Invariant: a host takes none of them, and spends on them no more than it may.
const std = @import("std");
const wire = @import("wire");
const messages = wire.messages;
const protocol = @import("protocol");
const Host = @import("host.zig").Host;
const judge = @import("judge.zig");
const traffic = @import("traffic.zig");
const world_file = @import("world.zig");
const World = world_file.World;
const Error = world_file.Error;

pub const Kind = enum { junk, unproven, proven };

/// Junk, as anybody can send; or initiations with a right MAC1, as who knows the public key can make, without a cookie
/// or each with the right one for its source.
pub fn pour(world: *World, host: *Host, kind: Kind) Error!void {
    if (!host.isAwake(world.time) or !host.is_up) return;
    const now = host.now(world.time);
    // Enough for more than may be spent at once; where that is much, less must do.
    const count: usize = if (host.curve_ns >= std.time.ns_per_ms) 700 else 100;
    for (0..count) |_| {
        var bytes: [@sizeOf(messages.Initiation)]u8 = undefined;
        var from: wire.Endpoint = undefined;
        const message = fabricate(world, host, kind, &bytes, &from);
        const refused = host.interface.handleHandshake(message, &from, host.demand(), now) orelse
            return world.ledger.fail("host {d} takes what nobody has said", .{host.number});
        world.note('!', host.number, @tagName(refused));
        try judge.load(world, host, messages.classify(message).?, refused);
    }
    try traffic.settle(world, host);
}

fn fabricate(
    world: *World,
    host: *const Host,
    kind: Kind,
    bytes: *[@sizeOf(messages.Initiation)]u8,
    from: *wire.Endpoint,
) []u8 {
    const r = world.random();
    from.* = .{ .remote = .{ .address = .fromIpv4(.{ 198, 18, r.int(u8), r.int(u8) }), .port = r.int(u16) } };
    r.bytes(bytes);
    const what: messages.Kind = if (kind != .junk) .initiation else switch (r.uintLessThan(u8, 3)) {
        0 => .initiation,
        1 => .response,
        else => .cookie_reply,
    };
    bytes[0..4].* = .{ @backingInt(what), 0, 0, 0 };
    const length: usize = switch (what) {
        .initiation => @sizeOf(messages.Initiation),
        .response => @sizeOf(messages.Response),
        .cookie_reply => @sizeOf(messages.CookieReply),
        .transport => unreachable,
    };
    if (kind == .junk) return bytes[0..length];
    const checker = &host.interface.checker;
    bytes[116..132].* = protocol.crypto.mac(&checker.mac1_key, bytes[0..116]);
    bytes[132..148].* = @splat(0);
    if (kind == .proven and checker.secret_birth != null) {
        const cookie = checker.makeCookie(&from.remote); // the source has received it
        bytes[132..148].* = protocol.crypto.mac(&cookie, bytes[0..132]);
    }
    return bytes[0..length];
}
