//! What the programs cipher.zig and rooms.zig have in common: arguments, iterations, what is said.
//!
//!   fuzz TARGET --seed N (--seconds S | --iterations COUNT | --iteration K | --file PATH)
//!        [--kernels NAME | --fault NAME]
//!
//! Exit code 0: no mismatch. 1: a mismatch, a panic or a crash, described on standard output. 2: wrong arguments. 4:
//! this CPU does not run the kernels asked for, or there is no such fault or replay.
//! Invariant: seed and number of an iteration decide everything in it, on every architecture, so --iteration repeats
//! any one of them alone.
const std = @import("std");
const linux = std.os.linux;
const report = @import("report");

/// For the panic handler: which iteration runs.
var running: struct { seed: u64 = 0, iteration: u64 = 0, file: ?[]const u8 = null } = .{};

const usage = "fuzz TARGET --seed N (--seconds S | --iterations COUNT | --iteration K | --file PATH) " ++
    "[--kernels NAME | --fault NAME]";

/// `targets` has a file for each: `prepare`, which may refuse the kernels or the fault asked for, `iterate`, and
/// perhaps `replay`, which takes a descriptor to read one input from.
pub fn Driver(comptime targets: type) type {
    return struct {
        const Target = std.meta.DeclEnum(targets);

        const Options = struct {
            target: Target,
            seed: u64,
            first: u64 = 0,
            count: u64 = std.math.maxInt(u64),
            seconds: ?u64 = null,
            file: ?[:0]const u8 = null,
            /// Kernels, or a fault that is planted.
            choice: ?[]const u8 = null,
        };

        pub fn main(init: std.process.Init.Minimal) u8 {
            const options = readArguments(init.args) orelse {
                report.say(usage, .{});
                inline for (comptime std.meta.declarations(targets)) |target| report.say("target: {s}", .{target});
                return 2;
            };
            end.catchCrashes();
            if (options.file) |path| return switch (options.target) {
                inline else => |target| replay(@field(targets, @tagName(target)), options, path),
            };
            return switch (options.target) {
                inline else => |target| run(@field(targets, @tagName(target)), options),
            };
        }

        fn run(comptime target: type, options: Options) u8 {
            running.seed = options.seed;
            report.say("{t}: seed {d}", .{ options.target, options.seed });
            if (!target.prepare(options.choice)) return 4;
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

        /// One input as it is, from tests/data/corpora/ or standard input.
        fn replay(comptime target: type, options: Options, path: [:0]const u8) u8 {
            running.file = path;
            if (!@hasDecl(target, "replay") or !target.prepare(options.choice)) return 4;
            const opened = linux.open(path, .{}, 0);
            if (linux.errno(opened) != .SUCCESS) return 2;
            target.replay(@intCast(opened)) catch {
                sayHowToReplay();
                return 1;
            };
            return 0;
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
                if (std.mem.eql(u8, name, "--kernels") or std.mem.eql(u8, name, "--fault")) {
                    options.choice = value;
                    continue;
                }
                if (std.mem.eql(u8, name, "--file")) {
                    options.file = value;
                    has_end = true;
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
    };
}

/// Iterations draw from streams that have nothing to do with one another.
fn generator(seed: u64, iteration: u64) std.Random.DefaultPrng {
    var mixer: std.Random.SplitMix64 = .init(seed);
    const first = mixer.next();
    mixer = .init(first ^ iteration);
    return .init(mixer.next());
}

fn now() u64 {
    var time: linux.timespec = undefined;
    _ = linux.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

// ---- ends without a verdict ---------------------------------------------------------------------------------------

fn sayHowToReplay() void {
    if (running.file) |path| return report.say("replay: --file {s}", .{path});
    report.say("replay: --seed {d} --iteration {d}", .{ running.seed, running.iteration });
}

const end = report.SuddenEnd(struct {
    fn tell(what: []const u8, why: []const u8) void {
        report.say("{s}: {s}", .{ what, why });
        sayHowToReplay();
    }
}.tell);
pub const panic = end.panic;
