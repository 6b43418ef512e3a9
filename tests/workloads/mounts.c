// A mount namespace of its own: tmpfs with contents and options, mounts on top of each other, binds of a directory and of
// a file, read-only and noexec, a peer group with a slave; a file open in the tmpfs.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
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

static void make_dir(const char *name, mode_t mode)
{
    if (mkdir(at(name), mode) != 0 || chmod(at(name), mode) != 0)
        wl_fail("mkdir %s: %s", name, strerror(errno));
}

static void write_file(const char *name, const char *text)
{
    int fd = open(at(name), O_CREAT | O_WRONLY, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        wl_fail("write %s: %s", name, strerror(errno));
    close(fd);
}

static void expect_text(const char *name, const char *text)
{
    char found[64] = "";
    int fd = open(at(name), O_RDONLY);
    if (fd < 0 || read(fd, found, sizeof found - 1) < 0)
        wl_fail("read %s: %s", name, strerror(errno));
    close(fd);
    if (strcmp(found, text) != 0)
        wl_fail("%s holds %s", name, found);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    // A job has one already; in another, what it has open would lie on mounts that nobody sees.
    if (getpid() != 1) {
        if (unshare(CLONE_NEWNS) != 0)
            wl_fail("unshare: %s", strerror(errno));
        do_mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    }

    if (getcwd(base, sizeof base - 8) == NULL)
        wl_fail("getcwd: %s", strerror(errno));
    strcat(base, "/top");
    if (mkdir(base, 0700) != 0)
        wl_fail("mkdir: %s", strerror(errno));
    do_mount("torpor", base, "tmpfs", MS_NOSUID, "size=8m,mode=750");
    make_dir("hidden", 0711);
    write_file("hidden/below", "below");
    do_mount("upper", at("hidden"), "tmpfs", MS_NODEV | MS_NOEXEC, "mode=700");
    write_file("hidden/above", "above");
    make_dir("plain", 0755);
    write_file("plain/text", "text");
    if (chown(at("plain/text"), 12, 34) != 0 || symlink("/nowhere", at("plain/link")) != 0 ||
        link(at("plain/text"), at("plain/same")) != 0 || mkfifo(at("plain/fifo"), 0640) != 0)
        wl_fail("special files: %s", strerror(errno));
    int sparse = open(at("plain/sparse"), O_CREAT | O_WRONLY, 0600);
    struct timespec times[2] = {{1111111111, 123456789}, {1222222222, 987654321}};
    if (sparse < 0 || ftruncate(sparse, 1 << 30) || pwrite(sparse, "middle", 6, 500 << 20) != 6 || close(sparse) ||
        utimensat(AT_FDCWD, at("plain/link"), times, AT_SYMLINK_NOFOLLOW) || mknod(at("plain/dead"), S_IFSOCK | 0640, 0))
        wl_fail("special files: %s", strerror(errno));
    make_dir("bound", 0700);
    do_mount(at("plain"), at("bound"), NULL, MS_BIND, NULL);
    do_mount(NULL, at("bound"), NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL);
    write_file("file", "");
    do_mount(at("plain/text"), at("file"), NULL, MS_BIND, NULL);
    make_dir("peer1", 0700);
    make_dir("peer2", 0700);
    make_dir("slave", 0700);
    do_mount("group", at("peer1"), "tmpfs", 0, NULL);
    do_mount(NULL, at("peer1"), NULL, MS_SHARED, NULL);
    do_mount(at("peer1"), at("peer2"), NULL, MS_BIND, NULL);
    do_mount(at("peer1"), at("slave"), NULL, MS_BIND, NULL);
    do_mount(NULL, at("slave"), NULL, MS_SLAVE, NULL);
    make_dir("peer1/sub", 0700);
    int open_fd = open(at("plain/text"), O_RDWR);

    wl_ready();
    wl_wait();

    expect_text("hidden/above", "above");
    expect_text("plain/text", "text");
    expect_text("bound/text", "text");
    expect_text("file", "text");
    struct stat text, same, link_, fifo, top;
    if (stat(at("plain/text"), &text) || stat(at("plain/same"), &same) || lstat(at("plain/link"), &link_) ||
        stat(at("plain/fifo"), &fifo) || stat(base, &top))
        wl_fail("stat: %s", strerror(errno));
    struct stat hollow, dead;
    if (stat(at("plain/sparse"), &hollow) || hollow.st_size != 1 << 30 || hollow.st_blocks > 16)
        wl_fail("the sparse file has %ld blocks", (long)hollow.st_blocks);
    if (stat(at("plain/dead"), &dead) || dead.st_mode != (S_IFSOCK | 0640))
        wl_fail("the socket file is gone, or another");
    if (link_.st_mtim.tv_sec != 1222222222 || link_.st_mtim.tv_nsec != 987654321)
        wl_fail("the symlink was written at %ld.%09ld", (long)link_.st_mtim.tv_sec, link_.st_mtim.tv_nsec);
    if (text.st_uid != 12 || text.st_gid != 34 || text.st_ino != same.st_ino || !S_ISLNK(link_.st_mode) ||
        !S_ISFIFO(fifo.st_mode) || (top.st_mode & 07777) != 0750)
        wl_fail("a file in the tmpfs is not what it was");
    if (pwrite(open_fd, "next", 4, 0) != 4)
        wl_fail("write to the open file: %s", strerror(errno));
    expect_text("plain/same", "next");
    if (open(at("bound/text"), O_WRONLY) >= 0 || errno != EROFS)
        wl_fail("the read-only bind mount can be written to");
    struct statvfs flags;
    if (statvfs(at("hidden"), &flags) != 0 || !(flags.f_flag & ST_NOEXEC) || (flags.f_flag & ST_NOSUID))
        wl_fail("the upper tmpfs has flags %lx", flags.f_flag);
    if (statvfs(base, &flags) != 0 || flags.f_blocks * flags.f_frsize != 8 << 20 || !(flags.f_flag & ST_NOSUID))
        wl_fail("the tmpfs has another size or flags");
    if (umount(at("hidden")) != 0)
        wl_fail("umount: %s", strerror(errno));
    expect_text("hidden/below", "below");

    do_mount("new", at("peer2/sub"), "tmpfs", 0, NULL);
    write_file("peer1/sub/seen", "seen");
    expect_text("slave/sub/seen", "seen");
    do_mount("own", at("slave/sub"), "tmpfs", 0, NULL);
    write_file("slave/sub/mine", "mine");
    if (access(at("peer1/sub/mine"), F_OK) == 0)
        wl_fail("the slave's mount is seen by its master");
    wl_pass();
}
