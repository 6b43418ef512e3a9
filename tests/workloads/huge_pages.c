/* Mappings of huge pages: private and shared, with contents, some of their pages untouched. */
#define _GNU_SOURCE
#include "workload.h"

#include <stdio.h>
#include <sys/mman.h>

static const size_t HUGE = (size_t)2 << 20;

static bool is_huge(const void *at)
{
    unsigned long start, end;
    char line[512];
    bool inside = false;

    FILE *maps = fopen("/proc/self/smaps", "re");
    WL_CHECK(maps != NULL, "no smaps");
    while (fgets(line, sizeof(line), maps) != NULL) {
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            inside = start <= (uintptr_t)at && (uintptr_t)at < end;
        if (inside && strncmp(line, "KernelPageSize:", 15) == 0) {
            fclose(maps);
            return strstr(line, "2048 kB") != NULL;
        }
    }
    wl_fail("%p is not mapped", at);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    int flags = MAP_ANONYMOUS | MAP_HUGETLB;
    char *own = WL_TRY(mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | flags, -1, 0));
    char *shared = WL_TRY(mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | flags, -1, 0));
    wl_fill(own, HUGE, 1);
    wl_fill(shared + HUGE, HUGE, 2);
    wl_ready();
    wl_wait();
    WL_CHECK(is_huge(own) && is_huge(shared), "pages are no longer huge");
    wl_check_fill(own, HUGE, 1, "private huge page");
    wl_check_fill(shared + HUGE, HUGE, 2, "shared huge page");
    for (size_t at = 0; at < HUGE; at += 4096)
        WL_CHECK(own[HUGE + at] == 0 && shared[at] == 0, "an untouched huge page has contents");
    wl_pass();
}
