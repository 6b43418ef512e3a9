/* A System V segment that is attached twice, by a parent and its child, one of them to read, in part unmapped. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, N_PAGES = 8 };

static int n_attached(int id)
{
    struct shmid_ds info;

    WL_TRY(shmctl(id, IPC_STAT, &info));
    return (int)info.shm_nattch;
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    int id = WL_TRY(shmget(IPC_PRIVATE, N_PAGES * PAGE - 100, IPC_CREAT | 0600));
    char *memory = WL_TRY(shmat(id, NULL, 0));
    wl_fill(memory, 3 * PAGE, 1);
    const char *reader = WL_TRY(shmat(id, NULL, SHM_RDONLY));
    char *part = WL_TRY(shmat(id, NULL, 0));
    WL_TRY(munmap(part, 2 * PAGE));
    WL_TRY(mprotect(part + 4 * PAGE, PAGE, PROT_READ));
    WL_TRY(munmap(part + 6 * PAGE, 2 * PAGE));
    pid_t child = WL_TRY(fork());
    if (child == 0) {
        wl_wait();
        memory[7 * PAGE] = 'c';
        WL_TRY(shmdt(memory));
        _exit(0);
    }
    int before = n_attached(id);
    wl_ready();
    wl_wait();

    WL_CHECK(n_attached(id) == before, "%d attachments, not %d", n_attached(id), before);
    wl_check_fill(memory, 3 * PAGE, 1, "segment");
    wl_check_fill(reader, 3 * PAGE, 1, "segment, read only");
    WL_CHECK(memcmp(part + 2 * PAGE, memory + 2 * PAGE, PAGE) == 0, "the part that is left");
    WL_CHECK(mincore(part, PAGE, (unsigned char[1]){0}) == -1, "the part that was unmapped is back");
    memory[3 * PAGE] = 'm';
    WL_CHECK(reader[3 * PAGE] == 'm' && part[3 * PAGE] == 'm', "not one segment any more");
    int status;
    WL_TRY(kill(child, SIGTERM));
    WL_TRY(waitpid(child, &status, 0));
    WL_CHECK(status == 0 && reader[7 * PAGE] == 'c', "the child: status %#x", status);
    WL_TRY(shmdt(memory));
    WL_TRY(shmdt(reader));
    WL_TRY(shmctl(id, IPC_RMID, NULL));
    wl_pass();
}
