//! A file of wg or wg-quick, with what pywg adds to it, to the lines of a UAPI set and what is to be set beside it.
//! Reads no file and asks no resolver. Its verdict, places and words are those of pywg/config/parser.py; a test
//! compares.
//! Invariant: no message repeats the value of a key, nor a line that could be one.
const std = @import("std");
const wire = @import("wire");
const change_text = @import("change_text.zig");
const close_words = @import("close_words.zig");
const grammar = @import("grammar.zig");
const notes_file = @import("notes.zig");
const text_file = @import("text.zig");
const values = @import("values.zig");
const ChangeText = change_text.ChangeText;
const Notes = notes_file.Notes;
const Reading = values.Reading;

/// Some editors begin a file with it.
const byte_order_mark = "\xef\xbb\xbf";
/// What plain wg-quick takes for a comment: `#!pywg Key = value`.
const extension = "#!pywg";

pub const addresses_max = 32;

/// What a file says beside the change.
pub const Settings = struct {
    address_room: [addresses_max]wire.Prefix,
    address_count: usize,
    mtu: ?u32,
    /// MiB.
    memory_limit: ?u32,
    /// In which routes are wanted; 0 for none.
    table: u32,
    has_private_key: bool,

    /// What an empty file says. In place: a value with its room would be kept in the program, to be copied.
    fn begin(settings: *Settings) void {
        settings.address_count = 0;
        settings.mtu = null;
        settings.memory_limit = null;
        settings.table = values.table_main;
        settings.has_private_key = false;
    }

    pub fn addresses(settings: *const Settings) []const wire.Prefix {
        return settings.address_room[0..settings.address_count];
    }
};

pub const Options = struct {
    way: change_text.Way = .replace,
    /// Commands of the file are left to others.
    leaves_hooks: bool = false,
    /// Who is asked to become so is a pywg, which is told too what it is not to be bound to.
    is_pywg: bool = true,
};

/// The change, a part of `buffer`, which takes `change_text.ChangeText.capacity`. It means something if `notes` has no
/// problems. Keys are nowhere else. `settings` is only written.
pub fn parse(
    text: []const u8,
    buffer: []u8,
    options: Options,
    notes: *Notes,
    settings: *Settings,
) change_text.Error![]u8 {
    settings.begin();
    var parser: Parser = .{
        .options = options,
        .notes = notes,
        .settings = settings,
        .out = .init(buffer, options.way, options.is_pywg),
    };
    defer parser.device.clear();
    defer parser.peer.clear();
    const start = if (std.mem.startsWith(u8, text, byte_order_mark)) byte_order_mark.len else 0;
    var lines = std.mem.splitScalar(u8, text[start..], '\n');
    while (lines.next()) |line| : (parser.line.number += 1) try parser.readLine(line);
    try parser.closePeer();
    settings.has_private_key = parser.device.private_key != null;
    return parser.out.finish(&parser.device);
}

const Parser = struct {
    options: Options,
    notes: *Notes,
    settings: *Settings,
    out: ChangeText,
    line: notes_file.Line = .{},
    section: union(enum) { none, unknown, known: grammar.Section } = .none,
    device: change_text.Device = .{},
    peer: change_text.Peer = .{},
    /// Where its header is; null outside of peers.
    peer_place: ?struct { line: u32, column: u32 } = null,
    /// It was said, if wrongly.
    has_public_key: bool = false,
    /// What stands behind `endpoint=`.
    endpoint_text: [values.value_max + 16]u8 = undefined,

    fn readLine(parser: *Parser, raw: []const u8) change_text.Error!void {
        const whole = std.mem.trimEnd(u8, std.mem.sliceTo(raw, 0), "\r"); // a C string ends at a NUL
        parser.line.text = whole;
        const marked = whole[text_file.indent(whole)..];
        const is_extension = marked.len > extension.len and std.mem.startsWith(u8, marked, extension) and
            text_file.isSpace(marked[extension.len]);
        const said = if (is_extension) marked[extension.len..] else std.mem.sliceTo(whole, '#');
        const line = said[text_file.indent(said)..];
        if (line.len == 0) return;
        if (line[0] == '[') return parser.openSection(line);
        const equals = std.mem.findScalar(u8, line, '=') orelse
            return parser.problem(line, &.{"expected \"[Section]\" or \"Key = Value\""});
        try parser.assign(line, equals, is_extension);
    }

    fn problem(parser: *Parser, place: []const u8, parts: []const []const u8) void {
        parser.notes.add(.problem, parser.line.number, parser.line.column(place), parts);
    }

    fn openSection(parser: *Parser, line: []const u8) change_text.Error!void {
        var buffer: [values.value_max]u8 = undefined;
        const header = text_file.squeeze(line, &buffer) orelse "";
        if (std.ascii.eqlIgnoreCase(header, "[interface]")) {
            try parser.closePeer();
            parser.section = .{ .known = .interface };
        } else if (std.ascii.eqlIgnoreCase(header, "[peer]")) {
            try parser.closePeer();
            parser.section = .{ .known = .peer };
            parser.peer_place = .{ .line = parser.line.number, .column = parser.line.column(line) };
            parser.out.beginPeer();
        } else {
            parser.section = .unknown;
            const is_shown = header.len > 2 and header[header.len - 1] == ']' and
                text_file.isWord(header[1 .. header.len - 1]);
            const found = close_words.find(header, &.{ "[Interface]", "[Peer]" });
            parser.problem(line, &.{
                "unknown section",
                if (is_shown) " " else "",
                if (is_shown) header else "",
                "; there are [Interface] and [Peer]",
                if (found != null) "; did you mean \"" else "",
                found orelse "",
                if (found != null) "\"?" else "",
            });
        }
    }

    fn closePeer(parser: *Parser) change_text.Error!void {
        const place = parser.peer_place orelse return;
        defer {
            parser.peer.clear();
            parser.peer = .{};
            parser.peer_place = null;
            parser.has_public_key = false;
        }
        if (!parser.has_public_key) parser.notes.add(.problem, place.line, place.column, &.{"[Peer] has no PublicKey"});
        try parser.out.endPeer(&parser.peer);
    }

    fn assign(parser: *Parser, line: []const u8, equals: usize, is_extension: bool) change_text.Error!void {
        const section = switch (parser.section) {
            .unknown => return, // told already
            .none => return parser.problem(line, &.{"a key before the first [Interface] or [Peer]"}),
            .known => |known| known,
        };
        var buffer: [text_file.word_max]u8 = undefined;
        const word = text_file.squeeze(line[0..equals], &buffer) orelse "";
        const row = grammar.called(word) orelse return parser.unknownKey(line, word, section, is_extension);
        if (row.section != section or row.is_extension != is_extension)
            return parser.misplacedKey(line, row, section, is_extension);
        const reading: Reading = .{ .notes = parser.notes, .line = &parser.line, .name = row.name };
        const value = text_file.trim(line[equals + 1 ..]);
        parser.read(row, &reading, value, line) catch |err| switch (err) {
            error.Bad => {}, // it is in the notes
            error.NoRoom => return error.NoRoom,
        };
    }

    fn unknownKey(
        parser: *Parser,
        line: []const u8,
        word: []const u8,
        section: grammar.Section,
        is_extension: bool,
    ) void {
        if (!text_file.isWord(word)) return parser.problem(line, &.{ "unknown key in [", section.name(), "]" });
        const found = grammar.closest(word, section, is_extension);
        parser.problem(line, &.{
            "unknown key \"",
            word,
            "\" in [",
            section.name(),
            if (found != null) "]; did you mean \"" else "]",
            found orelse "",
            if (found != null) "\"?" else "",
        });
    }

    fn misplacedKey(
        parser: *Parser,
        line: []const u8,
        row: *const grammar.Row,
        section: grammar.Section,
        is_extension: bool,
    ) void {
        if (row.is_extension == is_extension) {
            const belongs = .{ row.name, ": belongs in [", row.section.name(), "], not in [", section.name(), "]" };
            parser.problem(line, &belongs);
        } else if (is_extension) {
            parser.problem(line, &.{ row.name, ": is no extension; leave out \"" ++ extension ++ "\"" });
        } else {
            const written = ": is written as a comment, so that wg-quick can read the file: \"" ++ extension ++ " ";
            parser.problem(line, &.{ row.name, written, row.name, " = ...\"" });
        }
    }

    const ReadError = values.Error || change_text.Error;

    fn read(
        parser: *Parser,
        row: *const grammar.Row,
        reading: *const Reading,
        value: []const u8,
        line: []const u8,
    ) ReadError!void {
        const device = &parser.device;
        const peer = &parser.peer;
        switch (row.key) {
            .private_key => device.private_key = try values.key(reading, value),
            .listen_port => device.listen_port = try values.port(reading, value),
            .fwmark => device.fwmark = try values.fwmark(reading, value),
            .bind_device => device.bind_interface = try values.interfaceName(reading, value),
            .bind_address => device.bind_addresses = try values.bindAddresses(reading, value),
            .public_key => {
                parser.has_public_key = true;
                peer.public_key = try values.key(reading, value);
            },
            .preshared_key => peer.preshared_key = try values.key(reading, value),
            .persistent_keepalive => peer.persistent_keepalive = try values.keepalive(reading, value),
            .allowed_ips => try parser.readAllowedIps(reading, value),
            .endpoint => try parser.readEndpoint(reading, value),
            .address => try parser.readAddresses(reading, value),
            .mtu => parser.settings.mtu = if (values.isBlank(value))
                null
            else
                try values.number(reading, value, values.mtu_min, values.mtu_max),
            .memory_limit => parser.settings.memory_limit = try values.number(reading, value, 1, 1 << 20),
            .table => parser.settings.table = try values.table(reading, value),
            else => try parser.readOthers(row, reading, value, line),
        }
    }

    /// What pywgd does not do: it is checked, and said where that makes a difference.
    fn readOthers(
        parser: *Parser,
        row: *const grammar.Row,
        reading: *const Reading,
        value: []const u8,
        line: []const u8,
    ) ReadError!void {
        switch (row.key) {
            .dns => {
                var items = text_file.words(value);
                var has_any = false;
                while (items.next()) |item| : (has_any = true) _ = try values.dns(reading, item);
                if (has_any) reading.say(.left_out, line, &.{"name servers are not set; write them where this host " ++
                    "looks, such as /etc/resolv.conf, or use wg-quick or pywg up"});
            },
            .save_config => if (try values.boolean(reading, value)) reading.say(.left_out, line, &.{
                "nothing is written to the file; wg showconf tells what runs",
            }),
            .hook => if (value.len > 0) reading.say(.left_out, line, &.{
                "commands are not run; let whatever starts and stops pywgd run them, or use wg-quick or pywg up",
            }),
            .hook_up => if (value.len > 0) {
                const kind: notes_file.Kind = if (parser.options.leaves_hooks) .left_out else .problem;
                reading.say(kind, line, &.{
                    "pywgd runs no commands, and this one may be what keeps traffic in: let whatever starts pywgd " ++
                        "run it, then leave it out here, or say --no-hooks",
                });
            },
            .key_file => {
                if (value.len == 0) return reading.bad(value, &.{"expected the name of a file"});
                return reading.bad(line, &.{"pywgd reads no other file: write the key itself, or use pywg up"});
            },
            .backend => if (try values.oneOf(
                reading,
                value,
                &.{ "userspace", "auto", "kernel" },
                "expected \"userspace\", \"kernel\" or \"auto\"",
            ) == 2) reading.say(.left_out, line, &.{"pywgd is userspace; for the kernel's use wg-quick or pywg up"}),
            .netns => {
                try values.netns(reading, value);
                return reading.bad(line, &.{"pywgd stays in its namespace: run it in another by ip netns exec, " ++
                    "or use pywg up"});
            },
            .kill_switch => if (try values.oneOf(
                reading,
                value,
                &.{ "off", "on", "lan" },
                "expected \"on\", \"off\" or \"lan\"",
            ) != 0) return reading.bad(line, &.{"pywgd sets no firewall, so traffic would leak: use pywg up"}),
            .owners => if (value.len > 0) return reading.bad(line, &.{
                "pywgd makes no rules for who goes through the tunnel: use pywg up",
            }),
            .excluded_ips => if (try parser.checkNetworks(reading, value)) return reading.bad(line, &.{
                "pywgd leaves no networks out: write AllowedIPs without them, or use pywg up",
            }),
            .pool => _ = try parser.checkNetworks(reading, value),
            .public_endpoint => {
                var buffer: [values.value_max]u8 = undefined;
                _ = try values.endpoint(reading, value, &buffer);
            },
            .client_dns => {
                var items = text_file.words(value);
                while (items.next()) |item| _ = try values.dns(reading, item);
            },
            .endpoint_family => _ = try values.oneOf(
                reading,
                value,
                &.{ "auto", "ipv4", "ipv6" },
                "expected \"auto\", \"ipv4\" or \"ipv6\"",
            ),
            .endpoint_dns => _ = try values.oneOf(
                reading,
                value,
                &.{ "outside", "tunnel" },
                "expected \"outside\" or \"tunnel\"",
            ),
            .name => try values.peerName(reading, value),
            .replaces => _ = try values.key(reading, value),
            else => unreachable, // read above
        }
    }

    /// Whether there are any. Signs have no meaning in them.
    fn checkNetworks(parser: *Parser, reading: *const Reading, value: []const u8) ReadError!bool {
        _ = parser;
        var items: values.Items = .of(reading, value);
        var has_any = false;
        var signed: ?[]const u8 = null;
        while (try items.next()) |item| : (has_any = true) {
            const allowed = try values.allowedIp(reading, item);
            if (allowed.sign != .none and signed == null) signed = item;
        }
        if (signed) |item| return reading.bad(item, &.{"expected networks without + or -"});
        return has_any;
    }

    fn readAllowedIps(parser: *Parser, reading: *const Reading, value: []const u8) ReadError!void {
        var items: values.Items = .of(reading, value);
        var replaces = true;
        while (try items.next()) |item| {
            const allowed = try values.allowedIp(reading, item);
            if (allowed.sign != .none) replaces = false;
            try parser.out.allowedIp(allowed);
        }
        parser.peer.replaces = replaces; // the last line decides
    }

    fn readAddresses(parser: *Parser, reading: *const Reading, value: []const u8) ReadError!void {
        const settings = parser.settings;
        var items = text_file.words(value);
        while (items.next()) |item| {
            const prefix = values.prefix(item) orelse return values.badPrefix(reading, item, item);
            if (settings.address_count == addresses_max) return reading.bad(item, &.{"more addresses than 32"});
            settings.address_room[settings.address_count] = prefix;
            settings.address_count += 1;
        }
    }

    fn readEndpoint(parser: *Parser, reading: *const Reading, value: []const u8) ReadError!void {
        var buffer: [values.value_max]u8 = undefined;
        const found = try values.endpoint(reading, value, &buffer);
        if (found.kind == .name) return reading.bad(value, &.{
            "pywgd looks up no names: write the address of the host, as getent ahosts tells it",
        });
        const is_ipv6 = std.mem.findScalar(u8, found.host, ':') != null;
        var digits: [20]u8 = undefined;
        const parts: [5][]const u8 = .{
            if (is_ipv6) "[" else "",
            found.host,
            if (is_ipv6) "]" else "",
            ":",
            notes_file.decimal(found.port, &digits),
        };
        var length: usize = 0;
        for (parts) |part| {
            @memcpy(parser.endpoint_text[length..][0..part.len], part);
            length += part.len;
        }
        parser.peer.endpoint = parser.endpoint_text[0..length];
    }
};

const testing = std.testing;
const protocol = @import("protocol");

const Parsed = struct {
    room: []u8,
    change: []const u8,
    notes: Notes,
    settings: Settings,

    fn of(text: []const u8, options: Options) !Parsed {
        var parsed: Parsed = .{
            .room = try testing.allocator.alloc(u8, ChangeText.capacity(text.len)),
            .change = "",
            .notes = .{},
            .settings = undefined,
        };
        errdefer testing.allocator.free(parsed.room);
        parsed.change = try parse(text, parsed.room, options, &parsed.notes, &parsed.settings);
        return parsed;
    }

    fn deinit(parsed: *Parsed) void {
        testing.allocator.free(parsed.room);
    }
};

const key_a = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const hex_a = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const every_kind = "[Peer]\nAllowedIPs = 10.0.0.2, fd00::/64 # c\nPublicKey=" ++ key_a ++ "\n" ++
    "Endpoint=[fe80::1%eth0]:5\nPersistentKeepalive=25\n[Interface]\nPrivateKey = " ++ key_a ++ "\nAddress=10.0.0.1/24\nMTU=1400\n" ++
    "#!pywg BindDevice = eth0\n[Peer]\nPublicKey=" ++ key_a ++ "\nAllowedIPs=-10.0.0.2/32\nPresharedKey=" ++ key_a;

test "a file becomes the lines of a set, whatever the order of its own" {
    var parsed: Parsed = try .of(every_kind, .{});
    defer parsed.deinit();
    try testing.expectEqual(0, parsed.notes.count);
    try testing.expectEqualStrings("private_key=" ++ hex_a ++ "\nlisten_port=0\nfwmark=0\npywg_bind_device=eth0\n" ++
        "pywg_bind_address=\nreplace_peers=true\npublic_key=" ++ hex_a ++ "\nendpoint=[fe80::1%eth0]:5\n" ++
        "persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.2/32\nallowed_ip=fd00::/64\n" ++
        "public_key=" ++ hex_a ++ "\npreshared_key=" ++ hex_a ++ "\nallowed_ip=-10.0.0.2/32\n", parsed.change);
    try testing.expectEqual(1400, parsed.settings.mtu);
    try testing.expectEqual(24, parsed.settings.addresses()[0].length);
    try testing.expect(parsed.settings.has_private_key);
}

test "to keep sessions, what the file leaves out is taken back peer by peer" {
    var parsed: Parsed = try .of("[Peer]\nPublicKey=" ++ key_a, .{ .way = .keep, .is_pywg = false });
    defer parsed.deinit();
    const zero: [64]u8 = @splat('0');
    try testing.expectEqualStrings("private_key=" ++ zero ++ "\nfwmark=0\npublic_key=" ++ hex_a ++ "\npreshared_key=" ++
        zero ++ "\npersistent_keepalive_interval=0\nreplace_allowed_ips=true\n", parsed.change);
}

test "what pywgd does not do is named, and what would leak is wrong" {
    const Row = struct { []const u8, notes_file.Kind };
    for ([_]Row{
        .{ "DNS = 1.1.1.1", .left_out },
        .{ "SaveConfig = true", .left_out },
        .{ "PostDown = x", .left_out },
        .{ "#!pywg Backend = kernel", .left_out },
        .{ "#!pywg OnPeerUp = x", .left_out },
        .{ "PreUp = x # y", .problem },
        .{ "PostUp = x", .problem },
        .{ "#!pywg KillSwitch = lan", .problem },
        .{ "#!pywg Netns = x", .problem },
        .{ "#!pywg SocketNetns = x", .problem },
        .{ "#!pywg Only = user:x", .problem },
        .{ "#!pywg Except = user:x", .problem },
        .{ "#!pywg PrivateKeyFile = x", .problem },
        .{ "[Peer]\nPublicKey = " ++ key_a ++ "\n#!pywg ExcludedIPs = 10.0.0.0/8", .problem },
        .{ "[Peer]\nPublicKey = " ++ key_a ++ "\nEndpoint = vpn.example.org:5", .problem },
    }) |row| {
        const line, const kind = row;
        var buffer: [256]u8 = undefined;
        var parsed: Parsed = try .of(try std.mem.print(&buffer, "[Interface]\n{s}\n", .{line}), .{});
        defer parsed.deinit();
        try testing.expectEqual(1, parsed.notes.count);
        try testing.expectEqual(kind, parsed.notes.all()[0].kind);
    }
    var parsed: Parsed = try .of("[Interface]\nPostUp = x\n", .{ .leaves_hooks = true });
    defer parsed.deinit();
    try testing.expectEqual(0, parsed.notes.problems);
}

test "any text is read to its end, no note holds a key, and what has no problem is a set" {
    // zig fmt: off
    const pieces = [_][]const u8{
        "[Interface]\n", "[Peer]\n", "PrivateKey", "PublicKey", "AllowedIPs", "Endpoint", "Address", " = ", "=", key_a,
        "::,", "1.2.3.4:5", "10.0.0.0/8", "\n", "#!pywg ", "#", "\x00", "\xff", "[::1]:5", ",", "+", "-", "off", "0x",
        "PresharedKey", "Netns", "\r", key_a ++ "\n", "PublicKey = " ++ key_a ++ "\n",
    };
    // zig fmt: on
    var prng: std.Random.DefaultPrng = .init(0x5eed);
    const random = prng.random();
    var good: usize = 0;
    for (0..20_000) |_| {
        var text: [2048]u8 = undefined;
        var length: usize = 0;
        for (0..random.uintAtMost(usize, 25)) |_| {
            const piece = pieces[random.uintLessThan(usize, pieces.len)];
            @memcpy(text[length..][0..piece.len], piece);
            length += piece.len;
        }
        var parsed: Parsed = try .of(text[0..length], .{});
        defer parsed.deinit();
        try testing.expect(std.mem.find(u8, parsed.notes.bytes[0..parsed.notes.used], key_a[0..20]) == null);
        if (parsed.notes.problems > 0) continue;
        good += 1;
        var why: protocol.uapi.Diagnostic = .{};
        var change = try protocol.uapi.parse(testing.allocator, parsed.change, &why);
        change.deinit(testing.allocator);
    }
    try testing.expect(good > 500);
}
