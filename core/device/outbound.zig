//! TUN to UDP, functions in the order a packet meets them: read, route, split into trains, seal, send.
//! A superpacket stays together from end to end: one read, one run of nonces, one UDP_SEGMENT send.
//! Holds the mutex of the tables only to look up, never over a system call or the cipher.
//! Invariant: trains of one peer are sealed and sent in the order they were filled.
const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const cipher = @import("cipher");
const Share = @import("cipher_pool.zig").Share;
const io = @import("io");
const Mutex = @import("mutex.zig").Mutex;
const protocol = @import("protocol");
const train_file = @import("train.zig");
const Train = train_file.Train;
const Trains = train_file.Trains;
const wire = @import("wire");
const messages = wire.messages;

const trains_max = Trains.count_max;
/// Packets sealed in one call at most: those of as many superpackets as the trains hold.
const jobs_max = 1024;
/// vnet header and the largest superpacket.
const read_buffer_length = 65_536 + 64;
/// Reads in one turn even if they are small, so that a flood leaves room for the other way.
const reads_max = 256;

/// Unreachables told to local senders in one window, about the kernel's limit for ICMP errors.
const replies_max = 50;
const reply_window_ns = 50 * std.time.ns_per_ms;

/// What the outbound path borrows from the worker, put together for each run: so that it knows no worker.
pub const Context = struct {
    /// Guarded by `mutex`.
    interface: *protocol.Interface,
    mutex: *Mutex,
    share: *Share,
    tun: *io.tun.Tun,
    udp: *io.udp.Udp,
    /// Null where its routes are not those of the inner packets.
    icmp: ?*const io.icmp_sender.IcmpSender,
    now: protocol.Now,
};

pub const Outbound = struct {
    trains: Trains,
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
    reply_count: u32 = 0,
    reply_window_start: protocol.Instant = .{ .ns = 0 },

    pub fn init(outbound: *Outbound, gpa: Allocator) Allocator.Error!void {
        try outbound.trains.init(gpa);
        errdefer outbound.trains.deinit(gpa);
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
        const tos = wire.ip.ecnEncapsulate(wire.ip.trafficClassOf(received.bytes));
        for (0..splitter.count) |i| {
            const length = splitter.length(@intCast(i));
            const room = outbound.makeRoom(context, peer, tos, length) orelse {
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
        context.mutex.release();
        switch (found) {
            .peer => |id| return id,
            .drop => |reason| {
                if (reason == .no_peer) outbound.replyUnreachable(context, packet);
                return null;
            },
        }
    }

    fn makeRoom(outbound: *Outbound, context: *const Context, peer: protocol.PeerId, tos: u8, length: usize) ?[]u8 {
        const padded = messages.paddedLength(length, context.interface.mtu);
        while (true) {
            switch (outbound.trains.add(peer, tos, length, padded)) {
                .plaintext => |plaintext| return plaintext,
                .full => outbound.flush(context),
                .too_long => return null,
            }
        }
    }

    fn flush(outbound: *Outbound, context: *const Context) void {
        const prepared = outbound.prepare(context);
        const ready = prepared.ready;
        defer std.crypto.secureZero(u8, @ptrCast(outbound.keys[0..ready]));
        for (outbound.unreachable_trains[0..prepared.unreachable_count]) |train| {
            outbound.replyUnreachable(context, train.plaintext(0));
        }
        outbound.trains.clear();
        if (ready == 0) return;
        outbound.seal(context, ready);
        outbound.send(context, ready);
    }

    /// Nonces, keys and endpoints for the trains that have a session; the others wait for one, or have nowhere to go.
    fn prepare(outbound: *Outbound, context: *const Context) struct { ready: usize, unreachable_count: usize } {
        const interface = context.interface;
        context.mutex.acquire();
        defer context.mutex.release();
        var ready: usize = 0;
        var unreachable_count: usize = 0;
        for (outbound.trains.all()) |*train| {
            switch (interface.reserve(train.peer, train.count, train.length, context.now)) {
                .seal => |ticket| {
                    outbound.keys[ready] = ticket.key.*;
                    outbound.ready[ready] = train;
                    outbound.tickets[ready] = ticket;
                    outbound.transmits[ready] = .{
                        .bytes = train.bytes(),
                        .segment_size = @intCast(train.stride),
                        .endpoint = ticket.endpoint.*,
                        .tos = train.tos,
                    };
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
