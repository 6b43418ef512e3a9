/* A timer after many others that are gone: its id is N, or more. Each that a process makes has a higher one. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    struct itimerspec set = {.it_value.tv_sec = 1000000}, found;
    int id = -1;

    wl_init(argc, argv);
    while (id < atoi(wl_argv[0])) {
        if (id >= 0)
            WL_TRY(syscall(SYS_timer_delete, id));
        WL_TRY(syscall(SYS_timer_create, CLOCK_MONOTONIC, &none, &id));
    }
    WL_TRY(syscall(SYS_timer_settime, id, 0, &set, NULL));
    wl_ready();
    wl_wait();

    WL_TRY(syscall(SYS_timer_gettime, id, &found));
    WL_CHECK(found.it_value.tv_sec > 900000, "%ld s are left", (long)found.it_value.tv_sec);
    wl_pass();
}
