//! For scripts/fuzz and tests/fuzzing/; no install has it. The targets of what reads bytes from outside: datagrams, the
//! text of the control plane, superpackets, what comes with a packet from the kernel. Judged by what must hold.
//! How the program is called is in driver.zig; `choice` there is one planted fault.
const driver = @import("driver.zig");
const report = @import("report");

const run = driver.Driver(struct {
    pub const messages = @import("messages.zig");
    pub const segments = @import("segments.zig");
    pub const uapi = @import("uapi.zig");
    pub const vnet = @import("vnet.zig");
});

pub const main = run.main;
pub const std_options = report.std_options;
pub const panic = driver.panic;
