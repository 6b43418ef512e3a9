/* A process whose root is a directory: files opened below it, one that is deleted, its root and working directory. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void expect(int fd, const char *text)
{
    char found[16] = "";

    WL_TRY(pread(fd, found, sizeof(found) - 1, 0));
    WL_CHECK(strcmp(found, text) == 0, "a file holds %s instead of %s", found, text);
}

static int make(const char *path)
{
    int fd = WL_TRY(open(path, O_RDWR | O_CREAT, 0600));

    WL_TRY(write(fd, path, strlen(path)));
    return fd;
}

static _Noreturn void child(int told)
{
    struct stat one, other;

    WL_TRY(chroot("root"));
    WL_TRY(chdir("/sub"));
    int kept = make("/kept"), gone = make("/gone");
    WL_TRY(unlink("/gone"));
    WL_TRY(write(told, "", 1));
    wl_wait();
    expect(kept, "/kept");
    expect(gone, "/gone");
    WL_CHECK(access("/gone", F_OK) == -1, "a deleted file has a name");
    WL_TRY(fstat(kept, &one));
    WL_TRY(stat("../kept", &other));
    WL_CHECK(one.st_ino == other.st_ino, "the working directory is not what it was");
    WL_CHECK(access("/sub", F_OK) == 0 && access("/proc", F_OK) == -1, "the root directory is another");
    _exit(0);
}

int main(int argc, char **argv)
{
    int told[2], status;
    char byte;

    wl_init(argc, argv);
    WL_TRY(mkdir("root", 0700));
    WL_TRY(mkdir("root/sub", 0700));
    WL_TRY(pipe(told));
    pid_t pid = WL_TRY(fork());
    if (pid == 0)
        child(told[1]);
    WL_CHECK(read(told[0], &byte, 1) == 1, "the child ended early");

    wl_ready();
    wl_wait();

    WL_TRY(kill(pid, SIGTERM));
    WL_TRY(waitpid(pid, &status, 0));
    WL_CHECK(status == 0, "the child ended with status %#x", status);
    wl_pass();
}
