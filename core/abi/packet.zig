//! pywg_packet and what is in it: what a caller hands over, and what became of it. Contracts are in include/pywg.h.
const protocol = @import("protocol");
const wire = @import("wire");

pub const Endpoint = extern struct {
    family: u8,
    reserved: u8,
    port: u16,
    scope_id: u32,
    address: [16]u8,

    pub fn from(remote: wire.SocketAddress) Endpoint {
        return .{
            .family = @backingInt(remote.address.family),
            .reserved = 0,
            .port = remote.port,
            .scope_id = remote.scope_id,
            .address = remote.address.bytes,
        };
    }

    pub fn value(endpoint: *const Endpoint) ?wire.Endpoint {
        const address: wire.Address = switch (endpoint.family) {
            4 => .fromIpv4(endpoint.address[0..4].*),
            6 => .fromIpv6(endpoint.address),
            else => return null,
        };
        return .{ .remote = .{ .address = address, .port = endpoint.port, .scope_id = endpoint.scope_id } };
    }
};

pub const Verdict = enum(u32) { dropped = 0, sealed = 1, staged = 2, deliver = 3, handshake = 4, keepalive = 5 };

pub const Packet = extern struct {
    data: ?[*]u8,
    length: usize,
    capacity: usize,
    endpoint: Endpoint,
    verdict: u32,
    drop: u32,

    pub fn settle(packet: *Packet, verdict: Verdict) void {
        packet.verdict = @backingInt(verdict);
        packet.drop = 0;
    }

    pub fn refuse(packet: *Packet, reason: protocol.Drop) void {
        packet.verdict = @backingInt(Verdict.dropped);
        packet.drop = @backingInt(reason);
    }
};
