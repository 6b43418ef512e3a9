/*
 * A restartable sequence that a thread is inside of nearly all the time, and that would never be interrupted by itself:
 * after each stop it must be aborted, since what it has read may be out of date.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The sequence, from 1 to 2: whoever is aborted within goes on at 4, which SIGNATURE stands before. */
#if defined(__x86_64__)
#define SIGNATURE 0x53053053
#define ENTER                                                                                                          \
    "leaq 5b(%%rip), %%rax\n\t"                                                                                        \
    "movq %%rax, %[cs]\n\t"
#define SPIN                                                                                                           \
    "1: cmpb $0, %[ending]\n\t"                                                                                        \
    "je 1b\n\t"                                                                                                        \
    "2: jmp 3f\n\t"
#define ABORTED "4: movl $1, %[aborted]\n\t"
#define SCRATCH "rax"
#elif defined(__aarch64__)
#define SIGNATURE 0xd428bc00
#define ENTER                                                                                                          \
    "adrp x9, 5b\n\t"                                                                                                  \
    "add x9, x9, #:lo12:5b\n\t"                                                                                        \
    "str x9, %[cs]\n\t"
#define SPIN                                                                                                           \
    "1: ldrb w9, %[ending]\n\t"                                                                                        \
    "cbz w9, 1b\n\t"                                                                                                   \
    "2: b 3f\n\t"
#define ABORTED "4: mov %w[aborted], #1\n\t"
#define SCRATCH "x9"
#else
#error "rseq.c: write the sequence for this architecture"
#endif
#define TEXT(number) #number
#define IN_TEXT(number) TEXT(number)

struct area {
    uint32_t cpu_id_start;
    uint32_t cpu_id;
    uint64_t rseq_cs;
    uint32_t flags;
    uint32_t more[3];
};

/* Where C libraries have theirs: near the thread pointer. */
static __thread _Alignas(32) struct area area;
static atomic_ulong n_aborts;
static atomic_bool ending;

/* Spin inside of the sequence until it is aborted; whoever leaves it otherwise is wrong. */
static int once(void)
{
    int aborted = 0;

    __asm__ volatile(".pushsection .data.rseq, \"aw\"\n\t"
                     ".balign 32\n\t"
                     "5: .long 0, 0\n\t"
                     ".quad 1f, 2f - 1f, 4f\n\t"
                     ".popsection\n\t"
                     ENTER SPIN
                     ".long " IN_TEXT(SIGNATURE) "\n\t"
                     ABORTED
                     "3:\n\t"
                     : [aborted] "+r"(aborted), [cs] "+m"(area.rseq_cs)
                     : [ending] "m"(ending)
                     : SCRATCH, "memory", "cc");
    return aborted;
}

static void *spin(void *arg)
{
    /* The C library has not registered an area: glibc.pthread.rseq=0 in GLIBC_TUNABLES. */
    WL_TRY(syscall(SYS_rseq, &area, sizeof(area), 0, SIGNATURE));
    atomic_store((atomic_bool *)arg, true);
    while (!ending)
        atomic_fetch_add(&n_aborts, (unsigned long)once());
    WL_CHECK(area.cpu_id < 4096, "the area says CPU %u", area.cpu_id);
    WL_TRY(syscall(SYS_rseq, &area, sizeof(area), 1, SIGNATURE));
    return arg;
}

int main(int argc, char **argv)
{
    atomic_bool started = false;
    pthread_t thread;

    wl_init(argc, argv);
    WL_TRY_PTHREAD(pthread_create(&thread, NULL, spin, &started));
    while (!started)
        usleep(1000);

    wl_ready();
    wl_wait();

    unsigned long before = n_aborts;
    while (n_aborts < before + 2)
        usleep(1000);
    atomic_store(&ending, true);
    WL_TRY_PTHREAD(pthread_join(thread, NULL));
    wl_pass();
}
