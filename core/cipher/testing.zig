//! What tests outside of the room may see of it: the door and Poly1305 by itself, for core/check/fuzz/ as Zig, and as
//! the root of a shared library with C's calling convention for checks against another implementation (tests/crypto/).
//! No install has it. The structs are aead.zig's; nothing is decided here.
const std = @import("std");
const dispatch = @import("dispatch.zig");

pub const cipher = @import("cipher.zig");
pub const poly1305 = @import("poly1305.zig");
pub const poly1305_ifma = @import("poly1305_ifma.zig");

/// Suffixes of the kernels that are built, and whether this CPU runs each.
pub const kernels = &dispatch.kernels;

/// False when these kernels are not built or this CPU lacks them; then others were picked.
pub fn select(wanted: []const u8) bool {
    cipher.select(wanted);
    return std.mem.eql(u8, dispatch.active().suffix, wanted);
}

/// One message's way through a form of Poly1305. The only place outside of the room that names the form's functions.
pub fn Stream(comptime Form: type) type {
    return struct {
        const Self = @This();

        key: Form.Key,
        poly: Form,

        /// In place: a form may point at its key.
        pub fn init(stream: *Self, key: *const [poly1305.key_length]u8) void {
            stream.key = .init(key);
            stream.poly = .init(&stream.key);
        }

        pub fn absorb(stream: *Self, block: *const [poly1305.block_length]u8) void {
            stream.poly.absorb(block);
        }

        /// A block of each of two messages, as kernels take those that go in step.
        pub fn absorbBoth(
            a: *Self,
            b: *Self,
            block_a: *const [poly1305.block_length]u8,
            block_b: *const [poly1305.block_length]u8,
        ) void {
            a.poly.absorb(block_a);
            b.poly.absorb(block_b);
        }

        pub fn finish(stream: *Self) u128 {
            return stream.poly.finish();
        }
    };
}

export fn pywg_test_select(name: [*:0]const u8) bool {
    return select(std.mem.span(name));
}

export fn pywg_test_path() [*:0]const u8 {
    return cipher.path();
}

export fn pywg_test_seal_batch(
    key: *const [cipher.key_length]u8,
    counter_first: u64,
    jobs: [*]const cipher.Seal,
    count: usize,
) void {
    cipher.sealBatch(key, counter_first, jobs[0..count]);
}

export fn pywg_test_open_batch(key: *const [cipher.key_length]u8, jobs: [*]cipher.Open, count: usize) void {
    cipher.openBatch(key, jobs[0..count]);
}

/// The tag of `count` whole blocks, by the form with 26-bit or 64-bit limbs.
export fn pywg_test_poly1305(
    limb_bits: u32,
    key: *const [poly1305.key_length]u8,
    blocks: [*]const [poly1305.block_length]u8,
    count: usize,
    tag: *[16]u8,
) void {
    const sum = switch (limb_bits) {
        26 => authenticate(poly1305.Limbs26, key, blocks[0..count]),
        64 => authenticate(poly1305.Limbs64, key, blocks[0..count]),
        else => unreachable,
    };
    std.mem.writeInt(u128, tag, sum, .little);
}

fn authenticate(
    comptime Form: type,
    key: *const [poly1305.key_length]u8,
    blocks: []const [poly1305.block_length]u8,
) u128 {
    var stream: Stream(Form) = undefined;
    stream.init(key);
    for (blocks) |*block| stream.absorb(block);
    return stream.finish();
}

// As every library of ours: no handlers, no thread-local signal stack.
pub const std_options: std.Options = .{ .signal_stack_size = null, .enable_segfault_handler = false };
pub const panic = std.debug.simple_panic;
