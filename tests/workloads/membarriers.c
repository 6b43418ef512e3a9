/* membarrier(2): what this program has registered for may be called, and nothing else but, where a word is given, what
 * cannot be asked for on older kernels. */
#define _GNU_SOURCE
#include "workload.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

static long barrier(int command)
{
    return syscall(SYS_membarrier, command, 0, 0);
}

static void check(void)
{
    WL_TRY(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED));
    WL_TRY(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ));
    WL_CHECK(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) == -1 && errno == EPERM,
             "instructions are synchronised, which nobody has asked for");
}

int main(int argc, char **argv)
{
    long registered;

    wl_init(argc, argv);
    WL_TRY(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED));
    WL_TRY(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ));
    check();

    wl_ready();
    wl_wait();

    check();
    /* MEMBARRIER_CMD_GET_REGISTRATIONS, where there is one. */
    registered = barrier(1 << 9);
    WL_CHECK(registered == -1 || !(registered & MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == (wl_argc == 0),
             "registered for %lx", registered);
    wl_pass();
}
