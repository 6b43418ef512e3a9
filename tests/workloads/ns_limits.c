/*
 * What the namespaces forbid that it is in: other user namespaces (with the argument "user"), and to execute memfds.
 *
 * For namespaces of its own only: it would forbid that to the machine.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "workload.h"

#define EXECUTABLE 0x10 /* MFD_EXEC */

static int has_set(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY);

    if (fd == -1 && (errno == ENOENT || errno == EACCES)) /* a kernel without, or only for the machine's root */
        return 0;
    WL_CHECK(fd != -1, "%s: %s", path, strerror(errno));
    WL_TRY(write(fd, value, strlen(value)));
    WL_TRY(close(fd));
    return 1;
}

static void check_limits(int has_user, int has_noexec)
{
    if (has_user)
        WL_CHECK(unshare(CLONE_NEWUSER) == -1 && errno == ENOSPC, "a user namespace can be made: %d", errno);
    if (has_noexec)
        WL_CHECK(syscall(SYS_memfd_create, "code", EXECUTABLE) == -1 && errno == EACCES, "memfds: %d", errno);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    int has_user = wl_argc > 0 && strcmp(wl_argv[0], "user") == 0;
    if (has_user)
        WL_CHECK(has_set("/proc/sys/user/max_user_namespaces", "0"), "no limits of user namespaces");
    int has_noexec = has_set("/proc/sys/vm/memfd_noexec", "2"); /* since 6.3 */
    check_limits(has_user, has_noexec);
    wl_ready();
    wl_wait();
    check_limits(has_user, has_noexec);
    wl_pass();
}
