/* Not about the engine: does on request what a workload should not do, so that the harness itself can be tested. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    const char *how = wl_argc > 0 ? wl_argv[0] : "";

    wl_log("about to do: %s", how);
    if (strcmp(how, "die-early") == 0)
        abort();
    if (strcmp(how, "fail-early") == 0)
        wl_fail("failed with %d", 42);
    if (strcmp(how, "leave-daemon") == 0) {
        if (WL_TRY(fork()) == 0) {
            setsid();
            if (WL_TRY(fork()) != 0)
                _exit(0);
            pause();
        }
        wait(NULL);
    }
    if (strcmp(how, "leave-zombie") == 0 && WL_TRY(fork()) == 0)
        _exit(0);
    if (strcmp(how, "fail-in-child") == 0 && WL_TRY(fork()) == 0)
        wl_fail("the child failed");

    wl_ready();
    wl_wait();

    if (strcmp(how, "hang") == 0) {
        wl_log("hanging");
        for (;;)
            pause();
    }
    if (strcmp(how, "die-late") == 0)
        kill(getpid(), SIGKILL);
    wl_pass();
}
