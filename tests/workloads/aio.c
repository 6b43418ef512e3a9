/*
 * Asynchronous I/O (io_setup): a context with completions that nobody has fetched, one that has been round its ring, an
 * empty one. All go on working under their old names.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N_UNREAD 5

static aio_context_t make(unsigned n_requests)
{
    aio_context_t context = 0;

    WL_TRY(syscall(SYS_io_setup, n_requests, &context));
    return context;
}

/* Read one byte at an offset of the file; the event bears the tag. */
static void submit(aio_context_t context, int fd, char *into, long offset, uint64_t tag)
{
    struct iocb request = {
        .aio_data = tag,
        .aio_lio_opcode = IOCB_CMD_PREAD,
        .aio_fildes = fd,
        .aio_buf = (uintptr_t)into,
        .aio_nbytes = 1,
        .aio_offset = offset,
    };
    struct iocb *requests[] = {&request};

    WL_CHECK(syscall(SYS_io_submit, context, 1L, requests) == 1, "io_submit: %s", strerror(errno));
}

static void expect(aio_context_t context, uint64_t tag)
{
    struct io_event event;

    WL_CHECK(WL_TRY(syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL)) == 1, "no event");
    WL_CHECK(event.data == tag && event.res == 1, "event %llu with result %lld instead of %llu",
             (unsigned long long)event.data, (long long)event.res, (unsigned long long)tag);
}

static void expect_none(aio_context_t context)
{
    struct timespec now = {0};
    struct io_event event;

    WL_CHECK(WL_TRY(syscall(SYS_io_getevents, context, 0L, 1L, &event, &now)) == 0, "an event too many");
}

int main(int argc, char **argv)
{
    char bytes[N_UNREAD], byte;

    wl_init(argc, argv);
    int fd = WL_TRY(open("data", O_RDWR | O_CREAT | O_TRUNC, 0600));
    WL_TRY(write(fd, "abcdefgh", 8));
    aio_context_t waiting = make(64), round = make(10), empty = make(1000);

    for (int i = 0; i < 3; i++) {
        submit(waiting, fd, &byte, 0, i);
        expect(waiting, i);
    }
    for (int i = 0; i < N_UNREAD; i++)
        submit(waiting, fd, bytes + i, i, 100 + i);
    /* The ring's second word is its size. */
    unsigned n_events = ((volatile unsigned *)round)[1];
    for (unsigned i = 0; i < n_events + 3; i++) {
        submit(round, fd, &byte, 0, i);
        if (i >= 10)
            expect(round, i - 10);
    }

    wl_ready();
    wl_wait();

    for (int i = 0; i < N_UNREAD; i++)
        expect(waiting, 100 + i);
    WL_CHECK(memcmp(bytes, "abcde", N_UNREAD) == 0, "what was read is lost");
    expect_none(waiting);
    for (unsigned i = n_events + 3 - 10; i < n_events + 3; i++)
        expect(round, i);
    expect_none(round);
    expect_none(empty);
    aio_context_t contexts[] = {waiting, round, empty};
    for (int i = 0; i < 3; i++) {
        submit(contexts[i], fd, &byte, 5, 7);
        expect(contexts[i], 7);
        WL_CHECK(byte == 'f', "a new request has read %#x", byte);
        expect_none(contexts[i]);
        WL_TRY(syscall(SYS_io_destroy, contexts[i]));
    }
    wl_pass();
}
