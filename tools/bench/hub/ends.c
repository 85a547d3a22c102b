/* Plays all far ends of a WireGuard hub in one process, so that the hub alone is measured; see command.py.
 *
 *   ends NETNS PID INTERFACE KEYS
 *
 * NETNS is the path of the hub's network namespace, PID its process, INTERFACE its TUN there. KEYS is a file of lines
 * in hexadecimal: the hub's public key, then the private key of each end. End i has the outer address
 * 198.18.0.1 + i, port 51820, and the inner address 10.64.0.1 + i; the hub is 192.0.2.1, port 51820.
 *
 * Reads commands on standard input, answers each with a line of `name=value` words, and ends when the input does:
 *
 *   shake SECONDS
 *       a packet to each end is given to the hub's TUN, so that the hub begins a handshake with each
 *   run in|relay|out FLOWS TRAIN WINDOW COUNT SIZE[,SIZE...]
 *       COUNT packets, sizes (of UDP payloads inside) in turns:
 *       in     sealed ahead of time, sent to the hub, which decrypts them for an address that leads nowhere
 *       relay  the same for the address of another end: the hub's kernel routes them back into its TUN
 *       out    given to the hub's TUN by a socket in its namespace
 *       Flows take turns, and so do ends: flow f is that of end f modulo their number. TRAIN packets of one flow follow
 *       each other as one datagram that the kernel cuts (UDP_SEGMENT). With 1 each is a frame of its own, written to the
 *       veth directly: so the ends cost less than the hub does.
 *       No more than WINDOW trains are under way at once, so that the hub sets the pace and nothing is lost.
 *
 * What arrives here is counted by the veth, so somebody else may drop it before it costs anything; in a run nothing is
 * received but initiations. What is counted as under way is what the hub's kernel says it has not handed to the hub (in, out), or what has not
 * come back (relay). No more than three windows may be in the hub itself. Where nothing moves for a while, it is taken for lost. The CPU time is that of the hub's process. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* core/check/ends.zig */
bool ends_respond(
    const uint8_t *private_key, const uint8_t *hub, uint32_t local_index, const uint8_t *initiation, uint8_t *response,
    uint8_t *sending, uint32_t *remote_index);
void ends_seal(
    const uint8_t *key, uint32_t remote_index, uint64_t counter_first, uint8_t *first, size_t stride, size_t length,
    size_t count);

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
    port = 51820,
    ends_max = 16000,
    sizes_max = 16,
    batch = 64,
    frame_length = 14 + 20 + 8, /* what stands before a datagram in a frame */
    header_length = 16,
    overhead = 32, /* header and tag */
    ip_udp = 28,
    initiation_length = 148,
    response_length = 92,
    train_bytes_max = 65507,
    pool_bytes_max = 512 << 20,
};
/* Nothing moves for so long: what is under way is lost, and there is room for more; at the end, the rest is lost. */
static const uint64_t quiet_ns = 60 * 1000 * 1000, quiet_at_end_ns = 300 * 1000 * 1000;
static const uint32_t outer_first = 0xc6120001, inner_first = 0x0a400001, nowhere = 0x0a3f0009, hub_outer = 0xc0000201;
static const char veth[] = "veth";

struct end {
    uint8_t private_key[32], sending[32];
    uint32_t remote_index;
    uint64_t counter;
    bool has_answered, is_confirmed;
};

static struct end ends[ends_max];
static unsigned ends_count, confirmed_count;
static uint8_t hub_key[32];
static int outside, inside; /* sockets: of the ends; in the hub's namespace */
static int link_socket; /* for frames that leave by the veth */
static struct sockaddr_ll link_address = {.sll_family = AF_PACKET, .sll_halen = ETH_ALEN};
static uint8_t hub_mac[ETH_ALEN], own_mac[ETH_ALEN];
static int snmp_file, dev_file, own_dev_file;
static clockid_t hub_clock;
static char interface_name[32];

static void fail(const char *what) {
    fprintf(stderr, "ends: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void expect(bool is_right, const char *what) {
    if (!is_right) fail(what);
}

static uint64_t time_of(clockid_t clock) {
    struct timespec time;
    expect(clock_gettime(clock, &time) == 0, "clock_gettime");
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t now(void) { return time_of(CLOCK_MONOTONIC); }

static void rest(void) {
    struct timespec time = {0, 20000};
    nanosleep(&time, NULL);
}

/* ---- beginning ---------------------------------------------------------------------------------------------------- */

static void read_key(FILE *file, uint8_t *key) {
    for (int i = 0; i < 32; i++) {
        unsigned byte;
        expect(fscanf(file, "%2x", &byte) == 1, "a key");
        key[i] = (uint8_t)byte;
    }
}

static void read_keys(const char *path) {
    FILE *file = fopen(path, "r");
    expect(file != NULL, path);
    read_key(file, hub_key);
    for (int next; (next = fgetc(file)) != EOF;) {
        if (next == '\n') continue;
        ungetc(next, file);
        expect(ends_count < ends_max, "more ends than there is room for");
        read_key(file, ends[ends_count++].private_key);
    }
    fclose(file);
    expect(ends_count > 0, "no end");
}

static int new_socket(void) {
    int made = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int size = 32 << 20;
    expect(made >= 0, "socket");
    setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(made, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    return made;
}

static void read_mac(int of, uint8_t *mac) {
    struct ifreq request = {0};
    memcpy(request.ifr_name, veth, sizeof veth);
    expect(ioctl(of, SIOCGIFHWADDR, &request) == 0, veth);
    memcpy(mac, request.ifr_hwaddr.sa_data, ETH_ALEN);
}

static void open_link(void) {
    int one = 1, size = 8 << 20;
    read_mac(outside, own_mac);
    /* It is bound to no protocol, so it receives nothing. */
    link_socket = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    expect(link_socket >= 0, "AF_PACKET");
    expect(setsockopt(link_socket, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) == 0, "PACKET_QDISC_BYPASS");
    setsockopt(link_socket, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    link_address.sll_ifindex = (int)if_nametoindex(veth);
    link_address.sll_protocol = htons(ETH_P_IP);
    memcpy(link_address.sll_addr, hub_mac, ETH_ALEN);
}

static void open_sockets(const char *namespace) {
    int one = 1, home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    outside = new_socket();
    expect(bind(outside, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    expect(setsockopt(outside, IPPROTO_IP, IP_PKTINFO, &one, sizeof one) == 0, "IP_PKTINFO");
    int away = open(namespace, O_RDONLY | O_CLOEXEC);
    expect(home >= 0 && away >= 0 && setns(away, CLONE_NEWNET) == 0, namespace);
    inside = new_socket();
    read_mac(inside, hub_mac);
    expect(setns(home, CLONE_NEWNET) == 0, "setns");
    close(home), close(away);
    open_link();
}

/* `pid`: whose namespace is read. */
static int open_of(const char *pid, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/net/%s", pid, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    expect(file >= 0, path);
    return file;
}

/* ---- what the hub's kernel counts --------------------------------------------------------------------------------- */

static char text[1 << 16];

static void read_again(int file) {
    ssize_t length = pread(file, text, sizeof text - 1, 0);
    expect(length > 0, "/proc");
    text[length] = 0;
}

/* UDP messages that programs have read or that were lost on the way to them; a train is one message. */
static uint64_t messages_taken(uint64_t *lost) {
    unsigned long long read, no_port, errors;
    read_again(snmp_file);
    char *names = strstr(text, "\nUdp: "), *line = names ? strstr(names + 1, "\nUdp: ") : NULL;
    expect(line && sscanf(line, "\nUdp: %llu %llu %llu", &read, &no_port, &errors) == 3, "snmp");
    *lost = errors;
    return read + errors;
}

struct link { unsigned long long rx_bytes, rx_packets, rx_dropped, tx_packets, tx_dropped; };

static struct link read_link(int file, const char *name) {
    struct link link;
    char wanted[40];
    read_again(file);
    snprintf(wanted, sizeof wanted, "%s:", name);
    char *line = strstr(text, wanted);
    expect(line && sscanf(line + strlen(wanted), "%llu %llu %*u %llu %*u %*u %*u %*u %*u %llu %*u %llu", &link.rx_bytes,
        &link.rx_packets, &link.rx_dropped, &link.tx_packets, &link.tx_dropped) == 5, name);
    return link;
}

/* ---- what the ends receive ---------------------------------------------------------------------------------------- */

/* Bytes of datagrams that have arrived. A train is one packet to the veth, with one header. */
static uint64_t arrived_bytes(void) {
    struct link link = read_link(own_dev_file, veth);
    return link.rx_bytes - link.rx_packets * frame_length;
}

static void answer(unsigned number, const uint8_t *initiation, const struct sockaddr_in *hub) {
    uint8_t response[response_length];
    struct end *end = &ends[number];
    if (!ends_respond(end->private_key, hub_key, number, initiation, response, end->sending, &end->remote_index)) return;
    end->counter = 0;
    end->has_answered = true;
    union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))]; } control = {0};
    control.header = (struct cmsghdr){CMSG_LEN(sizeof(struct in_pktinfo)), IPPROTO_IP, IP_PKTINFO};
    struct in_pktinfo source = {.ipi_spec_dst.s_addr = htonl(outer_first + number)};
    memcpy(CMSG_DATA(&control.header), &source, sizeof source);
    struct iovec vector = {response, sizeof response};
    struct msghdr message = {(void *)hub, sizeof *hub, &vector, 1, &control, sizeof control, 0};
    sendmsg(outside, &message, 0);
}

static void take(
    const uint8_t *datagram, size_t length, uint32_t destination, const struct sockaddr_in *source) {
    if (datagram[0] == 1 && length == initiation_length) {
        unsigned number = destination - outer_first;
        if (number < ends_count) answer(number, datagram, source);
    } else if (datagram[0] == 4) {
        uint32_t number;
        memcpy(&number, datagram + 4, 4);
        if (number < ends_count && ends[number].has_answered && !ends[number].is_confirmed) {
            ends[number].is_confirmed = true;
            confirmed_count++;
        }
    }
}

/* Takes all that is there, of each datagram only as much as tells what it is; whether there was anything. */
static bool receive(void) {
    static uint8_t heads[batch][initiation_length];
    static union { struct cmsghdr header; char bytes[128]; } controls[batch];
    static struct sockaddr_in sources[batch];
    struct mmsghdr messages[batch];
    struct iovec vectors[batch];
    bool any = false;
    for (;;) {
        for (int i = 0; i < batch; i++) {
            vectors[i] = (struct iovec){heads[i], sizeof heads[i]};
            messages[i].msg_hdr = (struct msghdr){
                &sources[i], sizeof sources[i], &vectors[i], 1, controls[i].bytes, sizeof controls[i], 0};
        }
        int count = recvmmsg(outside, messages, batch, MSG_DONTWAIT | MSG_TRUNC, NULL);
        if (count <= 0) return any;
        any = true;
        for (int i = 0; i < count; i++) {
            uint32_t destination = 0;
            size_t length = messages[i].msg_len;
            struct msghdr *header = &messages[i].msg_hdr;
            for (struct cmsghdr *one = CMSG_FIRSTHDR(header); one; one = CMSG_NXTHDR(header, one)) {
                if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO) {
                    destination = ntohl(((struct in_pktinfo *)CMSG_DATA(one))->ipi_addr.s_addr);
                }
            }
            if (length >= overhead) take(heads[i], length, destination, &sources[i]);
        }
    }
}

/* ---- shake -------------------------------------------------------------------------------------------------------- */

static struct sockaddr_in inner_address(unsigned number, unsigned to_port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)to_port)};
    address.sin_addr.s_addr = htonl(inner_first + number);
    return address;
}

/* Few enough at once that no queue of the hub overflows. */
static void shake(double seconds) {
    enum { ahead = 64 };
    uint64_t begun = now(), moved = begun, last = 0;
    unsigned next = 0;
    while (confirmed_count < ends_count && now() - begun < (uint64_t)(seconds * 1e9)) {
        for (; next < ends_count && next < confirmed_count + ahead; next++) {
            struct sockaddr_in to = inner_address(next, 9);
            sendto(inside, "", 1, 0, (struct sockaddr *)&to, sizeof to);
        }
        if (!receive()) rest();
        if (confirmed_count != last) last = confirmed_count, moved = now();
        /* The hub tries again by itself after five seconds, unless it never got the packet. */
        if (now() - moved > 1000000000u && next == ends_count) {
            for (unsigned i = 0; i < ends_count; i++) {
                struct sockaddr_in to = inner_address(i, 9);
                if (!ends[i].is_confirmed) sendto(inside, "", 1, 0, (struct sockaddr *)&to, sizeof to);
            }
            moved = now();
        } else if (now() - moved > 1000000000u) {
            next = next > ahead ? next - ahead : 0;
            moved = now();
        }
    }
    printf("sessions=%u seconds=%.3f\n", confirmed_count, (double)(now() - begun) / 1e9);
}

/* ---- run: what is sent -------------------------------------------------------------------------------------------- */

enum mode { mode_in, mode_relay, mode_out };

struct plan {
    enum mode mode;
    unsigned flows, train, window, sizes_count;
    uint64_t count;
    unsigned sizes[sizes_max];
};

/* One piece for the kernel: a datagram or a train of equal ones. */
struct piece { uint32_t offset, stride; uint16_t count; uint16_t flow; };

static uint8_t *pool;
static struct piece *pieces;

static unsigned end_of(unsigned flow) { return flow % ends_count; }

static size_t padded(size_t length) {
    size_t next = (length + 15) / 16 * 16;
    return next > 1420 && length <= 1420 ? 1420 : next;
}

static uint16_t folded(uint32_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static uint32_t sum_of(const uint8_t *bytes, size_t length) {
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < length; i += 2) sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
    return sum;
}

/* IPv4 and UDP with right checksums; the payload is zeros, of an even length. */
static void write_packet(uint8_t *packet, const struct plan *plan, unsigned flow, unsigned size, uint16_t identity) {
    uint32_t source = inner_first + end_of(flow), destination = nowhere;
    if (plan->mode == mode_relay) destination = inner_first + (end_of(flow) + ends_count / 2) % ends_count;
    unsigned length = size + 8, total = size + ip_udp, from_port = 1024 + flow / ends_count;
    uint8_t header[ip_udp] = {
        0x45, 0, (uint8_t)(total >> 8), (uint8_t)total, (uint8_t)(identity >> 8), (uint8_t)identity, 0x40, 0, 64, 17, 0, 0,
        (uint8_t)(source >> 24), (uint8_t)(source >> 16), (uint8_t)(source >> 8), (uint8_t)source,
        (uint8_t)(destination >> 24), (uint8_t)(destination >> 16), (uint8_t)(destination >> 8), (uint8_t)destination,
        (uint8_t)(from_port >> 8), (uint8_t)from_port, 0x10, 0x92, (uint8_t)(length >> 8), (uint8_t)length, 0, 0};
    uint16_t sum = folded(sum_of(header, 20));
    header[10] = (uint8_t)(sum >> 8), header[11] = (uint8_t)sum;
    sum = folded(sum_of(header + 12, 16) + 17 + length);
    header[26] = (uint8_t)(sum >> 8), header[27] = (uint8_t)sum;
    memcpy(packet, header, sizeof header);
    memset(packet + sizeof header, 0, padded(total) - sizeof header);
}

/* Ethernet, IPv4 and UDP around a datagram of `length`; no UDP checksum. */
static void write_frame(uint8_t *frame, unsigned number, size_t length) {
    uint32_t source = outer_first + number;
    size_t total = length + ip_udp;
    memcpy(frame, hub_mac, ETH_ALEN);
    memcpy(frame + ETH_ALEN, own_mac, ETH_ALEN);
    uint8_t header[2 + ip_udp] = {
        8, 0, 0x45, 0, (uint8_t)(total >> 8), (uint8_t)total, 0, 0, 0x40, 0, 64, 17, 0, 0,
        (uint8_t)(source >> 24), (uint8_t)(source >> 16), (uint8_t)(source >> 8), (uint8_t)source,
        (uint8_t)(hub_outer >> 24), (uint8_t)(hub_outer >> 16), (uint8_t)(hub_outer >> 8), (uint8_t)hub_outer,
        port >> 8, port & 255, port >> 8, port & 255, (uint8_t)((length + 8) >> 8), (uint8_t)(length + 8), 0, 0};
    uint16_t sum = folded(sum_of(header + 2, 20));
    header[12] = (uint8_t)(sum >> 8), header[13] = (uint8_t)sum;
    memcpy(frame + 2 * ETH_ALEN, header, sizeof header);
}

/* Fills the pool with as many of the `left` packets as it holds, sealed; how many pieces that is. `made` counts pieces
 * from the beginning of the run, so that flows and sizes go on in turns. */
static size_t prepare(const struct plan *plan, uint64_t left, uint64_t made) {
    size_t end = 0, count = 0;
    while (left > 0) {
        unsigned flow = (unsigned)((made + count) % plan->flows), size = plan->sizes[(made + count) % plan->sizes_count];
        size_t lead = plan->train == 1 ? frame_length : 0;
        size_t length = padded(size + ip_udp), datagram = length + overhead, stride = lead + datagram;
        uint64_t some = plan->train < left ? plan->train : left;
        if (some * stride > train_bytes_max) some = train_bytes_max / stride;
        if (end + some * stride > pool_bytes_max) break;
        pieces[count] = (struct piece){(uint32_t)end, (uint32_t)stride, (uint16_t)some, (uint16_t)flow};
        struct end *from = &ends[end_of(flow)];
        if (lead) write_frame(pool + end, end_of(flow), datagram);
        for (uint64_t i = 0; i < some; i++) {
            uint8_t *packet = pool + end + lead + i * stride + header_length;
            write_packet(packet, plan, flow, size, (uint16_t)(from->counter + i));
        }
        ends_seal(from->sending, from->remote_index, from->counter, pool + end + lead, stride, length, some);
        from->counter += some;
        end += some * stride;
        left -= some;
        count++;
    }
    return count;
}

/* For packets of the hub itself nothing is sealed, and all zeros are alike. */
static size_t prepare_out(const struct plan *plan, uint64_t left, uint64_t made) {
    size_t count = 0;
    for (; left > 0 && count < (1u << 20); count++) {
        unsigned flow = (unsigned)((made + count) % plan->flows), size = plan->sizes[(made + count) % plan->sizes_count];
        uint64_t some = plan->train < left ? plan->train : left;
        if (some * size > train_bytes_max) some = train_bytes_max / size;
        pieces[count] = (struct piece){0, (uint32_t)size, (uint16_t)some, (uint16_t)flow};
        left -= some;
    }
    return count;
}

/* Frames for the veth. */
static size_t give_frames(const struct piece *first, size_t count) {
    struct mmsghdr messages[batch];
    struct iovec vectors[batch];
    if (count > batch) count = batch;
    for (size_t i = 0; i < count; i++) {
        vectors[i] = (struct iovec){pool + first[i].offset, first[i].stride};
        messages[i].msg_hdr = (struct msghdr){&link_address, sizeof link_address, &vectors[i], 1, NULL, 0, 0};
    }
    int sent = sendmmsg(link_socket, messages, (unsigned)count, 0);
    if (sent < 0 && errno != EAGAIN && errno != ENOBUFS) fail("sendmmsg of frames");
    return sent < 0 ? 0 : (size_t)sent;
}

/* Gives up to `count` pieces to the kernel; how many it took. */
static size_t give(const struct plan *plan, const struct piece *first, size_t count) {
    static struct sockaddr_in names[batch];
    static union { struct cmsghdr header; char bytes[64]; } controls[batch];
    struct mmsghdr messages[batch];
    struct iovec vectors[batch];
    if (plan->mode != mode_out && plan->train == 1) return give_frames(first, count);
    if (count > batch) count = batch;
    for (size_t i = 0; i < count; i++) {
        const struct piece *piece = &first[i];
        unsigned number = end_of(piece->flow);
        char *control = controls[i].bytes;
        if (plan->mode == mode_out) {
            names[i] = inner_address(number, 1024 + piece->flow / ends_count);
        } else {
            names[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
            names[i].sin_addr.s_addr = htonl(hub_outer);
            struct cmsghdr head = {CMSG_LEN(sizeof(struct in_pktinfo)), IPPROTO_IP, IP_PKTINFO};
            struct in_pktinfo source = {.ipi_spec_dst.s_addr = htonl(outer_first + number)};
            memcpy(control, &head, sizeof head);
            memcpy(control + CMSG_LEN(0), &source, sizeof source);
            control += CMSG_SPACE(sizeof source);
        }
        if (piece->count > 1) {
            struct cmsghdr head = {CMSG_LEN(sizeof(uint16_t)), IPPROTO_UDP, UDP_SEGMENT};
            uint16_t segment = (uint16_t)piece->stride;
            memcpy(control, &head, sizeof head);
            memcpy(control + CMSG_LEN(0), &segment, sizeof segment);
            control += CMSG_SPACE(sizeof segment);
        }
        vectors[i] = (struct iovec){pool + piece->offset, (size_t)piece->stride * piece->count};
        size_t used = (size_t)(control - controls[i].bytes);
        messages[i].msg_hdr = (struct msghdr){
            &names[i], sizeof names[i], &vectors[i], 1, used ? controls[i].bytes : NULL, used, 0};
    }
    int sent = sendmmsg(plan->mode == mode_out ? inside : outside, messages, (unsigned)count, 0);
    if (sent < 0 && errno != EAGAIN && errno != ENOBUFS) fail("sendmmsg");
    return sent < 0 ? 0 : (size_t)sent;
}

/* ---- run: the pace ------------------------------------------------------------------------------------------------ */

struct outcome { uint64_t sent, through, lost, elapsed_ns, cpu_ns; };

struct start { uint64_t taken, lost, bytes; struct link link; };

static struct start where_we_are(void) {
    struct start start = {.bytes = arrived_bytes(), .link = read_link(dev_file, interface_name)};
    start.taken = messages_taken(&start.lost);
    return start;
}

/* Datagrams that have arrived here: their bytes by what one has in the mean. */
static uint64_t arrived(const struct plan *plan, const struct start *start) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < plan->sizes_count; i++) sum += padded(plan->sizes[i] + ip_udp) + overhead;
    return (arrived_bytes() - start->bytes) * plan->sizes_count / sum;
}

/* Pieces that are no longer under way. */
static uint64_t finished(const struct plan *plan, const struct start *start) {
    uint64_t taken, through, lost;
    if (plan->mode == mode_relay) return arrived(plan, start) / plan->train;
    struct link link = read_link(dev_file, interface_name);
    if (plan->mode == mode_in) {
        taken = messages_taken(&lost) - start->taken;
        through = link.rx_packets - start->link.rx_packets + (link.rx_dropped - start->link.rx_dropped);
    } else {
        taken = link.tx_packets - start->link.tx_packets + (link.tx_dropped - start->link.tx_dropped);
        through = arrived(plan, start) / plan->train;
    }
    /* Some hubs read faster than they work, and drop what they cannot keep. */
    through += 3 * (uint64_t)plan->window;
    return taken < through ? taken : through;
}

/* Packets that have come out at the other side of the hub. */
static uint64_t come_through(const struct plan *plan, const struct start *start, uint64_t sent) {
    if (plan->mode != mode_in) {
        uint64_t found = arrived(plan, start) + 1; /* rounded down; and keepalives arrive, too */
        return found < sent ? found : sent;
    }
    struct link link = read_link(dev_file, interface_name);
    if (plan->train == 1) return link.rx_packets - start->link.rx_packets;
    /* Superpackets have no number; their bytes lack headers, so what was lost is told from what was read. */
    uint64_t lost;
    uint64_t taken = messages_taken(&lost) - start->taken;
    lost = lost - start->lost + (link.rx_dropped - start->link.rx_dropped);
    uint64_t through = (taken > lost ? taken - lost : 0) * plan->train;
    return through < sent ? through : sent;
}

/* Sends all pieces and waits until the last has come through, or nothing moves any more. */
static void carry(const struct plan *plan, size_t count, struct outcome *outcome) {
    struct start start = where_we_are();
    uint64_t cpu = time_of(hub_clock), begun = now(), moved = begun, done = 0, written_off = 0, sent = 0, through = 0;
    size_t given = 0;
    while (given < count || through < sent) {
        receive();
        uint64_t at = finished(plan, &start) + written_off;
        if (at > done) done = at, moved = now();
        if (given == count) {
            uint64_t at_end = come_through(plan, &start, sent);
            if (at_end > through) through = at_end, moved = now();
            if (through >= sent) break;
        }
        /* In portions: to ask the kernel how far it is costs more than to send a datagram. */
        size_t room = done + plan->window - given, some = 1;
        if (given < count && room >= (plan->window + 3) / 4) {
            for (; some > 0 && room > 0 && given < count; room -= some, given += some) {
                some = give(plan, &pieces[given], count - given < room ? count - given : room);
                for (size_t i = 0; i < some; i++) sent += pieces[given + i].count;
            }
            if (some > 0) continue;
        }
        if (now() - moved > (given == count ? quiet_at_end_ns : quiet_ns)) {
            if (given == count) break;
            written_off += given - done; /* make room */
            moved = now();
        }
        rest();
    }
    through = come_through(plan, &start, sent);
    outcome->cpu_ns += time_of(hub_clock) - cpu;
    outcome->elapsed_ns += moved - begun;
    outcome->sent += sent;
    outcome->through += through;
    outcome->lost += sent > through ? sent - through : 0;
}

static void run(const struct plan *plan) {
    struct outcome outcome = {0};
    uint64_t made = 0, own = time_of(CLOCK_PROCESS_CPUTIME_ID), preparing = 0;
    while (outcome.sent < plan->count) {
        uint64_t before = time_of(CLOCK_PROCESS_CPUTIME_ID);
        uint64_t left = plan->count - outcome.sent;
        size_t count = plan->mode == mode_out ? prepare_out(plan, left, made) : prepare(plan, left, made);
        preparing += time_of(CLOCK_PROCESS_CPUTIME_ID) - before;
        carry(plan, count, &outcome);
        made += count;
    }
    own = time_of(CLOCK_PROCESS_CPUTIME_ID) - own - preparing;
    printf("sent=%llu through=%llu seconds=%.6f hub_cpu=%.6f own_cpu=%.6f\n", (unsigned long long)outcome.sent,
        (unsigned long long)outcome.through, (double)outcome.elapsed_ns / 1e9, (double)outcome.cpu_ns / 1e9,
        (double)own / 1e9);
}

static bool read_plan(char *words, struct plan *plan) {
    char mode[8], sizes[128];
    unsigned long long count;
    if (sscanf(words, "%7s %u %u %u %llu %127s", mode, &plan->flows, &plan->train, &plan->window, &count, sizes) != 6) {
        return false;
    }
    plan->count = count;
    plan->mode = !strcmp(mode, "relay") ? mode_relay : !strcmp(mode, "out") ? mode_out : mode_in;
    for (char *word = strtok(sizes, ","); word && plan->sizes_count < sizes_max; word = strtok(NULL, ",")) {
        unsigned size = (unsigned)atoi(word);
        if (size < 8 || size > 1372 || size % 2) return false;
        plan->sizes[plan->sizes_count++] = size;
    }
    return plan->flows > 0 && plan->flows <= UINT16_MAX && plan->train > 0 && plan->train <= batch && plan->window > 0 &&
        plan->sizes_count > 0;
}

int main(int count, char **words) {
    if (count != 5) return fprintf(stderr, "ends NETNS PID INTERFACE KEYS\n"), 2;
    prctl(PR_SET_TIMERSLACK, 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_keys(words[4]);
    open_sockets(words[1]);
    snmp_file = open_of(words[2], "snmp");
    dev_file = open_of(words[2], "dev");
    own_dev_file = open_of("self", "dev");
    hub_clock = (clockid_t)(~(unsigned)atoi(words[2]) << 3 | 2); /* CPUCLOCK_SCHED of a process */
    snprintf(interface_name, sizeof interface_name, "%s", words[3]);
    pool = calloc(1, pool_bytes_max);
    pieces = calloc(pool_bytes_max / 128 + 1, sizeof *pieces);
    expect(pool && pieces, "memory");
    printf("ends=%u\n", ends_count);
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        struct plan plan = {0};
        receive();
        if (!strncmp(line, "shake ", 6)) shake(atof(line + 6));
        else if (!strncmp(line, "run ", 4) && read_plan(line + 4, &plan)) run(&plan);
        else return fprintf(stderr, "ends: not understood: %s", line), 2;
    }
    return 0;
}
