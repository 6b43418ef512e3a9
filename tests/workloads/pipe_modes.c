/* Pipes: packets, a full one of a megabyte, one without a reader, one without a writer, both ends in one descriptor. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LARGE (1 << 20)

static char buffer[2 * LARGE];
static char expected[2 * LARGE];

static void expect(int fd, const char *text)
{
    ssize_t n_read = WL_TRY(read(fd, buffer, sizeof(buffer)));

    WL_CHECK(n_read == (ssize_t)strlen(text) && memcmp(buffer, text, (size_t)n_read) == 0, "read %zd bytes, not \"%s\"",
             n_read, text);
}

int main(int argc, char **argv)
{
    int packets[2], one[2], full[2], deaf[2], ended[2], n_full = 0;
    char path[64];

    wl_init(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    WL_TRY(pipe2(packets, O_DIRECT | O_NONBLOCK));
    WL_CHECK(write(packets[1], "first", 5) == 5 && write(packets[1], "2nd", 3) == 3, "packets");
    WL_TRY(pipe2(one, O_DIRECT));
    WL_CHECK(write(one[1], "single", 6) == 6, "packet");

    WL_TRY(pipe2(full, O_NONBLOCK));
    int size = WL_TRY(fcntl(full[0], F_SETPIPE_SZ, LARGE));
    wl_fill(expected, sizeof(expected), 5);
    for (ssize_t n; (n = write(full[1], expected + n_full, 7 * 4096)) > 0;)
        n_full += (int)n;
    WL_CHECK(n_full > LARGE / 2, "only %d bytes go into the pipe", n_full);

    WL_TRY(pipe(deaf));
    WL_TRY(close(deaf[0]));
    WL_TRY(pipe2(ended, O_NONBLOCK));
    WL_CHECK(write(ended[1], "rest", 4) == 4, "write");
    WL_TRY(close(ended[1]));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", one[0]);
    int both = WL_TRY(open(path, O_RDWR | O_NONBLOCK));

    wl_ready();
    wl_wait();

    WL_CHECK(write(deaf[1], "x", 1) == -1 && errno == EPIPE, "a write that nobody can read");
    expect(ended[0], "rest");
    WL_CHECK(read(ended[0], buffer, 1) == 0, "no end of file: %s", strerror(errno));
    expect(packets[0], "first");
    WL_CHECK(read(packets[0], buffer, 1) == 1 && buffer[0] == '2', "second packet");
    WL_CHECK(read(packets[0], buffer, 1) == -1 && errno == EAGAIN, "what is left of a packet is thrown away");
    WL_CHECK(write(packets[1], "a", 1) == 1 && write(packets[1], "b", 1) == 1, "packets");
    expect(packets[0], "a");
    WL_CHECK(read(one[0], buffer, 2) == 2, "single packet");
    WL_CHECK(read(both, buffer, 1) == -1 && errno == EAGAIN, "the rest of a single packet: %s", strerror(errno));
    WL_CHECK(write(both, "y", 1) == 1 && read(one[0], buffer, 9) == 1, "an end with both directions");
    WL_CHECK(WL_TRY(fcntl(full[1], F_GETPIPE_SZ)) == size, "the size has changed");
    WL_CHECK(write(full[1], "z", 1) == -1 && errno == EAGAIN, "the pipe is not full any more");
    int n_total = 0;
    for (ssize_t n; (n = read(full[0], buffer + n_total, sizeof(buffer) - (size_t)n_total)) > 0;)
        n_total += (int)n;
    WL_CHECK(n_total == n_full && memcmp(buffer, expected, (size_t)n_full) == 0, "%d bytes, not %d", n_total, n_full);
    wl_pass();
}
