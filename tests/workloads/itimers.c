/* Interval timers: a real one that ticks on, one that has long to go, and one on the CPU time of the process. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

static atomic_int n_alarms;
static atomic_int n_profs;

static void on_alarm(int number)
{
    if (number == SIGALRM)
        atomic_fetch_add(&n_alarms, 1);
    else
        atomic_fetch_add(&n_profs, 1);
}

static void burn(void *arg)
{
    volatile unsigned long *spin = arg;

    for (int i = 0; i < 100000; i++)
        (*spin)++;
}

int main(int argc, char **argv)
{
    struct itimerval ticking = {.it_interval = {0, 10000}, .it_value = {0, 10000}};
    struct itimerval virtual = {.it_interval = {7, 8}, .it_value = {5000, 0}};
    struct itimerval prof = {.it_interval = {0, 20000}, .it_value = {0, 20000}};
    struct itimerval now;
    unsigned long spin = 0;

    wl_init(argc, argv);
    WL_TRY(sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm, .sa_flags = SA_RESTART}, NULL));
    WL_TRY(sigaction(SIGPROF, &(struct sigaction){.sa_handler = on_alarm, .sa_flags = SA_RESTART}, NULL));
    WL_TRY(setitimer(ITIMER_REAL, &ticking, NULL));
    WL_TRY(setitimer(ITIMER_VIRTUAL, &virtual, NULL));
    WL_TRY(setitimer(ITIMER_PROF, &prof, NULL));

    wl_ready();
    wl_wait_busy(burn, &spin);

    int alarms = n_alarms, profs = n_profs;
    while (n_alarms < alarms + 3 || n_profs < profs + 3)
        burn(&spin);
    WL_TRY(getitimer(ITIMER_REAL, &now));
    WL_CHECK(now.it_interval.tv_sec == 0 && now.it_interval.tv_usec == 10000, "the real timer's interval is another");
    WL_TRY(getitimer(ITIMER_VIRTUAL, &now));
    WL_CHECK(now.it_interval.tv_sec == 7 && now.it_interval.tv_usec == 8, "the virtual timer's interval is another");
    WL_CHECK(now.it_value.tv_sec > 4000 && now.it_value.tv_sec <= 5000, "the virtual timer has %ld s to go",
             (long)now.it_value.tv_sec);
    wl_pass();
}
