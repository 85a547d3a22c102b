/* The protocol over a socket of one's own: a host inside the tunnel that answers pings, without root and without TUN.
 *
 *     sockets PORT FILE
 *
 * FILE has UAPI text (private_key=..., public_key=..., allowed_ip=...). Ends by SIGINT or SIGTERM. */
#include "pywg.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MTU = 1420, ROOM = 2048, HEADROOM = 16, BATCH = 32 };

static volatile sig_atomic_t is_over;
static pywg_interface *interface;
static int udp;
static uint8_t slots[BATCH][ROOM];
static pywg_packet packets[BATCH];

static void on_signal(int number) { (void)number; is_over = 1; }

static void must(pywg_status status, const pywg_diagnostic *why) {
    if (status == PYWG_OK) return;
    fprintf(stderr, "%s: %s\n", pywg_status_name(status), why->text);
    exit(1);
}

static uint64_t read_clock(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static pywg_now present(void) {
    return (pywg_now){ .boot_ns = read_clock(CLOCK_BOOTTIME), .unix_ns = read_clock(CLOCK_REALTIME) };
}

/* This example speaks IPv4 outside; for IPv6 the same with sockaddr_in6. */
static void send_datagram(const pywg_packet *datagram) {
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(datagram->endpoint.port) };
    memcpy(&to.sin_addr, datagram->endpoint.address, 4);
    sendto(udp, datagram->data, datagram->length, 0, (struct sockaddr *)&to, sizeof to);
}

/* Everything that the protocol itself wants sent. */
static void send_what_is_due(const pywg_now *now, pywg_diagnostic *why) {
    size_t written;
    do {
        for (int i = 0; i < BATCH; i++) packets[i] = (pywg_packet){ .data = slots[i], .capacity = ROOM };
        must(pywg_interface_poll_batch(interface, now, packets, NULL, BATCH, &written, why), why);
        for (size_t i = 0; i < written; i++) send_datagram(&packets[i]);
    } while (written == BATCH);
}

/* An echo request becomes its reply: the checksum of the message changes by what the type does. */
static int answer(uint8_t *packet, size_t length) {
    if (length < 28 || packet[0] != 0x45 || packet[9] != 1 || packet[20] != 8) return 0;
    uint8_t source[4];
    memcpy(source, packet + 12, 4);
    memcpy(packet + 12, packet + 16, 4);
    memcpy(packet + 16, source, 4);
    uint32_t sum = ((uint32_t)packet[22] << 8 | packet[23]) + 0x0800;
    sum += sum >> 16;
    packet[20] = 0;
    packet[22] = (uint8_t)(sum >> 8);
    packet[23] = (uint8_t)sum;
    return 1;
}

/* excerpt begins */
static void receive_and_answer(const pywg_now *now, pywg_diagnostic *why) {
    size_t count = 0;
    while (count < BATCH) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t length = recvfrom(udp, slots[count], ROOM, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
        if (length < 0) break;
        pywg_packet *packet = &packets[count];
        *packet = (pywg_packet){ .data = slots[count], .length = (size_t)length, .capacity = ROOM };
        packet->endpoint = (pywg_endpoint){ .family = 4, .port = ntohs(from.sin_port) };
        memcpy(packet->endpoint.address, &from.sin_addr, 4);
        count++;
    }
    must(pywg_interface_receive_batch(interface, now, packets, NULL, count, 0, why), why);
    for (size_t i = 0; i < count; i++) {
        if (packets[i].verdict != PYWG_VERDICT_DELIVER || !answer(packets[i].data, packets[i].length)) continue;
        /* Sealed where it lies: an opened packet has the room for it around it. */
        pywg_packet sealed = { .data = slots[i], .capacity = ROOM };
        must(pywg_interface_seal_batch(interface, now, &packets[i], &sealed, NULL, 1, why), why);
        if (sealed.verdict == PYWG_VERDICT_SEALED) send_datagram(&sealed);
    }
}

/* excerpt ends */
/* Milliseconds until the protocol has something to do, -1 for never. */
static int timeout(const pywg_now *now) {
    uint64_t deadline;
    if (pywg_interface_deadline(interface, &deadline) != PYWG_OK || deadline == UINT64_MAX) return -1;
    if (deadline <= now->boot_ns) return 0;
    uint64_t left = (deadline - now->boot_ns) / 1000000 + 1;
    return left > 60000 ? 60000 : (int)left;
}

int main(int argc, char **argv) {
    static char text[65536];
    pywg_diagnostic why = { .size = sizeof why };
    pywg_interface_options options = { .size = sizeof options, .mtu = MTU };
    struct sockaddr_in own = { .sin_family = AF_INET };
    if (argc != 3) return 2;
    FILE *file = fopen(argv[2], "r");
    if (file == NULL) return 2;
    size_t length = fread(text, 1, sizeof text, file);
    fclose(file);
    own.sin_port = htons((uint16_t)atoi(argv[1]));
    udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(udp, (struct sockaddr *)&own, sizeof own) != 0) return 1;
    pywg_now now = present();
    must(pywg_interface_open(&options, &interface, &why), &why);
    must(pywg_interface_set(interface, &now, text, length, &why), &why);
    memset(text, 0, sizeof text);
    struct sigaction action = { .sa_handler = on_signal }; /* without SA_RESTART: poll ends */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    puts("ready");
    fflush(stdout);
    while (!is_over) {
        struct pollfd waiting = { .fd = udp, .events = POLLIN };
        poll(&waiting, 1, timeout(&now));
        now = present();
        if (waiting.revents & POLLIN) receive_and_answer(&now, &why);
        pywg_interface_expire(interface, &now);
        send_what_is_due(&now, &why);
    }
    pywg_interface_close(interface);
    close(udp);
    return 0;
}
