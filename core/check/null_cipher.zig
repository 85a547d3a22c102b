//! The cipher room's door with nothing behind it: packets are copied, tags are zero, everything is authentic. For
//! scripts/bench only, which puts it in the place of core/cipher/ to learn what the datapath could carry at best. It
//! is not an option of any build: no install can have it.
const aead = @import("aead");
const checksum = @import("wire").checksum;

pub const Seal = aead.Seal;
pub const Open = aead.Open;
pub const tag_length = aead.tag_length;
pub const length_max = aead.length_max;
pub const key_length = 32;

pub fn select(name: ?[]const u8) void {
    _ = name;
}

pub fn path() [:0]const u8 {
    return "none: NOTHING IS ENCRYPTED";
}

pub fn checksumLoops() struct { *const checksum.Loops.SumFn, *const checksum.Loops.CopySumFn } {
    return .{ checksum.sumLoop, checksum.copySumLoop };
}

pub fn sealBatch(key: *const [key_length]u8, counter_first: u64, jobs: []const Seal) void {
    _ = key;
    _ = counter_first;
    for (jobs) |job| {
        if (job.source != job.destination) @memcpy(job.destination[0..job.length], job.source);
        @memset(job.destination[job.length..][0..tag_length], 0);
    }
}

pub fn openBatch(key: *const [key_length]u8, jobs: []Open) void {
    _ = key;
    for (jobs) |*job| job.authentic = true;
}

pub fn scrubStack() void {}
