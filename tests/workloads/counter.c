/* Private memory of every sort (data, bss, heap, stack, anonymous, read-only) and a counter that goes on counting. */
#define _GNU_SOURCE
#include "workload.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define N_BYTES (4u << 20)
#define PAGE 4096u

static uint64_t in_data[1024] = {1};
static uint64_t in_bss[1024];

struct counter {
    uint64_t up;
    uint64_t down;
};

static void count(void *arg)
{
    struct counter *counter = arg;

    counter->up++;
    counter->down--;
    if (counter->up + counter->down != 0)
        wl_fail("the counters ran apart: %llu up, %llu down", (unsigned long long)counter->up,
                (unsigned long long)counter->down);
}

int main(int argc, char **argv)
{
    char on_stack[3 * PAGE];
    struct counter counter = {0};

    wl_init(argc, argv);
    pid_t pid = getpid();
    char *on_heap = malloc(N_BYTES / 4);
    WL_CHECK(on_heap != NULL, "out of memory");
    char *mapped = WL_TRY(mmap(NULL, N_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char *sparse = WL_TRY(mmap(NULL, N_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char *read_only = WL_TRY(mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    wl_fill(in_data, sizeof(in_data), 1);
    wl_fill(in_bss, sizeof(in_bss), 2);
    wl_fill(on_heap, N_BYTES / 4, 3);
    wl_fill(on_stack, sizeof(on_stack), 4);
    wl_fill(mapped, N_BYTES, 5);
    wl_fill(sparse + N_BYTES / 2, PAGE, 6);
    wl_fill(read_only, 16 * PAGE, 7);
    WL_TRY(mprotect(read_only, 16 * PAGE, PROT_READ));
    count(&counter);

    wl_ready();
    wl_wait_busy(count, &counter);

    WL_CHECK(getpid() == pid, "the pid was %d and is %d", (int)pid, (int)getpid());
    wl_check_fill(in_data, sizeof(in_data), 1, "data");
    wl_check_fill(in_bss, sizeof(in_bss), 2, "bss");
    wl_check_fill(on_heap, N_BYTES / 4, 3, "heap");
    wl_check_fill(on_stack, sizeof(on_stack), 4, "stack");
    wl_check_fill(mapped, N_BYTES, 5, "anonymous mapping");
    wl_check_fill(sparse + N_BYTES / 2, PAGE, 6, "the page in the middle of an empty mapping");
    wl_check_fill(read_only, 16 * PAGE, 7, "read-only mapping");
    for (size_t at = 0; at < N_BYTES; at += PAGE)
        WL_CHECK(at == N_BYTES / 2 || sparse[at] == 0, "offset %zu of an empty mapping is not zero", at);
    /* Still writable where it was, and not shared with anything that would bring old contents back. */
    wl_fill(mapped, N_BYTES, 8);
    wl_check_fill(mapped, N_BYTES, 8, "anonymous mapping, written again");
    WL_TRY(madvise(mapped, PAGE, MADV_DONTNEED));
    WL_CHECK(mapped[0] == 0 && mapped[PAGE - 1] == 0, "a dropped anonymous page is not empty");
    wl_pass();
}
