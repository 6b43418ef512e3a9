/* The working directory is deleted. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload.h"

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    char before[512], after[512];
    WL_TRY(mkdir("here", 0700));
    WL_TRY(chdir("here"));
    WL_TRY(rmdir("../here"));
    ssize_t n = WL_TRY(readlink("/proc/self/cwd", before, sizeof before));
    wl_ready();
    wl_wait();
    WL_CHECK(readlink("/proc/self/cwd", after, sizeof after) == n && memcmp(before, after, (size_t)n) == 0, "%.*s became %s",
             (int)n, before, after);
    struct stat info;
    WL_TRY(stat(".", &info));
    WL_CHECK(info.st_nlink == 0, "the directory has a name again");
    wl_pass();
}
