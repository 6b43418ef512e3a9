/* Who owns a pipe may open it anew by /proc/self/fd, as programs do with /dev/stdout; nobody else may. */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int mine[2], roots[2];
    char path[64];
    struct stat info;

    wl_init(argc, argv);
    WL_TRY(pipe(roots));
    WL_TRY(setgroups(0, NULL));
    WL_TRY(setegid(1234));
    WL_TRY(seteuid(4321));
    WL_TRY(pipe(mine));
    WL_TRY(seteuid(0));

    wl_ready();
    wl_wait();

    WL_TRY(fstat(mine[0], &info));
    WL_CHECK(info.st_uid == 4321 && info.st_gid == 1234, "it belongs to %u:%u", info.st_uid, info.st_gid);
    WL_TRY(fstat(roots[0], &info));
    WL_CHECK(info.st_uid == 0 && info.st_gid == 0, "root's belongs to %u:%u", info.st_uid, info.st_gid);
    WL_TRY(seteuid(4321));
    WL_TRY(prctl(PR_SET_DUMPABLE, 1));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", mine[1]);
    int again = WL_TRY(open(path, O_WRONLY));
    WL_CHECK(write(again, "x", 1) == 1, "write");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", roots[1]);
    WL_CHECK(open(path, O_WRONLY) == -1 && errno == EACCES, "root's pipe is open to all");
    WL_TRY(seteuid(0));
    wl_pass();
}
