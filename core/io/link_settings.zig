//! What the kernel's WireGuard driver sets on its device (wg_setup and wg_open of drivers/net/wireguard/device.c), set
//! on a TUN, so that nothing enters a tunnel that nobody sent. In the thread's own network namespace.
//!
//! - No IFF_MULTICAST. With it a host that forwards IPv6 joins the group of routers, and reports that (MLD).
//! - addr_gen_mode none: no link-local address by itself, hence no router solicitation and no redirect over IPv6.
//! - send_redirects off, also for `all`, for the kernel takes either. Two peers of a hub are no neighbours. Other
//!   interfaces go on by their own values.
//! - accept_ra off, which the driver leaves on: what comes out of a tunnel configures nothing.
//!
//! Netlink comes first, for in many containers /proc/sys cannot be written; what only that has is left as it is there.
//! Invariant: a refusal is an answer, never an error.
const std = @import("std");
const sys = @import("linux.zig");
const link = @import("link.zig");
const netlink = @import("netlink.zig");
const wire = @import("wire");
const Error = netlink.Error;

const linux = std.os.linux;

/// Below this the kernel takes IPv6 off an interface, and all its settings with it.
pub const ipv6_mtu_min = 1280;

/// What this host did not let us set.
pub const Refused = struct {
    link_local: bool = false,
    redirects: bool = false,
    advertisements: bool = false,
};

/// For an interface that was just made: it was born with IFF_MULTICAST and perhaps in the group of routers. That is
/// left with all of IPv6, which comes back with the MTU; the caller sets that next.
pub fn leaveGroups(name: []const u8) void {
    clearMulticast(link.index(name) catch return) catch return;
    link.setMtu(name, ipv6_mtu_min - 1) catch {};
}

/// All of it. The interface should be down; files must be open to this thread.
pub fn apply(name: []const u8) Refused {
    const index = link.index(name) catch return .{};
    clearMulticast(index) catch {};
    refresh(index);
    return .{
        .link_local = !holds("ipv6", name, "addr_gen_mode", '0' + in6_addr_gen_mode_none),
        .redirects = !holds("ipv4", name, "send_redirects", '0') or !holds("ipv4", "all", "send_redirects", '0'),
        .advertisements = !holds("ipv6", name, "accept_ra", '0'),
    };
}

/// What an interface loses with its IPv6, and what may have been set otherwise while it was down. By netlink alone.
pub fn refresh(index: u32) void {
    setAddressMode(index) catch {};
    forbidRedirects(index) catch {};
}

fn clearMulticast(index: u32) Error!void {
    var request = changeOf(index, iff_multicast);
    try perform(&request);
}

fn setAddressMode(index: u32) Error!void {
    var request = changeOf(index, 0);
    const families = request.beginNest(ifla_af_spec);
    const family = request.beginNest(linux.AF.INET6);
    request.putAttribute(ifla_inet6_addr_gen_mode, &.{in6_addr_gen_mode_none});
    request.endNest(family);
    request.endNest(families);
    try perform(&request);
}

fn forbidRedirects(index: u32) Error!void {
    const off: u32 = 0;
    var request = changeOf(index, 0);
    const families = request.beginNest(ifla_af_spec);
    const family = request.beginNest(linux.AF.INET);
    const options = request.beginNest(ifla_inet_conf);
    request.putAttribute(ipv4_devconf_send_redirects, std.mem.asBytes(&off));
    request.endNest(options);
    request.endNest(family);
    request.endNest(families);
    try perform(&request);
}

/// `cleared`: flags to be taken away.
fn changeOf(index: u32, cleared: u32) netlink.Request {
    var request: netlink.Request = .init(sys.RTM_NEWLINK, sys.NLM_F_ACK);
    request.putHeader(linux.ifinfomsg{
        .family = 0,
        .type = 0,
        .index = @intCast(index),
        .flags = 0,
        .change = cleared,
    });
    return request;
}

fn perform(request: *netlink.Request) Error!void {
    var buffer: [netlink.reply_capacity]u8 align(4) = undefined;
    _ = try request.exchange(&buffer);
}

/// Whether a setting below /proc/sys/net is as wanted, or can be made so. One that is not there has no effect either.
fn holds(family: []const u8, name: []const u8, key: []const u8, wanted: u8) bool {
    var buffer: [96]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&buffer);
    if (!wire.text.fill(&writer, "/proc/sys/net/{s}/conf/{s}/{s}\x00", .{ family, name, key })) return false;
    const path: [*:0]const u8 = @ptrCast(&buffer);
    const file = switch (sys.result(linux.open(path, .{ .CLOEXEC = true }, 0))) {
        .value => |fd| @as(sys.fd_t, @intCast(fd)),
        .failure => |code| return code == .NOENT,
    };
    defer sys.close(file);
    var found: [1]u8 = .{0};
    if (linux.read(file, &found, 1) == 1 and found[0] == wanted) return true;
    const target = switch (sys.result(linux.open(path, .{ .ACCMODE = .WRONLY, .CLOEXEC = true }, 0))) {
        .value => |fd| @as(sys.fd_t, @intCast(fd)),
        .failure => return false,
    };
    defer sys.close(target);
    return linux.errno(linux.write(target, &.{wanted}, 1)) == .SUCCESS;
}

const iff_multicast = 0x1000;
const ifla_af_spec = 26;
const ifla_inet_conf = 1;
/// Numbers inside IFLA_INET_CONF are those of <linux/ip.h>.
const ipv4_devconf_send_redirects = 6;
const ifla_inet6_addr_gen_mode = 8;
const in6_addr_gen_mode_none = 1;

const testing = std.testing;

/// The first byte of a setting.
fn setting(path: [*:0]const u8) !u8 {
    const file: sys.fd_t = @intCast(linux.open(path, .{ .CLOEXEC = true }, 0));
    defer sys.close(file);
    var found: [1]u8 = undefined;
    if (linux.read(file, &found, 1) != 1) return error.SkipZigTest; // a kernel without IPv6, or no /proc
    return found[0];
}

fn openTun(name: []const u8) !sys.fd_t {
    const flags: linux.O = .{ .ACCMODE = .RDWR, .CLOEXEC = true, .NONBLOCK = true };
    const tun_fd: sys.fd_t = switch (sys.result(linux.open("/dev/net/tun", flags, 0))) {
        .value => |descriptor| @intCast(descriptor),
        .failure => return error.SkipZigTest,
    };
    errdefer sys.close(tun_fd);
    var request = sys.Ifreq.init(name).?;
    request.value.flags = sys.IFF_TUN | sys.IFF_NO_PI;
    if (linux.errno(linux.ioctl(tun_fd, sys.TUNSETIFF, @intFromPtr(&request))) != .SUCCESS) return error.SkipZigTest;
    return tun_fd;
}

test "what the driver sets is set, by netlink alone where files are closed, and comes back with IPv6" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    const name = "pywgtest0";
    const tun_fd = try openTun(name);
    defer sys.close(tun_fd);
    const mode = "/proc/sys/net/ipv6/conf/" ++ name ++ "/addr_gen_mode";
    const redirects = "/proc/sys/net/ipv4/conf/" ++ name ++ "/send_redirects";
    try testing.expectEqual('0', try setting(mode));
    try testing.expectEqual('1', try setting(redirects));
    const index = try link.index(name);
    refresh(index);
    try testing.expectEqual('1', try setting(mode));
    try testing.expectEqual('0', try setting(redirects));
    leaveGroups(name);
    try testing.expectEqual(ipv6_mtu_min - 1, try link.mtu(name));
    try link.setMtu(name, 1420);
    try testing.expectEqual('0', try setting(mode));
    try testing.expectEqual(Refused{}, apply(name));
    try testing.expectEqual('1', try setting(mode));
    try testing.expectEqual('0', try setting("/proc/sys/net/ipv6/conf/" ++ name ++ "/accept_ra"));
    try testing.expectEqual('0', try setting("/proc/sys/net/ipv4/conf/all/send_redirects"));
    try testing.expectEqual(Refused{}, apply("nothing"));
}
