/*
 * The name by which a file was opened is deleted; another one is left. With "renamed", /proc may show that one; with
 * "hidden" (in a mount namespace of its own), a mount lies over it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload.h"

static _Noreturn void hide(void)
{
    WL_TRY(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    WL_TRY(mkdir("mount", 0700));
    WL_TRY(mount("none", "mount", "tmpfs", 0, NULL));
    WL_TRY(mkdir("mount/below", 0700));
    WL_TRY(open("mount/one", O_RDWR | O_CREAT, 0600));
    WL_TRY(link("mount/one", "mount/below/other"));
    WL_TRY(unlink("mount/one"));
    WL_TRY(mount("none", "mount/below", "tmpfs", 0, NULL));
    wl_ready();
    wl_wait();
    wl_pass();
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    bool renamed = wl_argc > 0 && strcmp(wl_argv[0], "renamed") == 0;
    if (wl_argc > 0 && !renamed)
        hide();
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
    WL_CHECK(strstr(target, "/one (deleted)") != NULL || (renamed && strstr(target, "/other") != NULL), "it is called %s", target);
    wl_pass();
}
