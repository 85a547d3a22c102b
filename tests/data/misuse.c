/* What a caller must not do with an interface: fork, threads, buffers that meet, calls from its entropy function,
 * messages beyond all measure, handles that are none, closing what others use. Each is answered with a status, or done right; prints one word for each. */
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

/* Every function that takes a handle, with one that is none. */
static void refused(void *handle, pywg_status expected) {
    uint8_t bytes[ROOM] = { 0 }, key[32] = { 0 };
    uint64_t number;
    size_t length;
    pywg_packet one = { .data = bytes, .capacity = sizeof bytes };
    pywg_diagnostic why = { .size = sizeof why };
    expect(pywg_interface_set(handle, &now, "", 0, &why) == expected && why.status == expected, "set");
    expect(pywg_interface_get(handle, NULL, 0, &length) == expected, "get");
    expect(pywg_interface_seal(handle, &now, &one, &one, 1) == expected, "seal");
    expect(pywg_interface_receive(handle, &now, &one, 1, 0) == expected, "receive");
    expect(pywg_interface_poll(handle, &now, &one, 1, &length) == expected, "poll");
    expect(pywg_interface_seal_batch(handle, &now, &one, &one, &number, 1, &why) == expected, "seal_batch");
    expect(pywg_interface_receive_batch(handle, &now, &one, &number, 1, 0, &why) == expected, "receive_batch");
    expect(pywg_interface_poll_batch(handle, &now, &one, &number, 1, &length, &why) == expected, "poll_batch");
    expect(pywg_interface_expire(handle, &now) == expected, "expire");
    expect(pywg_interface_deadline(handle, &number) == expected, "deadline");
    expect(pywg_interface_dropped(handle, 0, &number) == expected, "dropped");
    expect(pywg_interface_peer_key(handle, 1, key) == expected, "peer_key");
    expect(pywg_interface_peer_number(handle, key, &number) == expected, "peer_number");
    pywg_interface_close(handle);
}

static void handles(void) {
    char on_the_stack[64] = { 0 };
    pywg_interface *closed = open_interface("", NULL, NULL);
    pywg_interface_close(closed);
    refused(closed, PYWG_CLOSED);
    pywg_interface *again = open_interface("", NULL, NULL);
    refused(closed, PYWG_CLOSED); /* whoever has its place now */
    refused(NULL, PYWG_INVALID_ARGUMENT);
    refused(on_the_stack, PYWG_INVALID_ARGUMENT);
    refused((void *)1, PYWG_INVALID_ARGUMENT);
    refused((void *)((uintptr_t)again + 1), PYWG_INVALID_ARGUMENT);
    refused((void *)UINTPTR_MAX, PYWG_INVALID_ARGUMENT);
    size_t length;
    pywg_device *device = (pywg_device *)again;
    expect(pywg_device_set(device, "", 0, NULL) == PYWG_INVALID_ARGUMENT, "an interface is no device");
    expect(pywg_device_get(device, NULL, 0, &length) == PYWG_INVALID_ARGUMENT, "get of one");
    expect(pywg_device_report(device, NULL, 0, &length) == PYWG_INVALID_ARGUMENT, "report of one");
    expect(pywg_device_name(device, NULL, 0, &length) == PYWG_INVALID_ARGUMENT, "name of one");
    expect(pywg_device_run(device, NULL) == PYWG_INVALID_ARGUMENT, "run of one");
    expect(pywg_device_stop(device) == PYWG_INVALID_ARGUMENT, "stop of one");
    pywg_device_close(device);
    expect(pywg_interface_set(again, &now, "", 0, NULL) == PYWG_OK, "and it is still open");
    pywg_interface_close(again);
    puts("handles");
}

static int closed_by_me;

static void *seal_until_closed(void *nothing) {
    pywg_status status;
    do {
        uint8_t bytes[ROOM];
        uint32_t verdict;
        status = seal(bytes, &verdict);
    } while (status == PYWG_OK);
    expect(status == PYWG_CLOSED, "sealing ends because it was closed");
    return nothing;
}

static void *close_it(void *nothing) {
    pywg_interface_close(a);
    __atomic_fetch_add(&closed_by_me, 1, __ATOMIC_RELAXED);
    return nothing;
}

static void closing(void) {
    for (int round = 0; round < 20; round++) {
        pthread_t many[2 * THREADS];
        shake_hands(NULL, NULL);
        for (int i = 0; i < 2 * THREADS; i++)
            pthread_create(&many[i], NULL, i < THREADS ? seal_until_closed : close_it, NULL);
        for (int i = 0; i < 2 * THREADS; i++) pthread_join(many[i], NULL);
        pywg_interface_close(b);
    }
    puts("closing");
}

/* Which packet is wrong, and whose it is. */
static void batches(void) {
    uint8_t bytes[2][ROOM] = { 0 }, key[32] = { 0 };
    uint64_t peers[2] = { 9, 9 }, number = 9;
    pywg_diagnostic why = { .size = sizeof why };
    pywg_packet in[2] = { { .data = packet, .length = sizeof packet }, { .data = packet, .length = sizeof packet } };
    pywg_packet out[2] = { { .data = bytes[0], .capacity = ROOM }, { .data = bytes[1], .capacity = 75 } };
    expect(pywg_interface_seal_batch(a, &now, in, out, peers, 2, &why) == PYWG_BUFFER_TOO_SMALL, "too small");
    expect(strcmp(why.text, "out[1].capacity is less than in's length + 48") == 0, why.text);
    expect(peers[0] == 9 && why.status == PYWG_BUFFER_TOO_SMALL, "nothing is done");
    in[1].data = NULL;
    expect(pywg_interface_seal_batch(a, &now, in, out, peers, 2, &why) == PYWG_INVALID_ARGUMENT, "no data");
    expect(strcmp(why.text, "in[1].data is NULL") == 0, why.text);
    uint8_t nowhere[sizeof packet];
    memcpy(nowhere, packet, sizeof packet);
    nowhere[19] = 99;
    in[1].data = nowhere;
    out[1].capacity = ROOM;
    expect(pywg_interface_seal_batch(a, &now, in, out, peers, 2, &why) == PYWG_OK, "seal");
    expect(peers[0] != 0 && peers[1] == 0 && out[1].verdict == PYWG_VERDICT_DROPPED, "the peer, and none");
    expect(pywg_interface_peer_number(a, key, &number) == PYWG_NOT_FOUND && number == 0, "no such key");
    expect(pywg_interface_peer_key(a, peers[0], key) == PYWG_OK, "its key");
    expect(pywg_interface_peer_number(a, key, &number) == PYWG_OK && number == peers[0], "and back");
    expect(pywg_interface_peer_key(a, 0, key) == PYWG_NOT_FOUND, "0 is no peer");
    expect(pywg_interface_peer_key(a, UINT64_MAX, key) == PYWG_NOT_FOUND, "nor is this");
    out[1] = (pywg_packet){ .data = bytes[1], .length = ROOM, .capacity = ROOM - 1 };
    expect(pywg_interface_receive_batch(b, &now, out, peers, 2, 0, &why) == PYWG_INVALID_ARGUMENT, "too long");
    expect(strcmp(why.text, "packets[1].length is more than its capacity") == 0, why.text);
    out[1].capacity = ROOM;
    expect(pywg_interface_receive_batch(b, &now, out, peers, 2, 0, &why) == PYWG_INVALID_ARGUMENT, "from nowhere");
    expect(strcmp(why.text, "packets[1].endpoint.family is neither 4 nor 6") == 0, why.text);
    out[0].endpoint.family = out[1].endpoint.family = 4;
    expect(pywg_interface_receive_batch(b, &now, out, peers, 2, 0, &why) == PYWG_OK, "receive");
    expect(out[0].verdict == PYWG_VERDICT_DELIVER && peers[0] != 0 && peers[1] == 0, "from whom");
    expect(pywg_interface_set(a, &now, "replace_peers=true\n", 19, NULL) == PYWG_OK, "no more peers");
    expect(pywg_interface_peer_key(a, number, key) == PYWG_NOT_FOUND, "a peer that was removed");
    puts("batches");
}

static void keys(void) {
    uint8_t first[32] = { 0 }, second[32], public[32], again[32];
    expect(pywg_key_generate(first) == PYWG_OK && pywg_key_generate(second) == PYWG_OK, "generate");
    expect(memcmp(first, second, 32) != 0, "two are two");
    expect((first[0] & 7) == 0 && (first[31] & 0xc0) == 0x40, "clamped");
    expect(pywg_key_public(first, public) == PYWG_OK, "derive");
    memcpy(again, first, 32);
    expect(pywg_key_public(again, again) == PYWG_OK && memcmp(again, public, 32) == 0, "in place");
    expect(pywg_key_generate(NULL) == PYWG_INVALID_ARGUMENT, "NULL");
    expect(pywg_key_public(NULL, public) == PYWG_INVALID_ARGUMENT, "NULL");
    expect(pywg_key_public(first, NULL) == PYWG_INVALID_ARGUMENT, "NULL");
    puts("keys");
}

int main(void) {
    shake_hands(NULL, NULL);
    fork_refused();
    threads();
    buffers();
    lengths();
    batches();
    pywg_interface_close(a);
    pywg_interface_close(b);
    entropy();
    pywg_interface_close(a);
    pywg_interface_close(b);
    handles();
    closing();
    keys();
    return 0;
}
