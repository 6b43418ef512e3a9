/* Names of processes and threads that are no text: any bytes but NUL, newlines and backslashes among them. */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

static pthread_barrier_t ready, go;
static const char own[] = "\xff\xfe) R \\n\n\r(\xc3";
static const char of_thread[] = "\\\\\x80\t\x01th\xe9";

static void check(const char *wanted)
{
    char name[16];

    WL_TRY(prctl(PR_GET_NAME, name));
    WL_CHECK(strcmp(name, wanted) == 0, "the name of thread %d has changed", gettid());
}

static void *run(void *arg)
{
    WL_TRY(prctl(PR_SET_NAME, of_thread));
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    check(of_thread);
    return arg;
}

int main(int argc, char **argv)
{
    pthread_t thread;

    wl_init(argc, argv);
    WL_TRY_PTHREAD(pthread_barrier_init(&ready, NULL, 2));
    WL_TRY_PTHREAD(pthread_barrier_init(&go, NULL, 2));
    WL_TRY_PTHREAD(pthread_create(&thread, NULL, run, NULL));
    pthread_barrier_wait(&ready);
    WL_TRY(prctl(PR_SET_NAME, own));

    wl_ready();
    wl_wait();

    check(own);
    pthread_barrier_wait(&go);
    WL_TRY_PTHREAD(pthread_join(thread, NULL));
    wl_pass();
}
