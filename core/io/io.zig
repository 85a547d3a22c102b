//! Root of the room `io`: the kernel's side of a tunnel. Imports wire and std; knows bytes, addresses and
//! descriptors, no keys and no peers. In reading order:
pub const linux = @import("linux.zig");
pub const clock = @import("clock.zig");
pub const entropy = @import("entropy.zig");
pub const fork = @import("fork.zig");
pub const priority = @import("priority.zig");
pub const line_writer = @import("line_writer.zig");
pub const offload = @import("offload.zig");
pub const vnet_header = @import("vnet_header.zig");
pub const gso = @import("gso.zig");
pub const gro = @import("gro.zig");
pub const tun = @import("tun.zig");
pub const netlink = @import("netlink.zig");
pub const tunnels = @import("tunnels.zig");
pub const link = @import("link.zig");
pub const interface_address = @import("interface_address.zig");
pub const link_settings = @import("link_settings.zig");
pub const route = @import("route.zig");
pub const vm_generation = @import("vm_generation.zig");
pub const control_message = @import("control_message.zig");
pub const sockaddr = @import("sockaddr.zig");
pub const icmp_sender = @import("icmp_sender.zig");
pub const udp_send = @import("udp_send.zig");
pub const icmp_error = @import("icmp_error.zig");
pub const given_sockets = @import("given_sockets.zig");
pub const udp = @import("udp.zig");
pub const poller = @import("poller.zig");
pub const uapi_listener = @import("uapi_listener.zig");
pub const uapi_client = @import("uapi_client.zig");
pub const uapi_connection = @import("uapi_connection.zig");

pub const Offload = offload.Offload;
pub const VnetHeader = vnet_header.VnetHeader;
pub const Udp = udp.Udp;
pub const ReceiveBatch = udp.ReceiveBatch;
pub const Transmit = udp.Transmit;

test {
    _ = linux;
    _ = clock;
    _ = entropy;
    _ = fork;
    _ = priority;
    _ = line_writer;
    _ = offload;
    _ = vnet_header;
    _ = gso;
    _ = gro;
    _ = tun;
    _ = netlink;
    _ = tunnels;
    _ = link;
    _ = link_settings;
    _ = route;
    _ = vm_generation;
    _ = control_message;
    _ = icmp_sender;
    _ = given_sockets;
    _ = icmp_error;
    _ = udp;
    _ = @import("udp_test.zig");
    _ = poller;
    _ = uapi_listener;
    _ = uapi_client;
    _ = uapi_connection;
    _ = interface_address;
}
