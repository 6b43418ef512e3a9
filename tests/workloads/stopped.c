/* Children stopped by job control, one of them with threads; their stops are reported to the parent once, as before. */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_THREADS 3

static volatile sig_atomic_t n_sigchld;

static void on_sigchld(int number)
{
    (void)number;
    n_sigchld++;
}

static void *spin(void *arg)
{
    volatile uint64_t *counter = arg;

    for (;;)
        (*counter)++;
    return NULL;
}

static _Noreturn void be_child(int from_parent, int to_parent, bool threads)
{
    static uint64_t counters[N_THREADS];
    char byte = 'r';

    for (int i = 0; threads && i < N_THREADS; i++) {
        pthread_t thread;

        WL_TRY_PTHREAD(pthread_create(&thread, NULL, spin, &counters[i]));
        while (__atomic_load_n(&counters[i], __ATOMIC_RELAXED) == 0)
            ;
    }
    WL_TRY(write(to_parent, &byte, 1));
    /* Continued after the stop, it answers each byte. */
    while (read(from_parent, &byte, 1) == 1)
        WL_TRY(write(to_parent, &byte, 1));
    _exit(0);
}

struct child {
    pid_t pid;
    int to, from;
};

static struct child start(bool threads)
{
    int down[2], up[2];
    char byte;

    WL_TRY(pipe(down));
    WL_TRY(pipe(up));
    struct child child = {.pid = WL_TRY(fork()), .to = down[1], .from = up[0]};
    if (child.pid == 0) {
        close(down[1]);
        close(up[0]);
        /* SIGTSTP does not stop members of an orphaned group, which the root's is. */
        WL_TRY(setpgid(0, 0));
        be_child(down[0], up[1], threads);
    }
    close(down[0]);
    close(up[1]);
    WL_TRY(read(child.from, &byte, 1));
    return child;
}

static void stop(struct child child, int number, bool report)
{
    siginfo_t info;
    int before = n_sigchld;

    WL_TRY(kill(child.pid, number));
    WL_TRY(waitid(P_PID, (id_t)child.pid, &info, WSTOPPED | (report ? 0 : WNOWAIT)));
    /* A stop is seen by waitid(2) an instant before the signal for it is sent. */
    while (n_sigchld == before)
        usleep(1000);
    WL_CHECK(info.si_status == number, "stopped by %d, not %d", info.si_status, number);
}

static char state_of(pid_t pid, pid_t tid)
{
    char path[64], line[512] = "";

    snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
    FILE *file = fopen(path, "r");
    WL_CHECK(file != NULL && fgets(line, sizeof(line), file) != NULL, "%s cannot be read", path);
    fclose(file);
    return strrchr(line, ')')[2];
}

static void check_stopped(struct child child)
{
    char byte = 'x';

    WL_CHECK(state_of(child.pid, child.pid) == 'T', "pid %d is in state %c", child.pid,
             state_of(child.pid, child.pid));
    WL_TRY(write(child.to, &byte, 1));
}

static void check_continues(struct child child)
{
    char byte = 0;
    int status;

    WL_TRY(kill(child.pid, SIGCONT));
    WL_TRY(read(child.from, &byte, 1));
    WL_CHECK(byte == 'x', "pid %d answers %d", child.pid, byte);
    WL_TRY(kill(child.pid, SIGKILL));
    while (WL_TRY(waitpid(child.pid, &status, 0)) != child.pid || !WIFSIGNALED(status))
        ;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_sigchld, .sa_flags = SA_RESTART};
    int status;

    wl_init(argc, argv);
    WL_TRY(sigaction(SIGCHLD, &action, NULL));
    struct child reported = start(false), unreported = start(false), threaded = start(true);
    stop(reported, SIGSTOP, true);
    stop(unreported, SIGTSTP, false);
    stop(threaded, SIGSTOP, true);
    int seen = n_sigchld;

    wl_ready();
    wl_wait();

    WL_CHECK(n_sigchld == seen, "%d SIGCHLD came while it was away", (int)n_sigchld - seen);
    check_stopped(reported);
    check_stopped(unreported);
    check_stopped(threaded);
    WL_CHECK(waitpid(reported.pid, &status, WUNTRACED | WNOHANG) == 0, "a stop is reported a second time");
    WL_CHECK(waitpid(threaded.pid, &status, WUNTRACED | WNOHANG) == 0, "a stop is reported a second time");
    WL_CHECK(waitpid(unreported.pid, &status, WUNTRACED | WNOHANG) == unreported.pid, "a stop is not reported");
    WL_CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP, "status %#x instead of a stop by SIGTSTP", status);
    check_continues(reported);
    check_continues(unreported);
    check_continues(threaded);
    wl_pass();
}
