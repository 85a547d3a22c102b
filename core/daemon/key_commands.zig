//! genkey, genpsk, pubkey: as those of wg(8). Keys pass through standard input and output alone, and are zeroed.
const std = @import("std");
const linux = std.os.linux;
const cipher = @import("cipher");
const config = @import("config");
const io = @import("io");
const protocol = @import("protocol");
const words = @import("words.zig");
const Iterator = std.process.Args.Iterator;

const base64 = config.base64;

pub fn genkey(rest: *Iterator) error{Usage}!u8 {
    if (rest.next() != null) return error.Usage;
    var key: [32]u8 = undefined;
    defer std.crypto.secureZero(u8, &key);
    io.entropy.fill(&key);
    protocol.crypto.clamp(&key);
    return printSecret(&key);
}

pub fn genpsk(rest: *Iterator) error{Usage}!u8 {
    if (rest.next() != null) return error.Usage;
    var key: [32]u8 = undefined;
    defer std.crypto.secureZero(u8, &key);
    io.entropy.fill(&key);
    return printSecret(&key);
}

pub fn pubkey(rest: *Iterator) error{Usage}!u8 {
    if (rest.next() != null) return error.Usage;
    var key: [32]u8 = undefined;
    defer std.crypto.secureZero(u8, &key);
    if (!readKey(&key)) {
        words.tell(&.{"Key is not the correct length or format"});
        return 1;
    }
    const public = protocol.crypto.publicKey(&key);
    cipher.scrubStack();
    return printKey(&public);
}

/// Standard input is one key, and whitespace behind it.
fn readKey(out: *[32]u8) bool {
    var buffer: [256]u8 = undefined;
    defer std.crypto.secureZero(u8, &buffer);
    var length: usize = 0;
    while (length < buffer.len) {
        const rc = linux.read(0, buffer[length..].ptr, buffer.len - length);
        switch (linux.errno(rc)) {
            .SUCCESS => if (rc == 0) break,
            .INTR => continue,
            else => return false,
        }
        length += rc;
    }
    if (length < base64.length or length == buffer.len) return false;
    for (buffer[base64.length..length]) |character| if (!config.text.isSpace(character)) return false;
    base64.decode(buffer[0..base64.length], out) catch return false;
    return true;
}

fn printSecret(key: *const [32]u8) u8 {
    warnOfReaders();
    return printKey(key);
}

fn printKey(key: *const [32]u8) u8 {
    var line: [base64.length + 1]u8 = undefined;
    defer std.crypto.secureZero(u8, &line);
    base64.encode(key, line[0..base64.length]);
    line[base64.length] = '\n';
    const rc = linux.write(1, &line, line.len);
    if (linux.errno(rc) == .SUCCESS and rc == line.len) return 0;
    words.tell(&.{"cannot write the key"});
    return 1;
}

/// As wg: when a secret goes to a file that everybody may read.
fn warnOfReaders() void {
    var found: linux.Statx = undefined;
    const rc = linux.statx(1, "", linux.AT.EMPTY_PATH, .{ .TYPE = true, .MODE = true }, &found);
    if (linux.errno(rc) != .SUCCESS or !linux.S.ISREG(found.mode) or found.mode & 0o7 == 0) return;
    words.write(2, "Warning: writing to world accessible file.\n" ++
        "Consider setting the umask to 077 and trying again.\n");
}
