//! What every root without libc sets for std: no signal stack in thread-local memory, no handlers, and a
//! panic that says its one line and aborts. A root repeats the two names, because std looks for them there.
//!
//! What a failed check says has no values in it (which index, which length), only its kind and where it was: the checks
//! of one function can then share one call. The address is what finds the line, in the same program built with its
//! symbols (-fno-strip).
const std = @import("std");
const linux = std.os.linux;

pub const std_options: std.Options = .{ .signal_stack_size = null, .enable_segfault_handler = false };

/// The compiler calls these by name; std.debug.FullPanic is the list.
pub const panic = struct {
    pub fn call(message: []const u8, address: ?usize) noreturn {
        @branchHint(.cold);
        end(message, address orelse @returnAddress());
    }

    pub fn sentinelMismatch(expected: anytype, _: @TypeOf(expected)) noreturn {
        @branchHint(.cold);
        end("sentinel mismatch", @returnAddress());
    }

    pub fn unwrapError(err: anyerror) noreturn {
        @branchHint(.cold);
        _ = &err;
        end("attempt to unwrap error", @returnAddress());
    }

    pub fn unexpectedErrorCode(err: anyerror) noreturn {
        @branchHint(.cold);
        _ = &err;
        end("unexpected error code", @returnAddress());
    }

    pub fn outOfBounds(_: usize, _: usize) noreturn {
        @branchHint(.cold);
        end("index out of bounds", @returnAddress());
    }

    pub fn startGreaterThanEnd(_: usize, _: usize) noreturn {
        @branchHint(.cold);
        end("start index is larger than end index", @returnAddress());
    }

    pub fn inactiveUnionField(active: anytype, _: @TypeOf(active)) noreturn {
        @branchHint(.cold);
        end("access of inactive union field", @returnAddress());
    }

    pub fn sliceCastLenRemainder(_: usize) noreturn {
        @branchHint(.cold);
        end("slice length does not divide exactly into destination elements", @returnAddress());
    }

    pub const reachedUnreachable = saying("reached unreachable code");
    pub const unwrapNull = saying("attempt to use null value");
    pub const castToNull = saying("cast causes pointer to be null");
    pub const incorrectAlignment = saying("incorrect alignment");
    pub const invalidErrorCode = saying("invalid error code");
    pub const integerOutOfBounds = saying("integer does not fit in destination type");
    pub const integerOverflow = saying("integer overflow");
    pub const shlOverflow = saying("left shift overflowed bits");
    pub const shrOverflow = saying("right shift overflowed bits");
    pub const divideByZero = saying("division by zero");
    pub const exactDivisionRemainder = saying("exact division produced remainder");
    pub const integerPartOutOfBounds = saying("integer part of floating point value out of bounds");
    pub const corruptSwitch = saying("switch on corrupt value");
    pub const shiftRhsTooBig = saying("shift amount is greater than the type size");
    pub const invalidEnumValue = saying("invalid enum value");
    pub const forLenMismatch = saying("for loop over objects with non-equal lengths");
    pub const copyLenMismatch = saying("source and destination have non-equal lengths");
    pub const memcpyAlias = saying("@memcpy arguments alias");
    pub const noreturnReturned = saying("'noreturn' function returned");
    pub const loadUninstantiableType = saying("attempt to load uninstantiable type");
};

fn saying(comptime message: []const u8) fn () noreturn {
    return struct {
        fn say() noreturn {
            @branchHint(.cold);
            end(message, @returnAddress());
        }
    }.say;
}

fn end(message: []const u8, address: usize) noreturn {
    @branchHint(.cold);
    const head = "panic: ";
    const digits = std.fmt.hex(address);
    _ = linux.write(2, head, head.len);
    _ = linux.write(2, message.ptr, message.len);
    _ = linux.write(2, " at 0x", 6);
    _ = linux.write(2, &digits, digits.len);
    _ = linux.write(2, "\n", 1);
    std.process.abort();
}
