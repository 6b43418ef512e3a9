/*
 * Threads inside of system calls that a stop interrupts. Those that wait without a limit must not notice; timed ones must
 * neither end before their time nor fail.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LONG_S 100000
#define SHORT_MS 700

static int quiet[2]; /* a pipe into which a byte is written at the end */
static uint32_t word;
static atomic_bool ending;
static atomic_int n_waiting;

static int64_t now_ms(void)
{
    struct timespec now;

    WL_TRY(clock_gettime(CLOCK_MONOTONIC, &now));
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void check_end(const char *what, int64_t started_ms)
{
    int64_t took_ms = now_ms() - started_ms;

    WL_CHECK(took_ms >= SHORT_MS, "%s ended after %lld ms, not %d", what, (long long)took_ms, SHORT_MS);
}

/* Until the end: none of these may come back before a byte is in the pipe. */
static int in_poll_for_ever(void)
{
    struct pollfd fd = {.fd = quiet[0], .events = POLLIN};

    return poll(&fd, 1, -1);
}

static int in_poll(void)
{
    struct pollfd fd = {.fd = quiet[0], .events = POLLIN};

    return poll(&fd, 1, LONG_S * 1000);
}

static int in_select(void)
{
    struct timeval limit = {LONG_S, 0};
    fd_set set;

    FD_ZERO(&set);
    FD_SET(quiet[0], &set);
    return select(quiet[0] + 1, &set, NULL, NULL, &limit);
}

static int in_epoll(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    int fd = WL_TRY(epoll_create1(EPOLL_CLOEXEC));

    WL_TRY(epoll_ctl(fd, EPOLL_CTL_ADD, quiet[0], &event));
    return epoll_wait(fd, &event, 1, -1);
}

static int in_sigwait(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return sigwaitinfo(&set, NULL) == SIGUSR1;
}

static int in_futex(void)
{
    struct timespec limit;

    WL_TRY(clock_gettime(CLOCK_MONOTONIC, &limit));
    limit.tv_sec += LONG_S;
    long result = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &limit, NULL, FUTEX_BITSET_MATCH_ANY);
    return result == 0 ? 1 : -1;
}

static int (*const endless[])(void) = {in_poll_for_ever, in_poll, in_select, in_epoll, in_sigwait, in_futex};
static const char *const names[] = {"poll without limit", "poll", "select", "epoll_wait", "sigwaitinfo", "futex"};
#define N_ENDLESS (sizeof(endless) / sizeof(endless[0]))

static void *wait_for_end(void *arg)
{
    size_t which = (size_t)(uintptr_t)arg;

    atomic_fetch_add(&n_waiting, 1);
    int result = endless[which]();
    int error = errno;
    WL_CHECK(ending && result == 1, "%s gave %d, %s, %s the end", names[which], result, strerror(error),
             ending ? "at" : "before");
    return NULL;
}

/* For a short time: not less, and no EINTR. */
static void *sleep_until(void *arg)
{
    int64_t started = now_ms();
    struct timespec until = {(started + SHORT_MS + 1) / 1000, (started + SHORT_MS + 1) % 1000 * 1000000};

    atomic_fetch_add(&n_waiting, 1);
    WL_TRY_PTHREAD(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
    check_end("clock_nanosleep until", started);
    return arg;
}

static void *sleep_for(void *arg)
{
    struct timespec length = {0, SHORT_MS * 1000000}, left;
    int64_t started = now_ms();

    atomic_fetch_add(&n_waiting, 1);
    WL_TRY(nanosleep(&length, arg ? &left : NULL));
    check_end(arg ? "nanosleep" : "nanosleep without rest", started);
    return arg;
}

int main(int argc, char **argv)
{
    pthread_t threads[N_ENDLESS], sleepers[3];

    wl_init(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    WL_TRY_PTHREAD(pthread_sigmask(SIG_BLOCK, &set, NULL));
    WL_TRY(pipe(quiet));
    for (size_t i = 0; i < N_ENDLESS; i++)
        WL_TRY_PTHREAD(pthread_create(&threads[i], NULL, wait_for_end, (void *)(uintptr_t)i));
    WL_TRY_PTHREAD(pthread_create(&sleepers[0], NULL, sleep_until, NULL));
    WL_TRY_PTHREAD(pthread_create(&sleepers[1], NULL, sleep_for, NULL));
    WL_TRY_PTHREAD(pthread_create(&sleepers[2], NULL, sleep_for, &word));
    while (n_waiting < (int)N_ENDLESS + 3)
        usleep(1000);
    usleep(20000); /* they are about to sleep; nothing tells when they do */

    wl_ready();
    wl_wait();

    for (int i = 0; i < 3; i++)
        WL_TRY_PTHREAD(pthread_join(sleepers[i], NULL));
    atomic_store(&ending, true);
    WL_CHECK(write(quiet[1], "x", 1) == 1, "cannot write");
    WL_TRY(kill(getpid(), SIGUSR1));
    word = 1;
    syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0);
    for (size_t i = 0; i < N_ENDLESS; i++)
        WL_TRY_PTHREAD(pthread_join(threads[i], NULL));
    wl_pass();
}
