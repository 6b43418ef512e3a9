/* Private memory of odd kinds: unreadable, changed text, beyond the end of a file, guard pages, huge and empty, named. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

enum { PAGE = 4096 };
static const size_t TERABYTE = (size_t)1 << 40;

enum { CODE = 16 };

static __attribute__((aligned(4096), noipa, section(".text.changed"))) int answer(void)
{
    return 41;
}

static __attribute__((aligned(16), noipa, section(".text.changed"))) int other_answer(void)
{
    return 42;
}

static void *map(size_t size, int prot, int flags)
{
    return WL_TRY(mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0));
}

/* The VmFlags of the mapping at an address, or its header line. */
static char *smaps_of(const void *at, bool flags)
{
    static char line[512], header[512];
    unsigned long start, end;
    bool found = false;

    FILE *maps = fopen("/proc/self/smaps", "re");
    WL_CHECK(maps != NULL, "no smaps");
    while (fgets(line, sizeof(line), maps) != NULL) {
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
            strcpy(header, line);
            found = start <= (uintptr_t)at && (uintptr_t)at < end;
        }
        if (found && strncmp(line, "VmFlags:", 8) == 0) {
            fclose(maps);
            return flags ? line : header;
        }
    }
    wl_fail("%p is not mapped", at);
}

static bool is_readable(void *at)
{
    char byte;
    struct iovec local = {&byte, 1}, remote = {at, 1};

    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1;
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);

    char *hidden = map(8 * PAGE, PROT_READ | PROT_WRITE, 0);
    wl_fill(hidden, 8 * PAGE, 1);
    WL_TRY(mprotect(hidden + PAGE, 6 * PAGE, PROT_NONE));

    /* What comes behind it in its page may be about to run. */
    WL_TRY(mprotect(answer, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
    memcpy(answer, other_answer, CODE);
    __builtin___clear_cache((char *)answer, (char *)answer + CODE);
    WL_TRY(mprotect(answer, PAGE, PROT_READ | PROT_EXEC));

    int fd = WL_TRY(open("file", O_RDWR | O_CREAT | O_TRUNC, 0600));
    WL_TRY(ftruncate(fd, PAGE + 10));
    char *beyond = WL_TRY(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    beyond[PAGE + 5] = 'b';
    int zero = WL_TRY(open("/dev/zero", O_RDWR));
    char *zeroes = WL_TRY(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0));
    zeroes[PAGE] = 'z';

    char *guarded = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    wl_fill(guarded, 4 * PAGE, 2);
    bool has_guards = madvise(guarded + PAGE, PAGE, MADV_GUARD_INSTALL) == 0;

    char *empty = map(TERABYTE, PROT_NONE, MAP_NORESERVE);
    char *sparse = map(TERABYTE, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    wl_fill(sparse + TERABYTE / 2, PAGE, 3);

    char *named = map(2 * PAGE, PROT_READ | PROT_WRITE, 0);
    named[0] = 'n';
    bool has_names = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, named, 2 * PAGE, "torpor test") == 0;

    char *advised = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    WL_TRY(madvise(advised, PAGE, MADV_DONTFORK));
    WL_TRY(madvise(advised + PAGE, PAGE, MADV_WIPEONFORK));
    WL_TRY(madvise(advised + 2 * PAGE, PAGE, MADV_DONTDUMP));
    WL_TRY(madvise(advised + 3 * PAGE, PAGE, MADV_NOHUGEPAGE));

    char *locked = map(PAGE, PROT_READ | PROT_WRITE, 0);
    WL_TRY(mlock(locked, PAGE));
    char *lazily = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    WL_TRY(mlock2(lazily, 4 * PAGE, MLOCK_ONFAULT));
    wl_ready();
    wl_wait();

    WL_CHECK(strstr(smaps_of(hidden + PAGE, false), "---p"), "not hidden any more: %s", smaps_of(hidden + PAGE, false));
    WL_TRY(mprotect(hidden + PAGE, 6 * PAGE, PROT_READ));
    wl_check_fill(hidden, 8 * PAGE, 1, "hidden");
    WL_CHECK(answer() == 42, "the changed code says %d", answer());
    WL_CHECK(beyond[PAGE + 5] == 'b' && !is_readable(beyond + 2 * PAGE), "beyond the end of the file");
    WL_CHECK(zeroes[PAGE] == 'z' && zeroes[0] == 0, "/dev/zero");
    if (has_guards) {
        wl_check_fill(guarded, PAGE, 2, "before the guard page");
        WL_CHECK(!is_readable(guarded + PAGE) && is_readable(guarded + 2 * PAGE), "the guard page");
    }
    WL_CHECK(strstr(smaps_of(empty, false), "---p"), "empty: %s", smaps_of(empty, false));
    wl_check_fill(sparse + TERABYTE / 2, PAGE, 3, "sparse");
    WL_CHECK(sparse[TERABYTE - 1] == 0, "sparse");
    WL_CHECK(strstr(smaps_of(sparse, true), " nr"), "no MAP_NORESERVE any more: %s", smaps_of(sparse, true));
    WL_CHECK(named[0] == 'n', "named");
    if (has_names)
        WL_CHECK(strstr(smaps_of(named, false), "[anon:torpor test]"), "name: %s", smaps_of(named, false));
    static const char *const flags[] = {" dc", " wf", " dd", " nh"};
    for (int i = 0; i < 4; i++)
        WL_CHECK(strstr(smaps_of(advised + i * PAGE, true), flags[i]), "no%s in %s", flags[i], smaps_of(advised + i * PAGE, true));
    WL_CHECK(strstr(smaps_of(locked, true), " lo"), "locked: %s", smaps_of(locked, true));
    WL_CHECK(strstr(smaps_of(lazily, true), " lo"), "locked on fault: %s", smaps_of(lazily, true));
    unsigned char there[4];
    WL_TRY(mincore(lazily, 4 * PAGE, there));
    WL_CHECK(!(there[0] & 1) && !(there[3] & 1), "locked on fault, but there without one");
    wl_pass();
}
