//! For scripts/sim and tests/sim; no install has it. Runs the real protocol on many hosts in virtual time, with
//! everything going wrong that can, and says so when a promise is broken.
//!
//!   sim --seed N [--hours H | --seconds S] [--peers N] [--silent N] [--runs N] [--mutation NAME]
//!       [--from SECOND]
//!
//! Run K has the seed N + K - 1. From SECOND on, all that happens is told. Exit code 0: every promise was kept. 1: one
//! was broken, or a panic or a crash. 2: wrong arguments. 4: there is no such mutation in this program.
//! Invariant: seed and options decide everything, which the hash of the trace shows.
const std = @import("std");
const linux = std.os.linux;
const events = @import("events.zig");
const mutation = @import("mutation");
const report = @import("report");
const world_file = @import("world.zig");
const World = world_file.World;

const Options = struct {
    seed: u64 = 1,
    seconds: u64 = 3600,
    peers: ?u32 = null,
    silent: u32 = 0,
    runs: u64 = 1,
    told_from: u64 = std.math.maxInt(u64),
};

/// One thread is all there is.
const allocator: std.mem.Allocator = .{ .ptr = undefined, .vtable = &std.heap.BrkAllocator.vtable };

/// For the panic handler: what runs.
var running: struct { seed: u64 = 0, world: ?*World = null } = .{};
var world: World = undefined;

pub fn main(init: std.process.Init.Minimal) u8 {
    const options = readArguments(init.args) catch |err| return switch (err) {
        error.NoMutation => 4,
        error.Usage => {
            report.say(
                "sim --seed N [--hours H | --seconds S] [--peers N] [--silent N] [--runs N] [--mutation NAME] " ++
                    "[--from SECOND]",
                .{},
            );
            return 2;
        },
    };
    end.catchCrashes();
    const start = cpuTime();
    var total: world_file.Stats = .{};
    var deliveries: u64 = 0;
    for (0..options.runs) |i| {
        const seed = options.seed +% i;
        running = .{ .seed = seed, .world = &world };
        if (!runOne(seed, options)) return 1;
        inline for (comptime std.meta.fieldNames(world_file.Stats)) |name| {
            @field(total, name) += @field(world.stats, name);
        }
        deliveries += world.ledger.deliveries;
        report.say("seed {d}: {d} hosts, {d} s, {d} datagrams, {d} handshakes, " ++
            "{d} of {d} packets, {d} faults, trace {x:0>16}", .{
            seed,                   world.hosts.len,         options.seconds,     world.stats.datagrams,
            world.stats.handshakes, world.ledger.deliveries, world.stats.packets, world.stats.faults,
            world.trace,
        });
        world.deinit();
        running.world = null;
    }
    const used = (cpuTime() - start) / std.time.ns_per_ms;
    report.say("{d} runs of {d} s, {d} events, {d} datagrams, {d} handshakes, {d} of {d} packets, {d} faults: " ++
        "every promise kept, in {d} ms of CPU", .{
        options.runs, options.seconds, total.events, total.datagrams, total.handshakes,
        deliveries,   total.packets,   total.faults, used,
    });
    return 0;
}

fn runOne(seed: u64, options: Options) bool {
    const given: world_file.Options = .{
        .seed = seed,
        .peers = options.peers,
        .silent = options.silent,
        .told_from = options.told_from,
    };
    world.init(allocator, given) catch |err| return failed(err);
    events.begin(&world) catch |err| return failed(err);
    events.run(&world, options.seconds * std.time.ns_per_s) catch |err| return failed(err);
    return true;
}

fn failed(err: anyerror) bool {
    if (err != error.Violation) report.say("error: {t}", .{err});
    sayHowToReplay();
    return false;
}

fn readArguments(args: std.process.Args) error{ Usage, NoMutation }!Options {
    var arguments = args.iterate();
    _ = arguments.skip();
    var options: Options = .{};
    while (arguments.next()) |name| {
        const value = arguments.next() orelse return error.Usage;
        if (std.mem.eql(u8, name, "--mutation")) {
            if (!mutation.select(value)) return error.NoMutation;
            continue;
        }
        if (std.mem.eql(u8, name, "--hours")) {
            const hours = std.fmt.parseFloat(f64, value) catch return error.Usage;
            if (!(hours > 0 and hours < 1e6)) return error.Usage;
            options.seconds = @intFromFloat(hours * 3600);
            continue;
        }
        const number = std.fmt.parseInt(u64, value, 10) catch return error.Usage;
        if (std.mem.eql(u8, name, "--seed")) {
            options.seed = number;
        } else if (std.mem.eql(u8, name, "--seconds")) {
            options.seconds = number;
        } else if (std.mem.eql(u8, name, "--from")) {
            options.told_from = number *| std.time.ns_per_s;
        } else if (std.mem.eql(u8, name, "--runs")) {
            options.runs = number;
        } else if (std.mem.eql(u8, name, "--peers")) {
            if (number < 2 or number > 1000) return error.Usage;
            options.peers = @intCast(number);
        } else if (std.mem.eql(u8, name, "--silent")) {
            if (number > 100_000) return error.Usage;
            options.silent = @intCast(number);
        } else return error.Usage;
    }
    return options;
}

fn cpuTime() u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(.PROCESS_CPUTIME_ID, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

// ---- ends without a verdict ---------------------------------------------------------------------------------------

fn sayHowToReplay() void {
    if (running.world) |current| report.say("trace {x:0>16}", .{current.trace});
    report.say("replay: --seed {d}", .{running.seed});
}

fn saySuddenEnd(what: []const u8, why: []const u8) void {
    const time = if (running.world) |current| current.time else 0;
    report.say("violation: after {d}.{d:0>3} s: {s}: {s}", .{
        time / std.time.ns_per_s, time / std.time.ns_per_ms % 1000, what, why,
    });
    sayHowToReplay();
}

const end = report.SuddenEnd(saySuddenEnd);
pub const std_options = report.std_options;
pub const panic = end.panic;

test {
    _ = @import("ledger.zig");
    _ = @import("network.zig");
    _ = @import("packet.zig");
}
