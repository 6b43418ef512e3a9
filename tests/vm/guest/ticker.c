/*
 * Wakes each second by an absolute deadline and says how often so far: `ticker FILE [MEGABYTES]`. Ends if its clock goes
 * back, or if one of the megabytes that it keeps is not what it was.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timespec next, now;
    char line[32];

    size_t n_megabytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    char *kept = malloc((n_megabytes << 20) + 1);

    for (size_t i = 0; i < n_megabytes; i++)
        memset(kept + (i << 20), (int)i, 1 << 20);
    if (argc < 2 || !kept || clock_gettime(CLOCK_MONOTONIC, &next))
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
        for (size_t i = 0; i < n_megabytes; i++)
            if (kept[i << 20] != (char)i)
                return 7;
        if (pwrite(fd, line, snprintf(line, sizeof(line), "%8d\n", ticks), 0) < 0)
            return 6;
    }
}
