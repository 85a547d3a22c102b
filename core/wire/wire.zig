//! Root of the room `wire`: bytes as they lie in packets. Imports std only; no state, no allocation.
//! Knows layouts and sums, and how values are written for people; what a packet means to a tunnel is decided in
//! protocol/.
pub const address = @import("address.zig");
pub const binding = @import("binding.zig");
pub const messages = @import("messages.zig");
pub const checksum = @import("checksum.zig");
pub const ip = @import("ip.zig");
pub const transport = @import("transport.zig");
pub const udp_tunnel = @import("udp_tunnel.zig");
pub const icmp = @import("icmp.zig");
pub const text = @import("text.zig");

pub const assert = @import("assert.zig").assert;

pub const Family = address.Family;
pub const Address = address.Address;
pub const Prefix = address.Prefix;
pub const SocketAddress = address.SocketAddress;
pub const Source = address.Source;
pub const Endpoint = address.Endpoint;
pub const Binding = binding.Binding;

test {
    _ = address;
    _ = binding;
    _ = messages;
    _ = checksum;
    _ = ip;
    _ = transport;
    _ = udp_tunnel;
    _ = icmp;
    _ = text;
}
