// Flags of descriptions and of descriptors, as fcntl(2) tells them: a table of ways to open files of all kinds. Who may
// write to a terminal (mesg), and whose it is. Checked over and over, for some are only lost by a second checkpoint.
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

static struct {
    int fd, status, flags;
    const char *what;
} known[512];
static int n_known;

static void note(int fd, const char *what)
{
    known[n_known].fd = fd;
    known[n_known].what = what;
    known[n_known].status = WL_TRY(fcntl(fd, F_GETFL));
    known[n_known++].flags = WL_TRY(fcntl(fd, F_GETFD));
}

// A descriptor, one that closes on exec, and a duplicate of that which does not.
static void note_all(int fd, const char *what)
{
    note(fd, what);
    note(WL_TRY(fcntl(fd, F_DUPFD_CLOEXEC, 0)), what);
    note(WL_TRY(dup(fd)), what);
}

static void note_files(void)
{
    static const int flags[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_APPEND, O_RDWR | O_SYNC, O_RDWR | O_DSYNC,
        O_RDONLY | O_NOATIME, O_RDWR | O_NONBLOCK, O_RDONLY | O_NOFOLLOW, O_RDWR | O_TRUNC, O_RDWR | O_CREAT,
        O_RDONLY | O_NOCTTY, O_RDONLY | O_CLOEXEC, O_PATH, O_PATH | O_NOFOLLOW, O_PATH | O_CLOEXEC, O_RDWR | O_ASYNC,
        3 /* ioctl(2) only */};
    static const int directory[] = {O_RDONLY, O_RDONLY | O_DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
        O_PATH | O_DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK};

    for (size_t index = 0; index < sizeof(flags) / sizeof(*flags); index++) {
        note_all(WL_TRY(open("file", flags[index], 0600)), "a file");
        if (!(flags[index] & (O_PATH | O_APPEND | O_NOATIME))) // who does not own it may not have O_NOATIME
            note_all(WL_TRY(open("/dev/null", flags[index] & ~(O_CREAT | O_TRUNC))), "/dev/null");
    }
    for (size_t index = 0; index < sizeof(directory) / sizeof(*directory); index++)
        note_all(WL_TRY(open("dir", directory[index])), "a directory");
    WL_TRY(symlink("file", "link"));
    note_all(WL_TRY(open("link", O_PATH | O_NOFOLLOW)), "a link");
    note_all(WL_TRY(open("new", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)), "a new file");
    WL_TRY(mkfifo("fifo", 0600));
    note_all(WL_TRY(open("fifo", O_RDWR | O_NONBLOCK | O_CLOEXEC)), "a fifo");
    note_all(WL_TRY(open("fifo", O_RDONLY | O_NONBLOCK | O_NOFOLLOW)), "a fifo");
}

static void note_kernel_objects(void)
{
    int ends[2];
    sigset_t none;
    sigemptyset(&none);

    note_all(WL_TRY(eventfd(0, EFD_CLOEXEC)), "eventfd");
    note_all(WL_TRY(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), "eventfd");
    note_all(WL_TRY(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)), "timerfd");
    note_all(WL_TRY(signalfd(-1, &none, SFD_CLOEXEC | SFD_NONBLOCK)), "signalfd");
    note_all(WL_TRY(epoll_create1(EPOLL_CLOEXEC)), "epoll");
    note_all(WL_TRY(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)), "inotify");
    note_all(WL_TRY(memfd_create("memory", MFD_CLOEXEC)), "memfd");
    WL_TRY(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
    note_all(ends[0], "pipe"), note_all(ends[1], "pipe");
    WL_TRY(pipe2(ends, O_DIRECT));
    note_all(ends[0], "packet pipe"), note_all(ends[1], "packet pipe");
    WL_TRY(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends));
    note_all(ends[0], "socket"), note_all(ends[1], "socket");
    note_all(WL_TRY(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), "socket");
}

static int note_terminal(void)
{
    static const int flags[] = {O_RDWR, O_RDWR | O_CLOEXEC, O_RDWR | O_CLOEXEC | O_NONBLOCK, O_RDONLY | O_CLOEXEC};
    int master = wl_open_master(O_RDWR | O_NOCTTY | O_CLOEXEC);

    WL_TRY(unlockpt(master));
    note_all(master, "a master");
    for (size_t index = 0; index < sizeof(flags) / sizeof(*flags); index++) {
        int peer = WL_TRY(ioctl(master, TIOCGPTPEER, flags[index] | O_NOCTTY));
        if (index % 2)
            WL_TRY(fcntl(peer, F_SETFD, 0));
        note_all(peer, "a slave by TIOCGPTPEER");
    }
    note_all(WL_TRY(open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW)), "a slave");
    return master;
}

int main(int argc, char **argv)
{
    struct stat was[2], now;

    wl_init(argc, argv);
    WL_TRY(close(WL_TRY(open("file", O_CREAT | O_RDWR, 0600))));
    WL_TRY(mkdir("dir", 0700));
    note_files();
    note_kernel_objects();
    int masters[2] = {note_terminal(), wl_open_master(O_RDWR | O_NOCTTY)};
    WL_TRY(unlockpt(masters[1])); // nobody has its slave open
    for (int index = 0; index < 2; index++) {
        WL_TRY(chown(ptsname(masters[index]), 1 + index, 2 + index));
        WL_TRY(chmod(ptsname(masters[index]), index ? 0622 : 0600));
        WL_TRY(stat(ptsname(masters[index]), &was[index]));
    }

    wl_ready();
    wl_wait();

    for (int index = 0; index < n_known; index++) {
        int fd = known[index].fd, status = fcntl(fd, F_GETFL), flags = fcntl(fd, F_GETFD);
        // What TIOCGPTPEER leaves there has no meaning, and does not come back.
        int apart = (status ^ known[index].status) & ~O_CLOEXEC;
        // A FIFO that may wait for its other end is opened by a link of /proc.
        if (strcmp(known[index].what, "a fifo") == 0)
            apart &= ~O_NOFOLLOW;
        WL_CHECK(!apart, "%s (%d): F_GETFL %#o, was %#o", known[index].what, fd, status, known[index].status);
        WL_CHECK(flags == known[index].flags, "%s (%d): F_GETFD %d", known[index].what, fd, flags);
    }
    for (int index = 0; index < 2; index++) {
        WL_TRY(stat(ptsname(masters[index]), &now));
        WL_CHECK(now.st_mode == was[index].st_mode, "terminal %d: mode %o", index, now.st_mode);
        WL_CHECK(now.st_uid == was[index].st_uid, "terminal %d: uid %u", index, now.st_uid);
        WL_CHECK(now.st_gid == was[index].st_gid, "terminal %d: gid %u", index, now.st_gid);
    }
    wl_pass();
}
