/*
 * Who waits to be told of a message in a queue: by a signal with a value, of an empty queue and of one that is not.
 * With "child", a child maps a large file that is deleted.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile sig_atomic_t n_told;
static volatile int value;

static void told(int signo, siginfo_t *info, void *context)
{
    (void)signo;
    (void)context;
    n_told++;
    value = info->si_value.sival_int;
}

static mqd_t make(const char *what)
{
    struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 16};
    char name[40];

    snprintf(name, sizeof(name), "/torpor-%s-%d", what, getpid());
    mqd_t queue = WL_TRY(mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr));
    WL_TRY(mq_unlink(name));
    return queue;
}

static void notify(mqd_t queue, int kind, int signo, int with)
{
    struct sigevent event = {.sigev_notify = kind, .sigev_signo = signo, .sigev_value.sival_int = with};

    WL_TRY(mq_notify(queue, &event));
}

static void drain(mqd_t queue, int n_messages)
{
    char buffer[16];

    for (int i = 0; i < n_messages; i++)
        WL_CHECK(mq_receive(queue, buffer, sizeof(buffer), NULL) == 3, "a message is lost");
    WL_CHECK(mq_receive(queue, buffer, sizeof(buffer), NULL) == -1 && errno == EAGAIN, "a message too many");
}

/* The next message tells, with that value; the one after it does not, since one is told once. */
static void expect_told(mqd_t queue, int wanted)
{
    n_told = 0;
    WL_TRY(mq_send(queue, "new", 3, 0));
    WL_CHECK(n_told == 1 && value == wanted, "told %d times, with %d instead of %d", n_told, value, wanted);
    drain(queue, 1);
    WL_TRY(mq_send(queue, "new", 3, 0));
    WL_CHECK(n_told == 1, "told again");
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = told, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_NONE};

    wl_init(argc, argv);
    WL_TRY(sigaction(SIGUSR1, &action, NULL));
    WL_TRY(sigaction(SIGRTMIN + 2, &action, NULL));
    mqd_t empty = make("empty"), full = make("full"), none = make("none"), nobody = make("nobody");
    notify(empty, SIGEV_SIGNAL, SIGUSR1, 71);
    WL_TRY(mq_send(full, "old", 3, 5));
    WL_TRY(mq_send(full, "old", 3, 7));
    notify(full, SIGEV_SIGNAL, SIGRTMIN + 2, 72);
    WL_TRY(mq_send(none, "old", 3, 0));
    notify(none, SIGEV_NONE, 0, 0);

    if (wl_argc > 0 && WL_TRY(fork()) == 0) {
        int fd = WL_TRY(open("large", O_RDWR | O_CREAT, 0600));
        static const char page[65536] = "x";
        WL_TRY(write(fd, page, sizeof(page)));
        WL_TRY(mmap(NULL, sizeof(page), PROT_READ, MAP_SHARED, fd, 0));
        WL_TRY(unlink("large"));
        WL_TRY(close(fd));
        wl_ready();
        wl_wait();
        _exit(0);
    }
    if (wl_argc == 0)
        wl_ready();
    wl_wait();

    WL_CHECK(n_told == 0, "told of nothing");
    WL_CHECK(mq_notify(none, &event) == -1 && errno == EBUSY, "nobody waits any more");
    WL_TRY(mq_notify(nobody, &event));
    expect_told(empty, 71);
    drain(full, 2);
    WL_CHECK(n_told == 1, "told of messages that were there");
    expect_told(full, 72);
    wl_pass();
}
