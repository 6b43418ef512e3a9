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
    /* What is done besides: pages written. */
    volatile int64_t work;
    /* The same at the end of the longest stop, and a second later; 0 before. */
    volatile int64_t work_then;
    volatile int64_t work_later;
};

static char *memory_at;
static size_t memory_size;
static struct beat *shared;

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
    memory_at = memory;
    memory_size = size;
}

/* Writes 200 MB a second, page by page, in bursts of a millisecond. */
static void *dirty(void *unused)
{
    size_t at = 0;
    int64_t due = now_ns();

    for (;;) {
        for (int i = 0; i < 51; i++, at = (at + 4096) % memory_size) {
            memory_at[at]++;
            shared->work++;
        }
        due += 1000000;
        int64_t left = due - now_ns();
        struct timespec pause_for = { 0, left };

        if (left > 0)
            nanosleep(&pause_for, NULL);
        else
            due = now_ns(); /* what was missed is not made up for */
    }
    return unused;
}

static void start_dirtying(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, dirty, NULL))
        fail("thread");
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
    else if (!strcmp(argv[1], "dirtied")) {
        fill(count);
        shared = beat;
        start_dirtying();
    } else if (!strcmp(argv[1], "mappings"))
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
    int64_t last = now_ns(), ended = 0;
    for (;;) {
        struct timespec pause_for = { 0, 200000 };

        nanosleep(&pause_for, NULL);
        int64_t at = now_ns();
        if (beat->reset)
            beat->reset = beat->longest_ns = beat->work_later = ended = 0;
        else if (at - last > beat->longest_ns) {
            beat->longest_ns = at - last;
            beat->work_then = beat->work;
            beat->work_later = 0;
            ended = at;
        } else if (ended && !beat->work_later && at - ended >= 1000000000)
            beat->work_later = beat->work;
        last = at;
    }
}
