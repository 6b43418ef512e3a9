/* A child of another user that gets a signal when its parent dies: it is asked for what it has, and then orphaned. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void grandchild(int up)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 2);
    WL_TRY(sigprocmask(SIG_BLOCK, &set, NULL));
    WL_TRY(syscall(SYS_setresuid, 1234, 1234, 1234));
    WL_TRY(prctl(PR_SET_PDEATHSIG, SIGRTMIN + 2));
    WL_CHECK(write(up, "r", 1) == 1, "cannot write");
    if (sigwaitinfo(&set, NULL) == SIGRTMIN + 2)
        WL_CHECK(write(up, "d", 1) == 1, "cannot write");
    _exit(0);
}

int main(int argc, char **argv)
{
    int up[2];
    char byte;

    wl_init(argc, argv);
    WL_TRY(prctl(PR_SET_CHILD_SUBREAPER, 1));
    WL_TRY(pipe(up));
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        if (WL_TRY(fork()) == 0)
            grandchild(up[1]);
        while (true)
            pause();
    }
    WL_CHECK(read(up[0], &byte, 1) == 1 && byte == 'r', "the grandchild is not ready");
    close(up[1]);

    wl_ready();
    wl_wait();

    WL_TRY(kill(child, SIGKILL));
    WL_CHECK(read(up[0], &byte, 1) == 1 && byte == 'd', "the grandchild has not heard of its parent's death");
    while (wait(NULL) > 0)
        ;
    wl_pass();
}
