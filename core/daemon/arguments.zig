//! The words behind `pywgd` that make it serve, and its environment, as values: a row of `table` for each option.
//! Touches nothing but what it says about a mistake.
const std = @import("std");
const cipher = @import("cipher");
const device = @import("device");
const io = @import("io");
const options = @import("build_options");
const words = @import("words.zig");
const complain = words.complain;
const shown = words.shown;

pub const Arguments = struct {
    name: []const u8 = "",
    is_foreground: bool = false,
    offload_disable: u32 = 0,
    threads: ?u8 = null,
    priority: Priority = .auto,
    memory_limit: u64 = 0,
    /// Null: where there is little memory.
    low_memory: ?bool = null,
    is_confined: bool = true,
    tun_fd: ?i32 = null,
    uapi_fd: ?i32 = null,
    log_level: device.LogLevel = .err,
    /// LOG_LEVEL was given: then the log outlives the terminal's foreground.
    keeps_log: bool = false,
};

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
        .names = &.{"--low-memory"},
        .help = &.{"small buffers and one thread (default: where there are less than 64 MiB)"},
        .read = readLowMemory,
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

pub const usage = usageOf(&table);

fn usageOf(comptime rows: []const Option) []const u8 {
    @setEvalBranchQuota(20_000);
    comptime var text: []const u8 =
        \\usage: pywgd [OPTION]... NAME
        \\
        \\Makes the WireGuard interface NAME and serves it; configure it with wg or pywg.
        \\
    ;
    inline for (rows) |row| {
        comptime var left: []const u8 = "  " ++ row.names[0];
        inline for (row.names[1..]) |name| left = left ++ ", " ++ name;
        if (row.value.len > 0) left = left ++ " " ++ row.value;
        inline for (row.help) |line| {
            text = text ++ left ++ blanks[left.len..] ++ line ++ "\n";
            left = "";
        }
    }
    const last = "  --help, --version";
    text = text ++ last ++ blanks[last.len..] ++ "print this, the version\n" ++
        \\Environment: WG_PROCESS_FOREGROUND=1, WG_TUN_FD, WG_UAPI_FD, PYWG_THREADS=N, PYWG_PRIORITY=KIND,
        \\  PYWG_MEMORY_LIMIT=MIB, PYWG_LOW_MEMORY=0|1, PYWG_NO_OFFLOAD=LIST, PYWG_NO_SANDBOX=1,
        \\  PYWG_CPU=baseline|v3|v4|v4ifma, LOG_LEVEL=verbose|debug|error|silent
        \\
    ;
    return text;
}

/// As wide as the column before the help of an option.
const blanks = "                        ";

fn readForeground(arguments: *Arguments, _: []const u8) Error!void {
    arguments.is_foreground = true;
}

fn readNoSandbox(arguments: *Arguments, _: []const u8) Error!void {
    arguments.is_confined = false;
}

fn readThreads(arguments: *Arguments, text: []const u8) Error!void {
    const count = std.fmt.parseInt(u8, text, 10) catch 0;
    if (count < 1 or count > device.threads_max) {
        complain("'{s}' is no number of threads: 1 to {d}", .{ shown(text), device.threads_max });
        return error.Invalid;
    }
    arguments.threads = count;
}

fn readPriority(arguments: *Arguments, text: []const u8) Error!void {
    arguments.priority = std.meta.stringToEnum(Priority, text) orelse {
        complain("'{s}' is no priority: auto, realtime or normal", .{shown(text)});
        return error.Invalid;
    };
}

fn readMemoryLimit(arguments: *Arguments, text: []const u8) Error!void {
    const count = std.fmt.parseInt(u20, text, 10) catch 0;
    if (count < 1) {
        complain("'{s}' is no memory limit: a number of MiB", .{shown(text)});
        return error.Invalid;
    }
    arguments.memory_limit = @as(u64, count) << 20;
}

fn readLowMemory(arguments: *Arguments, _: []const u8) Error!void {
    arguments.low_memory = true;
}

fn readOffloads(arguments: *Arguments, text: []const u8) Error!void {
    arguments.offload_disable |= io.offload.parseList(text) catch {
        const names = "tun_tso, tun_uso, tun_tunnel, udp_gso, udp_gro, all";
        complain("unknown offload in '{s}': the names are " ++ names, .{shown(text)});
        return error.Invalid;
    };
}

pub fn readEnvironment(arguments: *Arguments, environment: std.process.Environ) Error!void {
    if (environment.getPosix("WG_PROCESS_FOREGROUND")) |value| arguments.is_foreground = std.mem.eql(u8, value, "1");
    if (environment.getPosix("WG_TUN_FD")) |value| arguments.tun_fd = try descriptor("WG_TUN_FD", value);
    if (environment.getPosix("WG_UAPI_FD")) |value| arguments.uapi_fd = try descriptor("WG_UAPI_FD", value);
    if (environment.getPosix("PYWG_LOW_MEMORY")) |value| arguments.low_memory = std.mem.eql(u8, value, "1");
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
    const fd = std.fmt.parseInt(u31, text, 10) catch {
        complain("{s} must be the number of an open file descriptor", .{variable});
        return error.Invalid;
    };
    return fd;
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
            if (isOneOf(word, &.{ "-h", "--help" })) return print(usage);
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
                complain("{s} needs a value: {s}", .{ name, option.value });
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

fn print(text: []const u8) u8 {
    words.say(text);
    return 0;
}

fn misuse(why: []const u8) u8 {
    complain("{s}", .{why});
    words.write(2, usage);
    return 2;
}
