//! What is printed, in pieces that are worth a system call. What goes through it may be keys.
const std = @import("std");
const config = @import("config");
const words = @import("words.zig");

pub const Output = struct {
    fd: i32,
    length: usize,
    buffer: [4096]u8,

    /// In place: a value with its buffer would be kept in the program, to be copied.
    pub fn begin(output: *Output, fd: i32) void {
        output.fd = fd;
        output.length = 0;
    }

    pub fn put(output: *Output, parts: []const []const u8) void {
        for (parts) |part| {
            var rest = part;
            while (rest.len > 0) {
                if (output.length == output.buffer.len) output.flush();
                const count = @min(rest.len, output.buffer.len - output.length);
                @memcpy(output.buffer[output.length..][0..count], rest[0..count]);
                output.length += count;
                rest = rest[count..];
            }
        }
    }

    pub fn number(output: *Output, value: u64) void {
        var digits: [20]u8 = undefined;
        output.put(&.{config.notes.decimal(value, &digits)});
    }

    pub fn key(output: *Output, bytes: *const [32]u8) void {
        var text: [config.base64.length]u8 = undefined;
        defer std.crypto.secureZero(u8, &text);
        config.base64.encode(bytes, &text);
        output.put(&.{&text});
    }

    /// What was put is out, and nothing of it stays.
    pub fn flush(output: *Output) void {
        words.write(output.fd, output.buffer[0..output.length]);
        std.crypto.secureZero(u8, output.buffer[0..output.length]);
        output.length = 0;
    }
};
