/* fanotify groups: a file, a deleted file, a directory with its children and what is ignored, a mount; their flags. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <unistd.h>

/* What fdinfo says of the group, as a number; but not the numbers of mounts, which are new in a new namespace. */
static size_t describe(int fd)
{
    char path[64], line[512];
    size_t sum = 0, n_lines = 0;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    FILE *info = fopen(path, "re");
    WL_CHECK(info != NULL, "no fdinfo");
    while (fgets(line, sizeof(line), info) != NULL) {
        char *from = strstr(line, "mnt_id:") ? strstr(line, "mflags:") : line;

        if (strncmp(line, "fanotify", 8) != 0)
            continue;
        wl_log("%s", line);
        n_lines++;
        /* The ghost gets another inode. */
        if (strstr(line, "mask:8 ") == NULL)
            for (char *at = from; *at; at++)
                sum += (unsigned char)*at * (size_t)(at - from + 1);
    }
    fclose(info);
    return sum * 16 + n_lines;
}

static void touch(const char *name)
{
    int fd = WL_TRY(open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));

    WL_CHECK(write(fd, "x", 1) == 1, "write");
    WL_TRY(close(fd));
}

static void expect(int group, uint64_t mask, const char *name)
{
    struct fanotify_event_metadata event;
    char path[64], target[256] = "";

    WL_CHECK(read(group, &event, sizeof(event)) == (ssize_t)sizeof(event), "no event: %s", strerror(errno));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", event.fd);
    WL_TRY(readlink(path, target, sizeof(target) - 1));
    WL_CHECK(event.mask == mask && strstr(target, name) != NULL, "event %llx of %s, not %llx of %s",
             (unsigned long long)event.mask, target, (unsigned long long)mask, name);
    WL_TRY(close(event.fd));
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    touch("file");
    touch("gone");
    WL_TRY(mkdir("directory", 0755));
    touch("directory/quiet");
    int ghost = WL_TRY(open("gone", O_RDWR | O_CLOEXEC));

    int group = WL_TRY(fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE, O_RDONLY | O_LARGEFILE));
    WL_TRY(fanotify_mark(group, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, "file"));
    WL_TRY(fanotify_mark(group, FAN_MARK_ADD, FAN_CLOSE_WRITE, AT_FDCWD, "gone"));
    WL_TRY(fanotify_mark(group, FAN_MARK_ADD, FAN_MODIFY | FAN_EVENT_ON_CHILD, AT_FDCWD, "directory"));
    WL_TRY(fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_MODIFY,
                         AT_FDCWD, "directory/quiet"));
    int whole = WL_TRY(fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY));
    WL_TRY(fanotify_mark(whole, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_CLOSE_WRITE | FAN_ONDIR, AT_FDCWD, "/proc"));
    WL_TRY(unlink("gone"));
    size_t before = describe(group), whole_before = describe(whole);

    wl_ready();
    wl_wait();

    wl_log("after");
    WL_CHECK(describe(group) == before && describe(whole) == whole_before, "other marks or flags");
    WL_CHECK(WL_TRY(fcntl(whole, F_GETFD)) == FD_CLOEXEC && WL_TRY(fcntl(group, F_GETFD)) == 0, "other flags");
    struct fanotify_event_metadata event;
    WL_CHECK(read(group, &event, sizeof(event)) == -1 && errno == EAGAIN, "an event from nowhere");
    touch("file");
    expect(group, FAN_MODIFY, "/file");
    touch("directory/quiet");
    touch("directory/loud");
    expect(group, FAN_MODIFY, "/directory/loud");
    WL_TRY(close(ghost));
    expect(group, FAN_CLOSE_WRITE, "/gone");
    wl_pass();
}
