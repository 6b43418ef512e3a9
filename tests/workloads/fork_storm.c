/* Processes that fork, wait and end without a pause, and threads that do the same: nothing gets lost. */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_WORKERS 4
#define N_MAKERS 2

static atomic_ulong *n_done;
static atomic_bool *ended;

/* A child that has a child of its own; both statuses come up. */
static void generation(unsigned long number)
{
    int status;
    pid_t child = WL_TRY(fork());

    if (child == 0) {
        pid_t grandchild = WL_TRY(fork());
        if (grandchild == 0)
            _exit((int)(number % 100));
        WL_TRY(waitpid(grandchild, &status, 0));
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) + 1 : 127);
    }
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (int)(number % 100) + 1, "generation %lu ended with %#x",
             number, status);
}

static _Noreturn void fork_on(int worker)
{
    for (unsigned long i = 0; !*ended; i++) {
        generation(i);
        n_done[worker]++;
    }
    WL_CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "worker %d has children left", worker);
    _exit(0);
}

static void *brief(void *arg)
{
    return (char *)arg + 1;
}

static void *make_threads(void *arg)
{
    atomic_ulong *done = arg;

    for (uintptr_t i = 0; !*ended; i++) {
        pthread_t thread;
        void *result;

        WL_TRY_PTHREAD(pthread_create(&thread, NULL, brief, (void *)i));
        WL_TRY_PTHREAD(pthread_join(thread, &result));
        WL_CHECK((uintptr_t)result == i + 1, "thread %lu gave %p", (unsigned long)i, result);
        (*done)++;
    }
    return NULL;
}

static void wait_progress(int index)
{
    unsigned long before = n_done[index];

    while (n_done[index] < before + 3)
        usleep(1000);
}

int main(int argc, char **argv)
{
    pid_t workers[N_WORKERS];
    pthread_t makers[N_MAKERS];

    wl_init(argc, argv);
    n_done = WL_TRY(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ended = (atomic_bool *)(n_done + 64);
    for (int i = 0; i < N_WORKERS; i++)
        if ((workers[i] = WL_TRY(fork())) == 0)
            fork_on(i);
    for (int i = 0; i < N_MAKERS; i++)
        WL_TRY_PTHREAD(pthread_create(&makers[i], NULL, make_threads, &n_done[N_WORKERS + i]));
    for (int i = 0; i < N_WORKERS + N_MAKERS; i++)
        wait_progress(i);

    wl_ready();
    wl_wait();

    for (int i = 0; i < N_WORKERS + N_MAKERS; i++)
        wait_progress(i);
    *ended = true;
    for (int i = 0; i < N_MAKERS; i++)
        WL_TRY_PTHREAD(pthread_join(makers[i], NULL));
    for (int i = 0; i < N_WORKERS; i++) {
        int status;

        WL_TRY(waitpid(workers[i], &status, 0));
        WL_CHECK(status == 0, "worker %d ended with %#x", i, status);
    }
    wl_pass();
}
