//! For scripts/fuzz and tests/crypto/test_fuzz.py; no install has it. Feeds one target with made-up cases and compares
//! what it does with an obvious implementation.
//!
//!   fuzz TARGET --seed N (--seconds S | --iterations COUNT | --iteration K) [--kernels NAME]
//!
//! Exit code 0: no mismatch. 1: a mismatch, a panic or a crash, described on standard output. 2: wrong arguments. 4:
//! this CPU does not run the kernels asked for.
//! Invariant: seed and number of an iteration decide everything in it, on every architecture, so --iteration repeats
//! any one of them alone.
const std = @import("std");
const linux = std.os.linux;
const report = @import("fuzz/report.zig");

/// A target is a file with `prepare`, which may refuse the kernels asked for, and `iterate`.
const targets = struct {
    pub const aead = @import("fuzz/aead.zig");
    pub const poly1305 = @import("fuzz/poly1305.zig");
};
const Target = std.meta.DeclEnum(targets);

const Options = struct {
    target: Target,
    seed: u64,
    first: u64 = 0,
    count: u64 = std.math.maxInt(u64),
    seconds: ?u64 = null,
    kernels: ?[]const u8 = null,
};

/// For the panic handler: which iteration runs.
var running: struct { seed: u64 = 0, iteration: u64 = 0 } = .{};

pub fn main(init: std.process.Init.Minimal) u8 {
    const options = readArguments(init.args) orelse {
        report.say("fuzz TARGET --seed N (--seconds S | --iterations COUNT | --iteration K) [--kernels NAME]", .{});
        inline for (comptime std.meta.declarations(targets)) |target| report.say("target: {s}", .{target});
        return 2;
    };
    catchCrashes();
    return switch (options.target) {
        inline else => |target| run(@field(targets, @tagName(target)), options),
    };
}

fn run(comptime target: type, options: Options) u8 {
    running.seed = options.seed;
    report.say("{t}: seed {d}", .{ options.target, options.seed });
    if (!target.prepare(options.kernels)) return 4;
    const start = now();
    var done: u64 = 0;
    while (done < options.count) : (done += 1) {
        if (options.seconds) |limit| if (now() - start >= limit * std.time.ns_per_s) break;
        running.iteration = options.first + done;
        var prng = generator(options.seed, running.iteration);
        target.iterate(prng.random()) catch {
            sayHowToReplay();
            return 1;
        };
    }
    const seconds = (now() - start) / std.time.ns_per_s;
    report.say("{t}: {d} iterations in {d} s, no mismatch", .{ options.target, done, seconds });
    return 0;
}

/// Iterations draw from streams that have nothing to do with one another.
fn generator(seed: u64, iteration: u64) std.Random.DefaultPrng {
    var mixer: std.Random.SplitMix64 = .init(seed);
    const first = mixer.next();
    mixer = .init(first ^ iteration);
    return .init(mixer.next());
}

fn readArguments(args: std.process.Args) ?Options {
    var arguments = args.iterate();
    _ = arguments.skip();
    var options: Options = .{
        .target = std.meta.stringToEnum(Target, arguments.next() orelse return null) orelse return null,
        .seed = undefined,
    };
    var has_seed = false;
    var has_end = false;
    while (arguments.next()) |name| {
        const value = arguments.next() orelse return null;
        if (std.mem.eql(u8, name, "--kernels")) {
            options.kernels = value;
            continue;
        }
        const number = std.fmt.parseInt(u64, value, 10) catch return null;
        if (std.mem.eql(u8, name, "--seed")) {
            options.seed = number;
            has_seed = true;
            continue;
        }
        has_end = true;
        if (std.mem.eql(u8, name, "--seconds")) {
            options.seconds = number;
        } else if (std.mem.eql(u8, name, "--iterations")) {
            options.count = number;
        } else if (std.mem.eql(u8, name, "--iteration")) {
            options.first = number;
            options.count = 1;
        } else return null;
    }
    return if (has_seed and has_end) options else null;
}

fn now() u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

// ---- ends without a verdict ---------------------------------------------------------------------------------------

fn sayHowToReplay() void {
    report.say("replay: --seed {d} --iteration {d}", .{ running.seed, running.iteration });
}

/// Reads and writes beyond a packet at the edge of its memory end here.
fn catchCrashes() void {
    const action: linux.Sigaction = .{
        .handler = .{ .handler = onSignal },
        .mask = linux.sigemptyset(),
        .flags = linux.SA.RESETHAND,
    };
    for ([_]linux.SIG{ .SEGV, .BUS, .ILL, .FPE }) |signal| _ = linux.sigaction(signal, &action, null);
}

fn onSignal(signal: linux.SIG) callconv(.c) void {
    report.say("crash: SIG{t}", .{signal});
    sayHowToReplay();
    linux.exit_group(1);
}

pub const std_options: std.Options = .{ .signal_stack_size = null, .enable_segfault_handler = false };
pub const panic = std.debug.FullPanic(onPanic);

fn onPanic(message: []const u8, _: ?usize) noreturn {
    report.say("panic: {s}", .{message});
    sayHowToReplay();
    linux.exit_group(1);
}
