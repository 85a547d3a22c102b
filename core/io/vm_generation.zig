//! Word that this virtual machine was cloned or set back to an earlier state: the uevent NEW_VMGENID of the kernel's
//! vmgenid driver (since Linux 6.8; drivers/virt/vmgenid.c). It comes to every network namespace that belongs to the
//! initial user namespace. Knows no keys.
//! Invariant: only the kernel is believed.
const std = @import("std");
const sys = @import("linux.zig");
const linux = std.os.linux;

/// UEVENT_BUFFER_SIZE of the kernel, and the path of a device before it.
const message_max = 2048 + 4096;
/// Multicast group of what the kernel says; udev repeats it in another.
const kernel_group = 1;

pub const Monitor = struct {
    socket: sys.fd_t,

    pub fn open() error{Unavailable}!Monitor {
        const kind = linux.SOCK.RAW | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
        const rc = linux.socket(linux.AF.NETLINK, kind, linux.NETLINK.KOBJECT_UEVENT);
        if (linux.errno(rc) != .SUCCESS) return error.Unavailable;
        const monitor: Monitor = .{ .socket = @intCast(rc) };
        errdefer sys.close(monitor.socket);
        monitor.keepOnlyChanges();
        const address: linux.sockaddr.nl = .{ .pid = 0, .groups = kernel_group };
        const bound = linux.bind(monitor.socket, @ptrCast(&address), @sizeOf(linux.sockaddr.nl));
        if (linux.errno(bound) != .SUCCESS) return error.Unavailable;
        return monitor;
    }

    pub fn close(monitor: *Monitor) void {
        sys.close(monitor.socket);
        monitor.* = undefined;
    }

    pub fn fd(monitor: *const Monitor) sys.fd_t {
        return monitor.socket;
    }

    /// So that devices that come and go wake nobody: only texts that begin with "change@".
    fn keepOnlyChanges(monitor: *const Monitor) void {
        const load_word = 0x20;
        const jump_equal = 0x15;
        const filter = [_]sys.BpfInstruction{
            .{ .code = load_word, .k = 0 },
            .{ .code = jump_equal, .jf = 1, .k = std.mem.readInt(u32, "chan", .big) },
            .{ .code = sys.bpf_ret_k, .k = std.math.maxInt(u32) },
            .{ .code = sys.bpf_ret_k, .k = 0 },
        };
        const program: sys.BpfProgram = .{ .length = filter.len, .instructions = &filter };
        const bytes = std.mem.asBytes(&program);
        _ = linux.setsockopt(monitor.socket, linux.SOL.SOCKET, linux.SO.ATTACH_FILTER, bytes, bytes.len);
    }

    /// Takes what has come; true if this machine is a copy, or if so much was lost (ENOBUFS) that it may be.
    pub fn drain(monitor: *const Monitor) bool {
        var is_copy = false;
        var buffer: [message_max]u8 = undefined;
        for (0..256) |_| {
            var from: linux.sockaddr.nl = .{ .pid = 0, .groups = 0 };
            var from_length: linux.socklen_t = @sizeOf(linux.sockaddr.nl);
            const rc = linux.recvfrom(monitor.socket, &buffer, buffer.len, 0, @ptrCast(&from), &from_length);
            switch (sys.result(rc)) {
                .value => |length| {
                    const is_kernel = from_length == @sizeOf(linux.sockaddr.nl) and from.pid == 0;
                    if (is_kernel and tellsOfCopy(buffer[0..length])) is_copy = true;
                },
                .failure => |code| switch (code) {
                    .NOBUFS => is_copy = true,
                    .INTR => {},
                    else => break,
                },
            }
        }
        return is_copy;
    }
};

/// Of the parts of a uevent, which end with NUL, the first is "ACTION@PATH" and the others are KEY=VALUE.
fn tellsOfCopy(text: []const u8) bool {
    var parts = std.mem.splitScalar(u8, text, 0);
    const summary = parts.first();
    if (!std.mem.startsWith(u8, summary, "change@")) return false;
    while (parts.next()) |part| if (std.mem.startsWith(u8, part, "NEW_VMGENID=")) return true;
    return false;
}

const testing = std.testing;

const told = "change@/devices/platform/vmgenid\x00ACTION=change\x00DEVPATH=/devices/platform/vmgenid\x00" ++
    "SUBSYSTEM=platform\x00NEW_VMGENID=1\x00SEQNUM=4242\x00";

test "only a change with the key of its own tells of a copy" {
    try testing.expect(tellsOfCopy(told));
    for ([_][]const u8{
        "",
        "\x00",
        "change@/devices/x",
        "change@/devices/x\x00ACTION=change\x00SEQNUM=1\x00",
        "add@/devices/x\x00NEW_VMGENID=1\x00",
        "change@/devices/NEW_VMGENID=1\x00ACTION=change\x00",
        "change@/devices/x\x00OLD_NEW_VMGENID=1\x00",
        "libudev\x00\xfe\xed\xca\xfechange@/x\x00NEW_VMGENID=1\x00",
    }) |text| try testing.expect(!tellsOfCopy(text));
    for (0..told.len) |length| _ = tellsOfCopy(told[0..length]);
}

test "the kernel is believed, and another process is not" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var monitor = Monitor.open() catch return error.SkipZigTest;
    defer monitor.close();
    try testing.expect(!monitor.drain());
    const kind = linux.SOCK.RAW | linux.SOCK.CLOEXEC;
    const sender: sys.fd_t = @intCast(linux.socket(linux.AF.NETLINK, kind, linux.NETLINK.KOBJECT_UEVENT));
    defer sys.close(sender);
    const group: linux.sockaddr.nl = .{ .pid = 0, .groups = kernel_group };
    _ = linux.sendto(sender, told, told.len, 0, @ptrCast(&group), @sizeOf(linux.sockaddr.nl));
    try testing.expect(!monitor.drain());
    // Root of the namespace may ask the kernel to tell it something (since Linux 4.18).
    const kernel: linux.sockaddr.nl = .{ .pid = 0, .groups = 0 };
    var request: [16 + told.len]u8 align(4) = @splat(0);
    std.mem.writeInt(u32, request[0..4], request.len, .native);
    std.mem.writeInt(u16, request[4..6], 16, .native);
    std.mem.writeInt(u16, request[6..8], sys.NLM_F_REQUEST, .native);
    @memcpy(request[16..], told);
    const sent = linux.sendto(sender, &request, request.len, 0, @ptrCast(&kernel), @sizeOf(linux.sockaddr.nl));
    if (linux.errno(sent) != .SUCCESS) return error.SkipZigTest;
    try testing.expect(monitor.drain());
    try testing.expect(!monitor.drain());
}
