/* Timers that are due in a while, of three kinds: what remains of each belongs to what the clock shows, within a second. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

#define DUE_S 1000
#define SLACK_S 1.0

static double now(void)
{
    struct timespec at;

    WL_TRY(clock_gettime(CLOCK_MONOTONIC, &at));
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void check(const char *name, double due, double remaining)
{
    double late = now() + remaining - due;

    WL_CHECK(late > -SLACK_S && late < SLACK_S, "%s is due %.3f s too late", name, late);
}

int main(int argc, char **argv)
{
    const struct itimerspec spec = {.it_value = {DUE_S, 0}};
    const struct itimerval value = {.it_value = {DUE_S, 0}};
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    struct itimerspec left;
    struct itimerval left_real;
    timer_t timer;

    wl_init(argc, argv);
    int fd = WL_TRY(timerfd_create(CLOCK_MONOTONIC, 0));
    WL_TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    double due = now() + DUE_S;
    WL_TRY(timerfd_settime(fd, 0, &spec, NULL));
    WL_TRY(timer_settime(timer, 0, &spec, NULL));
    WL_TRY(setitimer(ITIMER_REAL, &value, NULL));

    wl_ready();
    wl_wait();

    WL_TRY(timerfd_gettime(fd, &left));
    check("the timerfd", due, left.it_value.tv_sec + left.it_value.tv_nsec / 1e9);
    WL_TRY(timer_gettime(timer, &left));
    check("the POSIX timer", due, left.it_value.tv_sec + left.it_value.tv_nsec / 1e9);
    WL_TRY(getitimer(ITIMER_REAL, &left_real));
    check("the interval timer", due, left_real.it_value.tv_sec + left_real.it_value.tv_usec / 1e6);
    wl_pass();
}
