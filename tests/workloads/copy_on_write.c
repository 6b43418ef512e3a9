/* Pages that a child has from its parent are shared with it until one of both writes; and each sees its own. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, N_PAGES = 64 };

static char *memory, *readonly, *partly;

static uint64_t frame_of(int pagemap, const void *at)
{
    uint64_t word = 0;

    WL_CHECK(pread(pagemap, &word, 8, (uintptr_t)at / PAGE * 8) == 8, "pagemap");
    return word & (((uint64_t)1 << 55) - 1);
}

static int open_pagemap(pid_t pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
    return WL_TRY(open(path, O_RDONLY | O_CLOEXEC));
}

static void child(int ready)
{
    memory[10 * PAGE] = 'c';
    WL_TRY(madvise(memory + 20 * PAGE, PAGE, MADV_DONTNEED));
    WL_TRY(munmap(partly + PAGE, PAGE));
    char *more = sbrk(16 * PAGE);
    wl_fill(more, 16 * PAGE, 7);
    WL_CHECK(write(ready, "r", 1) == 1, "pipe");
    WL_TRY(close(ready));
    wl_wait();
    WL_CHECK(memory[10 * PAGE] == 'c' && memory[11 * PAGE] == 0, "the child's page");
    WL_CHECK(memory[20 * PAGE] == 0, "the page that the child dropped");
    wl_check_fill(memory, 10 * PAGE, 1, "inherited");
    wl_check_fill(memory + 30 * PAGE, 34 * PAGE, 3, "inherited");
    wl_check_fill(readonly, 8 * PAGE, 2, "inherited, not writable");
    wl_check_fill(more, 16 * PAGE, 7, "the heap");
    wl_check_fill(partly, PAGE, 5, "cut");
    WL_CHECK(sbrk(PAGE) == more + 16 * PAGE, "the heap's end");
    _exit(0);
}

int main(int argc, char **argv)
{
    int ready[2];
    char byte;

    wl_init(argc, argv);
    memory = WL_TRY(mmap(NULL, N_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    readonly = WL_TRY(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    partly = WL_TRY(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    wl_fill(memory, 10 * PAGE, 1);
    memory[20 * PAGE] = 'd';
    wl_fill(memory + 30 * PAGE, 34 * PAGE, 3);
    wl_fill(readonly, 8 * PAGE, 2);
    WL_TRY(mprotect(readonly, 8 * PAGE, PROT_READ));
    wl_fill(partly, 2 * PAGE, 5);
    WL_TRY(pipe(ready));
    pid_t pid = WL_TRY(fork());
    if (pid == 0)
        child(ready[1]);
    memory[11 * PAGE] = 'p';
    WL_TRY(close(ready[1]));
    WL_CHECK(read(ready[0], &byte, 1) == 1, "the child died");
    wl_ready();
    wl_wait();

    int mine = open_pagemap(getpid()), childs = open_pagemap(pid);
    WL_CHECK(frame_of(mine, memory) != 0, "page frame numbers cannot be seen");
    for (int i = 0; i < N_PAGES; i++) {
        if ((i >= 10 && i < 12) || (i >= 12 && i < 30))
            continue;
        WL_CHECK(frame_of(mine, memory + i * PAGE) == frame_of(childs, memory + i * PAGE), "page %d is not shared", i);
    }
    for (int i = 0; i < 8; i++)
        WL_CHECK(frame_of(mine, readonly + i * PAGE) == frame_of(childs, readonly + i * PAGE), "page %d: not shared", i);
    WL_CHECK(memory[10 * PAGE] == 0 && memory[11 * PAGE] == 'p' && memory[20 * PAGE] == 'd', "the parent's pages");
    wl_check_fill(memory, 10 * PAGE, 1, "the parent's");
    wl_check_fill(partly, 2 * PAGE, 5, "the parent's");
    int status;
    WL_TRY(kill(pid, SIGTERM));
    WL_TRY(waitpid(pid, &status, 0));
    WL_CHECK(status == 0, "child: status %#x", status);
    wl_pass();
}
