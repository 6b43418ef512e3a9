/* A deleted file that was opened by two names, each on a mount of its own that does not show the other name. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload.h"

static void check_name(int fd, const char *name)
{
    char link[64], target[512];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = WL_TRY(readlink(link, target, sizeof target - 1));
    target[n] = 0;
    size_t length = strlen(name);
    WL_CHECK((size_t)n > length && strcmp(target + n - length, name) == 0, "%s is called %s", name, target);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    const char *directories[] = {"all", "first", "second", "all/1", "all/2"};
    for (int i = 0; i < 5; i++) {
        if (i == 3)
            WL_TRY(mount("all", "all", "tmpfs", 0, "size=1m"));
        WL_TRY(mkdir(directories[i], 0755));
    }
    WL_TRY(mount("all/1", "first", NULL, MS_BIND, NULL));
    WL_TRY(mount("all/2", "second", NULL, MS_BIND, NULL));
    int one = WL_TRY(open("first/F", O_CREAT | O_RDWR, 0640));
    WL_TRY(link("all/1/F", "all/2/F"));
    int two = WL_TRY(open("second/F", O_RDWR));
    WL_TRY(unlink("all/1/F"));
    WL_TRY(unlink("all/2/F"));
    WL_TRY(write(one, "contents", 8));
    wl_ready();
    wl_wait();
    struct stat here, there;
    WL_TRY(fstat(one, &here));
    WL_TRY(fstat(two, &there));
    WL_CHECK(here.st_ino == there.st_ino && here.st_nlink == 0, "two files, or %lu links", (unsigned long)here.st_nlink);
    check_name(one, "/first/F (deleted)");
    check_name(two, "/second/F (deleted)");
    char found[16] = "";
    WL_TRY(pread(two, found, sizeof found, 0));
    WL_CHECK(strcmp(found, "contents") == 0, "it holds %s", found);
    wl_pass();
}
