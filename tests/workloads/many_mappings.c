/*
 * As many mappings as the second argument says, of the sort that the first one names: every second page of one area, or
 * every second of what was an area of its own, differs from its neighbours. A child has the same, with a page changed.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096L
#define RW (PROT_READ | PROT_WRITE)

static long n;
static char *area;
static const char *sort;

static bool is(const char *name)
{
    return strcmp(sort, name) == 0;
}

static long *word(long i)
{
    return (long *)(area + i * PAGE);
}

static bool has_word(long i)
{
    return !is("holes") || i % 2 == 0;
}

static void make(void)
{
    int flags = is("shared") ? MAP_SHARED | MAP_ANONYMOUS : MAP_PRIVATE | MAP_ANONYMOUS, fd = -1;

    if (is("file")) {
        fd = WL_TRY(open("file", O_RDWR | O_CREAT, 0600));
        WL_TRY(ftruncate(fd, n * PAGE));
        flags = MAP_PRIVATE;
    }
    area = mmap(NULL, (size_t)((is("holes") ? 2 : 1) * n * PAGE), RW, flags, fd, 0);
    WL_CHECK(area != MAP_FAILED, "no memory");
    if (is("holes"))
        n *= 2;
    for (long i = 0; i < n; i += has_word(i + 1) ? 1 : 2)
        *word(i) = i + 1;
    for (long i = 1; i < n; i += 2) {
        int error = 0;
        if (is("protection") || is("shared") || is("file"))
            error = mprotect(word(i), PAGE, PROT_READ);
        else if (is("none"))
            error = mprotect(word(i), PAGE, PROT_NONE);
        else if (is("code"))
            error = mprotect(word(i), PAGE, PROT_READ | PROT_EXEC) || mprotect(word(i - 1), PAGE, PROT_NONE);
        else if (is("advice"))
            error = madvise(word(i), PAGE, MADV_DONTDUMP);
        else if (is("unforked"))
            error = madvise(word(i), PAGE, MADV_DONTDUMP) || madvise(word(i), PAGE, MADV_WIPEONFORK);
        else if (is("holes"))
            error = munmap(word(i), PAGE);
        else if (is("locked"))
            error = mlock(word(i), PAGE);
        else if (is("locked-none"))
            error = mlock(word(i), PAGE) || mprotect(word(i), PAGE, PROT_NONE);
        else if (is("apart"))
            error = mmap(word(i), PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED;
        WL_CHECK(error == 0, "%s %ld: %s", sort, i, strerror(errno));
    }
}

static void check(long changed)
{
    if (is("none") || is("code") || is("locked-none"))
        mprotect(area, (size_t)(n * PAGE), PROT_READ);
    for (long i = 0; i < n; i += is("holes") || is("apart") ? 2 : 1) {
        bool is_wiped = is("unforked") && i % 2 == 1 && changed >= 0;
        long wanted = is_wiped ? 0 : i == changed ? -1 : i + 1;
        WL_CHECK(*word(i) == wanted, "page %ld holds %ld", i, *word(i));
    }
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    sort = wl_argv[0];
    n = atol(wl_argv[1]);
    make();
    int ready[2], told[2], status = 0;
    char byte;
    WL_TRY(pipe(ready));
    WL_TRY(pipe(told));
    pid_t child = wl_argc > 2 ? WL_TRY(fork()) : 0;
    if (wl_argc > 2 && child == 0) {
        if (!is("none") && !is("code") && !is("shared"))
            *word(2) = -1;
        WL_TRY(write(ready[1], "", 1));
        WL_CHECK(read(told[0], &byte, 1) == 1, "the parent has gone");
        check(is("none") || is("code") || is("shared") ? -2 + (is("unforked") ? 2 : 0) : 2);
        _exit(0);
    }
    if (child > 0)
        WL_CHECK(read(ready[0], &byte, 1) == 1, "the child has gone");
    wl_ready();
    wl_wait();
    check(-1);
    WL_TRY(write(told[1], "", 1));
    if (child > 0)
        WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(status == 0, "the child's status is %#x", status);
    wl_pass();
}
