//! The words behind `pywgd` that make it serve, and its environment, as values: a row of `table` for each option.
//! Touches nothing but what it says about a mistake.
const std = @import("std");
const cipher = @import("cipher");
const config = @import("config");
const device = @import("device");
const io = @import("io");
const options = @import("build_options");
const wire = @import("wire");
const commands = @import("commands.zig");
const Output = @import("output.zig").Output;
const words = @import("words.zig");
const shown = words.shown;

pub const Arguments = struct {
    name: []const u8 = "",
    is_foreground: bool = false,
    /// The file that says what the interface is to be.
    config_path: ?[]const u8 = null,
    leaves_hooks: bool = false,
    address_count: usize = 0,
    mtu: ?u32 = null,
    is_up: bool = false,
    makes_routes: bool = false,
    offload_disable: u32 = 0,
    threads: ?u8 = null,
    priority: Priority = .auto,
    memory_limit: u64 = 0,
    is_confined: bool = true,
    tun_fd: ?i32 = null,
    uapi_fd: ?i32 = null,
    log_level: device.LogLevel = .err,
    /// LOG_LEVEL was given: then the log outlives the terminal's foreground.
    keeps_log: bool = false,

    pub fn addresses(arguments: *const Arguments) []const wire.Prefix {
        return address_room[0..arguments.address_count];
    }
};

/// There is one command line.
var address_room: [addresses_max]wire.Prefix = undefined;

pub const addresses_max = config.parser.addresses_max;

pub const Priority = enum { auto, realtime, normal };

const Error = error{Invalid};

/// One option. Its value follows as the next word or behind `=`; where `value` is empty it has none.
const Option = struct {
    names: []const []const u8,
    value: []const u8 = "",
    /// Lines of at most 80 columns for the help.
    help: []const []const u8,
    read: *const fn (*Arguments, []const u8) Error!void,
    /// A variable of the environment that says the same, unless it is said here.
    variable: []const u8 = "",
};

const table = [_]Option{
    .{
        .names = &.{ "-f", "--foreground" },
        .help = &.{"stay in the foreground, log to stderr"},
        .read = readForeground,
    },
    .{
        .names = &.{"--config"},
        .value = "FILE",
        .help = &.{
            "read keys, peers, Address and MTU from FILE, of wg or wg-quick; the interface is up",
            "before pywgd goes to the background",
        },
        .read = readConfig,
    },
    .{
        .names = &.{"--no-hooks"},
        .help = &.{"leave the commands of FILE (PreUp, PostUp) to whoever starts pywgd"},
        .read = readNoHooks,
    },
    .{
        .names = &.{"--address"},
        .value = "A/P",
        .help = &.{"give it this address, and bring it up; may be repeated; instead of those in FILE"},
        .read = readAddress,
    },
    .{
        .names = &.{"--mtu"},
        .value = "N",
        .help = &.{"its MTU (default: that in FILE, else 1420)"},
        .read = readMtu,
    },
    .{
        .names = &.{"--routes"},
        .help = &.{"route AllowedIPs of FILE through it, in the table that FILE says"},
        .read = readRoutes,
    },
    .{
        .names = &.{"--up"},
        .help = &.{"bring it up, as --config and --address do"},
        .read = readUp,
    },
    .{
        .names = &.{"--threads"},
        .value = "N",
        .help = &.{"use up to N cores (default: half of those there are, 1 to 4)"},
        .read = readThreads,
        .variable = "PYWG_THREADS",
    },
    .{
        .names = &.{"--priority"},
        .value = "KIND",
        .help = &.{
            "realtime: before ordinary programs; normal: as one of them; auto (the",
            "default): realtime where it is allowed and the threads leave a core to the",
            "others",
        },
        .read = readPriority,
        .variable = "PYWG_PRIORITY",
    },
    .{
        .names = &.{"--memory-limit"},
        .value = "MIB",
        .help = &.{"what buffers and peers may take together (default: no limit)"},
        .read = readMemoryLimit,
        .variable = "PYWG_MEMORY_LIMIT",
    },
    .{
        .names = &.{"--no-offload"},
        .value = "LIST",
        .help = &.{"do without these: tun_tso,tun_uso,tun_tunnel,udp_gso,udp_gro or all"},
        .read = readOffloads,
        .variable = "PYWG_NO_OFFLOAD",
    },
    .{
        .names = &.{"--no-sandbox"},
        .help = &.{"keep every capability and system call (for debugging)"},
        .read = readNoSandbox,
    },
};

/// On stdout or stderr.
pub fn writeUsage(fd: i32) void {
    var output: Output = undefined;
    output.begin(fd);
    defer output.flush();
    output.put(&.{
        \\usage: pywgd [OPTION]... NAME
        \\       pywgd COMMAND ...
        \\
        \\Makes the WireGuard interface NAME and serves it until it is removed or pywgd is stopped. What it is to be
        \\is said by --config, later by wg, pywg, or pywgd setconf.
        \\
    });
    for (&table) |*row| {
        const start = output.length;
        output.put(&.{ "  ", row.names[0] });
        for (row.names[1..]) |name| output.put(&.{ ", ", name });
        output.put(&.{ " ", row.value });
        var left = output.length - start;
        for (row.help) |line| {
            output.put(&.{ blanks[@min(left, blanks.len)..], line, "\n" });
            left = 0;
        }
    }
    output.put(&.{"  --help, --version     print this, or that of a COMMAND; the version\n"});
    commands.writeOverview(&output);
    output.put(&.{
        \\Environment: WG_PROCESS_FOREGROUND=1, WG_TUN_FD, WG_UAPI_FD, PYWG_THREADS=N, PYWG_PRIORITY=KIND,
        \\  PYWG_MEMORY_LIMIT=MIB, PYWG_NO_OFFLOAD=LIST, PYWG_NO_SANDBOX=1, PYWG_CPU=baseline|v3|v4|v4ifma,
        \\  LOG_LEVEL=verbose|debug|error|silent
        \\
    });
}

/// As wide as the column before the help of an option.
const blanks = "                        ";

/// `'WORD' is no ...`
fn invalid(text: []const u8, why: []const u8) Error {
    words.tell(&.{ "'", shown(text), "' is ", why });
    return error.Invalid;
}

fn number(text: []const u8, least: u32, most: u32, why: []const u8) Error!u32 {
    const value = config.values.decimalOf(text) orelse return invalid(text, why);
    return if (value >= least and value <= most) @intCast(value) else invalid(text, why);
}

fn readForeground(arguments: *Arguments, _: []const u8) Error!void {
    arguments.is_foreground = true;
}

fn readConfig(arguments: *Arguments, text: []const u8) Error!void {
    arguments.config_path = text;
    arguments.is_up = true;
}

fn readNoHooks(arguments: *Arguments, _: []const u8) Error!void {
    arguments.leaves_hooks = true;
}

fn readAddress(arguments: *Arguments, text: []const u8) Error!void {
    const prefix = config.values.prefix(text) orelse {
        return invalid(text, "no address of an interface: ADDRESS/LENGTH");
    };
    if (arguments.address_count == addresses_max) {
        return invalid(text, "one address more than there can be");
    }
    address_room[arguments.address_count] = prefix;
    arguments.address_count += 1;
    arguments.is_up = true;
}

fn readMtu(arguments: *Arguments, text: []const u8) Error!void {
    const why = std.fmt.comptimePrint("no MTU: {d} to {d}", .{ device.mtu_min, device.mtu_max });
    arguments.mtu = try number(text, device.mtu_min, device.mtu_max, why);
}

fn readRoutes(arguments: *Arguments, _: []const u8) Error!void {
    arguments.makes_routes = true;
}

fn readUp(arguments: *Arguments, _: []const u8) Error!void {
    arguments.is_up = true;
}

fn readNoSandbox(arguments: *Arguments, _: []const u8) Error!void {
    arguments.is_confined = false;
}

fn readThreads(arguments: *Arguments, text: []const u8) Error!void {
    const why = std.fmt.comptimePrint("no number of threads: 1 to {d}", .{device.threads_max});
    arguments.threads = @intCast(try number(text, 1, device.threads_max, why));
}

fn readPriority(arguments: *Arguments, text: []const u8) Error!void {
    arguments.priority = std.meta.stringToEnum(Priority, text) orelse
        return invalid(text, "no priority: auto, realtime or normal");
}

fn readMemoryLimit(arguments: *Arguments, text: []const u8) Error!void {
    const count = try number(text, 1, 1 << 20, "no memory limit: a number of MiB");
    arguments.memory_limit = @as(u64, count) << 20;
}

fn readOffloads(arguments: *Arguments, text: []const u8) Error!void {
    arguments.offload_disable |= io.offload.parseList(text) catch {
        const names = "tun_tso, tun_uso, tun_tunnel, udp_gso, udp_gro, all";
        words.tell(&.{ "unknown offload in '", shown(text), "': the names are " ++ names });
        return error.Invalid;
    };
}

pub fn readEnvironment(arguments: *Arguments, environment: std.process.Environ) Error!void {
    if (environment.getPosix("WG_PROCESS_FOREGROUND")) |value| arguments.is_foreground = std.mem.eql(u8, value, "1");
    if (environment.getPosix("WG_TUN_FD")) |value| arguments.tun_fd = try descriptor("WG_TUN_FD", value);
    if (environment.getPosix("WG_UAPI_FD")) |value| arguments.uapi_fd = try descriptor("WG_UAPI_FD", value);
    if (environment.getPosix("PYWG_NO_SANDBOX")) |value| arguments.is_confined = !std.mem.eql(u8, value, "1");
    for (&table) |*option| {
        if (option.variable.len == 0) continue;
        if (environment.getPosix(option.variable)) |value| try option.read(arguments, value);
    }
    cipher.select(environment.getPosix("PYWG_CPU"));
    if (environment.getPosix("LOG_LEVEL")) |value| {
        arguments.keeps_log = true;
        if (std.mem.eql(u8, value, "verbose") or std.mem.eql(u8, value, "debug")) {
            arguments.log_level = .verbose;
        } else if (std.mem.eql(u8, value, "silent")) {
            arguments.log_level = .silent;
        }
    }
}

fn descriptor(variable: []const u8, text: []const u8) Error!i32 {
    const fd = config.values.decimalOf(text) orelse std.math.maxInt(u64);
    if (fd <= std.math.maxInt(i32)) return @intCast(fd);
    words.tell(&.{ variable, " must be the number of an open file descriptor" });
    return error.Invalid;
}

/// An exit code when there is nothing to run.
pub fn readArguments(arguments: *Arguments, iterator: *std.process.Args.Iterator) ?u8 {
    var has_name = false;
    var is_name = false; // whatever it looks like: "--" stands before it
    while (iterator.next()) |word| {
        if (!is_name and word.len > 1 and word[0] == '-') {
            if (std.mem.eql(u8, word, "--")) {
                is_name = true;
                continue;
            }
            if (isOneOf(word, &.{"--version"})) return print("pywgd " ++ options.version ++ "\n");
            if (isOneOf(word, &.{ "-h", "--help" })) return help(iterator.next());
            if (readOption(arguments, word, iterator)) |exit_code| return exit_code;
        } else {
            if (has_name) return misuse("one interface name, please");
            arguments.name = word;
            has_name = true;
        }
    }
    return if (has_name) null else misuse("which interface?");
}

fn readOption(arguments: *Arguments, word: []const u8, iterator: *std.process.Args.Iterator) ?u8 {
    const equals = std.mem.findScalar(u8, word, '=');
    const name = word[0 .. equals orelse word.len];
    for (&table) |*option| {
        if (!isOneOf(name, option.names)) continue;
        const has_value = option.value.len > 0;
        if (!has_value and equals != null) return misuse("that option has no value");
        const value = if (!has_value)
            ""
        else if (equals) |at|
            word[at + 1 ..]
        else
            iterator.next() orelse {
                words.tell(&.{ name, " needs a value: ", option.value });
                return 2;
            };
        option.read(arguments, value) catch return 2;
        return null;
    }
    return misuse("unknown option");
}

fn isOneOf(word: []const u8, names: []const []const u8) bool {
    for (names) |name| if (std.mem.eql(u8, word, name)) return true;
    return false;
}

fn help(command: ?[]const u8) u8 {
    if (command) |name| if (commands.help(name)) return 0;
    writeUsage(1);
    return 0;
}

fn print(text: []const u8) u8 {
    words.say(text);
    return 0;
}

fn misuse(why: []const u8) u8 {
    words.tell(&.{why});
    writeUsage(2);
    return 2;
}
