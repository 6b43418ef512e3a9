// An overlay in a mount namespace of its own: a file open since before it was copied up, a deleted one of the upper
// layer and a deleted one of the lower, a watch on a directory, what is in the layers.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[PATH_MAX / 2];

static const char *at(const char *name)
{
    static char paths[8][PATH_MAX];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, PATH_MAX, "%s/%s", base, name);
    return path;
}

static void do_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
    if (mount(source, target, type, flags, data) != 0)
        wl_fail("mount %s: %s", target, strerror(errno));
}

static void make_dir(const char *name)
{
    if (mkdir(at(name), 0700) != 0)
        wl_fail("mkdir %s: %s", name, strerror(errno));
}

static int make_file(const char *name, const char *text)
{
    int fd = open(at(name), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        wl_fail("write %s: %s", name, strerror(errno));
    return fd;
}

static int open_file(const char *name, int flags)
{
    int fd = open(at(name), flags | O_CLOEXEC);
    if (fd < 0)
        wl_fail("open %s: %s", name, strerror(errno));
    return fd;
}

static void expect_text(int fd, const char *text, const char *what)
{
    char found[64] = "";
    if (pread(fd, found, sizeof found - 1, 0) < 0)
        wl_fail("read %s: %s", what, strerror(errno));
    if (strcmp(found, text) != 0)
        wl_fail("%s holds %s", what, found);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    if (getpid() != 1 && unshare(CLONE_NEWNS) != 0)
        wl_fail("unshare: %s", strerror(errno));
    do_mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    if (getcwd(base, sizeof base - 8) == NULL)
        wl_fail("getcwd: %s", strerror(errno));
    strcat(base, "/top");
    if (mkdir(base, 0700) != 0)
        wl_fail("mkdir: %s", strerror(errno));
    do_mount("top", base, "tmpfs", 0, "size=8m,mode=700");
    make_dir("lower");
    make_dir("lower/directory");
    make_dir("upper");
    make_dir("work");
    make_dir("merged");
    close(make_file("lower/kept", "kept"));
    close(make_file("lower/copied", "before"));
    close(make_file("lower/removed", "removed"));
    char options[4 * PATH_MAX];
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", at("lower"), at("upper"), at("work"));
    do_mount("overlay", at("merged"), "overlay", 0, options);

    int kept = open_file("merged/kept", O_RDONLY), removed = open_file("merged/removed", O_RDONLY);
    int copied = open_file("merged/copied", O_RDWR);
    if (pwrite(copied, "after!", 6, 0) != 6)
        wl_fail("write: %s", strerror(errno));
    int deleted = make_file("merged/directory/deleted", "deleted");
    if (unlink(at("merged/directory/deleted")) != 0 || unlink(at("merged/removed")) != 0)
        wl_fail("unlink: %s", strerror(errno));
    int watcher = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (inotify_add_watch(watcher, at("merged/directory"), IN_CREATE) < 0)
        wl_fail("inotify: %s", strerror(errno));

    wl_ready();
    wl_wait();

    expect_text(kept, "kept", "the file of the lower layer");
    expect_text(removed, "removed", "the deleted file of the lower layer");
    expect_text(copied, "after!", "the file that was copied up");
    expect_text(deleted, "deleted", "the deleted file of the upper layer");
    if (pwrite(deleted, "DELETED", 7, 0) != 7 || access(at("merged/removed"), F_OK) == 0)
        wl_fail("a deleted file is not what it was");
    int again = open_file("merged/copied", O_RDONLY), below = open_file("lower/copied", O_RDONLY);
    expect_text(again, "after!", "the file that was copied up, by its name");
    expect_text(below, "before", "the file below it");
    char event[1024];
    close(make_file("merged/directory/new", "new"));
    if (read(watcher, event, sizeof event) <= 0)
        wl_fail("the watch reports nothing");
    if (access(at("upper/directory/new"), F_OK) != 0)
        wl_fail("the new file is not in the upper layer");
    wl_pass();
}
