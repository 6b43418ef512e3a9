/* A pipe with unread data in it: contents, capacity, flags and both ends stay. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define N_BYTES 30000
#define CAPACITY (128 * 1024)

static char sent[N_BYTES];
static char received[N_BYTES + 1];

int main(int argc, char **argv)
{
    int ends[2];
    int n_unread;

    wl_init(argc, argv);
    WL_TRY(pipe2(ends, O_CLOEXEC));
    WL_TRY(fcntl(ends[0], F_SETFL, O_NONBLOCK));
    int capacity = WL_TRY(fcntl(ends[1], F_SETPIPE_SZ, CAPACITY));
    wl_fill(sent, N_BYTES, 1);
    /* In two writes, the second of them small: several buffers in the kernel, not all of them full. */
    WL_CHECK(write(ends[1], sent, N_BYTES - 7) == N_BYTES - 7, "short write");
    WL_CHECK(write(ends[1], sent + N_BYTES - 7, 7) == 7, "short write");

    wl_ready();
    wl_wait();

    WL_TRY(ioctl(ends[0], FIONREAD, &n_unread));
    WL_CHECK(n_unread == N_BYTES, "%d bytes wait in the pipe, not %d", n_unread, N_BYTES);
    int now = WL_TRY(fcntl(ends[1], F_GETPIPE_SZ));
    WL_CHECK(now == capacity, "the pipe's capacity was %d and is %d", capacity, now);
    for (int i = 0; i < 2; i++) {
        int expected = i == 0 ? O_RDONLY | O_NONBLOCK : O_WRONLY;
        int flags = WL_TRY(fcntl(ends[i], F_GETFL)) & (O_ACCMODE | O_NONBLOCK);

        WL_CHECK(flags == expected, "end %d has flags %#o, not %#o", i, flags, expected);
        WL_CHECK(WL_TRY(fcntl(ends[i], F_GETFD)) == FD_CLOEXEC, "end %d has lost FD_CLOEXEC", i);
    }
    ssize_t n_read = WL_TRY(read(ends[0], received, sizeof(received)));
    WL_CHECK(n_read == N_BYTES, "read %zd bytes, not %d", n_read, N_BYTES);
    wl_check_fill(received, N_BYTES, 1, "pipe");
    WL_CHECK(read(ends[0], received, 1) == -1 && errno == EAGAIN, "an empty pipe does not say EAGAIN");

    /* The ends belong together, and closing one shows at the other. */
    WL_CHECK(write(ends[1], "x", 1) == 1 && read(ends[0], received, 1) == 1 && received[0] == 'x', "the pipe is cut");
    WL_TRY(close(ends[1]));
    WL_CHECK(read(ends[0], received, 1) == 0, "no end of file after the last writer has gone");
    wl_pass();
}
