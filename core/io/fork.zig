//! Memory that belongs to one process: a forked child finds it wiped (MADV_WIPEONFORK, Linux 4.14, madvise(2)). A child
//! with a copy of keys and counters would seal other packets with the same nonces.
//! Invariant: an Owner in this memory is that of no other process.
const std = @import("std");
const Allocator = std.mem.Allocator;
const Alignment = std.mem.Alignment;
const linux = std.os.linux;

const pages = std.heap.page_allocator;

/// Pages of their own for each allocation. Where the kernel does not wipe them, a child has a copy, and only `Owner`
/// can tell.
pub const allocator: Allocator = .{
    .ptr = undefined,
    .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free },
};

fn alloc(_: *anyopaque, length: usize, alignment: Alignment, return_address: usize) ?[*]u8 {
    const memory = pages.rawAlloc(length, alignment, return_address) orelse return null;
    _ = wipeInChildren(memory[0..length]);
    return memory;
}

// What grows is the same mapping, with the same advice.

fn resize(_: *anyopaque, memory: []u8, alignment: Alignment, length: usize, return_address: usize) bool {
    return pages.rawResize(memory, alignment, length, return_address);
}

fn remap(_: *anyopaque, memory: []u8, alignment: Alignment, length: usize, return_address: usize) ?[*]u8 {
    return pages.rawRemap(memory, alignment, length, return_address);
}

fn free(_: *anyopaque, memory: []u8, alignment: Alignment, return_address: usize) void {
    pages.rawFree(memory, alignment, return_address);
}

/// The pages that the memory lies in. Whether the kernel said that it will wipe them.
fn wipeInChildren(memory: []const u8) bool {
    const start = std.mem.alignBackward(usize, @intFromPtr(memory.ptr), std.heap.pageSize());
    const end = std.mem.alignForward(usize, @intFromPtr(memory.ptr) + memory.len, std.heap.pageSize());
    const first: [*]u8 = @ptrFromInt(start);
    // An emulator that agrees to anything keeps no promise.
    const nonsense = std.math.maxInt(u32);
    if (linux.errno(linux.madvise(first, end - start, nonsense)) == .SUCCESS) return false;
    return linux.errno(linux.madvise(first, end - start, linux.MADV.WIPEONFORK)) == .SUCCESS;
}

/// Who may use what it lies in: a member of something that `allocator` lent.
pub const Owner = extern struct {
    mark: u64,

    /// Zero is what a child finds.
    const whoever_sees_this: u64 = std.math.maxInt(u64);

    /// Must stay where it is.
    pub fn claim(owner: *Owner) void {
        owner.* = .of(wipeInChildren(std.mem.asBytes(owner)));
    }

    fn of(is_wiped: bool) Owner {
        if (is_wiped) return .{ .mark = whoever_sees_this };
        return .{ .mark = @intCast(linux.getpid()) };
    }

    /// Whether this process made the claim. Without a system call where memory is wiped; elsewhere by its number, which
    /// processes of two PID namespaces may have both.
    pub fn isThisProcess(owner: *const Owner) bool {
        return switch (owner.mark) {
            0 => false,
            whoever_sees_this => true,
            else => |pid| pid == @as(u64, @intCast(linux.getpid())),
        };
    }
};

/// Descriptors of which a forked child has copies that it cannot use, and by which things live on after its parent has
/// closed them: a TUN, a port. It lies in memory that a child does not find wiped.
/// Invariant: what is in here is open. So it comes in after it was opened, and goes before it is closed.
pub const Inherited = struct {
    slots: [descriptors_max]std.atomic.Value(i32) = @splat(.init(none)),

    const none = -1;
    /// Five for each worker and some ten more. What finds no room is left open in children, no more.
    const descriptors_max = 512;

    pub fn add(inherited: *Inherited, fd: i32) void {
        for (&inherited.slots) |*slot| if (slot.cmpxchgStrong(none, fd, .monotonic, .monotonic) == null) return;
    }

    pub fn remove(inherited: *Inherited, fd: i32) void {
        for (&inherited.slots) |*slot| if (slot.cmpxchgStrong(fd, none, .monotonic, .monotonic) == null) return;
    }

    pub fn clear(inherited: *Inherited) void {
        for (&inherited.slots) |*slot| slot.store(none, .monotonic);
    }

    /// For the child. A second time is harmless.
    pub fn close(inherited: *Inherited) void {
        for (&inherited.slots) |*slot| {
            const fd = slot.swap(none, .monotonic);
            if (fd != none) _ = linux.close(fd);
        }
    }
};

const testing = std.testing;

fn isOpen(fd: i32) bool {
    return linux.errno(linux.fcntl(fd, linux.F.GETFD, 0)) == .SUCCESS;
}

test "what is inherited is closed once, and nothing else" {
    var inherited: Inherited = .{};
    var fds: [3]i32 = undefined;
    for (&fds) |*fd| {
        fd.* = @intCast(linux.eventfd(0, linux.EFD.CLOEXEC));
        inherited.add(fd.*);
    }
    defer _ = linux.close(fds[1]);
    inherited.remove(fds[1]);
    inherited.close();
    for (fds, [_]bool{ false, true, false }) |fd, expected| try testing.expectEqual(expected, isOpen(fd));
    const again: i32 = @intCast(linux.eventfd(0, linux.EFD.CLOEXEC));
    defer _ = linux.close(again);
    try testing.expectEqual(fds[0], again);
    inherited.close();
    try testing.expect(isOpen(again));
}

/// What a forked child answers, as its exit status.
fn askChild(question: *const fn (context: *const anyopaque) bool, context: *const anyopaque) !bool {
    const rc = linux.fork();
    if (linux.errno(rc) != .SUCCESS) return error.SkipZigTest;
    if (rc == 0) linux.exit_group(@intFromBool(question(context)));
    var status: i32 = 0;
    while (linux.errno(linux.waitpid(@intCast(rc), &status, 0)) == .INTR) {}
    return status >> 8 & 0xff == 1;
}

fn isOwner(context: *const anyopaque) bool {
    const owner: *const Owner = @ptrCast(@alignCast(context));
    return owner.isThisProcess();
}

test "a child is not the owner, the parent stays it" {
    const Owned = extern struct { before: [5001]u8, owner: Owner };
    const owned = try allocator.create(Owned);
    defer allocator.destroy(owned);
    const owner = &owned.owner;
    owner.claim();
    // Where memory is wiped, no number is asked for.
    try testing.expectEqual(wipeInChildren(&owned.before), owner.mark == Owner.whoever_sees_this);
    try testing.expect(owner.isThisProcess());
    try testing.expect(!try askChild(isOwner, owner));
    try testing.expect(owner.isThisProcess());
}

test "nor where memory is not wiped" {
    const owner: Owner = .of(false);
    try testing.expect(owner.isThisProcess());
    try testing.expect(!try askChild(isOwner, &owner));
}

const grown_length = 1 << 20;

fn isEmpty(context: *const anyopaque) bool {
    const secret: *const [grown_length]u8 = @ptrCast(context);
    return std.mem.allEqual(u8, secret, 0);
}

test "what has grown is wiped in a child as well" {
    var secret = try allocator.alloc(u8, 100);
    defer allocator.free(secret);
    if (!wipeInChildren(secret)) return error.SkipZigTest;
    secret = try allocator.realloc(secret, grown_length);
    @memset(secret, 0x5a);
    try testing.expect(try askChild(isEmpty, secret.ptr));
    try testing.expect(std.mem.allEqual(u8, secret, 0x5a));
}
