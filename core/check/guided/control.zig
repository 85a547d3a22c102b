//! Control messages of a UDP socket, the bytes as the kernel would hand them over.
const vnet = @import("../fuzz/vnet.zig");

pub const prepare = vnet.prepare;
pub const judge = vnet.judgeControl;
