/* FIFOs: contents, both ends by descriptions of their own, a writer alone, a deleted one. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload.h"

static void check_read(int fd, const char *wanted)
{
    char buffer[64];
    size_t length = strlen(wanted);
    WL_CHECK(read(fd, buffer, sizeof buffer) == (ssize_t)length && memcmp(buffer, wanted, length) == 0, "not %s", wanted);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    WL_TRY(mkfifo("pair", 0600));
    int reader = WL_TRY(open("pair", O_RDONLY | O_NONBLOCK));
    int writer = WL_TRY(open("pair", O_WRONLY));
    WL_TRY(fcntl(reader, F_SETFL, 0));
    WL_TRY(write(writer, "in the pair", 11));
    WL_TRY(mkfifo("gone", 0640));
    int both = WL_TRY(open("gone", O_RDWR));
    WL_TRY(fcntl(both, F_SETPIPE_SZ, 16384));
    WL_TRY(write(both, "in the deleted one", 18));
    WL_TRY(unlink("gone"));
    WL_TRY(mkfifo("lonely", 0600));
    int lonely = WL_TRY(open("lonely", O_RDONLY | O_NONBLOCK));
    wl_ready();
    wl_wait();
    check_read(reader, "in the pair");
    WL_CHECK(!(WL_TRY(fcntl(reader, F_GETFL)) & O_NONBLOCK), "O_NONBLOCK is set");
    WL_TRY(write(writer, "more", 4));
    check_read(reader, "more");
    WL_TRY(close(writer));
    WL_CHECK(read(reader, &writer, 1) == 0, "somebody holds the other end");
    check_read(both, "in the deleted one");
    WL_CHECK(fcntl(both, F_GETPIPE_SZ) == 16384, "the size is lost");
    struct stat info;
    WL_TRY(fstat(both, &info));
    WL_CHECK(S_ISFIFO(info.st_mode) && info.st_nlink == 0 && (info.st_mode & 0777) == 0640, "mode %o", info.st_mode);
    WL_CHECK(read(lonely, &info, 1) == 0, "the lonely end is not alone");
    wl_pass();
}
