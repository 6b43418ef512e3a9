/* flock, POSIX and open-file-description locks, and leases, one of them being broken. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

static int make(const char *name)
{
    return WL_TRY(open(name, O_RDWR | O_CREAT, 0600));
}

/* Whether another process could take that POSIX lock. */
static bool is_free(const char *name, short type, off_t start, off_t length)
{
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        struct flock lock = {.l_type = type, .l_start = start, .l_len = length};
        _exit(fcntl(open(name, O_RDWR), F_SETLK, &lock) == -1);
    }
    int status;
    WL_TRY(waitpid(child, &status, 0));
    return status == 0;
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    int flocked = make("flocked"), posix = make("posix"), ofd = make("ofd");
    WL_TRY(flock(flocked, LOCK_EX));
    struct flock lock = {.l_type = F_WRLCK, .l_start = 10, .l_len = 20};
    WL_TRY(fcntl(posix, F_SETLK, &lock));
    lock = (struct flock){.l_type = F_RDLCK, .l_start = 100};
    WL_TRY(fcntl(posix, F_SETLK, &lock));
    lock = (struct flock){.l_type = F_WRLCK, .l_start = 5, .l_len = 5};
    WL_TRY(fcntl(ofd, F_OFD_SETLK, &lock));
    int leased = make("leased"), broken = make("broken");
    signal(SIGIO, SIG_IGN);
    WL_TRY(fcntl(leased, F_SETLEASE, F_WRLCK));
    WL_TRY(fcntl(broken, F_SETLEASE, F_WRLCK));
    WL_CHECK(open("broken", O_RDONLY | O_NONBLOCK) == -1 && errno == EWOULDBLOCK, "the lease does not hold");
    WL_CHECK(fcntl(broken, F_GETLEASE) == F_RDLCK, "the lease is not being broken");
    wl_ready();
    wl_wait();
    int again = WL_TRY(open("flocked", O_RDWR));
    WL_CHECK(flock(again, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK, "the flock is gone");
    WL_TRY(flock(flocked, LOCK_UN));
    WL_TRY(flock(again, LOCK_SH | LOCK_NB));
    WL_CHECK(!is_free("posix", F_RDLCK, 10, 20) && !is_free("posix", F_RDLCK, 29, 1), "the write lock is gone");
    WL_CHECK(is_free("posix", F_WRLCK, 0, 10) && is_free("posix", F_WRLCK, 30, 70), "the write lock has grown");
    WL_CHECK(is_free("posix", F_RDLCK, 100, 0) && !is_free("posix", F_WRLCK, 1000, 1), "the read lock has changed");
    again = WL_TRY(open("ofd", O_RDWR));
    lock = (struct flock){.l_type = F_RDLCK, .l_start = 9, .l_len = 1};
    WL_CHECK(fcntl(again, F_OFD_SETLK, &lock) == -1, "the OFD lock is gone");
    WL_CHECK(fcntl(leased, F_GETLEASE) == F_WRLCK, "the lease is gone");
    WL_CHECK(fcntl(broken, F_GETLEASE) == F_RDLCK, "the broken lease is %d", fcntl(broken, F_GETLEASE));
    WL_TRY(fcntl(broken, F_SETLEASE, F_UNLCK));
    wl_pass();
}
