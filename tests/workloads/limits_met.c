/* Limits below what is in use already: address space, data, descriptors, stack, locked memory, file size, processes. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (32L << 20)
#define FAR 300

static const int which[] = {RLIMIT_NOFILE, RLIMIT_STACK, RLIMIT_MEMLOCK, RLIMIT_FSIZE, RLIMIT_NPROC,
                            RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO, RLIMIT_RTTIME,
                            RLIMIT_CORE, RLIMIT_DATA, RLIMIT_AS};
#define N ((int)(sizeof which / sizeof *which))
static struct rlimit wanted[N];

static void use_stack(int depth)
{
    volatile char room[64 << 10];

    room[0] = (char)depth;
    if (depth > 0)
        use_stack(depth - 1);
    room[1] = room[0];
}

static void set_limits(void)
{
    for (int i = 0; i < N; i++) {
        WL_TRY(getrlimit(which[i], &wanted[i]));
        /* The report must still be written. */
        wanted[i].rlim_cur = which[i] == RLIMIT_NOFILE ? 5 : which[i] == RLIMIT_FSIZE ? 1000 : 0;
        if (which[i] == RLIMIT_RTTIME)
            wanted[i].rlim_cur = 1000;
        /* The limits of address space stay soft, which everybody may raise for a while, unless there is an argument. */
        if ((which[i] != RLIMIT_AS && which[i] != RLIMIT_DATA) || wl_argc > 0)
            wanted[i].rlim_max = wanted[i].rlim_cur;
        WL_TRY(setrlimit(which[i], &wanted[i]));
    }
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    long *area = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    WL_CHECK(area != MAP_FAILED, "no memory");
    for (long i = 0; i < SIZE / 4096; i++)
        area[i * 512] = i + 1;
    WL_TRY(mlock(area, 4096));
    use_stack(16);
    int file = WL_TRY(open("big", O_RDWR | O_CREAT | O_APPEND, 0600));
    WL_TRY(ftruncate(file, 1 << 20));
    int gone = WL_TRY(open("gone", O_RDWR | O_CREAT, 0600));
    WL_TRY(ftruncate(gone, 1 << 20));
    WL_TRY(pwrite(gone, "gone", 4, 1000));
    WL_TRY(unlink("gone"));
    WL_CHECK(fcntl(file, F_DUPFD, FAR) == FAR && fcntl(gone, F_DUPFD, FAR) == FAR + 1, "no descriptors");
    close(file);
    close(gone);
    pid_t child = WL_TRY(fork());
    if (child == 0)
        for (;;)
            pause();
    set_limits();
    wl_ready();
    wl_wait();
    for (int i = 0; i < N; i++) {
        struct rlimit now;
        WL_TRY(getrlimit(which[i], &now));
        WL_CHECK(now.rlim_cur == wanted[i].rlim_cur && now.rlim_max == wanted[i].rlim_max, "limit %d is %ld, %ld",
                 which[i], (long)now.rlim_cur, (long)now.rlim_max);
    }
    for (long i = 0; i < SIZE / 4096; i++)
        WL_CHECK(area[i * 512] == i + 1, "page %ld holds %ld", i, area[i * 512]);
    char text[5] = "";
    WL_CHECK(lseek(FAR, 0, SEEK_END) == 1 << 20, "the big file has changed");
    WL_CHECK(pread(FAR + 1, text, 4, 1000) == 4 && strcmp(text, "gone") == 0, "the deleted file holds %s", text);
    WL_TRY(kill(child, SIGKILL));
    WL_CHECK(waitpid(child, NULL, 0) == child, "the child has gone");
    wl_pass();
}
