/*
 * Many processes, or threads: N children side by side (wide), or each the parent of the next (deep), each with T threads
 * beside its main one; children that are stopped, and dead ones that nobody has waited for.
 *
 *     brood wide|deep N [T [STOPPED [ZOMBIES]]]
 */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SMALL_STACK (32 << 10)
#define ZOMBIE_STATUS 7

static int n_threads, tell[2], word[2];
static atomic_int *n_done;

static void *stay(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void start_threads(void)
{
    pthread_attr_t attributes;

    WL_TRY_PTHREAD(pthread_attr_init(&attributes));
    WL_TRY_PTHREAD(pthread_attr_setstacksize(&attributes, SMALL_STACK));
    for (int i = 0; i < n_threads; i++) {
        pthread_t thread;
        WL_TRY_PTHREAD(pthread_create(&thread, &attributes, stay, NULL));
    }
}

static void announce(void)
{
    WL_TRY(write(tell[1], "", 1));
}

/* Wait for the root's word, which is one byte, and end. */
static _Noreturn void end_when_told(void)
{
    char byte;

    WL_CHECK(read(word[0], &byte, 1) == 1, "the root has gone");
    atomic_fetch_add(n_done, 1);
    _exit(0);
}

static void chain(int n_below)
{
    pid_t child = WL_TRY(fork());

    if (child == 0) {
        start_threads();
        if (n_below == 1) {
            announce();
            end_when_told();
        }
        chain(n_below - 1);
        announce();
        int status;
        WL_TRY(wait(&status));
        WL_CHECK(status == 0, "a child's status is %#x", status);
        atomic_fetch_add(n_done, 1);
        _exit(0);
    }
}

static pid_t bear(void)
{
    pid_t child = WL_TRY(fork());

    if (child == 0) {
        start_threads();
        announce();
        end_when_told();
    }
    return child;
}

static void wait_for(int n)
{
    char byte;

    for (int i = 0; i < n; i++)
        WL_CHECK(read(tell[0], &byte, 1) == 1, "a child has gone");
}

static void check_state(pid_t pid, int options, int code, int status)
{
    siginfo_t info = {0};

    WL_TRY(waitid(P_PID, pid, &info, options | WNOWAIT | WNOHANG));
    WL_CHECK(info.si_pid == pid && info.si_code == code && info.si_status == status, "child %d: code %d, status %d", pid,
             info.si_code, info.si_status);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    bool is_deep = strcmp(wl_argv[0], "deep") == 0;
    int n = atoi(wl_argv[1]);
    n_threads = wl_argc > 2 ? atoi(wl_argv[2]) : 0;
    int n_stopped = wl_argc > 3 ? atoi(wl_argv[3]) : 0, n_zombies = wl_argc > 4 ? atoi(wl_argv[4]) : 0;
    pid_t stopped[n_stopped + 1], zombies[n_zombies + 1];

    n_done = mmap(NULL, sizeof(*n_done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    WL_CHECK(n_done != MAP_FAILED, "no shared memory");
    WL_TRY(pipe(tell));
    WL_TRY(pipe(word));
    if (is_deep && n > 0)
        chain(n);
    else
        for (int i = 0; i < n; i++)
            bear();
    for (int i = 0; i < n_stopped; i++)
        stopped[i] = bear();
    wait_for(n + n_stopped);
    for (int i = 0; i < n_stopped; i++) {
        siginfo_t info;
        WL_TRY(kill(stopped[i], SIGSTOP));
        WL_TRY(waitid(P_PID, stopped[i], &info, WSTOPPED | WNOWAIT));
    }
    for (int i = 0; i < n_zombies; i++) {
        siginfo_t info;
        zombies[i] = WL_TRY(fork());
        if (zombies[i] == 0)
            _exit(ZOMBIE_STATUS);
        WL_TRY(waitid(P_PID, zombies[i], &info, WEXITED | WNOWAIT));
    }
    start_threads();
    wl_ready();
    wl_wait();
    for (int i = 0; i < n_zombies; i++)
        check_state(zombies[i], WEXITED, CLD_EXITED, ZOMBIE_STATUS);
    for (int i = 0; i < n_stopped; i++) {
        check_state(stopped[i], WSTOPPED, CLD_STOPPED, SIGSTOP);
        WL_TRY(kill(stopped[i], SIGCONT));
    }
    for (int i = 0; i < (is_deep ? 1 : n) + n_stopped; i++)
        WL_TRY(write(word[1], "", 1));
    while (wait(NULL) > 0)
        continue;
    WL_CHECK(atomic_load(n_done) == n + n_stopped, "%d of %d have ended well", atomic_load(n_done), n + n_stopped);
    wl_pass();
}
