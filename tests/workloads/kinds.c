/*
 * One kind of kernel object at a time, chosen by the first argument, as ordinary programs use it: what every engine of
 * the image format can carry. The corners of each kind are in workloads of their own.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void talk(int from, int to, const char *text)
{
    char got[64] = "";
    ssize_t length = (ssize_t)strlen(text);

    WL_CHECK(write(from, text, strlen(text)) == length, "cannot send \"%s\": %s", text, strerror(errno));
    WL_CHECK(read(to, got, sizeof(got) - 1) == length && strcmp(got, text) == 0, "received \"%s\", not \"%s\"", got,
             text);
}

static void wait_dump(void)
{
    wl_ready();
    wl_wait();
}

static void do_epoll(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0xffffffff00000001}, got[4];
    int epoll = WL_TRY(epoll_create1(EPOLL_CLOEXEC)), ends[2], fired = WL_TRY(eventfd(1, 0));

    WL_TRY(pipe(ends));
    WL_TRY(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
    event.events = EPOLLIN | EPOLLONESHOT;
    event.data.u64 = 2;
    WL_TRY(epoll_ctl(epoll, EPOLL_CTL_ADD, fired, &event));
    WL_CHECK(epoll_wait(epoll, got, 4, 0) == 1 && got[0].data.u64 == 2, "no one-shot event");
    wait_dump();
    WL_CHECK(epoll_wait(epoll, got, 4, 0) == 0, "an event from nowhere");
    WL_CHECK(write(ends[1], "x", 1) == 1, "write");
    WL_CHECK(epoll_wait(epoll, got, 4, 0) == 1 && got[0].data.u64 == 0xffffffff00000001, "not the event of the pipe");
}

static void do_eventfd(void)
{
    int fd = WL_TRY(eventfd(7, EFD_NONBLOCK));
    eventfd_t value;

    wait_dump();
    WL_TRY(eventfd_read(fd, &value));
    WL_CHECK(value == 7, "the counter was %llx", (unsigned long long)value);
    WL_CHECK(eventfd_read(fd, &value) == -1 && errno == EAGAIN, "it blocks");
}

static void do_unix(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    struct sockaddr_un inbox = {.sun_family = AF_UNIX, .sun_path = "inbox"};
    int stream[2], datagram[2], listener = WL_TRY(socket(AF_UNIX, SOCK_STREAM, 0));
    int receiver = WL_TRY(socket(AF_UNIX, SOCK_DGRAM, 0)), sender = WL_TRY(socket(AF_UNIX, SOCK_DGRAM, 0));
    char got[16] = "";

    WL_TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
    WL_CHECK(write(stream[0], "queued", 6) == 6, "write");
    WL_TRY(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, datagram));
    WL_CHECK(write(datagram[0], "one", 3) == 3 && write(datagram[0], "second", 6) == 6, "write");
    WL_TRY(bind(listener, (struct sockaddr *)&address, sizeof(address)));
    WL_TRY(listen(listener, 5));
    int client = WL_TRY(socket(AF_UNIX, SOCK_STREAM, 0));
    WL_TRY(connect(client, (struct sockaddr *)&address, sizeof(address)));
    int server = WL_TRY(accept(listener, NULL, NULL));
    WL_TRY(bind(receiver, (struct sockaddr *)&inbox, sizeof(inbox)));
    WL_TRY(connect(sender, (struct sockaddr *)&inbox, sizeof(inbox)));
    wait_dump();
    WL_CHECK(read(stream[1], got, sizeof(got)) == 6 && memcmp(got, "queued", 6) == 0, "received \"%s\"", got);
    WL_CHECK(read(datagram[1], got, sizeof(got)) == 3 && read(datagram[1], got, sizeof(got)) == 6, "no two packets");
    talk(stream[1], stream[0], "back");
    talk(client, server, "to the server");
    talk(server, client, "to the client");
    talk(sender, receiver, "a datagram");
    int late = WL_TRY(socket(AF_UNIX, SOCK_STREAM, 0));
    WL_TRY(connect(late, (struct sockaddr *)&address, sizeof(address)));
    talk(late, WL_TRY(accept(listener, NULL, NULL)), "late");
}

/* A socket of that family and type, bound to a free port of the loopback address; its address. */
static int bound(int family, int type, struct sockaddr_in6 *address, socklen_t *size)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    int fd = WL_TRY(socket(family, type, 0));

    memset(address, 0, sizeof(*address));
    address->sin6_family = (sa_family_t)family;
    if (family == AF_INET)
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        address->sin6_addr = in6addr_loopback;
    *size = family == AF_INET ? sizeof(*v4) : sizeof(*address);
    WL_TRY(bind(fd, (struct sockaddr *)address, *size));
    WL_TRY(getsockname(fd, (struct sockaddr *)address, size));
    return fd;
}

static void do_listener(int family)
{
    struct sockaddr_in6 address;
    socklen_t size;
    int on = 1, listener = bound(family, SOCK_STREAM, &address, &size);

    WL_TRY(listen(listener, 5));
    WL_TRY(setsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
    wait_dump();
    int client = WL_TRY(socket(family, SOCK_STREAM, 0));
    WL_TRY(connect(client, (struct sockaddr *)&address, size));
    talk(client, WL_TRY(accept(listener, NULL, NULL)), "hello");
    socklen_t on_size = sizeof(on);
    on = 0;
    WL_TRY(getsockopt(listener, SOL_SOCKET, SO_KEEPALIVE, &on, &on_size));
    WL_CHECK(on == 1, "SO_KEEPALIVE is lost");
}

static void do_tcp4(void)
{
    do_listener(AF_INET);
}

static void do_tcp6(void)
{
    do_listener(AF_INET6);
}

static void do_connection(void)
{
    struct sockaddr_in6 address;
    socklen_t size;
    int listener = bound(AF_INET, SOCK_STREAM, &address, &size), client = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));
    char got[16] = "";

    WL_TRY(listen(listener, 1));
    WL_TRY(connect(client, (struct sockaddr *)&address, size));
    int server = WL_TRY(accept(listener, NULL, NULL));
    WL_TRY(close(listener));
    WL_CHECK(write(client, "queued", 6) == 6, "write");
    wait_dump();
    WL_CHECK(read(server, got, sizeof(got)) == 6 && memcmp(got, "queued", 6) == 0, "received \"%s\"", got);
    talk(client, server, "there");
    talk(server, client, "and back");
}

static void do_udp(void)
{
    struct sockaddr_in6 address, address6;
    socklen_t size, size6;
    int receiver = bound(AF_INET, SOCK_DGRAM, &address, &size), sender = WL_TRY(socket(AF_INET, SOCK_DGRAM, 0));
    int six = bound(AF_INET6, SOCK_DGRAM, &address6, &size6), sender6 = WL_TRY(socket(AF_INET6, SOCK_DGRAM, 0));

    WL_TRY(connect(sender, (struct sockaddr *)&address, size));
    WL_TRY(connect(sender6, (struct sockaddr *)&address6, size6));
    wait_dump();
    talk(sender, receiver, "four");
    talk(sender6, six, "six");
}

static void do_zombie(void)
{
    siginfo_t info;
    int status;
    pid_t exited = WL_TRY(fork());

    if (exited == 0)
        _exit(42);
    pid_t killed = WL_TRY(fork());
    if (killed == 0) {
        wl_unblock_term();
        raise(SIGKILL);
    }
    WL_TRY(waitid(P_PID, (id_t)exited, &info, WEXITED | WNOWAIT));
    WL_TRY(waitid(P_PID, (id_t)killed, &info, WEXITED | WNOWAIT));
    wait_dump();
    WL_CHECK(waitpid(exited, &status, WNOHANG) == exited && WIFEXITED(status) && WEXITSTATUS(status) == 42,
             "the first ended with %#x", status);
    WL_CHECK(waitpid(killed, &status, WNOHANG) == killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
             "the second ended with %#x", status);
}

/* A child that waits until its end of the pipe is closed, after step() in it. */
static pid_t child_of(int ends[2], void (*step)(void))
{
    char c;

    WL_TRY(pipe(ends));
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        WL_TRY(close(ends[1]));
        if (step != NULL)
            step();
        _exit(read(ends[0], &c, 1) == 0 ? 7 : 1);
    }
    WL_TRY(close(ends[0]));
    return child;
}

static void expect_end(pid_t child, int ends[2])
{
    int status;

    WL_TRY(close(ends[1]));
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child ended with %#x", status);
}

static void do_group(void)
{
    int first_end[2], second_end[2];
    pid_t first = child_of(first_end, NULL);
    WL_TRY(setpgid(first, first));
    pid_t second = child_of(second_end, NULL);
    WL_TRY(close(fcntl(first_end[1], F_DUPFD_CLOEXEC, 200)));
    WL_TRY(setpgid(second, first));
    wait_dump();
    WL_CHECK(getpgid(first) == first && getpgid(second) == first && getsid(second) == getpid(), "another group");
    /* The second child has a copy of the first one's end. */
    expect_end(second, second_end);
    expect_end(first, first_end);
}

static int session_ready[2];

static void lead_session(void)
{
    WL_TRY(setsid());
    WL_CHECK(write(session_ready[1], "x", 1) == 1, "write");
}

static void do_session(void)
{
    int ends[2];
    char c;

    WL_TRY(pipe(session_ready));
    pid_t child = child_of(ends, lead_session);
    WL_CHECK(read(session_ready[0], &c, 1) == 1, "read");
    wait_dump();
    WL_CHECK(getsid(child) == child && getpgid(child) == child, "the child's session is %d", getsid(child));
    expect_end(child, ends);
}

static void do_stopped(void)
{
    int ends[2];
    siginfo_t info;
    pid_t child = child_of(ends, NULL);

    WL_TRY(kill(child, SIGSTOP));
    WL_TRY(waitid(P_PID, (id_t)child, &info, WSTOPPED));
    wait_dump();
    char path[64], text[4096] = "";
    snprintf(path, sizeof(path), "/proc/%d/status", child);
    int fd = WL_TRY(open(path, O_RDONLY));
    WL_TRY(read(fd, text, sizeof(text) - 1));
    WL_CHECK(strstr(text, "State:\tT") != NULL, "the child is not stopped");
    WL_TRY(kill(child, SIGCONT));
    expect_end(child, ends);
}

static void do_inotify(void)
{
    struct inotify_event *event;
    char room[256];
    int fd = WL_TRY(inotify_init1(IN_CLOEXEC));

    WL_TRY(mkdir("watched", 0755));
    int watch = WL_TRY(inotify_add_watch(fd, "watched", IN_CREATE));
    wait_dump();
    WL_TRY(close(open("watched/new", O_CREAT | O_WRONLY, 0644)));
    WL_CHECK(read(fd, room, sizeof(room)) > 0, "read");
    event = (struct inotify_event *)room;
    WL_CHECK(event->wd == watch && event->mask == IN_CREATE && strcmp(event->name, "new") == 0, "event %x of %d",
             event->mask, event->wd);
}

static void do_pidfd(void)
{
    int ends[2];
    pid_t child = child_of(ends, NULL);
    int fd = (int)WL_TRY(syscall(SYS_pidfd_open, child, 0));

    wait_dump();
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    WL_CHECK(poll(&poller, 1, 0) == 0, "the child is dead");
    expect_end(child, ends);
    WL_CHECK(poll(&poller, 1, 0) == 1, "the child is said to live");
}

static void do_pty(void)
{
    struct winsize size = {.ws_row = 33, .ws_col = 77};
    struct termios settings;
    int master = wl_open_master(O_RDWR | O_NOCTTY);

    WL_TRY(grantpt(master));
    WL_TRY(unlockpt(master));
    int slave = WL_TRY(open(ptsname(master), O_RDWR | O_NOCTTY));
    WL_TRY(tcgetattr(slave, &settings));
    settings.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
    settings.c_cc[VINTR] = 7;
    WL_TRY(tcsetattr(slave, TCSANOW, &settings));
    WL_TRY(ioctl(slave, TIOCSWINSZ, &size));
    wait_dump();
    memset(&size, 0, sizeof(size));
    WL_TRY(ioctl(master, TIOCGWINSZ, &size));
    WL_CHECK(size.ws_row == 33 && size.ws_col == 77, "the window is %d by %d", size.ws_row, size.ws_col);
    WL_TRY(tcgetattr(slave, &settings));
    WL_CHECK(!(settings.c_lflag & (ICANON | ECHO)) && settings.c_cc[VINTR] == 7, "other settings");
    talk(master, slave, "typed");
    talk(slave, master, "printed");
}

static void do_ghost(void)
{
    char got[16] = "";
    int fd = WL_TRY(open("ghost", O_CREAT | O_RDWR, 0640));

    WL_CHECK(write(fd, "contents", 8) == 8, "write");
    WL_TRY(unlink("ghost"));
    wait_dump();
    WL_CHECK(pread(fd, got, sizeof(got), 0) == 8 && memcmp(got, "contents", 8) == 0, "contents \"%s\"", got);
    WL_CHECK(access("ghost", F_OK) == -1, "the file has its name again");
}

static void do_shared(void)
{
    int status;
    volatile int *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int ends[2];

    WL_CHECK(page != MAP_FAILED, "mmap: %s", strerror(errno));
    *page = 5;
    WL_TRY(pipe(ends));
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        char c;
        WL_TRY(close(ends[1]));
        WL_CHECK(read(ends[0], &c, 1) == 0, "read");
        _exit(++*page == 11 ? 0 : 1);
    }
    wait_dump();
    WL_CHECK(*page == 5, "the page holds %d", *page);
    *page = 10;
    WL_TRY(close(ends[1]));
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(status == 0 && *page == 11, "the child did not share the page: %d", *page);
}

static const struct {
    const char *name;
    void (*run)(void);
} KINDS[] = {
    {"epoll", do_epoll},   {"eventfd", do_eventfd}, {"unix", do_unix},       {"tcp4", do_tcp4},
    {"tcp6", do_tcp6},     {"udp", do_udp},         {"zombie", do_zombie},   {"group", do_group},
    {"session", do_session}, {"stopped", do_stopped}, {"inotify", do_inotify}, {"pidfd", do_pidfd},
    {"pty", do_pty},       {"ghost", do_ghost},     {"shared", do_shared},   {"connection", do_connection},
};

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    for (size_t i = 0; i < sizeof(KINDS) / sizeof(KINDS[0]); i++)
        if (wl_argc == 1 && strcmp(wl_argv[0], KINDS[i].name) == 0) {
            KINDS[i].run();
            wl_pass();
        }
    wl_fail("no such kind");
}
