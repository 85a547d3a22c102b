/* What tools/bench/interface.py compares with: pywg_interface_seal_batch and receive_batch in batches of COUNT packets of
 * LENGTH bytes (0: of all lengths in `mixed`), in the place they lie in. Prints microseconds for each packet, to seal and to receive; the least of
 * all rounds. As in Python the clocks are read for each batch, and what fills the slots is not counted. */
#include "pywg.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLOT = 2048, HEADROOM = 16, PACKETS = 256 };

static void must(int condition) {
    if (condition) return;
    fprintf(stderr, "the two interfaces do not talk\n");
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

static pywg_interface *open_interface(const char *text) {
    pywg_interface_options options = { .size = sizeof options };
    pywg_now now = present();
    pywg_interface *interface;
    must(pywg_interface_open(&options, &interface, NULL) == PYWG_OK);
    must(pywg_interface_set(interface, &now, text, strlen(text), NULL) == PYWG_OK);
    return interface;
}

static const pywg_endpoint there = { .family = 4, .port = 1, .address = { 192, 0, 2, 1 } };
static uint8_t inner[1420] = { 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2 };
static uint8_t slots[PACKETS][SLOT];
static pywg_packet plain[PACKETS], sealed[PACKETS];
static uint64_t peers[PACKETS];

static const size_t mixed[8] = { 64, 1420, 576, 1200, 96, 1420, 300, 1000 };

static void pump(pywg_interface *from, pywg_interface *to) {
    pywg_packet datagram = { .data = slots[0], .capacity = SLOT };
    size_t written;
    pywg_now now = present();
    must(pywg_interface_poll(from, &now, &datagram, 1, &written) == PYWG_OK && written == 1);
    datagram.endpoint = there;
    must(pywg_interface_receive(to, &now, &datagram, 1, 0) == PYWG_OK);
}

static void text(char *out, const char *private_key, const char *public_key, const char *inside) {
    sprintf(out, "private_key=%s\npublic_key=%s\nendpoint=192.0.2.1:1\nallowed_ip=%s/32\n", private_key, public_key, inside);
}

static void hex(char *out, const uint8_t *key) {
    for (int i = 0; i < 32; i++) sprintf(out + 2 * i, "%02x", key[i]);
}

int main(int argc, char **argv) {
    must(argc == 4);
    size_t count = (size_t)atoi(argv[1]), length = (size_t)atoi(argv[2]);
    int rounds = atoi(argv[3]);
    must(count > 0 && count <= PACKETS && (length == 0 || length >= 28) && length <= sizeof inner);
    uint8_t keys[2][32], public_keys[2][32];
    char words[2][65], public_words[2][65], lines[512];
    for (int i = 0; i < 2; i++) {
        must(pywg_key_generate(keys[i]) == PYWG_OK && pywg_key_public(keys[i], public_keys[i]) == PYWG_OK);
        hex(words[i], keys[i]);
        hex(public_words[i], public_keys[i]);
    }
    text(lines, words[0], public_words[1], "10.0.0.2");
    pywg_interface *a = open_interface(lines);
    text(lines, words[1], public_words[0], "10.0.0.1");
    pywg_interface *b = open_interface(lines);
    pywg_now now = present();
    size_t lengths[PACKETS];
    for (size_t i = 0; i < PACKETS; i++) lengths[i] = length ? length : mixed[i % 8];
    plain[0] = (pywg_packet){ .data = inner, .length = 64 };
    sealed[0] = (pywg_packet){ .data = slots[0], .capacity = SLOT };
    must(pywg_interface_seal(a, &now, plain, sealed, 1) == PYWG_OK);
    pump(a, b);
    pump(b, a);
    pump(a, b);
    double best_seal = 1e9, best_receive = 1e9;
    for (int round = 0; round < rounds; round++) {
        for (size_t i = 0; i < PACKETS; i++) {
            memcpy(slots[i] + HEADROOM, inner, lengths[i]);
            slots[i][HEADROOM + 2] = (uint8_t)(lengths[i] >> 8);
            slots[i][HEADROOM + 3] = (uint8_t)lengths[i];
        }
        uint64_t begin = read_clock(CLOCK_MONOTONIC);
        for (size_t at = 0; at + count <= PACKETS; at += count) {
            now = present();
            for (size_t i = at; i < at + count; i++) {
                plain[i] = (pywg_packet){ .data = slots[i] + HEADROOM, .length = lengths[i] };
                sealed[i] = (pywg_packet){ .data = slots[i], .capacity = SLOT };
            }
            must(pywg_interface_seal_batch(a, &now, plain + at, sealed + at, peers, count, NULL) == PYWG_OK);
            for (size_t i = at; i < at + count; i++) must(sealed[i].verdict == PYWG_VERDICT_SEALED);
        }
        uint64_t middle = read_clock(CLOCK_MONOTONIC);
        for (size_t at = 0; at + count <= PACKETS; at += count) {
            now = present();
            for (size_t i = at; i < at + count; i++) sealed[i].endpoint = there;
            must(pywg_interface_receive_batch(b, &now, sealed + at, peers, count, 0, NULL) == PYWG_OK);
            for (size_t i = at; i < at + count; i++) must(sealed[i].verdict == PYWG_VERDICT_DELIVER);
        }
        uint64_t end = read_clock(CLOCK_MONOTONIC);
        double packets = (double)(PACKETS / count * count);
        if ((double)(middle - begin) / packets < best_seal) best_seal = (double)(middle - begin) / packets;
        if ((double)(end - middle) / packets < best_receive) best_receive = (double)(end - middle) / packets;
    }
    printf("%.4f %.4f\n", best_seal / 1000, best_receive / 1000);
    pywg_interface_close(a);
    pywg_interface_close(b);
    return 0;
}
