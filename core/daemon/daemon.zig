//! pywgd: the daemon for hosts without Python, with wireguard-go's contract: `pywgd [-f] NAME`.
//! Returns 0 only when the TUN exists and the UAPI socket listens; then goes on in the background.
const std = @import("std");
const linux = std.os.linux;
const runtime = @import("runtime");
const arguments_file = @import("arguments.zig");
const serving = @import("serving.zig");

pub fn main(init: std.process.Init.Minimal) u8 {
    harden();
    fillStandardDescriptors();
    var arguments: arguments_file.Arguments = .{};
    arguments_file.readEnvironment(&arguments, init.environ) catch return 2;
    var iterator = init.args.iterate();
    _ = iterator.next();
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
    _ = @import("small_host.zig");
    _ = arguments_file;
}
