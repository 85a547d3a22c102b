//! What tools/bench/hub/ends.c needs of the protocol to play the far ends of ten thousand tunnels: no install has it.
//!
//! An Interface takes 2 MiB of buffers, so a far end is only a key pair and the keys of one session. It answers
//! initiations and seals. It opens nothing: what comes is counted, and costs as little as it can.
//! Invariant: a function answers false, and has written nothing that counts, for a message that is not authentic.
const std = @import("std");
const cipher = @import("cipher");
const protocol = @import("protocol");
const runtime = @import("runtime");
const wire = @import("wire");
const messages = wire.messages;
const noise = protocol.noise;

const now: protocol.Instant = .{ .ns = 0 };

/// Answers `initiation` of the interface with the key `hub`: the response with its MAC1, our key for sending, and the
/// index that messages to the initiator name.
export fn ends_respond(
    private: *const [32]u8,
    hub: *const [32]u8,
    local_index: u32,
    initiation: *const messages.Initiation,
    response: *messages.Response,
    sending: *[32]u8,
    remote_index: *u32,
) bool {
    const local: noise.Local = .init(private);
    var remote: noise.Remote = .init(hub, &@as([32]u8, @splat(0)));
    remote.agree(&local);
    var opened = noise.openInitiation(&local, initiation) orelse return false;
    if (!std.mem.eql(u8, &opened.static, hub)) return false;
    var timestamp: [12]u8 = undefined;
    if (!noise.finishInitiation(&opened, &remote, initiation, &timestamp)) return false;
    var handshake: noise.Handshake = .zeroed;
    handshake.acceptInitiation(&opened, initiation);
    var ephemeral: [32]u8 = undefined;
    if (std.os.linux.getrandom(&ephemeral, ephemeral.len, 0) != ephemeral.len) return false;
    protocol.crypto.clamp(&ephemeral);
    handshake.createResponse(&remote, local_index, &ephemeral, response) catch return false;
    var maker: protocol.cookie.Maker = .init(hub);
    maker.addMacs(std.mem.asBytes(response), now);
    const keys = handshake.beginSession() orelse return false;
    sending.* = keys.sending;
    remote_index.* = keys.remote_index;
    return true;
}

/// Packets that one call of the cipher takes.
const batch_max = 64;

/// Writes headers and seals `count` packets in place. Datagram i begins at `first` + i * `stride`; its packet of
/// `length` bytes, padded, lies behind the room for its header, and has room for the tag behind it.
export fn ends_seal(
    key: *const [32]u8,
    remote_index: u32,
    counter_first: u64,
    first: [*]u8,
    stride: usize,
    length: usize,
    count: usize,
) void {
    const header_length = @sizeOf(messages.TransportHeader);
    var jobs: [batch_max]cipher.Seal = undefined;
    var done: usize = 0;
    while (done < count) {
        const some = @min(count - done, batch_max);
        for (jobs[0..some], done..) |*job, i| {
            const datagram = first + i * stride;
            const header: messages.TransportHeader = .init(remote_index, counter_first + i);
            datagram[0..header_length].* = std.mem.toBytes(header);
            const body = datagram + header_length;
            job.* = .{ .source = body, .destination = body, .length = length };
        }
        cipher.sealBatch(key, counter_first + done, jobs[0..some]);
        done += some;
    }
}

pub const std_options = runtime.std_options;
pub const panic = runtime.panic;
