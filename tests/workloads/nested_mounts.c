// A child in a mount namespace of its own within the tree's: a file system that both see, with propagation from one to
// the other; one that only the child has; names of the child's own for its open file, working directory, deleted file,
// watch and socket; a part of a tmpfs whose root is mounted nowhere; a bind of a deleted directory; extended attributes.
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
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

static void make_dir(const char *path)
{
    if (mkdir(path, 0700) != 0)
        wl_fail("mkdir %s: %s", path, strerror(errno));
}

static int make_file(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        wl_fail("write %s: %s", path, strerror(errno));
    return fd;
}

static void expect_text(int fd, const char *text, const char *what)
{
    char found[64] = "";
    if (fd < 0 || pread(fd, found, sizeof found - 1, 0) < 0)
        wl_fail("read %s: %s", what, strerror(errno));
    if (strcmp(found, text) != 0)
        wl_fail("%s holds %s", what, found);
}

static void exchange(int from, int to)
{
    char byte = 0;
    if (to >= 0 && write(to, &byte, 1) != 1)
        wl_fail("write: %s", strerror(errno));
    if (from >= 0 && read(from, &byte, 1) != 1)
        wl_fail("the other process is gone");
}

static void child(int from, int to)
{
    if (unshare(CLONE_NEWNS) != 0)
        wl_fail("unshare: %s", strerror(errno));
    make_dir(at("private/own"));
    do_mount("own", at("private/own"), "tmpfs", 0, "size=1m");
    if (chdir(at("private/own")) != 0)
        wl_fail("chdir: %s", strerror(errno));
    int named = make_file("named", "named"), deleted = make_file("deleted", "deleted"), seen = open(at("both"), O_RDWR);
    if (unlink("deleted") != 0 || seen < 0)
        wl_fail("open or unlink: %s", strerror(errno));
    int watcher = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), listener = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "socket"};
    if (inotify_add_watch(watcher, ".", IN_CREATE) < 0 || bind(listener, (void *)&name, sizeof name) != 0 ||
        listen(listener, 1) != 0)
        wl_fail("inotify, bind: %s", strerror(errno));
    char event[1024];
    while (read(watcher, event, sizeof event) > 0)
        ;
    exchange(from, to);

    // Restored.  The parent has mounted something on the shared directory.
    int below = open(at("shared/here/below"), O_RDONLY);
    expect_text(below, "below", "what the parent mounted");
    close(below);
    expect_text(named, "named", "the child's file");
    expect_text(deleted, "deleted", "the child's deleted file");
    expect_text(seen, "both", "the file that both see");
    struct stat mine, by_path;
    if (fstat(named, &mine) || stat("named", &by_path) || mine.st_dev != by_path.st_dev || mine.st_ino != by_path.st_ino)
        wl_fail("the open file is not the one that has its name");
    if (fstat(deleted, &mine) || mine.st_nlink != 0 || access("deleted", F_OK) == 0)
        wl_fail("the deleted file has a name again");
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(client, (void *)&name, sizeof name) != 0)
        wl_fail("connect: %s", strerror(errno));
    make_dir("new");
    if (read(watcher, event, sizeof event) <= 0)
        wl_fail("the watch reports nothing");
    exchange(-1, to);
    _exit(0);
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
    make_dir(base);
    do_mount("top", base, "tmpfs", 0, "size=4m,mode=700");
    make_dir(at("private"));
    make_dir(at("shared"));
    do_mount("shared", at("shared"), "tmpfs", 0, NULL);
    do_mount(NULL, at("shared"), NULL, MS_SHARED, NULL);
    make_dir(at("shared/here"));
    close(make_file(at("both"), "both"));
    bool has_attributes = setxattr(at("both"), "user.torpor", "a\0b", 3, 0) == 0;
    make_dir(at("part"));
    make_dir(at("whole"));
    do_mount("whole", at("whole"), "tmpfs", 0, NULL);
    make_dir(at("whole/inner"));
    close(make_file(at("whole/inner/file"), "inner"));
    do_mount(at("whole/inner"), at("part"), NULL, MS_BIND, NULL);
    if (umount2(at("whole"), MNT_DETACH) != 0)
        wl_fail("umount: %s", strerror(errno));
    make_dir(at("gone"));
    make_dir(at("bound"));
    do_mount(at("gone"), at("bound"), NULL, MS_BIND, NULL);
    if (rmdir(at("gone")) != 0)
        wl_fail("rmdir: %s", strerror(errno));
    int covered = make_file(at("private/covered"), "covered");

    int to_child[2], to_parent[2];
    if (pipe2(to_child, O_CLOEXEC) != 0 || pipe2(to_parent, O_CLOEXEC) != 0)
        wl_fail("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        close(to_child[1]);
        close(to_parent[0]);
        child(to_child[0], to_parent[1]);
    }
    close(to_child[0]);
    close(to_parent[1]);
    exchange(to_parent[0], -1);
    do_mount("cover", at("private"), "tmpfs", 0, NULL);

    wl_ready();
    wl_wait();

    do_mount("here", at("shared/here"), "tmpfs", 0, NULL);
    close(make_file(at("shared/here/below"), "below"));
    exchange(to_parent[0], to_child[1]);
    int status;
    if (waitpid(pid, &status, 0) != pid || status != 0)
        wl_fail("the child ended with %x", status);
    expect_text(covered, "covered", "the file under another mount");
    if (access(at("private/covered"), F_OK) == 0)
        wl_fail("what is mounted over the private directory is gone");
    if (umount(at("private")) != 0)
        wl_fail("umount: %s", strerror(errno));
    if (access(at("private/own/named"), F_OK) == 0)
        wl_fail("the child's file system is here, too");
    struct stat open_one, named_one;
    if (fstat(covered, &open_one) || stat(at("private/covered"), &named_one) || open_one.st_ino != named_one.st_ino)
        wl_fail("the file under another mount is another one");
    char value[8];
    if (has_attributes && (getxattr(at("both"), "user.torpor", value, sizeof value) != 3 || memcmp(value, "a\0b", 3)))
        wl_fail("the extended attribute is lost");
    int inner = open(at("part/file"), O_RDONLY);
    expect_text(inner, "inner", "the file in a part of a tmpfs");
    if (access(at("bound"), F_OK) != 0 || mkdir(at("bound/new"), 0700) == 0 || access(at("gone"), F_OK) == 0)
        wl_fail("the deleted directory is not deleted");
    wl_pass();
}
