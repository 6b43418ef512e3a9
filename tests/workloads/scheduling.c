/* Threads of every scheduling policy, with nice values, priorities, affinity, I/O priority and timer slack. */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESET_ON_FORK 1
#define IOPRIO(class, level) ((class) << 13 | (level))

struct attr {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime;
    uint64_t deadline;
    uint64_t period;
};

struct plan {
    const char *what;
    struct attr attr;
    int ioprio;
    unsigned long slack;
    bool one_cpu;
};

static const struct plan plans[] = {
    {"nothing special", {.policy = SCHED_OTHER}, 0, 50000, false},
    {"nice", {.policy = SCHED_OTHER, .nice = -7}, IOPRIO(2, 1), 1234, true},
    {"batch", {.policy = SCHED_BATCH, .nice = 5}, IOPRIO(3, 0), 50000, false},
    {"idle", {.policy = SCHED_IDLE, .nice = 4}, 0, 50000, false},
    {"fifo", {.policy = SCHED_FIFO, .priority = 7}, IOPRIO(1, 3), 0, true},
    {"rr", {.policy = SCHED_RR, .priority = 3, .flags = RESET_ON_FORK}, 0, 0, false},
    {"deadline",
     {.policy = SCHED_DEADLINE, .flags = RESET_ON_FORK, .runtime = 1000000, .deadline = 50000000, .period = 100000000},
     0,
     0,
     false},
};
#define N_THREADS (sizeof(plans) / sizeof(plans[0]))

static pthread_barrier_t ready, go;

static void set(const struct plan *plan)
{
    struct attr attr = plan->attr;

    attr.size = sizeof(attr);
    if (plan->one_cpu) {
        cpu_set_t cpus;
        int cpu = 0;

        WL_TRY(sched_getaffinity(0, sizeof(cpus), &cpus));
        while (!CPU_ISSET(cpu, &cpus))
            cpu++;
        CPU_ZERO(&cpus);
        CPU_SET(cpu, &cpus);
        WL_TRY(sched_setaffinity(0, sizeof(cpus), &cpus));
    }
    if (plan->ioprio)
        WL_TRY(syscall(SYS_ioprio_set, 1, 0, plan->ioprio));
    if (plan->slack && plan->slack != 50000)
        WL_TRY(prctl(PR_SET_TIMERSLACK, plan->slack));
    if (attr.nice)
        WL_TRY(setpriority(PRIO_PROCESS, (id_t)gettid(), attr.nice));
    if (syscall(SYS_sched_setattr, 0, &attr, 0) != 0)
        wl_fail("%s: sched_setattr: %s", plan->what, strerror(errno));
}

static void check(const struct plan *plan)
{
    struct attr now = {0};
    cpu_set_t cpus;

    WL_TRY(syscall(SYS_sched_getattr, 0, &now, sizeof(now), 0));
    WL_CHECK(now.policy == plan->attr.policy, "%s: policy %u", plan->what, now.policy);
    WL_CHECK(now.flags == plan->attr.flags, "%s: flags %#llx", plan->what, (unsigned long long)now.flags);
    WL_CHECK(now.nice == plan->attr.nice, "%s: nice %d", plan->what, now.nice);
    WL_CHECK(now.priority == plan->attr.priority, "%s: priority %u", plan->what, now.priority);
    if (now.policy == SCHED_DEADLINE)
        WL_CHECK(now.runtime == plan->attr.runtime && now.deadline == plan->attr.deadline &&
                     now.period == plan->attr.period,
                 "%s: other parameters", plan->what);
    /* Who has none is told a level of no class on some kernels (5.10: 4). */
    long ioprio = WL_TRY(syscall(SYS_ioprio_get, 1, 0));
    WL_CHECK((ioprio < IOPRIO(1, 0) ? 0 : ioprio) == plan->ioprio, "%s: I/O priority %#lx", plan->what, ioprio);
    if (plan->slack)
        WL_CHECK((unsigned long)prctl(PR_GET_TIMERSLACK) == plan->slack, "%s: timer slack %d", plan->what,
                 prctl(PR_GET_TIMERSLACK));
    WL_TRY(sched_getaffinity(0, sizeof(cpus), &cpus));
    WL_CHECK(!plan->one_cpu || CPU_COUNT(&cpus) == 1, "%s: %d CPUs", plan->what, CPU_COUNT(&cpus));
}

static void *run(void *arg)
{
    set(arg);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    check(arg);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[N_THREADS];

    wl_init(argc, argv);
    WL_TRY_PTHREAD(pthread_barrier_init(&ready, NULL, N_THREADS + 1));
    WL_TRY_PTHREAD(pthread_barrier_init(&go, NULL, N_THREADS + 1));
    for (size_t i = 0; i < N_THREADS; i++)
        WL_TRY_PTHREAD(pthread_create(&threads[i], NULL, run, (void *)&plans[i]));
    pthread_barrier_wait(&ready);

    wl_ready();
    wl_wait();

    pthread_barrier_wait(&go);
    for (size_t i = 0; i < N_THREADS; i++)
        WL_TRY_PTHREAD(pthread_join(threads[i], NULL));
    wl_pass();
}
