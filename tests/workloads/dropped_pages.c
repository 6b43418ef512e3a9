/*
 * A private mapping whose pages are written, and, at SIGUSR1, partly dropped (MADV_DONTNEED), read, and written anew; of
 * the file behind, if it is one, the end is cut off as well. What it opens "done" for tells that this has happened.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N_PAGES = 16, LEFT = 12, DROPPED = 8, AGAIN = 4, OF_FILE = 1, OF_MEMORY = 2, ANEW = 3 };

static size_t page = 4096;
static char *memory;
static int file = -1;

static void fill(int first, int end, uint64_t seed)
{
    for (int i = first; i < end; i++)
        wl_fill(memory + i * page, page, seed + 10 * i);
}

static void check(int first, int end, uint64_t seed)
{
    for (int i = first; i < end; i++)
        wl_check_fill(memory + i * page, page, seed + 10 * i, "a page");
}

/* What is behind the mapping: zeroes, or the file's own bytes. */
static void check_behind(int first, int end)
{
    if (file >= 0) {
        check(first, end, OF_FILE);
        return;
    }
    for (size_t at = first * page; at < end * page; at++)
        WL_CHECK(memory[at] == 0, "byte %zu is %d", at, memory[at]);
}

static void drop(int signal)
{
    (void)signal;
    WL_TRY(madvise(memory, DROPPED * page, MADV_DONTNEED));
    check_behind(2, AGAIN);
    fill(AGAIN, AGAIN + 1, ANEW);
    if (file >= 0)
        WL_TRY(ftruncate(file, LEFT * page));
    close(WL_TRY(open("done", O_WRONLY | O_CLOEXEC)));
}

int main(int argc, char **argv)
{
    int flags = MAP_PRIVATE;

    wl_init(argc, argv);
    if (strcmp(wl_argv[0], "huge") == 0) {
        page = 2 << 20;
        flags |= MAP_HUGETLB;
    } else if (strcmp(wl_argv[0], "file") == 0) {
        file = WL_TRY(open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    } else if (strcmp(wl_argv[0], "memfd") == 0) {
        file = WL_TRY(memfd_create("file", MFD_CLOEXEC));
    }
    if (file >= 0) {
        WL_TRY(ftruncate(file, N_PAGES * page));
        memory = WL_TRY(mmap(NULL, N_PAGES * page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
        fill(0, N_PAGES, OF_FILE);
        WL_TRY(munmap(memory, N_PAGES * page));
    } else {
        flags |= MAP_ANONYMOUS;
    }
    memory = WL_TRY(mmap(NULL, N_PAGES * page, PROT_READ | PROT_WRITE, flags, file, 0));
    fill(0, N_PAGES, OF_MEMORY);
    signal(SIGUSR1, drop);
    wl_ready();
    wl_wait();
    check_behind(0, AGAIN);
    check(AGAIN, AGAIN + 1, ANEW);
    check_behind(AGAIN + 1, DROPPED);
    check(DROPPED, LEFT, OF_MEMORY);
    if (file < 0)
        check(LEFT, N_PAGES, OF_MEMORY);
    wl_pass();
}
