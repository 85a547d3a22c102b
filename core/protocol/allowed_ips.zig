//! AllowedIps: cryptokey routing (section 2): prefix -> peer index, by longest match. One path-compressed
//! binary trie for each family, as in the kernel, with u32 links in a growable array instead of pointers.
//! Knows peers as numbers only. Look-ups never allocate; they remember what they found until the next change, because
//! a walk takes longer the more prefixes there are, and most packets go where others just went.
//! Invariant: a node without a peer has two children, so n prefixes need at most 2n - 1 nodes.
const std = @import("std");
const wire = @import("wire");
const assert = @import("wire").assert;
const Allocator = std.mem.Allocator;
const Address = wire.Address;
const Family = wire.Family;
const Prefix = wire.Prefix;

const none = std.math.maxInt(u32);

/// An address as two words in host order, left-aligned: IPv4 is the upper half of the first.
const Key = [2]u64;

/// What a look-up reads: half a cache line.
const Node = struct {
    key: Key align(32),
    children: [2]u32,
    /// The owner, or `none` where two branches only meet.
    peer: u32,
    length: u8,

    comptime {
        assert(@sizeOf(Node) == 32);
    }
};

/// What only changes read.
const Links = struct {
    parent: u32,
    /// Neighbours among the prefixes of one peer.
    previous: u32,
    next: u32,
    family: Family,
};

/// The prefixes of one peer, of both families, in the order they came.
const List = struct {
    head: u32 = none,
    tail: u32 = none,
};

/// An answer found before.
const Memo = struct {
    key: Key,
    peer: u32,
    /// The epoch it holds in and the family of the key; `no_tag` where nothing was found yet.
    tag: u32,
};

const no_tag = 0;

/// A table with fewer prefixes is walked as fast as it is remembered.
const memo_prefixes_min = 8;
/// 384 KiB.
const memos_max = 1 << 14;

pub const AllowedIps = struct {
    nodes: std.ArrayList(Node) = .empty,
    links: std.ArrayList(Links) = .empty,
    lists: std.ArrayList(List) = .empty,
    /// A power of two of them, or none; an answer has one place.
    memos: []Memo = &.{},
    /// Counts changes, which make all answers void; from 1.
    epoch: u31 = 1,
    root_ipv4: u32 = none,
    root_ipv6: u32 = none,
    /// Unused nodes, linked by their first child.
    free_head: u32 = none,
    free_count: u32 = 0,
    /// Prefixes in the table.
    count: u32 = 0,

    pub const init: AllowedIps = .{};

    pub fn deinit(table: *AllowedIps, gpa: Allocator) void {
        table.nodes.deinit(gpa);
        table.links.deinit(gpa);
        table.lists.deinit(gpa);
        gpa.free(table.memos);
        table.* = undefined;
    }

    /// Room for `additional` prefixes more, whichever they are.
    pub fn ensureUnusedCapacity(table: *AllowedIps, gpa: Allocator, additional: usize) Allocator.Error!void {
        const fresh = (additional *| 2) -| table.free_count;
        const total = table.nodes.items.len +| fresh;
        if (total >= none) return error.OutOfMemory;
        try table.nodes.ensureTotalCapacity(gpa, total);
        try table.links.ensureTotalCapacity(gpa, total);
        try table.ensureMemos(gpa, table.count +| additional);
    }

    fn ensureMemos(table: *AllowedIps, gpa: Allocator, prefixes: usize) Allocator.Error!void {
        if (prefixes < memo_prefixes_min) return;
        const wanted = std.math.ceilPowerOfTwoAssert(usize, @min(prefixes, memos_max));
        if (wanted <= table.memos.len) return;
        const memos = try gpa.alloc(Memo, wanted);
        for (memos) |*memo| memo.tag = no_tag;
        gpa.free(table.memos);
        table.memos = memos;
    }

    /// Makes the peer indices below `peer_count` usable.
    pub fn ensurePeerCapacity(table: *AllowedIps, gpa: Allocator, peer_count: u32) Allocator.Error!void {
        try table.lists.ensureTotalCapacity(gpa, peer_count);
        while (table.lists.items.len < peer_count) table.lists.appendAssumeCapacity(.{});
    }

    /// Gives the prefix to the peer; host bits do not count. Another owner of the very same prefix loses it.
    pub fn insert(table: *AllowedIps, gpa: Allocator, prefix: Prefix, peer: u32) Allocator.Error!void {
        if (peer == none) return error.OutOfMemory;
        try table.ensurePeerCapacity(gpa, peer + 1);
        try table.ensureUnusedCapacity(gpa, 1);
        table.insertAssumeCapacity(prefix, peer);
    }

    /// As insert, where both capacities are ensured.
    pub fn insertAssumeCapacity(table: *AllowedIps, prefix: Prefix, peer: u32) void {
        const family = prefix.address.family;
        assert(prefix.length <= family.bitLength());
        const key = keyOf(&prefix.masked().address);
        var parent: u32 = none;
        var below = table.root(family).*;
        while (below != none) {
            const node = &table.nodes.items[below];
            if (node.length > prefix.length or commonBits(node.key, key) < node.length) break;
            if (node.length == prefix.length) return table.setOwner(below, peer);
            parent = below;
            below = node.children[bitAt(key, node.length)];
        }
        const leaf = table.take(family, key, prefix.length);
        table.setOwner(leaf, peer);
        if (below == none) return table.attach(parent, leaf);

        const shared = @min(prefix.length, commonBits(table.nodes.items[below].key, key));
        assert(shared < table.nodes.items[below].length);
        if (shared == prefix.length) {
            table.attach(parent, leaf);
            table.attach(leaf, below);
        } else {
            const fork = table.take(family, firstBits(key, shared), shared);
            table.attach(parent, fork);
            table.attach(fork, leaf);
            table.attach(fork, below);
        }
    }

    /// False when the peer does not own exactly this prefix.
    pub fn remove(table: *AllowedIps, prefix: Prefix, peer: u32) bool {
        const node = table.findExact(prefix);
        if (node == none or peer == none or table.nodes.items[node].peer != peer) return false;
        table.removeNode(node);
        return true;
    }

    /// Takes all its prefixes from the peer.
    pub fn removePeer(table: *AllowedIps, peer: u32) void {
        if (peer >= table.lists.items.len) return;
        while (table.lists.items[peer].head != none) table.removeNode(table.lists.items[peer].head);
    }

    /// The peer with the longest prefix that holds the address.
    pub fn lookup(table: *AllowedIps, address: *const Address) ?u32 {
        return switch (address.family) {
            .ipv4 => table.lookupBytes(.ipv4, address.bytes[0..4]),
            .ipv6 => table.lookupBytes(.ipv6, &address.bytes),
        };
    }

    /// As lookup, for an address as it lies in a packet.
    pub fn lookupBytes(
        table: *AllowedIps,
        comptime family: Family,
        bytes: *const [family.byteLength()]u8,
    ) ?u32 {
        const key = switch (family) {
            .ipv4 => keyOfIpv4(bytes),
            .ipv6 => keyOfIpv6(bytes),
        };
        if (table.memos.len == 0) return asAnswer(table.walk(family, key));
        const tag = @as(u32, table.epoch) << 1 | @intFromBool(family == .ipv6);
        const memo = &table.memos[memoIndex(key) & (table.memos.len - 1)];
        if (memo.tag != tag or !std.mem.eql(u64, &memo.key, &key)) {
            memo.* = .{ .key = key, .peer = table.walk(family, key), .tag = tag };
        }
        return asAnswer(memo.peer);
    }

    fn asAnswer(peer: u32) ?u32 {
        return if (peer == none) null else peer;
    }

    /// To be called by everything that changes what a look-up finds.
    fn voidMemos(table: *AllowedIps) void {
        if (table.epoch == std.math.maxInt(u31)) {
            for (table.memos) |*memo| memo.tag = no_tag; // else old ones would hold again
            table.epoch = 0;
        }
        table.epoch += 1;
    }

    fn walk(table: *const AllowedIps, comptime family: Family, key: Key) u32 {
        const nodes = table.nodes.items;
        var best: u32 = none;
        var index = switch (family) {
            .ipv4 => table.root_ipv4,
            .ipv6 => table.root_ipv6,
        };
        while (index != none) {
            const node = &nodes[index];
            const common: u8 = switch (family) {
                .ipv4 => @clz(node.key[0] ^ key[0]),
                .ipv6 => commonBits(node.key, key),
            };
            if (common < node.length) break;
            if (node.peer != none) best = node.peer;
            if (node.length == comptime family.bitLength()) break;
            index = node.children[bitAt(key, node.length)];
        }
        return best;
    }

    /// The prefixes of a peer in the order they came, as the kernel shows them: one that is given again,
    /// even to the same peer, goes to the end. Not to be used across a change.
    pub fn iterate(table: *const AllowedIps, peer: u32) Iterator {
        const known = peer < table.lists.items.len;
        return .{ .table = table, .node = if (known) table.lists.items[peer].head else none };
    }

    pub const Iterator = struct {
        table: *const AllowedIps,
        node: u32,

        pub fn next(iterator: *Iterator) ?Prefix {
            if (iterator.node == none) return null;
            const node = &iterator.table.nodes.items[iterator.node];
            const links = &iterator.table.links.items[iterator.node];
            iterator.node = links.next;
            return .{ .address = addressOf(links.family, node.key), .length = node.length };
        }
    };

    /// Nodes in use, those without a peer included.
    pub fn nodeCount(table: *const AllowedIps) usize {
        return table.nodes.items.len - table.free_count;
    }

    fn root(table: *AllowedIps, family: Family) *u32 {
        return switch (family) {
            .ipv4 => &table.root_ipv4,
            .ipv6 => &table.root_ipv6,
        };
    }

    fn findExact(table: *AllowedIps, prefix: Prefix) u32 {
        const key = keyOf(&prefix.masked().address);
        var index = table.root(prefix.address.family).*;
        while (index != none) {
            const node = &table.nodes.items[index];
            if (node.length > prefix.length or commonBits(node.key, key) < node.length) return none;
            if (node.length == prefix.length) return index;
            index = node.children[bitAt(key, node.length)];
        }
        return none;
    }

    fn setOwner(table: *AllowedIps, index: u32, peer: u32) void {
        const node = &table.nodes.items[index];
        if (node.peer == none) table.count += 1 else table.leaveList(index);
        node.peer = peer;
        table.voidMemos();
        const list = &table.lists.items[peer];
        const links = &table.links.items[index];
        links.previous = list.tail;
        links.next = none;
        if (list.tail == none) list.head = index else table.links.items[list.tail].next = index;
        list.tail = index;
    }

    fn leaveList(table: *AllowedIps, index: u32) void {
        const list = &table.lists.items[table.nodes.items[index].peer];
        const links = table.links.items[index];
        if (links.previous == none) list.head = links.next else table.links.items[links.previous].next = links.next;
        if (links.next == none) list.tail = links.previous else table.links.items[links.next].previous = links.previous;
    }

    fn removeNode(table: *AllowedIps, index: u32) void {
        table.voidMemos();
        table.leaveList(index);
        table.nodes.items[index].peer = none;
        table.count -= 1;
        const parent = table.links.items[index].parent;
        const was_leaf = std.mem.eql(u32, &table.nodes.items[index].children, &.{ none, none });
        table.splice(index);
        // A fork that lost a branch is none any more.
        if (was_leaf and parent != none and table.nodes.items[parent].peer == none) table.splice(parent);
    }

    /// Puts the only child of a node without a peer, if it has one, in the node's place.
    fn splice(table: *AllowedIps, index: u32) void {
        const node = table.nodes.items[index];
        assert(node.peer == none);
        if (node.children[0] != none and node.children[1] != none) return;
        const child = if (node.children[0] != none) node.children[0] else node.children[1];
        const links = table.links.items[index];
        table.placeBelow(links.parent, links.family, node.key).* = child;
        if (child != none) table.links.items[child].parent = links.parent;
        table.give(index);
    }

    fn attach(table: *AllowedIps, parent: u32, child: u32) void {
        const links = &table.links.items[child];
        table.placeBelow(parent, links.family, table.nodes.items[child].key).* = child;
        links.parent = parent;
    }

    /// Where the link to a child of `parent` with this key is kept.
    fn placeBelow(table: *AllowedIps, parent: u32, family: Family, key: Key) *u32 {
        if (parent == none) return table.root(family);
        const node = &table.nodes.items[parent];
        return &node.children[bitAt(key, node.length)];
    }

    fn take(table: *AllowedIps, family: Family, key: Key, length: u8) u32 {
        var index = table.free_head;
        if (index != none) {
            table.free_head = table.nodes.items[index].children[0];
            table.free_count -= 1;
        } else {
            index = @intCast(table.nodes.items.len);
            _ = table.nodes.addOneAssumeCapacity();
            _ = table.links.addOneAssumeCapacity();
        }
        table.nodes.items[index] = .{ .key = key, .children = @splat(none), .peer = none, .length = length };
        table.links.items[index] = .{ .parent = none, .previous = none, .next = none, .family = family };
        return index;
    }

    fn give(table: *AllowedIps, index: u32) void {
        table.nodes.items[index].children = .{ table.free_head, none };
        table.free_head = index;
        table.free_count += 1;
    }
};

fn keyOf(address: *const Address) Key {
    return switch (address.family) {
        .ipv4 => keyOfIpv4(address.bytes[0..4]),
        .ipv6 => keyOfIpv6(&address.bytes),
    };
}

inline fn keyOfIpv4(bytes: *const [4]u8) Key {
    return .{ @as(u64, std.mem.readInt(u32, bytes, .big)) << 32, 0 };
}

inline fn keyOfIpv6(bytes: *const [16]u8) Key {
    return .{ std.mem.readInt(u64, bytes[0..8], .big), std.mem.readInt(u64, bytes[8..16], .big) };
}

fn addressOf(family: Family, key: Key) Address {
    var octets: [16]u8 = undefined;
    std.mem.writeInt(u64, octets[0..8], key[0], .big);
    std.mem.writeInt(u64, octets[8..16], key[1], .big);
    return switch (family) {
        .ipv4 => Address.fromIpv4(octets[0..4].*),
        .ipv6 => Address.fromIpv6(octets),
    };
}

/// Length of the common prefix; of equal keys 128, whatever the family.
inline fn commonBits(a: Key, b: Key) u8 {
    const difference = a[0] ^ b[0];
    return if (difference != 0) @clz(difference) else 64 + @as(u8, @clz(a[1] ^ b[1]));
}

/// The upper bits of a product depend on all of the key. Whoever makes keys collide only makes look-ups walk.
inline fn memoIndex(key: Key) usize {
    const folded = key[0] ^ std.math.rotl(u64, key[1], 32);
    return @intCast(folded *% 0x9e37_79b9_7f4a_7c15 >> (64 - 24));
}

inline fn bitAt(key: Key, position: u8) u1 {
    assert(position < 128);
    return @truncate(key[position / 64] >> @intCast(63 - position % 64));
}

fn firstBits(key: Key, length: u8) Key {
    assert(length < 128);
    const kept: u6 = @intCast(length % 64);
    const mask = ~(@as(u64, std.math.maxInt(u64)) >> kept);
    return if (length < 64) .{ key[0] & mask, 0 } else .{ key[0], key[1] & mask };
}

const testing = std.testing;

fn expectLookup(table: *AllowedIps, expected: ?u32, text: []const u8) !void {
    try testing.expectEqual(expected, table.lookup(&Address.parse(text).?));
}

fn expectPrefixes(table: *const AllowedIps, peer: u32, expected: []const []const u8) !void {
    var iterator = table.iterate(peer);
    for (expected) |text| {
        var buffer: [64]u8 = undefined;
        const prefix = iterator.next() orelse return error.TestUnexpectedResult;
        try testing.expectEqualStrings(text, try std.mem.print(&buffer, "{f}", .{prefix}));
    }
    try testing.expectEqual(null, iterator.next());
}

fn insertText(table: *AllowedIps, text: []const u8, peer: u32) !void {
    try table.insert(testing.allocator, Prefix.parse(text).?, peer);
}

/// The invariants, by a walk over every node.
fn expectSound(table: *const AllowedIps) !void {
    var owned: usize = 0;
    var nodes: usize = 0;
    for ([_]u32{ table.root_ipv4, table.root_ipv6 }) |top| {
        if (top == none) continue;
        try testing.expectEqual(none, table.links.items[top].parent);
        try expectSoundBelow(table, top, &nodes, &owned);
    }
    try testing.expectEqual(table.nodeCount(), nodes);
    try testing.expectEqual(table.count, owned);
    try testing.expect(nodes <= 2 * owned);
    var listed: usize = 0;
    for (table.lists.items, 0..) |list, peer| {
        var previous: u32 = none;
        var index = list.head;
        while (index != none) : (index = table.links.items[index].next) {
            try testing.expectEqual(peer, table.nodes.items[index].peer);
            try testing.expectEqual(previous, table.links.items[index].previous);
            previous = index;
            listed += 1;
        }
        try testing.expectEqual(previous, list.tail);
    }
    try testing.expectEqual(table.count, listed);
}

fn expectSoundBelow(table: *const AllowedIps, index: u32, nodes: *usize, owned: *usize) !void {
    const node = table.nodes.items[index];
    nodes.* += 1;
    if (node.peer != none) owned.* += 1;
    if (node.peer == none) try testing.expect(node.children[0] != none and node.children[1] != none);
    for (node.children, 0..) |child, bit| {
        if (child == none) continue;
        const below = table.nodes.items[child];
        try testing.expectEqual(index, table.links.items[child].parent);
        try testing.expectEqual(table.links.items[index].family, table.links.items[child].family);
        try testing.expect(below.length > node.length);
        try testing.expect(commonBits(below.key, node.key) >= node.length);
        try testing.expectEqual(bit, bitAt(below.key, node.length));
        try expectSoundBelow(table, child, nodes, owned);
    }
}

test "the longest prefix wins" {
    var table: AllowedIps = .init;
    defer table.deinit(testing.allocator);
    try expectLookup(&table, null, "10.0.0.1");
    try expectLookup(&table, null, "::");
    for ([_]struct { []const u8, u32 }{
        .{ "10.0.0.0/8", 1 },          .{ "10.1.0.0/16", 2 },            .{ "10.1.2.0/24", 3 },
        .{ "10.1.2.3/32", 4 },         .{ "10.128.0.0/9", 5 },           .{ "192.168.0.0/31", 6 },
        .{ "2001:db8::/32", 1 },       .{ "2001:db8::/64", 2 },          .{ "2001:db8::1/128", 3 },
        .{ "2001:db8:0:0:8::/65", 4 }, .{ "2001:db8:0:0:8000::/65", 5 }, .{ "fe80::/10", 7 },
    }) |row| try insertText(&table, row[0], row[1]);
    for ([_]struct { []const u8, ?u32 }{
        .{ "10.0.0.0", 1 },      .{ "10.127.255.255", 1 },       .{ "10.128.0.0", 5 },         .{ "10.1.0.1", 2 },
        .{ "10.1.2.2", 3 },      .{ "10.1.2.3", 4 },             .{ "10.1.3.3", 2 },           .{ "11.0.0.0", null },
        .{ "192.168.0.1", 6 },   .{ "192.168.0.2", null },       .{ "2001:db8:1::", 1 },       .{ "2001:db8::2", 4 },
        .{ "2001:db8::1", 3 },   .{ "2001:db8::8000:0:0:0", 5 }, .{ "fe80::1", 7 },            .{ "fec0::1", null },
        .{ "2001:db9::", null }, .{ "0.0.0.0", null },           .{ "255.255.255.255", null },
    }) |row| try expectLookup(&table, row[1], row[0]);
    try expectSound(&table);
    // The default routes catch the rest, each in its own family.
    try insertText(&table, "0.0.0.0/0", 8);
    try expectLookup(&table, 8, "11.0.0.0");
    try expectLookup(&table, 4, "10.1.2.3");
    try expectLookup(&table, null, "2001:db9::");
    try insertText(&table, "::/0", 9);
    try expectLookup(&table, 9, "2001:db9::");
    try expectLookup(&table, 8, "0.0.0.0");
    try expectSound(&table);
}

test "a prefix moves from peer to peer, and goes only with its owner" {
    var table: AllowedIps = .init;
    defer table.deinit(testing.allocator);
    try insertText(&table, "10.0.0.0/24", 0);
    try insertText(&table, "10.0.0.128/25", 0);
    try insertText(&table, "10.0.0.77/24", 1); // the same prefix: host bits do not count
    try testing.expectEqual(2, table.count);
    try expectLookup(&table, 1, "10.0.0.1");
    try expectLookup(&table, 0, "10.0.0.200");
    try testing.expect(!table.remove(Prefix.parse("10.0.0.0/24").?, 0));
    try testing.expect(!table.remove(Prefix.parse("10.0.0.0/23").?, 1));
    try testing.expect(!table.remove(Prefix.parse("10.0.0.0/26").?, 1));
    try testing.expect(!table.remove(Prefix.parse("::/0").?, 1));
    try testing.expect(table.remove(Prefix.parse("10.0.0.9/24").?, 1));
    try expectLookup(&table, null, "10.0.0.1");
    try expectLookup(&table, 0, "10.0.0.200");
    table.removePeer(0);
    table.removePeer(1);
    table.removePeer(1000);
    try testing.expectEqual(0, table.count);
    try testing.expectEqual(0, table.nodeCount());
}

test "what was found before holds until the next change, in its own family" {
    var table: AllowedIps = .init;
    defer table.deinit(testing.allocator);
    try table.ensureUnusedCapacity(testing.allocator, memo_prefixes_min);
    try testing.expect(table.memos.len >= memo_prefixes_min);
    try insertText(&table, "10.0.0.0/8", 1);
    for (0..2) |_| { // the second time from memory
        try expectLookup(&table, 1, "10.0.0.1");
        try expectLookup(&table, null, "11.0.0.1");
        try expectLookup(&table, null, "a00:1::"); // the same key as 10.0.0.1
    }
    try insertText(&table, "a00::/16", 2);
    try insertText(&table, "10.0.0.1/32", 3);
    try expectLookup(&table, 2, "a00:1::");
    try expectLookup(&table, 3, "10.0.0.1");
    table.removePeer(3);
    try expectLookup(&table, 1, "10.0.0.1");
    try testing.expect(table.remove(Prefix.parse("10.0.0.0/8").?, 1));
    try expectLookup(&table, null, "10.0.0.1");
    // Nor does it hold again when the count of changes begins anew.
    table.epoch = 1;
    try insertText(&table, "10.0.0.0/8", 4);
    try testing.expectEqual(2, table.epoch);
    try expectLookup(&table, 4, "10.0.0.1");
    table.epoch = std.math.maxInt(u31);
    try insertText(&table, "10.0.0.0/8", 5);
    try insertText(&table, "10.0.0.0/8", 6);
    try testing.expectEqual(2, table.epoch);
    try expectLookup(&table, 6, "10.0.0.1");
}

test "prefixes are shown in the order they were given" {
    var table: AllowedIps = .init;
    defer table.deinit(testing.allocator);
    const given = [_][]const u8{ "fd00::/64", "10.0.0.0/8", "0.0.0.0/0", "10.0.0.0/24", "::/0" };
    for (given) |text| try insertText(&table, text, 3);
    try expectPrefixes(&table, 3, &given);
    try insertText(&table, "10.0.0.0/8", 3);
    try insertText(&table, "0.0.0.0/0", 2);
    try expectPrefixes(&table, 3, &.{ "fd00::/64", "10.0.0.0/24", "::/0", "10.0.0.0/8" });
    try expectPrefixes(&table, 2, &.{"0.0.0.0/0"});
    try expectPrefixes(&table, 0, &.{});
    try expectPrefixes(&table, 99, &.{});
}

test "every length of both families can be held at once" {
    var table: AllowedIps = .init;
    defer table.deinit(testing.allocator);
    for ([_][]const u8{ "255.170.85.1", "ffaa:5501:ffaa:5501:ffaa:5501:ffaa:5501" }) |text| {
        const address = Address.parse(text).?;
        const bits = address.family.bitLength();
        for (0..bits + 1) |length| {
            try table.insert(testing.allocator, .{ .address = address, .length = @intCast(length) }, @intCast(length));
        }
        try expectSound(&table);
        for (0..bits + 1) |differs| {
            // An address that agrees in exactly this many bits.
            var probe = address;
            if (differs < bits) probe.bytes[differs / 8] ^= @as(u8, 0x80) >> @intCast(differs % 8);
            try testing.expectEqual(@as(u32, @intCast(differs)), table.lookup(&probe));
        }
        for (0..bits + 1) |length| table.removePeer(@intCast(length));
        try testing.expectEqual(0, table.nodeCount());
    }
}

/// The obvious implementation, which checks the other.
const Oracle = struct {
    entries: std.ArrayList(Entry) = .empty,

    const Entry = struct { prefix: Prefix, peer: u32 };

    fn find(oracle: *const Oracle, prefix: Prefix) ?usize {
        for (oracle.entries.items, 0..) |entry, i| {
            if (entry.prefix.length == prefix.length and entry.prefix.address.eql(prefix.masked().address)) return i;
        }
        return null;
    }

    fn insert(oracle: *Oracle, prefix: Prefix, peer: u32) !void {
        if (oracle.find(prefix)) |i| _ = oracle.entries.orderedRemove(i);
        try oracle.entries.append(testing.allocator, .{ .prefix = prefix.masked(), .peer = peer });
    }

    fn remove(oracle: *Oracle, prefix: Prefix, peer: u32) bool {
        const i = oracle.find(prefix) orelse return false;
        if (oracle.entries.items[i].peer != peer) return false;
        _ = oracle.entries.orderedRemove(i);
        return true;
    }

    fn removePeer(oracle: *Oracle, peer: u32) void {
        var i = oracle.entries.items.len;
        while (i > 0) {
            i -= 1;
            if (oracle.entries.items[i].peer == peer) _ = oracle.entries.orderedRemove(i);
        }
    }

    fn lookup(oracle: *const Oracle, address: Address) ?u32 {
        var best: ?Entry = null;
        for (oracle.entries.items) |entry| {
            const candidate: Prefix = .{ .address = address, .length = entry.prefix.length };
            if (entry.prefix.address.family != address.family) continue;
            if (!candidate.masked().address.eql(entry.prefix.address)) continue;
            if (best == null or entry.prefix.length > best.?.prefix.length) best = entry;
        }
        return if (best) |entry| entry.peer else null;
    }
};

/// Few distinct bytes, so that prefixes nest, meet and repeat.
fn randomAddress(random: std.Random) Address {
    var octets: [16]u8 = undefined;
    for (&octets) |*octet| octet.* = ([_]u8{ 0, 0, 0, 1, 0x80, 0xff })[random.uintLessThan(usize, 6)];
    return if (random.boolean()) Address.fromIpv4(octets[0..4].*) else Address.fromIpv6(octets);
}

fn randomPrefix(random: std.Random) Prefix {
    const address = randomAddress(random);
    return .{ .address = address, .length = random.uintAtMost(u8, address.family.bitLength()) };
}

test "random changes and look-ups agree with a linear search" {
    var table: AllowedIps = .init;
    defer table.deinit(testing.allocator);
    var oracle: Oracle = .{};
    defer oracle.entries.deinit(testing.allocator);
    var prng: std.Random.DefaultPrng = .init(6);
    const random = prng.random();
    for (0..100_000) |step| {
        // The load swings between almost none and about a hundred prefixes.
        const growing = step / 500 % 2 == 0;
        const peer = random.uintLessThan(u32, 12);
        switch (random.uintLessThan(u8, 100)) {
            0 => {
                table.removePeer(peer);
                oracle.removePeer(peer);
            },
            1...39 => if (growing and oracle.entries.items.len < 100) {
                const prefix = randomPrefix(random);
                try table.insert(testing.allocator, prefix, peer);
                try oracle.insert(prefix, peer);
            } else if (oracle.entries.items.len > 0) {
                const entry = oracle.entries.items[random.uintLessThan(usize, oracle.entries.items.len)];
                const owner = if (random.uintLessThan(u8, 8) == 0) peer else entry.peer;
                try testing.expectEqual(oracle.remove(entry.prefix, owner), table.remove(entry.prefix, owner));
            },
            40...44 => {
                const prefix = randomPrefix(random);
                try testing.expectEqual(oracle.remove(prefix, peer), table.remove(prefix, peer));
            },
            else => {},
        }
        const address = randomAddress(random);
        try testing.expectEqual(oracle.lookup(address), table.lookup(&address));
        try testing.expectEqual(oracle.entries.items.len, table.count);
        if (step % 250 != 0) continue;
        try expectSound(&table);
        for (0..12) |p| {
            var iterator = table.iterate(@intCast(p));
            for (oracle.entries.items) |entry| {
                if (entry.peer == p) try testing.expectEqual(entry.prefix, iterator.next());
            }
            try testing.expectEqual(null, iterator.next());
        }
    }
    for (0..12) |peer| table.removePeer(@intCast(peer));
    try testing.expectEqual(0, table.nodeCount());
    try testing.expectEqual(0, table.count);
}

fn insertMany(gpa: Allocator) !void {
    var table: AllowedIps = .init;
    defer table.deinit(gpa);
    var prng: std.Random.DefaultPrng = .init(7);
    for (0..200) |i| {
        const before = table.count;
        table.insert(gpa, randomPrefix(prng.random()), @intCast(i % 40)) catch |err| {
            try testing.expectEqual(before, table.count);
            try expectSound(&table);
            return err;
        };
    }
}

test "an insertion without memory changes nothing" {
    try testing.checkAllAllocationFailures(testing.allocator, insertMany, .{});
    var table: AllowedIps = .init;
    defer table.deinit(testing.allocator);
    const huge = std.math.maxInt(usize);
    try testing.expectError(error.OutOfMemory, table.ensureUnusedCapacity(testing.allocator, huge));
    try testing.expectError(error.OutOfMemory, insertText(&table, "::/0", none));
}

test "ensured capacity is enough for any prefixes, also after many were removed" {
    var table: AllowedIps = .init;
    defer table.deinit(testing.allocator);
    var prng: std.Random.DefaultPrng = .init(8);
    try table.ensurePeerCapacity(testing.allocator, 1);
    for (0..20) |_| {
        try table.ensureUnusedCapacity(testing.allocator, 500);
        const reserved = table.nodes.capacity;
        for (0..500) |_| table.insertAssumeCapacity(randomPrefix(prng.random()), 0);
        try testing.expectEqual(reserved, table.nodes.capacity);
        if (prng.random().boolean()) table.removePeer(0);
    }
}
