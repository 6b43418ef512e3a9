/* Deleted files that are still open or mapped: contents, holes, owner and mode, sharing of one inode, directories. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "workload.h"

#define BIG (256LL << 20)
#define PIECE 70000

static char buffer[PIECE];

static void check_name(int fd, const char *name)
{
    char link[64], target[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = WL_TRY(readlink(link, target, sizeof target - 1));
    target[n] = 0;
    char wanted[600];
    snprintf(wanted, sizeof wanted, "/%s (deleted)", name);
    size_t length = strlen(wanted);
    WL_CHECK((size_t)n > length && strcmp(target + n - length, wanted) == 0, "%s is called %s", name, target);
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    /* One inode by two descriptions with offsets and flags of their own, and a mapping. */
    int rw = WL_TRY(open("sparse", O_RDWR | O_CREAT, 0600));
    int append = WL_TRY(open("sparse", O_WRONLY | O_APPEND));
    wl_fill(buffer, PIECE, 1);
    WL_TRY(pwrite(rw, buffer, PIECE, 0));
    WL_TRY(pwrite(rw, buffer, PIECE, 100 << 20));
    WL_TRY(ftruncate(rw, BIG));
    WL_TRY(lseek(rw, 12345, SEEK_SET));
    /* Not every file system has them. */
    int has_attribute = fsetxattr(rw, "user.of", "a ghost", 7, 0) == 0;
    WL_TRY(fchmod(rw, 0451));
    WL_TRY(fchown(rw, 12, 34));
    char *map = WL_TRY((char *)mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_SHARED, rw, 0));
    WL_TRY(unlink("sparse"));
    struct timespec times[2] = {{1000000, 0}, {2000000, 123456789}};
    WL_TRY(futimens(rw, times));
    struct stat before;
    WL_TRY(fstat(rw, &before));
    /* Deleted, and another file has the name now. */
    int replaced = WL_TRY(open("replaced", O_RDWR | O_CREAT, 0600));
    WL_TRY(write(replaced, "old", 3));
    WL_TRY(unlink("replaced"));
    int fresh = WL_TRY(open("replaced", O_RDWR | O_CREAT, 0600));
    WL_TRY(write(fresh, "new one", 7));
    /* A file in a directory that is deleted as well, and that directory. */
    WL_TRY(mkdir("gone", 0751));
    int directory = WL_TRY(open("gone", O_RDONLY | O_DIRECTORY));
    int inner = WL_TRY(open("gone/inner", O_RDWR | O_CREAT, 0600));
    WL_TRY(write(inner, "inner", 5));
    WL_TRY(unlink("gone/inner"));
    WL_TRY(rmdir("gone"));
    /* Never had a name. */
    int nameless = WL_TRY(open(".", O_TMPFILE | O_RDWR, 0640));
    WL_TRY(write(nameless, "nameless", 8));
    int path_only = WL_TRY(open("pathonly", O_RDWR | O_CREAT, 0600));
    WL_TRY(close(path_only));
    path_only = WL_TRY(open("pathonly", O_PATH));
    WL_TRY(unlink("pathonly"));
    wl_ready();
    wl_wait();

    struct stat now;
    WL_TRY(fstat(rw, &now));
    WL_CHECK(now.st_size == BIG && now.st_nlink == 0, "size %lld, links %d", (long long)now.st_size, (int)now.st_nlink);
    WL_CHECK(now.st_mode == before.st_mode && now.st_uid == 12 && now.st_gid == 34, "mode %o", now.st_mode);
    WL_CHECK(now.st_mtim.tv_sec == 2000000 && now.st_mtim.tv_nsec == 123456789, "mtime %ld.%ld",
             (long)now.st_mtim.tv_sec, now.st_mtim.tv_nsec);
    if (has_attribute)
        WL_CHECK(fgetxattr(rw, "user.of", buffer, PIECE) == 7 && memcmp(buffer, "a ghost", 7) == 0, "its attribute");
    WL_CHECK(now.st_blocks * 512LL < 4 << 20, "the holes are filled: %lld", now.st_blocks * 512LL);
    WL_CHECK(lseek(rw, 0, SEEK_CUR) == 12345, "the offset is lost");
    WL_TRY(pread(rw, buffer, PIECE, 100 << 20));
    wl_check_fill(buffer, PIECE, 1, "second piece");
    wl_check_fill(map, PIECE, 1, "mapping");
    check_name(rw, "sparse");
    map[5] = 'X';
    WL_CHECK(pread(rw, buffer, 6, 0) == 6 && buffer[5] == 'X', "mapping and descriptor are different files");
    WL_TRY(write(append, "end", 3));
    WL_TRY(fstat(rw, &now));
    WL_CHECK(now.st_size == BIG + 3, "the two descriptions are different files");

    WL_CHECK(pread(replaced, buffer, 10, 0) == 3 && memcmp(buffer, "old", 3) == 0, "the old file has changed");
    WL_CHECK(pread(fresh, buffer, 10, 0) == 7 && memcmp(buffer, "new one", 7) == 0, "the new file has changed");
    WL_CHECK(pread(inner, buffer, 10, 0) == 5 && memcmp(buffer, "inner", 5) == 0, "the inner file has changed");
    WL_CHECK(access("gone", F_OK) != 0 && access("sparse", F_OK) != 0, "a name has come back");
    WL_TRY(fstat(directory, &now));
    WL_CHECK(S_ISDIR(now.st_mode) && now.st_nlink == 0 && (now.st_mode & 0777) == 0751, "directory %o", now.st_mode);
    check_name(directory, "gone");
    WL_CHECK(pread(nameless, buffer, 10, 0) == 8, "the nameless file has changed");
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", nameless);
    WL_TRY(linkat(AT_FDCWD, link, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    WL_CHECK(read(path_only, buffer, 1) == -1 && errno == EBADF, "O_PATH is lost");
    check_name(path_only, "pathonly");
    wl_pass();
}
