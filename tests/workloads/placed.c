/* NUMA policies of single mappings: bound, preferred and static, local, shared, in a child's copy; beside ones that have the thread's. */
#define _GNU_SOURCE
#include "workload.h"

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 64 << 10, N = 5 };

static const int modes[N] = {MPOL_BIND, MPOL_PREFERRED | MPOL_F_STATIC_NODES, MPOL_LOCAL, MPOL_DEFAULT, MPOL_BIND};
static char *areas[N];

static void place(char *at, int mode)
{
    unsigned long nodes = mode != MPOL_DEFAULT && mode != MPOL_LOCAL;

    WL_TRY(syscall(SYS_mbind, at, (unsigned long)SIZE, mode, nodes ? &nodes : NULL, 64UL, 0));
}

static void expect(char *at, int wanted)
{
    unsigned long nodes[16] = {0}, wanted_nodes = wanted != MPOL_DEFAULT && wanted != MPOL_LOCAL;
    int mode;

    WL_TRY(syscall(SYS_get_mempolicy, &mode, nodes, 1024UL, at, (unsigned long)MPOL_F_ADDR));
    WL_CHECK(mode == wanted && nodes[0] == wanted_nodes, "%#x of %#lx instead of %#x", mode, nodes[0], wanted);
    WL_CHECK(at[0] == 'x' && at[SIZE - 1] == 'y', "other contents");
}

int main(int argc, char **argv)
{
    int to_child[2], from_child[2], status;
    char c;

    wl_init(argc, argv);
    WL_TRY(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &(unsigned long){1}, 64UL));
    for (int i = 0; i < N; i++) {
        int flags = (i == N - 1 ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS;

        areas[i] = WL_TRY(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, -1, 0));
        place(areas[i], modes[i]);
        areas[i][0] = 'x';
        areas[i][SIZE - 1] = 'y';
    }
    WL_TRY(pipe(to_child));
    WL_TRY(pipe(from_child));
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        place(areas[0], MPOL_DEFAULT);
        place(areas[3], MPOL_PREFERRED);
        WL_CHECK(write(from_child[1], "x", 1) == 1, "write");
        WL_CHECK(read(to_child[0], &c, 1) == 1, "read");
        expect(areas[0], MPOL_DEFAULT);
        expect(areas[1], modes[1]);
        expect(areas[3], MPOL_PREFERRED);
        _exit(0);
    }
    WL_CHECK(read(from_child[0], &c, 1) == 1, "the child did not start");
    wl_ready();
    wl_wait();
    for (int i = 0; i < N; i++)
        expect(areas[i], modes[i]);
    WL_CHECK(write(to_child[1], "x", 1) == 1, "write");
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(status == 0, "the child ended with %#x", status);
    wl_pass();
}
