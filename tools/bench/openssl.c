/* What scripts/bench_crypto measures of OpenSSL, used as a VPN would use it: through libcrypto's EVP, key schedule
 * and context kept, per message a nonce, the payload, the end and the tag.
 *
 *   bench_openssl MILLISECONDS CASE [BYTES]
 *
 * The cases and the lines that come out are those of core/check/bench.zig; `checksum` is libc's memcpy, for reference.
 * libcrypto.so.3 is loaded at run time, so no headers are needed. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { batch = 44, header_length = 16, tag_length = 16, pool_length = 128 << 10, hash_length_max = 65536 };
enum { set_tag = 0x11, get_tag = 0x10 }; /* EVP_CTRL_AEAD_* */

#define FUNCTIONS(X) \
    X(void *, EVP_CIPHER_fetch, (void *, const char *, const char *)) \
    X(void *, EVP_CIPHER_CTX_new, (void)) \
    X(int, EVP_CIPHER_CTX_ctrl, (void *, int, int, void *)) \
    X(int, EVP_EncryptInit_ex, (void *, const void *, void *, const uint8_t *, const uint8_t *)) \
    X(int, EVP_EncryptUpdate, (void *, uint8_t *, int *, const uint8_t *, int)) \
    X(int, EVP_EncryptFinal_ex, (void *, uint8_t *, int *)) \
    X(int, EVP_DecryptInit_ex, (void *, const void *, void *, const uint8_t *, const uint8_t *)) \
    X(int, EVP_DecryptUpdate, (void *, uint8_t *, int *, const uint8_t *, int)) \
    X(int, EVP_DecryptFinal_ex, (void *, uint8_t *, int *)) \
    X(void *, EVP_MD_fetch, (void *, const char *, const char *)) \
    X(void *, EVP_MD_CTX_new, (void)) \
    X(int, EVP_DigestInit_ex, (void *, const void *, void *)) \
    X(int, EVP_DigestUpdate, (void *, const void *, size_t)) \
    X(int, EVP_DigestFinal_ex, (void *, uint8_t *, unsigned *)) \
    X(void *, EVP_PKEY_new_raw_private_key_ex, (void *, const char *, const char *, const uint8_t *, size_t)) \
    X(void *, EVP_PKEY_CTX_new, (void *, void *)) \
    X(int, EVP_PKEY_derive_init, (void *)) \
    X(int, EVP_PKEY_derive_set_peer, (void *, void *)) \
    X(int, EVP_PKEY_derive, (void *, uint8_t *, size_t *))

#define DECLARE(result, name, arguments) static result (*name) arguments;
FUNCTIONS(DECLARE)

static uint64_t budget_ns;

static void fail(const char *reason) {
    fprintf(stderr, "%s\n", reason);
    exit(2);
}

static void expect(int is_right, const char *reason) {
    if (!is_right) fail(reason);
}

static void load(void) {
    void *library = dlopen("libcrypto.so.3", RTLD_NOW);
    if (library == NULL) fail(dlerror());
#define RESOLVE(result, name, arguments) \
    *(void **)&name = dlsym(library, #name); \
    expect(name != NULL, "libcrypto.so.3 lacks " #name);
    FUNCTIONS(RESOLVE)
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void report(const char *name, const char *operation, int bytes, double value) {
    printf("%s\t%s\t%d\t1\t%.6f\n", name, operation, bytes, value);
}

/* Calls per second. */
static double rate(int calls, void (*work)(void *), void *context) {
    for (uint64_t warm = now() + budget_ns / 8; now() < warm;) work(context);
    uint64_t start = now(), spent = 0, done = 0;
    while (spent < budget_ns) {
        for (int i = 0; i < calls; i++) work(context);
        done += (uint64_t)calls;
        spent = now() - start;
    }
    return (double)done * 1e9 / (double)spent;
}

/* ---- the AEAD: in place, messages one behind the other as in a train -------------------------------------------- */

static uint8_t pool[pool_length];

static void nonce_of(uint8_t nonce[12], uint64_t counter) {
    memset(nonce, 0, 4);
    for (int i = 0; i < 8; i++) nonce[4 + i] = (uint8_t)(counter >> (8 * i));
}

static void seal(void *context, uint8_t *body, int length, uint64_t counter) {
    uint8_t nonce[12];
    int written = 0, rest = 0;
    nonce_of(nonce, counter);
    expect(EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce) == 1 &&
               EVP_EncryptUpdate(context, body, &written, body, length) == 1 &&
               EVP_EncryptFinal_ex(context, body + written, &rest) == 1 &&
               EVP_CIPHER_CTX_ctrl(context, get_tag, tag_length, body + length) == 1,
           "a message was not sealed");
}

static void unseal(void *context, uint8_t *body, int length, uint64_t counter) {
    uint8_t nonce[12];
    int written = 0, rest = 0;
    nonce_of(nonce, counter);
    expect(EVP_DecryptInit_ex(context, NULL, NULL, NULL, nonce) == 1 &&
               EVP_CIPHER_CTX_ctrl(context, set_tag, tag_length, body + length) == 1 &&
               EVP_DecryptUpdate(context, body, &written, body, length) == 1 &&
               EVP_DecryptFinal_ex(context, body + written, &rest) == 1,
           "a message did not open");
}

static void aead(int length) {
    const uint8_t key[32] = {7};
    const int stride = header_length + length + tag_length, count = pool_length / (batch * stride) * batch;
    uint8_t *bodies = pool + header_length;
    expect(length > 0 && count > 0, "no such length");
    void *cipher = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
    void *sealer = EVP_CIPHER_CTX_new(), *opener = EVP_CIPHER_CTX_new();
    expect(cipher && EVP_EncryptInit_ex(sealer, cipher, NULL, key, NULL) == 1 &&
               EVP_DecryptInit_ex(opener, cipher, NULL, key, NULL) == 1,
           "no ChaCha20-Poly1305");
    uint64_t sealing = 0, opening = 0, passes = 0, counter = 0;
    for (int is_warm = 0; sealing + opening < 2 * budget_ns;) {
        uint64_t start = now();
        for (int i = 0; i < count; i++) seal(sealer, bodies + i * stride, length, counter + (uint64_t)i);
        uint64_t middle = now();
        for (int i = 0; i < count; i++) unseal(opener, bodies + i * stride, length, counter + (uint64_t)i);
        opening += now() - middle;
        sealing += middle - start;
        counter += (uint64_t)count;
        passes++;
        if (is_warm || sealing + opening < budget_ns / 4) continue;
        is_warm = 1;
        sealing = opening = passes = 0;
    }
    double bytes = (double)passes * count * length;
    report("OpenSSL EVP", "seal", length, bytes / (double)sealing);
    report("OpenSSL EVP", "open", length, bytes / (double)opening);
}

/* ---- the rest --------------------------------------------------------------------------------------------------- */

static uint8_t from[hash_length_max], to[hash_length_max];
static int from_length;

static void copy(void *context) {
    (void)context;
    memcpy(to, from, (size_t)from_length);
    __asm__ volatile("" ::"r"(to) : "memory");
}

static void *md;

static void hash(void *context) {
    uint8_t digest[32];
    unsigned written;
    expect(EVP_DigestInit_ex(context, md, NULL) == 1 && EVP_DigestUpdate(context, from, (size_t)from_length) == 1 &&
               EVP_DigestFinal_ex(context, digest, &written) == 1,
           "BLAKE2s failed");
}

static void agree(void *context) {
    uint8_t shared[32];
    size_t length = sizeof shared;
    expect(EVP_PKEY_derive(context, shared, &length) == 1, "X25519 failed");
}

/* As `openssl speed ecdhx25519` does: the context is made once. */
static void x25519(void) {
    uint8_t bytes[32];
    memset(bytes, 0x39, sizeof bytes);
    void *own = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, bytes, sizeof bytes);
    memset(bytes, 0x55, sizeof bytes);
    void *peer = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, bytes, sizeof bytes);
    expect(own && peer, "no X25519");
    void *context = EVP_PKEY_CTX_new(own, NULL);
    expect(EVP_PKEY_derive_init(context) == 1 && EVP_PKEY_derive_set_peer(context, peer) == 1, "no X25519");
    report("OpenSSL EVP", "x25519", 0, rate(16, agree, context));
}

static void blake2s(void) {
    md = EVP_MD_fetch(NULL, "BLAKE2S-256", NULL);
    expect(md != NULL, "no BLAKE2s");
    report("OpenSSL EVP", "blake2s", from_length, from_length * rate(256, hash, EVP_MD_CTX_new()) / 1e6);
}

int main(int argc, char **argv) {
    if (argc < 3) fail("bench_openssl MILLISECONDS CASE [BYTES]");
    budget_ns = strtoull(argv[1], NULL, 10) * 1000000;
    from_length = argc > 3 ? atoi(argv[3]) : 0;
    if (from_length < 0 || from_length > hash_length_max) fail("no such length");
    const char *kind = argv[2];
    if (strcmp(kind, "checksum") == 0) {
        report("libc memcpy", "checksum", from_length, from_length * rate(64, copy, NULL) / 1e9);
        return 0;
    }
    load();
    if (strcmp(kind, "aead") == 0) aead(from_length);
    else if (strcmp(kind, "x25519") == 0) x25519();
    else if (strcmp(kind, "blake2s") == 0) blake2s();
    else fail("no such case");
    return 0;
}
