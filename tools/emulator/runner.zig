//! Runs tests one after the other where there are neither threads nor a terminal; of the system it asks only to write
//! and to exit. Arguments are parts of names: then only the tests that have one of them run.
//! Invariant: exit code 0 means that a test ran, and all that ran passed and gave their memory back.
const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;

pub const std_options: std.Options = .{ .signal_stack_size = null, .enable_segfault_handler = false };

pub fn main(init: std.process.Init.Minimal) u8 {
    var passed: usize = 0;
    var failed: usize = 0;
    for (builtin.test_functions) |test_fn| {
        if (!isWanted(test_fn.name, init.args)) continue;
        std.testing.allocator_instance = .init(std.heap.page_allocator, .{});
        say("{s} ... ", .{test_fn.name});
        if (test_fn.func()) |_| {
            passed += 1;
            say("ok\n", .{});
        } else |err| {
            failed += 1;
            say("FAILED: {t}\n", .{err});
        }
        if (std.testing.allocator_instance.deinit() != 0) {
            failed += 1;
            say("  it leaked memory\n", .{});
        }
    }
    say("{d} passed, {d} failed\n", .{ passed, failed });
    return if (failed == 0 and passed > 0) 0 else 1;
}

fn isWanted(name: []const u8, args: std.process.Args) bool {
    var parts = args.iterate();
    _ = parts.skip();
    var is_any = true;
    while (parts.next()) |part| {
        if (std.mem.indexOf(u8, name, part) != null) return true;
        is_any = false;
    }
    return is_any;
}

fn say(comptime format: []const u8, arguments: anytype) void {
    var buffer: [1024]u8 = undefined;
    const text = std.fmt.bufPrint(&buffer, format, arguments) catch &buffer;
    _ = linux.write(1, text.ptr, text.len);
}
