/* NUMA policies of threads: node 0 only, preferred and static, the default. */
#define _GNU_SOURCE
#include "workload.h"

#include <linux/mempolicy.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_barrier_t set, checked;

static void expect(int wanted, unsigned long wanted_nodes)
{
    unsigned long nodes[16] = {0};
    int mode;

    WL_TRY(syscall(SYS_get_mempolicy, &mode, nodes, 1024UL, NULL, 0UL));
    WL_CHECK(mode == wanted && nodes[0] == wanted_nodes, "policy %#x of nodes %#lx instead of %#x", mode, nodes[0], wanted);
}

static void *work(void *argument)
{
    int mode = (int)(long)argument;
    unsigned long nodes = mode != MPOL_DEFAULT;

    WL_TRY(syscall(SYS_set_mempolicy, mode, nodes ? &nodes : NULL, 64UL));
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&checked);
    expect(mode, nodes);
    return NULL;
}

int main(int argc, char **argv)
{
    static const int modes[] = {MPOL_BIND, MPOL_PREFERRED | MPOL_F_STATIC_NODES, MPOL_DEFAULT};
    pthread_t threads[3];
    unsigned long nodes = 1;

    wl_init(argc, argv);
    pthread_barrier_init(&set, NULL, 4);
    pthread_barrier_init(&checked, NULL, 4);
    for (int i = 0; i < 3; i++)
        WL_TRY_PTHREAD(pthread_create(&threads[i], NULL, work, (void *)(long)modes[i]));
    WL_TRY(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &nodes, 64UL));
    pthread_barrier_wait(&set);

    wl_ready();
    wl_wait();

    pthread_barrier_wait(&checked);
    expect(MPOL_INTERLEAVE, 1);
    for (int i = 0; i < 3; i++)
        WL_TRY_PTHREAD(pthread_join(threads[i], NULL));
    wl_pass();
}
