//! Handing over: the running device's part when another process takes it over (taking.zig), and what both know of each
//! other. It is asked twice, by requests on the UAPI socket:
//!   pywg_take_over=FORMAT    answered with a Hello and what stays for life: the TUN's queues and the UAPI socket. The
//!                            other prepares itself, while packets pass.
//!   pywg_hand_over=FORMAT    answered with a State, the UDP sockets and the whole Interface, with all turns held.
//! Then the other says `mine`, one byte, and it is its own. Nothing is remembered between the two requests.
//! Invariant: of two processes with the same keys and counters only one ever seals. The other end begins once the
//! socket has taken its `mine`. We go on only after the socket was shut, so that it can take no more, and held none.
const std = @import("std");
const io = @import("io");
const Channel = io.channel.Channel;
const Link = @import("link.zig").Link;
const protocol = @import("protocol");
const codec = protocol.codec;
const Shared = @import("shared.zig").Shared;
const Sockets = @import("sockets.zig").Sockets;
const Workers = @import("workers.zig").Workers;
const Worker = @import("worker.zig").Worker;
const workers_max = @import("cipher_pool.zig").workers_max;
const E = std.os.linux.E;

pub const take_over = "pywg_take_over=";
pub const hand_over = "pywg_hand_over=";

/// Of all that is said here; another number for anything else. What is in an Interface has its own, which counts too.
pub const format: u32 = 1 + protocol.handover_format * 1000;

/// Before the bytes of a Hello or a State; a refusal is text as of all other requests.
pub const magic: [4]u8 = .{ 0, 'p', 'y', 'w' };
pub const Prefix = struct { magic: [4]u8, length: u32 };
/// Of a Hello or a State.
pub const frame_max = 16 << 10;
pub const mine: u8 = 'M';

/// How long the other end may do nothing while packets wait, and all of it may take.
const patience_ms = 1000;
const total_ms = 10_000;

pub const Hello = struct {
    version: [16]u8,
    /// Both clocks must be one: there are namespaces of time.
    boot_ns: u64,
    /// What the interface was called when it was made.
    name: [16]u8,
    mtu: u32,
    workers: u8,
    has_writer: bool,
    has_vnet_header: bool,
    header_length: u8,
    sizes: protocol.Interface.Sizes,
};

/// Sockets are in the order of the workers, IPv4 first; those that were given to us come last.
pub const WorkerState = struct {
    has_sockets: [2]bool,
    is_reading: bool,
    is_deaf: bool,
    states: [io.offload.Feature.count]io.offload.State,
    causes: [io.offload.Feature.count]u16,
};

/// WorkerStates follow it.
pub const State = struct {
    bound_index: u32,
    given_port: u16,
    has_given: [2]bool,
    ahead_max_ns: u64,
    told: u32,
    must_look_at_sources: bool,
    udp: io.udp.Counters,
    tun: io.tun.Counters,
};

/// The parts of the running device that are asked.
pub const Giver = struct {
    shared: *Shared,
    workers: *Workers,
    sockets: *const Sockets,
    link: *const Link,
    /// Of the UAPI socket.
    listener_fd: io.linux.fd_t,
};

pub const Answer = enum { done, close };

/// A request of either kind; what is answered is written to `fd`, which has nothing else to send.
pub fn answer(giver: *const Giver, request: []const u8, fd: io.linux.fd_t) Answer {
    const line = std.mem.trimEnd(u8, request, "\n");
    const equals = std.mem.findScalar(u8, line, '=').?;
    const wanted = std.fmt.parseInt(u32, line[equals + 1 ..], 10) catch 0;
    var channel: Channel = .init(fd, patience_ms, total_ms);
    if (wanted != format) {
        var buffer: [64]u8 = undefined;
        const text = "pywg_format={d}\nerrno=-{d}\n\n";
        const refusal = std.mem.print(&buffer, text, .{ format, @backingInt(E.PROTONOSUPPORT) }) catch unreachable;
        channel.send(refusal, &.{}) catch {};
        return .close;
    }
    if (std.mem.startsWith(u8, line, take_over)) {
        sayHello(giver, &channel) catch return .close;
        return .done;
    }
    giveAll(giver, &channel);
    return .close;
}

fn sayHello(giver: *const Giver, channel: *const Channel) io.channel.Error!void {
    const shared = giver.shared;
    const workers = giver.workers;
    const tun = &workers.first().tun;
    var descriptors: List = .{};
    for (workers.all()) |worker| descriptors.add(worker.tun.fd);
    if (workers.writer) |*writer| descriptors.add(writer.fd);
    descriptors.add(giver.listener_fd);
    var version: [16]u8 = @splat(0);
    const length = @min(version.len, shared.version.len);
    @memcpy(version[0..length], shared.version[0..length]);
    try sendFrame(channel, Hello{
        .version = version,
        .boot_ns = io.clock.bootNs(),
        .name = tun.name_buffer,
        .mtu = shared.interface.mtu,
        .workers = workers.count,
        .has_writer = workers.writer != null,
        .has_vnet_header = tun.has_vnet_header,
        .header_length = @intCast(tun.header_length),
        .sizes = shared.interface.handOverSizes(),
    }, &.{}, &descriptors);
}

/// Ends the device, or leaves all as it is.
fn giveAll(giver: *const Giver, channel: *const Channel) void {
    const shared = giver.shared;
    const began_ns = io.clock.monotonicNs();
    sendAll(giver, channel) catch |err| {
        // Whoever has not said so by now cannot say it any more; where that is not sure, we are the one to end.
        if (channel.shutDown() and !hasSaid(channel)) {
            const why = switch (err) {
                error.Closed => "the other process has ended",
                error.Stuck => "the other process did nothing for too long",
            };
            return shared.log.err("could not be taken over, and goes on: {s}", .{why});
        }
    };
    const paused_us = (io.clock.monotonicNs() - began_ns) / std.time.ns_per_us;
    shared.log.verbose("taken over by another process in {d} us: ending", .{paused_us});
    shared.handOver();
}

fn sendAll(giver: *const Giver, channel: *const Channel) io.channel.Error!void {
    var descriptors: List = .{};
    var states: [workers_max]WorkerState = undefined;
    const workers = giver.workers.all();
    for (workers, states[0..workers.len]) |worker, *state| state.* = stateOf(worker, &descriptors);
    const given = &giver.workers.first().udp.given;
    for (given.fds) |fd| if (fd) |own| descriptors.add(own);
    try sendFrame(channel, State{
        .bound_index = giver.sockets.bound_index,
        .given_port = given.port,
        .has_given = .{ given.fds[0] != null, given.fds[1] != null },
        .ahead_max_ns = giver.shared.suspension.ahead_max_ns,
        .told = giver.shared.told,
        .must_look_at_sources = giver.link.sources.is_wanted or giver.link.sources.next != null,
        .udp = giver.workers.udpCounters(),
        .tun = giver.workers.tunCounters(),
    }, states[0..workers.len], &descriptors);
    var buffer: [64 << 10]u8 = undefined;
    defer std.crypto.secureZero(u8, &buffer);
    var writer: io.channel.Writer = .init(channel, &buffer);
    giver.shared.interface.writeAll(&writer.interface) catch return error.Closed;
    writer.interface.flush() catch return error.Closed;
    var byte: [1]u8 = undefined;
    try channel.receiveAll(&byte);
    if (byte[0] != mine) return error.Closed;
}

fn hasSaid(channel: *const Channel) bool {
    var byte: [1]u8 = .{0};
    _ = channel.receive(&byte) catch |err| return err != error.Closed;
    return byte[0] == mine;
}

fn stateOf(worker: *const Worker, descriptors: *List) WorkerState {
    var state: WorkerState = .{
        .has_sockets = .{ worker.udp.sockets[0] != null, worker.udp.sockets[1] != null },
        .is_reading = worker.is_reading,
        .is_deaf = worker.udp.icmp_guard.is_deaf,
        .states = worker.offload.states,
        .causes = undefined,
    };
    for (&state.causes, worker.offload.causes) |*number, cause| number.* = @intCast(@backingInt(cause));
    for (worker.udp.sockets) |socket| if (socket) |fd| descriptors.add(fd);
    return state;
}

const List = struct {
    fds: [io.channel.descriptors_max]io.linux.fd_t = undefined,
    count: usize = 0,

    fn add(list: *List, fd: io.linux.fd_t) void {
        list.fds[list.count] = fd;
        list.count += 1;
    }
};

comptime {
    // Two sockets for each worker, and two that were given; or a queue for each, the writer and the UAPI socket.
    std.debug.assert(2 * @as(usize, workers_max) + 2 <= io.channel.descriptors_max);
}

/// A value, and what follows it, with descriptors.
fn sendFrame(
    channel: *const Channel,
    head: anytype,
    rest: []const WorkerState,
    descriptors: *const List,
) io.channel.Error!void {
    var buffer: [frame_max]u8 = undefined;
    const prefix_length = 8;
    var writer: std.Io.Writer = .fixed(buffer[prefix_length..]);
    codec.write(&writer, head) catch unreachable; // fits
    for (rest) |*each| codec.write(&writer, each.*) catch unreachable;
    const length = writer.end;
    writer = .fixed(buffer[0..prefix_length]);
    codec.write(&writer, Prefix{ .magic = magic, .length = @intCast(length) }) catch unreachable;
    try channel.send(buffer[0 .. prefix_length + length], descriptors.fds[0..descriptors.count]);
}

test "other words have another format number" {
    const text = comptime blk: {
        var all: []const u8 = "";
        for (.{ Prefix, Hello, State, WorkerState }) |T| all = all ++ codec.describe(T);
        break :blk all;
    };
    var hash: [32]u8 = undefined;
    std.crypto.hash.sha2.Sha256.hash(text, &hash, .{});
    std.testing.expectEqualStrings("54ee12ac64de23b0", &std.fmt.bytesToHex(hash[0..8], .lower)) catch |err| {
        std.debug.print("what is said has changed: raise `format`, and write the new hash here\n", .{});
        return err;
    };
}
