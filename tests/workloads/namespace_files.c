/* Descriptors of the namespaces that the program itself is in, one of them with flags and shared with a child. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const NAMES[] = {"pid", "net", "ipc", "uts", "mnt", "user", "cgroup"};
enum { N_NAMES = sizeof(NAMES) / sizeof(NAMES[0]) };

static void check(int fd, const char *name)
{
    char path[64];
    struct stat ours, found;

    snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
    WL_TRY(stat(path, &ours));
    WL_TRY(fstat(fd, &found));
    WL_CHECK(ours.st_ino == found.st_ino && ours.st_dev == found.st_dev, "fd %d is not the %s namespace", fd, name);
}

int main(int argc, char **argv)
{
    int fds[N_NAMES], ends[2], status;
    char path[64], c;

    wl_init(argc, argv);
    for (int i = 0; i < N_NAMES; i++) {
        snprintf(path, sizeof(path), "/proc/self/ns/%s", NAMES[i]);
        fds[i] = WL_TRY(open(path, O_RDONLY | (i % 2 ? O_NONBLOCK : 0) | O_CLOEXEC));
    }
    WL_TRY(pipe(ends));
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        WL_TRY(close(ends[1]));
        WL_CHECK(read(ends[0], &c, 1) == 0, "read");
        for (int i = 0; i < N_NAMES; i++)
            check(fds[i], NAMES[i]);
        _exit(0);
    }
    wl_ready();
    wl_wait();
    for (int i = 0; i < N_NAMES; i++) {
        check(fds[i], NAMES[i]);
        WL_CHECK(!!(WL_TRY(fcntl(fds[i], F_GETFL)) & O_NONBLOCK) == i % 2, "other flags");
        WL_CHECK(WL_TRY(fcntl(fds[i], F_GETFD)) == FD_CLOEXEC, "other descriptor flags");
    }
    WL_TRY(setns(fds[3], CLONE_NEWUTS));
    WL_TRY(close(ends[1]));
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(status == 0, "the child ended with %#x", status);
    wl_pass();
}
