const report = @import("report");
pub fn prepare(_: ?[]const u8) bool { return true; }
pub fn judge(_: []const u8) report.Error!void {}
