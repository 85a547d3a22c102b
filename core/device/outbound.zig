//! TUN to UDP, functions in the order a packet meets them: read, route, split into trains, seal, send.
//! A superpacket stays together from end to end: one read, one run of nonces, one UDP_SEGMENT send.
//! Invariant: trains of one peer are sealed and sent in the order they were filled.
const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const cipher = @import("cipher");
const io = @import("io");
const protocol = @import("protocol");
const train_file = @import("train.zig");
const Train = train_file.Train;
const wire = @import("wire");
const messages = wire.messages;

/// Trains in one turn of the loop: what bounds its length, and with 64 KiB each its memory.
const trains_max = 16;
const jobs_max = trains_max * train_file.packets_max;
/// vnet header and the largest superpacket.
const read_buffer_length = 65_536 + 64;
/// Superpackets read in one turn even if they are small, so that a flood leaves room for the other way.
const reads_max = 256;

/// Unreachables told to local senders in one window, about the kernel's limit for ICMP errors.
const replies_max = 50;
const reply_window_ns = 50 * std.time.ns_per_ms;

/// What the outbound path borrows from the device.
pub const Context = struct {
    interface: *protocol.Interface,
    tun: *io.tun.Tun,
    udp: *io.udp.Udp,
    now: protocol.Now,
};

pub const Outbound = struct {
    yard: train_file.Yard(trains_max),
    used: usize = 0,
    read_buffer: []u8,
    jobs: [jobs_max]cipher.Seal = undefined,
    job_count: usize = 0,
    datagrams: [trains_max]io.udp.Datagram = undefined,
    reply_count: u32 = 0,
    reply_window_start: protocol.Instant = .{ .ns = 0 },

    pub fn init(outbound: *Outbound, gpa: Allocator) Allocator.Error!void {
        try outbound.yard.init(gpa);
        errdefer outbound.yard.deinit(gpa);
        outbound.used = 0;
        outbound.job_count = 0;
        outbound.reply_count = 0;
        outbound.reply_window_start = .{ .ns = 0 };
        outbound.read_buffer = try gpa.alloc(u8, read_buffer_length);
    }

    pub fn deinit(outbound: *Outbound, gpa: Allocator) void {
        std.crypto.secureZero(u8, outbound.read_buffer);
        gpa.free(outbound.read_buffer);
        outbound.yard.deinit(gpa);
    }

    /// Reads until TUN is dry or the turn is full, then seals and sends everything read.
    pub fn run(outbound: *Outbound, context: *const Context) io.tun.ReadError!void {
        defer outbound.flush(context);
        for (0..reads_max) |_| {
            const received = try context.tun.read(outbound.read_buffer) orelse return;
            outbound.accept(context, received);
            if (outbound.used == trains_max) return;
        }
    }

    fn accept(outbound: *Outbound, context: *const Context, received: io.tun.Received) void {
        const peer = switch (context.interface.route(received.bytes)) {
            .peer => |id| id,
            .drop => |reason| return if (reason == .no_peer) outbound.replyUnreachable(context, received.bytes),
        };
        var splitter = io.gso.Splitter.init(received.header, received.bytes) catch {
            return context.interface.counters.add(.malformed_outgoing, 1);
        };
        const tos = wire.ip.ecnEncapsulate(wire.ip.trafficClassOf(received.bytes));
        for (0..splitter.count) |i| {
            const length = splitter.length(@intCast(i));
            const room = outbound.makeRoom(context, peer, tos, length) orelse {
                context.interface.counters.add(.malformed_outgoing, 1);
                continue;
            };
            const written = splitter.write(@intCast(i), room);
            assert(written == length);
        }
    }

    /// A place for a packet: in the last train if that is for the same peer and has room, else in a new one.
    fn makeRoom(outbound: *Outbound, context: *const Context, peer: protocol.PeerId, tos: u8, length: usize) ?[]u8 {
        const padded = messages.paddedLength(length, context.interface.mtu);
        if (outbound.used != 0) {
            const last = &outbound.yard.trains[outbound.used - 1];
            if (last.peer.eql(peer) and last.tos == tos) {
                if (last.next(length, padded)) |room| return room;
            }
        }
        if (outbound.used == trains_max) outbound.flush(context);
        const train = &outbound.yard.trains[outbound.used];
        train.reset();
        train.peer = peer;
        train.tos = tos;
        const room = train.next(length, padded) orelse return null;
        outbound.used += 1;
        return room;
    }

    fn flush(outbound: *Outbound, context: *const Context) void {
        var sealed: [trains_max]protocol.SealTicket = undefined;
        var ready: [trains_max]*Train = undefined;
        var count: usize = 0;
        for (outbound.yard.trains[0..outbound.used]) |*train| {
            switch (context.interface.prepareSeal(train.peer, train.count, context.now)) {
                .seal => |ticket| {
                    sealed[count] = ticket;
                    ready[count] = train;
                    count += 1;
                },
                .stage => for (0..train.count) |i| context.interface.stage(train.peer, train.plaintext(i)),
                .drop => |reason| if (reason == .no_endpoint) outbound.replyUnreachable(context, train.plaintext(0)),
            }
        }
        outbound.used = 0;
        outbound.seal(sealed[0..count], ready[0..count]);
        outbound.send(context, sealed[0..count], ready[0..count]);
    }

    /// Trains that follow one another under one key are sealed in one call, so that no lane stays empty.
    fn seal(outbound: *Outbound, tickets: []const protocol.SealTicket, trains: []const *Train) void {
        outbound.job_count = 0;
        var run_start: usize = 0;
        for (tickets, trains, 0..) |*ticket, train, i| {
            const follows = i > 0 and ticket.key == tickets[run_start].key and
                ticket.counter == tickets[run_start].counter + outbound.job_count;
            if (!follows) {
                outbound.sealRun(tickets, run_start);
                run_start = i;
            }
            for (0..train.count) |j| outbound.addJob(ticket, train.datagram(j), j);
        }
        outbound.sealRun(tickets, run_start);
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

    fn sealRun(outbound: *Outbound, tickets: []const protocol.SealTicket, start: usize) void {
        if (outbound.job_count == 0) return;
        cipher.sealBatch(tickets[start].key, tickets[start].counter, outbound.jobs[0..outbound.job_count]);
        outbound.job_count = 0;
    }

    fn send(outbound: *Outbound, context: *const Context, tickets: []const protocol.SealTicket, trains: []const *Train) void {
        var count: usize = 0;
        var peers: [trains_max]protocol.PeerId = undefined;
        for (tickets, trains) |ticket, train| {
            const endpoint = context.interface.finishSeal(ticket, train.length, context.now) orelse continue;
            outbound.datagrams[count] = .{
                .bytes = train.bytes(),
                .segment_size = @intCast(train.stride),
                .endpoint = endpoint,
                .tos = train.tos,
            };
            peers[count] = ticket.peer;
            count += 1;
        }
        if (count == 0) return;
        const result = context.udp.send(outbound.datagrams[0..count], context.now.boot.ns);
        context.interface.counters.add(.send_failed, result.failed_datagrams);
        for (outbound.datagrams[0..count], peers[0..count]) |*datagram, peer| {
            if (datagram.source_refused) context.interface.forgetSource(peer);
        }
    }

    /// Tells the local sender at once that nobody is there (the kernel's host unreachable).
    fn replyUnreachable(outbound: *Outbound, context: *const Context, packet: []const u8) void {
        if (context.now.boot.since(outbound.reply_window_start) >= reply_window_ns) {
            outbound.reply_window_start = context.now.boot;
            outbound.reply_count = 0;
        }
        if (outbound.reply_count == replies_max) return;
        var buffer: [wire.icmp.reply_length_max]u8 = undefined;
        const reply = wire.icmp.hostUnreachable(packet, &buffer) orelse return;
        outbound.reply_count += 1;
        _ = context.tun.writePacket(reply);
    }
};
