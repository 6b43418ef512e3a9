/* Resource limits, soft and hard, of all kinds; a limit on queued signals that is used up. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#define N_QUEUED 40

int main(int argc, char **argv)
{
    struct rlimit wanted[RLIM_NLIMITS], now;
    sigset_t queue;

    wl_init(argc, argv);
    sigemptyset(&queue);
    sigaddset(&queue, SIGRTMIN + 1);
    WL_TRY(sigprocmask(SIG_BLOCK, &queue, NULL));
    for (int i = 0; i < N_QUEUED; i++)
        WL_TRY(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}));
    for (int which = 0; which < (int)RLIM_NLIMITS; which++) {
        WL_TRY(getrlimit(which, &wanted[which]));
        if (which == RLIMIT_AS || which == RLIMIT_DATA)
            wanted[which].rlim_cur = 1UL << 40;
        else if (which == RLIMIT_SIGPENDING)
            wanted[which].rlim_cur = 3;
        else if (which == RLIMIT_NOFILE)
            wanted[which].rlim_cur = 77;
        else if (wanted[which].rlim_max == RLIM_INFINITY)
            wanted[which] = (struct rlimit){100000 + (rlim_t)which, 200000 + (rlim_t)which};
        else if (wanted[which].rlim_max > 10)
            wanted[which] = (struct rlimit){wanted[which].rlim_max - 7, wanted[which].rlim_max - 5};
        WL_TRY(setrlimit(which, &wanted[which]));
    }

    wl_ready();
    wl_wait();

    for (int which = 0; which < (int)RLIM_NLIMITS; which++) {
        WL_TRY(getrlimit(which, &now));
        WL_CHECK(now.rlim_cur == wanted[which].rlim_cur && now.rlim_max == wanted[which].rlim_max,
                 "limit %d is %lu/%lu, not %lu/%lu", which, (unsigned long)now.rlim_cur, (unsigned long)now.rlim_max,
                 (unsigned long)wanted[which].rlim_cur, (unsigned long)wanted[which].rlim_max);
    }
    for (int i = 0; i < N_QUEUED; i++) {
        siginfo_t info;

        WL_CHECK(sigtimedwait(&queue, &info, &(struct timespec){0}) == SIGRTMIN + 1, "signal %d is not queued", i);
        WL_CHECK(info.si_value.sival_int == i, "signal %d is number %d", i, info.si_value.sival_int);
    }
    wl_pass();
}
