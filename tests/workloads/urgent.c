/*
 * Urgent data (MSG_OOB): whatever becomes of the dump, nothing of the stream is lost.
 *
 * The arguments: "tcp" or "unix"; "there" if the urgent byte waits, "read" if only its mark does, "passed" if not even
 * that, but something behind it.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static void connect_pair(int *ends)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    int listener = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));

    WL_TRY(bind(listener, (struct sockaddr *)&address, sizeof(address)));
    WL_TRY(listen(listener, 1));
    WL_TRY(getsockname(listener, (struct sockaddr *)&address, &length));
    ends[0] = WL_TRY(socket(AF_INET, SOCK_STREAM, 0));
    WL_TRY(connect(ends[0], (struct sockaddr *)&address, sizeof(address)));
    ends[1] = WL_TRY(accept(listener, NULL, NULL));
    WL_TRY(close(listener));
}

static void expect(int end, int flags, const char *what)
{
    char got[8] = "";

    WL_CHECK(recv(end, got, strlen(what), flags) == (ssize_t)strlen(what) && strcmp(got, what) == 0, "got %s for %s",
             got, what);
}

int main(int argc, char **argv)
{
    int ends[2];
    bool is_there, is_passed;

    wl_init(argc, argv);
    is_there = strcmp(wl_argv[1], "there") == 0;
    is_passed = strcmp(wl_argv[1], "passed") == 0;
    if (strcmp(wl_argv[0], "tcp") == 0)
        connect_pair(ends);
    else
        WL_TRY(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    WL_CHECK(send(ends[0], "ab", 2, 0) == 2 && send(ends[0], "X", 1, MSG_OOB) == 1, "not sent");
    WL_CHECK(send(ends[0], "cdef", 4, 0) == 4, "not sent");
    WL_CHECK(poll(&(struct pollfd){.fd = ends[1], .events = POLLPRI}, 1, -1) == 1, "no urgent data has come");
    if (!is_there)
        expect(ends[1], MSG_OOB, "X");
    if (is_passed) {
        expect(ends[1], 0, "ab");
        expect(ends[1], MSG_WAITALL, "cd");
    }
    wl_ready();
    wl_wait();

    if (is_there)
        expect(ends[1], MSG_OOB, "X");
    if (!is_passed) {
        expect(ends[1], 0, "ab");
        expect(ends[1], MSG_WAITALL, "cd");
    }
    expect(ends[1], MSG_WAITALL, "ef");
    wl_pass();
}
