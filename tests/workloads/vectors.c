/*
 * Threads that compute in general, SSE and AVX registers without a pause and check every step; others that sleep in
 * system calls which must not come back early.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#define N_COMPUTING 2

static atomic_bool ended;
static atomic_ulong rounds[N_COMPUTING];
static int quiet[2];

typedef uint64_t vector __attribute__((vector_size(32)));

/* Eight vectors are kept in registers over the loop; each lane is a counter of its own. */
#define LOOP(name, target_attribute)                                                                                   \
    target_attribute static bool name(uint64_t seed)                                                                   \
    {                                                                                                                  \
        vector a[8];                                                                                                   \
        uint64_t steps = 2000, expected = seed;                                                                        \
        for (int i = 0; i < 8; i++)                                                                                    \
            a[i] = (vector){seed + i, seed + i + 8, seed + i + 16, seed + i + 24};                                     \
        for (uint64_t step = 0; step < steps; step++) {                                                                \
            for (int i = 0; i < 8; i++) {                                                                              \
                a[i] += (vector){1, 1, 1, 1};                                                                          \
                __asm__ volatile("" : "+x"(a[i]));                                                                     \
            }                                                                                                          \
            expected++;                                                                                                \
        }                                                                                                              \
        for (int i = 0; i < 8; i++)                                                                                    \
            for (int lane = 0; lane < 4; lane++)                                                                       \
                if (a[i][lane] != expected + (uint64_t)i + 8u * (uint64_t)lane)                                        \
                    return false;                                                                                      \
        return true;                                                                                                   \
    }

LOOP(with_avx, __attribute__((target("avx2"))))

static bool with_general(uint64_t seed)
{
    uint64_t up = seed, down = ~seed;

    for (int i = 0; i < 5000; i++) {
        up++;
        down--;
        __asm__ volatile("" : "+r"(up), "+r"(down));
    }
    return up + down == UINT64_MAX && up == seed + 5000;
}

static void *compute(void *arg)
{
    unsigned long number = (unsigned long)arg;
    double sum = 0;
    uint64_t seed = number;

    for (uint64_t i = 1; !ended; i++) {
        if (__builtin_cpu_supports("avx2"))
            WL_CHECK(with_avx(seed), "vector registers changed under thread %lu", number);
        WL_CHECK(with_general(seed), "general registers changed under thread %lu", number);
        sum += 0.5;
        WL_CHECK(sum == 0.5 * (double)i, "thread %lu: the sum of %lu halves is %f", number, (unsigned long)i, sum);
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        atomic_fetch_add(&rounds[number], 1);
    }
    return NULL;
}

static void *wait_for_byte(void *arg)
{
    char byte;

    (void)arg;
    ssize_t n = read(quiet[0], &byte, 1);
    WL_CHECK(n == 1 && byte == 'e', "a read that nobody answered came back with %zd: %s", n, strerror(errno));
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t computing[N_COMPUTING], waiting;
    unsigned long before[N_COMPUTING];

    wl_init(argc, argv);
    WL_TRY(pipe(quiet));
    for (unsigned long i = 0; i < N_COMPUTING; i++)
        WL_TRY_PTHREAD(pthread_create(&computing[i], NULL, compute, (void *)i));
    WL_TRY_PTHREAD(pthread_create(&waiting, NULL, wait_for_byte, NULL));
    for (int i = 0; i < N_COMPUTING; i++)
        while (rounds[i] == 0)
            ;

    wl_ready();
    wl_wait();

    for (int i = 0; i < N_COMPUTING; i++)
        before[i] = rounds[i];
    for (int i = 0; i < N_COMPUTING; i++)
        while (rounds[i] == before[i])
            ;
    ended = true;
    for (int i = 0; i < N_COMPUTING; i++)
        WL_TRY_PTHREAD(pthread_join(computing[i], NULL));
    WL_TRY(write(quiet[1], "e", 1));
    WL_TRY_PTHREAD(pthread_join(waiting, NULL));
    wl_pass();
}
