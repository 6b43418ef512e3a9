/*
 * epolls: level- and edge-triggered, one-shot armed and disarmed, exclusive, nested; watched files whose descriptor was
 * closed or is now another file; a signalfd.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static void add(int epoll, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};

    WL_TRY(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

/* The data of the one event that is ready; 0 for none. */
static uint64_t next_event(int epoll)
{
    struct epoll_event events[8];
    int n_ready = WL_TRY(epoll_wait(epoll, events, 8, 0));

    WL_CHECK(n_ready <= 1, "%d events are ready, the first two are %llx and %llx", n_ready,
             (unsigned long long)events[0].data.u64, (unsigned long long)events[1].data.u64);
    return n_ready == 1 ? events[0].data.u64 : 0;
}

static void expect_event(int epoll, uint64_t data, const char *what)
{
    uint64_t found = next_event(epoll);

    WL_CHECK(found == data, "%s: the event is %llx, not %llx", what, (unsigned long long)found,
             (unsigned long long)data);
}

/* linux/eventpoll.h, since 6.9. */
struct polling {
    uint32_t usecs;
    uint16_t budget;
    uint8_t prefer, pad;
};
#define EPIOCSPARAMS_ _IOW(0x8A, 1, struct polling)
#define EPIOCGPARAMS_ _IOR(0x8A, 2, struct polling)

int main(int argc, char **argv)
{
    eventfd_t value;
    sigset_t mask;
    int ends[2];

    wl_init(argc, argv);
    int outer = WL_TRY(epoll_create1(EPOLL_CLOEXEC));
    int inner = WL_TRY(epoll_create1(0));
    add(outer, inner, EPOLLIN, 0x1111111111111111);
    struct polling polling = {.usecs = 50, .budget = 8, .prefer = 1}, found = {0};
    int polls = ioctl(inner, EPIOCSPARAMS_, &polling) == 0;

    int level = WL_TRY(eventfd(0, EFD_NONBLOCK));
    add(inner, level, EPOLLIN, 0xffffffff00000001);

    /* Its edge has been seen. */
    int edge = WL_TRY(eventfd(1, EFD_NONBLOCK));
    add(inner, edge, EPOLLIN | EPOLLET, 2);
    expect_event(inner, 2, "edge");

    /* One has fired, the other has not. */
    int fired = WL_TRY(eventfd(1, EFD_NONBLOCK));
    add(inner, fired, EPOLLIN | EPOLLONESHOT, 3);
    expect_event(inner, 3, "one-shot");
    int armed = WL_TRY(eventfd(0, EFD_NONBLOCK));
    add(inner, armed, EPOLLIN | EPOLLONESHOT, 4);

    int exclusive = WL_TRY(eventfd(0, EFD_NONBLOCK));
    add(inner, exclusive, EPOLLIN | EPOLLEXCLUSIVE, 5);

    /* The number by which it was added is closed; of another, it is the terminal of something else. */
    int closed = WL_TRY(eventfd(0, EFD_NONBLOCK));
    int closed_too = WL_TRY(dup(closed));
    add(inner, closed, EPOLLIN, 6);
    WL_TRY(close(closed));
    WL_TRY(pipe(ends));
    int reused = WL_TRY(dup(ends[0]));
    add(inner, reused, EPOLLIN, 7);
    WL_TRY(dup2(level, reused));

    /* Only a child has it still. */
    int childs[2];
    WL_TRY(pipe(childs));
    add(inner, childs[0], EPOLLIN, 8);
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        char c;

        WL_TRY(close(childs[1]));
        _exit(read(childs[0], &c, 1) == 1 && read(childs[0], &c, 1) == 0 ? 0 : 1);
    }
    WL_TRY(close(childs[0]));

    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    WL_TRY(sigprocmask(SIG_BLOCK, &mask, NULL));
    int signals = WL_TRY(signalfd(-1, &mask, SFD_NONBLOCK));
    add(inner, signals, EPOLLIN, 9);
    expect_event(outer, 0, "outer");

    wl_ready();
    wl_wait();

    /* An edge that was seen may be seen again, never another event. */
    uint64_t again = next_event(inner);
    WL_CHECK(again == 0 || again == 2, "nothing has happened, but the event is %llx", (unsigned long long)again);
    expect_event(outer, 0, "outer, nothing has happened");
    expect_event(inner, 0, "inner, nothing has happened");
    WL_TRY(eventfd_write(level, 1));
    expect_event(outer, 0x1111111111111111, "outer");
    expect_event(inner, 0xffffffff00000001, "level");
    expect_event(inner, 0xffffffff00000001, "level again");
    WL_TRY(eventfd_read(level, &value));
    WL_TRY(eventfd_write(edge, 1));
    expect_event(inner, 2, "edge");
    expect_event(inner, 0, "edge again");
    WL_TRY(eventfd_write(fired, 1));
    expect_event(inner, 0, "a one-shot that has fired");
    struct epoll_event rearm = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 33};
    WL_TRY(epoll_ctl(inner, EPOLL_CTL_MOD, fired, &rearm));
    expect_event(inner, 33, "a one-shot armed again");
    WL_TRY(eventfd_write(armed, 1));
    expect_event(inner, 4, "one-shot");
    expect_event(inner, 0, "one-shot again");
    WL_TRY(eventfd_write(exclusive, 1));
    expect_event(inner, 5, "exclusive");
    WL_TRY(eventfd_read(exclusive, &value));
    WL_TRY(eventfd_write(closed_too, 1));
    expect_event(inner, 6, "by a closed number");
    WL_TRY(eventfd_read(closed_too, &value));
    WL_CHECK(write(ends[1], "x", 1) == 1, "write to a pipe");
    expect_event(inner, 7, "by a number used again");
    char c;
    WL_CHECK(read(ends[0], &c, 1) == 1, "read from a pipe");
    WL_TRY(kill(getpid(), SIGUSR2));
    expect_event(inner, 9, "signal");
    struct signalfd_siginfo info;
    WL_CHECK(read(signals, &info, sizeof(info)) == sizeof(info), "read from a signalfd");
    int status;
    WL_CHECK(write(childs[1], "xy", 1) == 1, "write to the child");
    WL_TRY(close(childs[1]));
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(status == 0, "the child ended with %#x", status);
    expect_event(inner, 0, "at the end");
    WL_CHECK(!polls || (ioctl(inner, EPIOCGPARAMS_, &found) == 0 && !memcmp(&found, &polling, sizeof(found))),
             "it polls devices for %u us, %u packets", found.usecs, found.budget);
    wl_pass();
}
