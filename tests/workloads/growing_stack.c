/* A stack that has grown, and that grows on after a restore; and a mapping of the same kind made by hand. */
#define _GNU_SOURCE
#include "workload.h"

#include <alloca.h>
#include <stdio.h>
#include <sys/mman.h>

enum { KIB = 1024, PAGE = 4096, FRAME = 16 * KIB };

static __attribute__((noinline)) int deep(int levels, int seed)
{
    volatile char room[FRAME];

    for (int at = 0; at < FRAME; at += PAGE)
        room[at] = (char)(seed + levels);
    int below = levels > 0 ? deep(levels - 1, seed) : 0;
    for (int at = 0; at < FRAME; at += PAGE)
        WL_CHECK(room[at] == (char)(seed + levels), "the stack at level %d was changed", levels);
    return below + 1;
}

/* Bytes of the mapping that holds an address. */
static size_t mapped_around(const void *at)
{
    unsigned long start, end;
    char line[512];
    size_t found = 0;

    FILE *maps = fopen("/proc/self/maps", "re");
    WL_CHECK(maps != NULL, "no maps");
    while (fgets(line, sizeof(line), maps) != NULL)
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && start <= (uintptr_t)at && (uintptr_t)at < end)
            found = end - start;
    fclose(maps);
    return found;
}

int main(int argc, char **argv)
{
    int here = 0;

    wl_init(argc, argv);
    WL_CHECK(deep(20, 1) == 21, "20 levels");
    size_t grown = mapped_around(&here);

    /* Its top page is touched; below it lie 1 MiB into which it may grow. */
    char *top = WL_TRY(mmap(NULL, 2 * KIB * KIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    WL_TRY(munmap(top, 2 * KIB * KIB));
    top += 2 * KIB * KIB - PAGE;
    char *own = WL_TRY(mmap(top, PAGE, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0));
    own[0] = 7;
    own[-PAGE] = 8;
    WL_CHECK(mapped_around(own) >= 2 * PAGE, "it does not grow");
    wl_ready();
    wl_wait();

    WL_CHECK(mapped_around(&here) >= grown, "the stack has shrunk from %zu to %zu", grown, mapped_around(&here));
    WL_CHECK(deep(200, 2) == 201, "200 levels");
    WL_CHECK(mapped_around(&here) > grown, "the stack has not grown");
    WL_CHECK(own[0] == 7 && own[-PAGE] == 8, "contents of the growing mapping");
    own[-2 * PAGE] = 9;
    WL_CHECK(mapped_around(own) >= 3 * PAGE, "it does not grow any more");
    wl_pass();
}
