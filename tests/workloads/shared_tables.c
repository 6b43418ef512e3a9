/*
 * Processes (not threads) that share their descriptors, their directories, their signal actions or their memory with
 * parent or sibling by the flags of clone(2): what one does after the restore, the other sees.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK (64u << 10)

static int down[2], up[2];
static volatile int in_memory;

static void on_usr1(int number)
{
    (void)number;
}

/* Only system calls: a task that shares memory but no thread area must not enter the C library's deeper parts. */
static int sharer(void *arg)
{
    char command;

    (void)arg;
    while (syscall(SYS_read, down[0], &command, 1) == 1) {
        char answer = command;

        if (command == 'f')
            syscall(SYS_close, 100);
        if (command == 'd')
            syscall(SYS_umask, 0123);
        if (command == 'm')
            in_memory = 99;
        if (command == 's') {
            struct {
                void (*handler)(int);
                unsigned long flags;
                void *restorer;
                unsigned long mask;
            } action = {.handler = SIG_IGN};
            syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8);
        }
        syscall(SYS_write, up[1], &answer, 1);
        if (command == 'q')
            break;
    }
    syscall(SYS_exit_group, 0);
    return 0;
}

static pid_t start(int flags, bool on_own_stack)
{
    static char stacks[4][STACK] __attribute__((aligned(16)));
    static int n_stacks;
    pid_t pid;

    if (on_own_stack)
        return WL_TRY(clone(sharer, stacks[n_stacks++] + STACK, flags | SIGCHLD, NULL));
    pid = WL_TRY(syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0));
    if (pid == 0)
        sharer(NULL);
    return pid;
}

static void ask(char command)
{
    char answer;

    WL_TRY(write(down[1], &command, 1));
    WL_TRY(read(up[0], &answer, 1));
    WL_CHECK(answer == command, "asked %c, answered %c", command, answer);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_usr1};
    int flags = 0;
    int status;

    wl_init(argc, argv);
    for (int i = 0; i < wl_argc; i++) {
        flags |= strcmp(wl_argv[i], "files") == 0 ? CLONE_FILES : 0;
        flags |= strcmp(wl_argv[i], "fs") == 0 ? CLONE_FS : 0;
        flags |= strcmp(wl_argv[i], "vm") == 0 ? CLONE_VM : 0;
        flags |= strcmp(wl_argv[i], "sighand") == 0 ? CLONE_SIGHAND : 0;
    }
    WL_TRY(pipe(down));
    WL_TRY(pipe(up));
    WL_TRY(dup2(down[0], 100));
    umask(022);
    WL_TRY(sigaction(SIGUSR1, &action, NULL));
    pid_t pid = start(flags, flags & CLONE_VM);
    ask('n');

    wl_ready();
    wl_wait();

    ask('n');
    ask('f');
    WL_CHECK((fcntl(100, F_GETFD) < 0) == !!(flags & CLONE_FILES), "closed by the other: descriptor 100 is %s",
             fcntl(100, F_GETFD) < 0 ? "closed" : "open");
    ask('d');
    WL_CHECK((umask(022) == 0123) == !!(flags & CLONE_FS), "the umask was not as the other set it, or was");
    ask('m');
    WL_CHECK((in_memory == 99) == !!(flags & CLONE_VM), "written by the other: %d", in_memory);
    ask('s');
    WL_TRY(sigaction(SIGUSR1, NULL, &action));
    WL_CHECK((action.sa_handler == SIG_IGN) == !!(flags & CLONE_SIGHAND), "the signal action is the wrong one");
    ask('q');
    WL_TRY(waitpid(pid, &status, 0));
    WL_CHECK(status == 0, "the other ended with %#x", status);
    wl_pass();
}
