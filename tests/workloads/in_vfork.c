/* A process that waits in vfork(2) for a child, which has its memory until it executes something. */
#include "workload.h"

#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    pid_t child = vfork();
    if (child == 0) {
        wl_ready();
        /* Long enough for a checkpoint to begin. */
        usleep(700 * 1000);
        execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    int status;
    WL_CHECK(waitpid(child, &status, 0) == child, "no child to wait for");
    WL_CHECK(status == 0, "the child ended with %d", status);
    wl_wait();
    wl_pass();
}
