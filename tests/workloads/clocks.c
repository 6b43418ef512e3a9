/*
 * Threads that each wait, in another way, for a moment by the monotonic or the boot-time clock: whatever the clocks of
 * the machine show after a restore, the program's go on, and each wait ends at its moment. The arguments
 * are how many seconds away that moment is, and how many seconds too early a wait may end (0).
 */
#define _GNU_SOURCE
#include "workload.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NSEC 1000000000ll
/* How late a wait may end on a busy machine; the clocks of the tests differ by more. */
#define LATE (30 * NSEC)

static int64_t deadline_s, early_s;

static int64_t now(clockid_t clock)
{
    struct timespec at;

    WL_TRY(clock_gettime(clock, &at));
    return at.tv_sec * NSEC + at.tv_nsec;
}

static struct timespec as_timespec(int64_t at)
{
    return (struct timespec){.tv_sec = at / NSEC, .tv_nsec = at % NSEC};
}

static void by_nanosleep(clockid_t clock, int64_t at)
{
    struct timespec until = as_timespec(at);

    while (clock_nanosleep(clock, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

static void by_relative_nanosleep(clockid_t clock, int64_t at)
{
    struct timespec left = as_timespec(at - now(clock));

    while (clock_nanosleep(clock, 0, &left, &left) == EINTR)
        ;
}

static void read_timerfd(clockid_t clock, int flags, int64_t value, int64_t interval)
{
    struct itimerspec spec = {.it_value = as_timespec(value), .it_interval = as_timespec(interval)};
    int fd = WL_TRY(timerfd_create(clock, TFD_CLOEXEC));
    uint64_t ticks;

    WL_TRY(timerfd_settime(fd, flags, &spec, NULL));
    WL_CHECK(read(fd, &ticks, sizeof(ticks)) == sizeof(ticks), "read of a timerfd: %s", strerror(errno));
}

static void by_absolute_timerfd(clockid_t clock, int64_t at)
{
    read_timerfd(clock, TFD_TIMER_ABSTIME, at, 0);
}

static void by_relative_timerfd(clockid_t clock, int64_t at)
{
    read_timerfd(clock, 0, at - now(clock), 3600 * NSEC);
}

static void by_timer(clockid_t clock, int64_t at)
{
    struct itimerspec spec = {.it_value = as_timespec(at)};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 3};
    sigset_t set;
    timer_t timer;

    event._sigev_un._tid = gettid();
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    WL_TRY(timer_create(clock, &event, &timer));
    WL_TRY(timer_settime(timer, TIMER_ABSTIME, &spec, NULL));
    while (sigwaitinfo(&set, NULL) != SIGRTMIN + 3)
        ;
    WL_TRY(timer_delete(timer));
}

static void by_condition(clockid_t clock, int64_t at)
{
    struct timespec until = as_timespec(at);
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_condattr_t attributes;
    pthread_cond_t condition;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, clock);
    pthread_cond_init(&condition, &attributes);
    pthread_mutex_lock(&mutex);
    while (pthread_cond_timedwait(&condition, &mutex, &until) != ETIMEDOUT)
        ;
}

static void by_semaphore(clockid_t clock, int64_t at)
{
    struct timespec until = as_timespec(at);
    sem_t semaphore;

    sem_init(&semaphore, 0, 0);
    while (sem_clockwait(&semaphore, clock, &until) == -1 && errno == EINTR)
        ;
}

static void by_futex(clockid_t clock, int64_t at)
{
    struct timespec until = as_timespec(at);
    uint32_t word = 0;

    (void)clock;
    while (syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, &until, NULL, ~0u) == -1 &&
           errno != ETIMEDOUT)
        ;
}

static void by_futex_waitv(clockid_t clock, int64_t at)
{
    struct timespec until = as_timespec(at);
    static uint32_t word;
    struct {
        uint64_t value, address;
        uint32_t flags, reserved;
    } waiter = {0, (uintptr_t)&word, 2 /* FUTEX_32 */, 0};

    while (syscall(449 /* futex_waitv */, &waiter, 1, 0, &until, clock) == -1 && errno != ETIMEDOUT)
        if (errno == ENOSYS || errno == EPERM) { /* a kernel, or a container's filter, without it */
            by_nanosleep(clock, at);
            return;
        }
}

/* A computed timeout, as event loops have it. */
static void by_poll(clockid_t clock, int64_t at)
{
    while (now(clock) < at)
        poll(NULL, 0, (int)((at - now(clock) + 999999) / 1000000));
}

static void by_epoll(clockid_t clock, int64_t at)
{
    int fd = WL_TRY(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event;

    while (now(clock) < at)
        epoll_wait(fd, &event, 1, (int)((at - now(clock) + 999999) / 1000000));
}

static void by_pselect(clockid_t clock, int64_t at)
{
    struct timespec left;

    while (now(clock) < at) {
        left = as_timespec(at - now(clock) + 1000);
        pselect(0, NULL, NULL, NULL, &left, NULL);
    }
}

struct way {
    const char *name;
    void (*wait)(clockid_t clock, int64_t at);
    clockid_t clock;
    pthread_t thread;
    int64_t began, ended;
};

static struct way ways[] = {
    {.name = "clock_nanosleep, monotonic, absolute", .wait = by_nanosleep, .clock = CLOCK_MONOTONIC},
    {.name = "clock_nanosleep, boot time, absolute", .wait = by_nanosleep, .clock = CLOCK_BOOTTIME},
    {.name = "clock_nanosleep, relative", .wait = by_relative_nanosleep, .clock = CLOCK_MONOTONIC},
    {.name = "timerfd, monotonic, absolute", .wait = by_absolute_timerfd, .clock = CLOCK_MONOTONIC},
    {.name = "timerfd, boot time, absolute", .wait = by_absolute_timerfd, .clock = CLOCK_BOOTTIME},
    {.name = "timerfd, monotonic, relative", .wait = by_relative_timerfd, .clock = CLOCK_MONOTONIC},
    {.name = "timerfd, boot time, relative", .wait = by_relative_timerfd, .clock = CLOCK_BOOTTIME},
    {.name = "POSIX timer, monotonic, absolute", .wait = by_timer, .clock = CLOCK_MONOTONIC},
    {.name = "POSIX timer, boot time, absolute", .wait = by_timer, .clock = CLOCK_BOOTTIME},
    {.name = "condition variable", .wait = by_condition, .clock = CLOCK_MONOTONIC},
    {.name = "semaphore", .wait = by_semaphore, .clock = CLOCK_MONOTONIC},
    {.name = "futex, absolute", .wait = by_futex, .clock = CLOCK_MONOTONIC},
    {.name = "futex_waitv", .wait = by_futex_waitv, .clock = CLOCK_MONOTONIC},
    {.name = "poll", .wait = by_poll, .clock = CLOCK_MONOTONIC},
    {.name = "epoll_wait", .wait = by_epoll, .clock = CLOCK_MONOTONIC},
    {.name = "pselect", .wait = by_pselect, .clock = CLOCK_BOOTTIME},
};
#define N_WAYS (sizeof(ways) / sizeof(ways[0]))

static void *wait_thread(void *arg)
{
    struct way *way = arg;

    way->wait(way->clock, way->began + deadline_s * NSEC);
    way->ended = now(way->clock);
    return NULL;
}

int main(int argc, char **argv)
{
    sigset_t set;

    wl_init(argc, argv);
    deadline_s = wl_argc ? atoi(wl_argv[0]) : 2;
    early_s = wl_argc > 1 ? atoi(wl_argv[1]) : 0;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (size_t i = 0; i < N_WAYS; i++) {
        ways[i].began = now(ways[i].clock);
        WL_TRY_PTHREAD(pthread_create(&ways[i].thread, NULL, wait_thread, &ways[i]));
    }
    int64_t monotonic = now(CLOCK_MONOTONIC), boot = now(CLOCK_BOOTTIME);

    wl_ready();
    wl_wait();

    int64_t gone = now(CLOCK_MONOTONIC) - monotonic, boot_gone = now(CLOCK_BOOTTIME) - boot;
    WL_CHECK(gone >= 0 && gone < LATE, "the monotonic clock has gone by %lld ns", (long long)gone);
    WL_CHECK(boot_gone >= 0 && boot_gone < LATE, "the boot-time clock has gone by %lld ns", (long long)boot_gone);
    struct timespec limit = as_timespec(now(CLOCK_REALTIME) + deadline_s * NSEC + LATE);
    for (size_t i = 0; i < N_WAYS; i++) {
        struct way *way = &ways[i];
        int64_t late;

        WL_CHECK(pthread_clockjoin_np(way->thread, NULL, CLOCK_REALTIME, &limit) == 0, "%s does not end", way->name);
        late = way->ended - way->began - deadline_s * NSEC;
        WL_CHECK(late >= -early_s * NSEC && late < LATE, "%s ended %lld ns after its moment", way->name, (long long)late);
    }
    wl_pass();
}
