//! check: what is wrong with a file, or what it asks of a device, without its keys.
const std = @import("std");
const config = @import("config");
const ConfigFile = @import("config_file.zig").ConfigFile;
const Output = @import("output.zig").Output;

pub fn run(rest: *std.process.Args.Iterator) error{Usage}!u8 {
    var path: ?[]const u8 = null;
    var options: config.parser.Options = .{};
    while (rest.next()) |word| {
        if (std.mem.eql(u8, word, "--no-hooks")) {
            options.leaves_hooks = true;
        } else if (path == null and word.len > 0 and word[0] != '-') {
            path = word;
        } else return error.Usage;
    }
    var file = ConfigFile.load(path orelse return error.Usage, options) catch return 1;
    defer file.deinit();
    print(&file);
    return 0;
}

/// As the lines of a UAPI set, with what is set beside it.
fn print(file: *const ConfigFile) void {
    var output: Output = undefined;
    output.begin(1);
    defer output.flush();
    for (file.settings.addresses()) |prefix| {
        var spelling: [64]u8 = undefined;
        output.put(&.{ "address=", config.values.spelled(prefix, &spelling), "\n" });
    }
    if (file.settings.mtu) |mtu| {
        output.put(&.{"mtu="});
        output.number(mtu);
        output.put(&.{"\n"});
    }
    var lines = std.mem.tokenizeScalar(u8, file.change, '\n');
    while (lines.next()) |line| {
        const secret = for ([_][]const u8{ "private_key=", "preshared_key=" }) |key| {
            if (std.mem.startsWith(u8, line, key)) break key;
        } else null;
        output.put(&.{ secret orelse line, if (secret != null) "(hidden)" else "", "\n" });
    }
}
