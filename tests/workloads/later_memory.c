/* Memory of which most pages are first touched after the restore, and what is done to it then: fork, mremap, munmap,
   madvise, mprotect, threads. Every byte is compared; what was given back reads as zeroes. */

#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define N_PAGES 2048UL
#define N_THREADS 4

static unsigned char *area;

static unsigned char wanted(unsigned long page, unsigned long at) { return (unsigned char)(1 + (page * 7 + at) % 251); }

static void fill(unsigned char *start, unsigned long first, unsigned long n_pages) {
    for (unsigned long page = 0; page < n_pages; page++)
        for (unsigned long at = 0; at < PAGE; at++)
            start[page * PAGE + at] = wanted(first + page, at);
}

static int differs(const unsigned char *start, unsigned long first, unsigned long n_pages) {
    for (unsigned long page = 0; page < n_pages; page++)
        for (unsigned long at = 0; at < PAGE; at++)
            if (start[page * PAGE + at] != wanted(first + page, at))
                return 1;
    return 0;
}

static int is_not_zero(const unsigned char *start, unsigned long n_pages) {
    for (unsigned long at = 0; at < n_pages * PAGE; at++)
        if (start[at])
            return 1;
    return 0;
}

static void *check_part(void *number) {
    unsigned long n_pages = 256 / N_THREADS;
    unsigned long first = (unsigned long)number * n_pages;
    return (void *)(long)differs(area + first * PAGE, first, n_pages);
}

static void check_forked(void) {
    pid_t child = fork();
    if (child < 0)
        wl_fail("fork");
    if (child == 0) {
        /* What the parent had not touched at the fork; and of that a grandchild. */
        if (differs(area + 300 * PAGE, 300, 100))
            _exit(1);
        pid_t other = fork();
        if (other == 0)
            _exit(differs(area + 400 * PAGE, 400, 100));
        int status;
        if (waitpid(other, &status, 0) != other || status)
            _exit(2);
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status)
        wl_fail("the child found other bytes: %d", status);
}

int main(int argc, char **argv) {
    wl_init(argc, argv);
    area = mmap(NULL, N_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *place = mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED || place == MAP_FAILED)
        wl_fail("mmap");
    fill(area, 0, N_PAGES);
    /* A hole, of pages that have never been there. */
    if (madvise(area + 1000 * PAGE, 100 * PAGE, MADV_DONTNEED))
        wl_fail("madvise");

    wl_ready();
    wl_wait();

    pthread_t threads[N_THREADS];
    for (long at = 0; at < N_THREADS; at++)
        if (pthread_create(&threads[at], NULL, check_part, (void *)at))
            wl_fail("pthread_create");
    check_forked();
    for (int at = 0; at < N_THREADS; at++) {
        void *result;
        pthread_join(threads[at], &result);
        if (result)
            wl_fail("thread %d found other bytes", at);
    }
    if (mremap(area + 600 * PAGE, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) != place)
        wl_fail("mremap");
    if (differs(place, 600, 64))
        wl_fail("what was moved has other bytes");
    if (munmap(area + 700 * PAGE, 10 * PAGE))
        wl_fail("munmap");
    if (mmap(area + 700 * PAGE, 10 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        wl_fail("mmap again");
    if (is_not_zero(area + 700 * PAGE, 10))
        wl_fail("new memory has old bytes");
    if (madvise(area + 800 * PAGE, 10 * PAGE, MADV_DONTNEED))
        wl_fail("madvise");
    if (is_not_zero(area + 800 * PAGE, 10))
        wl_fail("what was given back has old bytes");
    if (mprotect(area + 900 * PAGE, 10 * PAGE, PROT_READ))
        wl_fail("mprotect");
    if (is_not_zero(area + 1000 * PAGE, 100))
        wl_fail("the hole has bytes");
    if (differs(area, 0, 600) || differs(area + 664 * PAGE, 664, 36) || differs(area + 710 * PAGE, 710, 90) ||
        differs(area + 810 * PAGE, 810, 190) || differs(area + 1100 * PAGE, 1100, N_PAGES - 1100))
        wl_fail("other bytes");
    wl_pass();
}
