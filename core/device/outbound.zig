//! TUN to UDP, functions in the order a packet meets them: read, route, split into trains, seal, send.
//! A superpacket stays together from end to end: one read, one run of nonces, one UDP_SEGMENT send.
//! Holds the mutex of the tables only to look up, never over a system call or the cipher.
//! Invariant: trains of one peer are sealed and sent in the order they were filled; and what is sent is at most
//! `distance_max` nonces behind what other workers have reserved, so that the receiver does not take it for a replay.
const std = @import("std");
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;
const cipher = @import("cipher");
const Pool = @import("cipher_pool.zig").Pool;
const Share = @import("cipher_pool.zig").Share;
const workers_max = @import("cipher_pool.zig").workers_max;
const io = @import("io");
const Mutex = @import("mutex.zig").Mutex;
const protocol = @import("protocol");
const train_file = @import("train.zig");
const Train = train_file.Train;
const Trains = train_file.Trains;
const Watch = @import("train_watch.zig").Watch;
const wire = @import("wire");
const messages = wire.messages;

const trains_max = Trains.count_max;
/// Packets sealed in one call at most: those of as many superpackets as the trains hold.
const jobs_max = 1024;
/// vnet header and the largest superpacket.
const read_buffer_length = 65_536 + 64;
/// Reads in one turn even if they are small, so that a flood leaves room for the other way.
const reads_max = 256;

/// Nonces that all workers together have reserved and not sent, if none is held up; and how far behind the newest one
/// may be when it is sent. Twice as much still fits the receiver's replay window, so as much again may leave before it.
const distance_max = 4096;

comptime {
    assert(2 * distance_max <= protocol.constants.replay_bitmap_bits);
    assert(train_file.packets_max * workers_max <= distance_max);
}

/// Unreachables told to local senders in one window, about the kernel's limit for ICMP errors.
const replies_max = 50;
const reply_window_ns = 50 * std.time.ns_per_ms;

/// What the outbound path borrows from the worker, put together for each run: so that it knows no worker.
pub const Context = struct {
    /// Guarded by `mutex`.
    interface: *protocol.Interface,
    mutex: *Mutex,
    /// Nonces that the workers have reserved.
    reserved: *std.atomic.Value(usize),
    share: *Share,
    tun: *io.tun.Tun,
    udp: *io.udp.Udp,
    /// Null where its routes are not those of the inner packets.
    icmp: ?*const io.icmp_sender.IcmpSender,
    loops: wire.checksum.Loops,
    now: protocol.Now,
};

pub const Outbound = struct {
    trains: Trains,
    watch: Watch,
    read_buffer: []u8,
    /// Of the trains that have a session: other workers may end it while we seal, so its key is copied.
    ready: [trains_max]*Train = undefined,
    tickets: [trains_max]protocol.SealTicket = undefined,
    keys: [trains_max][32]u8 = undefined,
    /// Whose senders are told so once the mutex is free again.
    unreachable_trains: [trains_max]*const Train = undefined,
    transmits: [trains_max]io.udp.Transmit = undefined,
    jobs: [jobs_max]cipher.Seal = undefined,
    job_count: usize = 0,
    /// What `reserved` said behind the nonces of these trains.
    reserved_then: usize = 0,
    reply_count: u32 = 0,
    reply_window_start: protocol.Instant = .{ .ns = 0 },

    pub fn init(outbound: *Outbound, gpa: Allocator, train_bytes: usize) Allocator.Error!void {
        try outbound.trains.init(gpa, train_bytes);
        errdefer outbound.trains.deinit(gpa);
        var seed: [8]u8 = undefined;
        io.entropy.fill(&seed);
        outbound.watch = .init(std.mem.readInt(u64, &seed, .little));
        outbound.job_count = 0;
        outbound.reply_count = 0;
        outbound.reply_window_start = .{ .ns = 0 };
        outbound.read_buffer = try gpa.alloc(u8, read_buffer_length);
    }

    pub fn deinit(outbound: *Outbound, gpa: Allocator) void {
        std.crypto.secureZero(u8, outbound.read_buffer);
        gpa.free(outbound.read_buffer);
        outbound.trains.deinit(gpa);
    }

    /// Reads until TUN is dry or the turn is full, then seals and sends everything read. Answers whether it was full,
    /// so that more may wait.
    pub fn run(outbound: *Outbound, context: *const Context) io.tun.ReadError!bool {
        defer outbound.flush(context);
        for (0..reads_max) |_| {
            const received = try context.tun.read(outbound.read_buffer) orelse return false;
            outbound.accept(context, received);
            if (outbound.trains.isFull()) return true;
        }
        return true;
    }

    fn accept(outbound: *Outbound, context: *const Context, received: io.tun.Received) void {
        const peer = outbound.route(context, received.bytes) orelse return;
        var splitter = io.gso.Splitter.init(received.header, received.bytes) catch
            return count(context, .malformed_outgoing, 1);
        splitter.loops = context.loops;
        const outside: Train.Outside = .{
            .tos = wire.ip.ecnEncapsulate(wire.ip.trafficClassOf(received.bytes)),
            .manner = outbound.watch.note(peer, received.bytes, splitter.count > 1, context.now.boot.ns),
        };
        for (0..splitter.count) |i| {
            const length = splitter.length(@intCast(i));
            const room = outbound.makeRoom(context, peer, outside, length) orelse {
                count(context, .malformed_outgoing, 1);
                continue;
            };
            const written = splitter.write(@intCast(i), room);
            assert(written == length);
        }
    }

    fn route(outbound: *Outbound, context: *const Context, packet: []const u8) ?protocol.PeerId {
        context.mutex.acquire();
        const found = context.interface.route(packet);
        if (found == .drop and found.drop == .no_peer) context.interface.noteUnroutable(packet, context.now);
        context.mutex.release();
        switch (found) {
            .peer => |id| return id,
            .drop => |reason| {
                if (reason == .no_peer) outbound.replyUnreachable(context, packet);
                return null;
            },
        }
    }

    fn makeRoom(
        outbound: *Outbound,
        context: *const Context,
        peer: protocol.PeerId,
        outside: Train.Outside,
        length: usize,
    ) ?[]u8 {
        const padded = messages.paddedLength(length, context.interface.mtu);
        while (true) {
            switch (outbound.trains.add(peer, outside, length, padded)) {
                .plaintext => |plaintext| return plaintext,
                .full => outbound.flush(context),
                .too_long => return null,
            }
        }
    }

    /// In portions, if other workers send beside us: what one has reserved and not sent must not be more than a
    /// receiver's replay window can wait for.
    fn flush(outbound: *Outbound, context: *const Context) void {
        const trains = outbound.trains.all();
        const packets_max = portion(context.share.pool.count.load(.monotonic));
        var start: usize = 0;
        while (start < trains.len) {
            var end = start + 1;
            var packets: usize = trains[start].count;
            while (end < trains.len and packets + trains[end].count <= packets_max) : (end += 1) {
                packets += trains[end].count;
            }
            outbound.flushPortion(context, trains[start..end]);
            start = end;
        }
        outbound.trains.clear();
    }

    /// Packets that one of so many workers reserves nonces for at once.
    fn portion(workers: u8) usize {
        if (workers <= 1) return std.math.maxInt(usize);
        return @max(distance_max / @as(usize, workers), train_file.packets_max);
    }

    fn flushPortion(outbound: *Outbound, context: *const Context, trains: []Train) void {
        const prepared = outbound.prepare(context, trains);
        const ready = prepared.ready;
        defer std.crypto.secureZero(u8, @ptrCast(outbound.keys[0..ready]));
        for (outbound.unreachable_trains[0..prepared.unreachable_count]) |train| {
            outbound.replyUnreachable(context, train.plaintext(0));
        }
        if (ready == 0) return;
        outbound.seal(context, ready);
        if (context.reserved.load(.monotonic) -% outbound.reserved_then > distance_max) outbound.renew(context, ready);
        outbound.send(context, ready);
    }

    /// Nonces, keys and endpoints for the trains that have a session; the others wait for one, or have nowhere to go.
    fn prepare(
        outbound: *Outbound,
        context: *const Context,
        trains: []Train,
    ) struct { ready: usize, unreachable_count: usize } {
        const interface = context.interface;
        context.mutex.acquire();
        defer context.mutex.release();
        var ready: usize = 0;
        var unreachable_count: usize = 0;
        var packets: usize = 0;
        for (trains) |*train| {
            switch (interface.reserve(train.peer, train.count, train.length, context.now)) {
                .seal => |ticket| {
                    packets += train.count;
                    outbound.keys[ready] = ticket.key.*;
                    outbound.ready[ready] = train;
                    outbound.tickets[ready] = ticket;
                    outbound.transmits[ready] = .{
                        .bytes = train.bytes(),
                        .segment_size = @intCast(train.stride),
                        .as_singles = train.outside.manner.form == .singles,
                        .endpoint = ticket.endpoint.*,
                        .tos = train.outside.tos,
                    };
                    if (outbound.watch.takeConviction(train.peer)) {
                        context.udp.offload.loseGso(ticket.endpoint.remote, context.now.boot.ns);
                    }
                    if (outbound.watch.takeStuck(train.peer)) |stuck| {
                        interface.noteHole(train.peer, stuck.length, .{ .ns = stuck.since_ns }, context.now);
                    }
                    ready += 1;
                },
                .stage => for (0..train.count) |i| {
                    _ = interface.stage(train.peer, train.plaintext(i));
                },
                .drop => |reason| if (reason == .no_endpoint) {
                    outbound.unreachable_trains[unreachable_count] = train;
                    unreachable_count += 1;
                },
            }
        }
        outbound.reserved_then = context.reserved.fetchAdd(packets, .monotonic) +% packets;
        return .{ .ready = ready, .unreachable_count = unreachable_count };
    }

    /// Trains that follow one another under one key are sealed in one call, so that no lane of the cipher stays empty.
    fn seal(outbound: *Outbound, context: *const Context, ready: usize) void {
        outbound.job_count = 0;
        var run_start: usize = 0;
        for (outbound.tickets[0..ready], outbound.ready[0..ready], 0..) |*ticket, train, i| {
            const first = &outbound.tickets[run_start];
            const follows = i > 0 and outbound.job_count + train.count <= jobs_max and
                ticket.receiver_index == first.receiver_index and ticket.peer.eql(first.peer) and
                ticket.counter == first.counter + outbound.job_count;
            if (!follows) {
                outbound.sealRun(context, run_start);
                run_start = i;
            }
            for (0..train.count) |j| outbound.addJob(ticket, train.datagram(j), j);
        }
        outbound.sealRun(context, run_start);
    }

    fn addJob(outbound: *Outbound, ticket: *const protocol.SealTicket, datagram: []u8, j: usize) void {
        const header: messages.TransportHeader = .init(ticket.receiver_index, ticket.counter + j);
        datagram[0..train_file.header_length].* = std.mem.toBytes(header);
        const body = datagram[train_file.header_length..];
        outbound.jobs[outbound.job_count] = .{
            .source = body.ptr,
            .destination = body.ptr,
            .length = body.len - cipher.tag_length,
        };
        outbound.job_count += 1;
    }

    fn sealRun(outbound: *Outbound, context: *const Context, start: usize) void {
        if (outbound.job_count == 0) return;
        const jobs = outbound.jobs[0..outbound.job_count];
        context.share.seal(&outbound.keys[start], outbound.tickets[start].counter, jobs);
        outbound.job_count = 0;
    }

    /// The system has let this worker wait, and others have sent a lot meanwhile: those that would come too late are
    /// sealed again, by later nonces. No packet has left by the first ones.
    fn renew(outbound: *Outbound, context: *const Context, ready: usize) void {
        for (outbound.tickets[0..ready], outbound.ready[0..ready], outbound.keys[0..ready]) |*ticket, train, *key| {
            context.mutex.acquire();
            const counter = context.interface.reserveAgain(ticket, key, train.count, distance_max, context.now);
            context.mutex.release();
            if (counter) |first| {
                _ = context.reserved.fetchAdd(train.count, .monotonic);
                sealAgain(train, ticket, key, first);
            }
        }
    }

    fn sealAgain(train: *Train, ticket: *protocol.SealTicket, key: *const [32]u8, counter: u64) void {
        var opens: [train_file.packets_max]cipher.Open = undefined;
        var seals: [train_file.packets_max]cipher.Seal = undefined;
        for (0..train.count) |i| {
            const body = train.datagram(i)[train_file.header_length..];
            const length = body.len - cipher.tag_length;
            opens[i] = .{ .data = body.ptr, .length = length, .counter = ticket.counter + i, .authentic = false };
            seals[i] = .{ .source = body.ptr, .destination = body.ptr, .length = length };
            const header: messages.TransportHeader = .init(ticket.receiver_index, counter + i);
            train.datagram(i)[0..train_file.header_length].* = std.mem.toBytes(header);
        }
        cipher.openBatch(key, opens[0..train.count]);
        for (opens[0..train.count]) |*job| assert(job.authentic); // we have sealed it
        cipher.sealBatch(key, counter, seals[0..train.count]);
        ticket.counter = counter;
    }

    fn send(outbound: *Outbound, context: *const Context, ready: usize) void {
        const result = context.udp.send(outbound.transmits[0..ready], context.now.boot.ns);
        if (result.failed_datagrams == 0 and !result.any_source_refused) return;
        context.mutex.acquire();
        defer context.mutex.release();
        context.interface.counters.add(.send_failed, result.failed_datagrams);
        for (outbound.transmits[0..ready], outbound.tickets[0..ready]) |*transmit, *ticket| {
            if (transmit.source_refused) context.interface.forgetSource(ticket.peer);
        }
    }

    /// Tells the sender at once that nobody is there (the kernel's host unreachable): from an address of this host's,
    /// as the kernel does, or else in the name of the destination.
    fn replyUnreachable(outbound: *Outbound, context: *const Context, packet: []const u8) void {
        if (context.now.boot.since(outbound.reply_window_start) >= reply_window_ns) {
            outbound.reply_window_start = context.now.boot;
            outbound.reply_count = 0;
        }
        if (outbound.reply_count == replies_max) return;
        var buffer: [wire.icmp.reply_length_max]u8 = undefined;
        const reply = wire.icmp.hostUnreachable(packet, &buffer) orelse return;
        outbound.reply_count += 1;
        if (context.icmp) |icmp| if (icmp.send(reply)) return;
        _ = context.tun.writePacket(reply);
    }
};

fn count(context: *const Context, reason: protocol.Drop, packets: u64) void {
    context.mutex.acquire();
    defer context.mutex.release();
    context.interface.counters.add(reason, packets);
}

const testing = std.testing;
const Sizes = @import("sizes.zig").Sizes;

/// Two ends with a session, several workers of one of them, and what these send, opened by the other in its order.
const Bench = struct {
    near: protocol.Interface,
    far: protocol.Interface,
    pool: Pool = .{},
    share: Share = undefined,
    mutex: Mutex = .{},
    reserved: std.atomic.Value(usize) = .init(0),
    offload: io.offload.Offload = .init(0),
    udp: io.udp.Udp = undefined,

    const now: protocol.Now = .{ .boot = .{ .ns = 1_000_000_000 }, .unix_ns = 1_700_000_000_000_000_000 };
    const keys: [2][32]u8 = .{ @splat(0x40), @splat(0x48) };
    const inner: [2][4]u8 = .{ .{ 10, 0, 0, 1 }, .{ 10, 0, 0, 2 } };
    /// The one that sends, for what stands in the place of the kernel.
    var current: *Bench = undefined;
    var delivered: usize = 0;
    /// Nonces from the first of a send to the last reserved.
    var farthest: u64 = 0;

    fn init(bench: *Bench, workers: u8) !void {
        bench.* = .{ .near = try open(0), .far = try open(1) };
        bench.share = .{ .pool = &bench.pool, .number = 0 };
        bench.pool.count.store(workers, .monotonic);
        const calls = struct {
            const table: io.linux.Calls = .{ .sendmmsg = arrive };
        };
        bench.udp = .init(&calls.table, &bench.offload);
        bench.udp.sockets[0] = 0; // none is used
        current = bench;
        delivered = 0;
        farthest = 0;
        // A packet that waits asks for the handshake, and confirms it.
        const packet = packetOf(64);
        _ = bench.near.stage(bench.near.route(&packet).peer, &packet);
        try exchange(&bench.near, &bench.far);
        try exchange(&bench.far, &bench.near);
        try exchange(&bench.near, &bench.far);
    }

    fn deinit(bench: *Bench) void {
        bench.near.deinit();
        bench.far.deinit();
    }

    fn open(number: usize) !protocol.Interface {
        var interface = try protocol.Interface.init(.{
            .allocator = testing.allocator,
            .entropy = .{ .context = null, .fillFn = fillFromKernel },
        });
        errdefer interface.deinit();
        const other = 1 - number;
        const public = std.crypto.dh.X25519.recoverPublicKey(keys[other]);
        var buffer: [512]u8 = undefined;
        const text = try std.mem.print(
            &buffer,
            "private_key={x}\npublic_key={x}\nendpoint=192.0.2.{d}:1\nallowed_ip=10.0.0.{d}/32\n",
            .{ &keys[number], &public, other + 1, other + 1 },
        );
        var why: protocol.uapi.Diagnostic = .{};
        var change = try protocol.uapi.parse(testing.allocator, text, &why);
        defer change.deinit(testing.allocator);
        try interface.configure(&change);
        interface.setActive(true);
        return interface;
    }

    fn fillFromKernel(_: ?*anyopaque, out: []u8) bool {
        io.entropy.fill(out);
        return true;
    }

    fn exchange(from: *protocol.Interface, to: *protocol.Interface) !void {
        var buffer: [2048]u8 = undefined;
        while (from.pollTransmit(&buffer, now)) |transmit| _ = take(to, buffer[0..transmit.length]);
    }

    /// Whether there was a packet in it.
    fn take(interface: *protocol.Interface, datagram: []u8) bool {
        const from: wire.Endpoint = .{ .remote = .{ .address = .fromIpv4(.{ 192, 0, 2, 1 }), .port = 1 } };
        switch (interface.prepareOpen(datagram, now)) {
            .handshake => {
                _ = interface.handleHandshake(datagram, &from, .never, now);
                return false;
            },
            .drop => return false,
            .open => |ticket| {
                const body = datagram[train_file.header_length..];
                var job = [1]cipher.Open{.{
                    .data = body.ptr,
                    .length = body.len - cipher.tag_length,
                    .counter = ticket.counter,
                    .authentic = false,
                }};
                cipher.openBatch(ticket.key, &job);
                const plaintext: ?[]u8 = if (job[0].authentic) body[0..job[0].length] else null;
                return interface.finishOpen(ticket, plaintext, &from, now) == .deliver;
            },
        }
    }

    /// sendmmsg: all of it arrives.
    fn arrive(_: io.linux.fd_t, list: [*]std.os.linux.mmsghdr, length: u32, _: u32) usize {
        for (list[0..length]) |*message| {
            var rest = message.hdr.iov[0].base[0..message.hdr.iov[0].len];
            const stride = @min(packet_length + messages.transport_overhead, rest.len);
            const first = std.mem.readInt(u64, rest[8..16], .little);
            farthest = @max(farthest, current.reserved.load(.monotonic) - first);
            while (rest.len != 0) {
                const end = @min(stride, rest.len);
                delivered += @intFromBool(take(&current.far, rest[0..end]));
                rest = rest[end..];
            }
        }
        return length;
    }

    fn context(bench: *Bench) Context {
        return .{
            .interface = &bench.near,
            .mutex = &bench.mutex,
            .reserved = &bench.reserved,
            .share = &bench.share,
            .tun = undefined, // nothing is read
            .udp = &bench.udp,
            .icmp = null,
            .loops = .{},
            .now = now,
        };
    }

    const packet_length = 64;

    fn packetOf(comptime length: u16) [length]u8 {
        var packet: [length]u8 = @splat(0);
        packet[0] = 0x45;
        std.mem.writeInt(u16, packet[2..4], length, .big);
        packet[12..16].* = inner[0];
        packet[16..20].* = inner[1];
        return packet;
    }

    fn fill(bench: *Bench, outbound: *Outbound, packets: usize) void {
        const packet = packetOf(packet_length);
        const peer = bench.near.route(&packet).peer;
        for (0..packets) |_| @memcpy(outbound.trains.add(peer, .{}, packet.len, packet.len).plaintext, &packet);
    }
};

test "a worker that was held up seals again what would come too late, and nothing is lost" {
    const workers = try testing.allocator.alloc(Outbound, 2);
    defer testing.allocator.free(workers);
    for (workers) |*worker| try worker.init(testing.allocator, Sizes.normal.train_bytes);
    defer for (workers) |*worker| worker.deinit(testing.allocator);
    var bench: Bench = undefined;
    try bench.init(2);
    defer bench.deinit();
    const context = bench.context();
    bench.fill(&workers[0], 1000);
    const ready = workers[0].prepare(&context, workers[0].trains.all()).ready;
    workers[0].seal(&context, ready);
    // The other sends as much as the whole window holds.
    for (0..10) |_| {
        bench.fill(&workers[1], 1000);
        workers[1].flush(&context);
    }
    try testing.expectEqual(10_000, Bench.delivered);
    try testing.expect(context.reserved.load(.monotonic) - workers[0].reserved_then > distance_max);
    workers[0].renew(&context, ready);
    workers[0].send(&context, ready);
    try testing.expectEqual(11_000, Bench.delivered);
    // Not so late: they go as they are.
    workers[0].trains.clear();
    bench.fill(&workers[0], 1000);
    try testing.expectEqual(ready, workers[0].prepare(&context, workers[0].trains.all()).ready);
    const first = workers[0].tickets[0].counter;
    workers[0].seal(&context, ready);
    bench.fill(&workers[1], 1000);
    workers[1].flush(&context);
    workers[0].renew(&context, ready);
    try testing.expectEqual(first, workers[0].tickets[0].counter);
    workers[0].send(&context, ready);
    try testing.expectEqual(13_000, Bench.delivered);
}

test "however many small packets a turn has, workers together reserve no more than a replay window can wait for" {
    for ([_]u8{ 2, 3, 8, workers_max }) |count_of_workers| {
        const outbound = try testing.allocator.create(Outbound);
        defer testing.allocator.destroy(outbound);
        try outbound.init(testing.allocator, Sizes.normal.train_bytes);
        defer outbound.deinit(testing.allocator);
        var bench: Bench = undefined;
        try bench.init(count_of_workers);
        defer bench.deinit();
        const context = bench.context();
        bench.fill(outbound, 9_000);
        outbound.flush(&context);
        try testing.expectEqual(9_000, Bench.delivered);
        try testing.expect(Bench.farthest * count_of_workers <= distance_max);
    }
}
