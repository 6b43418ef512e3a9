/*
 * POSIX message queues: messages of several priorities, a queue that is full, one that was unlinked, one that is only
 * read, one that nobody has open, and a reader that waits.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE 32

static char names[5][40];

static mqd_t make(int index, const char *what, int flags)
{
    struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = SIZE};

    snprintf(names[index], sizeof(names[index]), "/torpor-%s-%d", what, getpid());
    return WL_TRY(mq_open(names[index], flags | O_CREAT | O_EXCL, 0604, &attr));
}

static void put(mqd_t queue, const char *text, unsigned priority)
{
    WL_TRY(mq_send(queue, text, strlen(text), priority));
}

static void expect(mqd_t queue, const char *text, unsigned priority)
{
    char found[SIZE + 1] = "";
    unsigned got = 0;
    ssize_t length = mq_receive(queue, found, SIZE, &got);

    WL_CHECK(length == (ssize_t)strlen(text) && strcmp(found, text) == 0 && got == priority,
             "%zd bytes, %s, of priority %u, instead of %s", length, found, got, text);
}

static void expect_none(mqd_t queue)
{
    char buffer[SIZE];

    WL_CHECK(mq_receive(queue, buffer, SIZE, NULL) == -1 && errno == EAGAIN, "a message too many");
}

static pid_t wait_for_message(mqd_t queue)
{
    pid_t pid = WL_TRY(fork());

    if (pid == 0) {
        expect(queue, "woken", 1);
        _exit(0);
    }
    return pid;
}

static void check_attributes(mqd_t queue)
{
    struct mq_attr attr;
    struct stat info;

    WL_TRY(mq_getattr(queue, &attr));
    WL_CHECK(attr.mq_maxmsg == 4 && attr.mq_msgsize == SIZE && attr.mq_flags == O_NONBLOCK, "other attributes");
    WL_TRY(fstat(queue, &info));
    WL_CHECK((info.st_mode & 0777) == 0604 && info.st_uid == 77, "mode %o, owner %d", info.st_mode, info.st_uid);
}

int main(int argc, char **argv)
{
    int status;

    wl_init(argc, argv);
    umask(0);
    mqd_t full = make(0, "full", O_RDWR | O_NONBLOCK);
    mqd_t gone = make(1, "gone", O_RDWR | O_NONBLOCK);
    mqd_t written = make(2, "read", O_WRONLY);
    mqd_t read_only = WL_TRY(mq_open(names[2], O_RDONLY | O_NONBLOCK));
    mqd_t closed = make(3, "closed", O_WRONLY);
    mqd_t waited = make(4, "waited", O_RDWR);

    WL_TRY(fchown(full, 77, 77));
    put(full, "one", 3);
    put(full, "two", 3);
    put(full, "urgent", 30000);
    put(full, "", 0);
    put(gone, "unlinked", 5);
    put(gone, "empty", 5);
    WL_TRY(mq_unlink(names[1]));
    put(written, "for whom may read", 1);
    put(closed, "for later", 9);
    WL_TRY(mq_close(closed));
    mqd_t same = WL_TRY(dup(full));
    pid_t reader = wait_for_message(waited);

    wl_ready();
    wl_wait();

    check_attributes(full);
    WL_CHECK(mq_send(full, "x", 1, 0) == -1 && errno == EAGAIN, "a full queue has room");
    expect(full, "urgent", 30000);
    expect(same, "one", 3);
    expect(full, "two", 3);
    expect(full, "", 0);
    expect_none(full);
    expect(gone, "unlinked", 5);
    expect(gone, "empty", 5);
    expect_none(gone);
    WL_CHECK(mq_open(names[1], O_RDONLY) == -1 && errno == ENOENT, "an unlinked queue has a name");
    put(written, "more", 1);
    expect(read_only, "for whom may read", 1);
    expect(read_only, "more", 1);
    WL_CHECK(mq_send(read_only, "x", 1, 0) == -1 && errno == EBADF, "it can be written to");
    closed = WL_TRY(mq_open(names[3], O_RDONLY | O_NONBLOCK));
    expect(closed, "for later", 9);
    expect_none(closed);
    put(waited, "woken", 1);
    WL_TRY(waitpid(reader, &status, 0));
    WL_CHECK(status == 0, "the reader that waited ended with %#x", status);
    mqd_t again = WL_TRY(mq_open(names[0], O_RDWR | O_NONBLOCK));
    put(again, "named", 2);
    expect(full, "named", 2);
    for (int i = 0; i < 5; i++)
        if (i != 1)
            WL_TRY(mq_unlink(names[i]));
    wl_pass();
}
