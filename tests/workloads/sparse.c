/* Terabytes of which a few pages here and there are touched, one of them with advice of its own. */
#define _GNU_SOURCE
#include "workload.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { PAGE = 4096, N_PLACES = 7 };
static const size_t TERABYTE = (size_t)1 << 40;

static const size_t places[N_PLACES] = {
    0, PAGE, (size_t)2 << 20, ((size_t)1 << 39) - PAGE, (size_t)1 << 39, (size_t)123456789 * PAGE,
    ((size_t)1 << 40) - PAGE,
};

/* How many mappings there are between two addresses. */
static int n_mappings(const char *from, const char *to)
{
    char line[512];
    unsigned long start, end;
    int n = 0;

    FILE *maps = fopen("/proc/self/maps", "re");
    WL_CHECK(maps != NULL, "no maps");
    while (fgets(line, sizeof(line), maps) != NULL)
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            n += (uintptr_t)from < end && start < (uintptr_t)to;
    fclose(maps);
    return n;
}

int main(int argc, char **argv)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *areas[3];

    wl_init(argc, argv);
    /* A page that is touched is one, also where huge ones are made of all memory that is large. */
    WL_TRY(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    /* With a page between them, and beside them: none becomes one with the next, nor do its pages with libc's. */
    char *all = WL_TRY(mmap(NULL, 3 * (TERABYTE + PAGE) + PAGE, PROT_NONE, flags, -1, 0));
    for (int i = 0; i < 3; i++)
        areas[i] = WL_TRY(mmap(all + PAGE + (size_t)i * (TERABYTE + PAGE), TERABYTE, PROT_READ | PROT_WRITE,
                               flags | MAP_FIXED, -1, 0));
    WL_TRY(madvise(areas[1], TERABYTE, MADV_RANDOM));
    WL_TRY(mprotect(areas[2], TERABYTE / 2, PROT_READ));
    for (int i = 0; i < 2; i++)
        for (int n = 0; n < N_PLACES; n++)
            wl_fill(areas[i] + places[n], PAGE, (unsigned)(10 * i + n));
    wl_ready();
    wl_wait();

    for (int i = 0; i < 2; i++)
        for (int n = 0; n < N_PLACES; n++)
            wl_check_fill(areas[i] + places[n], PAGE, (unsigned)(10 * i + n), "a page");
    for (int i = 0; i < 2; i++)
        WL_CHECK(areas[i][places[1] + PAGE] == 0 && areas[i][TERABYTE - 3 * PAGE] == 0, "pages beside");
    for (int i = 0; i < 3; i++) {
        int n = n_mappings(areas[i], areas[i] + TERABYTE);
        WL_CHECK(n == (i == 2 ? 2 : 1), "area %d is %d mappings", i, n);
    }
    wl_pass();
}
