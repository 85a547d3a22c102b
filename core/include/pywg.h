/* pywg: userspace WireGuard as a library. The only public header.
 *
 * Two levels:
 *   device     the whole thing: TUN, UDP sockets, UAPI socket, timers. You supply the thread.
 *   interface  the protocol alone (sans-I/O): bytes in, bytes out, time as an argument.
 * Both are configured by the UAPI text of the cross-platform userspace protocol
 * (https://www.wireguard.com/xplatform/), so peers never become a struct.
 *
 * Rules for every function:
 *   - No thread is started, no libc is needed, no signal handler is set.
 *   - Strings and buffers belong to the caller and are not kept after the call returns.
 *   - A NULL where a pointer is needed, or a wrong `size`, gives PYWG_INVALID_ARGUMENT.
 *   - A handle is a number in the form of a pointer. After its close it gives PYWG_CLOSED, and what is no handle of
 *     the kind gives PYWG_INVALID_ARGUMENT; the close functions then do nothing.
 *   - A handle is of use only in the process that opened it. In a forked child every function that takes it gives
 *     PYWG_FORKED: two processes that seal with the same key and counter give away what they seal. There
 *     pywg_interface_close does nothing, and pywg_device_close only closes the descriptors that the child has
 *     inherited, by which interface and port would outlive the parent's close.
 *   - On failure a pywg_diagnostic, if one was passed, says why in one line of English.
 */
#ifndef PYWG_H
#define PYWG_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version ---------------------------------------------------------------------------- */

/* Changes only when something that exists changes. New functions, and new fields at the end of
 * a struct that starts with its own size, do not change it. */
#define PYWG_ABI_VERSION 1

uint32_t pywg_abi_version(void);
/* Static string, for example "0.1.0". */
const char *pywg_version(void);
/* Static string: the AEAD path picked for this CPU, for example "x86-64-v3". */
const char *pywg_cipher_path(void);
/* Asks for an AEAD path by name ("baseline", "v3"); NULL, or one that this CPU or build lacks, gives
 * the best there is. For tests, before any device or interface is open. */
void pywg_cipher_select(const char *name);

/* ---- status ----------------------------------------------------------------------------- */

typedef int32_t pywg_status;
#define PYWG_OK 0
#define PYWG_HANDED_OVER 1 /* of pywg_device_run alone, and no failure: another process serves the interface now */
#define PYWG_INVALID_ARGUMENT (-1)
#define PYWG_OUT_OF_MEMORY (-2)
#define PYWG_BUFFER_TOO_SMALL (-3)
#define PYWG_CONFIGURATION (-4)
#define PYWG_PERMISSION (-5)
#define PYWG_NAME_IN_USE (-6)
#define PYWG_ADDRESS_IN_USE (-7)
#define PYWG_NOT_FOUND (-8)
#define PYWG_LIMIT (-9)
#define PYWG_CLOSED (-10) /* the handle was closed */
#define PYWG_SYSTEM (-11)
#define PYWG_FORKED (-12) /* another process opened the handle: after fork, open one in the child */

/* Static string such as "PYWG_NAME_IN_USE"; "PYWG_UNKNOWN" for any other number. */
const char *pywg_status_name(pywg_status status);

typedef struct pywg_diagnostic {
    size_t size;      /* in: sizeof(pywg_diagnostic) */
    int32_t status;   /* the status returned */
    int32_t os_errno; /* errno of the system call that failed, positive, or 0 */
    uint32_t line;    /* line of the UAPI text, from 1, or 0 */
    uint32_t column;  /* column in it, from 1, or 0 */
    char text[256];   /* one line, NUL-terminated; never holds a key */
} pywg_diagnostic;

/* ---- keys ------------------------------------------------------------------------------- */

/* A new Curve25519 private key: 32 bytes of getrandom, clamped as `wg genkey` does. */
pywg_status pywg_key_generate(uint8_t private_key[32]);
/* The public key of a private one; both may be the same bytes. */
pywg_status pywg_key_public(const uint8_t private_key[32], uint8_t public_key[32]);

/* ---- endpoint --------------------------------------------------------------------------- */

typedef struct pywg_endpoint {
    uint8_t family; /* 4, 6, or 0 for none */
    uint8_t reserved;
    uint16_t port; /* host byte order */
    uint32_t scope_id;
    uint8_t address[16]; /* IPv4 in the first four bytes */
} pywg_endpoint;

/* ---- device: any thread may call, except where said --------------------------------------- */

typedef struct pywg_device pywg_device;

/* Bits of pywg_device_options.offload_disable: what not to use even if the kernel has it. */
#define PYWG_OFFLOAD_TUN_TSO 1u /* whole TCP superpackets through TUN, both ways */
#define PYWG_OFFLOAD_TUN_USO 2u /* whole UDP superpackets through TUN, both ways */
#define PYWG_OFFLOAD_UDP_GSO 4u /* UDP_SEGMENT on send */
#define PYWG_OFFLOAD_UDP_GRO 8u /* UDP_GRO on receive */
#define PYWG_OFFLOAD_TUN_TUNNEL 16u /* superpackets inside VXLAN and Geneve through TUN, both ways */

#define PYWG_LOG_SILENT 0u
#define PYWG_LOG_ERROR 1u
#define PYWG_LOG_VERBOSE 2u

typedef struct pywg_device_options {
    size_t size;              /* sizeof(pywg_device_options) */
    const char *name;         /* interface name, 1 to 15 of [a-zA-Z0-9_=+.-] */
    uint32_t mtu;             /* 0 means 1420 */
    int32_t tun_fd;           /* an open TUN to take over, or -1 to make one called `name` */
    int32_t uapi_fd;          /* a listening UAPI socket to take over, or -1 to make one */
    uint32_t offload_disable; /* PYWG_OFFLOAD_*, or-ed */
    uint32_t log_level;       /* PYWG_LOG_* */
    int32_t log_fd;           /* log lines are written here, or lost if it has no room; not closed; -1 for none */
    uint32_t no_uapi;         /* 1: do not listen on /var/run/wireguard/NAME.sock */
    uint32_t threads;         /* threads that will be in pywg_device_run, up to 64; 0 means 1 */
    uint64_t memory_limit;    /* bytes it may take, 0 for no limit: buffers when it opens, then peers */
    int32_t udp4_fd;          /* a UDP socket of IPv4 that is bound, to take over instead of making one; 0 or -1: none */
    int32_t udp6_fd;          /* one of IPv6, with IPV6_V6ONLY and on the same port. With either, for one thread; a
                               * family without one is not used, and port and binding stay as they are */
    uint32_t take_over;       /* 1: take interface, sockets, peers and sessions over from the process that serves `name` */
} pywg_device_options;

/* Makes the TUN (left down) and the UAPI socket. On success the caller owns *out: pywg_device_close.
 * tun_fd, uapi_fd, udp4_fd and udp6_fd belong to the device then. On failure they are still the caller's, but may have
 * become non-blocking, and the TUN's offloads may have changed.
 * PERMISSION, NAME_IN_USE, NOT_FOUND (no /dev/net/tun), SYSTEM, OUT_OF_MEMORY.
 *
 * With take_over nothing is made: the process that serves `name` hands TUN, UDP sockets, UAPI socket, peers and live
 * sessions over, through its UAPI socket. It must be of this library, of the same user, and in the same network
 * namespace. On success its pywg_device_run returns PYWG_HANDED_OVER, its pywg_device_close takes nothing away, and
 * packets wait in the kernel until all threads are in pywg_device_run here: as many as that device had, which
 * "threads=" in the report tells. On failure that process goes on as before: NOT_FOUND when nobody serves `name`,
 * PERMISSION, OUT_OF_MEMORY, else SYSTEM. name is needed, mtu and threads mean nothing, no descriptor may be given, and
 * no_uapi is 0. */
pywg_status pywg_device_open(const pywg_device_options *options, pywg_device **out, pywg_diagnostic *diagnostic);
/* Applies UAPI "set" text: key=value lines without "set=1" and without the final empty line.
 * Nothing is applied on failure. ADDRESS_IN_USE when listen_port is taken. Two keys of ours, before the first
 * public_key: pywg_bind_device=NAME holds the sockets to an interface or VRF, pywg_bind_address=IP to an address,
 * at most one of each family; nothing after the `=` takes it back. SYSTEM, with ENODEV or EADDRNOTAVAIL in
 * os_errno, when there is no such thing, PERMISSION when it may not be used. See docs/ABI.md. */
pywg_status pywg_device_set(pywg_device *device, const char *text, size_t length, pywg_diagnostic *diagnostic);
/* Writes the answer of UAPI "get" (key=value lines, private keys included) without errno line.
 * BUFFER_TOO_SMALL leaves nothing of it in the buffer; *length is the size needed either way. */
pywg_status pywg_device_get(pywg_device *device, char *buffer, size_t capacity, size_t *length);
/* Offloads, counters and what the sockets are bound to as key=value lines, no secrets; the text of UAPI "pywg_get=1". As pywg_device_get. */
pywg_status pywg_device_report(pywg_device *device, char *buffer, size_t capacity, size_t *length);
/* The name the kernel gave the interface, without NUL. As pywg_device_get. */
pywg_status pywg_device_name(pywg_device *device, char *buffer, size_t capacity, size_t *length);

/* What has become of a peer so far. No secrets. */
typedef struct pywg_peer_counters {
    uint8_t public_key[32];
    pywg_endpoint endpoint;          /* where it is; family 0 while that is not known */
    uint64_t last_handshake_unix_ns; /* since 1970; 0 for never */
    uint64_t rx_bytes;               /* of datagrams that were accepted, with WireGuard's own headers */
    uint64_t tx_bytes;
} pywg_peer_counters;

/* One record for each peer, in the order in which they were added: size is sizeof(pywg_peer_counters), count is how
 * many there is room for. *written is the number of peers; if that is more than count, BUFFER_TOO_SMALL, and nothing was
 * written. Unlike the text of pywg_device_get, it holds no key but the peers' public ones. */
pywg_status pywg_device_counters(pywg_device *device, pywg_peer_counters *counters, size_t size, size_t count, size_t *written);
/* A handshake with the peer of this public key as soon as one is allowed (5 seconds after the last), whatever session
 * there is. NOT_FOUND without such a peer, CONFIGURATION while none can be sent: no private key, no endpoint, or the
 * link is down. Returns at once: PYWG_EVENT_HANDSHAKE, or the counters, tell that it is done. */
pywg_status pywg_device_handshake(pywg_device *device, const uint8_t public_key[32], pywg_diagnostic *diagnostic);

/* What happened: pywg_event.kind. Fields that a kind does not name are 0. */
#define PYWG_EVENT_LOST 0u         /* `lost` events found no room in the queue, here */
#define PYWG_EVENT_HANDSHAKE 1u    /* public_key: there is a session; again for each renewal, some two minutes apart */
#define PYWG_EVENT_ENDPOINT 2u     /* public_key, endpoint: the peer was heard from somewhere else than before */
#define PYWG_EVENT_STALE 3u        /* public_key: no answer to handshakes for 90 seconds, or no session for so long that
                                    * all keys were forgotten; once until there is a session again */
#define PYWG_EVENT_GONE 4u         /* public_key: the peer was removed from the configuration */
#define PYWG_EVENT_STEPPED_DOWN 5u /* offload (PYWG_OFFLOAD_*), os_errno: what the kernel refused is no longer used;
                                    * with an endpoint: not towards it for a while, os_errno 0 if trains got lost */
#define PYWG_EVENT_PORT_FAILED 6u  /* port, os_errno: the link is up and has no sockets; tried again each second */
#define PYWG_EVENT_HEALED 7u       /* port: the sockets that had failed are open again */
#define PYWG_EVENT_REMOVED 8u      /* the interface or the UAPI socket was removed: pywg_device_run ends */
#define PYWG_EVENT_TROUBLE 9u      /* public_key, os_errno: handshakes come to nothing. ETIMEDOUT: no answer; ECONNREFUSED,
                                    * EHOSTUNREACH, ENETUNREACH, EACCES: ICMP, or no route; EPERM: a firewall here;
                                    * EKEYREJECTED: an answer by other keys; EPROTO: our answers are never confirmed;
                                    * ETIME: older than one before; EBUSY: under load. Ended by HANDSHAKE */

typedef struct pywg_event {
    uint32_t kind;
    int32_t os_errno;
    uint64_t lost;
    uint32_t offload;
    uint32_t port;
    uint8_t public_key[32];
    pywg_endpoint endpoint;
} pywg_event;

/* Keeps events from the first call on, up to `capacity` (65536 at most, rounded up to a power of two; 0 for 1024; later
 * calls change nothing) that nobody has fetched; what comes then is counted and lost. A PORT_FAILED that still holds is told at once. *fd is
 * readable (poll, epoll) as long as there is one; it is the device's, not to be read or closed. pywg_device_close makes
 * copies of it (dup) readable for ever.
 * OUT_OF_MEMORY, SYSTEM. */
pywg_status pywg_device_events_open(pywg_device *device, uint32_t capacity, int32_t *fd, pywg_diagnostic *diagnostic);
/* Takes up to count events, the oldest first, size is sizeof(pywg_event), *written of them; 0 when there is none. Never
 * waits, not for a long pywg_device_set either. Each event is given once, to whoever asks first. */
pywg_status pywg_device_events(pywg_device *device, pywg_event *events, size_t size, size_t count, size_t *written);
/* Moves packets until pywg_device_stop, or until the interface or the UAPI socket is removed (OK in
 * each case), or until another process has taken the device over: PYWG_HANDED_OVER. As many threads as
 * options.threads said may be in here, and should be: each has its share of the packets. One more gets
 * INVALID_ARGUMENT. SYSTEM on a fatal error. */
pywg_status pywg_device_run(pywg_device *device, pywg_diagnostic *diagnostic);
/* Makes pywg_device_run return soon, and every later one at once. Async-signal-safe. */
pywg_status pywg_device_stop(pywg_device *device);
/* Removes interface and socket, if they were not handed over, zeroes all keys, frees. Not while another call on it is
 * running. NULL is fine. */
void pywg_device_close(pywg_device *device);

/* ---- interface: any thread may call; one call at a time for each handle, others wait ---------- */

typedef struct pywg_interface pywg_interface;

/* Both clocks, read once for each batch. */
typedef struct pywg_now {
    uint64_t boot_ns; /* CLOCK_BOOTTIME; any clock that never goes back will do */
    uint64_t unix_ns; /* CLOCK_REALTIME, since 1970 */
} pywg_now;

/* What became of a packet. */
#define PYWG_VERDICT_DROPPED 0u   /* `drop` says why: pywg_drop_name */
#define PYWG_VERDICT_SEALED 1u    /* a datagram to send to `endpoint` */
#define PYWG_VERDICT_STAGED 2u    /* kept until a handshake completes: now call pywg_interface_poll */
#define PYWG_VERDICT_DELIVER 3u   /* a decrypted inner packet */
#define PYWG_VERDICT_HANDSHAKE 4u /* a handshake message was accepted: now call pywg_interface_poll */
#define PYWG_VERDICT_KEEPALIVE 5u /* authentic and empty */

typedef struct pywg_packet {
    uint8_t *data;          /* the caller's bytes */
    size_t length;          /* bytes in use */
    size_t capacity;        /* bytes there */
    pywg_endpoint endpoint; /* where from, or where to */
    uint32_t verdict;       /* out: PYWG_VERDICT_* */
    uint32_t drop;          /* out: why, if dropped */
} pywg_packet;

/* Fills a buffer with random bytes: 0 on success. Anything else makes the call that needed it fail. It must not repeat
 * itself: two sessions of equal randomness have equal keys. It may not call functions of the same interface: they give
 * INVALID_ARGUMENT. */
typedef int32_t (*pywg_entropy)(void *context, uint8_t *out, size_t length);

typedef struct pywg_interface_options {
    size_t size;          /* sizeof(pywg_interface_options) */
    uint32_t mtu;         /* of the inner packets, bounds padding; 0 means 1420 */
    uint32_t reserved;    /* 0 */
    pywg_entropy entropy; /* NULL: getrandom */
    void *entropy_context;
} pywg_interface_options;

/* OUT_OF_MEMORY. On success the caller owns *out: pywg_interface_close. */
pywg_status pywg_interface_open(const pywg_interface_options *options, pywg_interface **out, pywg_diagnostic *diagnostic);
/* As pywg_device_set; listen_port, fwmark and what to bind to are remembered, nothing is bound. */
pywg_status pywg_interface_set(pywg_interface *interface, const pywg_now *now, const char *text, size_t length, pywg_diagnostic *diagnostic);
/* As pywg_device_get. */
pywg_status pywg_interface_get(pywg_interface *interface, char *buffer, size_t capacity, size_t *length);
/* Inner packets to datagrams: in[i] is read, out[i] gets datagram, length, endpoint and verdict SEALED,
 * STAGED or DROPPED. out[i].capacity must be at least in[i].length + 48, else BUFFER_TOO_SMALL before
 * anything is done. A packet longer than the MTU is DROPPED as malformed_outgoing. in[i] may lie in out[i], at any
 * place in it: 16 bytes from its beginning nothing need be moved. Otherwise no packet and no buffer may meet another
 * buffer of the batch, else INVALID_ARGUMENT before anything is done. */
pywg_status pywg_interface_seal(pywg_interface *interface, const pywg_now *now, const pywg_packet *in, pywg_packet *out, size_t count);
/* Datagrams to inner packets, decrypted in place: packets[i].endpoint says where it came from; on DELIVER
 * data and length are moved to the inner packet inside the same bytes. Verdicts DELIVER, HANDSHAKE,
 * KEEPALIVE, DROPPED. under_load demands cookies (whitepaper section 5.3). */
pywg_status pywg_interface_receive(pywg_interface *interface, const pywg_now *now, pywg_packet *packets, size_t count, uint32_t under_load);
/* Lets due timers fire. Call when pywg_interface_deadline has passed, then pywg_interface_poll. */
pywg_status pywg_interface_expire(pywg_interface *interface, const pywg_now *now);
/* What the protocol itself wants sent (handshakes, cookies, keepalives, packets that were staged):
 * fills up to count packets, *written of them, each with capacity >= MTU + 48 and >= 148. Call again until
 * *written < count. */
pywg_status pywg_interface_poll(pywg_interface *interface, const pywg_now *now, pywg_packet *packets, size_t count, size_t *written);
/* When pywg_interface_expire is next due, as boot_ns; UINT64_MAX for never. */
pywg_status pywg_interface_deadline(pywg_interface *interface, uint64_t *boot_ns);
/* Packets dropped so far for reason `drop`; NOT_FOUND when there is no such reason. */
pywg_status pywg_interface_dropped(pywg_interface *interface, uint32_t drop, uint64_t *count);
/* Waits for the calls that run, zeroes all keys and frees. NULL is fine. */
void pywg_interface_close(pywg_interface *interface);

/* The three calls that move packets once more, with two things that may be NULL: a diagnostic that says which packet is
 * wrong and why, and `count` numbers of peers. A number names a peer of this interface for as long as it has that
 * peer, and is never 0. seal_batch: the peer whose allowed IPs hold the destination, also when the packet is STAGED or
 * DROPPED; receive_batch, which also wants length <= capacity: the peer by whose session a datagram was opened; poll_batch: the peer it is for. 0 where there
 * is none: for a handshake message that came in, a cookie reply, a packet without a peer, a wrong tag. */
pywg_status pywg_interface_seal_batch(pywg_interface *interface, const pywg_now *now, const pywg_packet *in, pywg_packet *out, uint64_t *peers, size_t count, pywg_diagnostic *diagnostic);
pywg_status pywg_interface_receive_batch(pywg_interface *interface, const pywg_now *now, pywg_packet *packets, uint64_t *peers, size_t count, uint32_t under_load, pywg_diagnostic *diagnostic);
pywg_status pywg_interface_poll_batch(pywg_interface *interface, const pywg_now *now, pywg_packet *packets, uint64_t *peers, size_t count, size_t *written, pywg_diagnostic *diagnostic);
/* The public key of a peer by its number; NOT_FOUND when the peer was removed. */
pywg_status pywg_interface_peer_key(pywg_interface *interface, uint64_t peer, uint8_t public_key[32]);
/* The number of a peer by its public key; NOT_FOUND when there is no such peer. */
pywg_status pywg_interface_peer_number(pywg_interface *interface, const uint8_t public_key[32], uint64_t *peer);

/* Static string such as "invalid_mac1", or NULL: reasons are numbered from 0 without a gap. */
const char *pywg_drop_name(uint32_t drop);

#ifdef __cplusplus
}
#endif

#endif /* PYWG_H */
