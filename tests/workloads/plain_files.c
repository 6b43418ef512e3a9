/* Files with names: offsets, flags, odd names, directories, O_PATH, a dead process's directory in /proc. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <stdio.h>
#include <unistd.h>

#include "workload.h"

#define ODD "odd \xff\xfe\n\\012 (deleted)"

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    int odd = WL_TRY(open(ODD, O_RDWR | O_CREAT, 0600));
    WL_TRY(write(odd, "0123456789", 10));
    WL_TRY(lseek(odd, 4, SEEK_SET));
    int log = WL_TRY(open("log", O_WRONLY | O_CREAT | O_APPEND | O_SYNC | O_NOATIME, 0600));
    int closed = WL_TRY(open("closed", O_RDWR | O_CREAT, 0600));
    WL_TRY(fchmod(closed, 0));
    int directory = WL_TRY(open(".", O_RDONLY | O_DIRECTORY));
    int path = WL_TRY(open(".", O_PATH));
    WL_TRY(symlink("nowhere", "symlink"));
    int symlink_fd = WL_TRY(open("symlink", O_PATH | O_NOFOLLOW));
    int device = WL_TRY(open("/dev/zero", O_RDONLY));
    int far = WL_TRY(fcntl(odd, F_DUPFD, 900));
    pid_t child = WL_TRY(fork());
    if (child == 0)
        _exit(0);
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/status", child);
    int dead = WL_TRY(open(name, O_RDONLY));
    WL_TRY(waitpid(child, NULL, 0));
    int own = WL_TRY(open("/proc/self/status", O_RDONLY));
    umask(0126);
    wl_ready();
    wl_wait();
    char c;
    WL_CHECK(read(odd, &c, 1) == 1 && c == '4', "it goes on with %c", c);
    WL_CHECK(read(far, &c, 1) == 1 && c == '5', "the duplicate has an offset of its own");
    int flags = WL_TRY(fcntl(log, F_GETFL));
    WL_CHECK((flags & (O_ACCMODE | O_APPEND | O_SYNC | O_NOATIME)) == (O_WRONLY | O_APPEND | O_SYNC | O_NOATIME),
             "flags %o", flags);
    WL_TRY(write(closed, "x", 1));
    WL_TRY(faccessat(directory, "log", F_OK, 0));
    WL_TRY(faccessat(path, "log", F_OK, 0));
    WL_CHECK(fcntl(path, F_GETFL) & O_PATH, "O_PATH is lost");
    WL_CHECK(readlinkat(symlink_fd, "", name, sizeof name) == 7, "the symbolic link is lost");
    WL_CHECK(read(device, &c, 1) == 1 && c == 0, "/dev/zero");
    WL_CHECK(read(dead, &c, 1) == -1 && errno == ESRCH, "the dead lives");
    WL_CHECK(read(own, name, 5) == 5 && memcmp(name, "Name:", 5) == 0, "/proc/self/status");
    WL_CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "there is a child");
    WL_CHECK(umask(0) == 0126, "umask");
    wl_pass();
}
