//! Events: the world begins, and whatever is due next happens, one at a time.
const std = @import("std");
const faults = @import("faults.zig");
const phases = @import("phases.zig");
const traffic = @import("traffic.zig");
const world_file = @import("world.zig");
const World = world_file.World;
const Error = world_file.Error;

const second = std.time.ns_per_s;
const ms = std.time.ns_per_ms;

/// Hosts start, and what goes on for ever is scheduled.
pub fn begin(world: *World) Error!void {
    const r = world.random();
    for (world.hosts) |*host| try host.start();
    for (world.hosts) |*host| for (host.neighbours.items, 0..) |_, k| {
        try world.schedule(
            r.uintLessThan(u64, world.base_interval_ns),
            .{ .talk = .{ .host = host.number, .place = @intCast(k) } },
        );
    };
    for (world.hosts) |*host| try traffic.settle(world, host);
    try world.schedule(0, .phase);
    try world.schedule(second, .check);
    try world.schedule(second, .attack);
    try world.schedule(second, .fault);
}

pub fn run(world: *World, duration: u64) Error!void {
    while (world.events.peek()) |next| {
        if (next.at > duration) break;
        const event = world.events.pop().?;
        world.time = event.at;
        world.ledger.time = event.at;
        world.stats.events += 1;
        try handle(world, event);
    }
}

fn handle(world: *World, event: world_file.Event) Error!void {
    switch (event.what) {
        .arrival => |datagram| try traffic.arrive(world, datagram),
        .turn => |number| try traffic.turn(world, &world.hosts[number]),
        .wake => |number| try traffic.wake(world, &world.hosts[number], event.at),
        .talk => |flow| try traffic.talk(world, flow.host, flow.place),
        .fault => {
            try faults.strike(world);
            try world.schedule(faults.pause(world), .fault);
        },
        .undo => |undo| try faults.undo(world, undo),
        .train => |train| try traffic.release(world, train),
        .batch => |batch| try traffic.finishLate(world, batch),
        .attack => {
            try traffic.attack(world);
            try world.schedule(world.random().intRangeAtMost(u64, 20, 1000) * ms, .attack);
        },
        .check => {
            try phases.check(world);
            try world.schedule(second, .check);
        },
        .phase => try phases.next(world),
    }
}
