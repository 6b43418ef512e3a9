/*
 * Changes its memory all the time and does nothing else, in the ways that its arguments name; what is right of it is
 * compared from outside, byte by byte.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

enum { PAGE = 4096, N_PAGES = 512, SIZE = N_PAGES * PAGE, N_SLOTS = 24, N_CHILDREN = 3, HUGE = 2 << 20 };

static uint64_t state = 88172645463325252ull;
static char *area, *quiet, *fenced, *shared, *library, *thp, *segment;
static int memfd;
static struct {
    char *at;
    size_t n_pages;
} slots[N_SLOTS];
static pid_t children[N_CHILDREN];

static uint64_t chance(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static void scribble(char *page)
{
    for (int i = 0; i < 4; i++)
        *(volatile uint64_t *)(page + chance(PAGE / 8) * 8) = chance(UINT64_MAX);
}

static void *map(size_t size, int flags, int fd)
{
    return WL_TRY(mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0));
}

static void do_write(void) { scribble(area + chance(N_PAGES) * PAGE); }

static void do_kernel(void)
{
    WL_TRY(getrandom(area + chance(N_PAGES - 1) * PAGE + chance(PAGE), chance(PAGE), 0));
}

static void do_map(void)
{
    int i = (int)chance(N_SLOTS);

    if (slots[i].at != NULL) {
        WL_TRY(munmap(slots[i].at, slots[i].n_pages * PAGE));
        slots[i].at = NULL;
        return;
    }
    slots[i].n_pages = 1 + chance(16);
    slots[i].at = map(slots[i].n_pages * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (size_t page = chance(2); page < slots[i].n_pages; page += 1 + chance(3))
        scribble(slots[i].at + page * PAGE);
}

/* Moved, grown, or put where another one has been until now. */
static void do_remap(void)
{
    int i = (int)chance(N_SLOTS), j = (int)chance(N_SLOTS);

    if (slots[i].at == NULL || i == j) {
        do_map();
    } else if (slots[j].at != NULL && slots[j].n_pages >= slots[i].n_pages) {
        size_t size = slots[i].n_pages * PAGE;
        char *end = slots[j].at + slots[j].n_pages * PAGE;

        WL_TRY(mremap(slots[i].at, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, slots[j].at));
        if (slots[j].at + size < end)
            WL_TRY(munmap(slots[j].at + size, (size_t)(end - slots[j].at) - size));
        slots[j].n_pages = slots[i].n_pages;
        slots[i].at = NULL;
    } else {
        size_t n_pages = 1 + chance(24);

        slots[i].at = WL_TRY(mremap(slots[i].at, slots[i].n_pages * PAGE, n_pages * PAGE, MREMAP_MAYMOVE));
        slots[i].n_pages = n_pages;
    }
}

static void do_drop(void) { WL_TRY(madvise(area + chance(N_PAGES - 8) * PAGE, (1 + chance(8)) * PAGE, MADV_DONTNEED)); }

/* Pages of a place of its own: to write to one that is guarded would be the end. */
static void do_guard(void)
{
    static bool is_guarded[N_PAGES];
    size_t page = chance(N_PAGES);

    if (!is_guarded[page] && chance(2)) {
        scribble(fenced + page * PAGE);
        return;
    }
    /* Not in kernels before 6.13. */
    if (madvise(fenced + page * PAGE, PAGE, is_guarded[page] ? MADV_GUARD_REMOVE : MADV_GUARD_INSTALL) == 0)
        is_guarded[page] = !is_guarded[page];
}

static void do_protect(void)
{
    char *at = area + chance(N_PAGES) * PAGE;

    WL_TRY(mprotect(at, PAGE, chance(2) ? PROT_READ : PROT_NONE));
    WL_TRY(mprotect(at, PAGE, PROT_READ | PROT_WRITE));
}

static void do_library(void)
{
    char *page = library + chance(16) * PAGE;

    if (chance(4) == 0)
        WL_TRY(madvise(page, PAGE, MADV_DONTNEED));
    else
        scribble(page);
}

static void do_thp(void)
{
    if (chance(16) == 0)
        WL_TRY(madvise(thp + chance(4) * HUGE, HUGE, MADV_DONTNEED));
    scribble(thp + chance(4 * HUGE / PAGE) * PAGE);
}

static void do_shared(void) { scribble(shared + chance(N_PAGES) * PAGE); }

/* By its mapping, by write(2), and holes. */
static void do_segment(void)
{
    char buffer[PAGE];
    off_t at = (off_t)(chance(N_PAGES) * PAGE);

    switch (chance(3)) {
    case 0:
        wl_fill(buffer, PAGE, chance(UINT64_MAX));
        WL_CHECK(pwrite(memfd, buffer, PAGE, at) == PAGE, "pwrite");
        break;
    case 1:
        WL_TRY(fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, PAGE));
        break;
    default:
        scribble(segment + at);
    }
}

static _Noreturn void live(void)
{
    pid_t parent = getppid();

    for (;;) {
        do_write();
        if (getppid() != parent)
            _exit(0);
    }
}

/* The signal that ends the test may come in between. */
static void end(pid_t child)
{
    WL_TRY(kill(child, SIGKILL));
    while (waitpid(child, NULL, 0) < 0)
        if (errno != EINTR)
            wl_fail("waitpid: %m");
}

/* Children that share all with us at first, some of which become other programs. */
static void do_fork(void)
{
    int i = (int)chance(N_CHILDREN);

    if (chance(64) != 0)
        return;
    if (children[i] != 0) {
        end(children[i]);
    }
    children[i] = WL_TRY(fork());
    if (children[i] == 0) {
        if (chance(2))
            execl("/proc/self/exe", "churn", "child", (char *)NULL);
        live();
    }
}

static void *run_thread(void *arg)
{
    uint64_t own = (uintptr_t)arg;
    char *stack_page = WL_TRY(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    for (;;) {
        own = own * 6364136223846793005ull + 1442695040888963407ull;
        *(volatile uint64_t *)(area + (own >> 33) % SIZE / 8 * 8) = own;
        *(volatile uint64_t *)(stack_page + (own >> 35) % SIZE / 8 * 8) = own;
    }
    return NULL;
}

static const struct {
    const char *name;
    void (*step)(void);
} WAYS[] = {
    {"write", do_write}, {"kernel", do_kernel},   {"map", do_map},         {"remap", do_remap},
    {"drop", do_drop},   {"guard", do_guard},     {"protect", do_protect}, {"library", do_library},
    {"thp", do_thp},     {"shared", do_shared},   {"segment", do_segment}, {"fork", do_fork},
};

static void step(void *arg)
{
    (void)arg;
    for (int i = 0; i < wl_argc; i++)
        for (size_t way = 0; way < sizeof(WAYS) / sizeof(WAYS[0]); way++)
            if (strcmp(WAYS[way].name, wl_argv[i]) == 0)
                WAYS[way].step();
}

int main(int argc, char **argv)
{
    area = map(SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (int page = 0; page < N_PAGES; page += 2)
        scribble(area + page * PAGE);
    if (argc == 2 && strcmp(argv[1], "child") == 0)
        live();
    wl_init(argc, argv);
    quiet = map(SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    wl_fill(quiet, SIZE, 7);
    fenced = map(SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    shared = map(SIZE, MAP_SHARED | MAP_ANONYMOUS, -1);
    int file = WL_TRY(open("library", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    WL_TRY(ftruncate(file, 16 * PAGE));
    library = map(16 * PAGE, MAP_PRIVATE, file);
    close(file);
    memfd = WL_TRY(memfd_create("churn", MFD_CLOEXEC));
    WL_TRY(ftruncate(memfd, SIZE));
    segment = map(SIZE, MAP_SHARED, memfd);
    thp = map(5 * HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    thp = (char *)(((uintptr_t)thp + HUGE - 1) & -(uintptr_t)HUGE);
    madvise(thp, 4 * HUGE, MADV_HUGEPAGE);
    for (int i = 0; i < wl_argc; i++)
        for (uintptr_t n = 1; strcmp(wl_argv[i], "threads") == 0 && n <= 3; n++) {
            pthread_t thread;
            WL_TRY_PTHREAD(pthread_create(&thread, NULL, run_thread, (void *)n));
        }
    wl_ready();
    wl_wait_busy(step, NULL);
    wl_check_fill(quiet, SIZE, 7, "what nobody writes");
    for (int i = 0; i < N_CHILDREN; i++)
        if (children[i] != 0) {
            end(children[i]);
        }
    wl_pass();
}
