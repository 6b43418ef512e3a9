/* ARGS: N. N threads ask the vdso for the time, often and then not for a while; none may see it go back. */
#include "workload.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

static const long SECOND = 1000000000;
static const struct timespec PAUSE = {0, 10000000};

static void *ask(void *unused)
{
    struct timespec now, before;

    WL_TRY(clock_gettime(CLOCK_MONOTONIC, &before));
    for (;;) {
        for (int i = 0; i < 100; i++) {
            WL_TRY(clock_gettime(CLOCK_MONOTONIC, &now));
            long step = (now.tv_sec - before.tv_sec) * SECOND + now.tv_nsec - before.tv_nsec;
            WL_CHECK(step >= 0, "the clock went back by %ld ns", -step);
            before = now;
        }
        nanosleep(&PAUSE, NULL);
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    wl_init(argc, argv);
    for (int i = 0; i < atoi(wl_argv[0]); i++)
        WL_TRY_PTHREAD(pthread_create(&thread, NULL, ask, NULL));
    wl_ready();
    wl_wait();
    wl_pass();
}
