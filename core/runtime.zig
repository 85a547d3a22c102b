//! What every root without libc sets for std: no signal stack in thread-local memory, no handlers, and a
//! panic that says its one line and aborts. A root repeats the two names, because std looks for them there.
const std = @import("std");
const linux = std.os.linux;

pub const std_options: std.Options = .{ .signal_stack_size = null, .enable_segfault_handler = false };
pub const panic = std.debug.FullPanic(onPanic);

fn onPanic(message: []const u8, _: ?usize) noreturn {
    _ = linux.write(2, message.ptr, message.len);
    _ = linux.write(2, "\n", 1);
    std.process.abort();
}
