/* A process that nobody may look into (PR_SET_DUMPABLE) belongs to root in /proc: to that of its own user namespace. */
#define _GNU_SOURCE
#include "workload.h"

#include <sys/prctl.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
    struct stat info;

    wl_init(argc, argv);
    WL_TRY(prctl(PR_SET_DUMPABLE, 0));
    WL_TRY(stat("/proc/self/maps", &info));
    WL_CHECK(info.st_uid == 0 && info.st_gid == 0, "it belonged to %u:%u", info.st_uid, info.st_gid);

    wl_ready();
    wl_wait();

    WL_CHECK(WL_TRY(prctl(PR_GET_DUMPABLE)) == 0, "it can be looked into");
    WL_TRY(stat("/proc/self/maps", &info));
    WL_CHECK(info.st_uid == 0 && info.st_gid == 0, "it belongs to %u:%u", info.st_uid, info.st_gid);
    wl_pass();
}
