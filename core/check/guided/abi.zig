//! The C ABI: the bytes decide which function is called with what, NULL, odd sizes, short buffers and overlapping ones
//! among it, as far as docs/ABI.md lets a caller go. Two interfaces talk to each other in between. With the right to
//! make network namespaces there is a device as well, in one of its own; it never runs.
//! Buffers end where memory does, so that an access beyond crashes. Every status is one of the header, what is refused
//! changes nothing, and no counter is sealed with twice.
const std = @import("std");
const linux = std.os.linux;
const report = @import("report");
const Chance = @import("chance").Chance;

comptime {
    _ = @import("abi"); // it exports what is called here
}

/// What is planted to see that it is found.
const Fault = enum { none, forgetful, sealed_again };
var fault: Fault = .none;

// ---- pywg.h -------------------------------------------------------------------------------------------------------

const Handle = opaque {};
const Device = opaque {};
const Now = extern struct { boot_ns: u64, unix_ns: u64 };
const Endpoint = extern struct { family: u8, reserved: u8 = 0, port: u16, scope_id: u32 = 0, address: [16]u8 };
const Packet = extern struct {
    data: ?[*]u8,
    length: usize,
    capacity: usize,
    endpoint: Endpoint,
    verdict: u32 = unset,
    drop: u32 = unset,

    const unset = std.math.maxInt(u32);
};
const InterfaceOptions = extern struct {
    size: usize,
    mtu: u32,
    reserved: u32,
    entropy: ?*const fn (?*anyopaque, [*]u8, usize) callconv(.c) i32,
    context: ?*anyopaque,
};
const DeviceOptions = extern struct {
    size: usize,
    name: ?[*:0]const u8,
    mtu: u32 = 0,
    tun_fd: i32 = -1,
    uapi_fd: i32 = -1,
    offload_disable: u32 = 0,
    log_level: u32 = 0,
    log_fd: i32 = -1,
    no_uapi: u32 = 1,
    threads: u32 = 0,
    memory_limit: u64 = 0,
    udp4_fd: i32 = 0,
    udp6_fd: i32 = 0,
};
const Diagnostic = extern struct { size: usize, status: i32, os_errno: i32, line: u32, column: u32, text: [256]u8 };

extern fn pywg_cipher_select(?[*:0]const u8) void;
extern fn pywg_status_name(i32) [*:0]const u8;
extern fn pywg_drop_name(u32) ?[*:0]const u8;
extern fn pywg_device_open(?*const DeviceOptions, ?*?*Device, ?*Diagnostic) i32;
extern fn pywg_device_set(?*Device, ?[*]const u8, usize, ?*Diagnostic) i32;
extern fn pywg_device_get(?*Device, ?[*]u8, usize, ?*usize) i32;
extern fn pywg_device_report(?*Device, ?[*]u8, usize, ?*usize) i32;
extern fn pywg_device_name(?*Device, ?[*]u8, usize, ?*usize) i32;
extern fn pywg_device_counters(?*Device, ?[*]u8, usize, usize, ?*usize) i32;
extern fn pywg_device_handshake(?*Device, ?*const [32]u8, ?*Diagnostic) i32;
extern fn pywg_device_events_open(?*Device, u32, ?*i32, ?*Diagnostic) i32;
extern fn pywg_device_events(?*Device, ?[*]u8, usize, usize, ?*usize) i32;
extern fn pywg_device_run(?*Device, ?*Diagnostic) i32;
extern fn pywg_device_stop(?*Device) i32;
extern fn pywg_device_close(?*Device) void;
extern fn pywg_interface_open(?*const InterfaceOptions, ?*?*Handle, ?*Diagnostic) i32;
extern fn pywg_interface_set(?*Handle, ?*const Now, ?[*]const u8, usize, ?*Diagnostic) i32;
extern fn pywg_interface_get(?*Handle, ?[*]u8, usize, ?*usize) i32;
extern fn pywg_interface_seal(?*Handle, ?*const Now, ?[*]const Packet, ?[*]Packet, usize) i32;
extern fn pywg_interface_receive(?*Handle, ?*const Now, ?[*]Packet, usize, u32) i32;
extern fn pywg_interface_expire(?*Handle, ?*const Now) i32;
extern fn pywg_interface_poll(?*Handle, ?*const Now, ?[*]Packet, usize, ?*usize) i32;
extern fn pywg_interface_deadline(?*Handle, ?*u64) i32;
extern fn pywg_interface_dropped(?*Handle, u32, ?*u64) i32;
extern fn pywg_interface_close(?*Handle) void;

const ok = 0;
const invalid_argument = -1;
const buffer_too_small = -3;
const configuration = -4;
const not_found = -8;
const status_last = -11;

// ---- memory -------------------------------------------------------------------------------------------------------

const batch_max = 4;
const area_size = 1 << 17;
/// Longer than the AEAD takes.
const huge_length = (1 << 24) + 64;
/// Each ends where a page without access begins: what packets are read from, and what is written to.
var sources: [batch_max][]u8 = undefined;
var targets: [batch_max][]u8 = undefined;
var texts: [2][]u8 = undefined;
var huge: []u8 = undefined;
var device: ?*Device = null;

pub fn prepare(wanted: ?[]const u8) bool {
    fault = std.meta.stringToEnum(Fault, wanted orelse "none") orelse return false;
    for (&sources) |*area| area.* = mapArea(area_size) orelse return false;
    for (&targets) |*area| area.* = mapArea(area_size) orelse return false;
    for (&texts) |*area| area.* = mapArea(area_size) orelse return false;
    huge = mapArea(1 << 25) orelse return false;
    openDevice();
    return true;
}

fn mapArea(length: usize) ?[]u8 {
    const page = 1 << 16; // of every architecture
    const flags: linux.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true, .NORESERVE = true };
    const address = linux.mmap(null, length + page, .{ .READ = true, .WRITE = true }, flags, -1, 0);
    if (linux.errno(address) != .SUCCESS) return null;
    if (linux.errno(linux.mprotect(@ptrFromInt(address + length), page, .{})) != .SUCCESS) return null;
    return @as([*]u8, @ptrFromInt(address))[0..length];
}

fn atEnd(area: []u8, length: usize) []u8 {
    return area[area.len - length ..];
}

/// Only in a namespace of its own: nothing is made on the machine.
fn openDevice() void {
    if (linux.errno(linux.unshare(linux.CLONE.NEWNET)) != .SUCCESS) return;
    const options: DeviceOptions = .{ .size = @sizeOf(DeviceOptions), .name = "pywgfuzz" };
    if (pywg_device_open(&options, &device, null) != ok) device = null;
    _ = pywg_device_stop(device); // so that every run ends at once
}

// ---- what happens -------------------------------------------------------------------------------------------------

const steps_max = 60;
const recorded_max = 16;
var calls: Calls = undefined;

pub fn judge(bytes: []const u8) report.Error!void {
    var chance: Chance = .of(bytes, 1);
    try calls.open(chance.random());
    defer calls.close();
    for (0..steps_max) |_| if (!chance.isSpent()) try calls.step();
}

const Datagram = struct { bytes: [2048]u8, length: usize };

const Calls = struct {
    random: std.Random,
    entropy: std.Random.DefaultPrng,
    now: Now,
    handles: [2]*Handle,
    wire: [recorded_max]Datagram,
    wire_count: usize,
    /// Receiver and counter of everything sealed, by either.
    sealed: [256]u128,
    sealed_count: usize,

    fn open(self: *Calls, random: std.Random) report.Error!void {
        self.* = .{
            .random = random,
            .entropy = .init(3),
            .now = .{ .boot_ns = 1 << 40, .unix_ns = 1_700_000_000 * std.time.ns_per_s },
            .handles = undefined,
            .wire = undefined,
            .wire_count = 0,
            .sealed = undefined,
            .sealed_count = 0,
        };
        for (&self.handles) |*handle| {
            const options: InterfaceOptions = .{
                .size = @sizeOf(InterfaceOptions),
                .mtu = 0,
                .reserved = 0,
                .entropy = fill,
                .context = &self.entropy,
            };
            var opened: ?*Handle = null;
            try expect(pywg_interface_open(&options, &opened, null), &.{ok});
            handle.* = opened.?;
        }
        for (0..2) |own| try self.configure(own);
        if (device) |target| {
            const text = "replace_peers=true\nlisten_port=0\nfwmark=0\npywg_bind_device=\npywg_bind_address=\n";
            try expect(pywg_device_set(target, text, text.len, null), &.{ok});
        }
    }

    fn close(self: *Calls) void {
        for (self.handles) |handle| pywg_interface_close(handle);
        pywg_interface_close(null);
    }

    fn fill(context: ?*anyopaque, out: [*]u8, length: usize) callconv(.c) i32 {
        const prng: *std.Random.DefaultPrng = @ptrCast(@alignCast(context.?));
        prng.fill(out[0..length]);
        return 0;
    }

    fn step(self: *Calls) report.Error!void {
        const own = self.random.uintLessThan(u8, 2);
        const handle = self.handles[own];
        switch (self.random.uintLessThan(u8, 16)) {
            0, 1 => try self.seal(handle),
            2, 3 => try self.receive(handle),
            4 => try self.poll(handle),
            5 => try self.pass(handle),
            6, 7 => try self.set(handle),
            8 => try self.get(handle),
            9 => try self.count(handle),
            10 => try self.openOddly(),
            11 => try self.deviceOddly(),
            12 => try self.setDevice(),
            13 => try self.receiveHuge(handle),
            14 => try self.configure(own),
            else => try self.talk(),
        }
    }

    /// Mostly the value, at times NULL.
    fn maybe(self: *Calls, value: anytype) ?@TypeOf(value) {
        return if (self.random.int(u8) < 8) null else value;
    }

    fn configure(self: *Calls, own: usize) report.Error!void {
        // The product that stands in for X25519 makes this of 9 and the private key.
        var private: [2][32]u8 = .{ @splat(0x40), @splat(0x48) };
        const other = std.mem.readInt(u256, &private[1 - own], .little) *% 9;
        var public: [32]u8 = undefined;
        std.mem.writeInt(u256, &public, other, .little);
        var buffer: [512]u8 = undefined;
        const text = std.mem.print(&buffer, "private_key={x}\nreplace_peers=true\npublic_key={x}\n" ++
            "endpoint=192.0.2.{d}:51820\nallowed_ip=10.0.0.{d}/32\n", .{
            &private[own], &public, 2 - own, 2 - own,
        }) catch unreachable;
        try expect(pywg_interface_set(self.handles[own], &self.now, text.ptr, text.len, null), &.{ok});
    }

    // ---- packets

    fn seal(self: *Calls, handle: *Handle) report.Error!void {
        const random = self.random;
        const amount = random.uintAtMost(u8, batch_max);
        var in: [batch_max]Packet = undefined;
        var out: [batch_max]Packet = undefined;
        for (in[0..amount], out[0..amount], 0..) |*source, *target, i| {
            const length = self.anyLength();
            const capacity = if (random.int(u8) < 16) self.anyLength() else length + 48;
            const whole = atEnd(targets[i], capacity);
            // At times it lies in what is written to, wherever.
            const is_inside = random.int(u8) < 32 and length <= capacity;
            const at = random.uintAtMost(u16, @intCast(capacity - @min(length, capacity)));
            const inner = if (is_inside) whole[at..][0..length] else atEnd(sources[i], length);
            self.makeInner(inner);
            source.* = self.packetOf(inner, inner.len);
            target.* = self.packetOf(whole, 0);
            if (random.int(u8) < 8 and i > 0) target.data = out[0].data;
            if (target.data == out[0].data) target.capacity = @min(target.capacity, out[0].capacity);
        }
        const now = self.maybe(@as(*const Now, &self.now));
        const status = pywg_interface_seal(self.maybe(handle), now, &in, &out, amount);
        try expect(status, &.{ ok, invalid_argument, buffer_too_small });
        if (status != ok) return;
        for (out[0..amount]) |*packet| {
            if (packet.verdict > 2) return report.mismatch("seal gives verdict {d}", .{packet.verdict});
            if (packet.verdict == 1) try self.keep(packet);
        }
    }

    fn keep(self: *Calls, packet: *const Packet) report.Error!void {
        if (packet.length > packet.capacity) return report.mismatch("a datagram is longer than its buffer", .{});
        const bytes = packet.data.?[0..packet.length];
        if (bytes[0] == 4) {
            if (bytes.len < 32) return report.mismatch("a datagram of {d} bytes", .{bytes.len});
            const nonce = std.mem.readInt(u128, bytes[0..16], .little);
            for (self.sealed[0..@min(self.sealed_count, self.sealed.len)]) |known| {
                if (known == nonce and fault != .sealed_again) return report.mismatch("a nonce is used twice", .{});
            }
            self.sealed[self.sealed_count % self.sealed.len] = nonce;
            self.sealed_count += 1;
            if (fault == .sealed_again and self.sealed_count > 3) {
                return report.mismatch("three packets are sealed", .{});
            }
        }
        if (bytes.len > 2048) return;
        const place = &self.wire[self.wire_count % recorded_max];
        self.wire_count += 1;
        place.length = bytes.len;
        @memcpy(place.bytes[0..bytes.len], bytes);
    }

    fn anyLength(self: *Calls) usize {
        const lengths = [_]usize{ 0, 1, 19, 20, 28, 40, 148, 576, 1420, 1421, 9000, 65535 };
        return if (self.random.boolean()) lengths[self.random.uintLessThan(u8, lengths.len)] else self.random.int(u8);
    }

    fn makeInner(self: *Calls, out: []u8) void {
        const head = @min(out.len, 40);
        @memset(out, 0xa5);
        if (out.len < 20 or self.random.int(u8) < 32) return self.random.bytes(out[0..head]);
        out[0] = 0x45;
        std.mem.writeInt(u16, out[2..4], @intCast(out.len), .big);
        out[12..20].* = .{ 10, 0, 0, 1 + @as(u8, self.random.int(u1)), 10, 0, 0, 1 + @as(u8, self.random.int(u1)) };
    }

    fn packetOf(self: *Calls, bytes: []u8, used: usize) Packet {
        const families = [_]u8{ 4, 4, 4, 4, 4, 4, 6, 0 };
        return .{
            .data = self.maybe(bytes.ptr),
            .length = used,
            .capacity = bytes.len,
            .endpoint = .{
                .family = families[self.random.int(u3)],
                .port = 51820,
                .address = .{ 192, 0, 2, 1 + @as(u8, self.random.int(u1)) } ++ @as([12]u8, @splat(0)),
            },
        };
    }

    /// What was said, whole or damaged, or what nobody said.
    fn datagram(self: *Calls, area: []u8) []u8 {
        const random = self.random;
        const known: u8 = @intCast(@min(self.wire_count, recorded_max));
        if (known == 0 or random.int(u8) < 32) {
            const bytes = atEnd(area, self.anyLength());
            random.bytes(bytes[0..@min(bytes.len, 20)]);
            if (bytes.len >= 4) bytes[0..4].* = .{ random.int(u3), 0, 0, 0 };
            return bytes;
        }
        const said = &self.wire[random.uintLessThan(u8, known)];
        const cut = if (random.int(u8) < 16) random.uintAtMost(u16, @intCast(said.length)) else said.length;
        const bytes = atEnd(area, cut);
        @memcpy(bytes, said.bytes[0..cut]);
        if (cut > 0 and random.int(u8) < 32) bytes[random.uintLessThan(u16, @intCast(cut))] ^= random.int(u8);
        return bytes;
    }

    fn receive(self: *Calls, handle: *Handle) report.Error!void {
        const amount = self.random.uintAtMost(u8, batch_max);
        var batch: [batch_max]Packet = undefined;
        var given: [batch_max][]u8 = undefined;
        for (batch[0..amount], given[0..amount], 0..) |*packet, *bytes, i| {
            bytes.* = self.datagram(targets[i]);
            packet.* = self.packetOf(bytes.*, bytes.len);
        }
        const is_loaded = self.random.int(u1);
        const status = pywg_interface_receive(
            self.maybe(handle),
            self.maybe(@as(*const Now, &self.now)),
            self.maybe(@as([*]Packet, &batch)),
            amount,
            is_loaded,
        );
        try expect(status, &.{ ok, invalid_argument });
        if (status == ok) for (batch[0..amount], given[0..amount]) |*packet, bytes| try judgeReceived(packet, bytes);
    }

    fn judgeReceived(packet: *const Packet, given: []const u8) report.Error!void {
        switch (packet.verdict) {
            0 => if (pywg_drop_name(packet.drop) == null) return report.mismatch("no reason {d}", .{packet.drop}),
            3 => {
                const at = @intFromPtr(packet.data.?) -% @intFromPtr(given.ptr);
                if (at > given.len or packet.length > given.len - at) {
                    return report.mismatch("a delivered packet lies outside of its bytes", .{});
                }
            },
            4, 5 => {},
            else => return report.mismatch("receive gives verdict {d}", .{packet.verdict}),
        }
    }

    /// A header that leads to a session, and more behind it than any socket gives.
    fn receiveHuge(self: *Calls, handle: *Handle) report.Error!void {
        if (self.random.int(u8) < 250 or self.wire_count == 0) return; // it takes long
        const said = &self.wire[(self.wire_count - 1) % recorded_max];
        if (said.length < 16) return;
        const bytes = atEnd(huge, huge_length);
        @memcpy(bytes[0..16], said.bytes[0..16]);
        var packet = self.packetOf(bytes, bytes.len);
        const status = pywg_interface_receive(handle, &self.now, @ptrCast(&packet), 1, 0);
        try expect(status, &.{ ok, invalid_argument });
        if (status == ok) try judgeReceived(&packet, bytes);
    }

    fn poll(self: *Calls, handle: *Handle) report.Error!void {
        const amount = self.random.uintAtMost(u8, batch_max);
        var batch: [batch_max]Packet = undefined;
        for (batch[0..amount], 0..) |*packet, i| {
            const capacity = if (self.random.int(u8) < 16) self.anyLength() else 1548;
            packet.* = self.packetOf(atEnd(targets[i], capacity), 0);
        }
        var written: usize = 99;
        const now = self.maybe(@as(*const Now, &self.now));
        const status = pywg_interface_poll(self.maybe(handle), now, &batch, amount, self.maybe(&written));
        try expect(status, &.{ ok, invalid_argument, buffer_too_small });
        if (status != ok) return;
        if (written > amount) return report.mismatch("poll wrote {d} of {d}", .{ written, amount });
        for (batch[0..written]) |*packet| try self.keep(packet);
    }

    /// Both say what they have to say, and hear it.
    fn talk(self: *Calls) report.Error!void {
        for (0..2 * self.handles.len) |turn| {
            const from, const to = .{ self.handles[turn % 2], self.handles[(turn + 1) % 2] };
            var packet: Packet = self.packetOf(atEnd(targets[0], 1548), 0);
            packet.data = targets[0][targets[0].len - 1548 ..].ptr;
            packet.endpoint.family = 4;
            var written: usize = 0;
            try expect(pywg_interface_poll(from, &self.now, @ptrCast(&packet), 1, &written), &.{ok});
            if (written == 0) continue;
            try self.keep(&packet);
            const bytes = packet.data.?[0..packet.length];
            try expect(pywg_interface_receive(to, &self.now, @ptrCast(&packet), 1, 0), &.{ok});
            try judgeReceived(&packet, bytes);
        }
    }

    // ---- time, text, numbers

    fn pass(self: *Calls, handle: *Handle) report.Error!void {
        const steps = [_]u64{ 0, 1, std.time.ns_per_s, 25 * std.time.ns_per_s, 200 * std.time.ns_per_s, 1 << 50 };
        self.now.boot_ns +|= steps[self.random.uintLessThan(u8, steps.len)];
        switch (self.random.int(u8)) {
            0 => self.now.boot_ns = @as(u64, std.math.maxInt(u64)) - self.random.int(u8),
            1 => self.now.unix_ns = 0,
            2 => self.now.unix_ns = std.math.maxInt(u64),
            else => self.now.unix_ns +|= std.time.ns_per_s,
        }
        const now = self.maybe(@as(*const Now, &self.now));
        try expect(pywg_interface_expire(self.maybe(handle), now), &.{ ok, invalid_argument });
    }

    const key_40 = "40404040404040404040404040404040" ++ "40404040404040404040404040404040";
    const key_48 = "48484848484848484848484848484848" ++ "48484848484848484848484848484848";

    /// Lines that mean something, and bytes that do not.
    fn makeText(self: *Calls) []u8 {
        const words = [_][]const u8{
            "private_key=",                   "public_key=", "preshared_key=",    key_40,          key_48,
            "endpoint=",                      "192.0.2.1:1", "[::1]:2",           "[fe80::1%7]:3", "\n",
            "listen_port=",                   "51820",       "65536",             "fwmark=",       "0x7",
            "replace_peers=true",             "remove=true", "update_only=true",  "\n",            "\n",
            "allowed_ip=",                    "10.0.0.1/32", "-10.0.0.1/32",      "::/0",          "\n",
            "pywg_bind_address=",             "127.0.0.1",   "pywg_bind_device=", "lo",            "\n",
            "persistent_keepalive_interval=",
        };
        var buffer: [4096]u8 = undefined;
        var used: usize = 0;
        for (0..self.random.uintLessThan(u8, 40)) |_| {
            const choice = self.random.uintLessThan(u8, words.len + 2);
            const word: []const u8 = if (choice < words.len) words[choice] else &.{self.random.int(u8)};
            @memcpy(buffer[used..][0..word.len], word);
            used += word.len;
        }
        const text = atEnd(texts[0], used);
        @memcpy(text, buffer[0..used]);
        return text;
    }

    fn set(self: *Calls, handle: *Handle) report.Error!void {
        const text = self.makeText();
        var before: [1 << 13]u8 = undefined;
        var after: [1 << 13]u8 = undefined;
        const told_before = try told(pywg_interface_get, handle, &before);
        var diagnostic = self.makeDiagnostic();
        const now = self.maybe(@as(*const Now, &self.now));
        const bytes = self.maybe(@as([*]const u8, text.ptr));
        const status = pywg_interface_set(self.maybe(handle), now, bytes, text.len, &diagnostic);
        try judgeDiagnosed(status, &diagnostic);
        if (fault == .forgetful and status != ok) try self.configure(0);
        if (status != ok and !std.mem.eql(u8, told_before, try told(pywg_interface_get, handle, &after))) {
            return report.mismatch("a refused text changes something", .{});
        }
    }

    fn makeDiagnostic(self: *Calls) Diagnostic {
        var diagnostic = std.mem.zeroes(Diagnostic);
        diagnostic.size = switch (self.random.int(u8)) {
            0 => 0,
            1 => @sizeOf(Diagnostic) - 1,
            2 => @sizeOf(Diagnostic) + 8,
            else => @sizeOf(Diagnostic),
        };
        return diagnostic;
    }

    fn get(self: *Calls, handle: *Handle) report.Error!void {
        try self.getOddly(pywg_interface_get, handle);
    }

    fn getOddly(self: *Calls, comptime function: anytype, handle: anytype) report.Error!void {
        var whole: usize = 0;
        try expect(function(handle, null, 0, &whole), &.{ ok, buffer_too_small });
        const capacity = switch (self.random.uintLessThan(u8, 6)) {
            0 => 0,
            1 => whole -| 1,
            2 => whole + 1,
            3 => @min(whole, self.random.int(u8)),
            else => whole,
        };
        var told_length: usize = 99;
        const buffer = atEnd(texts[1], capacity);
        const status = function(self.maybe(handle), self.maybe(buffer.ptr), capacity, self.maybe(&told_length));
        try expect(status, &.{ ok, invalid_argument, buffer_too_small });
        if (status == ok and told_length != whole) {
            return report.mismatch("a text of {d} bytes is {d} long", .{ whole, told_length });
        }
        if (status == ok and capacity < whole) return report.mismatch("a text fits where it does not", .{});
    }

    fn count(self: *Calls, handle: *Handle) report.Error!void {
        var value: u64 = 0;
        const reason = if (self.random.boolean()) self.random.int(u8) else self.random.int(u32);
        const status = pywg_interface_dropped(self.maybe(handle), reason, self.maybe(&value));
        try expect(status, &.{ ok, invalid_argument, -8 });
        if (status == ok and pywg_drop_name(reason) == null) {
            return report.mismatch("reason {d} has no name", .{reason});
        }
        try expect(pywg_interface_deadline(self.maybe(handle), self.maybe(&value)), &.{ ok, invalid_argument });
        if (!std.mem.startsWith(u8, std.mem.span(pywg_status_name(self.random.int(i32))), "PYWG_")) {
            return report.mismatch("a status has no name", .{});
        }
        const names = [_]?[*:0]const u8{ null, "", "baseline", "v3", "no such path" };
        pywg_cipher_select(names[self.random.uintLessThan(u8, names.len)]);
    }

    // ---- opening, and the device

    fn openOddly(self: *Calls) report.Error!void {
        const usual = @sizeOf(InterfaceOptions);
        const sizes = [_]usize{ usual, usual, usual + 64, usual - 1, 0 };
        const mtus = [_]u32{ 0, 1, 68, 1420, 65535, 65536, std.math.maxInt(u32) };
        const options: InterfaceOptions = .{
            .size = sizes[self.random.uintLessThan(u8, sizes.len)],
            .mtu = mtus[self.random.uintLessThan(u8, mtus.len)],
            .reserved = 0,
            .entropy = self.maybe(@as(*const fn (?*anyopaque, [*]u8, usize) callconv(.c) i32, refuse)),
            .context = null,
        };
        var handle: ?*Handle = null;
        var diagnostic = self.makeDiagnostic();
        const given = self.maybe(@as(*const InterfaceOptions, &options));
        const status = pywg_interface_open(given, self.maybe(&handle), &diagnostic);
        try judgeDiagnosed(status, &diagnostic);
        if (status != ok and handle != null) return report.mismatch("a failed open leaves a handle", .{});
        pywg_interface_close(handle);
    }

    fn refuse(_: ?*anyopaque, _: [*]u8, _: usize) callconv(.c) i32 {
        return 1;
    }

    /// What is refused before anything is made, and what a handle that is none can be given to.
    fn deviceOddly(self: *Calls) report.Error!void {
        const names = [_][*:0]const u8{ "a/b", "sixteen-letters-", "..", ".", " ", "a%d", "more-than-sixteen" };
        const sizes = [_]usize{ @sizeOf(DeviceOptions), @sizeOf(DeviceOptions), @sizeOf(DeviceOptions) - 9, 0 };
        const options: DeviceOptions = .{
            .size = sizes[self.random.uintLessThan(u8, sizes.len)],
            .name = names[self.random.uintLessThan(u8, names.len)],
            .mtu = self.random.int(u32),
            .threads = self.random.int(u8),
            .log_level = self.random.uintLessThan(u8, 4),
            .memory_limit = self.random.int(u16),
        };
        var handle: ?*Device = null;
        var diagnostic = self.makeDiagnostic();
        const given = self.maybe(@as(*const DeviceOptions, &options));
        const status = pywg_device_open(given, self.maybe(&handle), &diagnostic);
        if (status == ok) return report.mismatch("a device with such options is opened", .{});
        try judgeDiagnosed(status, &diagnostic);
        var told_length: usize = 0;
        try expect(pywg_device_set(null, "", 0, null), &.{invalid_argument});
        try expect(pywg_device_get(null, null, 0, &told_length), &.{invalid_argument});
        try expect(pywg_device_report(null, null, 0, &told_length), &.{invalid_argument});
        try expect(pywg_device_name(null, null, 0, &told_length), &.{invalid_argument});
        try expect(pywg_device_counters(null, null, 80, 0, &told_length), &.{invalid_argument});
        try expect(pywg_device_handshake(null, null, null), &.{invalid_argument});
        try expect(pywg_device_events_open(null, 0, null, null), &.{invalid_argument});
        try expect(pywg_device_events(null, null, 80, 0, &told_length), &.{invalid_argument});
        try expect(pywg_device_run(null, null), &.{invalid_argument});
        try expect(pywg_device_stop(null), &.{invalid_argument});
        pywg_device_close(null);
    }

    /// Records of odd lengths, into room that may be short or none.
    fn recordsOddly(self: *Calls, comptime function: anytype, target: *Device) report.Error!void {
        var fd: i32 = -1;
        try expect(pywg_device_events_open(target, 8, &fd, null), &.{ok});
        const sizes = [_]usize{ 80, 80, 88, 72, 81, 0, std.math.maxInt(usize) }; // 80 is that of either
        const size = sizes[self.random.uintLessThan(u8, sizes.len)];
        const wanted = self.random.uintLessThan(usize, 40);
        const room = if (size < 1000) size * wanted else 0;
        const area = targets[0][targets[0].len - room ..];
        var written: usize = 0;
        const status = function(target, self.maybe(@as([*]u8, area.ptr)), size, wanted, self.maybe(&written));
        try expect(status, &.{ ok, invalid_argument, buffer_too_small });
        if (status == ok and written > wanted) return report.mismatch("more records than there is room for", .{});
    }

    fn setDevice(self: *Calls) report.Error!void {
        const target = device orelse return;
        const text = self.makeText();
        var before: [1 << 13]u8 = undefined;
        var after: [1 << 13]u8 = undefined;
        const told_before = try told(pywg_device_get, target, &before);
        var diagnostic = self.makeDiagnostic();
        const status = pywg_device_set(target, self.maybe(@as([*]const u8, text.ptr)), text.len, &diagnostic);
        try judgeDiagnosed(status, &diagnostic);
        if (status != ok and !std.mem.eql(u8, told_before, try told(pywg_device_get, target, &after))) {
            return report.mismatch("a text that the device refuses changes something", .{});
        }
        switch (self.random.uintLessThan(u8, 7)) {
            0 => try self.getOddly(pywg_device_get, target),
            1 => try self.getOddly(pywg_device_report, target),
            2 => try self.getOddly(pywg_device_name, target),
            3 => try self.recordsOddly(pywg_device_events, target),
            4 => try self.recordsOddly(pywg_device_counters, target),
            5 => {
                const key: *const [32]u8 = sources[0][0..32];
                const asked = pywg_device_handshake(target, self.maybe(key), &diagnostic);
                try expect(asked, &.{ invalid_argument, configuration, not_found }); // the link is down
            },
            else => try expect(pywg_device_run(target, null), &.{ok}),
        }
    }
};

/// The whole of what get says, or of what fits.
fn told(comptime function: anytype, handle: anytype, buffer: []u8) report.Error![]const u8 {
    var length: usize = 0;
    const status = function(handle, buffer.ptr, buffer.len, &length);
    try expect(status, &.{ ok, buffer_too_small });
    return buffer[0..if (status == ok) length else 0];
}

fn expect(status: i32, among: []const i32) report.Error!void {
    for (among) |each| if (status == each) return;
    return report.mismatch("status {d}, which is not among {any}", .{ status, among });
}

fn judgeDiagnosed(status: i32, diagnostic: *const Diagnostic) report.Error!void {
    if (status > ok or status < status_last) return report.mismatch("status {d}", .{status});
    if (status == ok or diagnostic.size < @sizeOf(Diagnostic)) return;
    if (diagnostic.status != status) {
        return report.mismatch("status {d} and a diagnostic of {d}", .{ status, diagnostic.status });
    }
    if (diagnostic.text[0] == 0 or diagnostic.text[255] != 0) {
        return report.mismatch("a diagnostic without a text", .{});
    }
}
