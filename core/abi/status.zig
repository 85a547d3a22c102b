//! Zig errors to pywg_status, by exhaustive switch; and diagnostics into the caller's struct.
const std = @import("std");
const device = @import("device");
const handles = @import("handles.zig");

pub const Status = enum(i32) {
    ok = 0,
    handed_over = 1,
    invalid_argument = -1,
    out_of_memory = -2,
    buffer_too_small = -3,
    configuration = -4,
    permission = -5,
    name_in_use = -6,
    address_in_use = -7,
    not_found = -8,
    limit = -9,
    closed = -10,
    system = -11,
    forked = -12,

    pub fn value(status: Status) i32 {
        return @backingInt(status);
    }
};

/// pywg_diagnostic of pywg.h.
pub const Diagnostic = extern struct {
    size: usize,
    status: i32,
    os_errno: i32,
    line: u32,
    column: u32,
    text: [256]u8,
};

pub fn isUsable(diagnostic: ?*const Diagnostic) bool {
    const given = diagnostic orelse return true;
    return given.size >= @sizeOf(Diagnostic);
}

/// Fills the caller's struct, if there is one, and returns the status.
pub fn report(out: ?*Diagnostic, status: Status, diagnostic: *const device.Diagnostic) i32 {
    if (out) |target| {
        target.status = status.value();
        target.os_errno = diagnostic.errno;
        target.line = diagnostic.line;
        target.column = diagnostic.column;
        const text = diagnostic.text();
        @memset(&target.text, 0);
        @memcpy(target.text[0..text.len], text);
    }
    return status.value();
}

/// The same for a failure with nothing to add to its name.
pub fn fail(out: ?*Diagnostic, status: Status, text: []const u8) i32 {
    var diagnostic: device.Diagnostic = .{};
    diagnostic.set("{s}", .{text});
    return report(out, status, &diagnostic);
}

/// Why a call is not let in.
pub const Refused = handles.Unknown || error{
    /// Another process opened the handle.
    Forked,
    /// From within the caller's entropy function.
    Reentered,
};

pub fn fromRefused(refused: Refused) Status {
    return switch (refused) {
        error.NoHandle, error.Foreign, error.Reentered => .invalid_argument,
        error.Closed => .closed,
        error.Forked => .forked,
    };
}

pub fn refuse(diagnostic: ?*Diagnostic, refused: Refused) i32 {
    return fail(diagnostic, fromRefused(refused), switch (refused) {
        error.NoHandle => "the handle is NULL",
        error.Foreign => "no handle of this kind",
        error.Closed => "the handle was closed",
        error.Forked => "opened by another process: after fork, open one in the child",
        error.Reentered => "called from the entropy function of the same interface",
    });
}

pub fn fromOpen(err: device.OpenError) Status {
    return switch (err) {
        error.InvalidArgument => .invalid_argument,
        error.OutOfMemory => .out_of_memory,
        error.Permission => .permission,
        error.NameInUse => .name_in_use,
        error.NotFound => .not_found,
        error.System => .system,
    };
}

pub fn fromSet(err: device.SetError) Status {
    return switch (err) {
        error.Invalid, error.Protocol => .configuration,
        error.OutOfMemory => .out_of_memory,
        error.LimitExceeded => .limit,
        error.AddressInUse => .address_in_use,
        error.Permission => .permission,
        error.System => .system,
    };
}

pub fn fromRun(err: device.RunError) Status {
    return switch (err) {
        error.AlreadyRunning => .invalid_argument,
        error.System => .system,
    };
}

pub fn fromEnd(ended: device.Ended) Status {
    return switch (ended) {
        .stopped => .ok,
        .handed_over => .handed_over,
    };
}

/// As in pywg.h.
pub fn name(status: i32) [*:0]const u8 {
    inline for (comptime std.enums.values(Status)) |known| {
        if (status == comptime known.value()) return comptime symbol(known);
    }
    return "PYWG_UNKNOWN";
}

fn symbol(comptime status: Status) [:0]const u8 {
    var upper = @tagName(status)[0..].*;
    for (&upper) |*letter| letter.* = std.ascii.toUpper(letter.*);
    return "PYWG_" ++ upper;
}
