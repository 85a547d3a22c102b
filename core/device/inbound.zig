//! UDP to TUN, functions in the order a datagram meets them: receive, find its session, open in place,
//! check, coalesce, write. Payloads are never copied: what TUN gets are pointers into the receive slots.
//! Invariant: packets are finished and written in the order they were received.
const std = @import("std");
const assert = std.debug.assert;
const Allocator = std.mem.Allocator;
const cipher = @import("cipher");
const io = @import("io");
const Load = @import("load.zig").Load;
const protocol = @import("protocol");
const wire = @import("wire");
const messages = wire.messages;

/// Packets opened together; a longer batch is worked off in parts.
const jobs_max = 512;
const header_length = @sizeOf(messages.TransportHeader);

pub const Context = struct {
    interface: *protocol.Interface,
    tun: *io.tun.Tun,
    udp: *io.udp.Udp,
    offload: *io.offload.Offload,
    load: *Load,
    now: protocol.Now,
};

pub const Inbound = struct {
    receive_batch: io.udp.ReceiveBatch,
    coalescer: io.gro.Coalescer,
    tickets: [jobs_max]protocol.OpenTicket = undefined,
    jobs: [jobs_max]cipher.Open = undefined,
    /// The slot each job came in: where from, and its ECN bits.
    slots: [jobs_max]u16 = undefined,
    count: usize = 0,

    pub fn init(inbound: *Inbound, gpa: Allocator) Allocator.Error!void {
        inbound.count = 0;
        inbound.receive_batch = try .init(gpa);
        errdefer inbound.receive_batch.deinit(gpa);
        inbound.coalescer = try .init(gpa);
    }

    pub fn deinit(inbound: *Inbound, gpa: Allocator) void {
        inbound.coalescer.deinit();
        inbound.receive_batch.deinit(gpa);
    }

    /// One batch of datagrams of one family. Answers how many slots were filled.
    pub fn run(inbound: *Inbound, context: *const Context, family: wire.Family) usize {
        const received = context.udp.receive(family, &inbound.receive_batch);
        if (received == 0) return 0;
        inbound.coalescer.reset(.{
            .tcp = context.offload.isActive(.tun_tso) and context.tun.has_vnet_header,
            .udp = context.offload.isActive(.tun_uso) and context.tun.has_vnet_header,
        });
        for (inbound.receive_batch.datagrams[0..received], 0..) |*slot, i| {
            if (slot.truncated) {
                context.interface.counters.add(.truncated, 1);
                continue;
            }
            inbound.acceptSlot(context, slot, @intCast(i));
        }
        inbound.open(context);
        inbound.deliver(context);
        return received;
    }

    /// A slot holds one datagram, or a run of equal ones with a shorter last (UDP_GRO).
    fn acceptSlot(inbound: *Inbound, context: *const Context, slot: *const io.udp.Received, slot_index: u16) void {
        var rest = slot.bytes;
        while (true) {
            const length = if (slot.segment_size == 0) rest.len else @min(rest.len, slot.segment_size);
            inbound.acceptDatagram(context, rest[0..length], slot, slot_index);
            rest = rest[length..];
            if (rest.len == 0) return;
        }
    }

    fn acceptDatagram(inbound: *Inbound, context: *const Context, datagram: []u8, slot: *const io.udp.Received, slot_index: u16) void {
        switch (context.interface.prepareOpen(datagram, context.now)) {
            .open => |ticket| {
                inbound.tickets[inbound.count] = ticket;
                inbound.jobs[inbound.count] = .{
                    .data = datagram[header_length..].ptr,
                    .length = datagram.len - messages.transport_overhead,
                    .counter = ticket.counter,
                    .authentic = false,
                };
                inbound.slots[inbound.count] = slot_index;
                inbound.count += 1;
                if (inbound.count == jobs_max) inbound.open(context);
            },
            .handshake => {
                inbound.open(context); // tickets do not outlive a change of sessions
                const under_load = context.load.note(context.now.boot);
                _ = context.interface.handleHandshake(datagram, &slot.endpoint, under_load, context.now);
            },
            .drop => {},
        }
    }

    fn open(inbound: *Inbound, context: *const Context) void {
        const count = inbound.count;
        inbound.count = 0;
        var start: usize = 0;
        while (start < count) {
            const key = inbound.tickets[start].key;
            var end = start + 1;
            while (end < count and inbound.tickets[end].key == key) end += 1;
            cipher.openBatch(key, inbound.jobs[start..end]);
            start = end;
        }
        for (0..count) |i| inbound.finish(context, i);
    }

    fn finish(inbound: *Inbound, context: *const Context, i: usize) void {
        const job = &inbound.jobs[i];
        const slot = &inbound.receive_batch.datagrams[inbound.slots[i]];
        const plaintext: ?[]u8 = if (job.authentic) job.data[0..job.length] else null;
        switch (context.interface.finishOpen(inbound.tickets[i], plaintext, &slot.endpoint, context.now)) {
            .deliver => |packet| {
                wire.ip.ecnDecapsulate(packet, slot.ecn);
                if (inbound.coalescer.add(packet)) return;
                inbound.deliver(context);
                const added = inbound.coalescer.add(packet);
                assert(added);
            },
            .keepalive, .drop => {},
        }
    }

    fn deliver(inbound: *Inbound, context: *const Context) void {
        var frames = inbound.coalescer.frames();
        while (frames.next()) |frame| {
            const failed = context.tun.writeFrame(&frame);
            context.interface.counters.add(.deliver_failed, failed);
        }
        inbound.coalescer.reset(inbound.coalescer.options);
    }
};
