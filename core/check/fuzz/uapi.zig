//! The text of the control plane: made up by its grammar and then damaged, or from no grammar at all. A text that is
//! refused, or for which memory ends, changes nothing; what is accepted can be read, set again elsewhere and read
//! equal. Does not know what any line means.
const std = @import("std");
const linux = std.os.linux;
const protocol = @import("protocol");
const report = @import("report");
const Interface = protocol.Interface;
const uapi = protocol.uapi;

/// What is planted to see that it is found.
const Fault = enum { none, half_applied, forgotten_line, told_value };
var fault: Fault = .none;

var memory: [48 << 20]u8 = undefined;
var text_memory: [1 << 17]u8 = undefined;
var answers: [3][1 << 17]u8 = undefined;

pub fn prepare(wanted: ?[]const u8) bool {
    fault = std.meta.stringToEnum(Fault, wanted orelse "none") orelse return false;
    return true;
}

pub fn iterate(random: std.Random) report.Error!void {
    var world: World = undefined;
    world.init() catch return report.mismatch("no interface could be made", .{});
    for (0..random.intRangeAtMost(usize, 1, 12)) |_| {
        const text = makeText(random);
        // Now and then memory ends in the middle.
        const is_poor = random.uintLessThan(u8, 6) == 0;
        world.failing.left = if (is_poor) random.uintLessThan(usize, 12) else std.math.maxInt(usize);
        try world.set(text);
    }
}

pub fn replay(file: i32) report.Error!void {
    const length = linux.read(file, &text_memory, text_memory.len);
    if (linux.errno(length) != .SUCCESS) return report.mismatch("the file cannot be read", .{});
    var world: World = undefined;
    world.init() catch return report.mismatch("no interface could be made", .{});
    try world.set(text_memory[0..length]);
}

/// Texts one after the other, an empty line between them. One that begins with a control character has memory for so
/// many requests and no more.
pub fn judge(bytes: []const u8) report.Error!void {
    var world: World = undefined;
    world.init() catch return report.mismatch("no interface could be made", .{});
    var texts = std.mem.splitSequence(u8, bytes, "\n\n");
    for (0..texts_max) |_| {
        var text = texts.next() orelse return;
        world.failing.left = std.math.maxInt(usize);
        if (text.len > 0 and text[0] < '\n') {
            world.failing.left = text[0];
            text = text[1..];
        }
        if (text.len <= text_memory.len / 2) try world.set(text);
    }
}

const texts_max = 16;

/// An interface whose memory can be made to end.
const World = struct {
    fixed: std.heap.FixedBufferAllocator,
    failing: Failing,
    interface: Interface,

    fn init(world: *World) !void {
        world.fixed = .init(&memory);
        world.failing = .{ .parent = world.fixed.allocator() };
        world.interface = try open(world.failing.allocator());
    }

    fn set(world: *World, text: []const u8) report.Error!void {
        const before = try write(&world.interface, &answers[0]);
        const accepted = try world.apply(text);
        world.failing.left = std.math.maxInt(usize);
        const after = try write(&world.interface, &answers[1]);
        if (!accepted) {
            if (!std.mem.eql(u8, before, after)) return describe("a refused text changed something", text);
            return;
        }
        try world.expectRoundTrip(text, after);
        // The same text again is the same state, unless it takes something away or counts from what was there.
        const again = try world.apply(text);
        if (!again) return describe("a text is refused the second time", text);
    }

    /// Whether all of it was applied.
    fn apply(world: *World, text: []const u8) report.Error!bool {
        const gpa = world.failing.allocator();
        var diagnostic: uapi.Diagnostic = .{};
        var change = uapi.parse(gpa, text, &diagnostic) catch |err| {
            if (err != error.OutOfMemory) try expectDiagnostic(text, &diagnostic);
            if (fault == .half_applied) world.interface.fwmark +%= 1;
            return false;
        };
        defer change.deinit(gpa);
        world.interface.configure(&change) catch return false;
        return true;
    }

    /// What get says, set on a fresh interface, is what get says there.
    fn expectRoundTrip(world: *World, text: []const u8, told: []const u8) report.Error!void {
        _ = world;
        var scratch: std.heap.FixedBufferAllocator = .init(scratch_memory[0..]);
        const gpa = scratch.allocator();
        var fresh = open(gpa) catch return report.mismatch("no second interface could be made", .{});
        const settable = withoutStatistics(told, &text_again);
        var diagnostic: uapi.Diagnostic = .{};
        var change = uapi.parse(gpa, settable, &diagnostic) catch {
            return describe("what get says cannot be set", text);
        };
        fresh.configure(&change) catch return describe("what get says cannot be applied", text);
        const second = try write(&fresh, &answers[2]);
        if (contentOf(told) != contentOf(second)) return describe("get, set, get differ", text);
    }
};

var scratch_memory: [48 << 20]u8 = undefined;
var text_again: [1 << 17]u8 = undefined;

fn open(gpa: std.mem.Allocator) !Interface {
    return .init(.{ .allocator = gpa, .entropy = .{ .context = null, .fillFn = fillWithSevens }, .staging_chunks = 2 });
}

fn fillWithSevens(_: ?*anyopaque, out: []u8) bool {
    @memset(out, 7);
    return true;
}

fn write(interface: *Interface, out: []u8) report.Error![]const u8 {
    var writer: std.Io.Writer = .fixed(out);
    interface.writeConfiguration(&writer) catch return report.mismatch(
        "the configuration is longer than {d} bytes",
        .{out.len},
    );
    const said = writer.buffered();
    if (fault == .forgotten_line and out.ptr == &answers[2] and said.len > 0) {
        return said[0..(std.mem.findScalarLast(u8, said[0 .. said.len - 1], '\n') orelse 0)];
    }
    return said;
}

fn withoutStatistics(told: []const u8, out: []u8) []const u8 {
    var length: usize = 0;
    var lines = std.mem.splitScalar(u8, told, '\n');
    while (lines.next()) |line| {
        const is_counted = for ([_][]const u8{ "last_handshake", "tx_bytes", "rx_bytes" }) |key| {
            if (std.mem.startsWith(u8, line, key)) break true;
        } else false;
        if (is_counted) continue;
        @memcpy(out[length..][0..line.len], line);
        out[length + line.len] = '\n';
        length += line.len + 1;
    }
    return out[0 .. length - 1];
}

/// Equal for texts with equal lines in equal sections, in whatever order: peers and prefixes have none.
fn contentOf(text: []const u8) u64 {
    var sum: u64 = 0;
    var section: u64 = 0;
    var lines = std.mem.splitScalar(u8, text, '\n');
    while (lines.next()) |line| {
        if (std.mem.startsWith(u8, line, "public_key=")) section = std.hash.Wyhash.hash(0, line);
        sum +%= std.hash.Wyhash.hash(section, line) | 1;
    }
    return sum;
}

/// It names a line of the text, and repeats nothing of a value.
fn expectDiagnostic(text: []const u8, diagnostic: *const uapi.Diagnostic) report.Error!void {
    const message = if (fault == .told_value) text[0..@min(text.len, 80)] else diagnostic.message;
    if (message.len == 0) return describe("a refusal says nothing", text);
    const lines = std.mem.countScalar(u8, text, '\n') + 1;
    if (diagnostic.line == 0 or diagnostic.line > lines) return describe("a refusal names a line that is none", text);
    var digits: usize = 0;
    for (message) |byte| {
        digits = if (std.ascii.isHex(byte)) digits + 1 else 0;
        if (digits >= 16) return describe("a refusal holds what may be a key", text);
    }
}

fn describe(what: []const u8, text: []const u8) report.Error {
    return report.mismatch("{s}; text of {d} bytes: {f}", .{
        what, text.len, std.ascii.hexEscape(text[0..@min(text.len, 1500)], .lower),
    });
}

// ---- texts --------------------------------------------------------------------------------------------------------

fn makeText(random: std.Random) []const u8 {
    var writer: std.Io.Writer = .fixed(text_memory[0 .. text_memory.len / 2]);
    if (random.uintLessThan(u8, 16) == 0) {
        const raw = text_memory[0..random.uintLessThan(usize, 400)];
        random.bytes(raw);
        return raw;
    }
    writeLines(random, &writer) catch {};
    var text = text_memory[0..writer.end];
    if (random.uintLessThan(u8, 3) == 0) text = damage(random, text);
    return text;
}

fn writeLines(random: std.Random, writer: *std.Io.Writer) !void {
    for (0..random.uintLessThan(usize, 4)) |_| switch (random.uintLessThan(u8, 8)) {
        0, 1 => try writer.print("private_key={x}\n", .{&keyOf(random)}),
        2 => try writer.print("listen_port={d}\n", .{random.int(u16)}),
        3 => try writer.print("fwmark={d}\n", .{random.int(u32)}),
        4 => try writer.print("fwmark=0x{x}\n", .{random.int(u32)}),
        5 => try writer.writeAll("replace_peers=true\n"),
        6 => try writer.print("pywg_bind_device={s}\n", .{if (random.boolean()) "eth0" else ""}),
        else => try writer.print(
            "pywg_bind_address={s}\n",
            .{pick(random, &.{ "", "192.0.2.1", "2001:db8::1", "0.0.0.0", "::" })},
        ),
    };
    const peers_max: usize = if (random.uintLessThan(u8, 40) == 0) 200 else 6;
    for (0..random.uintLessThan(usize, peers_max)) |_| try writePeer(random, writer);
    if (random.boolean()) try writer.writeByte('\n');
}

fn writePeer(random: std.Random, writer: *std.Io.Writer) !void {
    try writer.print("public_key={x}\n", .{&keyOf(random)});
    for (0..random.uintLessThan(usize, 8)) |_| switch (random.uintLessThan(u8, 12)) {
        0 => try writer.writeAll("remove=true\n"),
        1 => try writer.writeAll("update_only=true\n"),
        2 => try writer.writeAll("replace_allowed_ips=true\n"),
        3 => try writer.print("preshared_key={x}\n", .{&keyOf(random)}),
        4 => try writer.print("persistent_keepalive_interval={d}\n", .{random.int(u16) >> random.int(u4)}),
        5 => try writer.writeAll("protocol_version=1\n"),
        6 => try writer.print("endpoint={d}.2.3.4:{d}\n", .{ random.int(u8), random.int(u16) }),
        7 => try writer.print("endpoint=[fe80::{x}%{d}]:{d}\n", .{ random.int(u16), random.int(u8), random.int(u16) }),
        8 => try writer.print("allowed_ip={s}{x}:{x}::{x}/{d}\n", .{
            sign(random), random.int(u16), random.int(u2), random.int(u4), random.uintAtMost(u8, 128),
        }),
        else => try writer.print("allowed_ip={s}10.{d}.{d}.{d}/{d}\n", .{
            sign(random), random.int(u2), random.int(u2), random.int(u8), random.uintAtMost(u8, 32),
        }),
    };
}

fn sign(random: std.Random) []const u8 {
    return pick(random, &.{ "", "", "", "-", "+" });
}

fn pick(random: std.Random, words: []const []const u8) []const u8 {
    return words[random.uintLessThan(usize, words.len)];
}

/// One of few, so that the same peers come again; zeros and ones among them.
fn keyOf(random: std.Random) [32]u8 {
    const number = random.uintLessThan(u8, 12);
    if (number == 11) return @splat(0xff);
    var key: [32]u8 = @splat(number);
    if (random.uintLessThan(u8, 20) == 0) random.bytes(&key);
    return key;
}

/// Bytes changed, taken out, doubled; lines cut off.
fn damage(random: std.Random, text: []u8) []u8 {
    if (text.len == 0) return text;
    var length = text.len;
    for (0..random.intRangeAtMost(usize, 1, 3)) |_| {
        const at = random.uintLessThan(usize, length);
        switch (random.uintLessThan(u8, 6)) {
            0 => text_memory[at] = random.int(u8),
            1 => text_memory[at] ^= @as(u8, 1) << random.int(u3),
            2 => length = @max(1, at),
            3 => text_memory[at] = pick(random, &.{ "\n", "=", "-", "/", ":", " ", "\r", "\x00", "0", "%" })[0],
            4 => { // a part again
                const part = @min(random.uintLessThan(usize, 100), length - at);
                @memcpy(text_memory[length..][0..part], text_memory[at..][0..part]);
                length += part;
            },
            else => {
                const part = @min(random.uintLessThan(usize, 20), length - at);
                std.mem.copyForwards(u8, text_memory[at..], text_memory[at + part .. length]);
                length = @max(1, length - part);
            },
        }
    }
    return text_memory[0..length];
}

/// Grants so many requests and no more.
const Failing = struct {
    parent: std.mem.Allocator,
    left: usize = std.math.maxInt(usize),

    fn allocator(failing: *Failing) std.mem.Allocator {
        return .{ .ptr = failing, .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free } };
    }

    fn grants(failing: *Failing) bool {
        if (failing.left == 0) return false;
        failing.left -= 1;
        return true;
    }

    fn alloc(context: *anyopaque, length: usize, alignment: std.mem.Alignment, address: usize) ?[*]u8 {
        const failing: *Failing = @ptrCast(@alignCast(context));
        return if (failing.grants()) failing.parent.rawAlloc(length, alignment, address) else null;
    }

    fn resize(context: *anyopaque, bytes: []u8, alignment: std.mem.Alignment, length: usize, address: usize) bool {
        const failing: *Failing = @ptrCast(@alignCast(context));
        return failing.parent.rawResize(bytes, alignment, length, address);
    }

    fn remap(context: *anyopaque, bytes: []u8, alignment: std.mem.Alignment, length: usize, address: usize) ?[*]u8 {
        const failing: *Failing = @ptrCast(@alignCast(context));
        return failing.parent.rawRemap(bytes, alignment, length, address);
    }

    fn free(context: *anyopaque, bytes: []u8, alignment: std.mem.Alignment, address: usize) void {
        const failing: *Failing = @ptrCast(@alignCast(context));
        failing.parent.rawFree(bytes, alignment, address);
    }
};
