//! UDP to TUN, functions in the order a datagram meets them: receive, find its session, open in place,
//! check, coalesce, write. Payloads are never copied: what TUN gets are pointers into the receive slots.
//! Holds the mutex of the tables only to look up, never over a system call or the cipher.
//! Invariant: packets are finished and written in the order they were received.
const std = @import("std");
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;
const cipher = @import("cipher");
const Share = @import("cipher_pool.zig").Share;
const io = @import("io");
const Mutex = @import("mutex.zig").Mutex;
const protocol = @import("protocol");
const wire = @import("wire");
const messages = wire.messages;

/// Packets opened together: those of a full batch of trains; a longer batch is worked off in parts.
const jobs_max = 1024;
const header_length = @sizeOf(messages.TransportHeader);

/// What the inbound path borrows from the worker, put together for each run: so that it knows no worker.
pub const Context = struct {
    /// Guarded by `mutex`.
    interface: *protocol.Interface,
    mutex: *Mutex,
    share: *Share,
    tun: *io.tun.Tun,
    udp: *io.udp.Udp,
    offload: *io.offload.Offload,
    /// Changes only while the turns of all workers are held.
    tunnels: *const io.tunnels.Tunnels,
    loops: wire.checksum.Loops,
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
    /// Datagrams since the worker began, and those of them that a peer has sealed.
    seen: u64 = 0,
    useful: u64 = 0,
    /// Jobs that follow one another under one key. Other workers may end the session meanwhile, so the key is copied.
    runs: [jobs_max]Run = undefined,
    run_count: usize = 0,

    const Run = struct { key: [32]u8, start: usize };

    pub fn init(inbound: *Inbound, gpa: Allocator, slots: usize) Allocator.Error!void {
        inbound.count = 0;
        inbound.seen = 0;
        inbound.useful = 0;
        inbound.run_count = 0;
        inbound.receive_batch = try .init(gpa, slots);
        errdefer inbound.receive_batch.deinit(gpa);
        inbound.coalescer = try .init(gpa);
    }

    pub fn deinit(inbound: *Inbound, gpa: Allocator) void {
        inbound.coalescer.deinit();
        inbound.receive_batch.deinit(gpa);
    }

    /// One batch of datagrams of one family. Answers whether it was full, so that more may wait.
    pub fn run(inbound: *Inbound, context: *const Context, family: wire.Family) bool {
        const received = context.udp.receive(family, &inbound.receive_batch);
        if (received == 0) return false;
        inbound.coalescer.reset(coalescing(context));
        context.mutex.acquire();
        for (inbound.receive_batch.datagrams[0..received], 0..) |*slot, i| {
            if (slot.truncated) {
                context.interface.counters.add(.truncated, 1);
                continue;
            }
            inbound.acceptSlot(context, slot, @intCast(i));
        }
        context.mutex.release();
        inbound.open(context);
        inbound.deliver(context);
        return received == inbound.receive_batch.slots();
    }

    fn coalescing(context: *const Context) io.gro.Options {
        const offload = context.offload;
        const tun = context.tun;
        const tunnels = tun.header_length == io.VnetHeader.tunnel_length and offload.isActive(.tun_tunnel) and
            context.tunnels.count != 0;
        return .{
            .tcp = offload.isActive(.tun_tso) and tun.has_vnet_header,
            .udp = offload.isActive(.tun_uso) and tun.has_vnet_header,
            .tunnels = if (tunnels) context.tunnels else null,
            .vnet_header_length = @intCast(tun.header_length),
            .loops = context.loops,
        };
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

    /// The mutex is held.
    fn acceptDatagram(
        inbound: *Inbound,
        context: *const Context,
        datagram: []u8,
        slot: *const io.udp.Received,
        slot_index: u16,
    ) void {
        inbound.seen += 1;
        if (inbound.count == jobs_max) inbound.openInBetween(context); // before there is a ticket, which would not last
        switch (context.interface.prepareOpen(datagram, context.now)) {
            .open => |ticket| {
                inbound.addJob(&ticket, datagram, slot_index);
            },
            .handshake => {
                _ = context.interface.handleHandshake(datagram, &slot.endpoint, .under_load, context.now);
            },
            .drop => {},
        }
    }

    fn addJob(inbound: *Inbound, ticket: *const protocol.OpenTicket, datagram: []u8, slot_index: u16) void {
        const i = inbound.count;
        const follows = i > 0 and inbound.tickets[i - 1].receiver_index == ticket.receiver_index;
        if (!follows) {
            inbound.runs[inbound.run_count] = .{ .key = ticket.key.*, .start = i };
            inbound.run_count += 1;
        }
        inbound.tickets[i] = ticket.*;
        inbound.jobs[i] = .{
            .data = datagram[header_length..].ptr,
            .length = datagram.len - messages.transport_overhead,
            .counter = ticket.counter,
            .authentic = false,
        };
        inbound.slots[i] = slot_index;
        inbound.count += 1;
    }

    /// There are more small datagrams than jobs: those so far are worked off first.
    fn openInBetween(inbound: *Inbound, context: *const Context) void {
        context.mutex.release();
        inbound.open(context);
        context.mutex.acquire();
    }

    fn open(inbound: *Inbound, context: *const Context) void {
        const count = inbound.count;
        const runs = inbound.runs[0..inbound.run_count];
        inbound.count = 0;
        inbound.run_count = 0;
        for (runs, 0..) |*one, i| {
            const end = if (i + 1 < runs.len) runs[i + 1].start else count;
            context.share.open(&one.key, inbound.jobs[one.start..end]);
            std.crypto.secureZero(u8, &one.key);
        }
        const delivered = inbound.finish(context, count);
        for (inbound.jobs[0..delivered]) |*job| inbound.coalesce(context, job.data[0..job.length]);
    }

    /// Settles each packet with its session and its peer. What is to be delivered moves to the front of the jobs.
    fn finish(inbound: *Inbound, context: *const Context, count: usize) usize {
        context.mutex.acquire();
        defer context.mutex.release();
        var delivered: usize = 0;
        for (0..count) |i| {
            const job = &inbound.jobs[i];
            const slot = &inbound.receive_batch.datagrams[inbound.slots[i]];
            const plaintext: ?[]u8 = if (job.authentic) job.data[0..job.length] else null;
            switch (context.interface.finishOpen(inbound.tickets[i], plaintext, &slot.endpoint, context.now)) {
                .deliver => |packet| {
                    inbound.useful += 1;
                    wire.ip.ecnDecapsulate(packet, slot.ecn);
                    inbound.jobs[delivered].data = packet.ptr;
                    inbound.jobs[delivered].length = packet.len;
                    delivered += 1;
                },
                .keepalive => inbound.useful += 1,
                .drop => {},
            }
        }
        return delivered;
    }

    fn coalesce(inbound: *Inbound, context: *const Context, packet: []u8) void {
        if (inbound.coalescer.add(packet)) return;
        inbound.deliver(context);
        const added = inbound.coalescer.add(packet);
        assert(added);
    }

    fn deliver(inbound: *Inbound, context: *const Context) void {
        var failed: u64 = 0;
        var frames = inbound.coalescer.frames();
        while (frames.next()) |frame| failed += context.tun.writeFrame(&frame);
        inbound.coalescer.reset(inbound.coalescer.options);
        if (failed == 0) return;
        context.mutex.acquire();
        defer context.mutex.release();
        context.interface.counters.add(.deliver_failed, failed);
    }
};
