//! Sending: datagrams of one family become messages, many of them one system call, and what to do when one is refused.
//!
//! sendmmsg tells the error of a message only when it is the first of the call, so each error is about one known piece:
//!   EINTR                the same again, but not without end
//!   EIO, a train         the device of the route cannot fill in checksums (before 6.11), or the route has IPsec: no
//!                        trains to that destination for a minute; after many destinations, none at all
//!   EMSGSIZE, a train    a segment is longer than the path's MTU: no trains to that destination for a minute
//!   EINVAL, a train      the same of older kernels; or its sticky source is gone. The first datagram of the train goes
//!                        alone, with the source: if that is sent it was the train, if not it was the source
//!   EINVAL, ENETUNREACH, ENODEV, EADDRNOTAVAIL, a datagram with a sticky source
//!                        the source is gone: it is forgotten, in all datagrams that have it
//!   EINVAL, a datagram with a TOS and no source
//!                        qemu-user for the other byte order, which hands the number on as it is: without the TOS
//!   what ICMP can have told (IP_RECVERR)
//!                        it may be about a datagram of before, since the kernel tells it by the next call, whatever
//!                        that sends: the same again, a few times. The error queue does not tell which it is: what it
//!                        has no room for is told all the same, and so is what was taken out of it
//!   anything else        costs this piece: EPERM is a firewall's no, EAGAIN and ENOBUFS a full queue, the others the
//!                        network's answer
//! Knows bytes and addresses; not who the peers are or what the datagrams mean.
//! Invariant: each call settles a piece or lowers what is tried, so it ends; and datagrams to one destination leave in
//! the order they were given.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const control_message = @import("control_message.zig");
const Name = @import("sockaddr.zig").Name;
const Offload = @import("offload.zig").Offload;

const linux = std.os.linux;
const assert = std.debug.assert;
const Family = wire.Family;

/// UDP_MAX_SEGMENTS of every kernel before 6.10, and UDP_GRO_CNT_MAX of all.
const segments_max = 64;

/// The longest UDP payload: 65 535 less the UDP header, and for IPv4 less the IP header too.
fn payloadMax(family: Family) usize {
    return switch (family) {
        .ipv4 => 65_507,
        .ipv6 => 65_527,
    };
}

/// EINTR cannot happen to a non-blocking send; if it does, not more often than this.
const interrupts_max = 16;
/// How often a piece is tried again, since its error may have been about another. More than one, as the answers to
/// several datagrams can come while one is tried.
const doubts_max = 4;

/// What one send carries: a datagram, or a train of them.
pub const Transmit = struct {
    bytes: []const u8,
    /// Longer than this, the bytes are a train: datagrams of this size, the last perhaps shorter. 0: one datagram.
    segment_size: u16,
    /// Not as a train, although it could be one.
    as_singles: bool = false,
    endpoint: wire.Endpoint,
    /// DSCP and ECN of the outer header.
    tos: u8 = 0,
    /// Set by sending when the kernel no longer has the source; `endpoint.source` is null then.
    source_refused: bool = false,
    /// Set by sending when some of it was not sent: why the last of that was not.
    failure: sys.E = .SUCCESS,

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

/// The arrays of one sendmmsg.
pub const Outgoing = struct {
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
pub const Pass = struct {
    calls: *const sys.Calls,
    offload: *Offload,
    /// Null on a host without the family.
    socket: ?sys.fd_t,
    outgoing: *Outgoing,
    transmits: []Transmit,
    family: Family,
    now_ns: u64,
    result: *SendResult,
    /// How often a source was forgotten.
    sources_refused: u64 = 0,
    calls_made: u64 = 0,
    cursor: Cursor = .{},
    /// EINVAL on a train with a sticky source means either that GSO does not fit the path or that the
    /// source is gone. The first datagram of the train, sent alone, tells which.
    suspect: ?usize = null,
    interrupts: u32 = 0,
    /// How often the piece at the cursor was tried again, as it is cut now.
    doubts: u32 = 0,

    pub fn run(pass: *Pass) void {
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
        const gso = !transmit.as_singles and pass.suspect != cursor.transmit and
            pass.offload.gsoAllowed(transmit.endpoint.remote, pass.now_ns);
        piece.is_train = gso and segments >= 2;
        piece.length = if (piece.is_train) @min(rest, segments * size) else size;
        return piece;
    }

    fn place(pass: *Pass, i: usize, piece: Piece) void {
        const out = pass.outgoing;
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
        const out = pass.outgoing;
        var done: usize = 0;
        while (done < count) {
            const piece = out.pieces[done];
            const socket = pass.socket orelse {
                pass.settleFailed(piece, .AFNOSUPPORT);
                done += 1;
                continue;
            };
            pass.calls_made += 1;
            const rc = pass.calls.sendmmsg(socket, out.messages[done..].ptr, @intCast(count - done), 0);
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
                    .cut_anew => {
                        pass.doubts = 0;
                        return;
                    },
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
        const transmit = &pass.transmits[piece.transmit];
        if (canBeOfBefore(errno) and pass.doubts < doubts_max) {
            pass.doubts += 1;
            return .again;
        }
        switch (errno) {
            .INTR => {
                pass.interrupts += 1;
                return if (pass.interrupts <= interrupts_max) .again else .give_up;
            },
            // IO: the egress device has no checksum offload, or IPsec is on the route.
            // MSGSIZE: a segment exceeds the path MTU, since 6.14 and in stable kernels of 2025; INVAL before.
            .IO, .MSGSIZE => if (piece.is_train) return pass.withoutGso(transmit, errno),
            .INVAL => if (piece.is_train) {
                if (transmit.endpoint.source == null) return pass.withoutGso(transmit, errno);
                pass.suspect = piece.transmit;
                return .cut_anew;
            } else if (transmit.endpoint.source != null) {
                return pass.withoutSource(transmit);
            } else if (transmit.tos != 0) {
                transmit.tos = 0;
                return .cut_anew;
            },
            .NETUNREACH, .NODEV, .ADDRNOTAVAIL => {
                if (transmit.endpoint.source != null) return pass.withoutSource(transmit);
            },
            else => {},
        }
        return .give_up;
    }

    /// What the kernel makes of ICMP errors (icmp_err_convert, icmpv6_err_convert).
    fn canBeOfBefore(errno: sys.E) bool {
        return switch (errno) {
            .CONNREFUSED, .HOSTUNREACH, .NETUNREACH, .HOSTDOWN, .NONET, .MSGSIZE => true,
            .ACCES, .PROTO, .NOPROTOOPT, .OPNOTSUPP => true,
            else => false,
        };
    }

    fn withoutGso(pass: *Pass, transmit: *const Transmit, errno: sys.E) Verdict {
        pass.offload.refuseGso(transmit.endpoint.remote, errno, pass.now_ns);
        pass.offload.counters.gso_resent += 1;
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
        pass.sources_refused += 1;
        pass.result.any_source_refused = true;
        pass.suspect = null;
        return .cut_anew;
    }

    fn settleSent(pass: *Pass, piece: Piece) void {
        const transmit = &pass.transmits[piece.transmit];
        pass.result.sent_datagrams += if (piece.is_train) transmit.segments(piece.length) else 1;
        if (pass.suspect == piece.transmit) {
            // Alone and with its source it went: so it was GSO that the path refused.
            _ = pass.withoutGso(transmit, .INVAL);
            pass.suspect = null;
        }
        pass.advance(piece);
    }

    fn settleFailed(pass: *Pass, piece: Piece, errno: sys.E) void {
        const transmit = &pass.transmits[piece.transmit];
        pass.result.failed_datagrams += if (piece.is_train) transmit.segments(piece.length) else 1;
        pass.result.last_errno = errno;
        transmit.failure = errno;
        if (pass.suspect == piece.transmit) pass.suspect = null; // nothing learnt
        pass.advance(piece);
    }

    fn advance(pass: *Pass, piece: Piece) void {
        pass.doubts = 0;
        pass.cursor = .{ .transmit = piece.transmit, .offset = piece.offset + piece.length };
        if (pass.cursor.offset >= pass.transmits[piece.transmit].bytes.len) {
            pass.cursor = .{ .transmit = piece.transmit + 1 };
        }
    }
};
