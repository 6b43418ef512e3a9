/* Children that have ended and were not waited for: their wait status, their groups and sessions, their SIGCHLD. */
#define _GNU_SOURCE
#include "workload.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t n_sigchld;

static void on_sigchld(int number)
{
    (void)number;
    n_sigchld++;
}

static void wait_zombie(pid_t pid)
{
    siginfo_t info;

    WL_TRY(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
}

static pid_t ended(int code, int signal_number)
{
    pid_t pid = WL_TRY(fork());

    if (pid == 0) {
        sigset_t all;

        prctl(PR_SET_NAME, "late");
        sigfillset(&all);
        sigprocmask(SIG_UNBLOCK, &all, NULL);
        if (signal_number)
            raise(signal_number);
        _exit(code);
    }
    wait_zombie(pid);
    return pid;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_sigchld, .sa_flags = SA_RESTART};
    struct rlimit no_core = {0, 0};
    char comm[32] = "", path[64];
    int status;

    wl_init(argc, argv);
    WL_TRY(setrlimit(RLIMIT_CORE, &no_core));
    WL_TRY(sigaction(SIGCHLD, &action, NULL));
    pid_t with_code = ended(7, 0);
    pid_t killed = ended(0, SIGKILL);
    pid_t by_signal = ended(0, SIGUSR1);
    pid_t by_fault = ended(0, SIGSEGV);
    pid_t by_realtime = ended(0, SIGRTMIN + 2);

    /* A dead leader of a session and group, with a member that lives. */
    WL_TRY(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    int announced[2];
    pid_t member;
    WL_TRY(pipe(announced));
    pid_t leader = WL_TRY(fork());
    if (leader == 0) {
        setsid();
        pid_t me = WL_TRY(fork());
        if (me == 0) {
            while (getppid() == getsid(0))
                sched_yield();
            me = getpid();
            WL_TRY(write(announced[1], &me, sizeof(me)));
            for (;;)
                pause();
        }
        _exit(3);
    }
    WL_TRY(read(announced[0], &member, sizeof(member)));
    wait_zombie(leader);
    int seen = n_sigchld;

    wl_ready();
    wl_wait();

    WL_CHECK(n_sigchld == seen, "%d SIGCHLD came while it was away", (int)n_sigchld - seen);
    snprintf(path, sizeof(path), "/proc/%d/comm", with_code);
    FILE *file = fopen(path, "r");
    WL_CHECK(file != NULL && fgets(comm, sizeof(comm), file) != NULL, "%s: %s", path, strerror(errno));
    fclose(file);
    WL_CHECK(strcmp(comm, "late\n") == 0, "the zombie's name is %s", comm);
    WL_CHECK(getsid(member) == leader && getpgid(member) == leader, "the member is in session %d, group %d, not %d",
             getsid(member), getpgid(member), leader);
    WL_CHECK(WL_TRY(waitpid(with_code, &status, WNOHANG)) == with_code, "there is nothing to wait for");
    WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %#x instead of exit code 7", status);
    WL_CHECK(WL_TRY(waitpid(killed, &status, WNOHANG)) == killed, "there is nothing to wait for");
    WL_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x instead of SIGKILL", status);
    WL_CHECK(WL_TRY(waitpid(by_signal, &status, WNOHANG)) == by_signal, "there is nothing to wait for");
    WL_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1, "status %#x instead of SIGUSR1", status);
    WL_CHECK(WL_TRY(waitpid(by_fault, &status, WNOHANG)) == by_fault, "there is nothing to wait for");
    WL_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %#x instead of SIGSEGV", status);
    WL_CHECK(WL_TRY(waitpid(by_realtime, &status, WNOHANG)) == by_realtime, "there is nothing to wait for");
    WL_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGRTMIN + 2, "status %#x instead of SIGRTMIN+2", status);
    WL_CHECK(WL_TRY(waitpid(leader, &status, WNOHANG)) == leader, "there is nothing to wait for");
    WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3, "status %#x instead of exit code 3", status);
    WL_CHECK(waitpid(member, &status, WNOHANG) == 0, "the member is gone");
    WL_TRY(kill(member, SIGKILL));
    WL_TRY(waitpid(member, &status, 0));
    WL_CHECK(n_sigchld > seen, "no SIGCHLD comes any more");
    wl_pass();
}
