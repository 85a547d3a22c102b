/* What a caller must not do with an interface: fork, threads, buffers that meet, calls from its entropy function,
 * messages beyond all measure. Each is answered with a status, or done right; prints one word for each. */
#include "pywg.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MTU = 1420, ROOM = MTU + 48, THREADS = 4, ROUNDS = 200, BATCH = 8 };

/* Keys that everybody can read: for this test alone. */
#define FIRST_PRIVATE "1011111111111111111111111111111111111111111111111111111111111151"
#define FIRST_PUBLIC "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13"
#define SECOND_PRIVATE "2022222222222222222222222222222222222222222222222222222222222262"
#define SECOND_PUBLIC "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20"

static uint8_t packet[] = { 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 7, 0, 8, 0, 0 };
static const pywg_now now = { .boot_ns = 1000000000000, .unix_ns = 1700000000000000000 };

static void expect(int condition, const char *what) {
    if (condition) return;
    printf("not so: %s\n", what);
    exit(1);
}

static pywg_interface *open_interface(const char *text, pywg_entropy entropy, void *context) {
    pywg_interface_options options = { .size = sizeof options, .mtu = MTU, .entropy = entropy, .entropy_context = context };
    pywg_interface *interface;
    expect(pywg_interface_open(&options, &interface, NULL) == PYWG_OK, "open");
    expect(pywg_interface_set(interface, &now, text, strlen(text), NULL) == PYWG_OK, "set");
    return interface;
}

/* Everything that one wants sent, to the other. */
static void pump(pywg_interface *from, pywg_interface *to) {
    for (;;) {
        uint8_t bytes[ROOM];
        pywg_packet datagram = { .data = bytes, .capacity = sizeof bytes };
        size_t written;
        expect(pywg_interface_poll(from, &now, &datagram, 1, &written) == PYWG_OK, "poll");
        if (written == 0) return;
        datagram.endpoint = (pywg_endpoint){ .family = 4, .port = 1, .address = { 192, 0, 2, 1 } };
        expect(pywg_interface_receive(to, &now, &datagram, 1, 0) == PYWG_OK, "receive");
    }
}

static pywg_interface *a, *b;

static pywg_status seal(uint8_t *bytes, uint32_t *verdict) {
    pywg_packet in = { .data = packet, .length = sizeof packet };
    pywg_packet out = { .data = bytes, .capacity = ROOM };
    pywg_status status = pywg_interface_seal(a, &now, &in, &out, 1);
    *verdict = out.verdict;
    return status;
}

static void shake_hands(pywg_entropy entropy, void *context) {
    uint8_t bytes[ROOM];
    uint32_t verdict;
    a = open_interface("private_key=" FIRST_PRIVATE "\npublic_key=" SECOND_PUBLIC
                       "\nendpoint=192.0.2.1:2\nallowed_ip=10.0.0.2/32\n", entropy, context);
    b = open_interface("private_key=" SECOND_PRIVATE "\npublic_key=" FIRST_PUBLIC
                       "\nendpoint=192.0.2.1:1\nallowed_ip=10.0.0.1/32\n", NULL, NULL);
    expect(seal(bytes, &verdict) == PYWG_OK && verdict == PYWG_VERDICT_STAGED, "staged");
    pump(a, b);
    pump(b, a);
    pump(a, b);
}

static void in_a_child(void) {
    uint8_t bytes[ROOM];
    uint32_t verdict = PYWG_VERDICT_DROPPED;
    uint64_t number;
    size_t length;
    pywg_packet one = { .data = bytes, .capacity = sizeof bytes };
    pywg_diagnostic why = { .size = sizeof why };
    memset(bytes, 0, sizeof bytes);
    expect(seal(bytes, &verdict) == PYWG_FORKED && verdict == PYWG_VERDICT_DROPPED, "seal in a child");
    for (size_t i = 0; i < sizeof bytes; i++) expect(bytes[i] == 0, "nothing is written");
    expect(pywg_interface_receive(a, &now, &one, 1, 0) == PYWG_FORKED, "receive in a child");
    expect(pywg_interface_poll(a, &now, &one, 1, &length) == PYWG_FORKED, "poll in a child");
    expect(pywg_interface_expire(a, &now) == PYWG_FORKED, "expire in a child");
    expect(pywg_interface_deadline(a, &number) == PYWG_FORKED, "deadline in a child");
    expect(pywg_interface_dropped(a, 0, &number) == PYWG_FORKED, "dropped in a child");
    expect(pywg_interface_get(a, NULL, 0, &length) == PYWG_FORKED, "get in a child");
    expect(pywg_interface_set(a, &now, "", 0, &why) == PYWG_FORKED && strstr(why.text, "fork"), "set in a child");
    pywg_interface_close(a);
    pywg_interface_close(a);
    pywg_interface_close(b);
    shake_hands(NULL, NULL); /* with interfaces of its own it works */
    pywg_interface_close(a);
    pywg_interface_close(b);
    _exit(0);
}

static void fork_refused(void) {
    uint8_t bytes[ROOM];
    uint32_t verdict;
    int status;
    pid_t child = fork();
    if (child == 0) in_a_child();
    expect(waitpid(child, &status, 0) == child && status == 0, "the child");
    expect(seal(bytes, &verdict) == PYWG_OK && verdict == PYWG_VERDICT_SEALED, "the parent goes on");
    puts("fork");
}

static uint8_t counters[THREADS * ROUNDS + 64];

static void *seal_often(void *nothing) {
    for (int i = 0; i < ROUNDS; i++) {
        uint8_t bytes[ROOM];
        uint32_t verdict;
        expect(seal(bytes, &verdict) == PYWG_OK && verdict == PYWG_VERDICT_SEALED, "a thread seals");
        unsigned counter = bytes[8] | bytes[9] << 8;
        expect(counter < sizeof counters, "the counters have no gap");
        expect(__atomic_fetch_add(&counters[counter], 1, __ATOMIC_RELAXED) == 0, "no counter twice");
    }
    return nothing;
}

static void threads(void) {
    pthread_t many[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&many[i], NULL, seal_often, NULL);
    for (int i = 0; i < THREADS; i++) pthread_join(many[i], NULL);
    puts("threads");
}

/* In place at any distance, alone and in a batch; what comes out is what went in. */
static void buffers(void) {
    static uint8_t room[BATCH * ROOM];
    pywg_packet in[BATCH], out[BATCH];
    for (size_t headroom = 0; headroom <= 32; headroom += 4) {
        for (int i = 0; i < BATCH; i++) {
            uint8_t *start = room + i * ROOM;
            memcpy(start + headroom, packet, sizeof packet);
            in[i] = (pywg_packet){ .data = start + headroom, .length = sizeof packet };
            out[i] = (pywg_packet){ .data = start, .capacity = ROOM };
        }
        expect(pywg_interface_seal(a, &now, in, out, BATCH) == PYWG_OK, "seal in place");
        for (int i = 0; i < BATCH; i++) {
            expect(out[i].verdict == PYWG_VERDICT_SEALED, "sealed");
            out[i].endpoint = (pywg_endpoint){ .family = 4, .port = 1, .address = { 192, 0, 2, 1 } };
        }
        expect(pywg_interface_receive(b, &now, out, BATCH, 0) == PYWG_OK, "receive");
        for (int i = 0; i < BATCH; i++)
            expect(out[i].verdict == PYWG_VERDICT_DELIVER && out[i].length == sizeof packet &&
                   memcmp(out[i].data, packet, sizeof packet) == 0, "it is what was sealed");
    }
    /* A packet in another's buffer; one buffer for two. */
    memcpy(room + ROOM, packet, sizeof packet);
    in[0] = in[1] = (pywg_packet){ .data = room + ROOM, .length = sizeof packet };
    out[0] = (pywg_packet){ .data = room, .capacity = ROOM };
    out[1] = (pywg_packet){ .data = room + ROOM, .capacity = ROOM };
    expect(pywg_interface_seal(a, &now, in, out, 2) == PYWG_INVALID_ARGUMENT, "a packet in another's buffer");
    in[0] = in[1] = (pywg_packet){ .data = packet, .length = sizeof packet };
    out[1] = out[0];
    expect(pywg_interface_seal(a, &now, in, out, 2) == PYWG_INVALID_ARGUMENT, "one buffer for two");
    expect(memcmp(room + ROOM, packet, sizeof packet) == 0, "nothing is done");
    puts("buffers");
}

/* A transport message for a session that there is, and longer than any can be. */
static void lengths(void) {
    size_t length = (size_t)20 << 20;
    uint8_t *bytes = calloc(1, length);
    uint32_t verdict;
    seal(bytes, &verdict);
    for (size_t size = 65535 + 32; size <= length; size += size / 7) {
        pywg_packet datagram = { .data = bytes, .length = size, .capacity = length,
                                 .endpoint = { .family = 4, .port = 1, .address = { 192, 0, 2, 1 } } };
        expect(pywg_interface_receive(b, &now, &datagram, 1, 0) == PYWG_OK, "a long message");
        expect(datagram.verdict == PYWG_VERDICT_DROPPED, "it is dropped");
    }
    free(bytes);
    puts("lengths");
}

static int32_t curious(void *context, uint8_t *out, size_t length) {
    uint64_t number;
    pywg_interface **own = context;
    if (*own != NULL) expect(pywg_interface_deadline(*own, &number) == PYWG_INVALID_ARGUMENT, "a call from within");
    for (size_t i = 0; i < length; i++) out[i] = (uint8_t)rand();
    return 0;
}

static int32_t same(void *context, uint8_t *out, size_t length) {
    (void)context;
    memset(out, 7, length);
    return 0;
}

/* One that calls back, and one that repeats itself. */
static void entropy(void) {
    uint8_t bytes[ROOM];
    uint32_t verdict;
    a = NULL;
    shake_hands(curious, &a);
    expect(seal(bytes, &verdict) == PYWG_OK && verdict == PYWG_VERDICT_SEALED, "with one that calls back");
    pywg_interface_close(a);
    pywg_interface_close(b);
    shake_hands(same, NULL);
    pywg_now later = { .boot_ns = now.boot_ns + 130000000000, .unix_ns = now.unix_ns + 130000000000 };
    pywg_packet in = { .data = packet, .length = sizeof packet }, out = { .data = bytes, .capacity = ROOM };
    size_t written;
    expect(pywg_interface_seal(a, &later, &in, &out, 1) == PYWG_OK, "a new handshake is wanted");
    expect(pywg_interface_poll(a, &later, &out, 1, &written) == PYWG_OK, "it cannot be had, and that is all");
    puts("entropy");
}

int main(void) {
    shake_hands(NULL, NULL);
    fork_refused();
    threads();
    buffers();
    lengths();
    pywg_interface_close(a);
    pywg_interface_close(b);
    entropy();
    pywg_interface_close(a);
    pywg_interface_close(b);
    return 0;
}
