//! For tests/crypto/test_avx512.py: says which kernels run when nobody asks for any. With the name of kernels as its
//! argument it also calls those without asking whether the CPU has their instructions, which nothing else does.
const std = @import("std");
const linux = std.os.linux;
const testing = @import("cipher_testing");
const cipher = testing.cipher;

pub fn main(init: std.process.Init.Minimal) u8 {
    say("chosen: ", cipher.path());
    var arguments = init.args.iterate();
    _ = arguments.skip();
    const name = arguments.next() orelse return 0;
    for (testing.kernels) |*kernel| {
        if (!std.mem.eql(u8, kernel.suffix, name)) continue;
        say("called: ", name);
        const key: [cipher.key_length]u8 = @splat(1);
        // As many blocks as the widest vectors have lanes.
        var packet: [16 * 64 + cipher.tag_length]u8 = @splat(2);
        const length = packet.len - cipher.tag_length;
        const jobs = [_]cipher.Seal{.{ .source = &packet, .destination = &packet, .length = length }};
        kernel.seal(&key, 0, &jobs, jobs.len);
        say("returned: ", name);
        return 0;
    }
    say("not built: ", name);
    return 2;
}

fn say(what: []const u8, text: []const u8) void {
    for ([_][]const u8{ what, text, "\n" }) |part| _ = linux.write(1, part.ptr, part.len);
}

pub const std_options: std.Options = .{ .signal_stack_size = null, .enable_segfault_handler = false };
pub const panic = std.debug.simple_panic;
