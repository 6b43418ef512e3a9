/* A load to be measured: KIND COUNT BEATFILE. Says "ready" by a non-zero pid in BEATFILE, a shared mapping, and records
 * there the longest time between two readings of the clock, which is how long it was stopped. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct beat {
    volatile int64_t pid;
    volatile int64_t longest_ns;
    volatile int64_t reset;
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void *sleeper(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void fill(long mib)
{
    size_t size = (size_t)mib << 20;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        fail("mmap");
    for (size_t at = 0; at < size; at += 4096)
        memset(memory + at, (int)(at >> 12) | 1, 4096);
}

static void map_many(long count)
{
    for (long i = 0; i < count; i++) {
        /* Alternating protection keeps neighbours from being merged. */
        int prot = i % 2 ? PROT_READ : PROT_READ | PROT_WRITE;
        char *memory = mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (memory == MAP_FAILED)
            fail("mmap");
        if (prot & PROT_WRITE)
            *memory = 1;
    }
}

static void open_mixed(long count)
{
    /* A quarter each: a device, pipes, pairs of sockets, a regular file. */
    int two[2];

    for (long i = 0; i < count / 4; i++) {
        if (open("/dev/null", O_RDONLY) < 0 || open("/proc/self/exe", O_RDONLY) < 0)
            fail("open");
        if (i % 2)
            continue;
        if (pipe(two) || socketpair(AF_UNIX, SOCK_STREAM, 0, two))
            fail("pair");
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    long count = atol(argv[2]);
    int fd = open(argv[3], O_RDWR);
    struct beat *beat = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (fd < 0 || beat == MAP_FAILED)
        fail("beat");
    close(fd);
    if (!strcmp(argv[1], "memory"))
        fill(count);
    else if (!strcmp(argv[1], "mappings"))
        map_many(count);
    else if (!strcmp(argv[1], "processes"))
        for (long i = 1; i < count; i++) {
            if (fork() == 0)
                sleeper(NULL);
        }
    else if (!strcmp(argv[1], "descriptors"))
        for (long i = 0; i < count; i++) {
            if (open("/dev/null", O_RDONLY) < 0)
                fail("open");
        }
    else if (!strcmp(argv[1], "mixed"))
        open_mixed(count);
    else if (!strcmp(argv[1], "threads"))
        for (long i = 1; i < count; i++) {
            pthread_t thread;
            pthread_attr_t small;

            pthread_attr_init(&small);
            pthread_attr_setstacksize(&small, 65536);
            if (pthread_create(&thread, &small, sleeper, NULL))
                fail("thread");
        }
    beat->pid = getpid();
    int64_t last = now_ns();
    for (;;) {
        struct timespec pause_for = { 0, 200000 };

        nanosleep(&pause_for, NULL);
        int64_t at = now_ns();
        if (beat->reset)
            beat->reset = beat->longest_ns = 0;
        else if (at - last > beat->longest_ns)
            beat->longest_ns = at - last;
        last = at;
    }
}
