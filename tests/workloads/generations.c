/* Memory that changes at each SIGUSR1, in other pages each time: private, a child's, shared, of a memfd, of System V. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, N_PAGES = 24, N_AREAS = 4, PERIOD = 4, CHILD = 8 };

static char *areas[N_AREAS];
static int generation, is_child;
static pid_t child;

static uint64_t seed_of(int area, int page, int when)
{
    /* Only the private area is the child's own. */
    return (uint64_t)(1 << 24 | when << 16 | (area + (area == 0 && is_child && when > 0 ? CHILD : 0)) << 8 | page);
}

static void fill(char *at, uint64_t seed)
{
    for (int word = 0; word < PAGE / 8; word++)
        ((uint64_t *)at)[word] = seed;
}

static void check_filled(const char *at, uint64_t seed)
{
    for (int word = 0; word < PAGE / 8; word++)
        WL_CHECK(((const uint64_t *)at)[word] == seed, "%s page of seed %#lx has %#lx in word %d",
                 is_child ? "the child's" : "the parent's", seed, ((const uint64_t *)at)[word], word);
}

/* The pages whose turn it is; at the start all but every PERIODth, which are empty until theirs comes. */
static void change(int when)
{
    for (int area = 0; area < (is_child ? 1 : N_AREAS); area++)
        for (int page = 0; page < N_PAGES; page++)
            if (when == 0 ? page % PERIOD != 0 : page % PERIOD == when % PERIOD)
                fill(areas[area] + page * PAGE, seed_of(area, page, when));
}

static int last_change(int page)
{
    for (int when = generation; when > 0; when--)
        if (page % PERIOD == when % PERIOD)
            return when;
    return page % PERIOD != 0 ? 0 : -1;
}

static void check(void)
{
    for (int area = 0; area < N_AREAS; area++)
        for (int page = 0; page < N_PAGES; page++) {
            int when = last_change(page);

            check_filled(areas[area] + page * PAGE, when < 0 ? 0 : seed_of(area, page, when));
        }
}

static void next(int number)
{
    char name[32];

    (void)number;
    change(++generation);
    if (is_child) {
        snprintf(name, sizeof(name), "generation-%d", generation);
        WL_TRY(close(WL_TRY(open("generation", O_WRONLY | O_CREAT | O_CLOEXEC, 0600))));
        WL_TRY(rename("generation", name));
    } else {
        WL_TRY(kill(child, SIGUSR1));
    }
}

static void *shared(int fd)
{
    return WL_TRY(mmap(NULL, N_PAGES * PAGE, PROT_READ | PROT_WRITE, fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED,
                       fd, 0));
}

int main(int argc, char **argv)
{
    int status;

    wl_init(argc, argv);
    areas[0] = WL_TRY(mmap(NULL, N_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    areas[1] = shared(-1);
    int fd = WL_TRY(memfd_create("generations", MFD_CLOEXEC));
    WL_TRY(ftruncate(fd, N_PAGES * PAGE));
    areas[2] = shared(fd);
    int id = WL_TRY(shmget(IPC_PRIVATE, N_PAGES * PAGE, 0600));
    areas[3] = WL_TRY(shmat(id, NULL, 0));
    change(0);
    WL_TRY(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = next, .sa_flags = SA_RESTART}, NULL));
    child = WL_TRY(fork());
    if (child == 0) {
        is_child = 1;
        wl_wait();
        check();
        _exit(0);
    }
    wl_ready();
    wl_wait();
    WL_TRY(kill(child, SIGTERM));
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(status == 0, "the child: status %#x", status);
    check();
    WL_TRY(shmctl(id, IPC_RMID, NULL));
    wl_pass();
}
