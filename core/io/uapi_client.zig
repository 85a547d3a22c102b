//! A client of the configuration socket: its stream is cut into requests, and answers go out as fast as it reads them.
//! Knows blank lines, not what the lines say; those hold keys, so buffers are zeroed before they are freed or used
//! again.
//! Invariant: no client can stop another or the device: nothing blocks, everything has a limit.
const std = @import("std");
const sys = @import("linux.zig");
const poller = @import("poller.zig");

const linux = std.os.linux;
const Allocator = std.mem.Allocator;

/// Of one request, all lines together.
pub const request_max = 64 << 20;
/// Of one line, without its newline: 65 535 characters.
pub const line_max = 64 << 10;
/// Clients at once; the one that has been silent longest makes way for the next.
pub const clients_max = 16;
/// A client that is silent for so long in the middle of something is closed.
pub const patience_ns = 10 * std.time.ns_per_s;
/// Taken from one client before others have a turn.
const read_budget = 1 << 20;
/// A buffer beyond this is given back once it is empty.
const kept_capacity = 64 << 10;

/// Bytes that may be keys: whatever leaves the buffer is zeroed first.
const SecretBuffer = struct {
    memory: []u8 = &.{},
    length: usize = 0,

    fn deinit(buffer: *SecretBuffer, allocator: Allocator) void {
        std.crypto.secureZero(u8, buffer.memory);
        allocator.free(buffer.memory);
        buffer.* = .{};
    }

    fn items(buffer: *const SecretBuffer) []u8 {
        return buffer.memory[0..buffer.length];
    }

    fn ensureUnused(buffer: *SecretBuffer, allocator: Allocator, wanted: usize) error{OutOfMemory}!void {
        const needed = buffer.length + wanted;
        if (needed <= buffer.memory.len) return;
        const grown = try allocator.alloc(u8, @max(needed, buffer.memory.len * 2, 4096));
        @memcpy(grown[0..buffer.length], buffer.items());
        std.crypto.secureZero(u8, buffer.memory);
        allocator.free(buffer.memory);
        buffer.memory = grown;
    }

    fn append(buffer: *SecretBuffer, allocator: Allocator, bytes: []const u8) error{OutOfMemory}!void {
        try buffer.ensureUnused(allocator, bytes.len);
        @memcpy(buffer.memory[buffer.length..][0..bytes.len], bytes);
        buffer.length += bytes.len;
    }

    /// Drops the first `count` bytes and zeroes the room they leave.
    fn consume(buffer: *SecretBuffer, allocator: Allocator, count: usize) void {
        if (count == 0) return;
        const rest = buffer.length - count;
        if (rest == 0 and buffer.memory.len > kept_capacity) return buffer.deinit(allocator);
        std.mem.copyForwards(u8, buffer.memory[0..rest], buffer.memory[count..buffer.length]);
        std.crypto.secureZero(u8, buffer.memory[rest..buffer.length]);
        buffer.length = rest;
    }
};

pub const Readable = union(enum) {
    /// Every line of one request with its newline, without the blank line. Valid until the next call.
    request: []const u8,
    /// Nothing complete yet.
    more,
    /// The client has gone, or memory for it has.
    closed,
    /// Beyond `request_max` or `line_max`: answer and close.
    too_long,
};

pub const Client = struct {
    fd: sys.fd_t,
    input: SecretBuffer = .{},
    /// Bytes of `input` that the last request took; they are dropped at the next call.
    taken: usize = 0,
    /// Where the search for a blank line goes on, and where the line there began.
    scanned: usize = 0,
    line_start: usize = 0,
    output: SecretBuffer = .{},
    output_sent: usize = 0,
    last_active_ns: u64 = 0,

    pub fn deinit(client: *Client, allocator: Allocator) void {
        client.input.deinit(allocator);
        client.output.deinit(allocator);
        sys.close(client.fd);
        client.* = undefined;
    }

    /// In the middle of a request or of an answer. Between them a client may be silent for as long as it likes.
    fn isWaiting(client: *const Client) bool {
        return client.output.length != 0 or client.input.length > client.taken;
    }

    /// Whether it has said more than the last request, and did not wait for the answer.
    pub fn hasSaidMore(client: *const Client) bool {
        return client.input.length > client.taken;
    }

    /// What to poll for. While a reply waits nothing more is read, so that a client which does not read
    /// cannot make us hoard replies.
    pub fn interest(client: *const Client) u32 {
        return if (client.output.length != 0) poller.out else poller.in;
    }

    /// Call until it says something other than `request`.
    pub fn readable(client: *Client, allocator: Allocator) Readable {
        client.input.consume(allocator, client.taken);
        client.taken = 0;
        if (client.output.length != 0) return .more;
        if (client.scan()) |found| return found;
        var budget: usize = read_budget;
        while (budget != 0) {
            client.input.ensureUnused(allocator, 4096) catch return .closed;
            const room = client.input.memory[client.input.length..];
            const rc = linux.read(client.fd, room.ptr, @min(room.len, budget));
            switch (sys.result(rc)) {
                .value => |length| {
                    if (length == 0) return .closed;
                    client.input.length += length;
                    budget -= length;
                    if (client.scan()) |found| return found;
                },
                .failure => |code| switch (code) {
                    .INTR => {},
                    .AGAIN => return .more,
                    else => return .closed,
                },
            }
        }
        return .more;
    }

    /// Looks at each byte once, however slowly they come.
    fn scan(client: *Client) ?Readable {
        const bytes = client.input.items();
        while (std.mem.findScalarPos(u8, bytes, client.scanned, '\n')) |newline| {
            const length = newline - client.line_start;
            if (length >= line_max) return .too_long;
            client.scanned = newline + 1;
            if (length == 0) {
                const request = bytes[0..client.line_start];
                if (request.len > request_max) return .too_long;
                client.taken = client.scanned;
                client.scanned = 0;
                client.line_start = 0;
                return .{ .request = request };
            }
            client.line_start = client.scanned;
        }
        client.scanned = bytes.len;
        if (bytes.len - client.line_start >= line_max or client.line_start > request_max) return .too_long;
        return null;
    }

    pub const Flushed = enum { done, pending, closed };

    /// Sends what goes now and keeps the rest for `flush`.
    pub fn reply(client: *Client, allocator: Allocator, text: []const u8) Flushed {
        client.output.append(allocator, text) catch return .closed;
        return client.flush(allocator);
    }

    /// The same for text of the allocator's, which is zeroed and given back once it is sent: long ones are not copied.
    pub fn replyOwned(client: *Client, allocator: Allocator, text: []u8) Flushed {
        if (client.output.length == 0) {
            client.output.deinit(allocator);
            client.output = .{ .memory = text, .length = text.len };
            return client.flush(allocator);
        }
        defer {
            std.crypto.secureZero(u8, text);
            allocator.free(text);
        }
        return client.reply(allocator, text);
    }

    /// Call when the socket is writable. After `done`, call `readable`: requests may be waiting in the buffer.
    pub fn flush(client: *Client, allocator: Allocator) Flushed {
        while (client.output_sent < client.output.length) {
            const rest = client.output.items()[client.output_sent..];
            const rc = linux.sendto(client.fd, rest.ptr, rest.len, linux.MSG.NOSIGNAL, null, 0);
            switch (sys.result(rc)) {
                .value => |length| client.output_sent += length,
                .failure => |code| switch (code) {
                    .INTR => {},
                    .AGAIN => return .pending,
                    else => return .closed,
                },
            }
        }
        client.output.consume(allocator, client.output.length);
        client.output_sent = 0;
        return .done;
    }
};

/// A fixed table; the slot number serves as the poller's token.
pub const Clients = struct {
    slots: [clients_max]?Client = @splat(null),

    pub fn deinit(clients: *Clients, allocator: Allocator) void {
        for (0..clients_max) |slot| clients.remove(allocator, slot);
    }

    /// The slot of the new client. When all are taken, the client that has been silent longest is closed;
    /// closing takes its descriptor out of the poller.
    pub fn add(clients: *Clients, allocator: Allocator, fd: sys.fd_t, now_ns: u64) usize {
        const slot = clients.freeSlot() orelse blk: {
            const oldest = clients.oldestSlot();
            clients.remove(allocator, oldest);
            break :blk oldest;
        };
        clients.slots[slot] = .{ .fd = fd, .last_active_ns = now_ns };
        return slot;
    }

    pub fn get(clients: *Clients, slot: usize) ?*Client {
        if (slot >= clients_max) return null;
        return if (clients.slots[slot]) |*client| client else null;
    }

    pub fn remove(clients: *Clients, allocator: Allocator, slot: usize) void {
        if (clients.slots[slot]) |*client| client.deinit(allocator);
        clients.slots[slot] = null;
    }

    /// Whether the time of one of them runs: see `removeStuck`.
    pub fn isAnyWaiting(clients: *const Clients) bool {
        for (&clients.slots) |*slot| if (slot.*) |*client| {
            if (client.isWaiting()) return true;
        };
        return false;
    }

    /// Closes those that stopped in the middle, of a request or of reading the answer.
    pub fn removeStuck(clients: *Clients, allocator: Allocator, now_ns: u64) void {
        for (0..clients_max) |slot| {
            const client = clients.get(slot) orelse continue;
            if (client.isWaiting() and now_ns -| client.last_active_ns >= patience_ns) clients.remove(allocator, slot);
        }
    }

    fn freeSlot(clients: *const Clients) ?usize {
        for (clients.slots, 0..) |client, slot| if (client == null) return slot;
        return null;
    }

    fn oldestSlot(clients: *const Clients) usize {
        var oldest: usize = 0;
        for (clients.slots, 0..) |client, slot| {
            if (client.?.last_active_ns < clients.slots[oldest].?.last_active_ns) oldest = slot;
        }
        return oldest;
    }
};

// ---- tests -------------------------------------------------------------------------------------------

const testing = std.testing;

fn put(fd: sys.fd_t, text: []const u8) !void {
    try testing.expectEqual(text.len, linux.write(fd, text.ptr, text.len));
}

/// Both ends of a connection without a listener.
fn pair() ![2]sys.fd_t {
    var ends: [2]sys.fd_t = undefined;
    const kind = linux.SOCK.STREAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK;
    try testing.expectEqual(.SUCCESS, linux.errno(linux.socketpair(linux.AF.UNIX, kind, 0, &ends)));
    return ends;
}

test "requests are cut at blank lines, however the bytes come" {
    const text = "get=1\n\nset=1\nlisten_port=5\n\n\nget=1\n\n";
    const expected = [_][]const u8{ "get=1\n", "set=1\nlisten_port=5\n", "", "get=1\n" };
    for ([_]usize{ 1, 2, 3, 7, text.len }) |step| {
        const ends = try pair();
        defer sys.close(ends[0]);
        var client: Client = .{ .fd = ends[1] };
        defer client.deinit(testing.allocator);
        var next: usize = 0;
        var at: usize = 0;
        while (at < text.len) : (at += step) {
            try put(ends[0], text[at..@min(at + step, text.len)]);
            while (true) switch (client.readable(testing.allocator)) {
                .request => |request| {
                    try testing.expectEqualStrings(expected[next], request);
                    next += 1;
                },
                .more => break,
                .closed, .too_long => return error.TestUnexpectedResult,
            };
        }
        try testing.expectEqual(expected.len, next);
        // What was taken is zeroed, not merely forgotten.
        for (client.input.memory[client.input.length..]) |byte| {
            try testing.expect(byte == 0 or byte == 0xaa); // 0xaa: never written
        }
    }
}

test "a client that only connects, or leaves in the middle, is closed" {
    for ([_][]const u8{ "", "set=1\nprivate_key=" }) |text| {
        const ends = try pair();
        var client: Client = .{ .fd = ends[1] };
        defer client.deinit(testing.allocator);
        if (text.len != 0) try put(ends[0], text);
        try testing.expectEqual(.more, std.meta.activeTag(client.readable(testing.allocator)));
        sys.close(ends[0]);
        try testing.expectEqual(.closed, std.meta.activeTag(client.readable(testing.allocator)));
    }
}

test "lines up to 64 KiB pass, longer ones do not" {
    const buffer = try testing.allocator.alloc(u8, line_max + 2);
    defer testing.allocator.free(buffer);
    for ([_]usize{ line_max - 1, line_max }, [_]bool{ true, false }) |length, passes| {
        for ([_]bool{ true, false }) |ends_line| {
            if (passes and !ends_line) continue;
            const ends = try pair();
            defer sys.close(ends[0]);
            var client: Client = .{ .fd = ends[1] };
            defer client.deinit(testing.allocator);
            @memset(buffer, 'x');
            buffer[length] = '\n';
            buffer[length + 1] = '\n';
            const sent = buffer[0 .. length + @as(usize, if (ends_line) 2 else 0)];
            var at: usize = 0;
            const answer = while (true) {
                if (at < sent.len) {
                    const rc = linux.write(ends[0], sent[at..].ptr, sent.len - at);
                    if (linux.errno(rc) == .SUCCESS) at += rc;
                }
                const answer = client.readable(testing.allocator);
                if (answer != .more) break answer;
            };
            switch (answer) {
                .request => |request| try testing.expectEqual(length + 1, request.len),
                .too_long => try testing.expect(!passes),
                .more, .closed => return error.TestUnexpectedResult,
            }
        }
    }
}

test "a request without end is refused at its limit" {
    var client: Client = .{ .fd = -1 };
    client.input.memory = try testing.allocator.alloc(u8, request_max + 128);
    defer client.input.deinit(testing.allocator);
    @memset(client.input.memory, 'x');
    var i: usize = 63;
    while (i < client.input.memory.len) : (i += 64) client.input.memory[i] = '\n';
    client.input.length = request_max;
    try testing.expectEqual(null, client.scan());
    client.input.memory[request_max] = '\n';
    client.input.length = request_max + 1;
    try testing.expectEqual(request_max, client.scan().?.request.len);
    client.taken = 0;
    client.input.memory[request_max] = 'x';
    client.input.length = request_max + 64;
    try testing.expectEqual(.too_long, std.meta.activeTag(client.scan().?));
}

test "a long reply goes out as fast as it is read, and holds back further requests" {
    const ends = try pair();
    defer sys.close(ends[0]);
    var client: Client = .{ .fd = ends[1] };
    defer client.deinit(testing.allocator);
    try put(ends[0], "get=1\n\nget=1\n\n");
    try testing.expect(client.readable(testing.allocator) == .request);
    const text = try testing.allocator.alloc(u8, 4 << 20);
    defer testing.allocator.free(text);
    for (text, 0..) |*byte, i| byte.* = @truncate(i *% 31);
    try testing.expectEqual(.pending, client.reply(testing.allocator, text));
    try testing.expectEqual(poller.out, client.interest());
    try testing.expect(client.readable(testing.allocator) == .more);
    var received: usize = 0;
    var chunk: [65_536]u8 = undefined;
    while (received < text.len) {
        const rc = linux.read(ends[0], &chunk, chunk.len);
        if (linux.errno(rc) == .SUCCESS) {
            try testing.expectEqualSlices(u8, text[received..][0..rc], chunk[0..rc]);
            received += rc;
        }
        _ = client.flush(testing.allocator);
    }
    try testing.expectEqual(poller.in, client.interest());
    try testing.expectEqual(0, client.output.memory.len); // a large buffer is given back
    try testing.expect(client.readable(testing.allocator) == .request);
}

test "a reply to a client that has gone closes it, without a signal" {
    const ends = try pair();
    var client: Client = .{ .fd = ends[1] };
    defer client.deinit(testing.allocator);
    sys.close(ends[0]);
    try testing.expectEqual(.closed, client.reply(testing.allocator, "errno=0\n\n"));
}

test "the client that was silent longest makes way" {
    var clients: Clients = .{};
    defer clients.deinit(testing.allocator);
    var others: [clients_max + 1]sys.fd_t = undefined;
    for (&others, 0..) |*other, i| {
        const ends = try pair();
        other.* = ends[0];
        const slot = clients.add(testing.allocator, ends[1], i);
        if (i == clients_max - 1) clients.get(0).?.last_active_ns = 1000; // it spoke
        if (i == clients_max) try testing.expectEqual(1, slot);
    }
    defer for (others) |fd| sys.close(fd);
    var byte: [1]u8 = undefined;
    try testing.expectEqual(0, linux.read(others[1], &byte, 1)); // end of file
    try testing.expectEqual(sys.E.AGAIN, linux.errno(linux.read(others[0], &byte, 1)));
    try testing.expect(clients.get(clients_max) == null);
}

test "who stops in the middle of a request or of an answer is closed, who is silent between them is not" {
    var clients: Clients = .{};
    defer clients.deinit(testing.allocator);
    var others: [3]sys.fd_t = undefined;
    for (&others) |*other| {
        const ends = try pair();
        other.* = ends[0];
        _ = clients.add(testing.allocator, ends[1], 5);
    }
    defer for (others) |fd| sys.close(fd);
    try put(others[0], "get=1\n\n");
    try testing.expect(clients.get(0).?.readable(testing.allocator) == .request);
    try testing.expect(!clients.isAnyWaiting());
    try put(others[1], "set=1\n");
    try testing.expect(clients.get(1).?.readable(testing.allocator) == .more);
    try testing.expect(clients.isAnyWaiting());
    const long = try testing.allocator.alloc(u8, 4 << 20);
    defer testing.allocator.free(long);
    @memset(long, 'x');
    try testing.expectEqual(.pending, clients.get(2).?.reply(testing.allocator, long));
    clients.removeStuck(testing.allocator, 4 + patience_ns);
    try testing.expect(clients.get(1) != null and clients.get(2) != null);
    clients.removeStuck(testing.allocator, 5 + patience_ns);
    try testing.expect(clients.get(0) != null and clients.get(1) == null and clients.get(2) == null);
}

test "no memory for a client closes it and leaves the others" {
    const ends = try pair();
    defer sys.close(ends[0]);
    var client: Client = .{ .fd = ends[1] };
    defer client.deinit(testing.allocator);
    try put(ends[0], "get=1\n\n");
    try testing.expect(client.readable(testing.failing_allocator) == .closed);
    try testing.expectEqual(.closed, client.reply(testing.failing_allocator, "x"));
}
