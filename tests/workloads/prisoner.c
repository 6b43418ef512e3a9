/*
 * The only program of a root directory of its own: it has descriptors of many kinds, and writes to every one of them
 * again and again, so that whatever a restore gives it by mistake is written to. Each round rings /bell, a FIFO.
 *
 * Its test (tests/robustness/test_fuzzed_names.py) starts it without the rest of the workloads' ways: it checks nothing.
 */
// cflags: -static
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if ((x) < 0) {                                                                                                 \
            perror(#x);                                                                                                \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static void open_files(void)
{
    int fd;
    CHECK(open("/tmp/file", O_RDWR | O_CREAT, 0644));
    CHECK(open("/data/log", O_RDWR | O_CREAT | O_APPEND, 0644));
    CHECK(fd = open("/data/gone", O_RDWR | O_CREAT, 0600));
    CHECK(write(fd, "deleted", 7));
    CHECK(unlink("/data/gone"));
    CHECK(fd = open("/data/linked", O_RDWR | O_CREAT, 0600));
    CHECK(link("/data/linked", "/data/other"));
    CHECK(unlink("/data/linked"));
    CHECK(mkfifo("/data/fifo", 0600));
    CHECK(open("/data/fifo", O_RDWR));
    CHECK(open("/data", O_RDONLY | O_DIRECTORY));
    CHECK(fd = inotify_init1(IN_NONBLOCK));
    CHECK(inotify_add_watch(fd, "/data", IN_ALL_EVENTS));
    CHECK(fd = open("/data/locked", O_RDWR | O_CREAT, 0600));
    CHECK(flock(fd, LOCK_EX));
}

static void open_sockets(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "/data/socket"};
    struct sockaddr_in any = {.sin_family = AF_INET};
    int fd, pair[2], one = 1;
    CHECK(fd = socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK(bind(fd, (struct sockaddr *)&name, sizeof(name)));
    CHECK(listen(fd, 4));
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    CHECK(write(pair[0], "queued", 6));
    CHECK(fd = socket(AF_INET, SOCK_STREAM, 0));
    CHECK(bind(fd, (struct sockaddr *)&any, sizeof(any)));
    CHECK(listen(fd, 4));
    CHECK(fd = socket(AF_INET, SOCK_DGRAM, 0));
    CHECK(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof(one)));
    CHECK(socket(AF_NETLINK, SOCK_RAW, 0));
    CHECK(fcntl(pair[0], F_SETOWN, getpid()));
    CHECK(fcntl(pair[0], F_SETSIG, SIGUSR1));
}

static void open_others(void)
{
    struct itimerspec often = {{1, 0}, {1, 0}};
    struct epoll_event event = {.events = EPOLLIN};
    int fd, epoll, pipes[2], master, shm;
    CHECK(pipe(pipes));
    CHECK(write(pipes[1], "piped", 5));
    CHECK(eventfd(3, EFD_NONBLOCK));
    CHECK(fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    CHECK(timerfd_settime(fd, 0, &often, NULL));
    CHECK(epoll = epoll_create1(0));
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    CHECK(fd = memfd_create("memory", MFD_ALLOW_SEALING));
    CHECK(ftruncate(fd, 65536));
    CHECK(write(fd, "memory", 6));
    if (mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED)
        exit(1);
    CHECK(master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY));
    CHECK(shm = shmget(1234, 65536, IPC_CREAT | 0600));
    if (shmat(shm, NULL, 0) == (void *)-1)
        exit(1);
    CHECK(semget(1234, 3, IPC_CREAT | 0600));
    CHECK(sethostname("prison", 6));
}

static void ring(int round)
{
    int bell = open("/bell", O_WRONLY | O_NONBLOCK);
    if (bell < 0)
        return;
    if (write(bell, round ? "r" : "s", 1) < 0)
        perror("/bell");
    close(bell);
}

int main(void)
{
    struct timespec pause = {0, 2000000};
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGIO, SIG_IGN);
    open_files();
    open_sockets();
    open_others();
    pid_t child = fork();
    CHECK(child);
    for (int round = 0;; round++) {
        for (int fd = 3; fd < 64; fd++) {
            int flags = fcntl(fd, F_GETFL);
            if (flags < 0)
                continue;
            fcntl(fd, F_SETFL, flags | O_NONBLOCK);
            if (write(fd, "\1prison!", 8) < 0) /* no wonder */
                continue;
        }
        if (child)
            ring(round);
        nanosleep(&pause, NULL);
    }
}
