/*
 * Timers of three kinds that are due in a while: what remains of each belongs to what the clock shows, within a second. Two
 * that expire each second: they have as often as seconds have gone by that clock.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define DUE_S 1000
#define SLACK_S 1.0

static volatile long n_signals;

static void on_timer(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    n_signals += 1 + info->si_overrun;
}

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

static void check_count(const char *name, double began, double count)
{
    double missing = now() - began - count;

    WL_CHECK(missing > -SLACK_S && missing < 1 + SLACK_S, "%s lacks %.3f expirations of %.0f", name, missing, count);
}

int main(int argc, char **argv)
{
    const struct itimerspec each_second = {{1, 0}, {1, 0}};
    struct sigevent signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
    uint64_t n_ticks;
    timer_t periodic;
    const struct itimerspec spec = {.it_value = {DUE_S, 0}};
    const struct itimerval value = {.it_value = {DUE_S, 0}};
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    struct itimerspec left;
    struct itimerval left_real;
    timer_t timer;

    wl_init(argc, argv);
    int fd = WL_TRY(timerfd_create(CLOCK_MONOTONIC, 0));
    WL_TRY(timer_create(CLOCK_MONOTONIC, &event, &timer));
    int periodic_fd = WL_TRY(timerfd_create(CLOCK_MONOTONIC, 0));
    WL_TRY(sigaction(SIGRTMIN, &action, NULL));
    WL_TRY(timer_create(CLOCK_MONOTONIC, &signal, &periodic));
    double began = now(), due = began + DUE_S;
    WL_TRY(timerfd_settime(periodic_fd, 0, &each_second, NULL));
    WL_TRY(timer_settime(periodic, 0, &each_second, NULL));
    WL_TRY(timerfd_settime(fd, 0, &spec, NULL));
    WL_TRY(timer_settime(timer, 0, &spec, NULL));
    WL_TRY(setitimer(ITIMER_REAL, &value, NULL));

    wl_ready();
    wl_wait();

    WL_CHECK(read(periodic_fd, &n_ticks, sizeof(n_ticks)) == sizeof(n_ticks), "read: %s", strerror(errno));
    check_count("the timerfd", began, n_ticks);
    check_count("the POSIX timer", began, n_signals);
    WL_TRY(timerfd_gettime(fd, &left));
    check("the timerfd", due, left.it_value.tv_sec + left.it_value.tv_nsec / 1e9);
    WL_TRY(timer_gettime(timer, &left));
    check("the POSIX timer", due, left.it_value.tv_sec + left.it_value.tv_nsec / 1e9);
    WL_TRY(getitimer(ITIMER_REAL, &left_real));
    check("the interval timer", due, left_real.it_value.tv_sec + left_real.it_value.tv_usec / 1e6);
    wl_pass();
}
