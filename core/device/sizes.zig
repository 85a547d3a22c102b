//! How large the buffers of a device are. Memory that was never used costs nothing, so these bound what a device takes
//! once it has been busy; docs/low-memory.md has the figures.

pub const Sizes = struct {
    /// Of the trains that one turn sends.
    train_bytes: usize,
    /// Datagrams, or whole trains, taken from a socket at once.
    slots: usize,
    /// Datagrams of the protocol's own sent at once.
    transmits: usize,
    /// Of 2 KiB each, in which packets wait for a session.
    staging_chunks: u32,
    /// Asked of the kernel for each socket and direction.
    socket_bytes: u31,

    pub const normal: Sizes = .{
        .train_bytes = 16 << 16,
        .slots = 16,
        .transmits = 32,
        .staging_chunks = 1024,
        .socket_bytes = 7 << 20,
    };
    /// A few superpackets at a time, which is what keeps the cipher busy. There is one thread.
    pub const low: Sizes = .{
        .train_bytes = 4 << 16,
        .slots = 4,
        .transmits = 8,
        .staging_chunks = 128,
        .socket_bytes = 1 << 20,
    };
};
