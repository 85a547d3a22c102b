/* The protocol alone: two interfaces shake hands and pass two packets. An array stands for the network.
 * Prints what became of each packet; the exit code is 0 if both came out as they went in. */
#include "pywg.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MTU = 1420, ROOM = MTU + 48 };

/* Keys that everybody can read: for this example alone. */
#define FIRST_PRIVATE "1011111111111111111111111111111111111111111111111111111111111151"
#define FIRST_PUBLIC "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13"
#define SECOND_PRIVATE "2022222222222222222222222222222222222222222222222222222222222262"
#define SECOND_PUBLIC "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20"

static const char *const verdicts[] = { "DROPPED", "SEALED", "STAGED", "DELIVER", "HANDSHAKE", "KEEPALIVE" };

/* An empty UDP packet from 10.0.0.1 to 10.0.0.2. */
static uint8_t packet[] = { 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 7, 0, 8, 0, 0 };

static void check(pywg_status status, const char *what) {
    if (status == PYWG_OK) return;
    fprintf(stderr, "%s: %s\n", what, pywg_status_name(status));
    exit(1);
}

static uint64_t nanoseconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static pywg_now now(void) {
    return (pywg_now){ .boot_ns = nanoseconds(CLOCK_BOOTTIME), .unix_ns = nanoseconds(CLOCK_REALTIME) };
}

static pywg_interface *open_interface(const char *configuration) {
    pywg_interface_options options = { .size = sizeof options, .mtu = MTU };
    pywg_interface *interface;
    pywg_now instant = now();
    check(pywg_interface_open(&options, &interface, NULL), "open");
    check(pywg_interface_set(interface, &instant, configuration, strlen(configuration), NULL), "set");
    return interface;
}

/* excerpt begins */
/* Takes a datagram across the network: `from` is the port where its sender is seen to be. */
static int carry(pywg_packet *datagram, uint16_t from, pywg_interface *to) {
    pywg_now instant = now();
    datagram->endpoint = (pywg_endpoint){ .family = 4, .port = from, .address = { 192, 0, 2, 1 } };
    check(pywg_interface_receive(to, &instant, datagram, 1, 0), "receive");
    puts(verdicts[datagram->verdict]);
    return datagram->verdict == PYWG_VERDICT_DELIVER && datagram->length == sizeof packet &&
           memcmp(datagram->data, packet, sizeof packet) == 0;
}

/* Sends what the protocol wants sent; answers how many packets came out whole at the other end. */
static int pump(pywg_interface *interface, uint16_t port, pywg_interface *peer) {
    int whole = 0;
    for (;;) {
        uint8_t bytes[ROOM];
        pywg_packet datagram = { .data = bytes, .capacity = sizeof bytes };
        pywg_now instant = now();
        size_t written;
        check(pywg_interface_poll(interface, &instant, &datagram, 1, &written), "poll");
        if (written == 0) return whole;
        whole += carry(&datagram, port, peer);
    }
}

/* Seals `packet`, and answers 1 if it came out whole at once. */
static int seal(pywg_interface *interface, uint16_t port, pywg_interface *peer) {
    uint8_t bytes[ROOM];
    pywg_packet in = { .data = packet, .length = sizeof packet };
    pywg_packet out = { .data = bytes, .capacity = sizeof bytes };
    pywg_now instant = now();
    check(pywg_interface_seal(interface, &instant, &in, &out, 1), "seal");
    puts(verdicts[out.verdict]);
    return out.verdict == PYWG_VERDICT_SEALED && carry(&out, port, peer);
}

int main(void) {
    pywg_interface *first = open_interface("private_key=" FIRST_PRIVATE "\npublic_key=" SECOND_PUBLIC
                                           "\nendpoint=192.0.2.1:2\nallowed_ip=10.0.0.2/32\n");
    pywg_interface *second = open_interface("private_key=" SECOND_PRIVATE "\npublic_key=" FIRST_PUBLIC
                                            "\nendpoint=192.0.2.1:1\nallowed_ip=10.0.0.1/32\n");
    int whole = seal(first, 1, second); /* STAGED: there is no session yet */
    whole += pump(first, 1, second);    /* the initiation */
    whole += pump(second, 2, first);    /* the response */
    whole += pump(first, 1, second);    /* the packet that was staged */
    whole += seal(first, 1, second);    /* SEALED: now there is one */
    pywg_interface_close(first);
    pywg_interface_close(second);
    return whole != 2;
}
/* excerpt ends */
