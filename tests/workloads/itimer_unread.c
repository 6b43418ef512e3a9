/* A periodic real timer that has expired while its signal is blocked: it starts again when the signal is taken. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <sys/time.h>

int main(int argc, char **argv)
{
    struct itimerval ticking = {.it_interval = {0, 5000}, .it_value = {0, 1000}};
    sigset_t alarm, pending;

    wl_init(argc, argv);
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    WL_TRY(sigprocmask(SIG_BLOCK, &alarm, NULL));
    WL_TRY(setitimer(ITIMER_REAL, &ticking, NULL));
    do
        WL_TRY(sigpending(&pending));
    while (!sigismember(&pending, SIGALRM));

    wl_ready();
    wl_wait();

    WL_TRY(sigpending(&pending));
    WL_CHECK(sigismember(&pending, SIGALRM), "the alarm is not pending any more");
    for (int i = 0; i < 4; i++) {
        int got = sigwaitinfo(&alarm, NULL);
        WL_CHECK(got == SIGALRM, "alarm %d did not come", i);
    }
    wl_pass();
}
