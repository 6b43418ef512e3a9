/* Holds a descriptor that cannot be carried: the argument says which. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "workload.h"

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    if (strcmp(wl_argv[0], "io_uring") == 0) {
        char parameters[120] = {0};
        WL_TRY((int)syscall(SYS_io_uring_setup, 4, parameters));
    } else if (strcmp(wl_argv[0], "userfaultfd") == 0) {
        WL_TRY((int)syscall(SYS_userfaultfd, O_CLOEXEC));
    } else {
        WL_TRY(open(wl_argv[0], O_RDONLY));
    }
    wl_ready();
    wl_wait();
    wl_pass();
}
