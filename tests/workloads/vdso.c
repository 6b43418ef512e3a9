/* Asks the vdso for the time without a pause, in two threads, by the pointers that libc took from it at the start. */
#define _GNU_SOURCE
#include "workload.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const long SECOND = 1000000000;
static struct timespec seen[2];

static long real_clock(clockid_t clock)
{
    struct timespec now;

    WL_TRY(syscall(SYS_clock_gettime, clock, &now));
    return now.tv_sec * SECOND + now.tv_nsec;
}

/* What the vdso says must lie between what the kernel says before and after. */
static void ask_once(void *last)
{
    struct timespec now;
    struct timespec *before = last;

    WL_TRY(clock_gettime(CLOCK_MONOTONIC, &now));
    long step = (now.tv_sec - before->tv_sec) * SECOND + now.tv_nsec - before->tv_nsec;
    WL_CHECK(step >= 0, "the clock went back by %ld ns", -step);
    *before = now;
}

static void *ask(void *unused)
{
    for (;;)
        ask_once(&seen[1]);
    return unused;
}

static void check_clock(clockid_t clock, long slack)
{
    struct timespec now;

    long before = real_clock(clock);
    WL_TRY(clock_gettime(clock, &now));
    long after = real_clock(clock);
    long said = now.tv_sec * SECOND + now.tv_nsec;
    WL_CHECK(before - slack <= said && said <= after + slack, "clock %d: %ld is not in %ld .. %ld", clock, said, before, after);
}

/* The vdso's own functions, also those that libc of some versions does not use. */
static void check_functions(void)
{
    struct timespec fine;
    struct timeval now;
    unsigned cpu, node;
    char bytes[16] = {0}, none[16] = {0};

    check_clock(CLOCK_REALTIME, 0);
    check_clock(CLOCK_MONOTONIC, 0);
    check_clock(CLOCK_BOOTTIME, 0);
    check_clock(CLOCK_MONOTONIC_COARSE, SECOND / 10);
    check_clock(CLOCK_PROCESS_CPUTIME_ID, 0);
    long before = real_clock(CLOCK_REALTIME) / 1000;
    WL_TRY(gettimeofday(&now, NULL));
    long after = real_clock(CLOCK_REALTIME) / 1000;
    long said = now.tv_sec * 1000000L + now.tv_usec;
    WL_CHECK(before <= said && said <= after, "gettimeofday: %ld", said);
    long whole = time(NULL);
    WL_CHECK(before / 1000000 - 1 <= whole && whole <= after / 1000000 + 1, "time: %ld", whole);
    WL_TRY(clock_getres(CLOCK_MONOTONIC, &fine));
    WL_CHECK(fine.tv_sec == 0 && fine.tv_nsec > 0, "clock_getres: %ld ns", fine.tv_nsec);
    WL_TRY(getcpu(&cpu, &node));
    WL_CHECK((long)cpu < sysconf(_SC_NPROCESSORS_CONF), "getcpu: %u", cpu);

    void *vdso = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
    long (*random)(void *, size_t, unsigned, void *, size_t) = vdso ? dlsym(vdso, "__vdso_getrandom") : NULL;
    if (random != NULL) {
        WL_CHECK(random(bytes, sizeof(bytes), 0, NULL, 0) == sizeof(bytes), "__vdso_getrandom");
        WL_CHECK(memcmp(bytes, none, sizeof(bytes)) != 0, "__vdso_getrandom gives nothing");
    }
    int (*libc_time)(clockid_t, struct timespec *) = vdso ? dlsym(vdso, "clock_gettime") : NULL;
    if (libc_time != NULL)
        WL_CHECK(libc_time(CLOCK_MONOTONIC, &fine) == 0 && fine.tv_sec >= seen[0].tv_sec, "clock_gettime");
}

int main(int argc, char **argv)
{
    pthread_t other;

    wl_init(argc, argv);
    check_functions();
    WL_TRY_PTHREAD(pthread_create(&other, NULL, ask, NULL));
    wl_ready();
    wl_wait_busy(ask_once, &seen[0]);
    check_functions();
    struct timespec before = seen[1];
    while (memcmp(&before, &seen[1], sizeof(before)) == 0)
        __asm__ volatile("" ::: "memory");
    wl_pass();
}
