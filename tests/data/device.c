/* What a program in C does with a device besides running it, rightly and wrongly: options that are not, events,
 * counters, a handshake, a fork, several threads. Each is answered with a status, or done right; prints one word for
 * each. Needs the right to make interfaces. The first argument is a name for one. */
#include "pywg.h"
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PRIVATE "1011111111111111111111111111111111111111111111111111111111111151"
#define PEER "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20"
static const uint8_t peer[32] = { 0x0f, 0xaa, 0x68, 0x4e, 0xd2, 0x88, 0x67, 0xb9, 0x7f, 0x4a, 0x6a,
                                  0x2d, 0xee, 0x5d, 0xf8, 0xce, 0x97, 0x4e, 0x76, 0xb7, 0x01, 0x8e,
                                  0x3f, 0x22, 0xa1, 0xc4, 0xcf, 0x26, 0x78, 0x57, 0x0f, 0x20 };

static const char *name;
static pywg_device *device;

static void expect(int condition, const char *what) {
    if (condition) return;
    printf("not so: %s\n", what);
    exit(1);
}

static pywg_device_options usual(void) {
    pywg_device_options options = { .size = sizeof options, .name = name, .tun_fd = -1, .uapi_fd = -1,
                                    .log_fd = -1, .no_uapi = 1 };
    return options;
}

static pywg_status attempt(pywg_device_options options) {
    pywg_device *opened = (pywg_device *)&name;
    pywg_status status = pywg_device_open(&options, &opened, NULL);
    expect((status == PYWG_OK) == (opened != NULL), "a device, or none");
    pywg_device_close(opened);
    return status;
}

static void set(const char *text) { expect(pywg_device_set(device, text, strlen(text), NULL) == PYWG_OK, "set"); }

static void wrong_options(void) {
    pywg_device_options options = usual();
    options.size = offsetof(pywg_device_options, memory_limit);
    expect(attempt(options) == PYWG_INVALID_ARGUMENT, "too short a size");
    options = usual(), options.offload_disable = 1u << 20;
    expect(attempt(options) == PYWG_INVALID_ARGUMENT, "an unknown offload");
    options = usual(), options.no_uapi = 2;
    expect(attempt(options) == PYWG_INVALID_ARGUMENT, "a flag that is neither");
    options = usual(), options.threads = UINT32_MAX;
    expect(attempt(options) == PYWG_INVALID_ARGUMENT, "too many threads");
    options = usual(), options.mtu = UINT32_MAX;
    expect(attempt(options) == PYWG_INVALID_ARGUMENT, "too large an mtu");
    options = usual(), options.udp4_fd = 1;
    expect(attempt(options) == PYWG_INVALID_ARGUMENT, "a socket that is none");
    options = usual(), options.log_level = 3;
    expect(attempt(options) == PYWG_INVALID_ARGUMENT, "an unknown level");
    options = usual(), options.size = offsetof(pywg_device_options, udp4_fd), options.udp4_fd = 1;
    expect(attempt(options) == PYWG_OK, "an older header");
    struct { pywg_device_options known; char more[64]; } newer;
    memset(&newer, 0x55, sizeof newer);
    newer.known = usual(), newer.known.size = sizeof newer;
    expect(pywg_device_open(&newer.known, &device, NULL) == PYWG_OK, "what a newer header has is not looked at");
    pywg_device_close(device);
    puts("options");
}

/* Waits for the descriptor, then takes one. */
static pywg_event awaited(int fd, uint32_t kind) {
    pywg_event event;
    size_t count;
    struct pollfd readable = { .fd = fd, .events = POLLIN };
    expect(poll(&readable, 1, 60000) == 1, "the descriptor is readable");
    expect(pywg_device_events(device, &event, sizeof event, 1, &count) == PYWG_OK && count == 1, "an event");
    expect(event.kind == kind, "of this kind");
    return event;
}

static void events(void) {
    struct { pywg_event event; uint64_t more; } wide[3];
    pywg_event event;
    int32_t fd = -1, again = -1;
    size_t count = 9;
    pywg_diagnostic why = { .size = sizeof why };
    expect(pywg_device_events(device, &event, sizeof event, 1, &count) == PYWG_OK && count == 0, "none before");
    expect(pywg_device_events_open(NULL, 0, &fd, NULL) == PYWG_INVALID_ARGUMENT, "no handle");
    expect(pywg_device_events_open(device, 0, NULL, &why) == PYWG_INVALID_ARGUMENT && strstr(why.text, "fd"), "no fd");
    expect(pywg_device_events_open(device, 65537, &fd, NULL) == PYWG_INVALID_ARGUMENT, "too large a queue");
    expect(pywg_device_events_open(device, 4, &fd, NULL) == PYWG_OK && fd >= 0, "open");
    expect(pywg_device_events_open(device, 0, &again, NULL) == PYWG_OK && again == fd, "the same again");
    struct pollfd readable = { .fd = fd, .events = POLLIN };
    expect(poll(&readable, 1, 0) == 0, "nothing is there");
    expect(pywg_device_events(device, &event, sizeof event - 1, 1, &count) == PYWG_INVALID_ARGUMENT, "too short");
    expect(pywg_device_events(device, &event, sizeof event + 4, 1, &count) == PYWG_INVALID_ARGUMENT, "an odd size");
    expect(pywg_device_events(device, NULL, sizeof event, 1, &count) == PYWG_INVALID_ARGUMENT, "no room");
    expect(pywg_device_events(device, &event, sizeof event, SIZE_MAX, &count) == PYWG_INVALID_ARGUMENT, "no such room");
    expect(pywg_device_events(device, &event, sizeof event, 1, NULL) == PYWG_INVALID_ARGUMENT, "no count");
    expect(pywg_device_events(device, NULL, sizeof event, 0, &count) == PYWG_OK && count == 0, "none wanted");
    for (int i = 0; i < 6; i++) set("public_key=" PEER "\npublic_key=" PEER "\nremove=true\n");
    event = awaited(fd, PYWG_EVENT_GONE);
    expect(memcmp(event.public_key, peer, 32) == 0 && event.endpoint.family == 0, "whose");
    memset(wide, 0x55, sizeof wide);
    expect(pywg_device_events(device, &wide[0].event, sizeof wide[0], 3, &count) == PYWG_OK && count == 3, "three");
    for (int i = 0; i < 3; i++) expect(wide[i].event.kind == PYWG_EVENT_GONE && wide[i].more == 0, "each in its place");
    expect(awaited(fd, PYWG_EVENT_LOST).lost == 2, "what found no room");
    expect(poll(&readable, 1, 0) == 0, "nothing is left");
    puts("events");
}

static void counters(void) {
    pywg_peer_counters one = { .tx_bytes = 9 };
    size_t count = 9;
    expect(pywg_device_counters(device, NULL, sizeof one, 0, &count) == PYWG_OK && count == 0, "no peer");
    set("private_key=" PRIVATE "\npublic_key=" PEER "\nendpoint=[2001:db8::1%7]:9\n");
    expect(pywg_device_counters(device, NULL, sizeof one, 0, &count) == PYWG_BUFFER_TOO_SMALL && count == 1, "how many");
    expect(pywg_device_counters(device, &one, sizeof one - 1, 1, &count) == PYWG_INVALID_ARGUMENT, "too short");
    expect(pywg_device_counters(device, &one, sizeof one, 1, NULL) == PYWG_INVALID_ARGUMENT, "no count");
    expect(pywg_device_counters(NULL, &one, sizeof one, 1, &count) == PYWG_INVALID_ARGUMENT, "no handle");
    expect(pywg_device_counters(device, &one, sizeof one, 1, &count) == PYWG_OK && count == 1, "one");
    expect(memcmp(one.public_key, peer, 32) == 0 && one.tx_bytes == 0 && one.last_handshake_unix_ns == 0, "the peer");
    expect(one.endpoint.family == 6 && one.endpoint.port == 9 && one.endpoint.scope_id == 7, "where it is");
    puts("counters");
}

static void handshake(void) {
    static const uint8_t unknown[32] = { 1 };
    pywg_diagnostic why = { .size = sizeof why };
    expect(pywg_device_handshake(NULL, peer, NULL) == PYWG_INVALID_ARGUMENT, "no handle");
    expect(pywg_device_handshake(device, NULL, &why) == PYWG_INVALID_ARGUMENT, "no key");
    expect(pywg_device_handshake(device, unknown, &why) == PYWG_NOT_FOUND && strstr(why.text, "no peer"), "no peer");
    expect(pywg_device_handshake(device, peer, &why) == PYWG_CONFIGURATION && strstr(why.text, "link"), "no link");
    puts("handshake");
}

static void in_a_child(void) {
    pywg_event event;
    pywg_peer_counters one;
    int32_t fd;
    size_t count;
    pywg_diagnostic why = { .size = sizeof why };
    expect(pywg_device_events_open(device, 0, &fd, &why) == PYWG_FORKED && strstr(why.text, "fork"), "open in a child");
    expect(pywg_device_events(device, &event, sizeof event, 1, &count) == PYWG_FORKED, "events in a child");
    expect(pywg_device_counters(device, &one, sizeof one, 1, &count) == PYWG_FORKED, "counters in a child");
    expect(pywg_device_handshake(device, peer, NULL) == PYWG_FORKED, "handshake in a child");
    expect(pywg_device_stop(device) == PYWG_FORKED, "stop in a child");
    pywg_device_close(device);
    int mine = dup(1); /* a number that was one of the parent's */
    pywg_device_close(device);
    expect(dup2(mine, mine) == mine, "a second time closes nothing");
    expect(pywg_device_stop(device) == PYWG_FORKED, "and the handle stays one that is not the child's");
}

static int is_there(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/conf/%s", name); /* of this thread's namespace */
    return access(path, F_OK) == 0;
}

static void forked(void) {
    int to_child[2], from_child[2], status;
    char byte = 0;
    expect(pipe(to_child) == 0 && pipe(from_child) == 0, "pipes");
    expect(is_there(), "the interface");
    pid_t child = fork();
    if (child == 0) {
        in_a_child();
        fflush(stdout);
        expect(write(from_child[1], "x", 1) == 1 && read(to_child[0], &byte, 1) == 1, "the parent");
        _exit(0);
    }
    close(from_child[1]);
    expect(read(from_child[0], &byte, 1) == 1, "the child");
    expect(is_there(), "it is the parent's");
    set("listen_port=0\n");
    pywg_device_close(device); /* the child lives */
    expect(!is_there(), "it is gone");
    expect(write(to_child[1], "x", 1) == 1 && waitpid(child, &status, 0) == child && status == 0, "the end of the child");
    puts("fork");
}

static void *take(void *total) {
    for (int i = 0; i < 200; i++) {
        pywg_event some[3];
        pywg_peer_counters one;
        size_t count;
        expect(pywg_device_events(device, some, sizeof some[0], 3, &count) == PYWG_OK, "take");
        for (size_t k = 0; k < count; k++) {
            uint64_t told = some[k].kind == PYWG_EVENT_LOST ? some[k].lost : 1;
            __atomic_fetch_add((uint64_t *)total, told, __ATOMIC_RELAXED);
        }
        pywg_status status = pywg_device_counters(device, &one, sizeof one, 1, &count);
        expect(status == PYWG_OK && count <= 1, "count");
    }
    return total;
}

static void *change(void *nothing) {
    for (int i = 0; i < 100; i++) set("public_key=" PEER "\npublic_key=" PEER "\nremove=true\n");
    return nothing;
}

static void threads(void) {
    pywg_device_options options = usual();
    pthread_t taking[2], changing[2];
    uint64_t total = 0;
    int32_t fd;
    expect(pywg_device_open(&options, &device, NULL) == PYWG_OK, "open again");
    expect(pywg_device_events_open(device, 2, &fd, NULL) == PYWG_OK, "the smallest queue");
    for (int i = 0; i < 2; i++) pthread_create(&taking[i], NULL, take, &total);
    for (int i = 0; i < 2; i++) pthread_create(&changing[i], NULL, change, NULL);
    for (int i = 0; i < 2; i++) pthread_join(taking[i], NULL);
    for (int i = 0; i < 2; i++) pthread_join(changing[i], NULL);
    take(&total);
    expect(total == 200, "each event is given once, or counted as lost");
    pywg_device_close(device);
    pywg_device_close(NULL);
    pywg_device_close(device); /* it was closed */
    size_t length;
    expect(pywg_device_get(device, NULL, 0, &length) == PYWG_CLOSED, "get of a closed one");
    expect(pywg_device_set(device, "", 0, NULL) == PYWG_CLOSED, "set of a closed one");
    expect(pywg_device_run(device, NULL) == PYWG_CLOSED, "run of a closed one");
    expect(pywg_device_stop(device) == PYWG_CLOSED, "stop of a closed one");
    puts("threads");
}

int main(int count, char **arguments) {
    expect(count == 2, "one argument");
    name = arguments[1];
    pywg_cipher_select("baseline"); /* valgrind knows no AVX-512 */
    setvbuf(stdout, NULL, _IOLBF, 0);
    wrong_options();
    pywg_device_options options = usual();
    expect(pywg_device_open(&options, &device, NULL) == PYWG_OK, "open");
    events();
    counters();
    handshake();
    forked();
    threads();
    return 0;
}
