//! The commands of pywgd beside serving: which there are, what their help says. Only the first word can be one; an
//! interface that is called like a command is served by `pywgd -- NAME`.
const std = @import("std");
const check_command = @import("check_command.zig");
const configure_command = @import("configure_command.zig");
const health_command = @import("health_command.zig");
const key_commands = @import("key_commands.zig");
const show_command = @import("show_command.zig");
const Output = @import("output.zig").Output;

pub const Iterator = std.process.Args.Iterator;

const Command = struct {
    name: []const u8,
    /// The words behind it.
    synopsis: []const u8 = "",
    help: []const u8,
    /// Answers the exit code; error.Usage: those words are not its.
    run: *const fn (*Iterator) error{Usage}!u8,
};

const all = [_]Command{
    .{
        .name = "show",
        .synopsis = "[NAME | all | interfaces] [dump]",
        .help = "what runs: interfaces of pywgd and other daemons; dump: a line of tabs for each, with keys",
        .run = show_command.run,
    },
    .{
        .name = "setconf",
        .synopsis = "[--no-hooks] NAME FILE",
        .help = "make NAME what FILE says, without any of the peers and sessions it has",
        .run = configure_command.setconf,
    },
    .{
        .name = "syncconf",
        .synopsis = "[--no-hooks] NAME FILE",
        .help = "the same, and peers that stay keep their sessions",
        .run = configure_command.syncconf,
    },
    .{
        .name = "check",
        .synopsis = "[--no-hooks] FILE",
        .help = "say what is wrong with FILE, else what it asks of a device; keys are hidden",
        .run = check_command.run,
    },
    .{
        .name = "healthcheck",
        .synopsis = "[--handshake SECONDS] NAME",
        .help = "exit with 0 when NAME answers, and a peer's last handshake is no older; else with 1",
        .run = health_command.run,
    },
    .{ .name = "genkey", .help = "print a new private key", .run = key_commands.genkey },
    .{ .name = "genpsk", .help = "print a new preshared key", .run = key_commands.genpsk },
    .{
        .name = "pubkey",
        .help = "read a private key from standard input, print its public key",
        .run = key_commands.pubkey,
    },
};

fn called(name: []const u8) ?*const Command {
    for (&all) |*command| if (std.mem.eql(u8, command.name, name)) return command;
    return null;
}

/// Null when the word is none of ours.
pub fn run(name: []const u8, rest: *Iterator) ?u8 {
    const command = called(name) orelse return null;
    return command.run(rest) catch {
        writeUsage(2, command);
        return 2;
    };
}

/// False when there is no such command.
pub fn help(name: []const u8) bool {
    writeUsage(1, called(name) orelse return false);
    return true;
}

fn writeUsage(fd: i32, command: *const Command) void {
    const gap: []const u8 = if (command.synopsis.len > 0) " " else "";
    var output: Output = undefined;
    output.begin(fd);
    output.put(&.{ "usage: pywgd ", command.name, gap, command.synopsis, "\n\n  ", command.help, "\n" });
    output.flush();
}

/// A part of the help of pywgd.
pub fn writeOverview(output: *Output) void {
    output.put(&.{"Commands:\n"});
    for (&all) |*command| {
        const gap: []const u8 = if (command.synopsis.len > 0) " " else "";
        output.put(&.{ "  ", command.name, gap, command.synopsis, "\n      ", command.help, "\n" });
    }
}
