//! Which compilation of the kernels runs on this CPU. The build names those it linked in `cipher_options.flavours`
//! (suffixes of kernels.zig); of these the best one the CPU and the system support is picked, or the one asked for.
//! Does not know what the kernels do. Invariant: a kernel is called only if the CPU has every instruction of its
//! level and the system saves its registers.
const std = @import("std");
const builtin = @import("builtin");
const aead = @import("aead.zig");
const flavours: []const []const u8 = @import("cipher_options").flavours;

/// The levels we know, worst first. Only the x86-64 psABI has several; v4ifma is its v4 with 52-bit multiply-add.
const Level = enum { baseline, v3, v4, v4ifma };

pub const SealBatch = fn (*const [32]u8, u64, [*]const aead.Seal, usize) callconv(.c) void;
pub const Sum = fn ([*]const u8, usize) callconv(.c) u64;
pub const CopySum = fn ([*]u8, [*]const u8, usize) callconv(.c) u64;
pub const OpenBatch = fn (*const [32]u8, [*]aead.Open, usize) callconv(.c) void;

pub const Kernel = struct {
    suffix: []const u8,
    level: Level,
    seal: *const SealBatch,
    open: *const OpenBatch,
    sum: *const Sum,
    copySum: *const CopySum,

    pub fn supported(kernel: *const Kernel) bool {
        return @backingInt(kernel.level) <= @backingInt(cpuLevel());
    }

    /// The name users see.
    pub fn path(kernel: *const Kernel) [:0]const u8 {
        return switch (kernel.level) {
            .baseline => switch (builtin.cpu.arch) {
                .x86_64 => "baseline",
                .aarch64, .aarch64_be => "neon",
                else => "portable",
            },
            .v3 => "x86-64-v3",
            .v4 => "x86-64-v4",
            .v4ifma => "x86-64-v4-ifma",
        };
    }
};

pub const kernels: [flavours.len]Kernel = blk: {
    var list: [flavours.len]Kernel = undefined;
    var has_baseline = false;
    for (&list, flavours) |*kernel, suffix| {
        const level = std.meta.stringToEnum(Level, suffix) orelse @compileError("unknown flavour " ++ suffix);
        if (level == .baseline) has_baseline = true;
        kernel.* = .{
            .suffix = suffix,
            .level = level,
            .seal = @extern(*const SealBatch, .{ .name = "pywg_seal_batch_" ++ suffix, .visibility = .hidden }),
            .open = @extern(*const OpenBatch, .{ .name = "pywg_open_batch_" ++ suffix, .visibility = .hidden }),
            .sum = @extern(*const Sum, .{ .name = "pywg_sum_" ++ suffix, .visibility = .hidden }),
            .copySum = @extern(*const CopySum, .{ .name = "pywg_copy_sum_" ++ suffix, .visibility = .hidden }),
        };
    }
    if (!has_baseline) @compileError("flavours must list baseline, which every CPU can run");
    break :blk list;
};

const undecided = 0xff;

/// Index into `kernels`. Racing first calls decide alike, so no order is needed.
var decision: std.atomic.Value(u8) = .init(undecided);

pub fn active() *const Kernel {
    const index = decision.load(.monotonic);
    if (index != undecided) return &kernels[index];
    return decide(null);
}

/// Picks the kernels called `name` (a suffix), or the best supported ones if there are none or the CPU lacks them.
pub fn decide(name: ?[]const u8) *const Kernel {
    @branchHint(.cold);
    const index = named(name) orelse best();
    decision.store(@intCast(index), .monotonic);
    return &kernels[index];
}

fn named(name: ?[]const u8) ?usize {
    const wanted = name orelse return null;
    for (&kernels, 0..) |*kernel, i| {
        if (std.mem.eql(u8, kernel.suffix, wanted) and kernel.supported()) return i;
    }
    return null;
}

fn best() usize {
    var found: ?usize = null;
    for (&kernels, 0..) |*kernel, i| {
        if (!kernel.supported()) continue;
        if (found == null or @backingInt(kernel.level) > @backingInt(kernels[found.?].level)) found = i;
    }
    return found.?;
}

/// The level of the running CPU as far as the system lets us use it.
fn cpuLevel() Level {
    if (builtin.cpu.arch != .x86_64) return .baseline;
    const leaf_max = cpuid(0, 0).eax;
    const extended_max = cpuid(0x8000_0000, 0).eax;
    if (leaf_max < 7 or extended_max < 0x8000_0001) return .baseline;
    const one = cpuid(1, 0);
    const seven = cpuid(7, 0);
    const extended = cpuid(0x8000_0001, 0);

    // v2: SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT. v3: FMA, MOVBE, OSXSAVE, AVX, F16C.
    const one_v3 = bits(.{ 0, 9, 13, 19, 20, 23, 12, 22, 27, 28, 29 });
    // BMI1, AVX2, BMI2.
    const seven_v3 = bits(.{ 3, 5, 8 });
    // LAHF, LZCNT.
    const extended_v3 = bits(.{ 0, 5 });
    if (one.ecx & one_v3 != one_v3) return .baseline;
    if (seven.ebx & seven_v3 != seven_v3) return .baseline;
    if (extended.ecx & extended_v3 != extended_v3) return .baseline;
    // OSXSAVE is set, so XGETBV exists: xmm and ymm saved by the system.
    const saved = xgetbv();
    const ymm = bits(.{ 1, 2 });
    if (saved & ymm != ymm) return .baseline;

    // F, DQ, CD, BW, VL; opmask and both halves of zmm saved.
    const seven_v4 = bits(.{ 16, 17, 28, 30, 31 });
    const zmm = bits(.{ 5, 6, 7 });
    if (seven.ebx & seven_v4 != seven_v4 or saved & zmm != zmm) return .v3;
    const ifma = bits(.{21});
    return if (seven.ebx & ifma == ifma) .v4ifma else .v4;
}

fn bits(comptime positions: anytype) u32 {
    comptime var mask: u32 = 0;
    inline for (positions) |position| mask |= 1 << position;
    return mask;
}

const Cpuid = struct { eax: u32, ebx: u32, ecx: u32, edx: u32 };

fn cpuid(leaf: u32, subleaf: u32) Cpuid {
    var eax: u32 = undefined;
    var ebx: u32 = undefined;
    var ecx: u32 = undefined;
    var edx: u32 = undefined;
    asm volatile ("cpuid"
        : [a] "={eax}" (eax),
          [b] "={ebx}" (ebx),
          [c] "={ecx}" (ecx),
          [d] "={edx}" (edx),
        : [leaf] "{eax}" (leaf),
          [subleaf] "{ecx}" (subleaf),
    );
    return .{ .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx };
}

/// The low half of XCR0.
fn xgetbv() u32 {
    return asm volatile ("xgetbv"
        : [low] "={eax}" (-> u32),
        : [register] "{ecx}" (@as(u32, 0)),
        : .{ .edx = true });
}

test "unknown and unsupported names fall back to the best supported kernels" {
    defer _ = decide(null);
    const fallback = decide(null);
    try std.testing.expect(fallback.supported());
    for ([_]?[]const u8{ null, "", "v9", "x86-64-v3", "BASELINE" }) |name| {
        try std.testing.expectEqual(fallback, decide(name));
    }
    for (&kernels) |*kernel| {
        const expected = if (kernel.supported()) kernel else fallback;
        try std.testing.expectEqual(expected, decide(kernel.suffix));
        try std.testing.expectEqual(expected, active());
    }
}
