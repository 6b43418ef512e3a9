/* POSIX timers: ids with gaps, several clocks, every way of notifying, one thread as target, armed and not. */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define N_TIMERS 7

struct plan {
    clockid_t clock;
    int notify;
    int signal;
    struct itimerspec value;
};

static const struct plan plans[N_TIMERS] = {
    {CLOCK_MONOTONIC, SIGEV_SIGNAL, 0, {{0, 10000000}, {0, 10000000}}}, /* set below: SIGRTMIN is no constant */
    {CLOCK_REALTIME, SIGEV_SIGNAL, SIGUSR1, {{3, 4}, {50000, 0}}},
    {CLOCK_BOOTTIME, SIGEV_NONE, 0, {{0, 0}, {40000, 0}}},
    {CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGUSR2, {{0, 0}, {30000, 0}}},
    {CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, SIGUSR2, {{0, 5}, {20000, 0}}},
    {CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR2, {{0, 0}, {0, 0}}},
    {CLOCK_MONOTONIC, SIGEV_THREAD_ID, 0, {{0, 10000000}, {0, 10000000}}},
};

static int ids[N_TIMERS];
static atomic_int n_ticks, n_thread_ticks, n_wrong;
static atomic_int target;
static atomic_bool ending;

static void on_tick(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_value.sival_ptr == (void *)0x1234567800000000)
        atomic_fetch_add(&n_ticks, 1);
    else if (info->si_value.sival_int == 6 && gettid() == target)
        atomic_fetch_add(&n_thread_ticks, 1);
    else
        atomic_fetch_add(&n_wrong, 1);
}

static void *wait_here(void *arg)
{
    atomic_store(&target, gettid());
    while (!atomic_load(&ending))
        usleep(1000);
    return arg;
}

static void make(int i)
{
    struct sigevent event = {.sigev_notify = plans[i].notify, .sigev_signo = plans[i].signal};
    int unwanted;

    event.sigev_value.sival_ptr = i == 0 ? (void *)0x1234567800000000 : (void *)(intptr_t)i;
    if (i == 0 || i == 6)
        event.sigev_signo = SIGRTMIN + 3;
    if (plans[i].notify == SIGEV_THREAD_ID)
        event.sigev_notify_thread_id = target;
    /* A gap in the ids. */
    WL_TRY(syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, &unwanted));
    WL_TRY(syscall(SYS_timer_create, plans[i].clock, &event, &ids[i]));
    WL_TRY(syscall(SYS_timer_delete, unwanted));
    WL_TRY(syscall(SYS_timer_settime, ids[i], 0, &plans[i].value, NULL));
}

int main(int argc, char **argv)
{
    pthread_t thread;
    struct itimerspec now;

    wl_init(argc, argv);
    WL_TRY(sigaction(SIGRTMIN + 3, &(struct sigaction){.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART},
                     NULL));
    WL_TRY_PTHREAD(pthread_create(&thread, NULL, wait_here, NULL));
    while (target == 0)
        usleep(1000);
    for (int i = 0; i < N_TIMERS; i++)
        make(i);

    wl_ready();
    wl_wait();

    int ticks = n_ticks, thread_ticks = n_thread_ticks;
    while (n_ticks < ticks + 3 || n_thread_ticks < thread_ticks + 3)
        usleep(1000);
    WL_CHECK(n_wrong == 0, "%d signals with a wrong value or in the wrong thread", n_wrong);
    for (int i = 0; i < N_TIMERS; i++) {
        WL_CHECK(syscall(SYS_timer_gettime, ids[i], &now) == 0, "timer %d (id %d) is gone", i, ids[i]);
        WL_CHECK(now.it_interval.tv_sec == plans[i].value.it_interval.tv_sec &&
                     now.it_interval.tv_nsec == plans[i].value.it_interval.tv_nsec,
                 "timer %d has another interval", i);
        long left = (long)now.it_value.tv_sec, planned = (long)plans[i].value.it_value.tv_sec;
        WL_CHECK(left <= planned && left >= planned - 1000, "timer %d has %ld s to go, and had %ld", i, left, planned);
        WL_TRY(syscall(SYS_timer_delete, ids[i]));
    }
    /* None but the seven: the same calls fail for the gaps. */
    for (int id = 0; id < ids[N_TIMERS - 1] + 3; id++)
        WL_CHECK(syscall(SYS_timer_gettime, id, &now) == -1 && errno == EINVAL, "there is an unknown timer %d", id);
    atomic_store(&ending, true);
    WL_TRY_PTHREAD(pthread_join(thread, NULL));
    wl_pass();
}
