/* Shared anonymous memory: what a parent, its child and two mappings of one segment write, all of them see. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, N_PAGES = 64 };

static void check_named(const void *at)
{
    char line[512];
    unsigned long start, end;

    FILE *maps = fopen("/proc/self/maps", "re");
    WL_CHECK(maps != NULL, "no maps");
    while (fgets(line, sizeof(line), maps) != NULL) {
        WL_CHECK(sscanf(line, "%lx-%lx", &start, &end) == 2, "odd line in maps: %s", line);
        if (start <= (uintptr_t)at && (uintptr_t)at < end)
            WL_CHECK(strstr(line, "rw-s") && strstr(line, "/dev/zero (deleted)"), "the mapping became %s", line);
    }
    fclose(maps);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);

    char *memory = WL_TRY(mmap(NULL, N_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    /* The parent never touches this one: only the segment itself knows what is in it. */
    char *childs = WL_TRY(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    _Atomic int *turn = (_Atomic int *)memory;
    /* A second view of the later pages: mremap with an old size of 0 duplicates a shared mapping. */
    char *view = WL_TRY(mremap(memory + 8 * PAGE, 0, 2 * PAGE, MREMAP_MAYMOVE));

    wl_fill(memory + 8 * PAGE, PAGE, 1);
    wl_fill(memory + 63 * PAGE, PAGE, 2);
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        wl_fill(childs + PAGE, PAGE, 3);
        WL_TRY(munmap(memory + 16 * PAGE, 16 * PAGE));
        atomic_store(turn, 1);
        while (atomic_load(turn) != 2)
            usleep(1000);
        wl_check_fill(childs + PAGE, PAGE, 3, "the child's own");
        memory[9 * PAGE] = 'c';
        atomic_store(turn, 3);
        _exit(0);
    }
    while (atomic_load(turn) != 1)
        usleep(1000);
    wl_ready();
    wl_wait();

    check_named(memory);
    wl_check_fill(memory + 8 * PAGE, PAGE, 1, "first");
    wl_check_fill(view, PAGE, 1, "second view");
    wl_check_fill(memory + 63 * PAGE, PAGE, 2, "last");
    wl_check_fill(childs + PAGE, PAGE, 3, "touched by the child only");
    for (int at = 0; at < PAGE; at++)
        WL_CHECK(memory[40 * PAGE + at] == 0, "an untouched page is not zero");
    atomic_store(turn, 2);
    while (atomic_load(turn) != 3)
        usleep(1000);
    WL_CHECK(view[PAGE] == 'c', "what the child wrote is not in the parent's second view");
    int status;
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(status == 0, "child: status %#x", status);
    wl_pass();
}
