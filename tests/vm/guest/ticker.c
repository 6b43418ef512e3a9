/* Wakes each second by an absolute deadline and says how often so far: `ticker FILE`. Ends if its clock goes back. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timespec next, now;
    char line[32];

    if (argc != 2 || clock_gettime(CLOCK_MONOTONIC, &next))
        return 2;
    int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return 3;
    for (int ticks = 1;; ticks++) {
        next.tv_sec++;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL))
            ;
        /* By the vdso, as libc does it. */
        if (clock_gettime(CLOCK_MONOTONIC, &now))
            return 4;
        if (now.tv_sec < next.tv_sec || (now.tv_sec == next.tv_sec && now.tv_nsec < next.tv_nsec))
            return 5;
        if (pwrite(fd, line, snprintf(line, sizeof(line), "%8d\n", ticks), 0) < 0)
            return 6;
    }
}
