/* A signalfd, with a signal that waits to be read from it. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct signalfd_siginfo info;
    sigset_t mask;

    wl_init(argc, argv);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGRTMAX);
    WL_TRY(sigprocmask(SIG_BLOCK, &mask, NULL));
    int fd = WL_TRY(signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC));
    union sigval value = {.sival_int = 77};
    WL_TRY(sigqueue(getpid(), SIGRTMAX, value));

    wl_ready();
    wl_wait();

    WL_CHECK(WL_TRY(fcntl(fd, F_GETFL)) & O_NONBLOCK, "O_NONBLOCK is lost");
    WL_CHECK(read(fd, &info, sizeof(info)) == sizeof(info), "the pending signal is lost: %s", strerror(errno));
    WL_CHECK(info.ssi_signo == (unsigned)SIGRTMAX && info.ssi_int == 77, "signal %u, value %d", info.ssi_signo, info.ssi_int);
    WL_CHECK(read(fd, &info, sizeof(info)) == -1 && errno == EAGAIN, "more than one signal");
    WL_TRY(kill(getpid(), SIGUSR1));
    WL_CHECK(read(fd, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGUSR1, "SIGUSR1 is not in the mask");
    wl_pass();
}
