/* Holds a descriptor that cannot be carried: the argument says which. */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "workload.h"

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
    } else if (strcmp(wl_argv[0], "ldt") == 0) {
        struct user_desc segment = {.entry_number = 3, .base_addr = 0x1000, .limit = 0xfff, .seg_32bit = 1};
        WL_TRY((int)syscall(SYS_modify_ldt, 1, &segment, sizeof(segment)));
    } else {
        WL_TRY(open(wl_argv[0], O_RDONLY));
    }
    wl_ready();
    wl_wait();
    wl_pass();
}
