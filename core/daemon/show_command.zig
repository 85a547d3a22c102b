//! show: what runs, in the layout of `wg show`. Asks the daemons that have a socket; those of the kernel have none.
//! Invariant: without `dump` no private and no preshared key is printed.
const std = @import("std");
const linux = std.os.linux;
const io = @import("io");
const protocol = @import("protocol");
const cipher = @import("cipher");
const asking = @import("asking.zig");
const Output = @import("output.zig").Output;
const words = @import("words.zig");
const Lines = asking.Lines;
const isKey = asking.isKey;

pub fn run(rest: *std.process.Args.Iterator) error{Usage}!u8 {
    const what: []const u8 = rest.next() orelse "all";
    const wanted = rest.next();
    if (rest.next() != null or what.len == 0 or what[0] == '-') return error.Usage;
    const is_dump = wanted != null;
    if (wanted) |word| if (!std.mem.eql(u8, word, "dump")) return error.Usage;
    var output: Output = undefined;
    output.begin(1);
    defer output.flush();
    if (std.mem.eql(u8, what, "interfaces")) {
        if (is_dump) return error.Usage;
        return listNames(&output);
    }
    if (!std.mem.eql(u8, what, "all")) {
        var answer = asking.ask(what, &.{"get=1\n\n"}) catch return 1;
        defer answer.deinit(asking.gpa);
        return show(&output, what, &answer, if (is_dump) "" else null);
    }
    return showAll(&output, is_dump);
}

fn listNames(output: *Output) u8 {
    var names: Names = undefined;
    names.read();
    var gap: []const u8 = "";
    for (names.all()) |*name| {
        if (!isAlive(name.slice())) continue;
        output.put(&.{ gap, name.slice() });
        gap = " ";
    }
    if (gap.len > 0) output.put(&.{"\n"});
    return 0;
}

/// A socket that a killed process left behind is no interface.
fn isAlive(name: []const u8) bool {
    var connection = io.uapi_connection.Connection.open(asking.folder, name) catch |err|
        return err != error.NobodyThere and err != error.NotFound;
    connection.close();
    return true;
}

fn showAll(output: *Output, is_dump: bool) u8 {
    var names: Names = undefined;
    names.read();
    var exit_code: u8 = 0;
    var is_first = true;
    for (names.all()) |*name| {
        if (!isAlive(name.slice())) continue;
        // One that does not answer hides none of the others.
        var answer = asking.ask(name.slice(), &.{"get=1\n\n"}) catch {
            exit_code = 1;
            continue;
        };
        defer answer.deinit(asking.gpa);
        if (!is_first and !is_dump) output.put(&.{"\n"});
        is_first = false;
        exit_code |= show(output, name.slice(), &answer, if (is_dump) name.slice() else null);
    }
    return exit_code;
}

/// `before`: what each line of a dump begins with; null for people.
fn show(output: *Output, name: []const u8, answer: *const asking.Answer, before: ?[]const u8) u8 {
    if (!asking.isGood(name, answer)) return 1;
    const peers = Peers.of(answer) catch {
        words.tell(&.{ name, ": out of memory" });
        return 1;
    };
    defer asking.gpa.free(peers);
    const device: Device = .of(answer);
    if (before) |prefix| {
        device.dump(output, prefix);
        for (peers) |*peer| peer.dump(output, prefix);
        return 0;
    }
    device.print(output, name);
    std.sort.heap(Peer, peers, {}, Peer.isBefore);
    const now_s = io.clock.unixNs() / std.time.ns_per_s;
    for (peers) |*peer| peer.print(output, now_s);
    return 0;
}

const Device = struct {
    private_key: []const u8 = "",
    listen_port: u64 = 0,
    fwmark: u64 = 0,

    fn of(answer: *const asking.Answer) Device {
        var device: Device = .{};
        var lines: Lines = .of(answer);
        while (lines.next()) |line| {
            if (isKey(line, "private_key")) device.private_key = line.value;
            if (isKey(line, "listen_port")) device.listen_port = asking.number(line.value);
            if (isKey(line, "fwmark")) device.fwmark = asking.number(line.value);
            if (isKey(line, "public_key")) break;
        }
        return device;
    }

    /// The private key, and the public one.
    fn keys(device: *const Device) ?[2][32]u8 {
        if (device.private_key.len != 64) return null;
        var both: [2][32]u8 = undefined;
        if (!protocol.uapi.decodeHex(device.private_key[0..64], &both[0])) return null;
        if (std.mem.allEqual(u8, &both[0], 0)) return null;
        both[1] = protocol.crypto.publicKey(&both[0]);
        cipher.scrubStack();
        return both;
    }

    fn print(device: *const Device, output: *Output, name: []const u8) void {
        output.put(&.{ "interface: ", name, "\n" });
        if (device.keys()) |both| {
            var secret = both;
            defer std.crypto.secureZero(u8, std.mem.asBytes(&secret));
            output.put(&.{"  public key: "});
            output.key(&secret[1]);
            output.put(&.{"\n  private key: (hidden)\n"});
        }
        if (device.listen_port != 0) field(output, "listening port", device.listen_port);
        if (device.fwmark != 0) {
            output.put(&.{"  fwmark: 0x"});
            hexadecimal(output, device.fwmark);
            output.put(&.{"\n"});
        }
    }

    fn dump(device: *const Device, output: *Output, prefix: []const u8) void {
        begin(output, prefix);
        if (device.keys()) |both| {
            var secret = both;
            defer std.crypto.secureZero(u8, std.mem.asBytes(&secret));
            output.key(&secret[0]);
            output.put(&.{"\t"});
            output.key(&secret[1]);
        } else output.put(&.{"(none)\t(none)"});
        output.put(&.{"\t"});
        output.number(device.listen_port);
        output.put(&.{"\t"});
        if (device.fwmark != 0) {
            output.put(&.{"0x"});
            hexadecimal(output, device.fwmark);
        } else output.put(&.{"off"});
        output.put(&.{"\n"});
    }
};

fn begin(output: *Output, prefix: []const u8) void {
    if (prefix.len > 0) output.put(&.{ prefix, "\t" });
}

fn field(output: *Output, name: []const u8, value: u64) void {
    output.put(&.{ "  ", name, ": " });
    output.number(value);
    output.put(&.{"\n"});
}

fn hexadecimal(output: *Output, value: u64) void {
    var shift: u6 = 60;
    while (shift > 0 and value >> shift == 0) shift -= 4;
    while (true) : (shift -= 4) {
        output.put(&.{"0123456789abcdef"[(value >> shift) & 15 ..][0..1]});
        if (shift == 0) return;
    }
}

/// One of an answer, whose lines are read again when it is printed.
const Peer = struct {
    /// From its public key to the next.
    text: []const u8,
    number: usize,
    latest_handshake: u64,

    /// The latest handshake first; those without one in the order of the answer.
    fn isBefore(_: void, a: Peer, b: Peer) bool {
        if (a.latest_handshake != b.latest_handshake) return a.latest_handshake > b.latest_handshake;
        return a.number < b.number;
    }

    fn value(peer: *const Peer, key: []const u8) []const u8 {
        var lines: Lines = .{ .rest = peer.text };
        while (lines.next()) |line| if (isKey(line, key)) return line.value;
        return "";
    }

    fn count(peer: *const Peer, key: []const u8) u64 {
        return asking.number(peer.value(key));
    }

    fn decoded(peer: *const Peer, key: []const u8) ?[32]u8 {
        const digits = peer.value(key);
        var bytes: [32]u8 = undefined;
        if (digits.len != 64 or !protocol.uapi.decodeHex(digits[0..64], &bytes)) return null;
        return if (std.mem.allEqual(u8, &bytes, 0)) null else bytes;
    }

    fn allowedIps(peer: *const Peer, output: *Output, comma: []const u8) void {
        var lines: Lines = .{ .rest = peer.text };
        var gap: []const u8 = "";
        while (lines.next()) |line| {
            if (!isKey(line, "allowed_ip")) continue;
            output.put(&.{ gap, line.value });
            gap = comma;
        }
        if (gap.len == 0) output.put(&.{"(none)"});
    }

    fn print(peer: *const Peer, output: *Output, now_s: u64) void {
        output.put(&.{"\npeer: "});
        output.key(&(peer.decoded("public_key") orelse @as([32]u8, @splat(0))));
        if (peer.decoded("preshared_key") != null) output.put(&.{"\n  preshared key: (hidden)"});
        const endpoint = peer.value("endpoint");
        if (endpoint.len > 0) output.put(&.{ "\n  endpoint: ", endpoint });
        output.put(&.{"\n  allowed ips: "});
        peer.allowedIps(output, ", ");
        if (peer.latest_handshake != 0) {
            output.put(&.{"\n  latest handshake: "});
            ago(output, peer.latest_handshake, now_s);
        }
        const received = peer.count("rx_bytes");
        const sent = peer.count("tx_bytes");
        if (received | sent != 0) {
            output.put(&.{"\n  transfer: "});
            putBytes(output, received);
            output.put(&.{" received, "});
            putBytes(output, sent);
            output.put(&.{" sent"});
        }
        const keepalive = peer.count("persistent_keepalive_interval");
        if (keepalive != 0) {
            output.put(&.{"\n  persistent keepalive: every "});
            duration(output, keepalive);
        }
        output.put(&.{"\n"});
    }

    fn dump(peer: *const Peer, output: *Output, prefix: []const u8) void {
        begin(output, prefix);
        output.key(&(peer.decoded("public_key") orelse @as([32]u8, @splat(0))));
        output.put(&.{"\t"});
        var secret = peer.decoded("preshared_key");
        defer std.crypto.secureZero(u8, std.mem.asBytes(&secret));
        if (secret) |*preshared_key| output.key(preshared_key) else output.put(&.{"(none)"});
        const endpoint = peer.value("endpoint");
        output.put(&.{ "\t", if (endpoint.len > 0) endpoint else "(none)", "\t" });
        peer.allowedIps(output, ",");
        for ([_]u64{ peer.latest_handshake, peer.count("rx_bytes"), peer.count("tx_bytes") }) |one| {
            output.put(&.{"\t"});
            output.number(one);
        }
        output.put(&.{"\t"});
        const keepalive = peer.count("persistent_keepalive_interval");
        if (keepalive != 0) output.number(keepalive) else output.put(&.{"off"});
        output.put(&.{"\n"});
    }
};

const Peers = struct {
    /// The allocator's.
    fn of(answer: *const asking.Answer) error{OutOfMemory}![]Peer {
        const head = "public_key=";
        const text = answer.text();
        const peers = try asking.gpa.alloc(Peer, std.mem.count(u8, text, head));
        var rest = text[std.mem.find(u8, text, head) orelse text.len ..];
        for (peers, 0..) |*peer, i| {
            const end = std.mem.findPos(u8, rest, head.len, head) orelse rest.len;
            peer.* = .{ .text = rest[0..end], .number = i, .latest_handshake = 0 };
            rest = rest[end..];
            peer.latest_handshake = peer.count("last_handshake_time_sec");
        }
        return peers;
    }
};

fn ago(output: *Output, then_s: u64, now_s: u64) void {
    if (then_s == now_s) return output.put(&.{"Now"});
    if (then_s > now_s) return output.put(&.{"(System clock wound backward; connection problems may ensue.)"});
    duration(output, now_s - then_s);
    output.put(&.{" ago"});
}

const Unit = struct { name: []const u8, seconds: u64 };

fn duration(output: *Output, seconds: u64) void {
    var rest = seconds;
    var gap: []const u8 = "";
    for ([_]Unit{
        .{ .name = "year", .seconds = 365 * 86_400 },
        .{ .name = "day", .seconds = 86_400 },
        .{ .name = "hour", .seconds = 3600 },
        .{ .name = "minute", .seconds = 60 },
        .{ .name = "second", .seconds = 1 },
    }) |unit| {
        const count = rest / unit.seconds;
        rest %= unit.seconds;
        if (count == 0) continue;
        output.put(&.{gap});
        output.number(count);
        output.put(&.{ " ", unit.name, if (count > 1) "s" else "" });
        gap = ", ";
    }
}

/// With two digits behind the point, as printf(3) rounds them.
fn putBytes(output: *Output, count: u64) void {
    if (count < 1024) {
        output.number(count);
        return output.put(&.{" B"});
    }
    const units = [_][]const u8{ " KiB", " MiB", " GiB", " TiB" };
    var shift: u6 = 10;
    var unit: usize = 0;
    while (unit < units.len - 1 and count >> shift >= 1024) : (unit += 1) shift += 10;
    const scaled = @as(u128, count) * 100;
    const half = @as(u128, 1) << (shift - 1);
    const rest = scaled & (2 * half - 1);
    var hundredths: u64 = @intCast(scaled >> shift);
    if (rest > half or (rest == half and hundredths % 2 == 1)) hundredths += 1;
    output.number(hundredths / 100);
    output.put(&.{"."});
    output.number(hundredths % 100 / 10);
    output.number(hundredths % 10);
    output.put(&.{units[unit]});
}

const Name = struct {
    bytes: [16]u8,
    length: usize,

    fn slice(name: *const Name) []const u8 {
        return name.bytes[0..name.length];
    }

    fn isBefore(_: void, a: Name, b: Name) bool {
        return std.mem.lessThan(u8, a.slice(), b.slice());
    }
};

/// Of the sockets in the folder, sorted.
const Names = struct {
    list: [256]Name,
    count: usize,

    fn all(names: *const Names) []const Name {
        return names.list[0..names.count];
    }

    fn read(names: *Names) void {
        names.count = 0;
        const rc = linux.open(asking.folder, .{ .DIRECTORY = true, .CLOEXEC = true }, 0);
        if (linux.errno(rc) != .SUCCESS) return; // nobody has made it yet
        const fd: i32 = @intCast(rc);
        defer io.linux.close(fd);
        var buffer: [4096]u8 align(8) = undefined;
        while (true) {
            const length = linux.getdents64(fd, &buffer, buffer.len);
            if (linux.errno(length) != .SUCCESS or length == 0) break;
            names.take(buffer[0..length]);
        }
        std.sort.heap(Name, names.list[0..names.count], {}, Name.isBefore);
    }

    /// struct linux_dirent64 (getdents(2)): the length of each at 16, its name at 19.
    fn take(names: *Names, entries: []const u8) void {
        var rest = entries;
        while (rest.len > 19) {
            const length = std.mem.readInt(u16, rest[16..18], .native);
            const file = std.mem.sliceTo(rest[19..length], 0);
            rest = rest[length..];
            const suffix = ".sock";
            if (!std.mem.endsWith(u8, file, suffix) or names.count == names.list.len) continue;
            const stem = file[0 .. file.len - suffix.len];
            if (stem.len == 0 or stem.len > 15) continue;
            const name = &names.list[names.count];
            name.length = stem.len;
            @memcpy(name.bytes[0..stem.len], stem);
            names.count += 1;
        }
    }
};
