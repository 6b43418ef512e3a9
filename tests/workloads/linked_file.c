/* The name by which a file was opened is deleted; another one is left. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload.h"

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    int fd = WL_TRY(open("one", O_RDWR | O_CREAT, 0600));
    int second = WL_TRY(open("one", O_RDONLY));
    WL_TRY(write(fd, "content", 7));
    WL_TRY(link("one", "other"));
    WL_TRY(unlink("one"));
    struct stat before, after;
    WL_TRY(fstat(fd, &before));
    wl_ready();
    wl_wait();
    WL_TRY(stat("other", &after));
    WL_CHECK(after.st_ino == before.st_ino && after.st_nlink == 1, "%d links", (int)after.st_nlink);
    WL_TRY(fstat(fd, &after));
    WL_CHECK(after.st_ino == before.st_ino, "another file");
    WL_TRY(fstat(second, &after));
    WL_CHECK(after.st_ino == before.st_ino, "another file");
    WL_CHECK(access("one", F_OK) != 0, "the name has come back");
    char link[64], target[512] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    WL_TRY(readlink(link, target, sizeof target - 1));
    WL_CHECK(strstr(target, "/one (deleted)") != NULL, "it is called %s", target);
    wl_pass();
}
