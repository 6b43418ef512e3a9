/*
 * Pending signals with what they carry, of a thread and of the process: queued realtime signals in their order, and each
 * of the signals by which an engine might interrupt; alternate stacks, in use and not.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N_QUEUED 100
#define STACK_SIZE 65536

static pthread_barrier_t ready, go;
static const int all_ignored[] = {SIGURG, SIGWINCH, SIGCHLD};
static sigset_t blocked;

static void queue(pid_t tid, int number, int code, int value)
{
    siginfo_t info = {.si_signo = number, .si_code = code};

    info.si_pid = 4242;
    info.si_uid = 777;
    info.si_value.sival_int = value;
    if (tid)
        WL_TRY(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, number, &info));
    else
        WL_TRY(syscall(SYS_rt_sigqueueinfo, getpid(), number, &info));
}

static void take(const char *who, int number, int code, int value)
{
    siginfo_t info;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, number);
    WL_CHECK(sigtimedwait(&set, &info, &(struct timespec){0}) == number, "%s: signal %d is not pending", who, number);
    WL_CHECK(info.si_code == code && info.si_pid == 4242 && info.si_uid == 777 && info.si_value.sival_int == value,
             "%s: signal %d came with code %d, pid %d, value %d (not %d)", who, number, info.si_code, info.si_pid,
             info.si_value.sival_int, value);
}

static void take_nothing_more(const char *who)
{
    int number = sigtimedwait(&blocked, NULL, &(struct timespec){0});

    WL_CHECK(number == -1 && errno == EAGAIN, "%s: signal %d is pending, too", who, number);
}

static void *in_thread(void *arg)
{
    stack_t stack = {.ss_sp = malloc(STACK_SIZE), .ss_size = STACK_SIZE, .ss_flags = 0}, now;

    WL_TRY(sigaltstack(&stack, NULL));
    queue(gettid(), SIGUSR1, SI_QUEUE, 11);
    queue(gettid(), SIGURG, SI_SIGIO, 12);
    for (int i = 0; i < N_QUEUED; i++)
        queue(gettid(), SIGRTMIN + 5, SI_MESGQ, i);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    take("thread", SIGUSR1, SI_QUEUE, 11);
    take("thread", SIGURG, SI_SIGIO, 12);
    for (int i = 0; i < N_QUEUED; i++)
        take("thread", SIGRTMIN + 5, SI_MESGQ, i);
    WL_TRY(sigaltstack(NULL, &now));
    WL_CHECK(now.ss_sp == stack.ss_sp && now.ss_size == stack.ss_size && now.ss_flags == 0,
             "the thread's alternate stack is another");
    return arg;
}

static void *on_stack;

static void on_usr2(int number)
{
    stack_t now;
    char here;

    (void)number;
    WL_CHECK(&here >= (char *)on_stack && &here < (char *)on_stack + STACK_SIZE, "not on the alternate stack");
    wl_ready();
    wl_wait();
    WL_TRY(sigaltstack(NULL, &now));
    WL_CHECK(now.ss_flags == SS_ONSTACK && now.ss_sp == on_stack, "the stack in use has flags %#x", now.ss_flags);
}

int main(int argc, char **argv)
{
    stack_t stack = {.ss_size = STACK_SIZE}, now;
    pthread_t thread;

    wl_init(argc, argv);
    sigfillset(&blocked);
    sigdelset(&blocked, SIGTERM);
    sigdelset(&blocked, SIGUSR2);
    WL_TRY(sigprocmask(SIG_BLOCK, &blocked, NULL));
    WL_TRY_PTHREAD(pthread_barrier_init(&ready, NULL, 2));
    WL_TRY_PTHREAD(pthread_barrier_init(&go, NULL, 2));
    WL_TRY_PTHREAD(pthread_create(&thread, NULL, in_thread, NULL));
    pthread_barrier_wait(&ready);
    for (size_t i = 0; i < sizeof(all_ignored) / sizeof(all_ignored[0]) - (wl_argc ? 0 : 1); i++)
        queue(0, all_ignored[i], SI_QUEUE, (int)i);
    queue(getpid(), SIGRTMAX, SI_ASYNCIO, 99);
    for (int i = 0; i < N_QUEUED; i++)
        queue(0, SIGRTMIN, SI_QUEUE, -i);
    on_stack = stack.ss_sp = malloc(STACK_SIZE);
    WL_TRY(sigaltstack(&stack, NULL));
    WL_TRY(sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_usr2, .sa_flags = SA_ONSTACK}, NULL));
    raise(SIGUSR2); /* gets ready and waits on the alternate stack */

    WL_TRY(sigaltstack(NULL, &now));
    WL_CHECK(now.ss_flags == 0 && now.ss_sp == on_stack, "the alternate stack has flags %#x", now.ss_flags);
    pthread_barrier_wait(&go);
    WL_TRY_PTHREAD(pthread_join(thread, NULL));
    take("process", SIGURG, SI_QUEUE, 0);
    take("process", SIGWINCH, SI_QUEUE, 1);
    take("main", SIGRTMAX, SI_ASYNCIO, 99);
    for (int i = 0; i < N_QUEUED; i++)
        take("process", SIGRTMIN, SI_QUEUE, -i);
    take_nothing_more("process");
    wl_pass();
}
