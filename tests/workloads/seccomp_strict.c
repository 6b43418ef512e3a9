/* A child in seccomp's strict mode: it may read, write and exit, and is killed by anything else. */
#define _GNU_SOURCE
#include "workload.h"

#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t strict_child(int from, int to, bool misbehave)
{
    char byte;
    pid_t child = WL_TRY(fork());

    if (child)
        return child;
    WL_TRY(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
    syscall(SYS_write, to, "r", 1);
    syscall(SYS_read, from, &byte, 1);
    if (misbehave)
        syscall(SYS_getppid);
    syscall(SYS_write, to, "x", 1);
    syscall(SYS_exit, 7);
    __builtin_unreachable();
}

int main(int argc, char **argv)
{
    int down[2], up[2], status;
    pid_t children[2];
    char byte;

    wl_init(argc, argv);
    WL_TRY(pipe(down));
    WL_TRY(pipe(up));
    for (int i = 0; i < 2; i++) {
        children[i] = strict_child(down[0], up[1], i == 1);
        WL_CHECK(read(up[0], &byte, 1) == 1 && byte == 'r', "child %d is not ready", i);
    }

    wl_ready();
    wl_wait();

    WL_CHECK(write(down[1], "gg", 2) == 2, "cannot write");
    WL_TRY(waitpid(children[0], &status, 0));
    WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the good child ended with %#x", status);
    WL_TRY(waitpid(children[1], &status, 0));
    WL_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the bad child ended with %#x", status);
    wl_pass();
}
