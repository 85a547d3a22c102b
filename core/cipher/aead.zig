//! ChaCha20-Poly1305 (RFC 8439 §2.8) as WireGuard uses it (whitepaper §5.4.6): empty associated data, nonce of
//! four zero bytes and the counter. The unit of work is the batch, not the packet.
//!
//! The blocks of all packets stand in one line, the block that makes a packet's Poly1305 key among them: before its
//! data when sealing, `lanes` packets ahead when opening. Groups of `lanes` blocks are cut from the line whatever
//! packet they belong to, so small packets fill the vectors too, and 24 blocks (a full packet of MTU 1420) are
//! whole groups. Poly1305 is scalar and runs between the rounds of the groups, where the vector units leave the
//! multiplier idle: behind the cipher when sealing, ahead of it when opening.
//!
//! Does not know keys' lives, counters' windows or headers. Invariants: no branch and no address depends on a
//! key or on data, only on lengths, counters and verdicts; when opening, a byte is deciphered only after the
//! tag of its packet was found right.
const std = @import("std");
const mem = std.mem;
const chacha20 = @import("chacha20.zig");
const poly1305 = @import("poly1305.zig");

pub const tag_length = 16;

/// Above any datagram by far; keeps block counters and sums of work inside 32 bits.
pub const length_max = 1 << 24;

/// A plaintext to seal. `destination` takes length + 16 bytes; it is `source` or does not overlap it.
pub const Seal = extern struct {
    source: [*]const u8,
    destination: [*]u8,
    length: usize,
};

/// A ciphertext to open in place. `length` does not count the tag, which follows.
pub const Open = extern struct {
    data: [*]u8,
    length: usize,
    counter: u64,
    /// The verdict. When false, the `length` bytes at `data` have been zeroed.
    authentic: bool,
};

pub const Direction = enum { seal, open };

/// Packets taken together; larger batches are cut. Bounds the keys on the stack (2 KiB), and costs one partly
/// filled group per cut.
const window_max = 64;

/// The batch functions for one lane count and one form of Poly1305.
pub fn Aead(comptime lanes: comptime_int, comptime Poly: type) type {
    return struct {
        pub fn sealBatch(key: *const [32]u8, counter_first: u64, jobs: []const Seal) void {
            var done: usize = 0;
            while (done < jobs.len) {
                const count = @min(jobs.len - done, window_max);
                Window(.seal, lanes, Poly).run(key, counter_first +% done, jobs[done..][0..count]);
                done += count;
            }
        }

        pub fn openBatch(key: *const [32]u8, jobs: []Open) void {
            var done: usize = 0;
            while (done < jobs.len) {
                const count = @min(jobs.len - done, window_max);
                Window(.open, lanes, Poly).run(key, 0, jobs[done..][0..count]);
                done += count;
            }
        }
    };
}

/// At most `window_max` packets on their way through the cipher and the authenticator.
fn Window(comptime direction: Direction, comptime lanes: comptime_int, comptime Poly: type) type {
    return struct {
        const Self = @This();
        const Chacha = chacha20.Group(lanes);
        const Jobs = switch (direction) {
            .seal => []const Seal,
            .open => []Open,
        };

        jobs: Jobs,
        counter_first: u64,
        key_words: [8]u32,
        /// Per packet: r and s of Poly1305.
        mac_keys: [window_max]Poly.Key,
        keystream: [Chacha.length]u8 align(64),

        // Where the next group begins in the line of blocks.
        next_key: usize,
        next_packet: usize,
        next_offset: usize,

        /// Packets whose Poly1305 key is there.
        keys_ready: usize,

        // Work of the authenticator, in units: `units(length)` for a packet.
        /// May be absorbed: the packet's key and its ciphertext are there.
        ready: usize,
        absorbed: usize,
        /// Opening only: up to the last packet of the planned group.
        wanted: usize,
        /// Sealing only: there is work for a while.
        flowing: bool,

        fn run(key: *const [32]u8, counter_first: u64, jobs: Jobs) void {
            var window: Self = .{
                .jobs = jobs,
                .counter_first = counter_first,
                .key_words = chacha20.keyWords(key),
                .mac_keys = undefined,
                .keystream = undefined,
                .next_key = 0,
                .next_packet = 0,
                .next_offset = 0,
                .keys_ready = 0,
                .ready = 0,
                .absorbed = 0,
                .wanted = 0,
                .flowing = false,
            };
            defer window.wipe();
            var mac: Mac = .idle;
            defer std.crypto.secureZero(u8, mem.asBytes(&mac.poly));
            const pace = window.evenPace();

            var group: Group = undefined;
            while (window.plan(&group)) {
                const share = window.shareOf(pace);
                window.generate(&mac, group.position, share);
                window.absorbed += share * chacha20.double_rounds;

                for (group.key_lanes[0..group.key_count], group.key_first..) |lane, packet| {
                    window.mac_keys[packet] = .init(window.keystream[lane * chacha20.block_length ..][0..32]);
                }
                window.keys_ready += group.key_count;
                if (direction == .open) {
                    window.ready += group.work;
                    // Only when the packets of a group have got their keys in the same group.
                    if (window.absorbed < window.wanted) {
                        window.absorb(&mac, window.wanted - window.absorbed);
                        window.absorbed = window.wanted;
                    }
                }
                for (group.runs[0..group.run_count]) |run_of| window.apply(run_of);
                if (direction == .seal) window.ready += group.work;
            }
            // Empty packets at the end have no block to ride on.
            if (direction == .seal) window.ready += group.work;
            window.absorb(&mac, window.ready - window.absorbed);
            std.debug.assert(mac.packet == jobs.len and !mac.begun);
        }

        fn wipe(window: *Self) void {
            std.crypto.secureZero(u32, &window.key_words);
            std.crypto.secureZero(u8, mem.sliceAsBytes(window.mac_keys[0..window.jobs.len]));
            std.crypto.secureZero(u8, &window.keystream);
        }

        // The line of blocks.

        /// Keys run this many packets ahead of their data.
        const lead = if (direction == .seal) 0 else lanes;

        /// A group of lanes: keys of consecutive packets, and stretches of packets.
        const Group = struct {
            position: Chacha.Position,
            key_first: usize,
            key_count: usize,
            key_lanes: [lanes]usize,
            runs: [lanes]Run,
            run_count: usize,
            /// Units of work the group makes ready: its ciphertext when sealing, its keys' packets when opening.
            work: usize,
        };

        /// A stretch of one packet inside a group; only a packet's last run may end inside a block.
        const Run = struct {
            packet: usize,
            offset: usize,
            length: usize,
            lane: usize,
        };

        /// Cuts the next group from the line. False at its end; `work` then holds what trailing empty packets add.
        inline fn plan(window: *Self, group: *Group) bool {
            const jobs = window.jobs;
            // A local, so that it stays in registers.
            var position: Chacha.Position = .zero;
            group.key_first = window.next_key;
            group.key_count = 0;
            group.run_count = 0;
            group.work = 0;
            var lane: usize = 0;
            while (lane < lanes) {
                if (window.keyIsNext()) {
                    position.place(lane, window.nonce(window.next_key), 0);
                    if (direction == .open) group.work += units(jobs[window.next_key].length);
                    group.key_lanes[group.key_count] = lane;
                    group.key_count += 1;
                    window.next_key += 1;
                    lane += 1;
                    continue;
                }
                if (window.next_packet == jobs.len) break;
                const packet = window.next_packet;
                const offset = window.next_offset;
                const left = jobs[packet].length - offset;
                const length = @min(left, (lanes - lane) * chacha20.block_length);
                if (offset == 0 and direction == .open) window.wanted += units(left);
                if (length > 0) {
                    position.place(lane, window.nonce(packet), @intCast(1 + offset / chacha20.block_length));
                    group.runs[group.run_count] =
                        .{ .packet = packet, .offset = offset, .length = length, .lane = lane };
                    group.run_count += 1;
                    lane += (length + chacha20.block_length - 1) / chacha20.block_length;
                }
                const last = length == left;
                if (direction == .seal) group.work += if (last) units(length) else length / poly1305.block_length;
                window.next_packet = if (last) packet + 1 else packet;
                window.next_offset = if (last) 0 else offset + length;
            }
            group.position = position;
            return lane > 0;
        }

        /// The first `lead` keys stand at the front, the others before the data of the packet `lead` places earlier.
        inline fn keyIsNext(window: *const Self) bool {
            if (window.next_key == window.jobs.len) return false;
            if (window.next_key < lead) return true;
            return window.next_offset == 0 and window.next_key == window.next_packet + lead;
        }

        inline fn nonce(window: *const Self, packet: usize) u64 {
            return switch (direction) {
                .seal => window.counter_first +% packet,
                .open => window.jobs[packet].counter,
            };
        }

        /// Units a double round usually takes: four blocks a lane over ten double rounds, less the keys' lanes.
        const usual_share = lanes * 3 / 8;

        /// Units a double round should absorb so that all groups after the first carry the same load.
        fn evenPace(window: *const Self) usize {
            var work: usize = 0;
            var blocks: usize = window.jobs.len;
            for (window.jobs) |job| {
                work += units(job.length);
                blocks += (job.length + chacha20.block_length - 1) / chacha20.block_length;
            }
            return std.math.divCeil(usize, work, @max(1, blocks / lanes) * chacha20.double_rounds) catch unreachable;
        }

        /// Units each double round of this group takes. Whole units a round, the same in every round and, but for
        /// the first and the last, in every group: branches that always go the same way cost nothing.
        inline fn shareOf(window: *Self, pace: usize) usize {
            const possible = (window.ready - window.absorbed) / chacha20.double_rounds;
            switch (direction) {
                .seal => {
                    if (window.jobs.len < even_from) return possible;
                    // Work comes in lumps; a group's worth in hand bridges them.
                    if (possible < pace) window.flowing = false;
                    if (possible >= 2 * pace) window.flowing = true;
                    return if (window.flowing) pace else 0;
                },
                .open => {
                    const missing = window.wanted -| window.absorbed;
                    const needed = (missing + chacha20.double_rounds - 1) / chacha20.double_rounds;
                    return @min(possible, @max(needed, pace));
                },
            }
        }

        /// With fewer packets than this, what waits at the end costs more than an uneven pace.
        const even_from = 8;

        // The cipher.

        /// One group of key stream; meanwhile `share` units of Poly1305 in each double round.
        inline fn generate(window: *Self, mac_state: *Mac, position: Chacha.Position, share: usize) void {
            var mac = mac_state.*;
            var state = Chacha.begin(&window.key_words, position);
            for (0..chacha20.double_rounds) |_| {
                if (share == usual_share and mac.blocks >= usual_share) {
                    inline for (0..4) |part| {
                        inline for (part * usual_share / 4..(part + 1) * usual_share / 4) |_| mac.absorbBlock();
                        Chacha.part(&state, part);
                    }
                } else {
                    window.advance(&mac, share);
                    inline for (0..4) |part| Chacha.part(&state, part);
                }
            }
            Chacha.finish(&state, &window.key_words, position, &window.keystream);
            mac_state.* = mac;
        }

        /// XORs a run with its lanes of the key stream. When opening, only if its packet is authentic.
        inline fn apply(window: *const Self, of: Run) void {
            const job = window.jobs[of.packet];
            const pad = window.keystream[of.lane * chacha20.block_length ..].ptr;
            switch (direction) {
                .seal => xor(width, job.destination + of.offset, job.source + of.offset, pad, of.length),
                .open => if (job.authentic) xor(width, job.data + of.offset, job.data + of.offset, pad, of.length),
            }
        }

        const width = @min(lanes * 4, 64);

        // The authenticator.

        /// Poly1305 over the packets of the window, one after the other.
        const Mac = struct {
            poly: Poly,
            cursor: [*]const u8,
            /// Whole blocks of the packet still to absorb.
            blocks: usize,
            packet: usize,
            begun: bool,

            inline fn absorbBlock(mac: *Mac) void {
                mac.poly.absorb(mac.cursor[0..poly1305.block_length]);
                mac.cursor += poly1305.block_length;
                mac.blocks -= 1;
            }

            const idle: Mac = .{
                .poly = undefined,
                .cursor = undefined,
                .blocks = 0,
                .packet = 0,
                .begun = false,
            };
        };

        /// A packet's work: a unit for each whole block and one to close.
        inline fn units(length: usize) usize {
            return length / poly1305.block_length + 1;
        }

        inline fn advance(window: *Self, mac: *Mac, count: usize) void {
            var left = count;
            while (left > 0) : (left -= 1) {
                if (mac.blocks == 0) {
                    @branchHint(.unlikely);
                    mac.* = window.turn(mac.*);
                } else mac.absorbBlock();
            }
        }

        noinline fn absorb(window: *Self, mac_state: *Mac, count: usize) void {
            var mac = mac_state.*;
            window.advance(&mac, count);
            mac_state.* = mac;
        }

        /// Where a packet ends and the next begins. By value, so that the state stays in registers around the call.
        noinline fn turn(window: *Self, before: Mac) Mac {
            var mac = before;
            if (!mac.begun) {
                window.begin(&mac);
                if (mac.blocks > 0) {
                    mac.absorbBlock();
                    return mac;
                }
            }
            window.close(&mac);
            if (mac.packet < window.keys_ready) window.begin(&mac);
            return mac;
        }

        inline fn begin(window: *const Self, mac: *Mac) void {
            const job = window.jobs[mac.packet];
            mac.poly = .init(&window.mac_keys[mac.packet]);
            mac.cursor = switch (direction) {
                .seal => job.destination,
                .open => job.data,
            };
            mac.blocks = job.length / poly1305.block_length;
            mac.begun = true;
        }

        inline fn close(window: *Self, mac: *Mac) void {
            const job = window.jobs[mac.packet];
            const tag = closing(&mac.poly, mac.cursor, job.length);
            switch (direction) {
                .seal => storeBlock(job.destination + job.length, tag),
                .open => {
                    // All bits at once; only the verdict is branched on.
                    var authentic = tag ^ loadBlock(job.data + job.length) == 0;
                    // Public from here: whether a packet was accepted shows. For valgrind, and no code without it.
                    std.crypto.timing_safe.declassify(&authentic);
                    window.jobs[mac.packet].authentic = authentic;
                    if (!authentic) @memset(job.data[0..job.length], 0);
                },
            }
            mac.packet += 1;
            mac.begun = false;
        }
    };
}

/// The tag of a packet of `length` bytes of which all whole blocks are absorbed: with zero padding, then the lengths of
/// the associated data (none) and of the ciphertext.
pub inline fn closing(poly: anytype, cursor: [*]const u8, length: usize) u128 {
    if (length % poly1305.block_length != 0) {
        const padded = padLast(cursor, length);
        poly.absorb(&padded);
    }
    var lengths: [poly1305.block_length]u8 = @splat(0);
    mem.writeInt(u64, lengths[8..16], length, .little);
    poly.absorb(&lengths);
    return poly.finish();
}

/// The last, partial block of a packet of `length` bytes, padded with zeros.
inline fn padLast(cursor: [*]const u8, length: usize) [poly1305.block_length]u8 {
    const rest = length % poly1305.block_length;
    var padded: [poly1305.block_length]u8 = @splat(0);
    if (length < poly1305.block_length) {
        for (cursor[0..rest], padded[0..rest]) |byte, *slot| slot.* = byte;
        return padded;
    }
    // One load that ends where the packet ends; what precedes the block is shifted out.
    const ending = loadBlock(cursor + rest - poly1305.block_length);
    storeBlock(&padded, ending >> @intCast(8 * (poly1305.block_length - rest)));
    return padded;
}

/// XORs in vectors of `width` bytes, and the rest in what powers of two it takes.
pub inline fn xor(comptime width: usize, to: [*]u8, from: [*]const u8, pad: [*]const u8, length: usize) void {
    var at: usize = 0;
    while (length - at >= 64) : (at += 64) {
        inline for (0..64 / width) |i| {
            const next = at + i * width;
            xorVector(width, to + next, from + next, pad + next);
        }
    }
    inline for (.{ 32, 16, 8, 4, 2, 1 }) |step| {
        if (length & step != 0) {
            xorVector(step, to + at, from + at, pad + at);
            at += step;
        }
    }
}

inline fn xorVector(comptime width: usize, to: [*]u8, from: [*]const u8, pad: [*]const u8) void {
    const a: @Vector(width, u8) = from[0..width].*;
    const b: @Vector(width, u8) = pad[0..width].*;
    to[0..width].* = a ^ b;
}

/// Sixteen bytes as a number. mem.readInt and mem.writeInt compile to one access a byte.
pub inline fn loadBlock(from: [*]const u8) u128 {
    return mem.littleToNative(u128, @as(*align(1) const u128, @ptrCast(from)).*);
}

pub inline fn storeBlock(to: [*]u8, block: u128) void {
    @as(*align(1) u128, @ptrCast(to)).* = mem.nativeToLittle(u128, block);
}

const Oracle = std.crypto.aead.chacha_poly.ChaCha20Poly1305;

test "every lane count and both forms of Poly1305 agree with std" {
    var prng: std.Random.DefaultPrng = .init(8439);
    const random = prng.random();
    const count = 70;
    var plain: [count][700]u8 = undefined;
    var sealed: [count][700 + tag_length]u8 = undefined;
    var expected: [count][700 + tag_length]u8 = undefined;
    for (0..8) |_| {
        var key: [32]u8 = undefined;
        random.bytes(&key);
        const counter_first = random.int(u64);
        var seals: [count]Seal = undefined;
        for (&seals, 0..) |*job, i| {
            const length = random.uintAtMost(usize, 700) * @intFromBool(random.int(u3) != 0);
            random.bytes(plain[i][0..length]);
            job.* = .{ .source = &plain[i], .destination = &sealed[i], .length = length };
            var nonce: [12]u8 = @splat(0);
            mem.writeInt(u64, nonce[4..], counter_first +% i, .little);
            Oracle.encrypt(expected[i][0..length], expected[i][length..][0..16], plain[i][0..length], "", nonce, key);
        }
        inline for (.{ 4, 8, 16 }) |lanes| inline for (.{ poly1305.Limbs64, poly1305.Limbs26 }) |Poly| {
            const Form = Aead(lanes, Poly);
            Form.sealBatch(&key, counter_first, &seals);
            var opens: [count]Open = undefined;
            for (&opens, seals, 0..) |*open, seal, i| {
                const total = seal.length + tag_length;
                try std.testing.expectEqualSlices(u8, expected[i][0..total], sealed[i][0..total]);
                if (i % 5 == 4) sealed[i][i * 7 % total] ^= 0x10;
                open.* = .{
                    .data = &sealed[i],
                    .length = seal.length,
                    .counter = counter_first +% i,
                    .authentic = i % 2 == 0,
                };
            }
            Form.openBatch(&key, &opens);
            for (opens, 0..) |open, i| {
                try std.testing.expectEqual(i % 5 != 4, open.authentic);
                if (!open.authentic) {
                    try std.testing.expect(mem.allEqual(u8, open.data[0..open.length], 0));
                } else {
                    try std.testing.expectEqualSlices(u8, plain[i][0..open.length], open.data[0..open.length]);
                }
            }
        };
    }
}
