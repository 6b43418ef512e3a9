/* The areas of restartable sequences that the C library has registered for its threads are registered again. */
#define _GNU_SOURCE
#include "workload.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIGNATURE 0x53053053

static pthread_barrier_t barrier;
static _Alignas(32) char elsewhere[32];

static char *area(void)
{
    const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");

    return offset ? (char *)__builtin_thread_pointer() + *offset : NULL;
}

/* Where there is one of this address, it cannot be taken back with another signature. */
static bool is_registered(void)
{
    return area() && syscall(SYS_rseq, area(), 32, 1, SIGNATURE ^ 1) == -1 && errno == EPERM;
}

static void check(bool before)
{
    WL_CHECK(is_registered() == before, "registered: %d, was %d", is_registered(), before);
    /* By the area, where there is one. */
    WL_CHECK(sched_getcpu() >= 0, "on processor %d", sched_getcpu());
}

static void *run(void *arg)
{
    bool before = is_registered();

    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    check(before);
    return arg;
}

int main(int argc, char **argv)
{
    pthread_t threads[3];

    wl_init(argc, argv);
    if (argc > 1 && strcmp(argv[argc - 1], "elsewhere") == 0)
        WL_TRY(syscall(SYS_rseq, elsewhere, sizeof(elsewhere), 0, SIGNATURE));
    bool before = is_registered();
    WL_TRY_PTHREAD(pthread_barrier_init(&barrier, NULL, 4));
    for (int i = 0; i < 3; i++)
        WL_TRY_PTHREAD(pthread_create(&threads[i], NULL, run, NULL));
    pthread_barrier_wait(&barrier);
    wl_ready();
    wl_wait();

    pthread_barrier_wait(&barrier);
    check(before);
    for (int i = 0; i < 3; i++)
        WL_TRY_PTHREAD(pthread_join(threads[i], NULL));
    wl_pass();
}
