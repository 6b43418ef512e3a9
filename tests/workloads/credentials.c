/*
 * Threads with credentials of their own: other ids and groups, capability sets, securebits, ambient capabilities.
 * The main thread has given up nearly everything.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <libgen.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N_THREADS 3
#define SELF N_THREADS

static pthread_barrier_t ready, go;
static char before[N_THREADS + 1][4096];

static void capset(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };

    WL_TRY(syscall(SYS_capset, &header, data));
}

static void become(int index)
{
    gid_t groups[] = {7, 8, 70000, 900000};

    switch (index) {
    case 0: /* an ordinary user */
        WL_TRY(syscall(SYS_setgroups, 4, groups));
        WL_TRY(syscall(SYS_setresgid, 1001, 1002, 1003));
        WL_TRY(syscall(SYS_setresuid, 2001, 2001, 2001));
        break;
    case 1: /* root with few capabilities, some of them ambient, and locked securebits */
        WL_TRY(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT));
        capset(1 << CAP_KILL, 1 << CAP_KILL | 1 << CAP_CHOWN | 1 << CAP_SETPCAP, 1 << CAP_CHOWN | 1 << CAP_FOWNER);
        WL_TRY(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
        capset(1 << CAP_SETPCAP, 1 << CAP_KILL | 1 << CAP_CHOWN | 1 << CAP_SETPCAP, 1 << CAP_CHOWN | 1 << CAP_FOWNER);
        WL_TRY(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS));
        capset(1 << CAP_KILL, 1 << CAP_KILL | 1 << CAP_CHOWN | 1 << CAP_SETPCAP, 1 << CAP_CHOWN | 1 << CAP_FOWNER);
        break;
    case 2: /* real, effective, saved and file system ids that all differ */
        WL_TRY(syscall(SYS_setresuid, 3001, 3002, 3003));
        WL_TRY(syscall(SYS_setgroups, 0, NULL) == -1 ? 0 : -1);
        WL_TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        break;
    default:
        WL_TRY(syscall(SYS_setresgid, 5, 5, 5));
        WL_TRY(syscall(SYS_setresuid, 18943, 18943, 18943));
        WL_TRY(prctl(PR_SET_DUMPABLE, 1));
    }
}

/* What the kernel and the thread know of it, as text. */
static void describe(char *text, size_t size)
{
    char line[256], path[64];
    size_t at = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)gettid());
    FILE *stream = fopen(path, "r");
    WL_CHECK(stream != NULL, "%s: %s", path, strerror(errno));
    while (fgets(line, sizeof(line), stream))
        if (strncmp(line, "Uid", 3) == 0 || strncmp(line, "Gid", 3) == 0 || strncmp(line, "Cap", 3) == 0 ||
            strncmp(line, "Groups", 6) == 0 || strncmp(line, "NoNew", 5) == 0)
            at += (size_t)snprintf(text + at, size - at, "%s", line);
    fclose(stream);
    snprintf(text + at, size - at, "securebits %#x, keepcaps %d, dumpable %d\n", prctl(PR_GET_SECUREBITS),
             prctl(PR_GET_KEEPCAPS), prctl(PR_GET_DUMPABLE));
}

static void check(int index)
{
    char now[4096];

    describe(now, sizeof(now));
    WL_CHECK(strcmp(before[index], now) == 0, "thread %d was\n%sand is\n%s", index, before[index], now);
}

static void *run(void *arg)
{
    int index = (int)(intptr_t)arg;

    become(index);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready);
    describe(before[index], sizeof(before[index]));
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    check(index);
    return NULL;
}

/* Reports are files beside the status file: let anyone write there. */
static void open_directory(char **argv)
{
    for (int i = 1; argv[i]; i++)
        if (strcmp(argv[i - 1], "--status") == 0)
            WL_TRY(chmod(dirname(strdup(argv[i])), 0777));
}

int main(int argc, char **argv)
{
    pthread_t threads[N_THREADS];

    wl_init(argc, argv);
    WL_TRY_PTHREAD(pthread_barrier_init(&ready, NULL, N_THREADS + 1));
    WL_TRY_PTHREAD(pthread_barrier_init(&go, NULL, N_THREADS + 1));
    for (intptr_t i = 0; i < N_THREADS; i++)
        WL_TRY_PTHREAD(pthread_create(&threads[i], NULL, run, (void *)i));
    pthread_barrier_wait(&ready);
    open_directory(argv);
    become(SELF);
    pthread_barrier_wait(&ready);
    describe(before[SELF], sizeof(before[SELF]));
    pthread_barrier_wait(&ready);

    wl_ready();
    wl_wait();

    check(SELF);
    pthread_barrier_wait(&go);
    for (int i = 0; i < N_THREADS; i++)
        WL_TRY_PTHREAD(pthread_join(threads[i], NULL));
    wl_pass();
}
