/* A thousand descriptors, one of them far above the soft limit's usual value, with holes in between. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "workload.h"

#define COUNT 1000

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    struct rlimit limit;
    WL_TRY(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    WL_TRY(setrlimit(RLIMIT_NOFILE, &limit));
    int fds[COUNT];
    char name[32];
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "file-%d", i);
        int fd = WL_TRY(open(name, O_RDWR | O_CREAT, 0600));
        WL_TRY(pwrite(fd, &i, sizeof i, 0));
        WL_TRY(lseek(fd, i, SEEK_SET));
        fds[i] = WL_TRY(fcntl(fd, F_DUPFD, 10 + 7 * i));
        WL_TRY(close(fd));
    }
    int far = WL_TRY(fcntl(fds[3], F_DUPFD, (int)limit.rlim_max - 1));
    wl_ready();
    wl_wait();
    for (int i = 0; i < COUNT; i++) {
        int value = -1;
        WL_CHECK(lseek(fds[i], 0, SEEK_CUR) == i, "offset of %d", i);
        WL_TRY(pread(fds[i], &value, sizeof value, 0));
        WL_CHECK(value == i, "file %d is file %d", i, value);
    }
    WL_CHECK(lseek(far, 0, SEEK_CUR) == 3, "the far one");
    wl_pass();
}
