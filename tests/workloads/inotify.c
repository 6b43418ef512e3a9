/* inotify watches: numbers, masks, what they are on, and events after the restore. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workload.h"

static struct inotify_event *next_event(int fd)
{
    static union {
        struct inotify_event event;
        char bytes[4096];
    } buffer;
    WL_TRY(read(fd, &buffer, sizeof buffer));
    return &buffer.event;
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    int fd = WL_TRY(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    WL_TRY(mkdir("watched", 0700));
    WL_TRY(close(WL_TRY(open("file", O_RDWR | O_CREAT, 0600))));
    int first = WL_TRY(inotify_add_watch(fd, "file", IN_MODIFY));
    for (int i = 0; i < 5; i++) {
        int wd = WL_TRY(inotify_add_watch(fd, "/proc", IN_DELETE_SELF));
        WL_TRY(inotify_rm_watch(fd, wd));
    }
    int second = WL_TRY(inotify_add_watch(fd, "watched", IN_CREATE | IN_ONLYDIR | IN_EXCL_UNLINK));
    int gone = WL_TRY(open("gone", O_RDWR | O_CREAT, 0600));
    int third = WL_TRY(inotify_add_watch(fd, "gone", IN_MODIFY));
    WL_TRY(unlink("gone"));
    char drain[4096];
    while (read(fd, drain, sizeof drain) > 0)
        ;
    wl_ready();
    wl_wait();
    WL_CHECK(read(fd, drain, sizeof drain) == -1 && errno == EAGAIN, "there are events already");
    WL_TRY(close(WL_TRY(open("watched/new", O_RDWR | O_CREAT, 0600))));
    struct inotify_event *event = next_event(fd);
    WL_CHECK(event->wd == second && event->mask == IN_CREATE, "wd %d mask %x", event->wd, event->mask);
    int file = WL_TRY(open("file", O_RDWR));
    WL_TRY(write(file, "x", 1));
    event = next_event(fd);
    WL_CHECK(event->wd == first && event->mask == IN_MODIFY, "wd %d mask %x", event->wd, event->mask);
    WL_TRY(write(gone, "x", 1));
    event = next_event(fd);
    WL_CHECK(event->wd == third && event->mask == IN_MODIFY, "wd %d mask %x", event->wd, event->mask);
    int next = WL_TRY(inotify_add_watch(fd, "/", IN_CREATE));
    WL_CHECK(next == third + 1, "the next watch is %d after %d", next, third);
    wl_pass();
}
