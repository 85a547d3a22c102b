//! The UDP sockets of a device, one for each family on the same port: opening, sharing a port, and receiving trains of
//! equal datagrams by UDP_GRO, with the address they came to and their TOS. How they are sent: udp_send.zig.
//! Knows bytes and addresses; not who the peers are or what the datagrams mean.
//! Invariant: nothing is waited for, and an error of the moment ends nothing.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const control_message = @import("control_message.zig");
const icmp_error = @import("icmp_error.zig");
const GivenSockets = @import("given_sockets.zig").GivenSockets;
const Name = @import("sockaddr.zig").Name;
const Offload = @import("offload.zig").Offload;
const udp_send = @import("udp_send.zig");
const Outgoing = udp_send.Outgoing;
const Pass = udp_send.Pass;
pub const Transmit = udp_send.Transmit;
pub const SendResult = udp_send.SendResult;

const linux = std.os.linux;
const assert = @import("wire").assert;
const Family = wire.Family;

/// Ports tried before giving up, when IPv6 has the one that IPv4 picked.
const port_attempts_max = 100;
pub const OpenError = error{
    AddressInUse,
    PermissionDenied,
    /// Neither family exists here.
    FamilyUnsupported,
    /// Anything else; `Udp.failure` says what.
    SystemResources,
};

/// What went otherwise than planned, and what a system call came to; shown to the user. Of one worker, so plain.
pub const Counters = struct {
    receive_errors: u64 = 0,
    /// Datagrams longer than their slot.
    truncated: u64 = 0,
    source_refused: u64 = 0,
    /// Calls, those that found or sent nothing included, and the datagrams that they came to.
    receive_calls: u64 = 0,
    received: u64 = 0,
    send_calls: u64 = 0,
    sent: u64 = 0,
};

/// What sockets are to be bound to.
pub const BindOptions = struct {
    /// 0: one that the kernel picks.
    port: u16 = 0,
    fwmark: u32 = 0,
    binding: wire.Binding = .{},
    /// How those sockets of ours are bound that have the port and let these bind beside them: `Udp.share`.
    takes_over: ?wire.Binding = null,
};

/// IPv4 and IPv6.
pub const Sockets = [2]?sys.fd_t;

pub fn closeSockets(sockets: *Sockets) void {
    for (sockets) |*socket| {
        if (socket.*) |socket_fd| sys.close(socket_fd);
        socket.* = null;
    }
}

pub const Udp = struct {
    calls: *const sys.Calls,
    offload: *Offload,
    sockets: Sockets = .{ null, null },
    /// Used instead of sockets of our own, if there are some; not ours to close.
    given: GivenSockets = .none,
    /// Asked for. Both directions hold trains of 64 KiB, which the default of 208 KiB counts by their true size.
    buffer_size: c_int = 7 << 20,
    counters: Counters = .{},
    /// Why the last `open` failed.
    failure: sys.Failure = .{},
    /// The one that it was about.
    failed_family: Family = .ipv4,
    outgoing: Outgoing = undefined,
    icmp_guard: icmp_error.Guard = .{},

    /// Opens nothing that stays; asks the kernel what it can, so that the report is true from the start.
    pub fn init(calls: *const sys.Calls, offload: *Offload) Udp {
        var udp: Udp = .{ .calls = calls, .offload = offload };
        for ([_]Family{ .ipv4, .ipv6 }) |family| {
            const socket = udp.openSocket(family) catch continue;
            defer sys.close(socket);
            udp.probeOffload(socket);
            break;
        }
        udp.failure = .{};
        return udp;
    }

    /// Binds both families to one port and returns it. A host without one of the families runs with the other,
    /// unless an address of the missing one was asked for.
    pub fn open(udp: *Udp, options: BindOptions) OpenError!u16 {
        assert(udp.sockets[0] == null and udp.sockets[1] == null);
        errdefer udp.close();
        for (0..port_attempts_max) |_| {
            const bound = udp.openBoth(&options) catch |err| {
                if (err != error.AddressInUse or options.port != 0) return err;
                udp.close();
                continue;
            };
            if (options.fwmark != 0) try udp.setFwmark(options.fwmark);
            return bound;
        }
        return error.AddressInUse;
    }

    /// As `open`, while those in use stay in use.
    pub fn openAside(udp: *Udp, out: *Sockets, options: BindOptions) OpenError!u16 {
        const in_use = udp.sockets;
        defer udp.sockets = in_use;
        udp.sockets = .{ null, null };
        const bound = try udp.open(options);
        out.* = udp.sockets;
        return bound;
    }

    /// Opens beside `leading`, on its port: the kernel then shares out what arrives there (SO_REUSEPORT). `leading`
    /// was bound without it, so that a port in use is found out; nobody else's sockets can be in the group.
    pub fn joinAside(udp: *Udp, out: *Sockets, leading: *const Sockets, options: BindOptions) OpenError!void {
        const in_use = udp.sockets;
        defer udp.sockets = in_use;
        udp.sockets = .{ null, null };
        errdefer udp.close();
        for (leading, [_]Family{ .ipv4, .ipv6 }) |shared, family| {
            try udp.require(shared orelse continue, linux.SOL.SOCKET, linux.SO.REUSEPORT, "SO_REUSEPORT");
            const socket = try udp.openSocket(family);
            errdefer sys.close(socket);
            try udp.require(socket, linux.SOL.SOCKET, linux.SO.REUSEPORT, "SO_REUSEPORT");
            try udp.configure(socket, family);
            _ = try udp.bind(socket, family, &options, options.port);
            udp.sockets[familyIndex(family)] = socket;
        }
        if (options.fwmark != 0) try udp.setFwmark(options.fwmark);
        out.* = udp.sockets;
    }

    /// Lets others of ours bind to the same port beside `sockets`, or no longer. By SO_REUSEPORT, which the kernel
    /// grants to sockets of one user only. SO_REUSEADDR would do as well, but for every user: whoever binds to a more
    /// specific address then gets what is sent there.
    pub fn share(udp: *Udp, sockets: *const Sockets, shares: bool) void {
        for (sockets) |socket| {
            _ = udp.set(socket orelse continue, linux.SOL.SOCKET, linux.SO.REUSEPORT, @intFromBool(shares));
        }
    }

    /// Of `count` sockets on one port, transport data goes to that of its receiver index: its first byte modulo
    /// `count`. All else, and everything where the kernel takes no filter, goes by addresses and ports.
    pub fn steer(udp: *const Udp, leading: *const Sockets, count: u8) void {
        // Offset 0 is the UDP payload. A result that is no socket makes the kernel fall back to its hash.
        const filter = [_]sys.BpfInstruction{
            .{ .code = bpf.ldb_abs, .k = 0 },
            .{ .code = bpf.jeq, .jf = 3, .k = bpf.transport_data },
            .{ .code = bpf.ldb_abs, .k = 4 },
            .{ .code = bpf.mod, .k = count },
            .{ .code = bpf.ret_a, .k = 0 },
            .{ .code = sys.bpf_ret_k, .k = std.math.maxInt(u32) },
        };
        const program: sys.BpfProgram = .{ .length = filter.len, .instructions = &filter };
        for (leading) |socket| {
            _ = udp.calls.setsockopt(
                socket orelse continue,
                linux.SOL.SOCKET,
                linux.SO.ATTACH_REUSEPORT_CBPF,
                std.mem.asBytes(&program),
                @sizeOf(sys.BpfProgram),
            );
        }
    }

    pub fn close(udp: *Udp) void {
        closeSockets(&udp.sockets);
    }

    pub fn isOpen(udp: *const Udp) bool {
        return udp.sockets[0] != null or udp.sockets[1] != null;
    }

    pub fn fd(udp: *const Udp, family: Family) ?sys.fd_t {
        return udp.sockets[familyIndex(family)];
    }

    /// 0 switches the mark off. Needs CAP_NET_ADMIN.
    pub fn setFwmark(udp: *Udp, fwmark: u32) OpenError!void {
        for (udp.sockets) |socket| {
            const rc = udp.set(socket orelse continue, linux.SOL.SOCKET, linux.SO.MARK, @bitCast(fwmark));
            if (rc != .SUCCESS) return udp.fail("SO_MARK", rc);
        }
    }

    // ---- opening -------------------------------------------------------------------------------------

    fn openBoth(udp: *Udp, options: *const BindOptions) OpenError!u16 {
        if (!udp.given.isEmpty()) return udp.openGiven();
        const port = try udp.openFamily(.ipv4, options, options.port) orelse options.port;
        return try udp.openFamily(.ipv6, options, port) orelse {
            if (udp.fd(.ipv4) == null) return error.FamilyUnsupported;
            return port;
        };
    }

    /// Whoever has made them has bound them.
    fn openGiven(udp: *Udp) OpenError!u16 {
        udp.sockets = udp.given.borrow() catch return udp.fail("fcntl(F_DUPFD_CLOEXEC)", .MFILE);
        for (udp.sockets, [_]Family{ .ipv4, .ipv6 }) |socket, family| {
            const own = socket orelse continue;
            udp.failed_family = family;
            if (linux.errno(linux.fcntl(own, linux.F.SETFL, nonblock)) != .SUCCESS) return udp.fail("F_SETFL", .IO);
            try udp.configure(own, family);
        }
        return udp.given.port;
    }

    const nonblock: usize = @as(u32, @bitCast(linux.O{ .NONBLOCK = true }));

    /// The port; null where the family is not wanted, or on a host without it.
    fn openFamily(udp: *Udp, family: Family, options: *const BindOptions, port: u16) OpenError!?u16 {
        const addresses = &options.binding.addresses;
        if (!addresses.admit(family)) return null;
        udp.failed_family = family;
        const socket = udp.openSocket(family) catch |err| {
            return if (err == error.FamilyUnsupported and addresses.isEmpty()) null else err;
        };
        errdefer sys.close(socket);
        try udp.configure(socket, family);
        const bound = try udp.bind(socket, family, options, port);
        udp.sockets[familyIndex(family)] = socket;
        return bound;
    }

    fn openSocket(udp: *Udp, family: Family) OpenError!sys.fd_t {
        const domain: u32 = switch (family) {
            .ipv4 => linux.AF.INET,
            .ipv6 => linux.AF.INET6,
        };
        const kind = linux.SOCK.DGRAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
        return switch (sys.result(udp.calls.socket(domain, kind, 0))) {
            .value => |socket| @intCast(socket),
            .failure => |code| udp.fail("socket", code),
        };
    }

    fn configure(udp: *Udp, socket: sys.fd_t, family: Family) OpenError!void {
        const IP = linux.IPPROTO.IP;
        const IPV6 = linux.IPPROTO.IPV6;
        switch (family) {
            .ipv4 => {
                try udp.require(socket, IP, linux.IP.PKTINFO, "IP_PKTINFO");
                _ = udp.set(socket, IP, linux.IP.RECVTOS, 1); // without it ECN is not carried, no more
                // No DF on the outer packet, as the kernel's driver has it: a tunnel that fragments beats
                // one that goes silent where ICMP is filtered. GSO sends cannot be fragmented: `Offload.refuseGso`.
                _ = udp.set(socket, IP, linux.IP.MTU_DISCOVER, linux.IP.PMTUDISC_DONT);
                _ = udp.set(socket, IP, linux.IP.RECVERR, 1); // what the network answers is told to users, no more
            },
            .ipv6 => {
                // One that is given says so, and cannot be told any more.
                if (udp.given.isEmpty()) try udp.require(socket, IPV6, linux.IPV6.V6ONLY, "IPV6_V6ONLY");
                try udp.require(socket, IPV6, linux.IPV6.RECVPKTINFO, "IPV6_RECVPKTINFO");
                _ = udp.set(socket, IPV6, linux.IPV6.RECVTCLASS, 1);
                _ = udp.set(socket, IPV6, linux.IPV6.MTU_DISCOVER, linux.IPV6.PMTUDISC_DONT);
                _ = udp.set(socket, IPV6, linux.IPV6.RECVERR, 1);
            },
        }
        udp.growBuffer(socket, linux.SO.RCVBUFFORCE, linux.SO.RCVBUF);
        udp.growBuffer(socket, linux.SO.SNDBUFFORCE, linux.SO.SNDBUF);
        udp.probeOffload(socket);
    }

    /// The forcing form goes beyond net.core.[rw]mem_max, and needs CAP_NET_ADMIN.
    fn growBuffer(udp: *Udp, socket: sys.fd_t, force: u32, plain: u32) void {
        if (udp.set(socket, linux.SOL.SOCKET, force, udp.buffer_size) == .SUCCESS) return;
        _ = udp.set(socket, linux.SOL.SOCKET, plain, udp.buffer_size);
    }

    /// UDP_GRO must be readable, not only settable: it is not before 5.12, and GRO is unsound there.
    fn probeOffload(udp: *Udp, socket: sys.fd_t) void {
        const UDP = linux.IPPROTO.UDP;
        if (udp.offload.isActive(.udp_gso)) {
            const probed = udp.get(socket, UDP, linux.UDP.SEGMENT);
            if (probed == .failure) udp.offload.setUnsupported(.udp_gso, probed.failure);
        }
        if (!udp.offload.isActive(.udp_gro)) return;
        const errno = udp.set(socket, UDP, linux.UDP.GRO, 1);
        if (errno != .SUCCESS) return udp.offload.setUnsupported(.udp_gro, errno);
        switch (udp.get(socket, UDP, linux.UDP.GRO)) {
            .value => {},
            .failure => |code| {
                _ = udp.set(socket, UDP, linux.UDP.GRO, 0);
                udp.offload.setUnsupported(.udp_gro, code);
            },
        }
    }

    fn bind(udp: *Udp, socket: sys.fd_t, family: Family, options: *const BindOptions, port: u16) OpenError!u16 {
        // Before the bind: the same port is free on each interface, and a link-local address means this one's.
        try udp.bindInterface(socket, &options.binding.interface);
        var name: Name = undefined;
        const any: wire.Address = .{ .family = family, .bytes = @splat(0) };
        var length = name.set(.{ .address = options.binding.addresses.get(family) orelse any, .port = port });
        var errno = linux.errno(udp.calls.bind(socket, &name, length));
        if (errno == .ADDRINUSE and isInOurWay(options, family)) {
            try udp.require(socket, linux.SOL.SOCKET, linux.SO.REUSEPORT, "SO_REUSEPORT");
            errno = linux.errno(udp.calls.bind(socket, &name, length));
        }
        if (errno != .SUCCESS) return udp.fail("bind", errno);
        const got = linux.errno(linux.getsockname(socket, @ptrCast(&name), &length));
        if (got != .SUCCESS) return udp.fail("getsockname", got);
        return (name.get() orelse return udp.fail("getsockname", .INVAL)).port;
    }

    /// Whether it may be our own sockets that have the port. If they cannot, SO_REUSEPORT would let us into the group
    /// of another program of this user.
    fn isInOurWay(options: *const BindOptions, family: Family) bool {
        const ours = if (options.takes_over) |*binding| binding else return false;
        return ours.overlaps(&options.binding, family);
    }

    /// An interface, or a VRF by the name of its master. Needs CAP_NET_RAW before Linux 5.7.
    fn bindInterface(udp: *Udp, socket: sys.fd_t, interface: *const wire.binding.InterfaceName) OpenError!void {
        if (interface.isEmpty()) return;
        const text = interface.slice();
        const rc = udp.calls.setsockopt(socket, linux.SOL.SOCKET, linux.SO.BINDTODEVICE, text.ptr, @intCast(text.len));
        if (linux.errno(rc) != .SUCCESS) return udp.fail("SO_BINDTODEVICE", linux.errno(rc));
    }

    fn set(udp: *Udp, socket: sys.fd_t, level: i32, option: u32, value: c_int) sys.E {
        return linux.errno(udp.calls.setsockopt(socket, level, option, std.mem.asBytes(&value), @sizeOf(c_int)));
    }

    fn get(udp: *Udp, socket: sys.fd_t, level: i32, option: u32) sys.Result {
        var value: c_int = 0;
        var length: linux.socklen_t = @sizeOf(c_int);
        return sys.result(udp.calls.getsockopt(socket, level, option, std.mem.asBytes(&value), &length));
    }

    fn require(udp: *Udp, socket: sys.fd_t, level: i32, option: u32, name: []const u8) OpenError!void {
        const errno = udp.set(socket, level, option, 1);
        if (errno != .SUCCESS) return udp.fail(name, errno);
    }

    fn fail(udp: *Udp, operation: []const u8, errno: sys.E) OpenError {
        udp.failure.set(operation, errno);
        return switch (errno) {
            .ADDRINUSE => error.AddressInUse,
            .PERM, .ACCES => error.PermissionDenied,
            .AFNOSUPPORT, .PFNOSUPPORT, .PROTONOSUPPORT => error.FamilyUnsupported,
            else => error.SystemResources,
        };
    }

    // ---- receiving -----------------------------------------------------------------------------------

    /// Fills slots of `batch` with what has arrived, without waiting; returns how many. Errors of the
    /// moment (an ICMP answer to something we sent, memory) are counted and end nothing.
    pub fn receive(udp: *Udp, family: Family, batch: *ReceiveBatch) usize {
        const socket = udp.fd(family) orelse return 0;
        batch.prepare();
        const rc = udp.calls.recvmmsg(socket, &batch.messages, @intCast(batch.slots()), linux.MSG.DONTWAIT);
        udp.counters.receive_calls += 1;
        const count = switch (sys.result(rc)) {
            .value => |count| count,
            .failure => |code| {
                if (code != .AGAIN and code != .INTR) udp.counters.receive_errors += 1;
                return 0;
            },
        };
        assert(count <= batch.slots());
        for (0..count) |i| {
            batch.take(i);
            if (batch.datagrams[i].truncated) udp.counters.truncated += 1;
            udp.counters.received += batch.datagrams[i].count();
        }
        return count;
    }

    // ---- what the network answers --------------------------------------------------------------------

    /// Null when there is none, or there were too many lately: then the kernel keeps them until `hearAgain`.
    pub fn nextIcmpError(udp: *Udp, family: Family, now_ns: u64) ?icmp_error.IcmpError {
        const socket = udp.fd(family) orelse return null;
        while (icmp_error.next(udp.calls, socket)) |message| {
            if (!udp.icmp_guard.allows(now_ns)) {
                udp.icmp_guard.is_deaf = true;
                udp.hearErrors(0); // those that wait go, too
                return null;
            }
            switch (message) {
                .told => |found| return found,
                .other => {},
            }
        }
        return null;
    }

    /// Call where an answer of the network is worth hearing again.
    pub fn hearAgain(udp: *Udp, now_ns: u64) void {
        if (!udp.icmp_guard.isRested(now_ns)) return;
        udp.icmp_guard.is_deaf = false;
        udp.hearErrors(1);
    }

    fn hearErrors(udp: *Udp, value: c_int) void {
        if (udp.fd(.ipv4)) |socket| _ = udp.set(socket, linux.IPPROTO.IP, linux.IP.RECVERR, value);
        if (udp.fd(.ipv6)) |socket| _ = udp.set(socket, linux.IPPROTO.IPV6, linux.IPV6.RECVERR, value);
    }

    // ---- sending -------------------------------------------------------------------------------------

    /// Sends all it can, now. Sources that the kernel refused are cleared in `transmits`.
    pub fn send(udp: *Udp, transmits: []Transmit, now_ns: u64) SendResult {
        var total: SendResult = .{};
        // A destination has one family, so two passes keep its order and share system calls better than one.
        for ([_]Family{ .ipv4, .ipv6 }) |family| {
            var pass: Pass = .{
                .calls = udp.calls,
                .offload = udp.offload,
                .socket = udp.fd(family),
                .outgoing = &udp.outgoing,
                .transmits = transmits,
                .family = family,
                .now_ns = now_ns,
                .result = &total,
            };
            pass.run();
            udp.counters.source_refused += pass.sources_refused;
            udp.counters.send_calls += pass.calls_made;
        }
        udp.counters.sent += total.sent_datagrams;
        return total;
    }
};

const bpf = struct {
    const ldb_abs: u16 = 0x30;
    const jeq: u16 = 0x15;
    const mod: u16 = 0x94;
    const ret_a: u16 = 0x16;
    /// The type of the message, its first byte (whitepaper section 5.4.6).
    const transport_data = 4;
};

fn familyIndex(family: Family) usize {
    return switch (family) {
        .ipv4 => 0,
        .ipv6 => 1,
    };
}

/// What one receive found in a slot.
pub const Received = struct {
    /// In the slot: decrypt in place.
    bytes: []u8,
    /// 0 for a single datagram; else `bytes` is a train of this size, the last perhaps shorter.
    segment_size: u16,
    endpoint: wire.Endpoint,
    ecn: u2,
    /// Part of it is lost: drop it.
    truncated: bool,

    /// Datagrams in it.
    fn count(received: *const Received) usize {
        if (received.segment_size == 0) return 1;
        return (received.bytes.len + received.segment_size - 1) / received.segment_size;
    }
};

/// Slots for one recvmmsg, each with room for the longest train, allocated once.
pub const ReceiveBatch = struct {
    pub const slots_max = 16;
    /// A train is at most 65 535 bytes; with less room the kernel cuts it off without a word.
    pub const slot_size = 65_536;

    arena: []align(64) u8,
    datagrams: [slots_max]Received = undefined,
    messages: [slots_max]linux.mmsghdr = undefined,
    vectors: [slots_max]sys.iovec = undefined,
    names: [slots_max]Name = undefined,
    controls: [slots_max][control_message.receive_capacity]u8 align(control_message.alignment) = undefined,

    pub fn init(allocator: std.mem.Allocator, count: usize) error{OutOfMemory}!ReceiveBatch {
        assert(count >= 1 and count <= slots_max);
        return .{ .arena = try allocator.alignedAlloc(u8, .@"64", count * slot_size) };
    }

    /// As many as are taken at once.
    pub fn slots(batch: *const ReceiveBatch) usize {
        return batch.arena.len / slot_size;
    }

    pub fn deinit(batch: *ReceiveBatch, allocator: std.mem.Allocator) void {
        std.crypto.secureZero(u8, batch.arena); // packets were decrypted in place
        allocator.free(batch.arena);
        batch.* = undefined;
    }

    fn slot(batch: *ReceiveBatch, i: usize) []u8 {
        return batch.arena[i * slot_size ..][0..slot_size];
    }

    /// The kernel writes lengths into the headers, so they are set anew each time: a stale controllen
    /// hides the segment size, and a train then looks like one long datagram.
    fn prepare(batch: *ReceiveBatch) void {
        for (0..batch.slots()) |i| {
            batch.vectors[i] = .{ .base = batch.slot(i).ptr, .len = slot_size };
            batch.messages[i] = .{ .hdr = .{
                .name = @ptrCast(&batch.names[i]),
                .namelen = @sizeOf(Name),
                .iov = batch.vectors[i..].ptr,
                .iovlen = 1,
                .control = &batch.controls[i],
                .controllen = control_message.receive_capacity,
                .flags = 0,
            }, .len = 0 };
        }
    }

    fn take(batch: *ReceiveBatch, i: usize) void {
        const message = &batch.messages[i];
        const length = @min(message.len, slot_size);
        const control_length = @min(message.hdr.controllen, control_message.receive_capacity);
        const parsed = control_message.parse(batch.controls[i][0..control_length]);
        const remote = batch.names[i].get();
        batch.datagrams[i] = .{
            .bytes = batch.slot(i)[0..length],
            .segment_size = if (parsed.segment_size < length) parsed.segment_size else 0,
            .endpoint = .{ .remote = remote orelse nowhere, .source = parsed.source },
            .ecn = @truncate(parsed.tos),
            // Cut control data may have lost the segment size: then the bytes cannot be split either.
            .truncated = remote == null or message.hdr.flags & (linux.MSG.TRUNC | linux.MSG.CTRUNC) != 0,
        };
    }

    const nowhere: wire.SocketAddress = .{ .address = .fromIpv4(@splat(0)), .port = 0 };
};

// ---- tests -------------------------------------------------------------------------------------------

const testing = std.testing;

test "a port taken in one family is in use, and a picked one is free in both" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var offload: Offload = .init(0);
    var first: Udp = .init(&sys.real, &offload);
    const port = try first.open(.{});
    defer first.close();
    try testing.expect(port != 0);
    var second: Udp = .init(&sys.real, &offload);
    try testing.expectError(error.AddressInUse, second.open(.{ .port = port }));
    try testing.expectEqual(sys.E.ADDRINUSE, second.failure.errno);
    try testing.expectEqual(null, second.fd(.ipv4));
    if (first.fd(.ipv6) == null) return;
    sys.close(first.sockets[0].?); // now taken in IPv6 only
    first.sockets[0] = null;
    try testing.expectError(error.AddressInUse, second.open(.{ .port = port }));
    try testing.expectEqual(null, second.fd(.ipv4));
}

test "a picked port that IPv6 has is given back and another is picked" {
    const Taken = struct {
        var refusals: usize = 0;
        fn bind(fd: sys.fd_t, address: *const anyopaque, length: linux.socklen_t) usize {
            if (length == @sizeOf(sys.SockaddrIn6) and refusals > 0) {
                refusals -= 1;
                return sys.failWith(.ADDRINUSE);
            }
            return sys.real.bind(fd, address, length);
        }
    };
    const calls: sys.Calls = .{ .bind = Taken.bind };
    var offload: Offload = .init(0);
    var udp: Udp = .init(&calls, &offload);
    Taken.refusals = 5;
    _ = try udp.open(.{});
    udp.close();
    if (Taken.refusals != 0) return error.SkipZigTest; // no IPv6 here
    Taken.refusals = 1000;
    try testing.expectError(error.AddressInUse, udp.open(.{}));
    try testing.expectEqual(1000 - port_attempts_max, Taken.refusals);
}

test "a host with one family runs with it, a host with none says so" {
    const Missing = struct {
        var family: ?u32 = null;
        fn socket(domain: u32, kind: u32, protocol: u32) usize {
            if (family == null or domain == family) return sys.failWith(.AFNOSUPPORT);
            return linux.socket(domain, kind, protocol);
        }
    };
    const calls: sys.Calls = .{ .socket = Missing.socket };
    var offload: Offload = .init(0);
    for ([_]u32{ linux.AF.INET, linux.AF.INET6 }) |missing| {
        Missing.family = missing;
        var udp: Udp = .init(&calls, &offload);
        const port = udp.open(.{}) catch |err| {
            try testing.expectEqual(error.FamilyUnsupported, err); // this host has no IPv6 itself
            continue;
        };
        defer udp.close();
        try testing.expect(port != 0);
        try testing.expectEqual(missing == linux.AF.INET, udp.fd(.ipv4) == null);
    }
    Missing.family = null;
    var udp: Udp = .init(&calls, &offload);
    try testing.expectError(error.FamilyUnsupported, udp.open(.{}));
}

test "features that the kernel lacks are unsupported, and nothing fails for it" {
    const Old = struct {
        fn getsockopt(fd: sys.fd_t, level: i32, name: u32, value: [*]u8, length: *linux.socklen_t) usize {
            if (level == linux.IPPROTO.UDP) return sys.failWith(.NOPROTOOPT);
            return sys.real.getsockopt(fd, level, name, value, length);
        }
    };
    const calls: sys.Calls = .{ .getsockopt = Old.getsockopt };
    var offload: Offload = .init(0);
    var udp: Udp = .init(&calls, &offload);
    try testing.expectEqual(.unsupported, offload.state(.udp_gso));
    try testing.expectEqual(.unsupported, offload.state(.udp_gro));
    _ = try udp.open(.{});
    udp.close();
}

test "the firewall mark is set on open and changed later" {
    var offload: Offload = .init(0);
    var udp: Udp = .init(&sys.real, &offload);
    _ = udp.open(.{ .fwmark = 0xca6c }) catch |err| {
        if (err == error.PermissionDenied) return error.SkipZigTest;
        return err;
    };
    defer udp.close();
    for ([_]u32{ 0xca6c, 0, 0xffff_ffff }) |mark| {
        try udp.setFwmark(mark);
        for (udp.sockets) |socket| {
            const got = udp.get(socket orelse continue, linux.SOL.SOCKET, linux.SO.MARK);
            try testing.expect(got == .value);
        }
    }
}
