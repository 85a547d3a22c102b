//! The targets that coverage steers: each has `prepare`, which may refuse the fault asked for, and `judge`, which
//! takes one byte string and says whether all that must hold did.
pub const Target = enum { abi, control, gro, gso, messages, netlink, sim, uapi, vnet };

pub fn of(comptime target: Target) type {
    return switch (target) {
        .abi => @import("abi.zig"),
        .control => @import("control.zig"),
        .gro => @import("gro.zig"),
        .gso => @import("gso.zig"),
        .messages => @import("../fuzz/messages.zig"),
        .netlink => @import("netlink.zig"),
        .sim => @import("sim.zig"),
        .uapi => @import("../fuzz/uapi.zig"),
        .vnet => @import("../fuzz/vnet.zig"),
    };
}
