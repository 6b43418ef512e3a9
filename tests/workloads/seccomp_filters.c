/*
 * Chains of seccomp filters: some that all threads have in common, one of a single thread, one with the LOG flag. What a
 * filter answers tells which ones there are.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_barrier_t ready, go;

/* prctl(option) fails with the errno given. */
static void answer(int option, int error, unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)option, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    WL_TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

static void expect(const char *who, int option, int error)
{
    int result = prctl(option, 0, 0, 0, 0);

    WL_CHECK(result == -1 && errno == error, "%s: prctl(%d) gave %d, errno %d, not %d", who, option, result, errno,
             error);
}

static void *run(void *arg)
{
    bool has_own = arg != NULL;

    pthread_barrier_wait(&ready);
    if (has_own)
        answer(1003, 103, 0);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    expect("thread", 1001, 101);
    expect("thread", 1002, 102);
    expect("thread", 1003, has_own ? 103 : EINVAL);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[2];
    int status;

    wl_init(argc, argv);
    WL_TRY_PTHREAD(pthread_barrier_init(&ready, NULL, 3));
    WL_TRY_PTHREAD(pthread_barrier_init(&go, NULL, 3));
    WL_TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    answer(1001, 101, SECCOMP_FILTER_FLAG_LOG);
    for (size_t i = 0; i < 2; i++)
        WL_TRY_PTHREAD(pthread_create(&threads[i], NULL, run, i ? &threads : NULL));
    answer(1002, 102, SECCOMP_FILTER_FLAG_TSYNC);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready);
    /* Not for us: what a restore would do with privileges. */
    answer(PR_GET_TIMERSLACK, 105, 0);

    wl_ready();
    wl_wait();

    expect("main", 1001, 101);
    expect("main", 1002, 102);
    expect("main", 1003, EINVAL);
    expect("main", PR_GET_TIMERSLACK, 105);
    WL_CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "no_new_privs is gone");
    pthread_barrier_wait(&go);
    for (size_t i = 0; i < 2; i++)
        WL_TRY_PTHREAD(pthread_join(threads[i], NULL));
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        expect("child", 1002, 102);
        _exit(0);
    }
    WL_CHECK(waitpid(child, &status, 0) == child && status == 0, "the child has other filters");
    wl_pass();
}
