/* How many cycles a second this core makes now: a chain of adds, each of which needs the one before, and which every
 * CPU makes in a cycle each. Prints the highest of a few measurements in Hz; what disturbs one makes it lower.
 *
 * The second term is in a register that the compiler knows nothing of: some CPUs add a constant at no cost. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { runs = 8, rounds = 1 << 19, adds = 16 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

#define ADD sum += term; __asm__ volatile("" : "+r"(sum), "+r"(term));
#define FOUR_ADDS ADD ADD ADD ADD

static double measure(void) {
    uint64_t sum = 0, term = 3;
    double begun = now();
    for (int round = 0; round < rounds; round++) { FOUR_ADDS FOUR_ADDS FOUR_ADDS FOUR_ADDS }
    return (double)rounds * adds / (now() - begun);
}

int main(void) {
    double best = 0;
    for (int run = 0; run < runs; run++) {
        double hertz = measure();
        if (hertz > best) best = hertz;
    }
    printf("%.0f\n", best);
    return 0;
}
