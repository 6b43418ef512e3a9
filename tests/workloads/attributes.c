/*
 * Everything that can be asked of a task, before and after: a table of what it is, what it was, and what it is now.
 *
 * Three tasks are asked: the main thread, another thread of its process, and a child. With the argument "odd" the first
 * two have set whatever they may to something else than the default, each what the other has not where it is the
 * thread's own, and the child has been born before; with "plain" nobody has set anything; with "keyed" all have one
 * session keyring that is not their user's.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_ROWS 400
#define ROW 200

struct table {
    int n_rows;
    char name[N_ROWS][32], value[N_ROWS][ROW];
};

struct sched_all {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
    uint32_t util_min, util_max;
};

__attribute__((format(printf, 3, 4))) static void row(struct table *table, const char *name, const char *format, ...)
{
    va_list args;

    WL_CHECK(table->n_rows < N_ROWS, "too many rows");
    snprintf(table->name[table->n_rows], sizeof(table->name[0]), "%s", name);
    va_start(args, format);
    vsnprintf(table->value[table->n_rows], ROW, format, args);
    va_end(args);
    table->n_rows++;
}

static void ask_number(struct table *table, const char *name, long result)
{
    if (result == -1)
        row(table, name, "error %d", errno);
    else
        row(table, name, "%#lx", result);
}

static void ask_room(struct table *table, const char *name, int option)
{
    unsigned long value = 0;

    if (prctl(option, &value, 0, 0, 0) == -1)
        row(table, name, "error %d", errno);
    else
        row(table, name, "%#lx", value);
}

static void ask_prctls(struct table *table)
{
    char name[16] = "";
    long value;

    ask_room(table, "parent-death signal", PR_GET_PDEATHSIG);
    ask_number(table, "dumpable", prctl(PR_GET_DUMPABLE));
    ask_number(table, "keep capabilities", prctl(PR_GET_KEEPCAPS));
    ask_number(table, "unaligned access", prctl(PR_GET_UNALIGN, name));
    ask_number(table, "timing", prctl(PR_GET_TIMING));
    ask_room(table, "tsc", PR_GET_TSC);
    ask_number(table, "securebits", prctl(PR_GET_SECUREBITS));
    ask_number(table, "timer slack", prctl(PR_GET_TIMERSLACK));
    ask_number(table, "mce kill", prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    ask_room(table, "child subreaper", PR_GET_CHILD_SUBREAPER);
    ask_number(table, "no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    ask_room(table, "tid address", PR_GET_TID_ADDRESS);
    ask_number(table, "thp disable", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    for (long which = 0; which < 3; which++) {
        static const char *const names[] = {"speculative store bypass", "indirect branches", "flush of L1D"};

        ask_number(table, names[which], prctl(PR_GET_SPECULATION_CTRL, which, 0, 0, 0));
    }
    ask_number(table, "io flusher", prctl(58, 0, 0, 0, 0));
    ask_number(table, "mdwe", prctl(66, 0, 0, 0, 0));
    ask_number(table, "ksm", prctl(68, 0, 0, 0, 0));
    ask_number(table, "tagged addresses", prctl(56, 0, 0, 0, 0));
    /* None, or at least 16: the kernel's own choice, which grows with the threads that there ever were. */
    value = prctl(78, 2, 0, 0, 0);
    ask_number(table, "futex slots", value > 0 && value < 16 ? value : 0);
    ask_number(table, "timers with ids", prctl(77, 2, 0, 0, 0));
    prctl(PR_GET_NAME, name);
    row(table, "name", "%s", name);
}

static void ask_arch(struct table *table)
{
    static const struct {
        const char *name;
        int code;
    } asked[] = {{"fs base", ARCH_GET_FS},
                 {"gs base", ARCH_GET_GS},
                 {"extended state permitted", 0x1022},
                 {"address mask", 0x4001},
                 {"shadow stack", 0x5005}};

    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        uint64_t value = 0;

        if (syscall(SYS_arch_prctl, asked[i].code, &value) == -1)
            row(table, asked[i].name, "error %d", errno);
        else
            row(table, asked[i].name, "%#lx", value);
    }
    ask_number(table, "cpuid", syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0));
}

static void ask_scheduling(struct table *table)
{
    struct sched_all all = {.size = sizeof(all)};
    unsigned long cpus[16] = {0}, nodes[16] = {0};
    int mode = 0;

    syscall(SYS_sched_getattr, 0, &all, sizeof(all), 0);
    row(table, "scheduler", "policy %u flags %#lx nice %d priority %u slice %lu %lu %lu clamps %u %u", all.policy,
        all.flags, all.nice, all.priority, all.runtime, all.deadline, all.period, all.util_min, all.util_max);
    ask_number(table, "getpriority", getpriority(PRIO_PROCESS, 0) + 100);
    syscall(SYS_sched_getaffinity, 0, sizeof(cpus), cpus);
    row(table, "affinity", "%lx %lx", cpus[1], cpus[0]);
    ask_number(table, "io priority", syscall(SYS_ioprio_get, 1, 0));
    if (syscall(SYS_get_mempolicy, &mode, nodes, 1024, 0, 0) == -1)
        row(table, "memory policy", "error %d", errno);
    else
        row(table, "memory policy", "%#x %lx", mode, nodes[0]);
}

static void ask_limits(struct table *table)
{
    static const char *const names[] = {"cpu",   "fsize", "data",    "stack",      "core",     "rss",  "nproc",  "nofile",
                                        "memlock", "as",  "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"};

    for (int i = 0; i < 16; i++) {
        struct rlimit limit = {0, 0};
        char name[32];

        getrlimit(i, &limit);
        snprintf(name, sizeof(name), "limit %s", names[i]);
        row(table, name, "%lx %lx", limit.rlim_cur, limit.rlim_max);
    }
}

static void ask_signals(struct table *table)
{
    stack_t stack;
    void *head = NULL;
    size_t length = 0;

    for (int number = 1; number <= 64; number++) {
        struct {
            uint64_t handler, flags, restorer, mask;
        } action = {0, 0, 0, 0};
        char name[32];

        if (syscall(SYS_rt_sigaction, number, NULL, &action, 8) == -1)
            continue;
        snprintf(name, sizeof(name), "signal %d", number);
        row(table, name, "%#lx flags %#lx mask %#lx", action.handler, action.flags, action.mask);
    }
    sigaltstack(NULL, &stack);
    row(table, "alternate stack", "%p %x %zx", stack.ss_sp, stack.ss_flags, stack.ss_size);
    syscall(SYS_get_robust_list, 0, &head, &length);
    row(table, "robust list", "%p %zu", head, length);
}

/* A file of /proc/thread-self, or its lines that begin with one of the keys. */
static void ask_file(struct table *table, const char *file, const char *const *keys)
{
    char path[64], line[512];
    FILE *stream;

    snprintf(path, sizeof(path), "/proc/%s/%s", strcmp(file, "status") ? "self" : "thread-self", file);
    stream = fopen(path, "r");
    if (stream == NULL) {
        row(table, file, "error %d", errno);
        return;
    }
    while (fgets(line, sizeof(line), stream)) {
        line[strcspn(line, "\n")] = 0;
        if (keys == NULL)
            row(table, file, "%.180s", line);
        for (const char *const *key = keys; key && *key; key++)
            if (strncmp(line, *key, strlen(*key)) == 0)
                row(table, *key, "%.180s", line + strlen(*key));
    }
    fclose(stream);
}

static void ask_autogroup(struct table *table)
{
    char line[64] = "";
    FILE *stream = fopen("/proc/self/autogroup", "r");

    if (stream && fgets(line, sizeof(line), stream) && strstr(line, "nice"))
        row(table, "autogroup", "%s", strstr(line, "nice"));
    if (stream)
        fclose(stream);
}

/* Whether memory is locked as it is mapped, which only new memory tells. */
static void ask_lock_future(struct table *table)
{
    void *page = WL_TRY(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    FILE *stream = fopen("/proc/self/smaps", "r");
    bool here = false;
    char line[512], head[32];

    snprintf(head, sizeof(head), "%lx-", (unsigned long)page);
    while (stream && fgets(line, sizeof(line), stream)) {
        unsigned long start, end;

        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = start <= (unsigned long)page && (unsigned long)page < end;
        if (here && strncmp(line, "VmFlags:", 8) == 0)
            row(table, "new memory", "locked %d, once touched %d", strstr(line, " lo") != NULL,
                strstr(line, " lf") != NULL);
    }
    if (stream)
        fclose(stream);
    munmap(page, 4096);
}

static void ask_others(struct table *table)
{
    static const char *const keys[] = {
        "Umask:",  "Uid:",    "Gid:",    "Groups:",     "SigPnd:",      "ShdPnd:",
        "SigBlk:", "SigIgn:", "SigCgt:", "CapInh:",     "CapPrm:",      "CapEff:",
        "CapBnd:", "CapAmb:", "Seccomp", "Speculation", "THP_enabled:", "Mems_allowed_list:",
        "untag_mask:", "x86_Thread_features:", NULL,
    };
    static const char *const links[] = {"exe", "cwd", "root"};

    ask_file(table, "status", keys);
    ask_file(table, "coredump_filter", NULL);
    ask_file(table, "oom_score_adj", NULL);
    ask_file(table, "loginuid", NULL);
    ask_file(table, "personality", NULL);
    ask_file(table, "cgroup", NULL);
    ask_autogroup(table);
    ask_lock_future(table);
    ask_number(table, "session", getsid(0));
    ask_number(table, "process group", getpgrp());
    ask_number(table, "membarrier", syscall(SYS_membarrier, 1 << 9, 0, 0));
    ask_number(table, "session keyring is the user's",
               syscall(SYS_keyctl, 0, -3, 0) == syscall(SYS_keyctl, 0, -5, 0));
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        char path[32], target[160];
        ssize_t length;

        snprintf(path, sizeof(path), "/proc/self/%s", links[i]);
        length = readlink(path, target, sizeof(target) - 1);
        row(table, links[i], "%.*s", length > 0 ? (int)length : 0, target);
    }
}

static void ask(struct table *table)
{
    table->n_rows = 0;
    ask_prctls(table);
    ask_arch(table);
    ask_scheduling(table);
    ask_limits(table);
    ask_signals(table);
    ask_others(table);
}

/* The rows that differ. */
static char other[4096];

static int compare(const char *who, const struct table *before, const struct table *after)
{
    int n_other = before->n_rows != after->n_rows;

    for (int i = 0; i < before->n_rows && i < after->n_rows; i++) {
        bool same = strcmp(before->name[i], after->name[i]) == 0 && strcmp(before->value[i], after->value[i]) == 0;

        wl_log("%-8s %-30s %-9s %s%s%s", who, before->name[i], same ? "same" : "DIFFERS", before->value[i],
               same ? "" : " -> ", same ? "" : after->value[i]);
        if (!same)
            snprintf(other + strlen(other), sizeof(other) - strlen(other), "\n%s: %s was %s, is %s", who,
                     before->name[i], before->value[i], after->value[i]);
        n_other += !same;
    }
    return n_other;
}

static void on_signal(int number)
{
    (void)number;
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        if (write(fd, text, strlen(text)) == -1)
            wl_log("%s may not be %s", path, text);
        close(fd);
    }
}

/* Whatever is not permitted, or not there, stays as it is. */
static void set_process(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};

    sigaddset(&action.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &action, NULL);
    action.sa_handler = SIG_IGN;
    action.sa_flags = 0;
    sigaction(SIGHUP, &action, NULL);
    sigaction(33, &action, NULL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){4096, 8192});
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){200, 300});
    umask(027);
    write_file("/proc/self/coredump_filter", "0x7f");
    write_file("/proc/self/oom_score_adj", "123");
    personality(ADDR_NO_RANDOMIZE);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    prctl(67, 1, 0, 0, 0);
    /* Fewer than the kernel chooses itself. */
    prctl(78, 1, 4, 0, 0);
    prctl(PR_SET_DUMPABLE, 0);
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    syscall(SYS_keyctl, 1, NULL);
    prctl(65, 1, 0, 0, 0);
}

static void set_main_thread(void)
{
    struct sched_all all = {.size = sizeof(all), .policy = SCHED_BATCH, .nice = 3, .runtime = 5000000};

    syscall(SYS_sched_setattr, 0, &all, 0);
    prctl(PR_SET_TIMERSLACK, 12345);
    prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
    prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECUREBITS, 1 << 6 | 1 << 0);
    syscall(SYS_ioprio_set, 1, 0, 3 << 13);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    prctl(PR_CAPBSET_DROP, 30);
    mlockall(MCL_FUTURE | MCL_ONFAULT);
}

static void set_other_thread(void)
{
    static char stack[1 << 16];
    unsigned long node = 1;
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof(stack)}, NULL);
    prctl(PR_SET_NAME, "other (thread)");
    prctl(PR_SET_TSC, PR_TSC_SIGSEGV);
    prctl(58 - 1, 1, 0, 0, 0);
    prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_FORCE_DISABLE, 0, 0);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    syscall(SYS_set_mempolicy, 2, &node, 64);
    syscall(SYS_setgroups, 2, (gid_t[]){11, 12});
    setfsuid(1234);
}

static struct table before[3], after[3];
static pthread_barrier_t ready, go;
static bool is_odd;

static void *other_thread(void *arg)
{
    (void)arg;
    pthread_barrier_wait(&ready);
    if (is_odd)
        set_other_thread();
    ask(&before[1]);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    ask(&after[1]);
    pthread_barrier_wait(&ready);
    return NULL;
}

static void child(int from, int to)
{
    char word = 0;
    int n_other;

    ask(&before[2]);
    WL_TRY(write(to, &word, 1));
    while (read(from, &word, 1) == -1 && errno == EINTR)
        ;
    ask(&after[2]);
    n_other = compare("child", &before[2], &after[2]);
    if (n_other)
        wl_fail("%d rows of the table differ:%s", n_other, other);
    _exit(0);
}

int main(int argc, char **argv)
{
    int to_child[2], from_child[2], status, n_other;
    pthread_t thread;
    char word;

    wl_init(argc, argv);
    is_odd = wl_argc && strcmp(wl_argv[0], "odd") == 0;
    WL_TRY(pipe2(to_child, O_CLOEXEC));
    WL_TRY(pipe2(from_child, O_CLOEXEC));
    if (is_odd)
        write_file("/proc/self/autogroup", "5"); /* of the session, so of the child as well */
    if (wl_argc && strcmp(wl_argv[0], "keyed") == 0)
        WL_TRY(syscall(SYS_keyctl, 1, NULL));
    pid_t pid = WL_TRY(fork());
    if (pid == 0)
        child(to_child[0], from_child[1]);
    WL_CHECK(read(from_child[0], &word, 1) == 1, "the child does not begin");
    if (is_odd)
        set_process();
    pthread_barrier_init(&ready, NULL, 2);
    pthread_barrier_init(&go, NULL, 2);
    WL_TRY_PTHREAD(pthread_create(&thread, NULL, other_thread, NULL));
    if (is_odd)
        set_main_thread();
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready);
    ask(&before[0]);

    wl_ready();
    wl_wait();

    ask(&after[0]);
    pthread_barrier_wait(&go);
    pthread_barrier_wait(&ready);
    n_other = compare("main", &before[0], &after[0]) + compare("thread", &before[1], &after[1]);
    WL_TRY(write(to_child[1], &word, 1));
    WL_TRY(waitpid(pid, &status, 0));
    WL_CHECK(status == 0, "the child ended with %#x", status);
    WL_CHECK(n_other == 0, "%d rows of the table differ:%s", n_other, other);
    wl_pass();
}
