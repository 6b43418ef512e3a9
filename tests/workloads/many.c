// cflags: -lrt
/* As many objects of one kind as the second argument says, the first one names it.  Each is looked at afterwards. */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX 20000
#define PAGE 4096L

static int n, a[MAX], b[MAX], shared_fd, other_fd;
static void *p[MAX];
static timer_t timers[MAX];

static const char *name_of(int i)
{
    static char name[32];
    snprintf(name, sizeof name, "f%d", i);
    return name;
}

static int byte_from(int fd)
{
    unsigned char byte;
    WL_CHECK(read(fd, &byte, 1) == 1, "nothing in %d", fd);
    return byte;
}

static void put(int fd, int i)
{
    unsigned char byte = (unsigned char)i;
    WL_TRY(write(fd, &byte, 1));
}

static void make_pipe(int i)
{
    int ends[2];
    WL_TRY(pipe(ends));
    a[i] = ends[0], b[i] = ends[1];
    put(b[i], i);
}

static void check_byte(int i)
{
    WL_CHECK(byte_from(a[i]) == (unsigned char)i, "object %d is another", i);
}

static void make_pair(int type, int i)
{
    int ends[2];
    WL_TRY(socketpair(AF_UNIX, type, 0, ends));
    a[i] = ends[0], b[i] = ends[1];
    put(b[i], i);
}

static void make_unix_stream(int i)
{
    make_pair(SOCK_STREAM, i);
}

static void make_unix_dgram(int i)
{
    make_pair(SOCK_DGRAM, i);
}

static void make_named(int i)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof name.sun_path, "s%d", i);
    a[i] = WL_TRY(socket(AF_UNIX, SOCK_STREAM, 0));
    WL_TRY(bind(a[i], (struct sockaddr *)&name, sizeof name));
    WL_TRY(listen(a[i], 5));
}

static void make_inet(int type, int i)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    a[i] = WL_TRY(socket(AF_INET, type, 0));
    WL_TRY(bind(a[i], (struct sockaddr *)&name, sizeof name));
    if (type == SOCK_STREAM)
        WL_TRY(listen(a[i], 5));
}

static void make_listener(int i)
{
    make_inet(SOCK_STREAM, i);
}

static void make_udp(int i)
{
    make_inet(SOCK_DGRAM, i);
}

static void make_connection(int i)
{
    struct sockaddr_in name;
    socklen_t length = sizeof name;
    if (i == 0)
        make_inet(SOCK_STREAM, MAX - 1);
    WL_TRY(getsockname(a[MAX - 1], (struct sockaddr *)&name, &length));
    b[i] = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));
    WL_TRY(connect(b[i], (struct sockaddr *)&name, sizeof name));
    a[i] = WL_TRY(accept(a[MAX - 1], NULL, NULL));
    put(b[i], i);
}

static void check_socket(int i)
{
    int type;
    socklen_t length = sizeof type;
    WL_TRY(getsockopt(a[i], SOL_SOCKET, SO_TYPE, &type, &length));
}

static void make_eventfd(int i)
{
    a[i] = WL_TRY(eventfd((unsigned)i + 1, 0));
}

static void check_eventfd(int i)
{
    uint64_t value;
    WL_CHECK(read(a[i], &value, 8) == 8 && value == (uint64_t)i + 1, "eventfd %d", i);
}

static void make_timerfd(int i)
{
    struct itimerspec when = {.it_value = {100000 + i, 0}};
    a[i] = WL_TRY(timerfd_create(CLOCK_MONOTONIC, 0));
    WL_TRY(timerfd_settime(a[i], 0, &when, NULL));
}

static void check_timerfd(int i)
{
    struct itimerspec when;
    WL_TRY(timerfd_gettime(a[i], &when));
    WL_CHECK(when.it_value.tv_sec > 1000 + i, "timer %d", i);
}

static void make_signalfd(int i)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, 1 + i % 8);
    a[i] = WL_TRY(signalfd(-1, &set, 0));
}

static void check_open(int i)
{
    WL_TRY(fcntl(a[i], F_GETFD));
}

static void make_file(int i)
{
    a[i] = WL_TRY(open(name_of(i), O_RDWR | O_CREAT, 0600));
    put(a[i], i);
    WL_TRY(lseek(a[i], 0, SEEK_SET));
}

static void make_ghost(int i)
{
    make_file(i);
    WL_TRY(unlink(name_of(i)));
}

static void make_dup(int i)
{
    if (i == 0)
        make_file(MAX - 1);
    a[i] = WL_TRY(dup(a[MAX - 1]));
}

static void make_same(int i)
{
    if (i == 0)
        make_file(MAX - 1);
    a[i] = WL_TRY(open(name_of(MAX - 1), O_RDWR));
}

static void make_fifo(int i)
{
    WL_TRY(mkfifo(name_of(i), 0600));
    a[i] = WL_TRY(open(name_of(i), O_RDWR));
    put(a[i], i);
}

static void make_memfd(int i)
{
    a[i] = WL_TRY(memfd_create(name_of(i), 0));
    put(a[i], i);
    WL_TRY(lseek(a[i], 0, SEEK_SET));
}

static void make_target(int i)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)i};
    if (i == 0)
        shared_fd = WL_TRY(epoll_create1(0));
    a[i] = WL_TRY(eventfd(0, 0));
    WL_TRY(epoll_ctl(shared_fd, EPOLL_CTL_ADD, a[i], &event));
}

static void make_epoll(int i)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (i == 0)
        shared_fd = WL_TRY(eventfd(0, 0));
    a[i] = WL_TRY(epoll_create1(0));
    WL_TRY(epoll_ctl(a[i], EPOLL_CTL_ADD, shared_fd, &event));
}

static void make_watch(int i)
{
    if (i == 0)
        shared_fd = WL_TRY(inotify_init1(0));
    WL_TRY(mkdir(name_of(i), 0700));
    a[i] = WL_TRY(inotify_add_watch(shared_fd, name_of(i), IN_CREATE));
}

static void nothing(int i)
{
    (void)i;
}

static void make_lock(int i)
{
    struct flock lock = {.l_type = F_WRLCK, .l_start = 2 * i, .l_len = 1};
    if (i == 0)
        make_file(MAX - 1);
    WL_TRY(fcntl(a[MAX - 1], F_SETLK, &lock));
}

static void make_flock(int i)
{
    make_file(i);
    WL_TRY(flock(a[i], LOCK_EX));
}

static void make_timer(int i)
{
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    struct itimerspec when = {.it_value = {100000 + i, 0}};
    WL_TRY(timer_create(CLOCK_MONOTONIC, &event, &timers[i]));
    WL_TRY(timer_settime(timers[i], 0, &when, NULL));
}

static void make_signal(int i)
{
    if (i == 0) {
        sigset_t set;
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGRTMIN);
        WL_TRY(sigprocmask(SIG_BLOCK, &set, NULL));
    }
    WL_TRY(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}));
}

static void make_shm(int i)
{
    a[i] = WL_TRY(shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600));
    p[i] = shmat(a[i], NULL, 0);
    *(int *)p[i] = i;
}

static void check_int(int i)
{
    WL_CHECK(*(int *)p[i] == i, "memory %d", i);
}

static void make_sem(int i)
{
    a[i] = WL_TRY(semget(IPC_PRIVATE, 2, IPC_CREAT | 0600));
}

static void make_msg(int i)
{
    struct {
        long type;
        int word;
    } message = {1, i};
    a[i] = WL_TRY(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
    WL_TRY(msgsnd(a[i], &message, sizeof message.word, 0));
}

static void make_pty(int i)
{
    static int held[WL_N_HELD], n_held;

    if (i == 0) /* above those of all other workloads */
        n_held = wl_hold_terminals(held, 384);
    a[i] = WL_TRY(posix_openpt(O_RDWR | O_NOCTTY));
    while (i == n - 1 && n_held > 0)
        WL_TRY(close(held[--n_held]));
    WL_TRY(grantpt(a[i]));
    WL_TRY(unlockpt(a[i]));
    b[i] = WL_TRY(open(ptsname(a[i]), O_RDWR | O_NOCTTY));
}

static void make_anonymous(int i)
{
    p[i] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, (i % 2 ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
    WL_CHECK(p[i] != MAP_FAILED, "no memory");
    *(int *)p[i] = i;
}

static void make_mapped(int i)
{
    make_file(i);
    WL_TRY(ftruncate(a[i], PAGE));
    p[i] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, i % 2 ? MAP_SHARED : MAP_PRIVATE, a[i], 0);
    WL_CHECK(p[i] != MAP_FAILED, "no memory");
    *(int *)p[i] = i;
    WL_TRY(close(a[i]));
}

static void make_flight(int i)
{
    char control[CMSG_SPACE(sizeof(int))] = "";
    struct iovec data = {"x", 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (i % 50 == 0) {
        int ends[2], size = 1 << 20;
        WL_TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
        shared_fd = ends[0], other_fd = ends[1];
        WL_TRY(setsockopt(shared_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
    }
    int fd = WL_TRY(eventfd((unsigned)i, 0));
    head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    WL_TRY(sendmsg(shared_fd, &message, 0));
    WL_TRY(close(fd));
}

static void make_messages(int i)
{
    if (i % 100 == 0) {
        int ends[2], size = 1 << 20;
        WL_TRY(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends));
        shared_fd = ends[0], other_fd = ends[1];
        WL_TRY(setsockopt(shared_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
    }
    put(shared_fd, i);
}

static void make_pidfd(int i)
{
    a[i] = (int)WL_TRY(syscall(SYS_pidfd_open, getpid(), 0));
}

static void make_directory(int i)
{
    WL_TRY(mkdir(name_of(i), 0700));
    a[i] = WL_TRY(open(name_of(i), O_RDONLY | O_DIRECTORY));
}

static void make_mount(int i)
{
    WL_TRY(mkdir(name_of(i), 0700));
    WL_TRY(mount("many", name_of(i), "tmpfs", 0, "size=64k"));
}

static void make_bind(int i)
{
    if (i == 0)
        make_mount(MAX - 1);
    WL_TRY(mkdir(name_of(i), 0700));
    WL_TRY(mount("f19999", name_of(i), NULL, MS_BIND, NULL));
}

static void make_netlink(int i)
{
    a[i] = WL_TRY(socket(AF_NETLINK, SOCK_RAW, 0));
}

static void make_mqueue(int i)
{
    char name[32];
    snprintf(name, sizeof name, "/many-%d", i);
    a[i] = WL_TRY(mq_open(name, O_RDWR | O_CREAT, 0600, NULL));
}

static const struct {
    const char *name;
    void (*make)(int), (*check)(int);
} kinds[] = {
    {"pipe", make_pipe, check_byte},          {"unix-stream", make_unix_stream, check_byte},
    {"unix-dgram", make_unix_dgram, check_byte}, {"unix-named", make_named, check_socket},
    {"tcp-listener", make_listener, check_socket}, {"udp", make_udp, check_socket},
    {"tcp-pair", make_connection, check_byte}, {"eventfd", make_eventfd, check_eventfd},
    {"timerfd", make_timerfd, check_timerfd}, {"signalfd", make_signalfd, check_open},
    {"file", make_file, check_byte},          {"ghost", make_ghost, check_byte},
    {"dup", make_dup, check_open},            {"same-file", make_same, check_open},
    {"fifo", make_fifo, check_byte},          {"memfd", make_memfd, check_byte},
    {"epoll-target", make_target, check_open}, {"epoll", make_epoll, check_open},
    {"watch", make_watch, nothing},           {"lock", make_lock, nothing},
    {"flock", make_flock, check_open},        {"timer", make_timer, nothing},
    {"signal", make_signal, nothing},         {"shm", make_shm, check_int},
    {"sem", make_sem, nothing},               {"msg", make_msg, nothing},
    {"pty", make_pty, check_open},            {"memory", make_anonymous, check_int},
    {"mapped-file", make_mapped, check_int},  {"in-flight", make_flight, nothing},
    {"messages", make_messages, nothing},     {"pidfd", make_pidfd, check_open},
    {"directory", make_directory, check_open}, {"mount", make_mount, nothing},
    {"bind", make_bind, nothing},             {"netlink", make_netlink, check_open},
    {"mqueue", make_mqueue, check_open},
};

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    struct rlimit limit;
    WL_TRY(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    WL_TRY(setrlimit(RLIMIT_NOFILE, &limit));
    n = atoi(wl_argv[1]);
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        if (strcmp(kinds[kind].name, wl_argv[0]) != 0)
            continue;
        for (int i = 0; i < n; i++)
            kinds[kind].make(i);
        wl_ready();
        wl_wait();
        for (int i = 0; i < n; i++)
            kinds[kind].check(i);
        wl_pass();
    }
    wl_fail("%s is no kind", wl_argv[0]);
}
