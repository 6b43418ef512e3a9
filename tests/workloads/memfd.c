/* memfd: descriptors of several kinds, seals, mode, name, holes, and mappings both shared and private. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

enum { PAGE = 4096, SIZE = 5 * PAGE + 100 };

static void check_link(int fd, const char *wanted)
{
    char path[64], link[256] = "";

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    WL_TRY(readlink(path, link, sizeof(link) - 1));
    WL_CHECK(strcmp(link, wanted) == 0, "fd %d became %s", fd, link);
}

static int make(const char *name, unsigned flags, uint64_t seed)
{
    char page[PAGE];

    int fd = WL_TRY(memfd_create(name, flags));
    WL_TRY(ftruncate(fd, SIZE));
    wl_fill(page, PAGE, seed);
    WL_CHECK(pwrite(fd, page, PAGE, 2 * PAGE) == PAGE, "write");
    WL_CHECK(pwrite(fd, page, 100, 5 * PAGE) == 100, "write");
    return fd;
}

static void check_contents(int fd, uint64_t seed)
{
    char page[PAGE], wanted[PAGE];
    struct stat info;

    WL_TRY(fstat(fd, &info));
    WL_CHECK(info.st_size == SIZE, "size %ld", (long)info.st_size);
    WL_CHECK(pread(fd, page, PAGE, 2 * PAGE) == PAGE, "read");
    wl_check_fill(page, PAGE, seed, "memfd");
    wl_fill(wanted, PAGE, seed);
    WL_CHECK(pread(fd, page, 200, 5 * PAGE) == 100 && memcmp(page, wanted, 100) == 0, "the end");
    WL_CHECK(lseek(fd, 0, SEEK_DATA) >= PAGE, "the hole at the start is filled");
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);

    int plain = make("plain one", MFD_CLOEXEC, 1);
    int reader = WL_TRY(open("/proc/self/fd/3", O_RDONLY));
    WL_TRY(lseek(plain, 1234, SEEK_SET));
    WL_TRY(fchmod(plain, 0640));
    int has_attribute = fsetxattr(plain, "user.of", "a memfd", 7, 0) == 0; /* since 6.6 */
    char *private = WL_TRY(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, plain, 0));
    private[PAGE] = 'p';
    char *shared = WL_TRY(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, plain, 0));

    int sealed = make("sealed", MFD_ALLOW_SEALING, 2);
    WL_TRY(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    char *constant = WL_TRY(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, sealed, 0));

    int future = make("future", MFD_ALLOW_SEALING, 3);
    char *still = WL_TRY(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, future, 0));
    WL_TRY(fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));

    int gone = make("no descriptor left", 0, 4);
    char *kept = WL_TRY(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, gone, 2 * PAGE));
    WL_TRY(close(gone));
    struct timespec times[2] = {{1000000, 1}, {2000000, 123456789}};
    WL_TRY(futimens(plain, times));
    wl_ready();
    wl_wait();

    check_link(plain, "/memfd:plain one (deleted)");
    struct stat info;
    WL_TRY(fstat(plain, &info));
    WL_CHECK((info.st_mode & 07777) == 0640, "mode %o", info.st_mode);
    WL_CHECK(info.st_mtim.tv_sec == 2000000 && info.st_mtim.tv_nsec == 123456789, "mtime %ld", (long)info.st_mtim.tv_sec);
    char value[16];
    if (has_attribute)
        WL_CHECK(fgetxattr(plain, "user.of", value, 16) == 7 && memcmp(value, "a memfd", 7) == 0, "its attribute");
    WL_CHECK(lseek(plain, 0, SEEK_CUR) == 1234, "offset");
    check_contents(plain, 1);
    WL_CHECK(fcntl(plain, F_GETFD) == FD_CLOEXEC && fcntl(reader, F_GETFD) == 0, "close-on-exec");
    WL_CHECK((fcntl(reader, F_GETFL) & O_ACCMODE) == O_RDONLY, "flags");
    WL_CHECK(fcntl(plain, F_GET_SEALS) == F_SEAL_SEAL, "seals %#x", fcntl(plain, F_GET_SEALS));
    WL_CHECK(private[PAGE] == 'p' && shared[PAGE] == 0, "private page");
    shared[0] = 's';
    char byte = 0;
    WL_CHECK(pread(reader, &byte, 1, 0) == 1 && byte == 's' && private[0] == 's', "not the same file any more");

    check_contents(sealed, 2);
    wl_check_fill(constant + 2 * PAGE, PAGE, 2, "sealed mapping");
    int seals = fcntl(sealed, F_GET_SEALS);
    WL_CHECK((seals & ~F_SEAL_EXEC) == (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), "seals %#x", seals);
    WL_CHECK(write(sealed, "x", 1) == -1 && errno == EPERM, "a sealed file was written");

    check_contents(future, 3);
    WL_CHECK(fcntl(future, F_GET_SEALS) == F_SEAL_FUTURE_WRITE, "seals %#x", fcntl(future, F_GET_SEALS));
    still[0] = 'f';
    WL_CHECK(pread(future, &byte, 1, 0) == 1 && byte == 'f', "future");

    wl_check_fill(kept, PAGE, 4, "no descriptor left");
    wl_pass();
}
