//! Token: what an event of a worker's poller is about.
const io = @import("io");

/// The values after the named ones are clients of the UAPI socket, one for each slot.
pub const Token = enum(u64) {
    tun,
    udp_ipv4,
    udp_ipv6,
    wakeup,
    monitor,
    routes,
    vm_generation,
    uapi_listener,
    uapi_removed,
    uapi_first_client,
    _,

    pub fn of(event: io.poller.Event) Token {
        return @fromBackingInt(event.data.u64);
    }

    pub fn value(token: Token) u64 {
        return @backingInt(token);
    }
};
