//! For scripts/fuzz and tests/crypto/test_fuzz.py; no install has it. The targets of the cryptography: made-up cases
//! against an obvious implementation. How the program is called is in driver.zig.
const driver = @import("driver.zig");
const report = @import("report");

const run = driver.Driver(struct {
    pub const aead = @import("aead.zig");
    pub const poly1305 = @import("poly1305.zig");
});

pub const main = run.main;
pub const std_options = report.std_options;
pub const panic = driver.panic;
