//! A kernel for one static Linux program on an emulated machine: ring 0, no interrupts, and the few system calls that
//! our check programs make. What they write goes to the serial port, as does how they end.
//!
//! Does not know files, threads, signals or protected pages: mprotect says yes and does nothing.
//! Invariant: an end is always said, as `emulator: exit N ...` on a line of its own; a fault is exit 255.
const std = @import("std");
const elf = std.elf;
const SystemCall = std.os.linux.syscalls.X64;

/// The ROM of 2 MiB at the end of 4 GiB: the program, a page of parameters, and this kernel in the last 128 KiB.
const program_at = 0xffe0_0000;
const parameters: *const Parameters = @ptrFromInt(0xfffd_f000);

/// As machine.py writes them. The words are the program's arguments, each ended by a zero byte.
const Parameters = extern struct { xcr0: u32, word_count: u32, words: [parameters_size - 8]u8 };
const parameters_size = 4096;

/// The program is linked at 16 MiB; its memory lies between it and its stack.
const heap_begin = 0x0400_0000;
const stack_end = 0x1000_0000;
const stack_size = 16 << 20;
const heap_end = stack_end - stack_size;
const page = 4096;

var heap_next: usize = 0;
/// Below this, memory may have been used.
var heap_used: usize = 0;
var ticks_begin: u64 = 0;

extern fn enter_program(entry: usize, stack: usize) callconv(.c) noreturn;

export fn kmain() callconv(.c) noreturn {
    heap_next = heap_begin;
    heap_used = heap_begin;
    openSerial();
    const header: *const elf.Elf64.Ehdr = @ptrFromInt(program_at);
    const magic: *const [4]u8 = @ptrFromInt(program_at);
    if (!std.mem.eql(u8, magic, elf.MAGIC) or header.type != .EXEC) refuse("the program is no static ELF file");
    const stack = makeStack(header, loadSegments(header));
    ticks_begin = ticks();
    enter_program(header.entry, stack);
}

/// Where the program headers are then.
fn loadSegments(header: *const elf.Elf64.Ehdr) usize {
    var headers_at: usize = 0;
    for (0..header.phnum) |i| {
        const segment: *const elf.Elf64.Phdr = @ptrFromInt(program_at + header.phoff + i * header.phentsize);
        if (segment.type != .LOAD) continue;
        if (segment.vaddr + segment.memsz > heap_begin) refuse("the program is too large");
        copy(segment.vaddr, program_at + segment.offset, segment.filesz);
        clear(segment.vaddr + segment.filesz, segment.memsz - segment.filesz);
        const end = segment.offset + segment.filesz;
        if (segment.offset <= header.phoff and header.phoff < end) {
            headers_at = segment.vaddr + header.phoff - segment.offset;
        }
    }
    return headers_at;
}

/// Linux's names; std has them for programs only.
const AT = struct {
    const NULL = 0;
    const PHDR = 3;
    const PHENT = 4;
    const PHNUM = 5;
    const PAGESZ = 6;
    const ENTRY = 9;
    const SECURE = 23;
    const RANDOM = 25;
};

/// What a Linux program finds on its stack: arguments, no environment, the auxiliary vector.
fn makeStack(header: *const elf.Elf64.Ehdr, headers_at: usize) usize {
    const random_at = stack_end - 16;
    const words_at = random_at - parameters_size;
    copy(words_at, @intFromPtr(&parameters.words), parameters.words.len);
    const auxiliary = [_]usize{
        AT.PHDR,   headers_at,
        AT.PHENT,  header.phentsize,
        AT.PHNUM,  header.phnum,
        AT.PAGESZ, page,
        AT.ENTRY,  header.entry,
        AT.SECURE, 0,
        AT.RANDOM, random_at,
        AT.NULL,   0,
    };
    const count = parameters.word_count;
    const stack = std.mem.alignBackward(usize, words_at - (count + 3 + auxiliary.len) * @sizeOf(usize), 16);
    const slots: [*]usize = @ptrFromInt(stack);
    slots[0] = count;
    var at: usize = words_at;
    for (slots[1..][0..count]) |*slot| {
        slot.* = at;
        while (@as(*const u8, @ptrFromInt(at)).* != 0) at += 1;
        at += 1;
    }
    slots[1 + count] = 0;
    slots[2 + count] = 0;
    copy(@intFromPtr(slots + 3 + count), @intFromPtr(&auxiliary), @sizeOf(@TypeOf(auxiliary)));
    return stack;
}

// ---- system calls -------------------------------------------------------------------------------------------------

/// As boot.S pushes them.
const Frame = extern struct { rax: u64, rdi: u64, rsi: u64, rdx: u64, r10: u64, r8: u64, r9: u64 };

const ENOENT = failure(2);
const ENOMEM = failure(12);
const EINVAL = failure(22);
const ENOSYS = failure(38);

fn failure(number: i64) u64 {
    return @bitCast(-number);
}

export fn ksyscall(frame: *const Frame) callconv(.c) u64 {
    const call = std.enums.fromInt(SystemCall, frame.rax) orelse return ENOSYS;
    switch (call) {
        .write => {
            say(bytes(frame.rsi, frame.rdx));
            return frame.rdx;
        },
        .writev => {
            const Part = extern struct { base: usize, length: usize };
            var sum: u64 = 0;
            for (@as([*]const Part, @ptrFromInt(frame.rsi))[0..frame.rdx]) |part| {
                if (part.length > 0) say(bytes(part.base, part.length));
                sum += part.length;
            }
            return sum;
        },
        .mmap => return map(frame.rsi),
        .munmap => {
            const length = std.mem.alignForward(usize, frame.rsi, page);
            if (frame.rdi + length == heap_next) heap_next = frame.rdi;
            return 0;
        },
        .mremap => return ENOMEM,
        .mprotect, .madvise, .rt_sigaction, .rt_sigprocmask, .sigaltstack, .futex, .prlimit64 => return 0,
        .getpid, .gettid, .set_tid_address => return 1,
        .readlink => return ENOENT,
        .arch_prctl => {
            const set_fs = 0x1002;
            if (frame.rdi != set_fs) return EINVAL;
            writeMsr(0xc000_0100, frame.rsi);
            return 0;
        },
        .clock_gettime => { // a nanosecond an instruction
            const now = ticks();
            const time: *[2]u64 = @ptrFromInt(frame.rsi);
            time.* = .{ now / std.time.ns_per_s, now % std.time.ns_per_s };
            return 0;
        },
        .getrandom => { // the same in every run
            for (bytes(frame.rdi, frame.rsi), 0..) |*byte, i| byte.* = @truncate(i *% 97 +% 13);
            return frame.rsi;
        },
        .exit, .exit_group => finish(frame.rdi),
        else => {
            say("emulator: no system call ");
            sayNumber(frame.rax, 10);
            say("\n");
            return ENOSYS;
        },
    }
}

fn bytes(at: usize, length: usize) []u8 {
    return @as([*]u8, @ptrFromInt(at))[0..length];
}

fn map(size: usize) u64 {
    const length = std.mem.alignForward(usize, size, page);
    if (length > heap_end - heap_next) {
        say("emulator: memory is used up\n");
        return ENOMEM;
    }
    const at = heap_next;
    heap_next += length;
    if (at < heap_used) clear(at, @min(heap_used, heap_next) - at);
    heap_used = @max(heap_used, heap_next);
    return at;
}

// ---- ends ---------------------------------------------------------------------------------------------------------

fn finish(status: u64) noreturn {
    say("\nemulator: exit ");
    sayNumber(status, 10);
    say(" after ");
    sayNumber((ticks() -% ticks_begin) / 1_000_000, 10);
    say(" million instructions\n");
    powerOff();
}

const faulted = 255;

fn refuse(reason: []const u8) noreturn {
    say("emulator: ");
    say(reason);
    finish(faulted);
}

/// From an exception: number, error code and what the CPU pushed.
export fn kfault(frame: [*]const u64, cr2: u64) callconv(.c) noreturn {
    const number, const code, const at = .{ frame[0], frame[1], frame[2] };
    say("\nemulator: fault ");
    sayNumber(number, 10);
    for ([_]struct { []const u8, u64 }{ .{ " error ", code }, .{ " rip ", at }, .{ " cr2 ", cr2 } }) |value| {
        say(value[0]);
        sayNumber(value[1], 16);
    }
    if (at < stack_end) {
        say(" code");
        for (bytes(at, 12)) |byte| {
            say(" ");
            sayNumber(byte, 16);
        }
    }
    finish(faulted);
}

pub fn panic(message: []const u8, _: ?*std.builtin.StackTrace, _: ?usize) noreturn {
    refuse(message);
}

/// By the emulator's own port. It may not write out what the serial port still holds, so that gets time.
fn powerOff() noreturn {
    while (in8(serial + 5) & 0x40 == 0) {}
    for (0..20_000) |_| _ = in8(serial + 5);
    for ("Shutdown") |byte| out8(0x8900, byte);
    while (true) asm volatile ("hlt");
}

// ---- the serial port ----------------------------------------------------------------------------------------------

const serial = 0x3f8;

/// 115200 baud, 8 bits, no parity, with its buffer and without interrupts.
fn openSerial() void {
    const settings = [_]struct { u16, u8 }{ .{ 1, 0 }, .{ 3, 0x80 }, .{ 0, 1 }, .{ 1, 0 }, .{ 3, 3 }, .{ 2, 0xc7 } };
    for (settings) |setting| out8(serial + setting[0], setting[1]);
}

fn say(text: []const u8) void {
    for (text) |byte| {
        while (in8(serial + 5) & 0x20 == 0) {}
        out8(serial, byte);
    }
}

fn sayNumber(value: u64, base: u64) void {
    if (value >= base) sayNumber(value / base, base);
    say("0123456789abcdef"[@intCast(value % base)..][0..1]);
}

// ---- instructions -------------------------------------------------------------------------------------------------

fn out8(port: u16, value: u8) void {
    asm volatile ("outb %%al, %%dx"
        :
        : [value] "{al}" (value),
          [port] "{dx}" (port),
    );
}

fn in8(port: u16) u8 {
    return asm volatile ("inb %%dx, %%al"
        : [value] "={al}" (-> u8),
        : [port] "{dx}" (port),
    );
}

/// The emulator counts an instruction as one.
fn ticks() u64 {
    var low: u32 = undefined;
    var high: u32 = undefined;
    asm volatile ("rdtsc"
        : [low] "={eax}" (low),
          [high] "={edx}" (high),
    );
    return @as(u64, high) << 32 | low;
}

fn writeMsr(register: u32, value: u64) void {
    asm volatile ("wrmsr"
        :
        : [register] "{ecx}" (register),
          [low] "{eax}" (@as(u32, @truncate(value))),
          [high] "{edx}" (@as(u32, @truncate(value >> 32))),
    );
}

// Not @memset and @memcpy: as one instruction each they take the emulator no time.

fn clear(at: usize, length: usize) void {
    asm volatile ("rep stosb"
        :
        : [value] "{al}" (@as(u8, 0)),
          [to] "{rdi}" (at),
          [length] "{rcx}" (length),
        : .{ .memory = true, .rdi = true, .rcx = true });
}

fn copy(to: usize, from: usize, length: usize) void {
    asm volatile ("rep movsb"
        :
        : [from] "{rsi}" (from),
          [to] "{rdi}" (to),
          [length] "{rcx}" (length),
        : .{ .memory = true, .rdi = true, .rsi = true, .rcx = true });
}
