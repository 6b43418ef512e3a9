/* pidfds: of oneself, of a child, of a dead child (twice, by duplicates and by two descriptions), one of them nonblocking. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static int open_pidfd(pid_t pid, unsigned flags)
{
    return WL_TRY((int)syscall(SYS_pidfd_open, pid, flags));
}

static int is_readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};

    return WL_TRY(poll(&poller, 1, 0)) == 1;
}

int main(int argc, char **argv)
{
    siginfo_t info;

    wl_init(argc, argv);
    int own = open_pidfd(getpid(), 0);
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        for (;;)
            pause();
    }
    int living = open_pidfd(child, O_NONBLOCK);
    pid_t dying = WL_TRY(fork());
    if (dying == 0)
        _exit(3);
    int dead = open_pidfd(dying, 0);
    int dead_too = open_pidfd(dying, O_NONBLOCK);
    WL_TRY(waitpid(dying, NULL, 0));

    wl_ready();
    wl_wait();

    WL_TRY((int)syscall(SYS_pidfd_send_signal, own, 0, NULL, 0));
    WL_CHECK(WL_TRY(fcntl(living, F_GETFL)) & O_NONBLOCK, "O_NONBLOCK is lost");
    WL_CHECK(!is_readable(living), "the child is dead");
    WL_TRY((int)syscall(SYS_pidfd_send_signal, living, SIGKILL, NULL, 0));
    WL_TRY(fcntl(living, F_SETFL, 0));
    WL_TRY(waitid(P_PIDFD, (id_t)living, &info, WEXITED));
    WL_CHECK(info.si_pid == child && info.si_status == SIGKILL, "waited for %d", info.si_pid);
    WL_CHECK(is_readable(dead) && is_readable(dead_too), "the dead child lives");
    int result = (int)syscall(SYS_pidfd_send_signal, dead, 0, NULL, 0);
    WL_CHECK(result == -1 && errno == ESRCH, "a signal for the dead: %s", strerror(errno));
    wl_pass();
}
