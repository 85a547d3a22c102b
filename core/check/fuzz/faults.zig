//! Stands in for cipher/testing.zig to show that the targets of the AEAD find faults: the AEAD with one fault each,
//! chosen as kernels are, and a Poly1305 with one. Each fault is a thing that real implementations have got wrong.
//! Invariant: whatever a fault does not touch is what the room itself does.
const std = @import("std");
const mem = std.mem;
const whole = @import("whole");
const tag_length = whole.cipher.tag_length;

pub const Fault = enum {
    none,
    /// One bit of the tag, at one length.
    tag_bit,
    /// The last byte of packets beyond the first window.
    late_packet,
    /// The carry from the counter's low word to its high one.
    counter_carry,
    /// The last reduction of Poly1305: off by five for four values of 2^130.
    reduction,
    /// A byte is written behind the tag.
    overrun,
    /// The plaintext is written to.
    source,
    /// A byte is read behind, or before, the packet.
    overread,
    underread,
    /// An empty forgery is accepted.
    accepted,
    /// A tag is compared but for its last byte.
    short_comparison,
    /// The verdict of an earlier batch is kept.
    stale,
    /// A byte of a refused packet is left.
    remainder,
    /// The packet after a refused one is refused.
    neighbour,
    panic,
};

var current: Fault = .none;

const Kernel = struct { suffix: []const u8 };

pub const kernels = blk: {
    const faults = std.enums.values(Fault);
    var list: [faults.len]Kernel = undefined;
    for (&list, faults) |*kernel, fault| kernel.* = .{ .suffix = @tagName(fault) };
    const done = list;
    break :blk &done;
};

pub fn select(wanted: []const u8) bool {
    current = std.meta.stringToEnum(Fault, wanted) orelse return false;
    return true;
}

pub const cipher = struct {
    pub const key_length = whole.cipher.key_length;
    pub const tag_length = whole.cipher.tag_length;
    pub const Seal = whole.cipher.Seal;
    pub const Open = whole.cipher.Open;

    pub fn path() [:0]const u8 {
        return "faulty";
    }

    pub fn sealBatch(key: *const [key_length]u8, counter_first: u64, jobs: []const Seal) void {
        whole.cipher.sealBatch(key, counter_first, jobs);
        for (jobs, 0..) |job, i| breakSealed(key, counter_first, i, job);
    }

    pub fn openBatch(key: *const [key_length]u8, jobs: []Open) void {
        var was_refused = false;
        for (jobs) |*job| {
            const before = job.authentic;
            const last: ?u8 = if (job.length > 0) job.data[job.length - 1] else null;
            whole.cipher.openBatch(key, job[0..1]);
            const is_authentic = job.authentic;
            breakOpened(key, job, before, last, was_refused);
            was_refused = !is_authentic;
        }
    }
};

fn breakSealed(key: *const [32]u8, counter_first: u64, index: usize, job: cipher.Seal) void {
    const tag = job.destination[job.length..][0..tag_length];
    const is_apart = job.source != @as([*]const u8, job.destination);
    const counter = counter_first + index;
    switch (current) {
        .tag_bit => if (job.length == 65) {
            tag[7] ^= 0x10;
        },
        .late_packet => if (index >= 64 and job.length > 0) {
            job.destination[job.length - 1] ^= 1;
        },
        .counter_carry => if (counter >> 32 != counter_first >> 32) {
            tag[0] ^= 1;
        },
        .reduction => {
            var one_time: [32]u8 = @splat(0);
            var nonce: [12]u8 = @splat(0);
            mem.writeInt(u64, nonce[4..12], counter, .little);
            std.crypto.stream.chacha.ChaCha20IETF.xor(&one_time, &one_time, 0, key.*, nonce);
            const s = mem.readInt(u128, one_time[16..32], .little);
            mem.writeInt(u128, tag, unreduced(mem.readInt(u128, tag, .little), s), .little);
        },
        .overrun => if (job.length == 16) {
            job.destination[job.length + tag_length] +%= 1;
        },
        .source => if (is_apart and job.length > 1024) {
            @constCast(job.source)[1024] ^= 1;
        },
        .overread => touch(&job.destination[job.length + tag_length]),
        .underread => touch(&(job.destination - 1)[0]),
        .panic => if (job.length == 64) @panic("on purpose"),
        // Of opening:
        .none, .accepted, .short_comparison, .stale, .remainder, .neighbour => {},
    }
}

fn breakOpened(key: *const [32]u8, job: *cipher.Open, before: bool, last: ?u8, was_refused: bool) void {
    if (job.authentic) {
        if (current == .neighbour and was_refused) {
            @memset(job.data[0..job.length], 0);
            job.authentic = false;
        }
        return;
    }
    switch (current) {
        .accepted => job.authentic = job.length == 0,
        .stale => job.authentic = before,
        .remainder => if (last) |byte| {
            job.data[job.length - 1] = byte;
        },
        // What an empty packet's tag should be is easily had.
        .short_comparison => if (job.length == 0) {
            var tag: [tag_length]u8 = undefined;
            whole.cipher.sealBatch(key, job.counter, &.{.{ .source = &tag, .destination = &tag, .length = 0 }});
            job.authentic = mem.eql(u8, tag[0 .. tag_length - 1], job.data[0 .. tag_length - 1]);
        },
        .neighbour => {}, // above
        // Of sealing:
        .none, .tag_bit, .late_packet, .counter_carry, .reduction => {},
        .overrun, .source, .overread, .underread, .panic => {},
    }
}

/// The tag if the accumulator had been left above 2^130 - 5.
fn unreduced(tag: u128, s: u128) u128 {
    return switch (tag -% s) {
        1...4 => tag -% 5,
        else => tag,
    };
}

fn touch(byte: *const volatile u8) void {
    _ = byte.*;
}

// ---- Poly1305 -----------------------------------------------------------------------------------------------------

pub const poly1305_ifma = whole.poly1305_ifma;

pub const poly1305 = struct {
    pub const Limbs64 = whole.poly1305.Limbs64;
    /// The one with the fault.
    pub const Limbs26 = struct {};
};

pub fn Stream(comptime Form: type) type {
    if (Form != poly1305.Limbs26) return whole.Stream(Form);
    return struct {
        const Self = @This();

        inner: whole.Stream(whole.poly1305.Limbs26),
        s: u128,

        pub fn init(stream: *Self, key: *const [32]u8) void {
            stream.inner.init(key);
            stream.s = mem.readInt(u128, key[16..32], .little);
        }

        pub fn absorb(stream: *Self, block: *const [16]u8) void {
            stream.inner.absorb(block);
        }

        pub fn absorbBoth(a: *Self, b: *Self, block_a: *const [16]u8, block_b: *const [16]u8) void {
            a.inner.absorbBoth(&b.inner, block_a, block_b);
        }

        pub fn finish(stream: *Self) u128 {
            return unreduced(stream.inner.finish(), stream.s);
        }
    };
}
