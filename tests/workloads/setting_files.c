/* Files by which something is set, open for writing where it is of the tree: its process, its child.  What the whole
 * machine is set by is open for reading.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "workload.h"

int main(int argc, char **argv)
{
    char text[512] = "";
    wl_init(argc, argv);
    pid_t child = WL_TRY(fork());
    if (child == 0)
        for (;;)
            pause();
    int own = WL_TRY(open("/proc/self/oom_score_adj", O_RDWR));
    snprintf(text, sizeof text, "/proc/%d/coredump_filter", child);
    int of_child = WL_TRY(open(text, O_RDWR));
    int machine = WL_TRY(open("/proc/sys/kernel/core_pattern", O_RDONLY));
    wl_ready();
    wl_wait();
    WL_TRY(pwrite(own, "321", 3, 0));
    WL_TRY(pread(own, text, sizeof text - 1, 0));
    WL_CHECK(atoi(text) == 321, "oom_score_adj is %s", text);
    WL_TRY(pwrite(of_child, "0x31", 4, 0));
    WL_TRY(pread(machine, text, sizeof text - 1, 0));
    WL_CHECK((fcntl(machine, F_GETFL) & O_ACCMODE) == O_RDONLY, "core_pattern is open for writing");
    WL_TRY(kill(child, SIGKILL));
    wl_pass();
}
