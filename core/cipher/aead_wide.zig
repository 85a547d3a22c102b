//! ChaCha20-Poly1305 as in aead.zig, for AVX-512, whose registers hold 32 blocks: their key stream goes straight into
//! the packets. The authenticator takes several packets at once, in one of two forms:
//!
//! `eights`, with IFMA: Poly1305 wants the vectors too, so cipher and authenticator take turns. When eight packets wait
//! for it the authenticator takes all eight, which are still in the first cache.
//! `pairs`, without: Poly1305 is scalar and runs between the rounds, as two chains over the blocks of two packets, for
//! one is slower than 32 blocks of the cipher.
//!
//! The blocks of all packets stand in one line: when sealing, the block of a packet's Poly1305 key before its data;
//! when opening, all keys before all data. Packets stand in order of length, the longest first, so that eight that are
//! authenticated together end together.
//!
//! Does not know keys' lives, counters' windows or headers. Invariants: no branch and no address depends on a key or on
//! data, only on lengths, counters and verdicts; when opening, a byte is deciphered only after the tag of its packet
//! was found right: until then its key stream waits in the pad.
const std = @import("std");
const mem = std.mem;
const aead = @import("aead.zig");
const chacha20 = @import("chacha20.zig");
const poly1305 = @import("poly1305.zig");
const poly1305_ifma = @import("poly1305_ifma.zig");

const Seal = aead.Seal;
const Open = aead.Open;
const Direction = aead.Direction;
const block_length = chacha20.block_length;

/// Blocks of a group, and of a group that is not half full.
const lanes = 32;
const Full = chacha20.Group(lanes);
const Half = chacha20.Group(lanes / 2);

/// Packets taken together; larger batches are cut.
const window_max = 64;

/// So few packets of so few bytes together are done sooner with scalar Poly1305 between the rounds.
const few_count_max = 4;
const few_total_max = [few_count_max + 1]usize{ 0, 256, 512, 384, 384 };
const Few = aead.Aead(lanes / 2, Scalar);
/// With fewer packets than this, or shorter ones, most pairs would have no rounds to run between.
const pairs_from = 6;
const pairs_length = 512;

const Scalar = poly1305.Poly1305;

const Form = enum { eights, pairs };

/// The batch functions for one form of the authenticator.
pub fn Aead(comptime form: Form) type {
    return struct {
        pub fn sealBatch(key: *const [32]u8, counter_first: u64, jobs: []const Seal) void {
            var done: usize = 0;
            while (done < jobs.len) {
                const some = jobs[done..][0..@min(jobs.len - done, window_max)];
                const counter = counter_first +% done;
                if (areFew(some)) sealFew(key, counter, some) else Window(.seal, form).run(key, counter, some);
                done += some.len;
            }
        }

        pub fn openBatch(key: *const [32]u8, jobs: []Open) void {
            var done: usize = 0;
            while (done < jobs.len) {
                const some = jobs[done..][0..@min(jobs.len - done, window_max)];
                if (areFew(some)) openFew(key, some) else Window(.open, form).run(key, 0, some);
                done += some.len;
            }
        }

        // Not inline: one frame or the other is on the stack, not both.

        noinline fn sealFew(key: *const [32]u8, counter_first: u64, jobs: []const Seal) void {
            Few.sealBatch(key, counter_first, jobs);
        }

        noinline fn openFew(key: *const [32]u8, jobs: []Open) void {
            Few.openBatch(key, jobs);
        }

        inline fn areFew(jobs: anytype) bool {
            if (form == .eights and jobs.len > few_count_max) return false;
            var total: usize = 0;
            for (jobs) |job| total += job.length;
            if (form == .pairs) return jobs.len < pairs_from or total < jobs.len * pairs_length;
            return total <= few_total_max[jobs.len];
        }
    };
}

/// At most `window_max` packets on their way through the cipher and the authenticator.
fn Window(comptime direction: Direction, comptime form: Form) type {
    return struct {
        const Self = @This();
        const at_once = switch (form) {
            .eights => poly1305_ifma.lanes,
            .pairs => 2,
        };
        const Jobs = switch (direction) {
            .seal => []const Seal,
            .open => []Open,
        };

        jobs: Jobs,
        counter_first: u64,
        key_words: [8]u32,
        /// The place in the line of each packet of `jobs`. All numbers of packets below are places in the line.
        line: [window_max]u8,
        /// A packet's block 0, of which half is the key of Poly1305.
        mac_keys: [window_max][block_length]u8 align(64),
        /// Key stream that may not go into its packet: the end of it, or the packet has no verdict yet.
        pad: [lanes][block_length]u8 align(64),

        // Where the next group begins in the line.
        next_key: usize,
        next_packet: usize,
        next_offset: usize,

        /// Packets whose Poly1305 key is there.
        keys_ready: usize,
        /// Sealing: packets whose ciphertext is there.
        sealed: usize,
        /// Packets that have got their tag, or their verdict.
        judged: usize,

        // Only pairs:
        pair: Pair,
        scalar_keys: [2]Scalar.Key,

        noinline fn run(key: *const [32]u8, counter_first: u64, jobs: Jobs) void {
            var window: Self = .{
                .jobs = jobs,
                .counter_first = counter_first,
                .key_words = chacha20.keyWords(key),
                .line = undefined,
                .mac_keys = undefined,
                .pad = undefined,
                .next_key = 0,
                .next_packet = 0,
                .next_offset = 0,
                .keys_ready = 0,
                .sealed = 0,
                .judged = 0,
                .pair = .none,
                .scalar_keys = undefined,
            };
            var pads_used: usize = 0;
            window.lineUp();
            while (true) {
                var group: Group = .init(&window);
                window.plan(&group);
                if (group.lanes_used == 0) break;
                window.generate(&group);
                pads_used = @max(pads_used, group.lanesRun());
                window.keys_ready = window.next_key;
                for (group.runs[0..group.run_count]) |of| window.apply(of);
                if (direction == .seal) window.sealed = window.next_packet;
                if (form == .eights and direction == .seal) {
                    while (window.sealed - window.judged >= at_once) window.judge();
                }
            }
            window.sealed = window.next_packet;
            while (window.judged < jobs.len) window.judge();
            window.wipe(pads_used);
        }

        fn wipe(window: *Self, pads_used: usize) void {
            std.crypto.secureZero(u32, &window.key_words);
            if (form == .pairs) {
                std.crypto.secureZero(u8, mem.asBytes(&window.pair));
                std.crypto.secureZero(u8, mem.asBytes(&window.scalar_keys));
            }
            wipeBlocks(window.mac_keys[0..window.jobs.len]);
            wipeBlocks(window.pad[0..pads_used]);
        }

        // The line.

        /// Packets of about one length share a bucket; within one they keep their order.
        const bucket_count = 32;

        inline fn lineUp(window: *Self) void {
            const jobs = window.jobs;
            var is_uniform = true;
            for (jobs, window.line[0..jobs.len], 0..) |job, *packet, i| {
                packet.* = @intCast(i);
                is_uniform = is_uniform and job.length == jobs[0].length;
            }
            if (!is_uniform) window.sort();
        }

        noinline fn sort(window: *Self) void {
            var ends: [bucket_count + 1]u8 = @splat(0);
            for (window.jobs) |job| ends[bucketOf(job.length) + 1] += 1;
            for (ends[1..], ends[0..bucket_count]) |*end, before| end.* += before;
            for (window.jobs, 0..) |job, i| {
                const next = &ends[bucketOf(job.length)];
                window.line[next.*] = @intCast(i);
                next.* += 1;
            }
        }

        /// The longest first: what is left over at the end of the line costs as much as eight packets.
        inline fn bucketOf(length: usize) usize {
            return (bucket_count - 1) -| length / block_length;
        }

        inline fn jobOf(window: *const Self, packet: usize) @TypeOf(&window.jobs[0]) {
            return &window.jobs[window.line[packet]];
        }

        inline fn nonceOf(window: *const Self, packet: usize) u64 {
            return switch (direction) {
                .seal => window.counter_first +% window.line[packet],
                .open => window.jobOf(packet).counter,
            };
        }

        // The cipher.

        /// The next blocks of the line, and where they go.
        const Group = struct {
            position: Full.Position,
            /// Where block i is XORed from and to.
            from: [lanes][*]const u8,
            to: [lanes][*]u8,
            lanes_used: usize,
            runs: [lanes]Run,
            run_count: usize,

            /// All lanes go to the pad, as those that are left over do.
            inline fn init(window: *Self) Group {
                var group: Group = .{
                    .position = .zero,
                    .from = undefined,
                    .to = undefined,
                    .lanes_used = 0,
                    .runs = undefined,
                    .run_count = 0,
                };
                for (&group.from, &group.to, 0..) |*from, *to, i| {
                    from.* = &zeros;
                    to.* = &window.pad[i];
                }
                return group;
            }

            inline fn lanesRun(group: *const Group) usize {
                return if (group.lanes_used > lanes / 2) lanes else lanes / 2;
            }
        };

        /// A stretch of one packet that is in the pad from this lane on.
        const Run = struct {
            packet: usize,
            offset: usize,
            length: usize,
            lane: usize,
        };

        /// Takes the next group from the line; none at its end.
        inline fn plan(window: *Self, group: *Group) void {
            const count = window.jobs.len;
            // A local, so that it stays in registers.
            var position: Full.Position = .zero;
            var lane: usize = if (direction == .open) window.planKeys(group, &position) else 0;
            while (lane < lanes and window.next_packet < count) {
                if (direction == .seal and window.next_key == window.next_packet) {
                    position.place(lane, window.nonceOf(window.next_key), 0);
                    group.to[lane] = &window.mac_keys[window.next_key];
                    window.next_key += 1;
                    lane += 1;
                    if (lane == lanes) break;
                }
                // When sealing, a packet's lanes go on from that of its key, unless a group ends between them.
                if (direction == .open or lane == 0) {
                    const block = 1 + window.next_offset / block_length;
                    position.place(lane, window.nonceOf(window.next_packet), @intCast(block));
                }
                lane += window.planData(group, lane);
            }
            group.position = position;
            group.lanes_used = lane;
        }

        /// Opening: the keys, which come before everything else. Gives the number of lanes that they take.
        inline fn planKeys(window: *Self, group: *Group, position: *Full.Position) usize {
            const first = window.next_key;
            const count = @min(window.jobs.len - first, lanes);
            if (count == 0) return 0;
            var low: [lanes]u32 = undefined;
            var high: [lanes]u32 = undefined;
            for (0..count) |lane| {
                const nonce = window.nonceOf(first + lane);
                low[lane] = @truncate(nonce);
                high[lane] = @truncate(nonce >> 32);
                group.to[lane] = &window.mac_keys[first + lane];
            }
            position.nonce_low = low;
            position.nonce_high = high;
            window.next_key += count;
            return count;
        }

        /// The next stretch of the next packet. Gives the number of lanes that it takes.
        inline fn planData(window: *Self, group: *Group, lane: usize) usize {
            const packet = window.next_packet;
            const waits = direction == .open and !window.judgeEarly(packet);
            const job = window.jobOf(packet);
            const offset = window.next_offset;
            const is_refused = direction == .open and !waits and !job.authentic;
            const left = if (is_refused) 0 else job.length - offset;
            const length = @min(left, (lanes - lane) * block_length);
            const whole = if (waits) 0 else length / block_length;
            const from, const to = switch (direction) {
                .seal => .{ job.source + offset, job.destination + offset },
                .open => .{ job.data + offset, job.data + offset },
            };
            for (lane..lane + whole, 0..) |i, block| {
                group.from[i] = from + block * block_length;
                group.to[i] = to + block * block_length;
            }
            const straight = whole * block_length;
            if (length > straight) {
                group.runs[group.run_count] = .{
                    .packet = packet,
                    .offset = offset + straight,
                    .length = length - straight,
                    .lane = lane + whole,
                };
                group.run_count += 1;
            }
            window.next_packet = if (length == left) packet + 1 else packet;
            window.next_offset = if (length == left) 0 else offset + length;
            return (length + block_length - 1) / block_length;
        }

        /// Opening: true if the packet has its verdict now; not before its key and those of its neighbours are there.
        inline fn judgeEarly(window: *Self, packet: usize) bool {
            while (packet >= window.judged) {
                if (@min(window.judged + at_once, window.jobs.len) > window.keys_ready) return false;
                window.judge();
            }
            return true;
        }

        inline fn generate(window: *Self, group: *const Group) void {
            if (group.lanesRun() == lanes) return window.generateBlocks(Full, group);
            window.generateBlocks(Half, group);
        }

        noinline fn generateBlocks(window: *Self, comptime Chacha: type, group: *const Group) void {
            const count = Chacha.length / block_length;
            const position: Chacha.Position = .{
                .block = std.simd.extract(group.position.block, 0, count),
                .nonce_low = std.simd.extract(group.position.nonce_low, 0, count),
                .nonce_high = std.simd.extract(group.position.nonce_high, 0, count),
            };
            var state = Chacha.begin(&window.key_words, position);
            switch (form) {
                .eights => for (0..chacha20.double_rounds) |_| {
                    inline for (0..4) |part| Chacha.part(&state, part);
                },
                // No call and no loop between rounds: the compiler would move all words to memory and back.
                .pairs => {
                    var left: usize = chacha20.double_rounds;
                    while (left > 0) {
                        if (!window.findPair()) {
                            for (0..left) |_| {
                                inline for (0..4) |part| Chacha.part(&state, part);
                            }
                            break;
                        }
                        var pair = window.pair;
                        const stretch = @min(left, pair.blocks / pace);
                        for (0..stretch) |_| {
                            inline for (0..4) |part| {
                                if (part % 2 == 0) inline for (0..pace / 2) |_| pair.absorb();
                                Chacha.part(&state, part);
                            }
                        }
                        window.pair = pair;
                        left -= stretch;
                    }
                },
            }
            Chacha.xor(&state, &window.key_words, position, group.from[0..count], group.to[0..count]);
        }

        /// XORs a run with the pad. When opening, only if its packet is authentic.
        inline fn apply(window: *Self, of: Run) void {
            const job = window.jobOf(of.packet);
            const pad: [*]const u8 = &window.pad[of.lane];
            switch (direction) {
                .seal => aead.xor(block_length, job.destination + of.offset, job.source + of.offset, pad, of.length),
                .open => {
                    // All keys are there by now: none stands behind data.
                    while (of.packet >= window.judged) window.judge();
                    if (!job.authentic) return;
                    aead.xor(block_length, job.data + of.offset, job.data + of.offset, pad, of.length);
                },
            }
        }

        // The authenticator.

        /// So many packets cost less one by one: a long one gains most from having all lanes for itself.
        inline fn few(longest: usize) usize {
            return if (longest > 1024) 3 else if (longest > 256) 2 else 1;
        }

        /// Tags, or verdicts, of the next packets: all that are taken at once, or all that are left.
        noinline fn judge(window: *Self) void {
            switch (form) {
                .eights => window.judgeEight(),
                .pairs => {
                    if (!window.pair.begun) window.begin(&window.pair);
                    window.finish(&window.pair);
                },
            }
        }

        inline fn judgeEight(window: *Self) void {
            const first = window.judged;
            const count = @min(window.jobs.len - first, at_once);
            std.debug.assert(first + count <= window.keys_ready);
            var packets: [at_once]poly1305_ifma.Packet = undefined;
            for (&packets, 0..) |*packet, lane| packet.* = window.packetOf(first + @min(lane, count - 1));
            var tags: [at_once][tag_length]u8 align(64) = undefined;
            if (count <= few(packets[0].length)) {
                for (packets[0..count], tags[0..count]) |packet, *tag| poly1305_ifma.one(packet, tag);
            } else poly1305_ifma.eight(&packets, &tags);
            for (first..first + count, tags[0..count]) |packet, *tag| {
                window.close(packet, aead.loadBlock(tag));
            }
            // Who forged a packet may not learn its tag.
            if (direction == .open) wipeBlocks(@ptrCast(&tags));
            window.judged += count;
        }

        /// Two packets, block by block.
        const Pair = struct {
            begun: bool,
            /// Whole blocks that both still have.
            blocks: usize,
            chains: [2]Chain,

            const none: Pair = .{ .begun = false, .blocks = 0, .chains = undefined };

            inline fn absorb(pair: *Pair) void {
                inline for (&pair.chains) |*chain| chain.absorb();
                pair.blocks -= 1;
            }
        };

        const Chain = struct {
            poly: Scalar,
            cursor: [*]const u8,

            inline fn absorb(chain: *Chain) void {
                chain.poly.absorb(chain.cursor[0..poly1305.block_length]);
                chain.cursor += poly1305.block_length;
            }
        };

        /// Blocks that a pair takes in a double round: 32 lanes of four blocks each, for two chains and ten double
        /// rounds, less the lanes of keys.
        const pace = 6;

        /// True if there is a pair for the next double round: this one, or the next.
        noinline fn findPair(window: *Self) bool {
            while (window.pair.blocks < pace) {
                if (window.pair.begun) window.finish(&window.pair);
                const end = @min(window.judged + 2, window.jobs.len);
                const ready = if (direction == .seal) window.sealed else window.keys_ready;
                if (window.judged == end or end > ready) return false;
                window.begin(&window.pair);
            }
            return true;
        }

        inline fn begin(window: *Self, pair: *Pair) void {
            pair.begun = true;
            pair.blocks = aead.length_max;
            inline for (&pair.chains, 0..) |*chain, i| {
                const packet = @min(window.judged + i, window.jobs.len - 1);
                window.scalar_keys[i] = .init(window.mac_keys[packet][0..32]);
                chain.* = .{ .poly = .init(&window.scalar_keys[i]), .cursor = window.textOf(packet) };
                pair.blocks = @min(pair.blocks, window.jobOf(packet).length / poly1305.block_length);
            }
            // The last of an odd number of packets has nobody to go with.
            if (window.judged + 1 == window.jobs.len) pair.blocks = 0;
        }

        inline fn finish(window: *Self, pair: *Pair) void {
            while (pair.blocks > 0) pair.absorb();
            const count = @min(window.jobs.len - window.judged, 2);
            inline for (&pair.chains, 0..) |*chain, i| if (i < count) {
                const packet = window.judged + i;
                const length = window.jobOf(packet).length;
                const text = window.textOf(packet);
                while (@intFromPtr(text + length) - @intFromPtr(chain.cursor) >= poly1305.block_length) chain.absorb();
                window.close(packet, aead.closing(&chain.poly, chain.cursor, length));
            };
            window.judged += count;
            pair.begun = false;
        }

        inline fn textOf(window: *const Self, packet: usize) [*]const u8 {
            const job = window.jobOf(packet);
            return if (direction == .seal) job.destination else job.data;
        }

        inline fn packetOf(window: *const Self, packet: usize) poly1305_ifma.Packet {
            const job = window.jobOf(packet);
            return .{
                .key = &window.mac_keys[packet],
                .data = window.textOf(packet),
                .length = job.length,
            };
        }

        inline fn close(window: *Self, packet: usize, value: u128) void {
            const job = window.jobOf(packet);
            switch (direction) {
                .seal => aead.storeBlock(job.destination + job.length, value),
                .open => {
                    // All bits at once; only the verdict is branched on.
                    var authentic = value ^ aead.loadBlock(job.data + job.length) == 0;
                    // Public from here: whether a packet was accepted shows. For valgrind, and no code without it.
                    std.crypto.timing_safe.declassify(&authentic);
                    job.authentic = authentic;
                    if (!authentic) @memset(job.data[0..job.length], 0);
                },
            }
        }
    };
}

const tag_length = aead.tag_length;
const zeros: [block_length]u8 align(64) = @splat(0);

/// std.crypto.secureZero in whole vectors.
inline fn wipeBlocks(blocks: []align(block_length) [block_length]u8) void {
    for (blocks) |*block| {
        const vector: *volatile @Vector(block_length, u8) = @ptrCast(@alignCast(block));
        vector.* = @splat(0);
    }
}
