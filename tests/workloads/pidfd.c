// cflags: -pthread
/*
 * pidfds: of oneself, of a thread, of a child, of a dead child (by two descriptions), one of them nonblocking.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
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

static pid_t thread_id;
static int go[2];

static void *wait_for_go(void *arg)
{
    char c;

    thread_id = gettid();
    WL_CHECK(write(go[1], "x", 1) == 1, "write");
    while (read(*(int *)arg, &c, 1) == -1 && errno == EINTR)
        ;
    return NULL;
}

int main(int argc, char **argv)
{
    siginfo_t info;
    pthread_t thread;
    int end[2];
    char c;

    wl_init(argc, argv);
    WL_TRY(pipe(go));
    WL_TRY(pipe(end));
    WL_TRY_PTHREAD(pthread_create(&thread, NULL, wait_for_go, &end[0]));
    WL_CHECK(read(go[0], &c, 1) == 1, "read");
    int of_thread = (int)syscall(SYS_pidfd_open, thread_id, O_EXCL);
    WL_CHECK(of_thread >= 0 || errno == EINVAL, "pidfd of a thread: %s", strerror(errno));
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
    if (of_thread >= 0) {
        WL_CHECK(!is_readable(of_thread), "the thread is dead");
        WL_CHECK(write(end[1], "x", 1) == 1, "write");
        WL_TRY_PTHREAD(pthread_join(thread, NULL));
        struct pollfd poller = {.fd = of_thread, .events = POLLIN};
        WL_CHECK(WL_TRY(poll(&poller, 1, 10000)) == 1, "the end of the thread does not show");
    }
    wl_pass();
}
