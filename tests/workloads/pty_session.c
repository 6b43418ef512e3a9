/*
 * A shell's view of a terminal: a session leader with a controlling terminal, a background leader and a foreground group,
 * /dev/tty, and Ctrl-C from the master, which reaches the foreground only.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static volatile sig_atomic_t n_interrupts;

static void count(int signal)
{
    (void)signal;
    n_interrupts++;
}

static void be_foreground(void)
{
    sigset_t before, interrupt;

    /* It comes once: not between the look at the number and the sleep. */
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    WL_TRY(sigprocmask(SIG_BLOCK, &interrupt, &before));
    signal(SIGINT, count);
    while (!n_interrupts)
        sigsuspend(&before);
    _exit(42);
}

/* Leads the session; ends with 0 once the foreground group has been interrupted and it itself has not. */
static void be_leader(const char *name, int go)
{
    int status;
    char c;

    WL_TRY(setsid());
    int terminal = WL_TRY(open(name, O_RDWR));
    int same = WL_TRY(open("/dev/tty", O_RDWR | O_NONBLOCK));
    signal(SIGINT, count);
    signal(SIGTTOU, SIG_IGN);
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        setpgid(0, 0);
        be_foreground();
    }
    setpgid(child, child);
    WL_TRY(tcsetpgrp(terminal, child));
    WL_CHECK(write(terminal, "set\n", 4) == 4, "write");
    WL_CHECK(read(go, &c, 1) == 1, "read");

    WL_CHECK(WL_TRY(tcgetsid(terminal)) == getpid(), "the terminal is of another session");
    WL_CHECK(WL_TRY(tcgetpgrp(terminal)) == child, "another group is in the foreground");
    WL_CHECK(WL_TRY(tcgetpgrp(same)) == child, "/dev/tty is another terminal");
    WL_TRY(close(WL_TRY(open("/dev/tty", O_RDWR))));
    WL_CHECK(WL_TRY(fcntl(same, F_GETFL)) & O_NONBLOCK, "O_NONBLOCK of /dev/tty");
    WL_CHECK(write(same, "ready\n", 6) == 6, "write");
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42, "the foreground ended with %#x", status);
    WL_CHECK(n_interrupts == 0, "the background was interrupted");
    _exit(0);
}

static void expect(int fd, const char *text)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    char buffer[64] = "";

    for (size_t n = 0; n < strlen(text);) {
        WL_CHECK(WL_TRY(poll(&poller, 1, 10000)) == 1, "\"%s\" does not come, but \"%s\"", text, buffer);
        n += (size_t)WL_TRY(read(fd, buffer + n, sizeof(buffer) - 1 - n));
    }
    WL_CHECK(strcmp(buffer, text) == 0, "read \"%s\", not \"%s\"", buffer, text);
}

int main(int argc, char **argv)
{
    char name[64];
    int go[2], status;

    wl_init(argc, argv);
    int master = wl_open_master(O_RDWR | O_NOCTTY);
    WL_TRY(unlockpt(master));
    WL_CHECK(ptsname_r(master, name, sizeof(name)) == 0, "ptsname");
    WL_TRY(pipe(go));
    pid_t leader = WL_TRY(fork());
    if (leader == 0) {
        WL_TRY(close(master));
        be_leader(name, go[0]);
    }
    expect(master, "set\r\n");

    wl_ready();
    wl_wait();

    WL_CHECK(write(go[1], "x", 1) == 1, "write");
    expect(master, "ready\r\n");
    WL_CHECK(write(master, "\003", 1) == 1, "write");
    WL_TRY(waitpid(leader, &status, 0));
    WL_CHECK(status == 0, "the leader ended with %#x", status);
    wl_pass();
}
