//! A device as its users have it: a real TUN and real sockets in a network namespace of its own. The other
//! end is an Interface of the protocol room behind a plain UDP socket, so that every datagram can be looked at.
//! Faults are injected between the device and the kernel. Without the privilege these tests are skipped.
const std = @import("std");
const linux = std.os.linux;
const testing = std.testing;
const cipher = @import("cipher");
const device_file = @import("device.zig");
const Device = device_file.Device;
const shared_file = @import("shared.zig");
const Diagnostic = device_file.Diagnostic;
const io = @import("io");
const sys = io.linux;
const protocol = @import("protocol");
const wire = @import("wire");
const messages = wire.messages;
const writeInt = std.mem.writeInt;

const interface_name = "pywgdev0";
const near_key: [32]u8 = @splat(0x40);
const far_key: [32]u8 = @splat(0x48);
/// Inside the tunnel: ours on the TUN, and the other end's.
const near_inner: [4]u8 = .{ 10, 77, 0, 1 };
const far_inner: [4]u8 = .{ 10, 77, 0, 2 };
const inner_port = 8080;
/// Beyond what a second handshake takes, should the first be refused (REKEY_TIMEOUT); no test waits longer than needed.
const patience_ms = 20_000;

fn publicKey(private: [32]u8) [32]u8 {
    return std.crypto.dh.X25519.recoverPublicKey(private);
}

fn fillFromKernel(_: ?*anyopaque, out: []u8) bool {
    io.entropy.fill(out);
    return true;
}

fn sleepMs(milliseconds: i32) void {
    _ = linux.poll(@ptrCast(@constCast(&[0]linux.pollfd{})), 0, milliseconds);
}

// ---- the other end -----------------------------------------------------------------------------------

/// A peer without TUN: what arrives is kept, what is to be sent is given as inner packets.
const Far = struct {
    interface: protocol.Interface,
    offload: io.Offload = .init(0),
    udp: io.Udp = undefined,
    batch: io.ReceiveBatch = undefined,
    port: u16 = 0,
    /// Payloads of the inner UDP packets, one behind the other.
    received: std.ArrayList(u8) = .empty,
    packets: usize = 0,
    trains: usize = 0,
    last_ecn: u2 = 0,
    counters_in_order: bool = true,
    next_counter: u64 = 0,
    session: u32 = 0,

    fn open(far: *Far) !void {
        far.* = .{ .interface = try .init(.{
            .allocator = testing.allocator,
            .entropy = .{ .context = null, .fillFn = fillFromKernel },
        }) };
        far.udp = .init(&sys.real, &far.offload);
        far.batch = try .init(testing.allocator);
        far.port = try far.udp.open(.{});
        far.interface.setActive(true);
    }

    fn close(far: *Far) void {
        far.udp.close();
        far.batch.deinit(testing.allocator);
        far.received.deinit(testing.allocator);
        far.interface.deinit();
    }

    fn configure(far: *Far, near_port: u16) !void {
        var buffer: [512]u8 = undefined;
        const text = try std.mem.print(
            &buffer,
            "private_key={x}\npublic_key={x}\nendpoint=127.0.0.1:{d}\nallowed_ip=10.77.0.1/32\n",
            .{ &far_key, &publicKey(near_key), near_port },
        );
        var why: protocol.uapi.Diagnostic = .{};
        var change = try protocol.uapi.parse(testing.allocator, text, &why);
        defer change.deinit(testing.allocator);
        try far.interface.configure(&change);
    }

    /// Takes all that has arrived and sends what the protocol wants sent.
    fn pump(far: *Far) !void {
        const now = shared_file.now();
        while (true) {
            const count = far.udp.receive(.ipv4, &far.batch);
            for (far.batch.datagrams[0..count]) |*slot| try far.takeSlot(slot, now);
            if (count == 0) break;
        }
        far.interface.expire(now);
        var buffer: [2048]u8 = undefined;
        while (far.interface.pollTransmit(&buffer, now)) |transmit| {
            far.send(buffer[0..transmit.length], 0, transmit.endpoint);
        }
    }

    fn takeSlot(far: *Far, slot: *io.udp.Received, now: protocol.Now) !void {
        if (slot.segment_size != 0) far.trains += 1;
        var rest = slot.bytes;
        while (rest.len != 0) {
            const length = if (slot.segment_size == 0) rest.len else @min(rest.len, slot.segment_size);
            try far.takeDatagram(rest[0..length], slot, now);
            rest = rest[length..];
        }
    }

    fn takeDatagram(far: *Far, datagram: []u8, slot: *io.udp.Received, now: protocol.Now) !void {
        switch (far.interface.prepareOpen(datagram, now)) {
            .open => |ticket| {
                const body = datagram[@sizeOf(messages.TransportHeader)..];
                var job = [1]cipher.Open{.{
                    .data = body.ptr,
                    .length = body.len - messages.tag_length,
                    .counter = ticket.counter,
                    .authentic = false,
                }};
                cipher.openBatch(ticket.key, &job);
                const plaintext: ?[]u8 = if (job[0].authentic) body[0..job[0].length] else null;
                switch (far.interface.finishOpen(ticket, plaintext, &slot.endpoint, now)) {
                    .deliver => |packet| {
                        const is_late = ticket.receiver_index == far.session and ticket.counter < far.next_counter;
                        if (is_late) far.counters_in_order = false;
                        far.next_counter = ticket.counter + 1;
                        far.session = ticket.receiver_index;
                        far.last_ecn = slot.ecn;
                        far.packets += 1;
                        try far.received.appendSlice(testing.allocator, packet[28..]);
                    },
                    .keepalive, .drop => {},
                }
            },
            .handshake => _ = far.interface.handleHandshake(datagram, &slot.endpoint, .never, now),
            .drop => {},
        }
    }

    fn send(far: *Far, bytes: []const u8, segment_size: u16, endpoint: wire.Endpoint) void {
        var transmits = [1]io.Transmit{.{ .bytes = bytes, .segment_size = segment_size, .endpoint = endpoint }};
        _ = far.udp.send(&transmits, shared_file.now().boot.ns);
    }

    /// `count` inner UDP packets with `size` bytes each of `payload`, as one train.
    fn sendInner(far: *Far, count: usize, size: usize, payload: []const u8) !void {
        const now = shared_file.now();
        var buffer: [65_536]u8 = undefined;
        var probe: [28]u8 = innerHeader(&.{}, 0);
        const id = far.interface.route(&probe).peer;
        const padded = messages.paddedLength(28 + size, 1420);
        const stride = padded + messages.transport_overhead;
        const ticket = far.interface.reserve(id, @intCast(count), count * stride, now).seal;
        for (0..count) |i| {
            const datagram = buffer[i * stride ..][0..stride];
            datagram[0..16].* = std.mem.toBytes(
                messages.TransportHeader.init(ticket.receiver_index, ticket.counter + i),
            );
            const body = datagram[16..];
            @memset(body, 0);
            const part = payload[i * size ..][0..size];
            body[0..28].* = innerHeader(part, @intCast(i));
            @memcpy(body[28..][0..size], part);
            cipher.sealBatch(ticket.key, ticket.counter + i, &.{
                .{ .source = body.ptr, .destination = body.ptr, .length = padded },
            });
        }
        far.send(buffer[0 .. count * stride], @intCast(stride), ticket.endpoint.*);
    }
};

/// IPv4 and UDP headers from the far end to the near one.
fn innerHeader(payload: []const u8, id: u16) [28]u8 {
    var header: [28]u8 = @splat(0);
    header[0] = 0x45;
    writeInt(u16, header[2..4], @intCast(28 + payload.len), .big);
    writeInt(u16, header[4..6], id, .big);
    header[6] = 0x40;
    header[8..10].* = .{ 64, 17 };
    header[12..16].* = far_inner;
    header[16..20].* = near_inner;
    writeInt(u16, header[10..12], wire.checksum.finish(wire.checksum.sum(header[0..20], 0)), .big);
    writeInt(u16, header[20..22], inner_port, .big);
    writeInt(u16, header[22..24], inner_port, .big);
    writeInt(u16, header[24..26], @intCast(8 + payload.len), .big);
    const pseudo = wire.checksum.pseudoHeader(header[12..20], 17, 8 + payload.len);
    const sum = wire.checksum.sum(payload, wire.checksum.sum(header[20..28], pseudo));
    writeInt(u16, header[26..28], wire.checksum.finish(sum), .big);
    return header;
}

// ---- this end ----------------------------------------------------------------------------------------

const Bench = struct {
    namespace: sys.TestNamespace,
    device: *Device = undefined,
    threads: [3]?std.Thread = @splat(null),
    far: Far = undefined,
    log_pipe: [2]sys.fd_t = undefined,
    log_buffer: [8192]u8 = undefined,
    log_length: usize = 0,
    folder_buffer: [64]u8 = @splat(0),
    folder: []const u8 = "",
    /// Of the user inside the tunnel.
    socket: sys.fd_t = -1,

    var number: u32 = 0;

    /// Device and far end know each other; the link is down.
    fn start(bench: *Bench, calls: *const sys.Calls, disable: u32) !void {
        return bench.startWith(calls, disable, 1);
    }

    fn startWith(bench: *Bench, calls: *const sys.Calls, disable: u32, threads: u8) !void {
        bench.* = .{ .namespace = try .enter() };
        errdefer bench.namespace.leave();
        number += 1;
        bench.folder = try std.mem.print(bench.folder_buffer[0..63], "/tmp/pywg-device-{d}-{d}", .{
            linux.getpid(),
            number,
        });
        const rc = linux.pipe2(&bench.log_pipe, .{ .CLOEXEC = true, .NONBLOCK = true });
        try testing.expectEqual(.SUCCESS, linux.errno(rc));
        errdefer for (bench.log_pipe) |fd| sys.close(fd);
        var why: Diagnostic = .{};
        bench.device = Device.open(testing.allocator, &.{
            .name = interface_name,
            .offload_disable = disable,
            .threads = threads,
            .log_level = .err,
            .log_fd = bench.log_pipe[1],
            .uapi_folder = bench.folder,
            .calls = calls,
        }, &why) catch |err| switch (err) {
            error.NotFound, error.Permission => return error.SkipZigTest,
            else => return err,
        };
        errdefer bench.device.close();
        try bench.far.open();
        errdefer bench.far.close();
        var text: [512]u8 = undefined;
        try bench.set(try std.mem.print(
            &text,
            "private_key={x}\npublic_key={x}\nendpoint=127.0.0.1:{d}\nallowed_ip=10.77.0.2/32\n",
            .{ &near_key, &publicKey(far_key), bench.far.port },
        ));
    }

    fn stop(bench: *Bench) void {
        if (bench.socket >= 0) sys.close(bench.socket);
        bench.end();
        bench.far.close();
        bench.device.close();
        for (bench.log_pipe) |fd| sys.close(fd);
        // Nobody else had sockets in there, so nothing may be left.
        std.debug.assert(linux.errno(linux.rmdir(@ptrCast(&bench.folder_buffer))) == .SUCCESS);
        bench.namespace.leave();
    }

    fn run(bench: *Bench) !void {
        for (bench.threads[0..bench.device.threads()]) |*thread| {
            thread.* = try std.Thread.spawn(.{ .stack_size = 2 << 20 }, runDevice, .{bench.device});
        }
    }

    fn runDevice(device: *Device) void {
        var why: Diagnostic = .{};
        device.run(&why) catch unreachable;
    }

    fn end(bench: *Bench) void {
        bench.device.stop();
        for (&bench.threads) |*slot| if (slot.*) |thread| {
            thread.join();
            slot.* = null;
        };
    }

    /// Runs with the link up, an address on it and a user's socket on that; both ends have a session.
    fn connect(bench: *Bench) !void {
        try bench.run();
        try setAddress(linux.SIOCSIFADDR, near_inner);
        try setAddress(linux.SIOCSIFNETMASK, .{ 255, 255, 255, 0 });
        try sys.TestNamespace.setUp(interface_name, true);
        try bench.far.configure(try bench.waitForPort());
        bench.socket = try innerSocket(near_inner);
        try bench.sendOut(&.{"first"});
        try bench.waitForFar(5);
        bench.far.received.clearRetainingCapacity();
    }

    fn set(bench: *Bench, text: []const u8) !void {
        var why: Diagnostic = .{};
        bench.device.set(text, &why) catch |err| {
            try testing.expect(why.text().len != 0);
            return err;
        };
    }

    fn get(bench: *Bench, buffer: []u8) []const u8 {
        return buffer[0..bench.device.get(buffer)];
    }

    fn report(bench: *Bench, buffer: []u8) []const u8 {
        return buffer[0..bench.device.report(buffer)];
    }

    fn expectReport(bench: *Bench, line: []const u8) !void {
        var buffer: [4096]u8 = undefined;
        const text = bench.report(&buffer);
        if (std.mem.find(u8, text, line) != null) return;
        std.debug.print("no '{s}' in the report:\n{s}", .{ line, text });
        return error.TestUnexpectedResult;
    }

    fn waitForReport(bench: *Bench, line: []const u8) !void {
        var buffer: [4096]u8 = undefined;
        for (0..patience_ms) |_| {
            if (std.mem.find(u8, bench.report(&buffer), line) != null) return;
            sleepMs(1);
        }
        return bench.expectReport(line);
    }

    fn port(bench: *Bench) ?u16 {
        var buffer: [2048]u8 = undefined;
        const key = "listen_port=";
        const text = bench.get(&buffer);
        const start_of_value = (std.mem.find(u8, text, key) orelse return null) + key.len;
        return std.fmt.parseInt(u16, std.mem.sliceTo(text[start_of_value..], '\n'), 10) catch null;
    }

    fn waitForPort(bench: *Bench) !u16 {
        try bench.waitForReport("up=true");
        return bench.port().?;
    }

    /// From the user inside to the far end: each text one write.
    fn sendOut(bench: *Bench, texts: []const []const u8) !void {
        for (texts) |text| {
            const big_endian = .{ inner_port >> 8, inner_port & 0xff };
            const remote: sys.SockaddrIn align(4) = .{ .port = big_endian, .address = far_inner };
            const length = @sizeOf(sys.SockaddrIn);
            const sent = linux.sendto(bench.socket, text.ptr, text.len, 0, @ptrCast(&remote), length);
            try testing.expectEqual(text.len, sent);
        }
    }

    fn waitForFar(bench: *Bench, bytes: usize) !void {
        for (0..patience_ms) |_| {
            try bench.far.pump();
            if (bench.far.received.items.len >= bytes) return;
            sleepMs(1);
        }
        std.debug.print("{d} of {d} bytes arrived\n", .{ bench.far.received.items.len, bytes });
        return error.TestUnexpectedResult;
    }

    fn expectAtFar(bench: *Bench, expected: []const u8) !void {
        try bench.waitForFar(expected.len);
        try testing.expectEqualSlices(u8, expected, bench.far.received.items);
        try testing.expect(bench.far.counters_in_order);
        bench.far.received.clearRetainingCapacity();
    }

    /// Everything the user inside gets, in datagrams of `size`.
    fn expectAtUser(bench: *Bench, expected: []const u8, size: usize) !void {
        var buffer: [2048]u8 = undefined;
        var at: usize = 0;
        var waited: usize = 0;
        while (at < expected.len) {
            const rc = linux.recvfrom(bench.socket, &buffer, buffer.len, 0, null, null);
            if (linux.errno(rc) == .SUCCESS) {
                try testing.expectEqual(size, rc);
                try testing.expectEqualSlices(u8, expected[at..][0..size], buffer[0..size]);
                at += size;
                continue;
            }
            waited += 1;
            if (waited > patience_ms) return error.TestUnexpectedResult;
            sleepMs(1);
        }
    }

    fn log(bench: *Bench) []const u8 {
        const rc = linux.read(
            bench.log_pipe[0],
            bench.log_buffer[bench.log_length..].ptr,
            bench.log_buffer.len - bench.log_length,
        );
        if (linux.errno(rc) == .SUCCESS) bench.log_length += rc;
        return bench.log_buffer[0..bench.log_length];
    }

    /// The one line that says `words`, and no other line at all.
    fn expectLoggedOnce(bench: *Bench, words: []const u8) !void {
        const text = bench.log();
        if (std.mem.count(u8, text, "\n") == 1 and std.mem.find(u8, text, words) != null) return;
        std.debug.print("expected one line with '{s}' in the log:\n{s}", .{ words, text });
        return error.TestUnexpectedResult;
    }

    fn connectUapi(bench: *Bench) !sys.fd_t {
        const fd: sys.fd_t = @intCast(linux.socket(linux.AF.UNIX, linux.SOCK.STREAM | linux.SOCK.CLOEXEC, 0));
        errdefer sys.close(fd);
        var address: linux.sockaddr.un = .{ .path = @splat(0) };
        _ = try std.mem.print(address.path[0..107], "{s}/{s}.sock", .{ bench.folder, interface_name });
        try testing.expectEqual(.SUCCESS, linux.errno(linux.connect(fd, &address, @sizeOf(linux.sockaddr.un))));
        return fd;
    }
};

/// Of two initiations within 20 ms the far end refuses the second, and the next comes after REKEY_TIMEOUT.
fn waitOutRush() void {
    sleepMs(25);
}

/// What this thread has computed, however busy the machine is.
fn processorNs() u64 {
    var time: linux.timespec = undefined;
    std.debug.assert(linux.errno(linux.clock_gettime(.THREAD_CPUTIME_ID, &time)) == .SUCCESS);
    return @intCast(time.sec * std.time.ns_per_s + time.nsec);
}

fn setAddress(what: u32, address: [4]u8) !void {
    const socket: sys.fd_t = @intCast(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0));
    defer sys.close(socket);
    var request = sys.Ifreq.init(interface_name).?;
    const name: sys.SockaddrIn = .{ .port = .{ 0, 0 }, .address = address };
    @memcpy(request.value.bytes[0..@sizeOf(sys.SockaddrIn)], std.mem.asBytes(&name));
    try testing.expectEqual(.SUCCESS, linux.errno(linux.ioctl(socket, what, @intFromPtr(&request))));
}

/// UDP, bound, not blocking, with room for whatever a test sends.
fn innerSocket(address: [4]u8) !sys.fd_t {
    const kind = linux.SOCK.DGRAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
    const socket: sys.fd_t = @intCast(linux.socket(linux.AF.INET, kind, 0));
    errdefer sys.close(socket);
    const name: sys.SockaddrIn = .{ .port = .{ inner_port >> 8, inner_port & 0xff }, .address = address };
    try testing.expectEqual(.SUCCESS, linux.errno(sys.real.bind(socket, &name, @sizeOf(sys.SockaddrIn))));
    return socket;
}

fn setOption(socket: sys.fd_t, level: i32, name: u32, value: c_int) !void {
    const rc = sys.real.setsockopt(socket, level, name, std.mem.asBytes(&value), @sizeOf(c_int));
    try testing.expectEqual(.SUCCESS, linux.errno(rc));
}

/// Bytes that tell their place.
fn pattern(comptime length: usize) [length]u8 {
    @setEvalBranchQuota(10 * length);
    var bytes: [length]u8 = undefined;
    for (&bytes, 0..) |*byte, i| byte.* = @truncate(i / 256 *% 31 +% i);
    return bytes;
}

fn repeat(comptime text: []const u8, comptime times: usize) *const [text.len * times]u8 {
    return comptime blk: {
        @setEvalBranchQuota(10 * text.len * times);
        var result: [text.len * times]u8 = undefined;
        for (&result, 0..) |*byte, i| byte.* = text[i % text.len];
        const constant = result;
        break :blk &constant;
    };
}

/// Between two turns: in one, the device opens some for a moment, as to ask for a route when routes changed.
fn openDescriptors(device: *Device) usize {
    device.workers.first().turn_lock.acquire();
    defer device.workers.first().turn_lock.release();
    var count: usize = 0;
    for (0..256) |fd| {
        if (linux.errno(linux.fcntl(@intCast(fd), linux.F.GETFD, 0)) == .SUCCESS) count += 1;
    }
    return count;
}

/// sendmmsg that refuses trains with `errno`, as a kernel does: what stands before the train is sent.
const RefusedTrains = struct {
    var errno: sys.E = .SUCCESS;
    var refused: usize = 0;

    const calls: sys.Calls = .{ .sendmmsg = sendmmsg };

    fn start(with: sys.E) void {
        errno = with;
        refused = 0;
    }

    fn sendmmsg(fd: sys.fd_t, list: [*]linux.mmsghdr, count: u32, flags: u32) usize {
        for (list[0..count], 0..) |*message, i| {
            if (errno == .SUCCESS or !isTrain(message)) continue;
            if (i != 0) return linux.sendmmsg(fd, list, @intCast(i), flags);
            refused += 1;
            return sys.failWith(errno);
        }
        return linux.sendmmsg(fd, list, count, flags);
    }

    fn isTrain(message: *const linux.mmsghdr) bool {
        const control: [*]const u8 = @ptrCast(message.hdr.control orelse return false);
        var iterator: io.control_message.Iterator = .{ .rest = control[0..message.hdr.controllen] };
        while (iterator.next()) |found| {
            if (found.level == linux.IPPROTO.UDP and found.kind == linux.UDP.SEGMENT) return true;
        }
        return false;
    }
};

// ---- traffic -----------------------------------------------------------------------------------------

test "packets go out and come in through TUN, ECN with them, and both ends count the same" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.connect();
    try setOption(bench.socket, linux.IPPROTO.IP, linux.IP.TOS, 0xb9); // EF, ECT(1)
    try bench.sendOut(&.{ "out", "and", "out" });
    try bench.expectAtFar("outandout");
    try testing.expectEqual(1, bench.far.last_ecn);
    try bench.far.sendInner(3, 4, "one.two.six.");
    try bench.expectAtUser("one.two.six.", 4);
    var buffer: [2048]u8 = undefined;
    const text = bench.get(&buffer);
    try testing.expect(std.mem.find(u8, text, "last_handshake_time_sec=0\n") == null);
    const peer = bench.far.interface.peers.at(0);
    var line: [64]u8 = undefined;
    try testing.expect(std.mem.find(u8, text, try std.mem.print(&line, "tx_bytes={d}\n", .{peer.rx_bytes})) != null);
    try testing.expect(std.mem.find(u8, text, try std.mem.print(&line, "rx_bytes={d}\n", .{peer.tx_bytes})) != null);
    try testing.expectEqualStrings("", bench.log());
}

test "garbage, empty datagrams and replays between the good ones cost nothing" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.connect();
    const near: wire.Endpoint = .{ .remote = .{ .address = .fromIpv4(.{ 127, 0, 0, 1 }), .port = bench.port().? } };
    const stranger: sys.fd_t = @intCast(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0));
    defer sys.close(stranger);
    var noise: [200]u8 = @splat(0);
    for (0..40) |round| {
        bench.far.send("", 0, near);
        for (0..5) |kind| {
            noise[0] = @intCast(kind);
            bench.far.send(noise[0 .. 31 + round], 0, near);
            bench.far.send(&noise, 3, near); // a train of scraps
        }
        try bench.far.sendInner(1, 4, "good");
    }
    try bench.expectAtUser(repeat("good", 40), 4);
    try bench.sendOut(&.{"alive"});
    try bench.expectAtFar("alive");
}

test "a superpacket leaves as one train and arrives whole and in order" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.connect();
    const data = pattern(40_000);
    try setOption(bench.socket, linux.IPPROTO.UDP, linux.UDP.SEGMENT, 1000);
    try bench.sendOut(&.{&data});
    try bench.expectAtFar(&data);
    try testing.expect(bench.far.trains > 0);
    try testing.expectEqual(41, bench.far.packets);
}

test "packets of any MTU go through, and one that fits no datagram is only counted" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.connect();
    try io.link.setMtu(interface_name, 65_535);
    try bench.waitForReport("mtu=65535");
    const data = pattern(65_507);
    // The longest: headers, payload and padding, 32 bytes around them, 65 507 in all.
    const longest = 65_472 - 28;
    try bench.sendOut(&.{ data[0..60_000], "x", data[0..longest], "y" });
    try bench.expectAtFar(data[0..60_000] ++ "x" ++ data[0..longest] ++ "y");
    try bench.sendOut(&.{ data[0 .. longest + 1], &data, "z" });
    try bench.expectAtFar("z");
    try bench.expectReport("dropped_malformed_outgoing=2\n");
    try io.link.setMtu(interface_name, 68);
    try bench.waitForReport("mtu=68");
    try bench.sendOut(&.{data[0..40]});
    try bench.expectAtFar(data[0..40]);
}

// ---- offload steps down ------------------------------------------------------------------------------

test "EIO or EMSGSIZE for a train spares its destination only: the data arrives whole, and the log says so once" {
    for ([_]sys.E{ .IO, .MSGSIZE }) |errno| {
        var bench: Bench = undefined;
        try bench.start(&RefusedTrains.calls, 0);
        defer bench.stop();
        RefusedTrains.start(.SUCCESS);
        try bench.connect();
        try bench.expectReport("offload_udp_gso=active\n");
        RefusedTrains.start(errno);
        const data = pattern(40_000);
        try setOption(bench.socket, linux.IPPROTO.UDP, linux.UDP.SEGMENT, 1000);
        for (0..3) |_| {
            try bench.sendOut(&.{&data});
            try bench.expectAtFar(&data);
        }
        // EMSGSIZE may be about a datagram of before, so it counts when it stays.
        const refusals: usize = if (errno == .MSGSIZE) 5 else 1;
        try testing.expectEqual(refusals, RefusedTrains.refused);
        try bench.expectReport("offload_udp_gso=active\n");
        var line: [64]u8 = undefined;
        try bench.expectReport(try std.mem.print(&line, "gso_refused=127.0.0.1:{d}\n", .{bench.far.port}));
        try bench.expectReport("gso_resent=1\n");
        try bench.expectReport("dropped_send_failed=0\n");
        try bench.expectLoggedOnce("udp_gso is not used towards 127.0.0.1");
    }
}

test "EINVAL for superpackets into TUN: they go in packet by packet, then none is tried, and the log says so once" {
    const Refusing = struct {
        var refused: usize = 0;
        fn writev(fd: sys.fd_t, vectors: [*]const sys.iovec_const, count: usize) usize {
            if (vectors[0].base[1] == io.VnetHeader.GSO_NONE) return linux.writev(fd, vectors, count);
            refused += 1;
            return sys.failWith(.INVAL);
        }
    };
    const calls: sys.Calls = .{ .writev = Refusing.writev };
    var bench: Bench = undefined;
    try bench.start(&calls, 0);
    defer bench.stop();
    Refusing.refused = 0;
    try bench.connect();
    if (!bench.device.workers.first().offload.isActive(.tun_uso)) return error.SkipZigTest;
    const data = pattern(10_000);
    for (0..5) |_| {
        try bench.far.sendInner(10, 1000, &data);
        try bench.expectAtUser(&data, 1000);
    }
    try testing.expectEqual(3, Refusing.refused);
    try bench.expectReport("offload_tun_uso=stepped_down EINVAL\n");
    try bench.expectReport("offload_tun_tso=active\n");
    try bench.expectReport("tun_resent=3\n");
    try bench.expectReport("dropped_deliver_failed=0\n");
    try bench.expectLoggedOnce("tun_uso switched off: the kernel answered EINVAL");
}

test "without any offload the same traffic goes through" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 31);
    defer bench.stop();
    try bench.connect();
    const data = pattern(40_000);
    try setOption(bench.socket, linux.IPPROTO.UDP, linux.UDP.SEGMENT, 1000);
    try bench.sendOut(&.{&data});
    try bench.expectAtFar(&data);
    try bench.far.sendInner(10, 1000, data[0..10_000]);
    try bench.expectAtUser(data[0..10_000], 1000);
    for ([_][]const u8{ "tun_tso", "tun_uso", "tun_tunnel", "udp_gso", "udp_gro" }) |feature| {
        var line: [64]u8 = undefined;
        try bench.expectReport(try std.mem.print(&line, "offload_{s}=disabled\n", .{feature}));
    }
}

// ---- configuration -----------------------------------------------------------------------------------

test "what is set is what is got, and setting it again changes nothing" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    const settings = "private_key=" ++ repeat("40", 32) ++ "\nlisten_port=51999\nfwmark=42\nreplace_peers=true\n" ++
        "public_key=" ++ repeat("0b", 32) ++ "\npreshared_key=" ++ repeat("a1", 32) ++
        "\nprotocol_version=1\nendpoint=[2001:db8::1]:7\n" ++
        "persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/64\n";
    try bench.set(settings);
    var first: [2048]u8 = undefined;
    const got = bench.get(&first);
    for ([_][]const u8{
        "private_key=" ++ repeat("40", 32) ++ "\n",
        "listen_port=51999\n",
        "fwmark=42\n",
        "public_key=" ++ repeat("0b", 32) ++ "\n",
        "preshared_key=" ++ repeat("a1", 32) ++ "\n",
        "endpoint=[2001:db8::1]:7\n",
        "persistent_keepalive_interval=25\n",
        "allowed_ip=10.0.0.0/8\n",
        "allowed_ip=fd00::/64\n",
    }) |line| try testing.expect(std.mem.find(u8, got, line) != null);
    try testing.expectEqual(1, std.mem.count(u8, got, "public_key="));
    try bench.set(settings);
    var second: [2048]u8 = undefined;
    try testing.expectEqualStrings(got, bench.get(&second));
    // A buffer that is too small is not touched.
    var small: [8]u8 = @splat('-');
    try testing.expectEqual(got.len, bench.device.get(&small));
    try testing.expectEqualStrings("--------", &small);
}

test "zones of endpoints are found by name, and per cent signs elsewhere cost nothing" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    const peer = comptime "public_key=" ++ repeat("0b", 32) ++ "\n";
    var buffer: [2048]u8 = undefined;
    for ([_][]const u8{ "lo", "1" }) |zone| { // lo is 1 in every namespace
        var text: [256]u8 = undefined;
        try bench.set(
            try std.mem.print(&text, "replace_peers=true\n" ++ peer ++ "endpoint=[fe80::1%{s}]:5\n", .{zone}),
        );
        const got = bench.get(&buffer);
        const written = std.mem.find(u8, got, "endpoint=[fe80::1%").?;
        try testing.expect(std.mem.startsWith(u8, got[written..], "endpoint=[fe80::1%1]:5\n") or
            std.mem.startsWith(u8, got[written..], "endpoint=[fe80::1%lo]:5\n"));
    }
    try testing.expectError(error.Invalid, bench.set(peer ++ "endpoint=[fe80::1%nosuchlink]:5\n"));
    const signs = try testing.allocator.alloc(u8, 1 << 20);
    defer testing.allocator.free(signs);
    @memset(signs, '%');
    const start = processorNs();
    try testing.expectError(error.Protocol, bench.set(signs));
    try testing.expect(processorNs() - start < 2 * std.time.ns_per_s);
}

test "a port that is taken refuses the whole request, and the tunnel goes on as it was" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.connect();
    var before: [2048]u8 = undefined;
    var after: [2048]u8 = undefined;
    const got = bench.get(&before);
    const descriptors = openDescriptors(bench.device);
    var text: [128]u8 = undefined;
    try testing.expectError(error.AddressInUse, bench.set(
        try std.mem.print(&text, "private_key={x}\nfwmark=7\nlisten_port={d}\n", .{ &far_key, bench.far.port }),
    ));
    try testing.expectEqualStrings(got, bench.get(&after));
    try testing.expectEqual(descriptors, openDescriptors(bench.device));
    try bench.sendOut(&.{"still here"});
    try bench.expectAtFar("still here");
    // A free one moves the tunnel there, and the session with it.
    try bench.set("listen_port=0\n");
    try testing.expect(bench.port().? != 0);
    try testing.expectEqual(descriptors, openDescriptors(bench.device));
    try bench.sendOut(&.{"from elsewhere"});
    try bench.expectAtFar("from elsewhere");
    try bench.far.sendInner(1, 4, "back");
    try bench.expectAtUser("back", 4);
}

test "a link that comes up on a taken port says so, and a free port brings it to life" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    var text: [64]u8 = undefined;
    const taken = try std.mem.print(&text, "listen_port={d}\n", .{bench.far.port});
    try bench.set(taken); // down: nothing is opened yet
    try bench.run();
    try sys.TestNamespace.setUp(interface_name, true);
    for (0..patience_ms) |_| if (bench.log().len == 0) sleepMs(1);
    try bench.expectLoggedOnce("bind: EADDRINUSE");
    try bench.expectReport("up=false\n");
    try testing.expectError(error.AddressInUse, bench.set(taken));
    try bench.set("public_key=" ++ repeat("0b", 32) ++ "\nupdate_only=true\n"); // what needs no port works
    try bench.expectReport("up=false\n");
    try bench.set("listen_port=0\n");
    try bench.expectReport("up=true\n");
    try testing.expect(bench.port().? != bench.far.port);
}

fn expectEvent(bench: *Bench) !device_file.Event {
    var event: [1]device_file.Event = undefined;
    for (0..patience_ms) |_| {
        if (bench.device.fetchEvents(&event) == 1) return event[0];
        sleepMs(1);
    }
    return error.TestUnexpectedResult;
}

test "a port that is taken is tried for until it is free, and each turn of events is told once" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    const taken = bench.far.port;
    var text: [64]u8 = undefined;
    try bench.set(try std.mem.print(&text, "listen_port={d}\n", .{taken}));
    try bench.run();
    try sys.TestNamespace.setUp(interface_name, true);
    try bench.waitForReport("listen_error=EADDRINUSE\n");
    // Whoever comes late is told what still holds.
    const readable = try bench.device.openEvents(0);
    try testing.expectEqual(readable, try bench.device.openEvents(8));
    const failed = (try expectEvent(&bench)).port_failed;
    try testing.expectEqual(taken, failed.port);
    try testing.expectEqual(@backingInt(sys.E.ADDRINUSE), failed.errno);
    for (0..3) |_| { // in vain
        var pause = bench.device.workers.pause();
        defer pause.end();
        bench.device.link.probe();
    }
    bench.far.udp.close();
    try testing.expectEqual(taken, (try expectEvent(&bench)).healed.port);
    try bench.waitForReport("up=true\n");
    try testing.expectEqual(taken, bench.port());
    try bench.expectLoggedOnce("bind: EADDRINUSE");
    var event: [1]device_file.Event = undefined;
    try testing.expectEqual(0, bench.device.fetchEvents(&event));
    // The end is the last that is told.
    try deleteInterface();
    try testing.expectEqual(device_file.Event.removed, try expectEvent(&bench));
}

test "down closes the sockets and keeps the configuration, up goes on with the same port" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.connect();
    const port = bench.port().?;
    const descriptors = openDescriptors(bench.device);
    waitOutRush();
    for (0..3) |_| {
        try sys.TestNamespace.setUp(interface_name, false);
        try bench.waitForReport("up=false\n");
        try testing.expectEqual(port, bench.port().?);
        var offload: io.Offload = .init(0);
        var other: io.Udp = .init(&sys.real, &offload);
        try testing.expectEqual(port, try other.open(.{ .port = port }));
        other.close();
        try sys.TestNamespace.setUp(interface_name, true);
        try bench.waitForReport("up=true\n");
        try testing.expectEqual(port, bench.port().?);
    }
    try testing.expectEqual(descriptors, openDescriptors(bench.device));
    // Sessions ended with the link: this takes a new handshake.
    try bench.sendOut(&.{"again"});
    try bench.expectAtFar("again");
}

// ---- what the sockets are bound to -----------------------------------------------------------------

/// SO_BINDTODEVICE that is refused with `errno`.
const RefusedBinding = struct {
    var errno: sys.E = .SUCCESS;

    const calls: sys.Calls = .{ .setsockopt = setsockopt };

    fn setsockopt(fd: sys.fd_t, level: i32, name: u32, value: [*]const u8, length: linux.socklen_t) usize {
        const is_binding = level == linux.SOL.SOCKET and name == linux.SO.BINDTODEVICE;
        if (errno != .SUCCESS and is_binding) return sys.failWith(errno);
        return sys.real.setsockopt(fd, level, name, value, length);
    }
};

/// How many sockets there are, each of which is bound to this interface.
fn socketsBoundTo(device: *const Device, name: []const u8) !usize {
    var count: usize = 0;
    for (device.workers.all()) |worker| for (worker.udp.sockets) |socket| {
        var buffer: [16]u8 = @splat(0);
        var length: linux.socklen_t = buffer.len;
        const rc = linux.getsockopt(socket orelse continue, linux.SOL.SOCKET, linux.SO.BINDTODEVICE, &buffer, &length);
        try testing.expectEqual(.SUCCESS, linux.errno(rc));
        try testing.expectEqualStrings(name, std.mem.sliceTo(&buffer, 0));
        count += 1;
    };
    return count;
}

/// Where the far end saw us last.
fn expectSeenFrom(bench: *Bench, address: [4]u8) !void {
    const seen = bench.far.interface.peers.at(0).endpoint.?.remote;
    try testing.expectEqual(wire.Address.fromIpv4(address), seen.address);
    try testing.expectEqual(bench.port().?, seen.port);
}

test "a bound address is the source, through a change of mark and down and up, until it is taken back" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.connect();
    const descriptors = openDescriptors(bench.device);
    const port = bench.port().?;
    try expectSeenFrom(&bench, .{ 127, 0, 0, 1 });
    try bench.far.sendInner(1, 4, "back"); // we learn a source, which is not to be used any more
    try bench.expectAtUser("back", 4);
    try bench.set("pywg_bind_address=127.0.0.9\n");
    try testing.expectEqual(port, bench.port().?);
    try bench.expectReport("pywg_bind_address=127.0.0.9\n");
    var got: [2048]u8 = undefined;
    try testing.expectEqual(null, std.mem.find(u8, bench.get(&got), "pywg"));
    try bench.sendOut(&.{"bound"});
    try bench.expectAtFar("bound");
    try expectSeenFrom(&bench, .{ 127, 0, 0, 9 });
    try bench.set("fwmark=7\n");
    try bench.sendOut(&.{"marked"});
    try bench.expectAtFar("marked");
    try expectSeenFrom(&bench, .{ 127, 0, 0, 9 });
    waitOutRush();
    try sys.TestNamespace.setUp(interface_name, false);
    try bench.waitForReport("up=false\n");
    try sys.TestNamespace.setUp(interface_name, true);
    try testing.expectEqual(port, try bench.waitForPort());
    try bench.sendOut(&.{"again"});
    try bench.expectAtFar("again");
    try expectSeenFrom(&bench, .{ 127, 0, 0, 9 });
    try bench.set("pywg_bind_address=\n");
    try testing.expectEqual(descriptors, openDescriptors(bench.device));
    try bench.sendOut(&.{"free"});
    try bench.expectAtFar("free");
    try expectSeenFrom(&bench, .{ 127, 0, 0, 1 });
    try testing.expectEqualStrings("", bench.log());
}

test "a binding that fails refuses the whole request under its errno, and the tunnel goes on as it was" {
    var bench: Bench = undefined;
    try bench.start(&RefusedBinding.calls, 0);
    defer bench.stop();
    RefusedBinding.errno = .SUCCESS;
    try bench.connect();
    try bench.set("pywg_bind_device=lo\n");
    const Row = struct {
        text: []const u8,
        injected: sys.E = .SUCCESS,
        expected: device_file.SetError,
        errno: sys.E,
        said: []const u8,
    };
    const rows = [_]Row{
        .{
            .text = "pywg_bind_device=nosuchlink\n",
            .expected = error.System,
            .errno = .NODEV,
            .said = "there is no interface nosuchlink to bind to (BindDevice)",
        },
        .{
            .text = "pywg_bind_device=\npywg_bind_address=192.0.2.9\n",
            .expected = error.System,
            .errno = .ADDRNOTAVAIL,
            .said = "no interface has the address 192.0.2.9 to bind to (BindAddress)",
        },
        .{
            .text = "fwmark=7\npywg_bind_address=127.0.0.9\n",
            .injected = .PERM,
            .expected = error.Permission,
            .errno = .PERM,
            .said = "no permission to bind to the interface lo (BindDevice): needs CAP_NET_RAW",
        },
        .{
            .text = "pywg_bind_device=" ++ interface_name ++ "\n",
            .expected = error.Invalid,
            .errno = .INVAL,
            .said = interface_name ++ " cannot be bound to itself",
        },
        .{
            .text = "pywg_bind_device=\npywg_bind_address=fe80::1\n",
            .expected = error.Invalid,
            .errno = .INVAL,
            .said = "the link-local address fe80::1 (BindAddress)",
        },
    };
    var before: [4096]u8 = undefined;
    var after: [4096]u8 = undefined;
    // With the link up, then down: a mistake is told at once in either case.
    for ([_]bool{ true, false }) |is_up| {
        if (!is_up) try sys.TestNamespace.setUp(interface_name, false);
        try bench.waitForReport(if (is_up) "up=true\n" else "up=false\n");
        const descriptors = openDescriptors(bench.device);
        for (rows) |row| {
            const got = bench.get(&before);
            RefusedBinding.errno = row.injected;
            var why: Diagnostic = .{};
            try testing.expectError(row.expected, bench.device.set(row.text, &why));
            try testing.expectEqual(@as(u16, @intCast(@backingInt(row.errno))), why.errno);
            try testing.expect(std.mem.startsWith(u8, why.text(), row.said));
            try testing.expectEqualStrings(got, bench.get(&after));
            try testing.expectEqual(descriptors, openDescriptors(bench.device));
            RefusedBinding.errno = .SUCCESS;
            if (!is_up) continue;
            try bench.sendOut(&.{"still here"});
            try bench.expectAtFar("still here");
            _ = try socketsBoundTo(bench.device, "lo");
        }
        try bench.expectReport("pywg_bind_device=lo\n");
    }
}

test "the same binding again keeps its sockets" {
    var bench: Bench = undefined;
    try bench.start(&RefusedBinding.calls, 0);
    defer bench.stop();
    RefusedBinding.errno = .SUCCESS;
    try bench.connect();
    const binding = "pywg_bind_device=lo\npywg_bind_address=127.0.0.1\n";
    try bench.set(binding);
    RefusedBinding.errno = .PERM;
    defer RefusedBinding.errno = .SUCCESS;
    try bench.set(binding);
    try bench.set("pywg_bind_device=lo\n");
    try testing.expectError(error.Permission, bench.set("pywg_bind_address=127.0.0.9\n"));
}

test "sockets of all threads are bound, and packets of many flows go on" {
    var bench: Bench = undefined;
    try bench.startWith(&sys.real, 0, 3);
    defer bench.stop();
    try bench.connect();
    for (bench.device.workers.all()) |worker| {
        for (0..patience_ms) |_| if (!worker.has_thread.load(.acquire)) sleepMs(1);
    }
    const count = try socketsBoundTo(bench.device, "");
    for ([_]struct { []const u8, []const u8 }{
        .{ "pywg_bind_device=lo\n", "lo" },
        .{ "pywg_bind_address=127.0.0.9\npywg_bind_address=::\n", "lo" },
        .{ "pywg_bind_device=\npywg_bind_address=\n", "" },
    }) |step| {
        try bench.set(step[0]);
        try testing.expectEqual(count, try socketsBoundTo(bench.device, step[1]));
        try bench.sendOut(&.{"here"}); // and the far end follows
        try bench.expectAtFar("here");
        const data = pattern(40_000);
        try setOption(bench.socket, linux.IPPROTO.UDP, linux.UDP.SEGMENT, 1000);
        try bench.sendOut(&.{&data});
        try bench.expectAtFar(&data);
        try setOption(bench.socket, linux.IPPROTO.UDP, linux.UDP.SEGMENT, 0);
        for (0..40) |_| try bench.far.sendInner(1, 4, "good");
        try bench.expectAtUser(repeat("good", 40), 4);
    }
    try testing.expectEqualStrings("", bench.log());
}

// ---- the UAPI socket ---------------------------------------------------------------------------------

test "requests are answered in order, however many come at once and however they are cut" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.run();
    const requests = 100;
    const text = repeat("set=1\nfwmark=x\n\nget=0\n\n", requests / 2);
    const answers = repeat("errno=-22\n\nerrno=71\n\n", requests / 2);
    for ([_]usize{ text.len, 1000, 7 }) |step| {
        const fd = try bench.connectUapi();
        defer sys.close(fd);
        var at: usize = 0;
        while (at < text.len) : (at += step) {
            const part = text[at..@min(at + step, text.len)];
            try testing.expectEqual(part.len, linux.write(fd, part.ptr, part.len));
        }
        var got: [answers.len]u8 = undefined;
        var length: usize = 0;
        while (length < got.len) {
            var waiting = [1]linux.pollfd{.{ .fd = fd, .events = linux.POLL.IN, .revents = 0 }};
            try testing.expectEqual(1, linux.poll(&waiting, 1, patience_ms));
            length += linux.read(fd, got[length..].ptr, got.len - length);
        }
        try testing.expectEqualStrings(answers, &got);
    }
    try testing.expect(std.mem.find(u8, bench.log(), "line 1: fwmark is not a number") != null);
}

test "removal of the socket file ends the device, and so does removal of the interface" {
    for ([_]bool{ true, false }) |removes_socket| {
        var bench: Bench = undefined;
        try bench.start(&sys.real, 0);
        defer bench.stop();
        try bench.connect();
        if (removes_socket) {
            var path: [108]u8 = @splat(0);
            _ = try std.mem.print(path[0..107], "{s}/{s}.sock", .{ bench.folder, interface_name });
            try testing.expectEqual(.SUCCESS, linux.errno(linux.unlink(@ptrCast(&path))));
        } else try deleteInterface();
        for (0..patience_ms) |_| {
            if (!bench.device.workers.first().has_thread.load(.acquire)) break;
            sleepMs(1);
        }
        try testing.expect(!bench.device.workers.first().has_thread.load(.acquire));
    }
}

fn deleteInterface() !void {
    const kind = linux.SOCK.RAW | linux.SOCK.CLOEXEC;
    const socket: sys.fd_t = @intCast(linux.socket(linux.AF.NETLINK, kind, linux.NETLINK.ROUTE));
    defer sys.close(socket);
    const Message = extern struct { header: linux.nlmsghdr, link: linux.ifinfomsg };
    var message: Message = std.mem.zeroes(Message);
    message.header.len = @sizeOf(Message);
    std.mem.writeInt(u16, std.mem.asBytes(&message)[4..6], sys.RTM_DELLINK, .native);
    std.mem.writeInt(u16, std.mem.asBytes(&message)[6..8], sys.NLM_F_REQUEST | sys.NLM_F_ACK, .native);
    message.link.index = @intCast(try io.link.index(interface_name));
    const sent = linux.sendto(socket, std.mem.asBytes(&message).ptr, @sizeOf(Message), 0, null, 0);
    try testing.expectEqual(@sizeOf(Message), sent);
    try testing.expectError(error.NotFound, io.link.index(interface_name));
}

// ---- life --------------------------------------------------------------------------------------------

test "opening that fails leaves nothing behind, and says why in one line" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    const descriptors = openDescriptors(bench.device);
    const Case = struct { device_file.Options, device_file.OpenError, []const u8 };
    for ([_]Case{
        .{ .{ .name = interface_name }, error.NameInUse, "exists already" },
        .{ .{ .name = "" }, error.InvalidArgument, "1 to 15" },
        .{ .{ .name = "sixteen-letters-" }, error.InvalidArgument, "at most 15" },
        .{ .{ .name = "a\nb" }, error.InvalidArgument, "may only have" },
        .{ .{ .name = "pywgdev1", .mtu = 0 }, error.InvalidArgument, "out of range" },
        .{ .{ .name = "pywgdev1", .mtu = 65_536 }, error.InvalidArgument, "out of range" },
        .{ .{ .name = "pywgdev1", .tun_fd = 0 }, error.InvalidArgument, "no TUN" },
        .{ .{ .name = "pywgdev1", .uapi_fd = bench.log_pipe[0] }, error.InvalidArgument, "listens" },
    }) |case| {
        const options, const expected, const words = case;
        var given = options;
        given.uapi_folder = bench.folder;
        var why: Diagnostic = .{};
        try testing.expectError(expected, Device.open(testing.allocator, &given, &why));
        try testing.expect(std.mem.find(u8, why.text(), words) != null);
        try testing.expect(std.mem.find(u8, why.text(), "\n") == null);
        try testing.expectError(error.NotFound, io.link.index("pywgdev1"));
    }
    try testing.expectEqual(descriptors, openDescriptors(bench.device));
}

test "opening survives every failing allocation" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    const Opening = struct {
        fn open(allocator: std.mem.Allocator) !void {
            var why: Diagnostic = .{};
            const options: device_file.Options = .{ .name = interface_name, .has_uapi = false };
            const device = Device.open(allocator, &options, &why) catch |err| switch (err) {
                error.NotFound, error.Permission => return error.SkipZigTest,
                else => return err,
            };
            device.close();
        }
    };
    try testing.checkAllAllocationFailures(testing.allocator, Opening.open, .{});
}

test "a device of three threads moves packets of many flows, whole and each in order" {
    var bench: Bench = undefined;
    try bench.startWith(&sys.real, 0, 3);
    defer bench.stop();
    try bench.connect();
    try testing.expectEqual(3, bench.device.threads());
    for (bench.device.workers.all()) |worker| {
        for (0..patience_ms) |_| if (!worker.has_thread.load(.acquire)) sleepMs(1);
        try testing.expect(worker.has_thread.load(.acquire));
    }
    var why: Diagnostic = .{};
    try testing.expectError(error.AlreadyRunning, bench.device.run(&why));
    const data = pattern(40_000);
    try setOption(bench.socket, linux.IPPROTO.UDP, linux.UDP.SEGMENT, 1000);
    try bench.sendOut(&.{&data});
    try bench.expectAtFar(&data);
    for (0..40) |_| try bench.far.sendInner(1, 4, "good");
    try bench.expectAtUser(repeat("good", 40), 4);
    try bench.expectReport("threads=3\n");
    // Another port for all of them, and down and up again.
    try bench.set("listen_port=0\n");
    waitOutRush();
    try sys.TestNamespace.setUp(interface_name, false);
    try bench.waitForReport("up=false\n"); // else it would be up still, and what we send end with that session
    try sys.TestNamespace.setUp(interface_name, true);
    _ = try bench.waitForPort();
    try bench.sendOut(&.{"again"});
    try bench.expectAtFar("again");
    try testing.expectEqualStrings("", bench.log());
}

test "only one thread runs a device, and a stop before the run is not lost" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.run();
    for (0..patience_ms) |_| if (!bench.device.workers.first().has_thread.load(.acquire)) sleepMs(1);
    var why: Diagnostic = .{};
    try testing.expectError(error.AlreadyRunning, bench.device.run(&why));
    bench.end();
    try bench.device.run(&why); // it was stopped: returns at once
}

// ---- many peers ---------------------------------------------------------------------------------------

/// So many peers at the far end's port that it does not know, each kept alive.
fn strangers(comptime count: usize, port: u16, buffer: []u8) ![]const u8 {
    var writer: std.Io.Writer = .fixed(buffer);
    for (0..count) |number| {
        var key: [32]u8 = @splat(0x11);
        writeInt(u32, key[0..4], @intCast(number), .little);
        try writer.print(
            "public_key={x}\nendpoint=127.0.0.1:{d}\npersistent_keepalive_interval=25\nallowed_ip=10.78.{d}.{d}/32\n",
            .{ &key, port, number / 256, number % 256 },
        );
    }
    return writer.buffered();
}

test "handshakes with many silent peers are begun a few at a time, and packets pass in between" {
    for ([_]u8{ 1, 3 }) |threads| {
        var bench: Bench = undefined;
        try bench.startWith(&sys.real, 0, threads);
        defer bench.stop();
        try bench.connect();
        const count = 300;
        var text: [count * 200]u8 = undefined;
        try bench.set(try strangers(count, bench.far.port, &text));
        var rounds: usize = 0;
        while (bench.far.interface.counters.get(.invalid_mac1) < count) : (rounds += 1) {
            if (rounds > patience_ms) return error.TestUnexpectedResult;
            try bench.sendOut(&.{"between"});
            try bench.expectAtFar("between");
        }
    }
}

test "packets pass in the middle of what holds all turns, and whoever else wants to change or read something waits" {
    for ([_]u8{ 1, 3 }) |threads| {
        var bench: Bench = undefined;
        try bench.startWith(&sys.real, 0, threads);
        defer bench.stop();
        try bench.connect();
        const Reading = struct {
            var is_done: std.atomic.Value(bool) = .init(false);

            fn run(device: *Device) void {
                var buffer: [2048]u8 = undefined;
                _ = device.get(&buffer);
                is_done.store(true, .release);
            }
        };
        Reading.is_done.store(false, .release);
        var pause = bench.device.workers.pause();
        const reader = try std.Thread.spawn(.{ .stack_size = 1 << 20 }, Reading.run, .{bench.device});
        defer reader.join();
        errdefer pause.end();
        for (0..5) |_| {
            try bench.sendOut(&.{"between"});
            var rounds: usize = 0;
            while (bench.far.received.items.len == 0) : (rounds += 1) {
                if (rounds > patience_ms) return error.TestUnexpectedResult;
                sleepMs(1);
                pause.offer();
                try bench.far.pump();
            }
            try bench.expectAtFar("between");
        }
        // The link is not followed either, which is the first worker's to do.
        try sys.TestNamespace.setUp(interface_name, false);
        for (0..20) |_| {
            sleepMs(1);
            pause.offer();
        }
        try testing.expect(bench.device.shared.interface.is_active);
        try testing.expect(!Reading.is_done.load(.acquire));
        pause.end();
        for (0..patience_ms) |_| if (!Reading.is_done.load(.acquire)) sleepMs(1);
        try testing.expect(Reading.is_done.load(.acquire));
        try bench.waitForReport("up=false\n");
    }
}

test "a request with many peers is served while packets pass, and told in parts" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    try bench.connect();
    const count = 3000;
    const text = try testing.allocator.alloc(u8, count * 200);
    defer testing.allocator.free(text);
    const lines = try strangers(count, 9, text);
    const client = try bench.connectUapi();
    defer sys.close(client);
    for ([_][]const u8{ "set=1\n", lines, "\nget=1\n\n" }) |part| {
        var sent: usize = 0;
        while (sent < part.len) sent += linux.sendto(client, part[sent..].ptr, part.len - sent, 0, null, 0);
    }
    var answer: std.ArrayList(u8) = .empty;
    defer answer.deinit(testing.allocator);
    while (std.mem.count(u8, answer.items, "errno=0\n\n") < 2) {
        var piece: [65_536]u8 = undefined;
        const rc = linux.recvfrom(client, &piece, piece.len, 0, null, null);
        try testing.expectEqual(.SUCCESS, linux.errno(rc));
        try testing.expect(rc > 0);
        try answer.appendSlice(testing.allocator, piece[0..rc]);
    }
    try testing.expectEqual(count + 1, std.mem.count(u8, answer.items, "public_key="));
    const own = try testing.allocator.alloc(u8, count * 500);
    defer testing.allocator.free(own);
    try testing.expectEqual(count + 1, std.mem.count(u8, bench.get(own), "public_key="));
    try bench.sendOut(&.{"after"});
    try bench.expectAtFar("after");
}

test "what is told to the sender of a packet without endpoint is written while others may have the mutex" {
    const Watching = struct {
        var device: ?*Device = null;
        var written: std.atomic.Value(u32) = .init(0);
        var with_mutex: std.atomic.Value(u32) = .init(0);

        fn writev(fd: sys.fd_t, vector: [*]const std.posix.iovec_const, count: usize) usize {
            if (device) |watched| {
                _ = written.fetchAdd(1, .monotonic);
                // One thread runs the device, and nobody else asks it anything now.
                if (watched.shared.mutex.state.load(.monotonic) != 0) _ = with_mutex.fetchAdd(1, .monotonic);
            }
            return linux.writev(fd, vector, count);
        }
    };
    const calls: sys.Calls = .{ .writev = Watching.writev };
    var bench: Bench = undefined;
    try bench.start(&calls, 0);
    defer bench.stop();
    defer Watching.device = null;
    try bench.connect();
    try bench.set("public_key=" ++ repeat("0b", 32) ++ "\nallowed_ip=10.77.0.3/32\n");
    bench.device.shared.icmp.close(); // without it the answer is written to TUN
    Watching.device = bench.device;
    const remote: sys.SockaddrIn align(4) = .{ .port = .{ 0, 9 }, .address = .{ 10, 77, 0, 3 } };
    for (0..patience_ms) |_| {
        _ = linux.sendto(bench.socket, "lost", 4, 0, @ptrCast(&remote), @sizeOf(sys.SockaddrIn));
        if (Watching.written.load(.monotonic) != 0) break;
        sleepMs(1);
    }
    try testing.expect(Watching.written.load(.monotonic) != 0);
    try testing.expectEqual(0, Watching.with_mutex.load(.monotonic));
}

test "after a set no word of the private key is on the stack" {
    var bench: Bench = undefined;
    try bench.start(&sys.real, 0);
    defer bench.stop();
    var key: [32]u8 = undefined;
    io.entropy.fill(&key);
    protocol.crypto.clamp(&key);
    var text: [80]u8 = undefined;
    const line = try std.mem.print(&text, "private_key={x}\n", .{&key});
    var why: Diagnostic = .{};
    try bench.device.set(line, &why);
    try testing.expectEqual(0, wordsBelow(&key));
}

/// Words of the key in what calls have left on the stack. Reads without calling anything, which would overwrite it.
fn wordsBelow(key: *const [32]u8) usize {
    const words: *align(1) const [8]u32 = @ptrCast(key);
    const top = @frameAddress() & ~@as(usize, 3);
    var found: usize = 0;
    var at = top - (64 << 10);
    while (at < top - 256) : (at += 4) {
        const left = @as(*const volatile u32, @ptrFromInt(at)).*;
        for (words) |word| found += @intFromBool(left == word);
    }
    return found;
}
