/*
 * Memory of many kinds that one thread counts up without a pause, word by word through all of it and then again: at
 * any instant the words before one place have one number more than those behind it. Contents that are not of the very
 * instant at which the registers are do not go on like that.
 *
 * Arguments: MiB of ordinary memory, and kinds of memory besides it.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define HUGE (2 << 20)
#define N_AREAS 24
#define N_WORDS 4
#define STRIDE (PAGE / N_WORDS / sizeof(uint64_t))

struct area {
    const char *kind;
    uint64_t *words;
    size_t n_pages;
};

static struct area areas[N_AREAS];
static int n_areas;
static uint64_t round_number;

static uint64_t *map(size_t size, int flags, int fd)
{
    return WL_TRY(mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0));
}

static void add(const char *kind, void *address, size_t size)
{
    WL_CHECK(n_areas < N_AREAS, "too many kinds");
    areas[n_areas++] = (struct area){kind, address, size / PAGE};
}

static int file(size_t size)
{
    int fd = WL_TRY(open("contents", O_RDWR | O_CREAT | O_TRUNC, 0600));

    WL_TRY(ftruncate(fd, (off_t)size));
    return fd;
}

static void add_kind(const char *kind)
{
    const size_t size = 1 << 20;
    const int own = MAP_PRIVATE | MAP_ANONYMOUS;

    if (!strcmp(kind, "dontfork") || !strcmp(kind, "wipeonfork")) {
        void *at = map(size, own, -1);

        WL_TRY(madvise(at, size, *kind == 'd' ? MADV_DONTFORK : MADV_WIPEONFORK));
        add(kind, at, size);
    } else if (!strcmp(kind, "locked")) {
        void *at = map(size, own, -1);

        WL_TRY(mlock(at, size));
        add(kind, at, size);
    } else if (!strcmp(kind, "huge")) {
        add(kind, map(2 * HUGE, own | MAP_HUGETLB, -1), 2 * HUGE);
    } else if (!strcmp(kind, "transparent")) {
        char *at = (char *)map(3 * HUGE, own, -1);

        at += -(uintptr_t)at & (HUGE - 1);
        WL_TRY(madvise(at, 2 * HUGE, MADV_HUGEPAGE));
        add(kind, at, 2 * HUGE);
    } else if (!strcmp(kind, "mergeable")) {
        void *at = map(size, own, -1);

        WL_TRY(madvise(at, size, MADV_MERGEABLE));
        add(kind, at, size);
    } else if (!strcmp(kind, "shared")) {
        add(kind, map(size, MAP_SHARED | MAP_ANONYMOUS, -1), size);
    } else if (!strcmp(kind, "memfd")) {
        int fd = WL_TRY(memfd_create("contents", MFD_CLOEXEC));

        WL_TRY(ftruncate(fd, (off_t)size));
        add(kind, map(size, MAP_SHARED, fd), size);
    } else if (!strcmp(kind, "file")) {
        add(kind, map(size, MAP_PRIVATE, file(size)), size);
    } else if (!strcmp(kind, "guarded")) {
        char *at = (char *)map(size, own, -1);

        /* Each page that is left has a guard on both sides. */
        for (size_t page = 0; page < size / PAGE; page += 2)
            if (madvise(at + page * PAGE, PAGE, 102 /* MADV_GUARD_INSTALL */))
                WL_CHECK(errno == EINVAL, "MADV_GUARD_INSTALL");
        for (size_t page = 1; page < size / PAGE; page += 512)
            add(kind, at + page * PAGE, PAGE);
    } else if (!strcmp(kind, "unreadable")) {
        char *at = (char *)map(size, own, -1);

        wl_fill(at, size, 7);
        WL_TRY(mprotect(at, size, PROT_NONE));
        add(kind, at, 0);
    } else if (!strcmp(kind, "zeroes")) {
        volatile char *at = (char *)map(size, own, -1);

        for (size_t page = 0; page < size / PAGE; page++)
            (void)at[page * PAGE];
        add(kind, (void *)at, 0);
    } else if (!strncmp(kind, "mappings-", 9)) {
        size_t n = strtoul(kind + 9, NULL, 10);
        char *at = (char *)map(n * PAGE, own, -1);

        for (size_t page = 0; page < n; page += 2)
            WL_TRY(mprotect(at + page * PAGE, PAGE, PROT_READ));
        add(kind, at, 0);
    } else {
        wl_fail("no kind %s", kind);
    }
}

/* Once through all. */
static void step(void *arg)
{
    (void)arg;
    for (int i = 0; i < n_areas; i++) {
        volatile uint64_t *words = areas[i].words;

        for (size_t at = 0; at < areas[i].n_pages * N_WORDS; at++) {
            uint64_t found = words[at * STRIDE];

            WL_CHECK(found == round_number, "%s memory, page %zu, word %zu: %lu, not %lu", areas[i].kind,
                     at / N_WORDS, at % N_WORDS, (unsigned long)found, (unsigned long)round_number);
            words[at * STRIDE] = round_number + 1;
        }
    }
    round_number++;
}

static void check_still(void)
{
    for (int i = 0; i < n_areas; i++) {
        if (!strcmp(areas[i].kind, "unreadable")) {
            WL_TRY(mprotect(areas[i].words, 1 << 20, PROT_READ));
            wl_check_fill(areas[i].words, 1 << 20, 7, "memory that may not be read");
        } else if (!strcmp(areas[i].kind, "zeroes")) {
            for (size_t at = 0; at < (1 << 20) / sizeof(uint64_t); at++)
                WL_CHECK(!areas[i].words[at], "zeroes have become something else");
        }
    }
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    size_t size = strtoul(wl_argv[0], NULL, 10) << 20;

    add("ordinary", map(size, MAP_PRIVATE | MAP_ANONYMOUS, -1), size);
    for (int i = 1; i < wl_argc; i++)
        add_kind(wl_argv[i]);
    step(NULL);
    wl_ready();
    wl_wait_busy(step, NULL);
    step(NULL);
    step(NULL);
    check_still();
    /* Nothing of any snapshot is left. */
    WL_CHECK(waitpid(-1, NULL, __WALL) == -1 && errno == ECHILD, "there is a child");
    wl_pass();
}
