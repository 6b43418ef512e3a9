/* F_SETOWN, F_SETSIG and O_ASYNC: the signal comes after a restore too, and tells the descriptor. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    int ends[2], quiet[2];
    WL_TRY(pipe(ends));
    WL_TRY(pipe(quiet));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    WL_TRY(sigprocmask(SIG_BLOCK, &set, NULL));
    WL_TRY(fcntl(ends[0], F_SETSIG, SIGRTMIN + 3));
    struct f_owner_ex owner = {F_OWNER_PID, getpid()};
    WL_TRY(fcntl(ends[0], F_SETOWN_EX, &owner));
    WL_TRY(fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK));
    owner = (struct f_owner_ex){F_OWNER_TID, gettid()};
    WL_TRY(fcntl(quiet[1], F_SETOWN_EX, &owner));
    wl_ready();
    wl_wait();
    WL_TRY(fcntl(quiet[1], F_GETOWN_EX, &owner));
    WL_CHECK(owner.type == F_OWNER_TID && owner.pid == gettid(), "owner %d %d", owner.type, owner.pid);
    WL_CHECK(fcntl(ends[0], F_GETFL) == (O_ASYNC | O_NONBLOCK | O_RDONLY), "flags %o", fcntl(ends[0], F_GETFL));
    siginfo_t info;
    struct timespec now = {0, 0}, soon = {20, 0};
    WL_CHECK(sigtimedwait(&set, &info, &now) == -1, "a signal came by itself");
    WL_TRY(write(ends[1], "x", 1));
    WL_CHECK(sigtimedwait(&set, &info, &soon) == SIGRTMIN + 3, "no signal");
    WL_CHECK(info.si_fd == ends[0], "it tells descriptor %d", info.si_fd);
    wl_pass();
}
