//! pywgd: the daemon for hosts without Python, with wireguard-go's contract: `pywgd [-f] NAME`; and what such a host
//! needs beside it: a file read, addresses, keys, a look at what runs.
//! Returns 0 only when the TUN exists and the UAPI socket listens; then goes on in the background.
const std = @import("std");
const linux = std.os.linux;
const runtime = @import("runtime");
const arguments_file = @import("arguments.zig");
const commands = @import("commands.zig");
const serving = @import("serving.zig");

pub fn main(init: std.process.Init.Minimal) u8 {
    harden();
    fillStandardDescriptors();
    var iterator = init.args.iterate();
    _ = iterator.next();
    var first = iterator;
    if (first.next()) |word| if (commands.run(word, &first)) |exit_code| return exit_code;
    var arguments: arguments_file.Arguments = .{};
    arguments_file.readEnvironment(&arguments, init.environ) catch return 2;
    if (arguments_file.readArguments(&arguments, &iterator)) |exit_code| return exit_code;
    return serving.serve(&arguments);
}

/// No core dump and no debugger of the same user may see the keys.
fn harden() void {
    _ = linux.prctl(@backingInt(linux.PR.SET_DUMPABLE), 0, 0, 0, 0);
    const none: linux.rlimit = .{ .cur = 0, .max = 0 };
    _ = linux.setrlimit(.CORE, &none);
}

/// Started with 0, 1 or 2 closed, the TUN would get that number, and the log or /dev/null would take its place.
fn fillStandardDescriptors() void {
    while (true) {
        const rc = linux.open("/dev/null", .{ .ACCMODE = .RDWR }, 0);
        if (linux.errno(rc) != .SUCCESS) return;
        if (rc <= 2) continue;
        _ = linux.close(@intCast(rc));
        return;
    }
}

pub const std_options = runtime.std_options;
pub const panic = runtime.panic;

test {
    _ = @import("seccomp.zig");
    _ = arguments_file;
}
