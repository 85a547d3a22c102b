//! The simulation of sim/, whose chance comes from the byte string first: what happens, when, and to whom.
const std = @import("std");
const report = @import("report");
const events = @import("../sim/events.zig");
const World = @import("../sim/world.zig").World;

/// Of virtual time: a storm, and mostly the calm after it.
const seconds = 300;

/// For all that one run holds. A run that needs more has no verdict.
var memory: [256 << 20]u8 = undefined;
var world: World = undefined;

pub fn prepare(fault: ?[]const u8) bool {
    return fault == null;
}

pub fn judge(bytes: []const u8) report.Error!void {
    var fixed: std.heap.FixedBufferAllocator = .init(&memory);
    run(fixed.allocator(), bytes) catch |err| switch (err) {
        error.Violation => return error.Mismatch,
        error.OutOfMemory => {},
    };
}

fn run(gpa: std.mem.Allocator, bytes: []const u8) !void {
    try world.init(gpa, .{ .seed = 1, .chance = bytes });
    try events.begin(&world);
    try events.run(&world, seconds * std.time.ns_per_s);
}
