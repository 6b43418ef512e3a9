/*
 * A parent whose every way of waiting sees its own children only: a thread that waits for any, clones too, one that asks
 * again and again, and a count of SIGCHLD. Orphans would be its children as well.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int n_signals;
static pid_t child;

static void count(int number)
{
    (void)number;
    n_signals++;
}

static pid_t bear(void)
{
    pid_t pid = WL_TRY(fork());

    if (!pid)
        for (;;)
            pause();
    return pid;
}

static void *wait_any(void *unused)
{
    siginfo_t info = {0};

    while (waitid(P_ALL, 0, &info, WEXITED | __WALL) == -1)
        WL_CHECK(errno == EINTR, "waitid: %s", strerror(errno));
    WL_CHECK(info.si_pid == child, "waited for %d, and not for the child %d", info.si_pid, child);
    return unused;
}

static void step(void *unused)
{
    int status;
    pid_t found = waitpid(-1, &status, WNOHANG | __WALL);

    (void)unused;
    WL_CHECK(found == 0, "%d has ended, and the only child is %d", found, child);
    WL_CHECK(!n_signals, "a signal came for a child");
}

static int entries(const char *path)
{
    DIR *directory = opendir(path);
    int n = 0;

    WL_CHECK(directory, "%s", path);
    while (readdir(directory))
        n++;
    closedir(directory);
    return n;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    int n_tasks, n_fds;
    size_t size = 16 << 20;

    wl_init(argc, argv);
    memset(WL_TRY(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), 1, size);
    signal(SIGCHLD, count);
    WL_TRY(prctl(PR_SET_CHILD_SUBREAPER, 1));
    child = bear();
    WL_TRY_PTHREAD(pthread_create(&thread, NULL, wait_any, NULL));
    n_tasks = entries("/proc/self/task");
    n_fds = entries("/proc/self/fd");
    wl_ready();
    wl_wait_busy(step, NULL);
    WL_CHECK(entries("/proc/self/task") == n_tasks, "another number of threads");
    WL_CHECK(entries("/proc/self/fd") == n_fds, "another number of descriptors");
    WL_TRY(kill(child, SIGKILL));
    WL_TRY_PTHREAD(pthread_join(thread, NULL));
    WL_CHECK(n_signals == 1, "%d signals for one child", n_signals);
    WL_CHECK(waitpid(-1, NULL, __WALL) == -1 && errno == ECHILD, "there is another child");
    wl_pass();
}
