// Watches by inotify on all that a dump or a restore may look at: the working directory, files and directories that
// nobody has open, an open file, the executable; with the argument "overlay" in an overlay. No event may come
// but the program's own.
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static int watcher;
static char names[64][PATH_MAX];

static void watch(const char *path)
{
    int wd = WL_TRY(inotify_add_watch(watcher, path, IN_ALL_EVENTS));
    snprintf(names[wd % 64], PATH_MAX, "%s", path);
}

static void make_file(const char *path)
{
    int fd = WL_TRY(open(path, O_CREAT | O_WRONLY, 0600));
    WL_TRY(write(fd, "content", 7));
    close(fd);
}

static void enter_overlay(void)
{
    char options[3 * PATH_MAX], here[PATH_MAX / 2];

    WL_CHECK(getcwd(here, sizeof(here)) != NULL, "getcwd");
    if (getpid() != 1) {
        WL_TRY(unshare(CLONE_NEWNS));
        WL_TRY(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    }
    // Its layers must not lie on an overlay themselves.
    WL_TRY(mkdir("top", 0700));
    WL_TRY(mount("layers", "top", "tmpfs", 0, NULL));
    for (const char *const *each = (const char *const[]){"low", "up", "work", "merged", "low/sub", NULL}; *each; each++) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "top/%s", *each);
        WL_TRY(mkdir(path, 0700));
    }
    make_file("top/low/sub/below");
    snprintf(options, sizeof(options), "lowerdir=%s/top/low,upperdir=%s/top/up,workdir=%s/top/work", here, here, here);
    WL_TRY(mount("overlay", "top/merged", "overlay", 0, options));
    WL_TRY(chdir("top/merged"));
}

int main(int argc, char **argv)
{
    char buffer[65536], executable[PATH_MAX] = "";

    wl_init(argc, argv);
    bool overlay = wl_argc > 0 && strcmp(wl_argv[0], "overlay") == 0;
    watcher = WL_TRY(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (overlay)
        enter_overlay();
    WL_TRY(mkdir("dir", 0700));
    WL_TRY(mkdir("dir/inner", 0700));
    make_file("dir/inner/closed");
    make_file("open");
    int fd = WL_TRY(open("open", O_RDWR));
    watch(".");
    watch("dir");
    watch("dir/inner");
    watch("dir/inner/closed");
    watch("open");
    if (overlay) {
        watch("sub");
        watch("sub/below");
    } else {
        WL_TRY(readlink("/proc/self/exe", executable, sizeof(executable) - 1));
        watch(executable);
    }

    wl_ready();
    wl_wait();

    ssize_t n_bytes = read(watcher, buffer, sizeof(buffer));
    for (char *at = buffer; at < buffer + n_bytes;) {
        struct inotify_event *event = (void *)at;
        wl_log("%s: mask %x %s", names[event->wd % 64], event->mask, event->len ? event->name : "");
        at += sizeof(*event) + event->len;
    }
    WL_CHECK(n_bytes < 0, "%zd bytes of events", n_bytes);
    WL_TRY(write(fd, "x", 1));
    WL_CHECK(read(watcher, buffer, sizeof(buffer)) > 0, "the watches are gone");
    wl_pass();
}
