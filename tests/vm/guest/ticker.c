/*
 * Wakes each second by an absolute deadline and says how often so far: `ticker FILE [MEGABYTES]`. Ends, with a status
 * that says why, if a clock goes back or the vdso's differs from the kernel's, if a timer is not on time, if rseq or a
 * vector register is not what it was, or one of the megabytes that it keeps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* What a periodic timer may have expired more or less often than seconds have gone: its signal is on the way, and each
 * dump reads what remains a little before it reads the clock. */
#define LATE 3

static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME};
#define N_CLOCKS (sizeof(clocks) / sizeof(*clocks))

static volatile long n_signals;

static void on_timer(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    n_signals += 1 + info->si_overrun;
}

static long long at(const struct timespec *when)
{
    return when->tv_sec * 1000000000LL + when->tv_nsec;
}

/* Of each clock: what the kernel says, what libc reads in the vdso, and the kernel again, none before the one before. */
static int clocks_go_on(void)
{
    static long long last[N_CLOCKS];
    struct timespec now;

    for (size_t i = 0; i < N_CLOCKS; i++)
        for (int turn = 0; turn < 3; turn++) {
            if (turn == 1 ? clock_gettime(clocks[i], &now) : (int)syscall(SYS_clock_gettime, clocks[i], &now))
                return 0;
            if (at(&now) < last[i]) {
                fprintf(stderr, "clock %d, turn %d: %lld after %lld\n", (int)clocks[i], turn, at(&now), last[i]);
                return 0;
            }
            last[i] = at(&now);
        }
    return 1;
}

/* The kernel writes the processor into what libc has registered with it, whenever the thread is scheduled. */
static int rseq_is_there(void)
{
    const struct rseq *area = (const void *)((const char *)__builtin_thread_pointer() + __rseq_offset);
    unsigned processor;

    if (!__rseq_size)
        return 1;
    for (int i = 0; i < 1000; i++)
        if (!syscall(SYS_getcpu, &processor, NULL, NULL) && *(volatile const unsigned *)&area->cpu_id == processor)
            return 1;
    return 0;
}

/* Sleep until then as one system call, with a value in a vector register; whether it is the same afterwards. */
static int sleep_keeps(const struct timespec *until, unsigned long long value)
{
    unsigned long long after;
    long result;

    do {
        register long flags asm("r10") = 0;

        result = SYS_clock_nanosleep;
        asm volatile("movq %[value], %%xmm9\n\t"
                     "syscall\n\t"
                     "movq %%xmm9, %[after]"
                     : "+a"(result), [after] "=r"(after)
                     : [value] "r"(value), "D"((long)CLOCK_MONOTONIC), "S"((long)TIMER_ABSTIME), "d"(until), "r"(flags)
                     : "rcx", "r11", "xmm9", "memory");
        if (after != value)
            return 0;
    } while (result == -EINTR);
    return result == 0;
}

int main(int argc, char **argv)
{
    struct timespec next, now;
    const struct itimerspec each_second = {{1, 0}, {1, 0}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
    unsigned long long n_read, n_expired = 0;
    timer_t timer;
    char line[32];

    size_t n_megabytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    char *kept = malloc((n_megabytes << 20) + 1);

    for (size_t i = 0; i < n_megabytes; i++)
        memset(kept + (i << 20), (int)i, 1 << 20);
    int file_timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (argc < 2 || !kept || file_timer < 0 || sigaction(SIGRTMIN, &action, NULL) ||
        timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &each_second, NULL) ||
        timerfd_settime(file_timer, 0, &each_second, NULL) || clock_gettime(CLOCK_MONOTONIC, &next))
        return 2;
    int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return 3;
    const long long began = at(&next);
    for (int ticks = 1;; ticks++) {
        next.tv_sec++;
        if (!sleep_keeps(&next, 0x0123456789abcdefULL + (unsigned)ticks))
            return 8;
        /* By the vdso, as libc does it. */
        if (clock_gettime(CLOCK_MONOTONIC, &now))
            return 4;
        if (at(&now) < at(&next) || !clocks_go_on())
            return 5;
        if (read(file_timer, &n_read, sizeof(n_read)) == sizeof(n_read))
            n_expired += n_read;
        const long gone = (at(&now) - began) / 1000000000;
        if (labs(gone - (long)n_expired) > LATE || labs(gone - n_signals) > LATE) {
            fprintf(stderr, "of %ld s the timers saw %llu and %ld\n", gone, n_expired, n_signals);
            return 9;
        }
        if (!rseq_is_there())
            return 10;
        for (size_t i = 0; i < n_megabytes; i++)
            if (kept[i << 20] != (char)i)
                return 7;
        if (pwrite(fd, line, snprintf(line, sizeof(line), "%8d\n", ticks), 0) < 0)
            return 6;
    }
}
