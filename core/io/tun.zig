//! The TUN device: opening or taking over, and packets with their virtio-net headers in and out.
//! Knows bytes; what a superpacket is made of is in gso.zig and gro.zig.
//! Invariant: a packet is either taken by the kernel or counted as failed; a superpacket that the kernel
//! refuses is written packet by packet at once, in order, and after a few such refusals none is tried.
//!
//! There is no probe at start: the kernels that refuse good superpackets (6.6.44, 6.1 and 6.10.3 of the same
//! weeks; fixed by 89add40066f9) do so in the write path only while the interface is up, and it is down
//! when we make it. Taking it up for a probe would be seen by the administrator's tools, so the first refusals
//! of real traffic are the probe; they cost no packet.
const std = @import("std");
const sys = @import("linux.zig");
const gro = @import("gro.zig");
const link = @import("link.zig");
const offload_file = @import("offload.zig");
const VnetHeader = @import("vnet_header.zig").VnetHeader;

const linux = std.os.linux;
const assert = std.debug.assert;
const Offload = offload_file.Offload;
const Feature = offload_file.Feature;

pub const name_max = 15;
/// The longest superpacket; a shorter buffer would make the kernel cut packets off silently.
pub const packet_max = 65_535;
/// Superpackets of one kind refused before no more are tried.
const refusals_max = 3;

pub const OpenError = error{
    /// There is no /dev/net/tun.
    NotFound,
    PermissionDenied,
    NameInUse,
    InvalidName,
    /// The descriptor to take over is no TUN in plain IP mode.
    NotTun,
    /// Anything else; the `Failure` says what.
    SystemResources,
};

pub const ReadError = error{
    /// The interface is down.
    Down,
    /// The interface was deleted.
    Gone,
};

pub const Received = struct {
    header: VnetHeader,
    bytes: []u8,
};

/// Of one worker, so plain.
pub const Counters = struct {
    read_errors: u64 = 0,
    write_failed: u64 = 0,
    /// Packets and superpackets, each of which takes a call, and the bytes in them.
    reads: u64 = 0,
    read_bytes: u64 = 0,
    writes: u64 = 0,
    written_bytes: u64 = 0,
};

pub const Tun = struct {
    calls: *const sys.Calls,
    offload: *Offload,
    fd: sys.fd_t,
    /// Where packets for the kernel are written: `fd`, or what `writeTo` names.
    write_fd: sys.fd_t,
    name_buffer: [16]u8 = @splat(0),
    has_vnet_header: bool,
    /// Bytes of it; 0 without one.
    header_length: usize,
    counters: Counters = .{},
    refused_tcp: u32 = 0,
    refused_udp: u32 = 0,
    refused_tunnel: u32 = 0,

    /// Makes the interface, left down, or attaches to a persistent one that nobody holds.
    pub fn open(calls: *const sys.Calls, wanted: []const u8, offload: *Offload, failure: *sys.Failure) OpenError!Tun {
        return openWith(calls, wanted, 0, offload, failure);
    }

    /// As `open`, but never attaches, and the interface may get further queues: `openQueue`.
    pub fn openMultiQueue(
        calls: *const sys.Calls,
        wanted: []const u8,
        offload: *Offload,
        failure: *sys.Failure,
    ) OpenError!Tun {
        // Attaching would be sharing the packets of whoever made it.
        if (link.index(wanted)) |_| {
            failure.set("TUNSETIFF", .BUSY);
            return error.NameInUse;
        } else |_| {}
        return openWith(calls, wanted, sys.IFF_MULTI_QUEUE, offload, failure);
    }

    /// One more queue of the interface that `first` made, detached: the kernel gives it nothing before `attach`.
    /// What was negotiated holds for the interface; `offload` is only where this queue notes its own refusals.
    pub fn openQueue(first: *const Tun, offload: *Offload, failure: *sys.Failure) OpenError!Tun {
        const fd = try openAs(first.calls, first.name(), sys.IFF_MULTI_QUEUE, failure);
        errdefer sys.close(fd.descriptor);
        var tun: Tun = .{
            .calls = first.calls,
            .offload = offload,
            .fd = fd.descriptor,
            .write_fd = fd.descriptor,
            .has_vnet_header = true,
            .header_length = first.header_length,
        };
        tun.name_buffer = fd.name;
        const errno = tun.setQueue(sys.IFF_DETACH_QUEUE);
        if (errno == .SUCCESS) return tun;
        failure.set("TUNSETQUEUE", errno);
        return error.SystemResources;
    }

    /// Writes by a queue that stays detached. A flow goes to the queue that its answers were written to, and would be
    /// moved, packets of it still under way, by the first answer; what a detached queue writes moves nothing, so every
    /// flow stays where its hash puts it.
    pub fn writeTo(tun: *Tun, detached: *const Tun) void {
        tun.write_fd = detached.fd;
    }

    /// From now on the kernel gives this queue its share of the flows.
    pub fn attach(tun: *Tun) error{SystemResources}!void {
        if (tun.setQueue(sys.IFF_ATTACH_QUEUE) != .SUCCESS) return error.SystemResources;
    }

    pub fn detach(tun: *Tun) void {
        _ = tun.setQueue(sys.IFF_DETACH_QUEUE);
    }

    fn setQueue(tun: *Tun, flag: u16) sys.E {
        var request: sys.Ifreq = .{};
        request.value.flags = flag;
        return linux.errno(tun.calls.ioctl(tun.fd, sys.TUNSETQUEUE, @intFromPtr(&request)));
    }

    fn openWith(
        calls: *const sys.Calls,
        wanted: []const u8,
        flags: u16,
        offload: *Offload,
        failure: *sys.Failure,
    ) OpenError!Tun {
        const made = try openAs(calls, wanted, flags, failure);
        var tun: Tun = .{
            .calls = calls,
            .offload = offload,
            .fd = made.descriptor,
            .write_fd = made.descriptor,
            .has_vnet_header = true,
            .header_length = VnetHeader.length,
        };
        tun.name_buffer = made.name;
        tun.negotiate();
        return tun;
    }

    const Made = struct { descriptor: sys.fd_t, name: [16]u8 };

    fn openAs(calls: *const sys.Calls, wanted: []const u8, extra_flags: u16, failure: *sys.Failure) OpenError!Made {
        if (!isValidName(wanted)) return error.InvalidName;
        const open_flags: linux.O = .{ .ACCMODE = .RDWR, .CLOEXEC = true, .NONBLOCK = true };
        const fd: sys.fd_t = switch (sys.result(linux.open("/dev/net/tun", open_flags, 0))) {
            .value => |fd| @intCast(fd),
            .failure => |code| {
                failure.set("/dev/net/tun", code);
                return switch (code) {
                    .NOENT, .NODEV, .NXIO => error.NotFound,
                    .PERM, .ACCES => error.PermissionDenied,
                    else => error.SystemResources,
                };
            },
        };
        errdefer sys.close(fd);
        var request = sys.Ifreq.init(wanted).?;
        request.value.flags = sys.IFF_TUN | sys.IFF_NO_PI | sys.IFF_VNET_HDR | extra_flags;
        const errno = linux.errno(calls.ioctl(fd, sys.TUNSETIFF, @intFromPtr(&request)));
        if (errno != .SUCCESS) {
            failure.set("TUNSETIFF", errno);
            return switch (errno) {
                .BUSY, .EXIST => error.NameInUse,
                .PERM, .ACCES => error.PermissionDenied,
                // The kernel's answer for an interface of another kind.
                .INVAL => if (link.index(wanted)) |_| error.NameInUse else |_| error.SystemResources,
                else => error.SystemResources,
            };
        }
        return .{ .descriptor = fd, .name = request.name };
    }

    /// Takes over an open TUN (WG_TUN_FD), by a descriptor of its own: the one given stays the caller's to close.
    pub fn fromFd(calls: *const sys.Calls, fd: sys.fd_t, offload: *Offload, failure: *sys.Failure) OpenError!Tun {
        var request: sys.Ifreq = .{};
        const errno = linux.errno(calls.ioctl(fd, sys.TUNGETIFF, @intFromPtr(&request)));
        if (errno != .SUCCESS) {
            failure.set("TUNGETIFF", errno);
            return error.NotTun;
        }
        const flags = request.value.flags;
        if (flags & sys.IFF_TUN == 0 or flags & sys.IFF_TAP != 0 or flags & sys.IFF_NO_PI == 0) {
            failure.set("TUNGETIFF", .INVAL);
            return error.NotTun;
        }
        const blocked = linux.errno(setNonBlocking(fd));
        if (blocked != .SUCCESS) {
            failure.set("fcntl", blocked);
            return error.SystemResources;
        }
        const own: sys.fd_t = switch (sys.duplicate(fd)) {
            .value => |value| @intCast(value),
            .failure => |code| {
                failure.set("fcntl", code);
                return error.SystemResources;
            },
        };
        var tun: Tun = .{
            .calls = calls,
            .offload = offload,
            .fd = own,
            .write_fd = own,
            .has_vnet_header = flags & sys.IFF_VNET_HDR != 0,
            .header_length = if (flags & sys.IFF_VNET_HDR != 0) VnetHeader.length else 0,
        };
        tun.name_buffer = request.name;
        tun.negotiate();
        return tun;
    }

    /// A TUN that is not persistent vanishes with its last descriptor.
    pub fn close(tun: *Tun) void {
        sys.close(tun.fd);
        tun.* = undefined;
    }

    /// The name at opening; `link.Monitor` knows of later changes.
    pub fn name(tun: *const Tun) []const u8 {
        return std.mem.sliceTo(&tun.name_buffer, 0);
    }

    // ---- negotiation

    fn negotiate(tun: *Tun) void {
        const offload = tun.offload;
        if (!tun.has_vnet_header) {
            for ([_]Feature{ .tun_tso, .tun_uso, .tun_tunnel }) |each| offload.setUnsupported(each, .SUCCESS);
            return;
        }
        // The kernel takes the offsets inside a tunnel to be little-endian, whatever the rest of the header is.
        const is_big_endian = @import("builtin").cpu.arch.endian() == .big;
        if (is_big_endian or !offload.isActive(.tun_tso)) offload.setUnsupported(.tun_tunnel, .SUCCESS);
        const little_endian: c_int = 0;
        _ = tun.calls.ioctl(tun.fd, sys.TUNSETVNETLE, @intFromPtr(&little_endian));
        for ([_]Feature{ .tun_tunnel, .tun_uso, .tun_tso }) |next_to_go| {
            const errno = tun.setOffload();
            if (errno == .SUCCESS) return;
            offload.setUnsupported(next_to_go, errno);
        }
        _ = tun.setOffload(); // none: kernels have no reason to refuse that
    }

    /// What the kernel may hand us. USO (6.2) is taken for both families or for none.
    fn setOffload(tun: *Tun) sys.E {
        var flags: u32 = 0;
        if (tun.offload.isActive(.tun_tso)) flags |= sys.TUN_F_TSO4 | sys.TUN_F_TSO6;
        if (tun.offload.isActive(.tun_uso)) flags |= sys.TUN_F_USO4 | sys.TUN_F_USO6;
        if (flags != 0) flags |= sys.TUN_F_CSUM;
        const tunnels = tun.offload.isActive(.tun_tunnel);
        if (tunnels) flags |= sys.TUN_F_UDP_TUNNEL_GSO | sys.TUN_F_UDP_TUNNEL_GSO_CSUM;
        // Ten bytes are the default; a descriptor taken over may have had others set.
        tun.header_length = if (tunnels) VnetHeader.tunnel_length else VnetHeader.length;
        const size: c_int = @intCast(tun.header_length);
        _ = tun.calls.ioctl(tun.fd, sys.TUNSETVNETHDRSZ, @intFromPtr(&size));
        return linux.errno(tun.calls.ioctl(tun.fd, sys.TUNSETOFFLOAD, flags));
    }

    // ---- packets in

    /// One packet or superpacket into `buffer`; null when there is none now.
    pub fn read(tun: *Tun, buffer: []u8) ReadError!?Received {
        assert(buffer.len >= packet_max);
        var header: VnetHeader = .{};
        const prefix = tun.header_length;
        const vectors = [2]sys.iovec{
            .{ .base = std.mem.asBytes(&header), .len = prefix },
            .{ .base = buffer.ptr, .len = buffer.len },
        };
        const used = if (tun.has_vnet_header) vectors[0..] else vectors[1..];
        while (true) {
            switch (sys.result(tun.calls.readv(tun.fd, used.ptr, used.len))) {
                .value => |length| {
                    if (length < prefix) {
                        tun.counters.read_errors += 1;
                        return null;
                    }
                    tun.counters.reads += 1;
                    tun.counters.read_bytes += length - prefix;
                    return .{
                        .header = header,
                        .bytes = buffer[0 .. length - prefix],
                    };
                },
                .failure => |code| switch (code) {
                    .INTR => continue,
                    .AGAIN => return null,
                    .IO => return error.Down,
                    .BADFD, .NODEV, .BADF => return error.Gone,
                    else => {
                        tun.counters.read_errors += 1; // memory: the next read may do
                        return null;
                    },
                },
            }
        }
    }

    // ---- packets out

    /// Returns how many of the frame's packets failed.
    pub fn writeFrame(tun: *Tun, frame: *const gro.Frame) usize {
        if (frame.packet_count == 1) {
            return @intFromBool(!tun.settle(tun.writeVectors(frame.iovecs)));
        }
        assert(tun.has_vnet_header);
        const errno = tun.writeVectors(frame.iovecs);
        switch (errno) {
            .SUCCESS => return 0,
            // A full queue, an interface that is down or gone: single packets would fare no better.
            .AGAIN, .NOBUFS, .IO, .BADFD, .NODEV => {
                tun.counters.write_failed += frame.packet_count;
                return frame.packet_count;
            },
            // Too little memory for one large packet says nothing about superpackets.
            .NOMEM => {},
            else => tun.countRefusal(frame.header.gso_type, errno),
        }
        tun.offload.counters.tun_resent += 1;
        var failed: usize = 0;
        var originals = frame.originals();
        while (originals.next()) |packet| failed += @intFromBool(!tun.writePacket(packet));
        return failed;
    }

    /// One complete packet. False when the kernel did not take it.
    pub fn writePacket(tun: *Tun, packet: []const u8) bool {
        const header: VnetHeader = .{};
        const vectors = [2]sys.iovec_const{
            .{ .base = header.asBytes(), .len = tun.header_length },
            .{ .base = packet.ptr, .len = packet.len },
        };
        return tun.settle(tun.writeVectors(&vectors));
    }

    /// The first vector is the vnet header, left out where the TUN has none.
    fn writeVectors(tun: *Tun, vectors: []const sys.iovec_const) sys.E {
        assert(!tun.has_vnet_header or vectors[0].len == tun.header_length);
        const used = if (tun.has_vnet_header) vectors else vectors[1..];
        while (true) {
            switch (sys.result(tun.calls.writev(tun.write_fd, used.ptr, used.len))) {
                .value => |length| {
                    tun.counters.writes += 1;
                    tun.counters.written_bytes += length -| tun.header_length;
                    return .SUCCESS;
                },
                .failure => |code| if (code != .INTR) return code, // TUN does not sleep in write, so this ends
            }
        }
    }

    fn settle(tun: *Tun, errno: sys.E) bool {
        if (errno == .SUCCESS) return true;
        tun.counters.write_failed += 1;
        return false;
    }

    /// TUNSETOFFLOAD stays: what the kernel gives us to read is another matter.
    fn countRefusal(tun: *Tun, gso_type: u8, errno: sys.E) void {
        const feature: Feature, const refused = if (gso_type & VnetHeader.GSO_UDP_TUNNEL != 0)
            .{ .tun_tunnel, &tun.refused_tunnel }
        else if (gso_type & ~@as(u8, VnetHeader.GSO_ECN) == VnetHeader.GSO_UDP_L4)
            .{ .tun_uso, &tun.refused_udp }
        else
            .{ .tun_tso, &tun.refused_tcp };
        refused.* += 1;
        if (refused.* >= refusals_max) _ = tun.offload.stepDown(feature, errno);
    }
};

/// The names that wg-quick knows. Not `%`, which would let the kernel pick a number.
pub fn isValidName(text: []const u8) bool {
    if (text.len == 0 or text.len > name_max) return false;
    if (std.mem.eql(u8, text, ".") or std.mem.eql(u8, text, "..")) return false;
    for (text) |character| switch (character) {
        'a'...'z', 'A'...'Z', '0'...'9', '_', '=', '+', '.', '-' => {},
        else => return false,
    };
    return true;
}

fn setNonBlocking(fd: sys.fd_t) usize {
    const flags = linux.fcntl(fd, linux.F.GETFL, 0);
    if (linux.errno(flags) != .SUCCESS) return flags;
    const non_blocking: u32 = @bitCast(linux.O{ .NONBLOCK = true });
    const rc = linux.fcntl(fd, linux.F.SETFL, flags | non_blocking);
    if (linux.errno(rc) != .SUCCESS) return rc;
    return linux.fcntl(fd, linux.F.SETFD, linux.FD_CLOEXEC);
}

// ---- tests -------------------------------------------------------------------------------------------

const testing = std.testing;
const obviousSum = @import("wire").checksum.testing.sum;

/// A TUN in a namespace of its own with 10.9.9.1/24 on it, up.
const Fixture = struct {
    namespace: sys.TestNamespace,
    offload: Offload,
    failure: sys.Failure = .{},
    tun: Tun = undefined,

    const interface = "pywgtest0";

    fn start(fixture: *Fixture, calls: *const sys.Calls, disable_mask: u32) !void {
        fixture.* = .{ .namespace = try .enter(), .offload = .init(disable_mask) };
        errdefer fixture.namespace.leave();
        fixture.tun = Tun.open(calls, interface, &fixture.offload, &fixture.failure) catch |err| switch (err) {
            error.NotFound, error.PermissionDenied => return error.SkipZigTest,
            else => return err,
        };
        try setAddress(linux.SIOCSIFADDR, .{ 10, 9, 9, 1 });
        try setAddress(linux.SIOCSIFNETMASK, .{ 255, 255, 255, 0 });
        try link.setMtu(interface, 1420);
        try sys.TestNamespace.setUp(interface, true);
    }

    fn stop(fixture: *Fixture) void {
        fixture.tun.close();
        fixture.namespace.leave();
    }

    fn setAddress(what: u32, address: [4]u8) !void {
        const socket = udpSocket();
        defer sys.close(socket);
        var request = sys.Ifreq.init(interface).?;
        const name: sys.SockaddrIn = .{ .port = .{ 0, 0 }, .address = address };
        @memcpy(request.value.bytes[0..@sizeOf(sys.SockaddrIn)], std.mem.asBytes(&name));
        try testing.expectEqual(.SUCCESS, linux.errno(linux.ioctl(socket, what, @intFromPtr(&request))));
    }

    /// Waits for what is to be received, but not for ever.
    fn udpSocket() sys.fd_t {
        const socket: sys.fd_t = @intCast(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0));
        // Of two longs, which std's is not on every 32-bit machine.
        const patience: extern struct { sec: isize, usec: isize = 0 } = .{ .sec = patience_ms / std.time.ms_per_s };
        const value = std.mem.asBytes(&patience);
        const errno = linux.errno(linux.setsockopt(socket, linux.SOL.SOCKET, linux.SO.RCVTIMEO, value, value.len));
        assert(errno == .SUCCESS);
        return socket;
    }

    /// A packet that was sent may still be under way: another core sends it when that one has the queue at the moment,
    /// for a router solicitation of the kernel's own. False when nothing came.
    fn waitForPackets(queues: []const *Tun) bool {
        var waiting: [2]linux.pollfd = undefined;
        for (waiting[0..queues.len], queues) |*entry, queue| {
            entry.* = .{ .fd = queue.fd, .events = linux.POLL.IN, .revents = 0 };
        }
        _ = linux.poll(&waiting, @intCast(queues.len), patience_ms);
        for (waiting[0..queues.len]) |entry| if (entry.revents & linux.POLL.IN != 0) return true;
        return false;
    }

    const patience_ms = 10_000;
};

/// IPv4 and UDP headers for `payload_length` bytes from 10.9.9.2 to 10.9.9.1, checksums right.
fn udpPacket(buffer: []u8, payload_length: usize, port: u16, id: u16) []u8 {
    const packet = buffer[0 .. 28 + payload_length];
    @memset(packet, 0x55);
    packet[0..8].* = .{ 0x45, 0, 0, 0, 0, 0, 0x40, 0 };
    packet[8..12].* = .{ 64, 17, 0, 0 };
    packet[12..20].* = .{ 10, 9, 9, 2, 10, 9, 9, 1 };
    std.mem.writeInt(u16, packet[2..4], @intCast(packet.len), .big);
    std.mem.writeInt(u16, packet[4..6], id, .big);
    std.mem.writeInt(u16, packet[10..12], ~obviousSum(packet[0..20], 0), .big);
    std.mem.writeInt(u16, packet[20..22], 1234, .big);
    std.mem.writeInt(u16, packet[22..24], port, .big);
    std.mem.writeInt(u16, packet[24..26], @intCast(8 + payload_length), .big);
    packet[26..28].* = .{ 0, 0 };
    const pseudo = @as(u32, obviousSum(packet[12..20], 0)) + 17 + @as(u32, @intCast(8 + payload_length));
    std.mem.writeInt(u16, packet[26..28], ~obviousSum(packet[20..], pseudo), .big);
    return packet;
}

test "names are checked before the kernel sees them" {
    for ([_][]const u8{ "wg0", "a", "0123456789abcde", "a_=+.-Z" }) |text| try testing.expect(isValidName(text));
    for ([_][]const u8{ "", "0123456789abcdef", "wg%d", "a/b", "a b", ".", "..", "a:1", "\xc3\xa4" }) |text| {
        try testing.expect(!isValidName(text));
    }
    var offload: Offload = .init(0);
    var failure: sys.Failure = .{};
    try testing.expectError(error.InvalidName, Tun.open(&sys.real, "wg%d", &offload, &failure));
}

test "a TUN is made with every offload, down, under its name" {
    var fixture: Fixture = undefined;
    try fixture.start(&sys.real, 0);
    defer fixture.stop();
    try testing.expectEqualStrings(Fixture.interface, fixture.tun.name());
    try testing.expect(fixture.tun.has_vnet_header);
    try testing.expect(fixture.offload.isActive(.tun_tso));
    try testing.expectError(
        error.NameInUse,
        Tun.open(&sys.real, Fixture.interface, &fixture.offload, &fixture.failure),
    );
    try testing.expectEqual(sys.E.BUSY, fixture.failure.errno);
    try testing.expectError(error.NameInUse, Tun.open(&sys.real, "lo", &fixture.offload, &fixture.failure));
}

test "a further queue gets its share from when it is attached until it is detached, and nobody else can take one" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var offload: Offload = .init(0);
    var failure: sys.Failure = .{};
    var first = Tun.openMultiQueue(&sys.real, Fixture.interface, &offload, &failure) catch |err| switch (err) {
        error.NotFound, error.PermissionDenied => return error.SkipZigTest,
        else => return err,
    };
    defer first.close();
    var second = try first.openQueue(&offload, &failure);
    defer second.close();
    try testing.expectError(error.NameInUse, Tun.openMultiQueue(&sys.real, Fixture.interface, &offload, &failure));
    try testing.expectError(error.NameInUse, Tun.open(&sys.real, Fixture.interface, &offload, &failure));
    try Fixture.setAddress(linux.SIOCSIFADDR, .{ 10, 9, 9, 1 });
    try Fixture.setAddress(linux.SIOCSIFNETMASK, .{ 255, 255, 255, 0 });
    try sys.TestNamespace.setUp(Fixture.interface, true);
    const flows = 64;
    _ = try sendFlows(&.{ &first, &second }, flows); // what the kernel itself has to say goes with it
    try testing.expectEqual([2]usize{ flows, 0 }, try sendFlows(&.{ &first, &second }, flows));
    try second.attach();
    const shared = try sendFlows(&.{ &first, &second }, flows);
    try testing.expectEqual(flows, shared[0] + shared[1]);
    // Answers to all of them, written where they are to move nothing.
    var writer = try first.openQueue(&offload, &failure);
    defer writer.close();
    first.writeTo(&writer);
    var answer: [200]u8 = undefined;
    for (0..flows) |i| {
        const packet = udpPacket(&answer, 1, 40_000, @intCast(i));
        std.mem.writeInt(u16, packet[20..22], @intCast(2000 + i), .big);
        try testing.expect(first.writePacket(packet));
    }
    const after = try sendFlows(&.{ &first, &second }, flows);
    try testing.expect(after[0] > 0 and after[1] > 0);
    try testing.expect(shared[0] > 0 and shared[1] > 0);
    second.detach();
    try testing.expectEqual([2]usize{ flows, 0 }, try sendFlows(&.{ &first, &second }, flows));
}

/// One packet to each of so many ports; returns how many came to each queue.
fn sendFlows(queues: *const [2]*Tun, flows: u16) ![2]usize {
    const socket = Fixture.udpSocket();
    defer sys.close(socket);
    const own: sys.SockaddrIn = .{ .port = .{ 0x9c, 0x40 }, .address = .{ 10, 9, 9, 1 } }; // 40 000
    try testing.expectEqual(.SUCCESS, linux.errno(linux.bind(socket, @ptrCast(&own), @sizeOf(sys.SockaddrIn))));
    for (0..flows) |i| {
        var port: [2]u8 = undefined;
        std.mem.writeInt(u16, &port, @intCast(2000 + i), .big);
        const name: sys.SockaddrIn = .{ .port = port, .address = .{ 10, 9, 9, 2 } };
        try testing.expectEqual(
            .SUCCESS,
            linux.errno(linux.sendto(socket, "x", 1, 0, @ptrCast(&name), @sizeOf(sys.SockaddrIn))),
        );
    }
    const buffer = try testing.allocator.alloc(u8, packet_max);
    defer testing.allocator.free(buffer);
    var counts: [2]usize = .{ 0, 0 };
    while (counts[0] + counts[1] < flows and Fixture.waitForPackets(queues)) {
        for (queues, &counts) |queue, *count| {
            while (queue.read(buffer) catch null) |received| {
                if (received.bytes.len == 29) count.* += 1; // ours, not the kernel's own
            }
        }
    }
    return counts;
}

test "kernels without superpackets in tunnels, without USO and without TSO are found out step by step" {
    const Old = struct {
        var accepted: u32 = 0;
        var last: ?u32 = null;
        fn ioctl(fd: sys.fd_t, request: u32, argument: usize) usize {
            if (request != sys.TUNSETOFFLOAD) return linux.ioctl(fd, request, argument);
            last = @intCast(argument);
            return if (argument & ~@as(usize, accepted) == 0) 0 else sys.failWith(.INVAL);
        }
    };
    const calls: sys.Calls = .{ .ioctl = Old.ioctl };
    const tso = sys.TUN_F_CSUM | sys.TUN_F_TSO4 | sys.TUN_F_TSO6;
    const uso = tso | sys.TUN_F_USO4 | sys.TUN_F_USO6;
    for ([_]u32{ uso, tso, 0 }) |accepted| {
        Old.accepted = accepted;
        var fixture: Fixture = undefined;
        try fixture.start(&calls, 0);
        defer fixture.stop();
        try testing.expectEqual(accepted, Old.last.?);
        try testing.expectEqual(.unsupported, fixture.offload.state(.tun_tunnel));
        try testing.expectEqual(VnetHeader.length, fixture.tun.header_length);
        const with_uso: offload_file.State = if (accepted == uso) .active else .unsupported;
        try testing.expectEqual(with_uso, fixture.offload.state(.tun_uso));
        const state: offload_file.State = if (accepted == 0) .unsupported else .active;
        try testing.expectEqual(state, fixture.offload.state(.tun_tso));
    }
}

test "superpackets in tunnels go with TSO, and bring the longer header" {
    for ([_]u32{ 0, Feature.tun_uso.bit(), Feature.tun_tunnel.bit(), Feature.tun_tso.bit() }) |disable_mask| {
        var fixture: Fixture = undefined;
        try fixture.start(&sys.real, disable_mask);
        defer fixture.stop();
        const active = fixture.offload.isActive(.tun_tunnel);
        const wanted: usize = if (active) VnetHeader.tunnel_length else VnetHeader.length;
        try testing.expectEqual(wanted, fixture.tun.header_length);
        var size: c_int = 0;
        const asked = linux.ioctl(fixture.tun.fd, sys.TUNGETVNETHDRSZ, @intFromPtr(&size));
        try testing.expectEqual(.SUCCESS, linux.errno(asked));
        try testing.expectEqual(fixture.tun.header_length, @as(usize, @intCast(size)));
        if (disable_mask & (Feature.tun_tunnel.bit() | Feature.tun_tso.bit()) != 0) try testing.expect(!active);
    }
}

test "permission and other refusals keep their errno" {
    const Refusing = struct {
        var code: sys.E = .PERM;
        fn ioctl(fd: sys.fd_t, request: u32, argument: usize) usize {
            if (request == sys.TUNSETIFF) return sys.failWith(code);
            return linux.ioctl(fd, request, argument);
        }
    };
    const calls: sys.Calls = .{ .ioctl = Refusing.ioctl };
    var offload: Offload = .init(0);
    var failure: sys.Failure = .{};
    for ([_]sys.E{ .PERM, .EXIST, .NOMEM, .INVAL }, [_]OpenError{
        error.PermissionDenied, error.NameInUse, error.SystemResources, error.SystemResources,
    }) |code, expected| {
        Refusing.code = code;
        const opened = Tun.open(&calls, "pywgnone", &offload, &failure);
        // Without access to the device itself there is nothing to refuse.
        if (std.mem.eql(u8, failure.operation, "/dev/net/tun")) return error.SkipZigTest;
        try testing.expectError(expected, opened);
        try testing.expectEqual(code, failure.errno);
    }
}

test "packets written arrive at a socket, packets sent come out of read" {
    for ([_]u32{ 0, 31 }) |disable_mask| {
        var fixture: Fixture = undefined;
        try fixture.start(&sys.real, disable_mask);
        defer fixture.stop();
        const socket = Fixture.udpSocket();
        defer sys.close(socket);
        const name: sys.SockaddrIn = .{ .port = .{ 0x1f, 0x90 }, .address = .{ 10, 9, 9, 1 } };
        try testing.expectEqual(.SUCCESS, linux.errno(sys.real.bind(socket, &name, @sizeOf(sys.SockaddrIn))));
        var buffer: [2000]u8 = undefined;
        try testing.expect(fixture.tun.writePacket(udpPacket(&buffer, 100, 8080, 1)));
        try testing.expectEqual(.{ 1, 128 }, .{ fixture.tun.counters.writes, fixture.tun.counters.written_bytes });
        var payload: [200]u8 = undefined;
        try testing.expectEqual(100, linux.recvfrom(socket, &payload, payload.len, 0, null, null));

        const remote: sys.SockaddrIn align(4) = .{ .port = .{ 0, 9 }, .address = .{ 10, 9, 9, 2 } };
        const to: *const linux.sockaddr = @ptrCast(@alignCast(&remote));
        try testing.expectEqual(100, linux.sendto(socket, &payload, 100, 0, to, @sizeOf(sys.SockaddrIn)));
        const large = try testing.allocator.alloc(u8, packet_max);
        defer testing.allocator.free(large);
        var total: usize = 0;
        while (Fixture.waitForPackets(&.{&fixture.tun})) {
            const received = (try fixture.tun.read(large)).?;
            total += received.bytes.len;
            try testing.expectEqual(total, fixture.tun.counters.read_bytes);
            if (received.bytes.len != 128 or received.bytes[9] != 17) continue; // IPv6 neighbours make noise
            try testing.expectEqual(VnetHeader.GSO_NONE, received.header.gso_type);
            // Without offload the kernel completes the checksum itself.
            const partial = received.header.flags & VnetHeader.NEEDS_CSUM != 0;
            try testing.expectEqual(disable_mask == 0, partial);
            break;
        } else return error.TestUnexpectedResult;
    }
}

test "a superpacket of UDP goes in whole; refused, it goes packet by packet, and then no more is tried" {
    const Refusing = struct {
        var refusing = false;
        var superpackets: usize = 0;
        fn writev(fd: sys.fd_t, vectors: [*]const sys.iovec_const, count: usize) usize {
            if (vectors[0].base[1] != VnetHeader.GSO_NONE) {
                superpackets += 1;
                if (refusing) return sys.failWith(.INVAL);
            }
            return linux.writev(fd, vectors, count);
        }
    };
    const calls: sys.Calls = .{ .writev = Refusing.writev };
    var fixture: Fixture = undefined;
    try fixture.start(&calls, 0);
    defer fixture.stop();
    if (!fixture.offload.isActive(.tun_uso)) return error.SkipZigTest;
    const socket = Fixture.udpSocket();
    defer sys.close(socket);
    const name: sys.SockaddrIn = .{ .port = .{ 0x1f, 0x90 }, .address = .{ 10, 9, 9, 1 } };
    try testing.expectEqual(.SUCCESS, linux.errno(sys.real.bind(socket, &name, @sizeOf(sys.SockaddrIn))));
    var coalescer: gro.Coalescer = try .init(testing.allocator);
    defer coalescer.deinit();
    var buffers: [5][1500]u8 = undefined;
    for (0..5) |round| {
        Refusing.refusing = round > 0;
        coalescer.reset(.{
            .tcp = true,
            .udp = fixture.offload.isActive(.tun_uso),
            .vnet_header_length = @intCast(fixture.tun.header_length),
        });
        for (&buffers, 0..) |*buffer, i| {
            try testing.expect(coalescer.add(udpPacket(buffer, 1000, 8080, @intCast(i))));
        }
        var frames = coalescer.frames();
        while (frames.next()) |frame| try testing.expectEqual(0, fixture.tun.writeFrame(&frame));
        var payload: [1500]u8 = undefined;
        for (0..5) |_| {
            try testing.expectEqual(1000, linux.recvfrom(socket, &payload, payload.len, 0, null, null));
        }
        try testing.expectEqual(round >= 3, !fixture.offload.isActive(.tun_uso));
    }
    try testing.expectEqual(4, Refusing.superpackets); // one taken, three refused, none in the last round
    try testing.expectEqual(3, fixture.offload.counters.tun_resent);
    try testing.expect(fixture.offload.isActive(.tun_tso));
    try testing.expectEqual(0, fixture.tun.counters.write_failed);
}

test "full queues and a TUN that is down cost the frame and nothing else" {
    const Refusing = struct {
        var code: sys.E = .AGAIN;
        var calls_made: usize = 0;
        fn writev(fd: sys.fd_t, vectors: [*]const sys.iovec_const, count: usize) usize {
            _ = .{ fd, vectors, count };
            calls_made += 1;
            return sys.failWith(code);
        }
    };
    const calls: sys.Calls = .{ .writev = Refusing.writev };
    var offload: Offload = .init(0);
    var tun: Tun = .{
        .calls = &calls,
        .offload = &offload,
        .write_fd = -1,
        .fd = -1,
        .has_vnet_header = true,
        .header_length = VnetHeader.length,
    };
    var coalescer: gro.Coalescer = try .init(testing.allocator);
    defer coalescer.deinit();
    var buffers: [5][1500]u8 = undefined;
    for ([_]sys.E{ .AGAIN, .NOBUFS, .IO, .BADFD, .NOMEM, .INVAL }) |code| {
        Refusing.code = code;
        Refusing.calls_made = 0;
        coalescer.reset(.{ .tcp = true, .udp = true });
        for (&buffers, 0..) |*buffer, i| {
            try testing.expect(coalescer.add(udpPacket(buffer, 1000, 8080, @intCast(i))));
        }
        var failed: usize = 0;
        var frames = coalescer.frames();
        while (frames.next()) |frame| failed += tun.writeFrame(&frame);
        try testing.expectEqual(5, failed);
        const tried: usize = if (code == .NOMEM or code == .INVAL) 6 else 1;
        try testing.expectEqual(tried, Refusing.calls_made);
    }
    try testing.expect(offload.isActive(.tun_uso));
    try testing.expect(!tun.writePacket(&buffers[0]));
}

test "down is told by the write, removal by the read" {
    var fixture: Fixture = undefined;
    try fixture.start(&sys.real, 0);
    defer fixture.stop();
    const large = try testing.allocator.alloc(u8, packet_max);
    defer testing.allocator.free(large);
    try sys.TestNamespace.setUp(Fixture.interface, false);
    var buffer: [200]u8 = undefined;
    try testing.expect(!fixture.tun.writePacket(udpPacket(&buffer, 100, 8080, 1)));
    try testing.expectEqual(1, fixture.tun.counters.write_failed);
    // What the kernel itself sent while it was up (router solicitations) can still be read; then nothing, and no error.
    while (try fixture.tun.read(large)) |_| {}
}

test "a descriptor is taken over as it is, with or without vnet headers" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    for ([_]u16{ sys.IFF_VNET_HDR, 0 }) |extra| {
        const opened = linux.open("/dev/net/tun", .{ .ACCMODE = .RDWR }, 0);
        if (linux.errno(opened) != .SUCCESS) return error.SkipZigTest;
        const fd: sys.fd_t = @intCast(opened);
        var request = sys.Ifreq.init("pywgtest1").?;
        request.value.flags = sys.IFF_TUN | sys.IFF_NO_PI | extra;
        try testing.expectEqual(.SUCCESS, linux.errno(linux.ioctl(fd, sys.TUNSETIFF, @intFromPtr(&request))));
        var offload: Offload = .init(0);
        var failure: sys.Failure = .{};
        var tun: Tun = try .fromFd(&sys.real, fd, &offload, &failure);
        defer tun.close();
        sys.close(fd);
        try testing.expectEqual(extra != 0, tun.has_vnet_header);
        try testing.expectEqual(extra != 0, offload.isActive(.tun_tso));
        try testing.expectEqualStrings("pywgtest1", tun.name());
        try sys.TestNamespace.setUp("pywgtest1", true);
        var buffer: [200]u8 = undefined;
        try testing.expect(tun.writePacket(udpPacket(&buffer, 100, 8080, 1)));
        const large = try testing.allocator.alloc(u8, packet_max);
        defer testing.allocator.free(large);
        while (try tun.read(large)) |received| { // and it does not block
            const version = received.bytes[0] >> 4;
            try testing.expect(version == 4 or version == 6);
        }
    }
    var offload: Offload = .init(0);
    var failure: sys.Failure = .{};
    try testing.expectError(error.NotTun, Tun.fromFd(&sys.real, 0, &offload, &failure));
}
