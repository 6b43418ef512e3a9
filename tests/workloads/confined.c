/*
 * A program that has confined itself for good, in the way that the argument says, and that is as confined afterwards.
 *
 * "mdwe", "mdwe thread": no code of what was writable, in a program with threads that the second form has. "dispatch":
 * its system calls are sent to its own handler whenever it says so; "dispatch busy" is in code for which it has said so.
 * "landlock", "landlock root", "landlock thread", "landlock thread root": in a Landlock domain, without and with
 * privileges, or only another thread is.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static volatile char selector;
static volatile int n_dispatched;
static volatile sig_atomic_t is_told;

static void on_sigsys(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    selector = 0;
    n_dispatched++;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 42;
}

static void check_dispatch(void)
{
    int before = n_dispatched;

    selector = 1;
    long result = syscall(SYS_getppid);
    WL_CHECK(n_dispatched == before + 1 && result == 42, "the call was made: %ld", result);
    WL_CHECK(syscall(SYS_getppid) != 42, "calls are dispatched that should not be");
}

static void start_dispatch(void)
{
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};

    WL_TRY(sigaction(SIGSYS, &action, NULL));
    WL_TRY(prctl(59, 1, 0, 0, &selector));
    check_dispatch();
}

/* Without a call until SIGTERM comes, whose handler says that calls are the kernel's again. */
static void on_term(int number)
{
    (void)number;
    selector = 0;
    is_told = 1;
}

static void restrict_self(bool privileged)
{
    uint64_t handled = 1 << 11; /* LANDLOCK_ACCESS_FS_MAKE_BLOCK */
    int fd = WL_TRY(syscall(444, &handled, sizeof(handled), 0));

    if (!privileged)
        WL_TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    WL_TRY(syscall(446, fd, 0));
    close(fd);
}

static void check_mdwe(void)
{
    void *page = WL_TRY(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    WL_CHECK(mprotect(page, 4096, PROT_READ | PROT_EXEC) == -1 && errno == EACCES, "what was writable became code");
    WL_CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED,
             "writable code can be mapped");
    munmap(page, 4096);
}

static pthread_barrier_t barrier;

static void *thread(void *arg)
{
    if (arg)
        restrict_self(wl_argc > 2);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t other;

    wl_init(argc, argv);
    WL_CHECK(wl_argc >= 1, "how?");
    bool is_landlock = strcmp(wl_argv[0], "landlock") == 0, is_mdwe = strcmp(wl_argv[0], "mdwe") == 0;
    const char *how = wl_argc > 1 ? wl_argv[1] : "";
    bool has_thread = strcmp(how, "thread") == 0;

    pthread_barrier_init(&barrier, NULL, 2);
    if (is_mdwe) {
        WL_TRY(prctl(65, 1, 0, 0, 0));
        check_mdwe();
    }
    if (has_thread) {
        WL_TRY_PTHREAD(pthread_create(&other, NULL, thread, is_landlock ? &barrier : NULL));
        pthread_barrier_wait(&barrier);
    } else if (is_landlock) {
        restrict_self(strcmp(how, "root") == 0);
    }
    if (strcmp(wl_argv[0], "dispatch") == 0)
        start_dispatch();

    wl_ready();
    if (strcmp(how, "busy") == 0) {
        WL_TRY(sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_term}, NULL));
        wl_unblock_term();
        selector = 1;
        while (!is_told) /* which it may be already */
            ;
        selector = 0;
    } else {
        wl_wait();
    }

    if (strcmp(wl_argv[0], "dispatch") == 0)
        check_dispatch();
    if (is_mdwe)
        check_mdwe();
    if (has_thread)
        pthread_barrier_wait(&barrier);
    wl_pass();
}
