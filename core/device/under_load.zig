//! Whether so many handshake messages arrive that cookies must be demanded (whitepaper section 5.3).
//! Counts them in short windows; "under load" lasts for a second after the last full window.
const std = @import("std");
const Instant = @import("protocol").Instant;

const window_ns = 100 * std.time.ns_per_ms;
/// About 10 ms of curve arithmetic in 100: a tenth of a core.
const messages_per_window = 50;
const calm_after_ns = std.time.ns_per_s;

pub const UnderLoad = struct {
    window_start: Instant = .{ .ns = 0 },
    count: u32 = 0,
    last_full: ?Instant = null,

    /// Counts one handshake message and answers whether it must show a cookie.
    pub fn note(under_load: *UnderLoad, now: Instant) bool {
        if (now.since(under_load.window_start) >= window_ns) {
            under_load.window_start = now;
            under_load.count = 0;
        }
        under_load.count +|= 1;
        if (under_load.count > messages_per_window) under_load.last_full = now;
        const last_full = under_load.last_full orelse return false;
        return now.since(last_full) < calm_after_ns;
    }
};

test "load begins with the 51st handshake in 100 ms and ends after a calm second" {
    var under_load: UnderLoad = .{};
    const start: Instant = .{ .ns = 10 * std.time.ns_per_s };
    for (0..messages_per_window) |_| try std.testing.expect(!under_load.note(start));
    try std.testing.expect(under_load.note(start));
    try std.testing.expect(under_load.note(start.after(calm_after_ns - 1)));
    try std.testing.expect(!under_load.note(start.after(calm_after_ns)));
}
