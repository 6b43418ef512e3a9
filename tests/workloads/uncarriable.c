/* Holds a descriptor that cannot be carried, or something that only this machine has: the argument says which. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "workload.h"

/* What it does until it is told to end. */
static void (*step)(void *arg);

#if defined(__x86_64__)
#include <asm/ldt.h>

static bool hold_machine_s(const char *what)
{
    if (strcmp(what, "ldt") != 0)
        return false;
    struct user_desc segment = {.entry_number = 3, .base_addr = 0x1000, .limit = 0xfff, .seg_32bit = 1};
    WL_TRY((int)syscall(SYS_modify_ldt, 1, &segment, sizeof(segment)));
    return true;
}
#elif defined(__aarch64__)
#include <sys/mman.h>
#include <sys/prctl.h>

enum { PAGE = 4096, MTE = 0x20 };

/* smstart sm: each system call ends the mode, so it is entered over and over. */
static void stream(void *unused)
{
    (void)unused;
    __asm__ volatile(".inst 0xd503437f" ::: "memory");
}

static bool hold_machine_s(const char *what)
{
    if (strcmp(what, "tags of addresses") == 0)
        WL_TRY(prctl(PR_SET_TAGGED_ADDR_CTRL, PR_TAGGED_ADDR_ENABLE, 0, 0, 0));
    else if (strcmp(what, "tagged memory") == 0)
        WL_TRY(mmap(NULL, PAGE, PROT_READ | PROT_WRITE | MTE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    else if (strcmp(what, "short vectors") == 0)
        WL_TRY(prctl(PR_SVE_SET_VL, 16));
    else if (strcmp(what, "array") == 0)
        __asm__ volatile(".inst 0xd503457f" ::: "memory"); /* smstart za */
    else if (strcmp(what, "streaming") == 0)
        step = stream;
    else
        return false;
    return true;
}
#else
static bool hold_machine_s(const char *what)
{
    (void)what;
    return false;
}
#endif

/* What a thread does that outlives the main thread. */
static void *rest(void *main_thread)
{
    pthread_join((pthread_t)main_thread, NULL);
    wl_ready();
    wl_wait();
    wl_pass();
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    if (strcmp(wl_argv[0], "io_uring") == 0) {
        char parameters[120] = {0};
        WL_TRY((int)syscall(SYS_io_uring_setup, 4, parameters));
    } else if (strcmp(wl_argv[0], "userfaultfd") == 0) {
        WL_TRY((int)syscall(SYS_userfaultfd, O_CLOEXEC));
    } else if (strcmp(wl_argv[0], "dnotify") == 0) {
        WL_TRY(fcntl(WL_TRY(open("/", O_RDONLY)), F_NOTIFY, DN_CREATE | DN_MULTISHOT));
    } else if (strcmp(wl_argv[0], "leaderless") == 0) {
        pthread_t thread;
        WL_TRY_PTHREAD(pthread_create(&thread, NULL, rest, (void *)pthread_self()));
        pthread_exit(NULL);
    } else if (!hold_machine_s(wl_argv[0])) {
        WL_TRY(open(wl_argv[0], O_RDONLY));
    }
    wl_ready();
    if (step != NULL)
        wl_wait_busy(step, NULL);
    else
        wl_wait();
    wl_pass();
}
