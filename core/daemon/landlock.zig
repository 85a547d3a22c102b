//! Landlock (landlock(7)): no files for a process that has opened all it needs. Applies to the calling thread and to
//! those it makes later. Linux 5.13; the rules for TCP since 6.7, for abstract sockets and signals since 6.12.
//! Invariant: only ever takes away.
const std = @import("std");
const sys = @import("io").linux;
const linux = std.os.linux;

const Ruleset = extern struct { files: u64, network: u64 = 0, scoped: u64 = 0 };
const PathBeneath = extern struct { allowed: u64 align(1), folder: i32 align(1) };

const create_ruleset_version = 1;
const rule_path_beneath = 1;
const remove_file = 1 << 5;
/// Rights of the first version, then what later ones added: REFER, TRUNCATE, IOCTL_DEV.
const first_rights: u64 = (1 << 13) - 1;

fn rightsOf(version: usize) Ruleset {
    var files = first_rights;
    if (version >= 2) files |= 1 << 13;
    if (version >= 3) files |= 1 << 14;
    if (version >= 5) files |= 1 << 15;
    return .{
        .files = files,
        .network = if (version >= 4) 0b11 else 0, // TCP: bind, connect
        .scoped = if (version >= 6) 0b11 else 0, // abstract sockets, signals to others
    };
}

/// Forbids every access to files by name but the removal of those in `folder`, where the UAPI socket is.
/// False where the kernel has no Landlock; needs NO_NEW_PRIVS.
pub fn forbidFiles(folder: ?[*:0]const u8) bool {
    const version = switch (sys.result(linux.syscall3(.landlock_create_ruleset, 0, 0, create_ruleset_version))) {
        .value => |value| value,
        .failure => return false,
    };
    const rights = rightsOf(version);
    // An older kernel knows a shorter struct.
    const size: usize = if (version >= 6) 24 else if (version >= 4) 16 else 8;
    const fd: sys.fd_t = switch (sys.result(linux.syscall3(.landlock_create_ruleset, @intFromPtr(&rights), size, 0))) {
        .value => |value| @intCast(value),
        .failure => return false,
    };
    defer sys.close(fd);
    if (folder) |place| allowRemoval(fd, place);
    return linux.errno(linux.syscall2(.landlock_restrict_self, @intCast(fd), 0)) == .SUCCESS;
}

fn allowRemoval(ruleset: sys.fd_t, folder: [*:0]const u8) void {
    const opened = linux.open(folder, .{ .PATH = true, .DIRECTORY = true, .CLOEXEC = true }, 0);
    const fd: sys.fd_t = switch (sys.result(opened)) {
        .value => |value| @intCast(value),
        .failure => return, // then the socket file stays, and the next start replaces it
    };
    defer sys.close(fd);
    const rule: PathBeneath = .{ .allowed = remove_file, .folder = fd };
    _ = linux.syscall4(.landlock_add_rule, @intCast(ruleset), rule_path_beneath, @intFromPtr(&rule), 0);
}
