//! The UDP sockets of a device, one for each family on the same port, and what they carry: trains of
//! equal datagrams sent by UDP_SEGMENT and received by UDP_GRO, with their source address and TOS.
//! Knows bytes and addresses; not who the peers are or what the datagrams mean.
//! Invariant: a datagram that the kernel refuses costs itself only. Nothing is waited for, nothing is
//! tried without end, and datagrams to one destination leave in the order they were given.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const control_message = @import("control_message.zig");
const Offload = @import("offload.zig").Offload;

const linux = std.os.linux;
const assert = std.debug.assert;
const Family = wire.Family;

/// UDP_MAX_SEGMENTS of every kernel before 6.10, and UDP_GRO_CNT_MAX of all.
pub const segments_max = 64;

/// The longest UDP payload: 65 535 less the UDP header, and for IPv4 less the IP header too.
pub fn payloadMax(family: Family) usize {
    return switch (family) {
        .ipv4 => 65_507,
        .ipv6 => 65_527,
    };
}

/// Both directions hold trains of 64 KiB, which the default of 208 KiB counts by their true size.
const buffer_size: c_int = 7 << 20;
/// Ports tried before giving up, when IPv6 has the one that IPv4 picked.
const port_attempts_max = 100;
/// EINTR cannot happen to a non-blocking send; if it does, not more often than this.
const interrupts_max = 16;

pub const OpenError = error{
    AddressInUse,
    PermissionDenied,
    /// Neither family exists here.
    FamilyUnsupported,
    /// Anything else; `Udp.failure` says what.
    SystemResources,
};

/// What one send carries: a datagram, or a train of them.
pub const Transmit = struct {
    bytes: []const u8,
    /// Longer than this, the bytes are a train: datagrams of this size, the last perhaps shorter. 0: one datagram.
    segment_size: u16,
    endpoint: wire.Endpoint,
    /// DSCP and ECN of the outer header.
    tos: u8 = 0,
    /// Set by `send` when the kernel no longer has the source; `endpoint.source` is null then.
    source_refused: bool = false,

    /// Datagrams on the wire that `length` bytes of it make.
    fn segments(transmit: *const Transmit, length: usize) u64 {
        if (transmit.segment_size == 0 or length == 0) return 1;
        return std.math.divCeil(usize, length, transmit.segment_size) catch unreachable;
    }
};

pub const SendResult = struct {
    sent_datagrams: u64 = 0,
    failed_datagrams: u64 = 0,
    /// Of the last failure, SUCCESS if none.
    last_errno: sys.E = .SUCCESS,
    /// Some datagram has `source_refused` set.
    any_source_refused: bool = false,
};

/// What went otherwise than planned; shown to the user.
pub const Counters = struct {
    receive_errors: u64 = 0,
    /// Datagrams longer than their slot.
    truncated: u64 = 0,
    source_refused: u64 = 0,
};

/// What sockets are to be bound to.
pub const BindOptions = struct {
    /// 0: one that the kernel picks.
    port: u16 = 0,
    fwmark: u32 = 0,
    binding: wire.Binding = .{},
    /// Sockets of ours have the port, and let these bind beside them: `Udp.yield`.
    takes_over: bool = false,
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
    counters: Counters = .{},
    /// Why the last `open` failed.
    failure: sys.Failure = .{},
    /// The one that it was about.
    failed_family: Family = .ipv4,
    outgoing: Outgoing = undefined,

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

    /// Lets others of ours bind to the same port beside these (`BindOptions.takes_over`), or no longer. SO_REUSEADDR has
    /// to be set on both sides, so a stranger's socket still refuses them. `shared`: these have SO_REUSEPORT, which is
    /// off meanwhile, or a socket that joins the new ones might come into the group of the old.
    pub fn yield(udp: *Udp, yields: bool, shared: bool) void {
        for (udp.sockets) |socket| {
            _ = udp.set(socket orelse continue, linux.SOL.SOCKET, linux.SO.REUSEADDR, @intFromBool(yields));
            if (shared) _ = udp.set(socket.?, linux.SOL.SOCKET, linux.SO.REUSEPORT, @intFromBool(!yields));
        }
    }

    /// Of `count` sockets on one port, transport data goes to that of its receiver index: its first byte modulo
    /// `count`. All else, and everything where the kernel takes no filter, goes by addresses and ports.
    pub fn steer(udp: *const Udp, leading: *const Sockets, count: u8) void {
        // Offset 0 is the UDP payload. A result that is no socket makes the kernel fall back to its hash.
        const filter = [_]BpfInstruction{
            .{ .code = bpf.ldb_abs, .k = 0 },
            .{ .code = bpf.jeq, .jf = 3, .k = bpf.transport_data },
            .{ .code = bpf.ldb_abs, .k = 4 },
            .{ .code = bpf.mod, .k = count },
            .{ .code = bpf.ret_a, .k = 0 },
            .{ .code = bpf.ret_k, .k = std.math.maxInt(u32) },
        };
        const program: BpfProgram = .{ .length = filter.len, .instructions = &filter };
        for (leading) |socket| {
            _ = udp.calls.setsockopt(socket orelse continue, linux.SOL.SOCKET, linux.SO.ATTACH_REUSEPORT_CBPF, std.mem.asBytes(&program), @sizeOf(BpfProgram));
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
        const port = try udp.openFamily(.ipv4, options, options.port) orelse options.port;
        return try udp.openFamily(.ipv6, options, port) orelse {
            if (udp.fd(.ipv4) == null) return error.FamilyUnsupported;
            return port;
        };
    }

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
            },
            .ipv6 => {
                try udp.require(socket, IPV6, linux.IPV6.V6ONLY, "IPV6_V6ONLY");
                try udp.require(socket, IPV6, linux.IPV6.RECVPKTINFO, "IPV6_RECVPKTINFO");
                _ = udp.set(socket, IPV6, linux.IPV6.RECVTCLASS, 1);
                _ = udp.set(socket, IPV6, linux.IPV6.MTU_DISCOVER, linux.IPV6.PMTUDISC_DONT);
            },
        }
        udp.growBuffer(socket, linux.SO.RCVBUFFORCE, linux.SO.RCVBUF);
        udp.growBuffer(socket, linux.SO.SNDBUFFORCE, linux.SO.SNDBUF);
        udp.probeOffload(socket);
    }

    /// The forcing form goes beyond net.core.[rw]mem_max, and needs CAP_NET_ADMIN.
    fn growBuffer(udp: *Udp, socket: sys.fd_t, force: u32, plain: u32) void {
        if (udp.set(socket, linux.SOL.SOCKET, force, buffer_size) == .SUCCESS) return;
        _ = udp.set(socket, linux.SOL.SOCKET, plain, buffer_size);
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
        if (options.takes_over) try udp.require(socket, linux.SOL.SOCKET, linux.SO.REUSEADDR, "SO_REUSEADDR");
        // Before the bind: the same port is free on each interface, and a link-local address means this one's.
        try udp.bindInterface(socket, &options.binding.interface);
        var name: Name = undefined;
        const any: wire.Address = .{ .family = family, .bytes = @splat(0) };
        var length = name.set(.{ .address = options.binding.addresses.get(family) orelse any, .port = port });
        const rc = udp.calls.bind(socket, &name, length);
        if (linux.errno(rc) != .SUCCESS) return udp.fail("bind", linux.errno(rc));
        if (options.takes_over) _ = udp.set(socket, linux.SOL.SOCKET, linux.SO.REUSEADDR, 0);
        const got = linux.errno(linux.getsockname(socket, @ptrCast(&name), &length));
        if (got != .SUCCESS) return udp.fail("getsockname", got);
        return (name.get() orelse return udp.fail("getsockname", .INVAL)).port;
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
        const rc = udp.calls.recvmmsg(socket, &batch.messages, ReceiveBatch.slots, linux.MSG.DONTWAIT);
        const count = switch (sys.result(rc)) {
            .value => |count| count,
            .failure => |code| {
                if (code != .AGAIN and code != .INTR) udp.counters.receive_errors += 1;
                return 0;
            },
        };
        assert(count <= ReceiveBatch.slots);
        for (0..count) |i| {
            batch.take(i);
            if (batch.datagrams[i].truncated) udp.counters.truncated += 1;
        }
        return count;
    }

    // ---- sending -------------------------------------------------------------------------------------

    /// Sends all it can, now. Sources that the kernel refused are cleared in `transmits`.
    pub fn send(udp: *Udp, transmits: []Transmit, now_ns: u64) SendResult {
        var total: SendResult = .{};
        // A destination has one family, so two passes keep its order and share system calls better than one.
        for ([_]Family{ .ipv4, .ipv6 }) |family| {
            var pass: Pass = .{
                .udp = udp,
                .transmits = transmits,
                .family = family,
                .now_ns = now_ns,
                .result = &total,
            };
            pass.run();
        }
        return total;
    }
};

/// <linux/filter.h>: struct sock_filter and struct sock_fprog.
const BpfInstruction = extern struct { code: u16, jt: u8 = 0, jf: u8 = 0, k: u32 };
const BpfProgram = extern struct { length: u16, instructions: [*]const BpfInstruction };
const bpf = struct {
    const ldb_abs: u16 = 0x30;
    const jeq: u16 = 0x15;
    const mod: u16 = 0x94;
    const ret_a: u16 = 0x16;
    const ret_k: u16 = 0x06;
    /// The type of the message, its first byte (whitepaper section 5.4.6).
    const transport_data = 4;
};

fn familyIndex(family: Family) usize {
    return switch (family) {
        .ipv4 => 0,
        .ipv6 => 1,
    };
}

/// Room for the socket address of either family.
const Name = extern union {
    family: u16,
    ipv4: sys.SockaddrIn,
    ipv6: sys.SockaddrIn6,

    fn set(name: *Name, remote: wire.SocketAddress) linux.socklen_t {
        var port: [2]u8 = undefined;
        std.mem.writeInt(u16, &port, remote.port, .big);
        switch (remote.address.family) {
            .ipv4 => {
                name.ipv4 = .{ .port = port, .address = remote.address.bytes[0..4].* };
                return @sizeOf(sys.SockaddrIn);
            },
            .ipv6 => {
                name.ipv6 = .{ .port = port, .address = remote.address.bytes, .scope_id = remote.scope_id };
                return @sizeOf(sys.SockaddrIn6);
            },
        }
    }

    fn get(name: *const Name) ?wire.SocketAddress {
        return switch (name.family) {
            linux.AF.INET => .{
                .address = .fromIpv4(name.ipv4.address),
                .port = std.mem.readInt(u16, &name.ipv4.port, .big),
            },
            linux.AF.INET6 => .{
                .address = .fromIpv6(name.ipv6.address),
                .port = std.mem.readInt(u16, &name.ipv6.port, .big),
                .scope_id = name.ipv6.scope_id,
            },
            else => null,
        };
    }
};

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
};

/// Slots for one recvmmsg, each with room for the longest train, allocated once.
pub const ReceiveBatch = struct {
    pub const slots = 16;
    /// A train is at most 65 535 bytes; with less room the kernel cuts it off without a word.
    pub const slot_size = 65_536;

    arena: []align(64) u8,
    datagrams: [slots]Received = undefined,
    messages: [slots]linux.mmsghdr = undefined,
    vectors: [slots]sys.iovec = undefined,
    names: [slots]Name = undefined,
    controls: [slots][control_message.receive_capacity]u8 align(control_message.alignment) = undefined,

    pub fn init(allocator: std.mem.Allocator) error{OutOfMemory}!ReceiveBatch {
        return .{ .arena = try allocator.alignedAlloc(u8, .@"64", slots * slot_size) };
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
        for (0..slots) |i| {
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

/// The arrays of one sendmmsg.
const Outgoing = struct {
    const capacity = 64;

    pieces: [capacity]Piece,
    messages: [capacity]linux.mmsghdr,
    vectors: [capacity]sys.iovec,
    names: [capacity]Name,
    controls: [capacity][control_message.send_capacity]u8 align(control_message.alignment),
};

/// What one message carries: a train, a part of one, or a single datagram.
const Piece = struct {
    transmit: usize,
    offset: usize,
    length: usize,
    is_train: bool,
};

/// The next byte to send.
const Cursor = struct {
    transmit: usize = 0,
    offset: usize = 0,
};

/// One walk over the datagrams of one family: fill a chunk, send it, judge what failed, go on from there.
const Pass = struct {
    udp: *Udp,
    transmits: []Transmit,
    family: Family,
    now_ns: u64,
    result: *SendResult,
    cursor: Cursor = .{},
    /// EINVAL on a train with a sticky source means either that GSO does not fit the path or that the
    /// source is gone. The first datagram of the train, sent alone, tells which.
    suspect: ?usize = null,
    interrupts: u32 = 0,

    fn run(pass: *Pass) void {
        while (true) {
            const count = pass.fill();
            if (count == 0) return;
            pass.sendChunk(count);
        }
    }

    // ---- filling a chunk

    fn fill(pass: *Pass) usize {
        var count: usize = 0;
        var cursor = pass.cursor;
        while (count < Outgoing.capacity and cursor.transmit < pass.transmits.len) {
            const transmit = &pass.transmits[cursor.transmit];
            if (transmit.endpoint.remote.address.family != pass.family) {
                assert(cursor.offset == 0);
                cursor.transmit += 1;
                continue;
            }
            const piece = pass.nextPiece(cursor);
            pass.place(count, piece);
            count += 1;
            cursor.offset += piece.length;
            if (cursor.offset >= transmit.bytes.len) cursor = .{ .transmit = cursor.transmit + 1 };
            if (pass.suspect == piece.transmit) break;
        }
        return count;
    }

    fn nextPiece(pass: *Pass, cursor: Cursor) Piece {
        const transmit = &pass.transmits[cursor.transmit];
        const rest = transmit.bytes.len - cursor.offset;
        var piece: Piece = .{
            .transmit = cursor.transmit,
            .offset = cursor.offset,
            .length = rest,
            .is_train = false,
        };
        const size = transmit.segment_size;
        if (size == 0 or rest <= size) return piece;
        const segments = @min(segments_max, payloadMax(pass.family) / size);
        const gso = pass.suspect != cursor.transmit and
            pass.udp.offload.gsoAllowed(transmit.endpoint.remote, pass.now_ns);
        piece.is_train = gso and segments >= 2;
        piece.length = if (piece.is_train) @min(rest, segments * size) else size;
        return piece;
    }

    fn place(pass: *Pass, i: usize, piece: Piece) void {
        const out = &pass.udp.outgoing;
        const transmit = &pass.transmits[piece.transmit];
        out.pieces[i] = piece;
        // The kernel only reads; struct iovec has no const.
        out.vectors[i] = .{ .base = @constCast(transmit.bytes.ptr + piece.offset), .len = piece.length };
        var builder: control_message.Builder = .{ .buffer = &out.controls[i] };
        if (transmit.endpoint.source) |source| {
            if (source.address.family == pass.family) builder.putSource(source);
        }
        if (transmit.tos != 0) builder.putTos(pass.family, transmit.tos);
        if (piece.is_train) builder.putSegmentSize(transmit.segment_size);
        out.messages[i] = .{ .hdr = .{
            .name = @ptrCast(&out.names[i]),
            .namelen = out.names[i].set(transmit.endpoint.remote),
            .iov = out.vectors[i..].ptr,
            .iovlen = 1,
            .control = if (builder.length == 0) null else &out.controls[i],
            .controllen = builder.length,
            .flags = 0,
        }, .len = 0 };
    }

    // ---- sending a chunk

    /// Sends pieces until all went, were given up, or the rest must be cut anew. Moves the cursor
    /// behind what is settled: every round either settles a piece or lowers what we try.
    fn sendChunk(pass: *Pass, count: usize) void {
        const out = &pass.udp.outgoing;
        var done: usize = 0;
        while (done < count) {
            const piece = out.pieces[done];
            const socket = pass.udp.fd(pass.family) orelse {
                pass.settleFailed(piece, .AFNOSUPPORT);
                done += 1;
                continue;
            };
            const rc = pass.udp.calls.sendmmsg(socket, out.messages[done..].ptr, @intCast(count - done), 0);
            switch (sys.result(rc)) {
                .value => |sent| {
                    assert(sent <= count - done);
                    for (out.pieces[done..][0..sent]) |settled| pass.settleSent(settled);
                    done += sent;
                    // The error of a message that was not the first is only told when it comes first.
                    if (sent != 0) continue;
                    pass.settleFailed(piece, .AGAIN); // cannot be; but must not go round for ever
                    done += 1;
                },
                .failure => |code| switch (pass.judge(piece, code)) {
                    .again => {},
                    .cut_anew => return,
                    .give_up => {
                        pass.settleFailed(piece, code);
                        done += 1;
                    },
                },
            }
        }
    }

    const Verdict = enum { again, cut_anew, give_up };

    fn judge(pass: *Pass, piece: Piece, errno: sys.E) Verdict {
        const offload = pass.udp.offload;
        const transmit = &pass.transmits[piece.transmit];
        switch (errno) {
            .INTR => {
                pass.interrupts += 1;
                return if (pass.interrupts <= interrupts_max) .again else .give_up;
            },
            // The egress device has no checksum offload, or IPsec is on the route (before 6.11).
            .IO => if (piece.is_train) {
                _ = offload.stepDown(.udp_gso, errno);
                offload.counters.gso_resent += 1;
                return .cut_anew;
            },
            // A segment exceeds the path MTU: EMSGSIZE since 6.14 and in stable kernels of 2025, EINVAL before.
            .MSGSIZE => if (piece.is_train) return pass.withoutGso(transmit),
            .INVAL => if (piece.is_train) {
                if (transmit.endpoint.source == null) return pass.withoutGso(transmit);
                pass.suspect = piece.transmit;
                return .cut_anew;
            } else if (transmit.endpoint.source != null) return pass.withoutSource(transmit),
            .NETUNREACH, .NODEV, .ADDRNOTAVAIL => {
                if (transmit.endpoint.source != null) return pass.withoutSource(transmit);
            },
            // EPERM is a firewall's no; EAGAIN and ENOBUFS a full queue; the others the network's answer.
            else => {},
        }
        return .give_up;
    }

    fn withoutGso(pass: *Pass, transmit: *const Transmit) Verdict {
        _ = pass.udp.offload.refuseGso(transmit.endpoint.remote, pass.now_ns);
        pass.udp.offload.counters.gso_resent += 1;
        return .cut_anew;
    }

    /// Clears the source here and in all later datagrams that would run into the same refusal.
    fn withoutSource(pass: *Pass, transmit: *const Transmit) Verdict {
        const refused = transmit.endpoint;
        for (pass.transmits) |*other| {
            if (!other.endpoint.eql(refused)) continue;
            other.endpoint.source = null;
            other.source_refused = true;
        }
        pass.udp.counters.source_refused += 1;
        pass.result.any_source_refused = true;
        pass.suspect = null;
        return .cut_anew;
    }

    fn settleSent(pass: *Pass, piece: Piece) void {
        const transmit = &pass.transmits[piece.transmit];
        pass.result.sent_datagrams += if (piece.is_train) transmit.segments(piece.length) else 1;
        if (pass.suspect == piece.transmit) {
            // Alone and with its source it went: so it was GSO that the path refused.
            _ = pass.withoutGso(transmit);
            pass.suspect = null;
        }
        pass.advance(piece);
    }

    fn settleFailed(pass: *Pass, piece: Piece, errno: sys.E) void {
        const transmit = &pass.transmits[piece.transmit];
        pass.result.failed_datagrams += if (piece.is_train) transmit.segments(piece.length) else 1;
        pass.result.last_errno = errno;
        if (pass.suspect == piece.transmit) pass.suspect = null; // nothing learnt
        pass.advance(piece);
    }

    fn advance(pass: *Pass, piece: Piece) void {
        pass.cursor = .{ .transmit = piece.transmit, .offset = piece.offset + piece.length };
        if (pass.cursor.offset >= pass.transmits[piece.transmit].bytes.len) {
            pass.cursor = .{ .transmit = piece.transmit + 1 };
        }
    }
};

// ---- tests -------------------------------------------------------------------------------------------

const testing = std.testing;

const patience_ms = 10_000;

/// On a busy machine the kernel delivers a while after it took a datagram, on loopback too. False when nothing comes.
fn waitForDatagram(udp: *const Udp, family: Family) bool {
    var waiting = [1]linux.pollfd{.{ .fd = udp.fd(family).?, .events = linux.POLL.IN, .revents = 0 }};
    return linux.poll(&waiting, 1, patience_ms) == 1;
}

/// Two ends on loopback. Faults are injected between us and the kernel at the k-th message of all sends.
const Fixture = struct {
    /// Where nobody else sends, and loopback is up; without the privilege it is the caller's.
    namespace: ?sys.TestNamespace = null,
    offload: Offload = .init(0),
    a: Udp = undefined,
    b: Udp = undefined,
    batch: ReceiveBatch = undefined,
    port: u16 = 0,

    fn start(fixture: *Fixture, calls: *const sys.Calls) !void {
        fixture.namespace = sys.TestNamespace.enter() catch null;
        try fixture.startHere(calls);
    }

    fn startHere(fixture: *Fixture, calls: *const sys.Calls) !void {
        fixture.a = .init(calls, &fixture.offload);
        fixture.b = .init(&sys.real, &fixture.offload);
        _ = try fixture.a.open(.{});
        fixture.port = try fixture.b.open(.{});
        fixture.batch = try .init(testing.allocator);
    }

    fn stop(fixture: *Fixture) void {
        fixture.a.close();
        fixture.b.close();
        fixture.batch.deinit(testing.allocator);
        if (fixture.namespace) |namespace| namespace.leave();
    }

    /// What comes next.
    fn receive(fixture: *Fixture, udp: *Udp, family: Family) usize {
        return if (waitForDatagram(udp, family)) udp.receive(family, &fixture.batch) else 0;
    }

    fn target(fixture: *const Fixture, family: Family) wire.Endpoint {
        const address: wire.Address = switch (family) {
            .ipv4 => .fromIpv4(.{ 127, 0, 0, 1 }),
            .ipv6 => wire.Address.parse("::1").?,
        };
        return .{ .remote = .{ .address = address, .port = fixture.port } };
    }

    /// All datagrams that reach b, split; each is checked to begin with the next number.
    fn expectNumbered(fixture: *Fixture, family: Family, numbers: []const u8, size: usize) !void {
        var next: usize = 0;
        while (next < numbers.len) {
            const count = fixture.receive(&fixture.b, family);
            try testing.expect(count != 0);
            for (fixture.batch.datagrams[0..count]) |received| {
                try testing.expect(!received.truncated);
                const stride = if (received.segment_size == 0) received.bytes.len else received.segment_size;
                var rest: []const u8 = received.bytes;
                while (rest.len != 0) {
                    const length = @min(stride, rest.len);
                    try testing.expect(next < numbers.len);
                    try testing.expectEqual(numbers[next], rest[0]);
                    try testing.expect(length <= size);
                    next += 1;
                    rest = rest[length..];
                }
            }
        }
        try testing.expectEqual(0, fixture.b.receive(family, &fixture.batch));
    }
};

/// Segment i of a train begins with byte i.
fn numberedTrain(buffer: []u8, size: usize) []u8 {
    for (buffer, 0..) |*byte, i| byte.* = if (i % size == 0) @intCast(i / size) else 0xee;
    return buffer;
}

const ascending: [128]u8 = blk: {
    var numbers: [128]u8 = undefined;
    for (&numbers, 0..) |*number, i| number.* = i;
    break :blk numbers;
};

/// sendmmsg that fails as told. State is global because a function pointer carries none.
const Fault = struct {
    var rules: []const Rule = &.{};
    var calls_made: usize = 0;
    /// The kernel may stop early for reasons of its own.
    var most_per_call: u32 = std.math.maxInt(u32);

    const Rule = struct {
        errno: sys.E,
        /// Which messages: all trains, all singles, those with a source, or those whose first byte is this.
        which: union(enum) { train, source, first_byte: u8, all },
    };

    const calls: sys.Calls = .{ .sendmmsg = sendmmsg };

    fn reset(with: []const Rule) void {
        rules = with;
        calls_made = 0;
        most_per_call = std.math.maxInt(u32);
    }

    fn sendmmsg(fd: sys.fd_t, messages: [*]linux.mmsghdr, count: u32, flags: u32) usize {
        calls_made += 1;
        var good: u32 = 0;
        while (good < @min(count, most_per_call)) : (good += 1) {
            const code = verdict(&messages[good]) orelse continue;
            if (good == 0) return sys.failWith(code);
            break;
        }
        return linux.sendmmsg(fd, messages, good, flags);
    }

    fn verdict(message: *const linux.mmsghdr) ?sys.E {
        for (rules) |rule| {
            const hit = switch (rule.which) {
                .train => hasControl(message, linux.IPPROTO.UDP, linux.UDP.SEGMENT),
                .source => hasControl(message, linux.IPPROTO.IP, linux.IP.PKTINFO),
                .first_byte => |byte| message.hdr.iov[0].base[0] == byte,
                .all => true,
            };
            if (hit) return rule.errno;
        }
        return null;
    }

    fn hasControl(message: *const linux.mmsghdr, level: i32, kind: i32) bool {
        const control = message.hdr.control orelse return false;
        const bytes: [*]const u8 = @ptrCast(control);
        var iterator: control_message.Iterator = .{ .rest = bytes[0..message.hdr.controllen] };
        while (iterator.next()) |found| if (found.level == level and found.kind == kind) return true;
        return false;
    }
};

test "a train goes out in one message and comes in whole, over both families" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    for ([_]Family{ .ipv4, .ipv6 }) |family| {
        if (fixture.b.fd(family) == null) continue;
        Fault.reset(&.{});
        var buffer: [9 * 1400 + 100]u8 = undefined;
        var transmits = [_]Transmit{.{
            .bytes = numberedTrain(&buffer, 1400),
            .segment_size = 1400,
            .endpoint = fixture.target(family),
            .tos = 0xb9,
        }};
        const sent = fixture.a.send(&transmits, 0);
        try testing.expectEqual(SendResult{ .sent_datagrams = 10 }, sent);
        try testing.expectEqual(1, Fault.calls_made);
        try testing.expectEqual(1, fixture.receive(&fixture.b, family));
        const received = fixture.batch.datagrams[0];
        try testing.expectEqual(1400, received.segment_size);
        try testing.expectEqualSlices(u8, &buffer, received.bytes);
        try testing.expectEqual(1, received.ecn);
        // The source is where it arrived: enough to answer.
        try testing.expect(received.endpoint.source.?.address.eql(fixture.target(family).remote.address));
        var answer = [_]Transmit{.{ .bytes = "answer", .segment_size = 0, .endpoint = received.endpoint }};
        try testing.expectEqual(1, fixture.b.send(&answer, 0).sent_datagrams);
        try testing.expectEqual(1, fixture.receive(&fixture.a, family));
        try testing.expectEqualStrings("answer", fixture.batch.datagrams[0].bytes);
        try testing.expectEqual(0, fixture.batch.datagrams[0].segment_size);
        try testing.expectEqual(0, fixture.batch.datagrams[0].ecn);
    }
}

test "the answer leaves from the address that was asked" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    var asking = fixture.target(.ipv4);
    asking.remote.address = .fromIpv4(.{ 127, 0, 0, 9 });
    var question = [_]Transmit{.{ .bytes = "q", .segment_size = 0, .endpoint = asking }};
    try testing.expectEqual(1, fixture.a.send(&question, 0).sent_datagrams);
    try testing.expectEqual(1, fixture.receive(&fixture.b, .ipv4));
    const endpoint = fixture.batch.datagrams[0].endpoint;
    var answer = [_]Transmit{.{ .bytes = "a", .segment_size = 0, .endpoint = endpoint }};
    try testing.expectEqual(1, fixture.b.send(&answer, 0).sent_datagrams);
    try testing.expectEqual(1, fixture.receive(&fixture.a, .ipv4));
    try testing.expect(fixture.batch.datagrams[0].endpoint.remote.eql(asking.remote));
}

test "a source that no interface has any more is dropped, and the datagrams go" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    for ([_]Family{ .ipv4, .ipv6 }) |family| {
        if (fixture.b.fd(family) == null) continue;
        var endpoint = fixture.target(family);
        const gone = wire.Address.parse(if (family == .ipv4) "192.0.2.1" else "2001:db8::1").?;
        endpoint.source = .{ .address = gone, .interface_index = 1 };
        var buffer: [3 * 100]u8 = undefined;
        var transmits = [_]Transmit{
            .{ .bytes = numberedTrain(&buffer, 100), .segment_size = 100, .endpoint = endpoint },
            .{ .bytes = &.{3}, .segment_size = 0, .endpoint = endpoint },
        };
        try testing.expectEqual(SendResult{ .sent_datagrams = 4, .any_source_refused = true }, fixture.a.send(&transmits, 0));
        for (transmits) |transmit| {
            try testing.expect(transmit.source_refused);
            try testing.expectEqual(null, transmit.endpoint.source);
        }
        // The path is innocent: GSO is still allowed.
        try testing.expect(fixture.offload.gsoAllowed(endpoint.remote, 0));
        try fixture.expectNumbered(family, ascending[0..4], 100);
    }
}

test "EIO on a train switches GSO off for good and resends singly, in order" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    Fault.reset(&.{.{ .errno = .IO, .which = .train }});
    var buffer: [8 * 100]u8 = undefined;
    const train = numberedTrain(&buffer, 100);
    var transmits = [_]Transmit{
        .{ .bytes = train[0..100], .segment_size = 100, .endpoint = fixture.target(.ipv4) },
        .{ .bytes = train[100..400], .segment_size = 100, .endpoint = fixture.target(.ipv4) },
        .{ .bytes = train[400..], .segment_size = 100, .endpoint = fixture.target(.ipv4) },
    };
    try testing.expectEqual(SendResult{ .sent_datagrams = 8 }, fixture.a.send(&transmits, 0));
    try testing.expectEqual(.stepped_down, fixture.offload.state(.udp_gso));
    try fixture.expectNumbered(.ipv4, ascending[0..8], 100);
    Fault.reset(&.{});
    try testing.expectEqual(8, fixture.a.send(&transmits, 0).sent_datagrams);
    try testing.expectEqual(1, Fault.calls_made);
    try fixture.expectNumbered(.ipv4, ascending[0..8], 100);
}

test "EMSGSIZE and EINVAL refuse GSO to that destination for a minute, with or without a source" {
    for ([_]sys.E{ .MSGSIZE, .INVAL }) |errno| for ([_]bool{ false, true }) |with_source| {
        var fixture: Fixture = .{};
        try fixture.start(&Fault.calls);
        defer fixture.stop();
        Fault.reset(&.{.{ .errno = errno, .which = .train }});
        var buffer: [5 * 100]u8 = undefined;
        var endpoint = fixture.target(.ipv4);
        if (with_source) endpoint.source = .{ .address = .fromIpv4(.{ 127, 0, 0, 1 }), .interface_index = 1 };
        var transmits = [_]Transmit{
            .{ .bytes = numberedTrain(&buffer, 100), .segment_size = 100, .endpoint = endpoint },
        };
        try testing.expectEqual(SendResult{ .sent_datagrams = 5 }, fixture.a.send(&transmits, 0));
        try fixture.expectNumbered(.ipv4, ascending[0..5], 100);
        try testing.expect(fixture.offload.isActive(.udp_gso));
        try testing.expect(!transmits[0].source_refused);
        const minute = 60 * std.time.ns_per_s;
        try testing.expect(!fixture.offload.gsoAllowed(endpoint.remote, minute - 1));
        try testing.expect(fixture.offload.gsoAllowed(endpoint.remote, minute));
    };
}

test "a source refused under EINVAL costs the source, not GSO" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    Fault.reset(&.{.{ .errno = .INVAL, .which = .source }});
    var buffer: [5 * 100]u8 = undefined;
    var endpoint = fixture.target(.ipv4);
    endpoint.source = .{ .address = .fromIpv4(.{ 127, 0, 0, 1 }), .interface_index = 1 };
    var transmits = [_]Transmit{
        .{ .bytes = numberedTrain(&buffer, 100), .segment_size = 100, .endpoint = endpoint },
    };
    try testing.expectEqual(SendResult{ .sent_datagrams = 5, .any_source_refused = true }, fixture.a.send(&transmits, 0));
    try testing.expect(transmits[0].source_refused);
    try testing.expect(fixture.offload.gsoAllowed(endpoint.remote, 0));
    try testing.expectEqual(3, Fault.calls_made); // train, single, train without source
    try fixture.expectNumbered(.ipv4, ascending[0..5], 100);
}

test "a refused message costs itself only, wherever in the batch it stands" {
    const passing = [_]sys.E{
        .PERM, .NOBUFS, .AGAIN, .CONNREFUSED, .HOSTUNREACH, .NETUNREACH, .INVAL, .IO, .MSGSIZE, .NOMEM, .PIPE,
    };
    for (passing) |errno| for ([_]u8{ 0, 3, 6 }) |position| {
        var fixture: Fixture = .{};
        try fixture.start(&Fault.calls);
        defer fixture.stop();
        Fault.reset(&.{.{ .errno = errno, .which = .{ .first_byte = position } }});
        var buffer: [7 * 10]u8 = undefined;
        const bytes = numberedTrain(&buffer, 10);
        var transmits: [7]Transmit = undefined;
        for (&transmits, 0..) |*transmit, i| {
            transmit.* = .{ .bytes = bytes[i * 10 ..][0..10], .segment_size = 0, .endpoint = fixture.target(.ipv4) };
        }
        const sent = fixture.a.send(&transmits, 0);
        try testing.expectEqual(SendResult{ .sent_datagrams = 6, .failed_datagrams = 1, .last_errno = errno }, sent);
        try testing.expect(fixture.offload.isActive(.udp_gso));
        var expected: [6]u8 = undefined;
        @memcpy(expected[0..position], ascending[0..position]);
        @memcpy(expected[position..], ascending[position + 1 .. 7]);
        try fixture.expectNumbered(.ipv4, &expected, 10);
    };
}

test "short counts and a kernel that refuses everything end, too" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    var bytes: [100]u8 = ascending[0..100].*;
    var transmits: [100]Transmit = undefined;
    for (&transmits, 0..) |*transmit, i| {
        transmit.* = .{ .bytes = bytes[i..][0..1], .segment_size = 0, .endpoint = fixture.target(.ipv4) };
    }
    Fault.reset(&.{});
    Fault.most_per_call = 3;
    try testing.expectEqual(100, fixture.a.send(&transmits, 0).sent_datagrams);
    try fixture.expectNumbered(.ipv4, ascending[0..100], 1);
    Fault.reset(&.{});
    Fault.most_per_call = 0;
    try testing.expectEqual(100, fixture.a.send(&transmits, 0).failed_datagrams);
    for ([_]sys.E{ .INTR, .PERM, .IO, .INVAL, .NETUNREACH }) |errno| {
        Fault.reset(&.{.{ .errno = errno, .which = .all }});
        const sent = fixture.a.send(&transmits, 0);
        try testing.expectEqual(0, sent.sent_datagrams);
        try testing.expectEqual(100, sent.failed_datagrams);
        try testing.expectEqual(errno, sent.last_errno);
    }
}

test "families alternate in one batch without touching each other" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    if (fixture.b.fd(.ipv6) == null) return error.SkipZigTest;
    var bytes: [100]u8 = undefined;
    var transmits: [100]Transmit = undefined;
    for (&transmits, 0..) |*transmit, i| {
        bytes[i] = @intCast(i / 2);
        const family: Family = if (i % 2 == 0) .ipv4 else .ipv6;
        transmit.* = .{ .bytes = bytes[i..][0..1], .segment_size = 0, .endpoint = fixture.target(family) };
    }
    try testing.expectEqual(100, fixture.a.send(&transmits, 0).sent_datagrams);
    try fixture.expectNumbered(.ipv4, ascending[0..50], 1);
    try fixture.expectNumbered(.ipv6, ascending[0..50], 1);
}

test "trains are cut at 64 segments and at the longest payload" {
    const Row = struct { family: Family, size: u16, length: usize, calls: usize, messages: usize };
    const rows = [_]Row{
        .{ .family = .ipv4, .size = 100, .length = 6400, .calls = 1, .messages = 1 },
        .{ .family = .ipv4, .size = 100, .length = 6500, .calls = 1, .messages = 2 },
        .{ .family = .ipv4, .size = 1452, .length = 45 * 1452, .calls = 1, .messages = 1 },
        .{ .family = .ipv4, .size = 1452, .length = 47 * 1452, .calls = 1, .messages = 2 },
        .{ .family = .ipv4, .size = 32_753, .length = 65_507, .calls = 1, .messages = 2 }, // 2 x 32 753 = 65 506
        .{ .family = .ipv4, .size = 21_835, .length = 65_505, .calls = 1, .messages = 1 },
        .{ .family = .ipv4, .size = 21_836, .length = 65_508, .calls = 1, .messages = 2 },
        .{ .family = .ipv6, .size = 21_842, .length = 65_526, .calls = 1, .messages = 1 },
        .{ .family = .ipv6, .size = 21_843, .length = 65_529, .calls = 1, .messages = 2 },
        .{ .family = .ipv4, .size = 40_000, .length = 60_000, .calls = 1, .messages = 2 }, // no two fit
    };
    const Counting = struct {
        var messages_sent: usize = 0;
        fn sendmmsg(fd: sys.fd_t, messages: [*]linux.mmsghdr, count: u32, flags: u32) usize {
            messages_sent += count;
            return linux.sendmmsg(fd, messages, count, flags);
        }
    };
    const calls: sys.Calls = .{ .sendmmsg = Counting.sendmmsg };
    var fixture: Fixture = .{};
    try fixture.start(&calls);
    defer fixture.stop();
    const buffer = try testing.allocator.alloc(u8, 70_000);
    defer testing.allocator.free(buffer);
    for (rows) |row| {
        if (fixture.b.fd(row.family) == null) continue;
        Counting.messages_sent = 0;
        var transmits = [_]Transmit{.{
            .bytes = numberedTrain(buffer[0..row.length], row.size),
            .segment_size = row.size,
            .endpoint = fixture.target(row.family),
        }};
        const segments = std.math.divCeil(usize, row.length, row.size) catch unreachable;
        try testing.expectEqual(SendResult{ .sent_datagrams = segments }, fixture.a.send(&transmits, 0));
        try testing.expectEqual(row.messages, Counting.messages_sent);
        try fixture.expectNumbered(row.family, ascending[0..segments], row.size);
    }
    try testing.expectEqual(0, fixture.offload.refusals_length);
}

test "single datagrams: empty, longest, and one byte more" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    const buffer = try testing.allocator.alloc(u8, 65_536);
    defer testing.allocator.free(buffer);
    @memset(buffer, 0);
    const Row = struct { family: Family, length: usize, goes: bool };
    for ([_]Row{
        .{ .family = .ipv4, .length = 0, .goes = true },
        .{ .family = .ipv4, .length = 65_507, .goes = true },
        .{ .family = .ipv4, .length = 65_508, .goes = false },
        .{ .family = .ipv6, .length = 65_527, .goes = true },
        .{ .family = .ipv6, .length = 65_528, .goes = false },
    }) |row| {
        if (fixture.b.fd(row.family) == null) continue;
        var transmits = [_]Transmit{
            .{ .bytes = buffer[0..row.length], .segment_size = 0, .endpoint = fixture.target(row.family) },
        };
        const sent = fixture.a.send(&transmits, 0);
        try testing.expectEqual(@intFromBool(row.goes), sent.sent_datagrams);
        try testing.expectEqual(@intFromBool(!row.goes), sent.failed_datagrams);
        if (!row.goes) {
            try testing.expectEqual(0, fixture.b.receive(row.family, &fixture.batch));
            continue;
        }
        try testing.expectEqual(1, fixture.receive(&fixture.b, row.family));
        try testing.expectEqual(row.length, fixture.batch.datagrams[0].bytes.len);
        try testing.expect(!fixture.batch.datagrams[0].truncated);
    }
    try testing.expectEqual(0, fixture.b.counters.truncated);
}

test "errors on receive are counted and end nothing" {
    const Failing = struct {
        var left: usize = 100;
        fn recvmmsg(fd: sys.fd_t, messages: [*]linux.mmsghdr, count: u32, flags: u32) usize {
            if (left == 0) return linux.recvmmsg(fd, messages, count, flags, null);
            left -= 1;
            return sys.failWith(.CONNREFUSED);
        }
    };
    const calls: sys.Calls = .{ .recvmmsg = Failing.recvmmsg };
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    fixture.b.calls = &calls;
    var transmits = [_]Transmit{.{ .bytes = "x", .segment_size = 0, .endpoint = fixture.target(.ipv4) }};
    try testing.expectEqual(1, fixture.a.send(&transmits, 0).sent_datagrams);
    for (0..100) |_| try testing.expectEqual(0, fixture.b.receive(.ipv4, &fixture.batch));
    try testing.expectEqual(100, fixture.b.counters.receive_errors);
    try testing.expectEqual(1, fixture.receive(&fixture.b, .ipv4));
}

test "a path narrower than a segment gets its datagrams without GSO" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    const socket: sys.fd_t = @intCast(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0));
    defer sys.close(socket);
    var request = sys.Ifreq.init("lo").?;
    request.value.integer = 1280;
    try testing.expectEqual(.SUCCESS, linux.errno(linux.ioctl(socket, linux.SIOCSIFMTU, @intFromPtr(&request))));
    var fixture: Fixture = .{};
    try fixture.startHere(&sys.real);
    defer fixture.stop();
    var buffer: [10 * 1452]u8 = undefined;
    for ([_]Family{ .ipv4, .ipv6 }) |family| {
        if (fixture.b.fd(family) == null) continue;
        for ([_]bool{ false, true }) |with_source| {
            var endpoint = fixture.target(family);
            if (with_source) endpoint.source = .{ .address = endpoint.remote.address, .interface_index = 1 };
            var transmits = [_]Transmit{
                .{ .bytes = numberedTrain(&buffer, 1452), .segment_size = 1452, .endpoint = endpoint },
            };
            fixture.offload.refusals_length = 0;
            try testing.expectEqual(SendResult{ .sent_datagrams = 10 }, fixture.a.send(&transmits, 0));
            try testing.expect(!fixture.offload.gsoAllowed(endpoint.remote, 0));
            try testing.expect(!transmits[0].source_refused);
            try fixture.expectNumbered(family, ascending[0..10], 1452);
        }
    }
}

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

test "sockets that share a port get each session's datagrams at one of them, by receiver index" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    try sys.TestNamespace.setUp("lo", true);
    var offload: Offload = .init(0);
    var lanes: [3]Udp = @splat(.init(&sys.real, &offload));
    const port = try lanes[0].open(.{});
    defer for (&lanes) |*lane| lane.close();
    for (lanes[1..]) |*lane| {
        var sockets: Sockets = undefined;
        try lane.joinAside(&sockets, &lanes[0].sockets, .{ .port = port });
        lane.sockets = sockets;
    }
    lanes[0].steer(&lanes[0].sockets, lanes.len);
    var stranger: Udp = .init(&sys.real, &offload);
    try testing.expectError(error.AddressInUse, stranger.open(.{ .port = port })); // nobody joins unasked
    var sender: Udp = .init(&sys.real, &offload);
    _ = try sender.open(.{});
    defer sender.close();
    var batch: ReceiveBatch = try .init(testing.allocator);
    defer batch.deinit(testing.allocator);
    for ([_]Family{ .ipv4, .ipv6 }) |family| {
        if (lanes[0].fd(family) == null) continue;
        const address: wire.Address = if (family == .ipv4) .fromIpv4(.{ 127, 0, 0, 1 }) else wire.Address.parse("::1").?;
        for (0..256) |low_byte| {
            const bytes = [_]u8{ 4, 0, 0, 0, @intCast(low_byte), 0xaa, 0xbb, 0xcc } ++ @as([24]u8, @splat(0));
            var transmit = [1]Transmit{.{ .bytes = &bytes, .segment_size = 0, .endpoint = .{ .remote = .{ .address = address, .port = port } } }};
            try testing.expectEqual(1, sender.send(&transmit, 0).sent_datagrams);
            try testing.expect(waitForDatagram(&lanes[low_byte % lanes.len], family));
            for (&lanes, 0..) |*lane, number| {
                try testing.expectEqual(@intFromBool(number == low_byte % lanes.len), lane.receive(family, &batch));
            }
        }
        // A handshake, and something too short for either: anyone's, but somebody's.
        for ([_][]const u8{ &(.{1} ++ @as([147]u8, @splat(0))), &.{4} }) |bytes| {
            var transmit = [1]Transmit{.{ .bytes = bytes, .segment_size = 0, .endpoint = .{ .remote = .{ .address = address, .port = port } } }};
            try testing.expectEqual(1, sender.send(&transmit, 0).sent_datagrams);
            var received: usize = 0;
            for (0..patience_ms) |_| {
                for (&lanes) |*lane| received += lane.receive(family, &batch);
                if (received != 0) break;
                @import("clock.zig").sleep(std.time.ns_per_ms);
            }
            try testing.expectEqual(1, received);
        }
    }
}

fn bindingTo(interface: []const u8, addresses: []const []const u8) wire.Binding {
    var binding: wire.Binding = .{ .interface = wire.binding.InterfaceName.parse(interface).? };
    for (addresses) |text| binding.addresses.put(wire.Address.parse(text).?);
    return binding;
}

test "bound sockets send from their address, and a family without one has no socket" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var fixture: Fixture = .{};
    try fixture.startHere(&sys.real);
    defer fixture.stop();
    fixture.a.close();
    _ = try fixture.a.open(.{ .binding = bindingTo("lo", &.{"127.0.0.9"}) });
    try testing.expectEqual(null, fixture.a.fd(.ipv6));
    const bytes = [_]u8{0};
    var transmits = [1]Transmit{.{ .bytes = &bytes, .segment_size = 0, .endpoint = fixture.target(.ipv4) }};
    try testing.expectEqual(1, fixture.a.send(&transmits, 0).sent_datagrams);
    try testing.expectEqual(1, fixture.receive(&fixture.b, .ipv4));
    try testing.expect(fixture.batch.datagrams[0].endpoint.remote.address.eql(.fromIpv4(.{ 127, 0, 0, 9 })));
    transmits[0].endpoint = fixture.target(.ipv6);
    try testing.expectEqual(SendResult{ .failed_datagrams = 1, .last_errno = .AFNOSUPPORT }, fixture.a.send(&transmits, 0));
    if (fixture.b.fd(.ipv6) == null) return;
    fixture.a.close();
    _ = try fixture.a.open(.{ .binding = bindingTo("", &.{"::1"}) });
    try testing.expect(fixture.a.fd(.ipv4) == null and fixture.a.fd(.ipv6) != null);
}

test "what cannot be bound is refused under its errno, and leaves nothing open" {
    const Refusing = struct {
        var errno: sys.E = .SUCCESS;
        fn setsockopt(fd: sys.fd_t, level: i32, name: u32, value: [*]const u8, length: linux.socklen_t) usize {
            if (errno != .SUCCESS and level == linux.SOL.SOCKET and name == linux.SO.BINDTODEVICE) return sys.failWith(errno);
            return sys.real.setsockopt(fd, level, name, value, length);
        }
    };
    const calls: sys.Calls = .{ .setsockopt = Refusing.setsockopt };
    const Row = struct { binding: wire.Binding, injected: sys.E = .SUCCESS, expected: OpenError, errno: sys.E, family: Family = .ipv4 };
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var offload: Offload = .init(0);
    var udp: Udp = .init(&calls, &offload);
    for ([_]Row{
        .{ .binding = bindingTo("nosuchlink", &.{}), .expected = error.SystemResources, .errno = .NODEV },
        .{ .binding = bindingTo("lo", &.{}), .injected = .PERM, .expected = error.PermissionDenied, .errno = .PERM },
        .{ .binding = bindingTo("", &.{"192.0.2.1"}), .expected = error.SystemResources, .errno = .ADDRNOTAVAIL },
        .{ .binding = bindingTo("", &.{ "127.0.0.1", "2001:db8::1" }), .expected = error.SystemResources, .errno = .ADDRNOTAVAIL, .family = .ipv6 },
    }) |row| {
        Refusing.errno = row.injected;
        try testing.expectError(row.expected, udp.open(.{ .binding = row.binding }));
        try testing.expectEqual(row.errno, udp.failure.errno);
        try testing.expectEqual(row.family, udp.failed_family);
        try testing.expect(!udp.isOpen());
    }
    const NoIpv6 = struct {
        fn socket(domain: u32, kind: u32, protocol: u32) usize {
            if (domain == linux.AF.INET6) return sys.failWith(.AFNOSUPPORT);
            return linux.socket(domain, kind, protocol);
        }
    };
    udp = .init(&.{ .socket = NoIpv6.socket }, &offload);
    try testing.expectError(error.FamilyUnsupported, udp.open(.{ .binding = bindingTo("", &.{ "127.0.0.1", "::1" }) }));
    try testing.expectEqual(Family.ipv6, udp.failed_family);
    _ = try udp.open(.{ .binding = bindingTo("lo", &.{}) }); // nobody asked for IPv6
    udp.close();
}

test "sockets take over a port from ours that yield it, all of them, but not from a stranger's" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var offload: Offload = .init(0);
    var lanes: [2]Udp = @splat(.init(&sys.real, &offload));
    const port = try lanes[0].open(.{});
    defer for (&lanes) |*lane| lane.close();
    var sockets: Sockets = undefined;
    try lanes[1].joinAside(&sockets, &lanes[0].sockets, .{ .port = port });
    lanes[1].sockets = sockets;
    var sender: Udp = .init(&sys.real, &offload);
    _ = try sender.open(.{});
    defer sender.close();
    var batch: ReceiveBatch = try .init(testing.allocator);
    defer batch.deinit(testing.allocator);
    // IPv6 stays where it was, so the new sockets there must not end in the group of the old.
    for ([_]wire.Binding{ bindingTo("lo", &.{}), bindingTo("", &.{ "127.0.0.1", "::" }), .{}, .{} }) |binding| {
        const options: BindOptions = .{ .port = port, .binding = binding, .takes_over = true };
        var fresh: [2]Sockets = undefined;
        for (&lanes) |*lane| lane.yield(true, true);
        _ = try lanes[0].openAside(&fresh[0], options);
        try lanes[1].joinAside(&fresh[1], &fresh[0], options);
        for (&lanes) |*lane| lane.yield(false, true);
        lanes[0].steer(&fresh[0], lanes.len);
        for (&lanes, fresh) |*lane, opened| {
            lane.close();
            lane.sockets = opened;
        }
        for ([_]Family{ .ipv4, .ipv6 }) |family| {
            if (lanes[0].fd(family) == null) continue;
            const address: wire.Address = if (family == .ipv4) .fromIpv4(.{ 127, 0, 0, 1 }) else wire.Address.parse("::1").?;
            for (0..8) |index| {
                const bytes = [_]u8{ 4, 0, 0, 0, @intCast(index) } ++ @as([27]u8, @splat(0));
                var transmit = [1]Transmit{.{ .bytes = &bytes, .segment_size = 0, .endpoint = .{ .remote = .{ .address = address, .port = port } } }};
                try testing.expectEqual(1, sender.send(&transmit, 0).sent_datagrams);
                try testing.expect(waitForDatagram(&lanes[index % lanes.len], family));
                for (&lanes, 0..) |*lane, number| {
                    try testing.expectEqual(@intFromBool(number == index % lanes.len), lane.receive(family, &batch));
                }
            }
        }
    }
    for (&lanes) |*lane| lane.close();
    _ = try lanes[0].open(.{ .port = port, .binding = bindingTo("", &.{"127.0.0.1"}) });
    var strangers: [2]Udp = @splat(.init(&sys.real, &offload));
    defer for (&strangers) |*stranger| stranger.close();
    const theirs: BindOptions = .{ .port = port, .binding = bindingTo("", &.{"127.0.0.9"}) };
    _ = try strangers[0].open(theirs);
    try strangers[1].joinAside(&sockets, &strangers[0].sockets, theirs); // they share it, but not with us
    strangers[1].sockets = sockets;
    lanes[0].yield(true, false);
    defer lanes[0].yield(false, false);
    try testing.expectError(error.AddressInUse, lanes[0].openAside(&sockets, .{ .port = port, .binding = theirs.binding, .takes_over = true }));
    try testing.expect(lanes[0].isOpen());
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
