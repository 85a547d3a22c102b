//! ICMP errors that leave as the kernel's own do: by its routes, and from the address that this host has on the way to
//! whoever gets them. Written to a TUN instead, they could not have such a source: from outside, IPv4 takes no packet
//! with an address of ours (a martian).
//! Knows where a message is to go, not what it says. Any thread may send. Needs CAP_NET_RAW, and only to open.
//! Invariant: nothing is ever received, and what cannot be sent is answered with false.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const sockaddr = @import("sockaddr.zig");

const linux = std.os.linux;

/// Precedence "internetwork control".
const ipv4_tos: c_int = 0xc0;

pub const IcmpSender = struct {
    ipv4: ?sys.fd_t = null,
    ipv6: ?sys.fd_t = null,

    /// In the thread's network namespace. Without the privilege it sends nothing.
    pub fn open() IcmpSender {
        const sender: IcmpSender = .{
            .ipv4 = openRaw(linux.AF.INET, linux.IPPROTO.ICMP),
            .ipv6 = openRaw(linux.AF.INET6, linux.IPPROTO.ICMPV6),
        };
        if (sender.ipv4) |socket| _ = linux.setsockopt(
            socket,
            linux.IPPROTO.IP,
            linux.IP.TOS,
            std.mem.asBytes(&ipv4_tos),
            @sizeOf(c_int),
        );
        return sender;
    }

    pub fn close(sender: *IcmpSender) void {
        for ([_]?sys.fd_t{ sender.ipv4, sender.ipv6 }) |socket| if (socket) |fd| sys.close(fd);
        sender.* = .{};
    }

    /// The message of an IP packet, to its destination; the kernel makes another IP header.
    pub fn send(sender: *const IcmpSender, packet: []const u8) bool {
        const parsed = wire.ip.Packet.parse(packet) orelse return false;
        const message = packet[(parsed.upper() orelse return false).offset..];
        const socket = switch (parsed.family) {
            .ipv4 => sender.ipv4,
            .ipv6 => sender.ipv6,
        } orelse return false;
        var name: sockaddr.Name = undefined;
        const length = name.set(.{ .address = parsed.destination(), .port = 0 });
        const flags = linux.MSG.DONTWAIT | linux.MSG.NOSIGNAL;
        return linux.errno(linux.sendto(socket, message.ptr, message.len, flags, @ptrCast(&name), length)) == .SUCCESS;
    }
};

fn openRaw(family: u32, protocol: u32) ?sys.fd_t {
    const socket: sys.fd_t = switch (sys.result(linux.socket(family, linux.SOCK.RAW | linux.SOCK.CLOEXEC, protocol))) {
        .value => |fd| @intCast(fd),
        .failure => return null,
    };
    // Else each would be given a copy of every ICMP message that comes to this host.
    const nothing = [_]sys.BpfInstruction{.{ .code = sys.bpf_ret_k, .k = 0 }};
    const program: sys.BpfProgram = .{ .length = nothing.len, .instructions = &nothing };
    const value = std.mem.asBytes(&program);
    const errno = linux.errno(linux.setsockopt(socket, linux.SOL.SOCKET, linux.SO.ATTACH_FILTER, value, value.len));
    if (errno == .SUCCESS) return socket;
    sys.close(socket);
    return null;
}

const testing = std.testing;

test "a message arrives from the address that leads to its receiver, and none is received" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var sender: IcmpSender = .open();
    defer sender.close();
    if (sender.ipv4 == null) return error.SkipZigTest;
    const socket = try udpSocket(9);
    defer sys.close(socket);
    // Host unreachable, in the name of nobody, for what port 9 sent to port 7 at 127.0.0.2.
    var packet: [20 + 8 + 28]u8 = @splat(0);
    packet[0..4].* = .{ 0x45, 0, 0, packet.len };
    packet[8..10].* = .{ 64, 1 };
    packet[16..22].* = .{ 127, 0, 0, 1, 3, 1 };
    packet[28..32].* = .{ 0x45, 0, 0, 28 };
    packet[36..38].* = .{ 64, 17 };
    packet[40..52].* = .{ 127, 0, 0, 1, 127, 0, 0, 2, 0, 9, 0, 7 };
    std.mem.writeInt(u16, packet[22..24], wire.checksum.finish(wire.checksum.sum(packet[20..], 0)), .big);
    try testing.expect(sender.send(&packet));
    var byte: [1]u8 = undefined;
    const received = linux.recvfrom(sender.ipv4.?, &byte, 1, linux.MSG.DONTWAIT, null, null);
    try testing.expectEqual(.AGAIN, linux.errno(received));
    const answer = linux.errno(linux.recvfrom(socket, &byte, 1, linux.MSG.DONTWAIT, null, null));
    try testing.expectEqual(.HOSTUNREACH, answer);
    const none: IcmpSender = .{};
    try testing.expect(!none.send(&packet));
}

/// At 127.0.0.1, and told of ICMP errors.
fn udpSocket(port: u16) !sys.fd_t {
    const socket: sys.fd_t = @intCast(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0));
    errdefer sys.close(socket);
    const one: c_int = 1;
    const value = std.mem.asBytes(&one);
    const set = linux.errno(linux.setsockopt(socket, linux.IPPROTO.IP, linux.IP.RECVERR, value, value.len));
    try testing.expectEqual(.SUCCESS, set);
    var name: sockaddr.Name = undefined;
    const length = name.set(.{ .address = .fromIpv4(.{ 127, 0, 0, 1 }), .port = port });
    try testing.expectEqual(.SUCCESS, linux.errno(linux.bind(socket, @ptrCast(&name), length)));
    return socket;
}
