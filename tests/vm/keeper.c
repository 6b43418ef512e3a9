/*
 * Says each second how often so far, and keeps some memory: `keeper FILE MEGABYTES`. It does not look at clocks or
 * timers, which go on where a program sleeps on the machine that it was on (ticker.c does).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char line[32];

    if (argc < 3)
        return 2;
    size_t n_bytes = strtoul(argv[2], NULL, 10) << 20;
    char *kept = malloc(n_bytes + 1);
    int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (!kept || fd < 0)
        return 3;
    memset(kept, 'k', n_bytes);
    for (int ticks = 1;; ticks++) {
        for (size_t i = 0; i < n_bytes; i += 4096)
            if (kept[i] != 'k')
                return 4;
        if (pwrite(fd, line, snprintf(line, sizeof(line), "%8d\n", ticks), 0) < 0)
            return 5;
        sleep(1);
    }
}
