// cflags: -lm
/*
 * Threads that compute while they are dumped, each with state that only its registers hold: vector registers, rounding
 * mode, thread-local storage. The main thread computes as well.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#define N_THREADS 4
#define N_REGISTERS 16
#define N_WORDS (N_REGISTERS * 4) /* room for 16 ymm registers */

struct worker {
    pthread_t thread;
    int index;
    pid_t tid;
    _Atomic uint64_t n_rounds;
};

static const int rounding_modes[N_THREADS] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
static struct worker workers[N_THREADS];
static atomic_bool ending;
static pthread_barrier_t started;
static __thread uint64_t in_tls[8];

/*
 * Load the vector registers from `in`, stay in a loop that does not touch them, and store them to `out`: nearly all of
 * the thread's time passes while the pattern is nowhere but in its registers.
 */
#if defined(__x86_64__)
#define EACH_REGISTER(DO, width)                                                                                       \
    DO(0, width) DO(1, width) DO(2, width) DO(3, width) DO(4, width) DO(5, width) DO(6, width) DO(7, width)            \
    DO(8, width) DO(9, width) DO(10, width) DO(11, width) DO(12, width) DO(13, width) DO(14, width) DO(15, width)
#define LOAD_XMM(n, width) "movups " #n "*" #width "(%[in]), %%xmm" #n "\n\t"
#define STORE_XMM(n, width) "movups %%xmm" #n ", " #n "*" #width "(%[out])\n\t"
#define LOAD_YMM(n, width) "vmovups " #n "*" #width "(%[in]), %%ymm" #n "\n\t"
#define STORE_YMM(n, width) "vmovups %%ymm" #n ", " #n "*" #width "(%[out])\n\t"
#define CLOBBERS                                                                                                       \
    "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",  \
        "xmm12", "xmm13", "xmm14", "xmm15"
#define HOLD(load, store, width, end)                                                                                  \
    __asm__ volatile(EACH_REGISTER(load, width) "1: decq %[n]\n\t"                                                     \
                                                "jnz 1b\n\t" EACH_REGISTER(store, width) end                           \
                     : [n] "+r"(n)                                                                                     \
                     : [in] "r"(in), [out] "r"(out)                                                                    \
                     : CLOBBERS)

static size_t hold(const uint64_t *in, uint64_t *out, uint64_t n)
{
    if (__builtin_cpu_supports("avx")) {
        HOLD(LOAD_YMM, STORE_YMM, 32, "vzeroupper\n\t");
        return N_REGISTERS * 32;
    }
    HOLD(LOAD_XMM, STORE_XMM, 16, "");
    return N_REGISTERS * 16;
}
#elif defined(__aarch64__)
static size_t hold(const uint64_t *in, uint64_t *out, uint64_t n)
{
    __asm__ volatile("ldp q8, q9, [%[in]]\n\t"
                     "ldp q10, q11, [%[in], #32]\n\t"
                     "ldp q28, q29, [%[in], #64]\n\t"
                     "ldp q30, q31, [%[in], #96]\n\t"
                     "1: subs %[n], %[n], #1\n\t"
                     "b.ne 1b\n\t"
                     "stp q8, q9, [%[out]]\n\t"
                     "stp q10, q11, [%[out], #32]\n\t"
                     "stp q28, q29, [%[out], #64]\n\t"
                     "stp q30, q31, [%[out], #96]\n\t"
                     : [n] "+r"(n)
                     : [in] "r"(in), [out] "r"(out)
                     : "memory", "cc", "v8", "v9", "v10", "v11", "v28", "v29", "v30", "v31");
    return 128;
}
#else
#error "threads.c: say here how this architecture's vector registers are held"
#endif

/* 1/3 in each direction of rounding: differs in the last bit between modes. */
static double a_third(void)
{
    volatile double one = 1.0, three = 3.0;

    return one / three;
}

static void one_round(int index, uint64_t round)
{
    uint64_t in[N_WORDS], out[N_WORDS];
    uint64_t seed = (uint64_t)index << 32 | (round & 0xffffffff);

    wl_fill(in, sizeof(in), seed);
    memset(out, 0, sizeof(out));
    size_t n_bytes = hold(in, out, 100000);
    if (memcmp(in, out, n_bytes) != 0)
        wl_fail("thread %d: vector registers have changed in round %llu", index, (unsigned long long)round);
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    pthread_t self = pthread_self();

    worker->tid = gettid();
    wl_fill(in_tls, sizeof(in_tls), (uint64_t)worker->index);
    fesetround(rounding_modes[worker->index]);
    double third = a_third();
    pthread_barrier_wait(&started);

    while (!atomic_load(&ending)) {
        one_round(worker->index, worker->n_rounds);
        WL_CHECK(a_third() == third, "thread %d: divides differently", worker->index);
        atomic_fetch_add(&worker->n_rounds, 1);
    }

    WL_CHECK(pthread_equal(self, pthread_self()), "thread %d: pthread_self has changed", worker->index);
    WL_CHECK(gettid() == worker->tid, "thread %d: tid was %d and is %d", worker->index, worker->tid, gettid());
    WL_CHECK(fegetround() == rounding_modes[worker->index], "thread %d: rounding mode has changed", worker->index);
    wl_check_fill(in_tls, sizeof(in_tls), (uint64_t)worker->index, "thread-local storage");
    return worker;
}

static void compute(void *arg)
{
    uint64_t *round = arg;

    one_round(N_THREADS, (*round)++);
}

int main(int argc, char **argv)
{
    uint64_t round = 0;
    uint64_t n_before[N_THREADS];

    wl_init(argc, argv);
    WL_TRY_PTHREAD(pthread_barrier_init(&started, NULL, N_THREADS + 1));
    for (int i = 0; i < N_THREADS; i++) {
        workers[i].index = i;
        WL_TRY_PTHREAD(pthread_create(&workers[i].thread, NULL, work, &workers[i]));
    }
    pthread_barrier_wait(&started);

    wl_ready();
    wl_wait_busy(compute, &round);

    /* Every thread must still be alive: two more rounds each, the first of which may have begun earlier. */
    for (int i = 0; i < N_THREADS; i++)
        n_before[i] = workers[i].n_rounds;
    for (int i = 0; i < N_THREADS; i++)
        while (workers[i].n_rounds < n_before[i] + 2)
            sched_yield();
    atomic_store(&ending, true);
    for (int i = 0; i < N_THREADS; i++) {
        void *result;

        WL_TRY_PTHREAD(pthread_join(workers[i].thread, &result));
        WL_CHECK(result == &workers[i], "thread %d returned something else", i);
    }
    wl_pass();
}
