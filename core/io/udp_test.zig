//! What two ends on loopback promise each other: what is sent arrives whole and in order, and a refusal costs no more
//! than it must.
//! Also where sockets are bound, which is seen by what arrives.
const std = @import("std");
const wire = @import("wire");
const sys = @import("linux.zig");
const control_message = @import("control_message.zig");
const Name = @import("sockaddr.zig").Name;
const Offload = @import("offload.zig").Offload;
const udp_file = @import("udp.zig");
const Transmit = udp_file.Transmit;
const OpenError = udp_file.OpenError;
const BindOptions = udp_file.BindOptions;
const ReceiveBatch = udp_file.ReceiveBatch;
const SendResult = udp_file.SendResult;
const Sockets = udp_file.Sockets;
const Udp = udp_file.Udp;

const linux = std.os.linux;
const testing = std.testing;
const Family = wire.Family;

const patience_ms = 10_000;

/// On a busy machine the kernel delivers a while after it took a datagram, on loopback too. False when nothing comes.
fn waitForDatagram(udp: *const Udp, family: Family) bool {
    var waiting = [1]linux.pollfd{.{ .fd = udp.fd(family).?, .events = linux.POLL.IN, .revents = 0 }};
    return linux.poll(&waiting, 1, patience_ms) == 1;
}

/// Two ends on loopback. Faults are injected between us and the kernel at the k-th message of all sends.
const Fixture = struct {
    /// Where nobody else sends, and loopback is up; without the privilege it is the caller's.
    namespace: ?sys.TestNamespace = null,
    offload: Offload = .init(0),
    a: Udp = undefined,
    b: Udp = undefined,
    batch: ReceiveBatch = undefined,
    port: u16 = 0,

    fn start(fixture: *Fixture, calls: *const sys.Calls) !void {
        fixture.namespace = sys.TestNamespace.enter() catch null;
        try fixture.startHere(calls);
    }

    fn startHere(fixture: *Fixture, calls: *const sys.Calls) !void {
        fixture.a = .init(calls, &fixture.offload);
        fixture.b = .init(&sys.real, &fixture.offload);
        _ = try fixture.a.open(.{});
        fixture.port = try fixture.b.open(.{});
        fixture.batch = try .init(testing.allocator);
    }

    fn stop(fixture: *Fixture) void {
        fixture.a.close();
        fixture.b.close();
        fixture.batch.deinit(testing.allocator);
        if (fixture.namespace) |namespace| namespace.leave();
    }

    /// What comes next.
    fn receive(fixture: *Fixture, udp: *Udp, family: Family) usize {
        return if (waitForDatagram(udp, family)) udp.receive(family, &fixture.batch) else 0;
    }

    fn target(fixture: *const Fixture, family: Family) wire.Endpoint {
        return .{ .remote = .{ .address = loopback(family), .port = fixture.port } };
    }

    /// All datagrams that reach b, split; each is checked to begin with the next number.
    fn expectNumbered(fixture: *Fixture, family: Family, numbers: []const u8, size: usize) !void {
        var next: usize = 0;
        while (next < numbers.len) {
            const count = fixture.receive(&fixture.b, family);
            try testing.expect(count != 0);
            for (fixture.batch.datagrams[0..count]) |received| {
                try testing.expect(!received.truncated);
                const stride = if (received.segment_size == 0) received.bytes.len else received.segment_size;
                var rest: []const u8 = received.bytes;
                while (rest.len != 0) {
                    const length = @min(stride, rest.len);
                    try testing.expect(next < numbers.len);
                    try testing.expectEqual(numbers[next], rest[0]);
                    try testing.expect(length <= size);
                    next += 1;
                    rest = rest[length..];
                }
            }
        }
        try testing.expectEqual(0, fixture.b.receive(family, &fixture.batch));
    }
};

fn loopback(family: Family) wire.Address {
    return switch (family) {
        .ipv4 => .fromIpv4(.{ 127, 0, 0, 1 }),
        .ipv6 => wire.Address.parse("::1").?,
    };
}

/// Segment i of a train begins with byte i.
fn numberedTrain(buffer: []u8, size: usize) []u8 {
    for (buffer, 0..) |*byte, i| byte.* = if (i % size == 0) @intCast(i / size) else 0xee;
    return buffer;
}

const ascending: [128]u8 = blk: {
    var numbers: [128]u8 = undefined;
    for (&numbers, 0..) |*number, i| number.* = i;
    break :blk numbers;
};

/// sendmmsg that fails as told. State is global because a function pointer carries none.
const Fault = struct {
    var rules: []const Rule = &.{};
    var calls_made: usize = 0;
    /// The kernel may stop early for reasons of its own.
    var most_per_call: u32 = std.math.maxInt(u32);
    /// How often the rules hold before they are over.
    var failures_left: usize = std.math.maxInt(usize);

    const Rule = struct {
        errno: sys.E,
        /// Which messages: all trains, all singles, those with a source or a TOS, or those whose first byte is this.
        which: union(enum) { train, source, tos, first_byte: u8, all },
    };

    const calls: sys.Calls = .{ .sendmmsg = sendmmsg };

    fn reset(with: []const Rule) void {
        rules = with;
        calls_made = 0;
        most_per_call = std.math.maxInt(u32);
        failures_left = std.math.maxInt(usize);
    }

    fn sendmmsg(fd: sys.fd_t, messages: [*]linux.mmsghdr, count: u32, flags: u32) usize {
        calls_made += 1;
        var good: u32 = 0;
        while (good < @min(count, most_per_call)) : (good += 1) {
            const code = verdict(&messages[good]) orelse continue;
            if (failures_left == 0) continue;
            if (good != 0) break;
            failures_left -= 1;
            return sys.failWith(code);
        }
        return linux.sendmmsg(fd, messages, good, flags);
    }

    fn verdict(message: *const linux.mmsghdr) ?sys.E {
        for (rules) |rule| {
            const hit = switch (rule.which) {
                .train => hasControl(message, linux.IPPROTO.UDP, linux.UDP.SEGMENT),
                .source => hasControl(message, linux.IPPROTO.IP, linux.IP.PKTINFO),
                .tos => hasControl(message, linux.IPPROTO.IP, linux.IP.TOS),
                .first_byte => |byte| message.hdr.iov[0].base[0] == byte,
                .all => true,
            };
            if (hit) return rule.errno;
        }
        return null;
    }

    fn hasControl(message: *const linux.mmsghdr, level: i32, kind: i32) bool {
        const control = message.hdr.control orelse return false;
        const bytes: [*]const u8 = @ptrCast(control);
        var iterator: control_message.Iterator = .{ .rest = bytes[0..message.hdr.controllen] };
        while (iterator.next()) |found| if (found.level == level and found.kind == kind) return true;
        return false;
    }
};

test "a train goes out in one message and comes in whole, over both families" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    for ([_]Family{ .ipv4, .ipv6 }) |family| {
        if (fixture.b.fd(family) == null) continue;
        Fault.reset(&.{});
        fixture.a.counters = .{};
        fixture.b.counters = .{};
        var buffer: [9 * 1400 + 100]u8 = undefined;
        var transmits = [_]Transmit{.{
            .bytes = numberedTrain(&buffer, 1400),
            .segment_size = 1400,
            .endpoint = fixture.target(family),
            .tos = 0xb9,
        }};
        const sent = fixture.a.send(&transmits, 0);
        try testing.expectEqual(SendResult{ .sent_datagrams = 10 }, sent);
        try testing.expectEqual(1, Fault.calls_made);
        try testing.expectEqual(1, fixture.receive(&fixture.b, family));
        try testing.expectEqual(.{ 1, 10 }, .{ fixture.a.counters.send_calls, fixture.a.counters.sent });
        try testing.expectEqual(10, fixture.b.counters.received);
        try testing.expect(fixture.b.counters.receive_calls >= 1);
        const received = fixture.batch.datagrams[0];
        try testing.expectEqual(1400, received.segment_size);
        try testing.expectEqualSlices(u8, &buffer, received.bytes);
        try testing.expectEqual(1, received.ecn);
        // The source is where it arrived: enough to answer.
        try testing.expect(received.endpoint.source.?.address.eql(fixture.target(family).remote.address));
        var answer = [_]Transmit{.{ .bytes = "answer", .segment_size = 0, .endpoint = received.endpoint }};
        try testing.expectEqual(1, fixture.b.send(&answer, 0).sent_datagrams);
        try testing.expectEqual(1, fixture.receive(&fixture.a, family));
        try testing.expectEqualStrings("answer", fixture.batch.datagrams[0].bytes);
        try testing.expectEqual(0, fixture.batch.datagrams[0].segment_size);
        try testing.expectEqual(0, fixture.batch.datagrams[0].ecn);
    }
}

test "the answer leaves from the address that was asked" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    var asking = fixture.target(.ipv4);
    asking.remote.address = .fromIpv4(.{ 127, 0, 0, 9 });
    var question = [_]Transmit{.{ .bytes = "q", .segment_size = 0, .endpoint = asking }};
    try testing.expectEqual(1, fixture.a.send(&question, 0).sent_datagrams);
    try testing.expectEqual(1, fixture.receive(&fixture.b, .ipv4));
    const endpoint = fixture.batch.datagrams[0].endpoint;
    var answer = [_]Transmit{.{ .bytes = "a", .segment_size = 0, .endpoint = endpoint }};
    try testing.expectEqual(1, fixture.b.send(&answer, 0).sent_datagrams);
    try testing.expectEqual(1, fixture.receive(&fixture.a, .ipv4));
    try testing.expect(fixture.batch.datagrams[0].endpoint.remote.eql(asking.remote));
}

test "a source that no interface has any more is dropped, and the datagrams go" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    for ([_]Family{ .ipv4, .ipv6 }) |family| {
        if (fixture.b.fd(family) == null) continue;
        var endpoint = fixture.target(family);
        const gone = wire.Address.parse(if (family == .ipv4) "192.0.2.1" else "2001:db8::1").?;
        endpoint.source = .{ .address = gone, .interface_index = 1 };
        var buffer: [3 * 100]u8 = undefined;
        var transmits = [_]Transmit{
            .{ .bytes = numberedTrain(&buffer, 100), .segment_size = 100, .endpoint = endpoint },
            .{ .bytes = &.{3}, .segment_size = 0, .endpoint = endpoint },
        };
        try testing.expectEqual(
            SendResult{ .sent_datagrams = 4, .any_source_refused = true },
            fixture.a.send(&transmits, 0),
        );
        for (transmits) |transmit| {
            try testing.expect(transmit.source_refused);
            try testing.expectEqual(null, transmit.endpoint.source);
        }
        // The path is innocent: GSO is still allowed.
        try testing.expect(fixture.offload.gsoAllowed(endpoint.remote, 0));
        try fixture.expectNumbered(family, ascending[0..4], 100);
    }
}

test "EIO on a train switches GSO off for that destination and resends singly, in order" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    Fault.reset(&.{.{ .errno = .IO, .which = .train }});
    var buffer: [8 * 100]u8 = undefined;
    const train = numberedTrain(&buffer, 100);
    var transmits = [_]Transmit{
        .{ .bytes = train[0..100], .segment_size = 100, .endpoint = fixture.target(.ipv4) },
        .{ .bytes = train[100..400], .segment_size = 100, .endpoint = fixture.target(.ipv4) },
        .{ .bytes = train[400..], .segment_size = 100, .endpoint = fixture.target(.ipv4) },
    };
    try testing.expectEqual(SendResult{ .sent_datagrams = 8 }, fixture.a.send(&transmits, 0));
    try testing.expect(fixture.offload.isActive(.udp_gso));
    try testing.expect(!fixture.offload.gsoAllowed(transmits[0].endpoint.remote, 0));
    try fixture.expectNumbered(.ipv4, ascending[0..8], 100);
    Fault.reset(&.{});
    try testing.expectEqual(8, fixture.a.send(&transmits, 0).sent_datagrams);
    try testing.expectEqual(1, Fault.calls_made);
    try fixture.expectNumbered(.ipv4, ascending[0..8], 100);
    // Another destination still gets trains.
    var elsewhere = [1]Transmit{transmits[2]};
    elsewhere[0].endpoint.remote.address = .fromIpv4(.{ 127, 0, 0, 2 });
    try testing.expectEqual(4, fixture.a.send(&elsewhere, 0).sent_datagrams);
    try testing.expect(fixture.offload.gsoAllowed(elsewhere[0].endpoint.remote, 0));
}

test "EMSGSIZE and EINVAL refuse GSO to that destination for a minute, with or without a source" {
    for ([_]sys.E{ .MSGSIZE, .INVAL }) |errno| for ([_]bool{ false, true }) |with_source| {
        var fixture: Fixture = .{};
        try fixture.start(&Fault.calls);
        defer fixture.stop();
        Fault.reset(&.{.{ .errno = errno, .which = .train }});
        var buffer: [5 * 100]u8 = undefined;
        var endpoint = fixture.target(.ipv4);
        if (with_source) endpoint.source = .{ .address = .fromIpv4(.{ 127, 0, 0, 1 }), .interface_index = 1 };
        var transmits = [_]Transmit{
            .{ .bytes = numberedTrain(&buffer, 100), .segment_size = 100, .endpoint = endpoint },
        };
        try testing.expectEqual(SendResult{ .sent_datagrams = 5 }, fixture.a.send(&transmits, 0));
        try fixture.expectNumbered(.ipv4, ascending[0..5], 100);
        try testing.expect(fixture.offload.isActive(.udp_gso));
        try testing.expect(!transmits[0].source_refused);
        const minute = 60 * std.time.ns_per_s;
        try testing.expect(!fixture.offload.gsoAllowed(endpoint.remote, minute - 1));
        try testing.expect(fixture.offload.gsoAllowed(endpoint.remote, minute));
    };
}

test "a source refused under EINVAL costs the source, not GSO" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    Fault.reset(&.{.{ .errno = .INVAL, .which = .source }});
    var buffer: [5 * 100]u8 = undefined;
    var endpoint = fixture.target(.ipv4);
    endpoint.source = .{ .address = .fromIpv4(.{ 127, 0, 0, 1 }), .interface_index = 1 };
    var transmits = [_]Transmit{
        .{ .bytes = numberedTrain(&buffer, 100), .segment_size = 100, .endpoint = endpoint },
    };
    try testing.expectEqual(
        SendResult{ .sent_datagrams = 5, .any_source_refused = true },
        fixture.a.send(&transmits, 0),
    );
    try testing.expect(transmits[0].source_refused);
    try testing.expect(fixture.offload.gsoAllowed(endpoint.remote, 0));
    try testing.expectEqual(3, Fault.calls_made); // train, single, train without source
    try fixture.expectNumbered(.ipv4, ascending[0..5], 100);
}

test "a datagram whose TOS is refused under EINVAL goes without" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    Fault.reset(&.{.{ .errno = .INVAL, .which = .tos }});
    var buffer: [100]u8 = undefined;
    var transmits = [_]Transmit{
        .{ .bytes = numberedTrain(&buffer, 100), .segment_size = 0, .tos = 0x88, .endpoint = fixture.target(.ipv4) },
    };
    try testing.expectEqual(SendResult{ .sent_datagrams = 1 }, fixture.a.send(&transmits, 0));
    try fixture.expectNumbered(.ipv4, ascending[0..1], 100);
}

test "a refused message costs itself only, wherever in the batch it stands" {
    const passing = [_]sys.E{
        .PERM, .NOBUFS, .AGAIN, .CONNREFUSED, .HOSTUNREACH, .NETUNREACH, .INVAL, .IO, .MSGSIZE, .NOMEM, .PIPE,
    };
    for (passing) |errno| for ([_]u8{ 0, 3, 6 }) |position| {
        var fixture: Fixture = .{};
        try fixture.start(&Fault.calls);
        defer fixture.stop();
        Fault.reset(&.{.{ .errno = errno, .which = .{ .first_byte = position } }});
        var buffer: [7 * 10]u8 = undefined;
        const bytes = numberedTrain(&buffer, 10);
        var transmits: [7]Transmit = undefined;
        for (&transmits, 0..) |*transmit, i| {
            transmit.* = .{ .bytes = bytes[i * 10 ..][0..10], .segment_size = 0, .endpoint = fixture.target(.ipv4) };
        }
        const sent = fixture.a.send(&transmits, 0);
        try testing.expectEqual(SendResult{ .sent_datagrams = 6, .failed_datagrams = 1, .last_errno = errno }, sent);
        try testing.expect(fixture.offload.isActive(.udp_gso));
        var expected: [6]u8 = undefined;
        @memcpy(expected[0..position], ascending[0..position]);
        @memcpy(expected[position..], ascending[position + 1 .. 7]);
        try fixture.expectNumbered(.ipv4, &expected, 10);
    };
}

test "short counts and a kernel that refuses everything end, too" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    var bytes: [100]u8 = ascending[0..100].*;
    var transmits: [100]Transmit = undefined;
    for (&transmits, 0..) |*transmit, i| {
        transmit.* = .{ .bytes = bytes[i..][0..1], .segment_size = 0, .endpoint = fixture.target(.ipv4) };
    }
    Fault.reset(&.{});
    Fault.most_per_call = 3;
    try testing.expectEqual(100, fixture.a.send(&transmits, 0).sent_datagrams);
    try fixture.expectNumbered(.ipv4, ascending[0..100], 1);
    Fault.reset(&.{});
    Fault.most_per_call = 0;
    try testing.expectEqual(100, fixture.a.send(&transmits, 0).failed_datagrams);
    for ([_]sys.E{ .INTR, .PERM, .IO, .INVAL, .NETUNREACH }) |errno| {
        Fault.reset(&.{.{ .errno = errno, .which = .all }});
        const sent = fixture.a.send(&transmits, 0);
        try testing.expectEqual(0, sent.sent_datagrams);
        try testing.expectEqual(100, sent.failed_datagrams);
        try testing.expectEqual(errno, sent.last_errno);
    }
}

test "families alternate in one batch without touching each other" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    if (fixture.b.fd(.ipv6) == null) return error.SkipZigTest;
    var bytes: [100]u8 = undefined;
    var transmits: [100]Transmit = undefined;
    for (&transmits, 0..) |*transmit, i| {
        bytes[i] = @intCast(i / 2);
        const family: Family = if (i % 2 == 0) .ipv4 else .ipv6;
        transmit.* = .{ .bytes = bytes[i..][0..1], .segment_size = 0, .endpoint = fixture.target(family) };
    }
    try testing.expectEqual(100, fixture.a.send(&transmits, 0).sent_datagrams);
    try fixture.expectNumbered(.ipv4, ascending[0..50], 1);
    try fixture.expectNumbered(.ipv6, ascending[0..50], 1);
}

test "trains are cut at 64 segments and at the longest payload" {
    const Row = struct { family: Family, size: u16, length: usize, calls: usize, messages: usize };
    const rows = [_]Row{
        .{ .family = .ipv4, .size = 100, .length = 6400, .calls = 1, .messages = 1 },
        .{ .family = .ipv4, .size = 100, .length = 6500, .calls = 1, .messages = 2 },
        .{ .family = .ipv4, .size = 1452, .length = 45 * 1452, .calls = 1, .messages = 1 },
        .{ .family = .ipv4, .size = 1452, .length = 47 * 1452, .calls = 1, .messages = 2 },
        .{ .family = .ipv4, .size = 32_753, .length = 65_507, .calls = 1, .messages = 2 }, // 2 x 32 753 = 65 506
        .{ .family = .ipv4, .size = 21_835, .length = 65_505, .calls = 1, .messages = 1 },
        .{ .family = .ipv4, .size = 21_836, .length = 65_508, .calls = 1, .messages = 2 },
        .{ .family = .ipv6, .size = 21_842, .length = 65_526, .calls = 1, .messages = 1 },
        .{ .family = .ipv6, .size = 21_843, .length = 65_529, .calls = 1, .messages = 2 },
        .{ .family = .ipv4, .size = 40_000, .length = 60_000, .calls = 1, .messages = 2 }, // no two fit
    };
    const Counting = struct {
        var messages_sent: usize = 0;
        fn sendmmsg(fd: sys.fd_t, messages: [*]linux.mmsghdr, count: u32, flags: u32) usize {
            messages_sent += count;
            return linux.sendmmsg(fd, messages, count, flags);
        }
    };
    const calls: sys.Calls = .{ .sendmmsg = Counting.sendmmsg };
    var fixture: Fixture = .{};
    try fixture.start(&calls);
    defer fixture.stop();
    const buffer = try testing.allocator.alloc(u8, 70_000);
    defer testing.allocator.free(buffer);
    for (rows) |row| {
        if (fixture.b.fd(row.family) == null) continue;
        Counting.messages_sent = 0;
        var transmits = [_]Transmit{.{
            .bytes = numberedTrain(buffer[0..row.length], row.size),
            .segment_size = row.size,
            .endpoint = fixture.target(row.family),
        }};
        const segments = std.math.divCeil(usize, row.length, row.size) catch unreachable;
        try testing.expectEqual(SendResult{ .sent_datagrams = segments }, fixture.a.send(&transmits, 0));
        try testing.expectEqual(row.messages, Counting.messages_sent);
        try fixture.expectNumbered(row.family, ascending[0..segments], row.size);
    }
    try testing.expectEqual(0, fixture.offload.refusals_length);
}

test "single datagrams: empty, longest, and one byte more" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    const buffer = try testing.allocator.alloc(u8, 65_536);
    defer testing.allocator.free(buffer);
    @memset(buffer, 0);
    const Row = struct { family: Family, length: usize, goes: bool };
    for ([_]Row{
        .{ .family = .ipv4, .length = 0, .goes = true },
        .{ .family = .ipv4, .length = 65_507, .goes = true },
        .{ .family = .ipv4, .length = 65_508, .goes = false },
        .{ .family = .ipv6, .length = 65_527, .goes = true },
        .{ .family = .ipv6, .length = 65_528, .goes = false },
    }) |row| {
        if (fixture.b.fd(row.family) == null) continue;
        var transmits = [_]Transmit{
            .{ .bytes = buffer[0..row.length], .segment_size = 0, .endpoint = fixture.target(row.family) },
        };
        const sent = fixture.a.send(&transmits, 0);
        try testing.expectEqual(@intFromBool(row.goes), sent.sent_datagrams);
        try testing.expectEqual(@intFromBool(!row.goes), sent.failed_datagrams);
        if (!row.goes) {
            try testing.expectEqual(0, fixture.b.receive(row.family, &fixture.batch));
            continue;
        }
        try testing.expectEqual(1, fixture.receive(&fixture.b, row.family));
        try testing.expectEqual(row.length, fixture.batch.datagrams[0].bytes.len);
        try testing.expect(!fixture.batch.datagrams[0].truncated);
    }
    try testing.expectEqual(0, fixture.b.counters.truncated);
}

test "errors on receive are counted and end nothing" {
    const Failing = struct {
        var left: usize = 100;
        fn recvmmsg(fd: sys.fd_t, messages: [*]linux.mmsghdr, count: u32, flags: u32) usize {
            if (left == 0) return linux.recvmmsg(fd, messages, count, flags, null);
            left -= 1;
            return sys.failWith(.CONNREFUSED);
        }
    };
    const calls: sys.Calls = .{ .recvmmsg = Failing.recvmmsg };
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    fixture.b.calls = &calls;
    var transmits = [_]Transmit{.{ .bytes = "x", .segment_size = 0, .endpoint = fixture.target(.ipv4) }};
    try testing.expectEqual(1, fixture.a.send(&transmits, 0).sent_datagrams);
    for (0..100) |_| try testing.expectEqual(0, fixture.b.receive(.ipv4, &fixture.batch));
    try testing.expectEqual(100, fixture.b.counters.receive_errors);
    try testing.expectEqual(1, fixture.receive(&fixture.b, .ipv4));
}

test "a path narrower than a segment gets its datagrams without GSO" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    const socket: sys.fd_t = @intCast(linux.socket(linux.AF.INET, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC, 0));
    defer sys.close(socket);
    var request = sys.Ifreq.init("lo").?;
    request.value.integer = 1280;
    try testing.expectEqual(.SUCCESS, linux.errno(linux.ioctl(socket, linux.SIOCSIFMTU, @intFromPtr(&request))));
    var fixture: Fixture = .{};
    try fixture.startHere(&sys.real);
    defer fixture.stop();
    var buffer: [10 * 1452]u8 = undefined;
    for ([_]Family{ .ipv4, .ipv6 }) |family| {
        if (fixture.b.fd(family) == null) continue;
        for ([_]bool{ false, true }) |with_source| {
            var endpoint = fixture.target(family);
            if (with_source) endpoint.source = .{ .address = endpoint.remote.address, .interface_index = 1 };
            var transmits = [_]Transmit{
                .{ .bytes = numberedTrain(&buffer, 1452), .segment_size = 1452, .endpoint = endpoint },
            };
            fixture.offload.refusals_length = 0;
            try testing.expectEqual(SendResult{ .sent_datagrams = 10 }, fixture.a.send(&transmits, 0));
            try testing.expect(!fixture.offload.gsoAllowed(endpoint.remote, 0));
            try testing.expect(!transmits[0].source_refused);
            try fixture.expectNumbered(family, ascending[0..10], 1452);
        }
    }
}

test "sockets that share a port get each session's datagrams at one of them, by receiver index" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    try sys.TestNamespace.setUp("lo", true);
    var offload: Offload = .init(0);
    var workers: [3]Udp = @splat(.init(&sys.real, &offload));
    const port = try workers[0].open(.{});
    defer for (&workers) |*worker| worker.close();
    for (workers[1..]) |*worker| {
        var sockets: Sockets = undefined;
        try worker.joinAside(&sockets, &workers[0].sockets, .{ .port = port });
        worker.sockets = sockets;
    }
    workers[0].steer(&workers[0].sockets, workers.len);
    var stranger: Udp = .init(&sys.real, &offload);
    try testing.expectError(error.AddressInUse, stranger.open(.{ .port = port })); // nobody joins unasked
    var sender: Udp = .init(&sys.real, &offload);
    _ = try sender.open(.{});
    defer sender.close();
    var batch: ReceiveBatch = try .init(testing.allocator);
    defer batch.deinit(testing.allocator);
    for ([_]Family{ .ipv4, .ipv6 }) |family| {
        if (workers[0].fd(family) == null) continue;
        const address = loopback(family);
        for (0..256) |low_byte| {
            const bytes = [_]u8{ 4, 0, 0, 0, @intCast(low_byte), 0xaa, 0xbb, 0xcc } ++ @as([24]u8, @splat(0));
            var transmit = [1]Transmit{.{
                .bytes = &bytes,
                .segment_size = 0,
                .endpoint = .{ .remote = .{ .address = address, .port = port } },
            }};
            try testing.expectEqual(1, sender.send(&transmit, 0).sent_datagrams);
            try testing.expect(waitForDatagram(&workers[low_byte % workers.len], family));
            for (&workers, 0..) |*worker, number| {
                try testing.expectEqual(@intFromBool(number == low_byte % workers.len), worker.receive(family, &batch));
            }
        }
        // A handshake, and something too short for either: anyone's, but somebody's.
        for ([_][]const u8{ &(.{1} ++ @as([147]u8, @splat(0))), &.{4} }) |bytes| {
            var transmit = [1]Transmit{.{
                .bytes = bytes,
                .segment_size = 0,
                .endpoint = .{ .remote = .{ .address = address, .port = port } },
            }};
            try testing.expectEqual(1, sender.send(&transmit, 0).sent_datagrams);
            var received: usize = 0;
            for (0..patience_ms) |_| {
                for (&workers) |*worker| received += worker.receive(family, &batch);
                if (received != 0) break;
                @import("clock.zig").sleep(std.time.ns_per_ms);
            }
            try testing.expectEqual(1, received);
        }
    }
}

fn bindingTo(interface: []const u8, addresses: []const []const u8) wire.Binding {
    var binding: wire.Binding = .{ .interface = wire.binding.InterfaceName.parse(interface).? };
    for (addresses) |text| binding.addresses.put(wire.Address.parse(text).?);
    return binding;
}

test "bound sockets send from their address, and a family without one has no socket" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var fixture: Fixture = .{};
    try fixture.startHere(&sys.real);
    defer fixture.stop();
    fixture.a.close();
    _ = try fixture.a.open(.{ .binding = bindingTo("lo", &.{"127.0.0.9"}) });
    try testing.expectEqual(null, fixture.a.fd(.ipv6));
    const bytes = [_]u8{0};
    var transmits = [1]Transmit{.{ .bytes = &bytes, .segment_size = 0, .endpoint = fixture.target(.ipv4) }};
    try testing.expectEqual(1, fixture.a.send(&transmits, 0).sent_datagrams);
    try testing.expectEqual(1, fixture.receive(&fixture.b, .ipv4));
    try testing.expect(fixture.batch.datagrams[0].endpoint.remote.address.eql(.fromIpv4(.{ 127, 0, 0, 9 })));
    transmits[0].endpoint = fixture.target(.ipv6);
    try testing.expectEqual(
        SendResult{ .failed_datagrams = 1, .last_errno = .AFNOSUPPORT },
        fixture.a.send(&transmits, 0),
    );
    if (fixture.b.fd(.ipv6) == null) return;
    fixture.a.close();
    _ = try fixture.a.open(.{ .binding = bindingTo("", &.{"::1"}) });
    try testing.expect(fixture.a.fd(.ipv4) == null and fixture.a.fd(.ipv6) != null);
}

test "what cannot be bound is refused under its errno, and leaves nothing open" {
    const Refusing = struct {
        var errno: sys.E = .SUCCESS;
        fn setsockopt(fd: sys.fd_t, level: i32, name: u32, value: [*]const u8, length: linux.socklen_t) usize {
            if (errno != .SUCCESS and level == linux.SOL.SOCKET and name == linux.SO.BINDTODEVICE) {
                return sys.failWith(errno);
            }
            return sys.real.setsockopt(fd, level, name, value, length);
        }
    };
    const calls: sys.Calls = .{ .setsockopt = Refusing.setsockopt };
    const Row = struct {
        binding: wire.Binding,
        injected: sys.E = .SUCCESS,
        expected: OpenError,
        errno: sys.E,
        family: Family = .ipv4,
    };
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var offload: Offload = .init(0);
    var udp: Udp = .init(&calls, &offload);
    for ([_]Row{
        .{ .binding = bindingTo("nosuchlink", &.{}), .expected = error.SystemResources, .errno = .NODEV },
        .{ .binding = bindingTo("lo", &.{}), .injected = .PERM, .expected = error.PermissionDenied, .errno = .PERM },
        .{ .binding = bindingTo("", &.{"192.0.2.1"}), .expected = error.SystemResources, .errno = .ADDRNOTAVAIL },
        .{
            .binding = bindingTo("", &.{ "127.0.0.1", "2001:db8::1" }),
            .expected = error.SystemResources,
            .errno = .ADDRNOTAVAIL,
            .family = .ipv6,
        },
    }) |row| {
        Refusing.errno = row.injected;
        try testing.expectError(row.expected, udp.open(.{ .binding = row.binding }));
        try testing.expectEqual(row.errno, udp.failure.errno);
        try testing.expectEqual(row.family, udp.failed_family);
        try testing.expect(!udp.isOpen());
    }
    const NoIpv6 = struct {
        fn socket(domain: u32, kind: u32, protocol: u32) usize {
            if (domain == linux.AF.INET6) return sys.failWith(.AFNOSUPPORT);
            return linux.socket(domain, kind, protocol);
        }
    };
    udp = .init(&.{ .socket = NoIpv6.socket }, &offload);
    try testing.expectError(error.FamilyUnsupported, udp.open(.{ .binding = bindingTo("", &.{ "127.0.0.1", "::1" }) }));
    try testing.expectEqual(Family.ipv6, udp.failed_family);
    _ = try udp.open(.{ .binding = bindingTo("lo", &.{}) }); // nobody asked for IPv6
    udp.close();
}

test "sockets take over a port from ours that share it, all of them, but not from a stranger's" {
    const namespace: sys.TestNamespace = try .enter();
    defer namespace.leave();
    var offload: Offload = .init(0);
    var workers: [2]Udp = @splat(.init(&sys.real, &offload));
    const port = try workers[0].open(.{});
    defer for (&workers) |*worker| worker.close();
    var sockets: Sockets = undefined;
    try workers[1].joinAside(&sockets, &workers[0].sockets, .{ .port = port });
    workers[1].sockets = sockets;
    var sender: Udp = .init(&sys.real, &offload);
    _ = try sender.open(.{});
    defer sender.close();
    var batch: ReceiveBatch = try .init(testing.allocator);
    defer batch.deinit(testing.allocator);
    // Where the address stays, the new sockets are in one group with the old, and have to end in their order.
    var ours: wire.Binding = .{};
    for ([_]wire.Binding{ bindingTo("lo", &.{}), bindingTo("", &.{ "127.0.0.1", "::" }), .{}, .{} }) |binding| {
        const options: BindOptions = .{ .port = port, .binding = binding, .takes_over = ours };
        ours = binding;
        var fresh: [2]Sockets = undefined;
        _ = try workers[0].openAside(&fresh[0], options);
        try workers[1].joinAside(&fresh[1], &fresh[0], options);
        workers[0].steer(&fresh[0], workers.len);
        for ([_]usize{ 1, 0 }) |number| {
            workers[number].close();
            workers[number].sockets = fresh[number];
        }
        for ([_]Family{ .ipv4, .ipv6 }) |family| {
            if (workers[0].fd(family) == null) continue;
            const address = loopback(family);
            for (0..8) |index| {
                const bytes = [_]u8{ 4, 0, 0, 0, @intCast(index) } ++ @as([27]u8, @splat(0));
                var transmit = [1]Transmit{.{
                    .bytes = &bytes,
                    .segment_size = 0,
                    .endpoint = .{ .remote = .{ .address = address, .port = port } },
                }};
                try testing.expectEqual(1, sender.send(&transmit, 0).sent_datagrams);
                try testing.expect(waitForDatagram(&workers[index % workers.len], family));
                for (&workers, 0..) |*worker, number| {
                    const is_its = number == index % workers.len;
                    try testing.expectEqual(@intFromBool(is_its), worker.receive(family, &batch));
                }
            }
        }
    }
    for (&workers) |*worker| worker.close();
    _ = try workers[0].open(.{ .port = port, .binding = bindingTo("", &.{"127.0.0.1"}) });
    var strangers: [2]Udp = @splat(.init(&sys.real, &offload));
    defer for (&strangers) |*stranger| stranger.close();
    const theirs: BindOptions = .{ .port = port, .binding = bindingTo("", &.{"127.0.0.9"}) };
    _ = try strangers[0].open(theirs);
    try strangers[1].joinAside(&sockets, &strangers[0].sockets, theirs); // they share it, but not with us
    strangers[1].sockets = sockets;
    workers[0].share(&workers[0].sockets, true);
    try testing.expectError(error.AddressInUse, workers[0].openAside(&sockets, .{
        .port = port,
        .binding = theirs.binding,
        .takes_over = bindingTo("", &.{"127.0.0.1"}),
    }));
    try testing.expect(workers[0].isOpen());
}

test "what the network answers to one datagram costs none of those after it, and is told once" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    for ([_]Family{ .ipv4, .ipv6 }) |family| {
        if (fixture.b.fd(family) == null) continue;
        // A port that nobody has any more.
        var gone: Udp = .init(&sys.real, &fixture.offload);
        const port = try gone.open(.{});
        gone.close();
        const nowhere: wire.Endpoint = .{ .remote = .{ .address = loopback(family), .port = port } };
        var buffer: [5 * 100]u8 = undefined;
        var transmits = [_]Transmit{
            .{ .bytes = "lost", .segment_size = 0, .endpoint = nowhere },
            .{ .bytes = numberedTrain(&buffer, 100), .segment_size = 100, .endpoint = fixture.target(family) },
        };
        // On loopback the answer is there before the next message is made.
        const sent = fixture.a.send(&transmits, 0);
        try testing.expectEqual(SendResult{ .sent_datagrams = 6 }, sent);
        try fixture.expectNumbered(family, ascending[0..5], 100);
        try testing.expect(fixture.offload.gsoAllowed(fixture.target(family).remote, 0));
        const told = fixture.a.nextIcmpError(family, 0).?;
        try testing.expectEqual(.port_unreachable, told.reason);
        try testing.expect(told.remote.eql(nowhere.remote));
        try testing.expect(told.by.?.eql(loopback(family)));
        try testing.expectEqual(null, fixture.a.nextIcmpError(family, 0));
        try testing.expectEqual(0, fixture.a.receive(family, &fixture.batch));
        try testing.expectEqual(0, fixture.a.counters.receive_errors);
    }
}

test "an error of before costs nothing when nothing of it waits in the error queue" {
    var fixture: Fixture = .{};
    try fixture.start(&Fault.calls);
    defer fixture.stop();
    var endpoint = fixture.target(.ipv4);
    endpoint.source = .{ .address = .fromIpv4(.{ 127, 0, 0, 1 }), .interface_index = 1 };
    var buffer: [5 * 100]u8 = undefined;
    const train = numberedTrain(&buffer, 100);
    for ([_]sys.E{ .CONNREFUSED, .HOSTUNREACH, .NETUNREACH, .MSGSIZE, .ACCES }) |errno| for (1..5) |times| {
        Fault.reset(&.{.{ .errno = errno, .which = .all }});
        Fault.failures_left = times;
        var transmits = [_]Transmit{.{ .bytes = train, .segment_size = 100, .endpoint = endpoint }};
        try testing.expectEqual(SendResult{ .sent_datagrams = 5 }, fixture.a.send(&transmits, 0));
        try testing.expectEqual(times + 1, Fault.calls_made);
        try testing.expect(fixture.offload.gsoAllowed(endpoint.remote, 0));
        try fixture.expectNumbered(.ipv4, ascending[0..5], 100);
    };
    // One that stays is about the train itself: it is given up, and costs no more than these calls.
    Fault.reset(&.{.{ .errno = .HOSTUNREACH, .which = .all }});
    var refused = [_]Transmit{.{ .bytes = train, .segment_size = 100, .endpoint = endpoint }};
    const failed: SendResult = .{ .failed_datagrams = 5, .last_errno = .HOSTUNREACH };
    try testing.expectEqual(failed, fixture.a.send(&refused, 0));
    try testing.expectEqual(5, Fault.calls_made);
}

test "an error of before that is told although the error queue was emptied costs nothing" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    var gone: Udp = .init(&sys.real, &fixture.offload);
    const port = try gone.open(.{});
    gone.close();
    const nowhere: wire.Endpoint = .{ .remote = .{ .address = loopback(.ipv4), .port = port } };
    var lost = [_]Transmit{.{ .bytes = "lost", .segment_size = 0, .endpoint = nowhere }};
    try testing.expectEqual(1, fixture.a.send(&lost, 0).sent_datagrams);
    const off: c_int = 0; // empties the queue, and leaves the error for the next call
    const socket = fixture.a.fd(.ipv4).?;
    const set = linux.setsockopt(socket, linux.IPPROTO.IP, linux.IP.RECVERR, std.mem.asBytes(&off), @sizeOf(c_int));
    try testing.expectEqual(.SUCCESS, linux.errno(set));
    var buffer: [5 * 100]u8 = undefined;
    const train = numberedTrain(&buffer, 100);
    var transmits = [_]Transmit{.{ .bytes = train, .segment_size = 100, .endpoint = fixture.target(.ipv4) }};
    try testing.expectEqual(SendResult{ .sent_datagrams = 5 }, fixture.a.send(&transmits, 0));
    try fixture.expectNumbered(.ipv4, ascending[0..5], 100);
}

test "a flood of answers of the network is left to the kernel for a while" {
    var fixture: Fixture = .{};
    try fixture.start(&sys.real);
    defer fixture.stop();
    var gone: Udp = .init(&sys.real, &fixture.offload);
    const port = try gone.open(.{});
    gone.close();
    const nowhere: wire.Endpoint = .{ .remote = .{ .address = loopback(.ipv4), .port = port } };
    const a = &fixture.a;
    for (0..1000) |_| {
        var one = [_]Transmit{.{ .bytes = "lost", .segment_size = 0, .endpoint = nowhere }};
        _ = a.send(&one, 0);
        while (a.nextIcmpError(.ipv4, 0)) |_| {}
        if (a.icmp_guard.is_deaf) break;
    } else return error.SkipZigTest; // the kernel limits what it tells
    a.hearAgain(std.time.ns_per_s);
    try testing.expect(a.icmp_guard.is_deaf);
    var one = [_]Transmit{.{ .bytes = "lost", .segment_size = 0, .endpoint = nowhere }};
    try testing.expectEqual(1, a.send(&one, 0).sent_datagrams);
    try testing.expectEqual(null, a.nextIcmpError(.ipv4, 0));
    a.hearAgain(60 * std.time.ns_per_s);
    try testing.expect(!a.icmp_guard.is_deaf);
}

/// An error queue: so many messages that say nothing to users, then one that does.
const ErrorQueue = struct {
    var others: usize = 0;
    var taken: usize = 0;

    const calls: sys.Calls = .{ .recvmsg = recvmsg };

    fn reset(count: usize) void {
        others = count;
        taken = 0;
    }

    fn recvmsg(_: sys.fd_t, message: *linux.msghdr, _: u32) usize {
        if (taken > others) return sys.failWith(.AGAIN);
        const protocol_unreachable = 2;
        const port_unreachable = 3;
        const code: u8 = if (taken < others) protocol_unreachable else port_unreachable;
        taken += 1;
        // struct sock_extended_err: errno, SO_EE_ORIGIN_ICMP, type "destination unreachable", code, and what is left.
        const extended = [16]u8{ 111, 0, 0, 0, 2, 3, code, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
        const header: linux.cmsghdr = .{
            .len = @sizeOf(linux.cmsghdr) + extended.len,
            .level = linux.IPPROTO.IP,
            .type = linux.IP.RECVERR,
        };
        const control: [*]u8 = @ptrCast(message.control.?);
        @memcpy(control[0..@sizeOf(linux.cmsghdr)], std.mem.asBytes(&header));
        @memcpy(control[@sizeOf(linux.cmsghdr)..][0..extended.len], &extended);
        message.controllen = @sizeOf(linux.cmsghdr) + extended.len;
        const name: *Name = @ptrCast(@alignCast(message.name.?));
        message.namelen = name.set(.{ .address = loopback(.ipv4), .port = 5 });
        return 0;
    }
};

test "answers of the network that say nothing to users are passed by, and are part of a flood" {
    var fixture: Fixture = .{};
    try fixture.start(&ErrorQueue.calls);
    defer fixture.stop();
    ErrorQueue.reset(20);
    try testing.expectEqual(.port_unreachable, fixture.a.nextIcmpError(.ipv4, 0).?.reason);
    try testing.expectEqual(null, fixture.a.nextIcmpError(.ipv4, 0));
    try testing.expect(!fixture.a.icmp_guard.is_deaf);
    ErrorQueue.reset(1000);
    try testing.expectEqual(null, fixture.a.nextIcmpError(.ipv4, std.time.ns_per_s));
    try testing.expect(fixture.a.icmp_guard.is_deaf);
    try testing.expect(ErrorQueue.taken < 1000);
}
