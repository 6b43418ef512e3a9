// System V IPC in a namespace of its own: a segment that is mapped and one that is not, one marked for removal, a queue
// with messages, a set of semaphores; their ids, owners and contents.
#include "workload.h"

#include <errno.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#define SIZE 300000

struct message {
    long type;
    char text[16];
};

static int check(int result, const char *what)
{
    if (result < 0)
        wl_fail("%s: %s", what, strerror(errno));
    return result;
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);

    int gap = check(shmget(IPC_PRIVATE, 4096, 0600), "shmget gap");
    int mapped = check(shmget(0x71717171, SIZE, IPC_CREAT | 0640), "shmget mapped");
    int loose = check(shmget(0x72727272, SIZE, IPC_CREAT | 0600), "shmget loose");
    int doomed = check(shmget(IPC_PRIVATE, 4096, 0600), "shmget doomed");
    check(shmctl(gap, IPC_RMID, NULL), "remove the gap");
    char *at = shmat(mapped, NULL, 0);
    char *read_only = shmat(mapped, NULL, SHM_RDONLY);
    char *last = shmat(doomed, NULL, 0);
    char *other = shmat(loose, NULL, 0);
    if (at == (void *)-1 || read_only == (void *)-1 || last == (void *)-1 || other == (void *)-1)
        wl_fail("shmat: %s", strerror(errno));
    strcpy(at + 200000, "mapped");
    strcpy(other + 100, "loose");
    other[SIZE - 1] = '!'; /* in a page that lies only partly within the size */
    strcpy(last, "doomed");
    check(shmdt(other), "shmdt");
    check(shmctl(doomed, IPC_RMID, NULL), "mark for removal");

    int queue = check(msgget(0x73737373, IPC_CREAT | 0600), "msgget");
    struct message one = {7, "first"}, two = {3, "second"};
    check(msgsnd(queue, &one, sizeof one.text, 0), "msgsnd");
    check(msgsnd(queue, &two, sizeof two.text, 0), "msgsnd");

    int set = check(semget(0x74747474, 3, IPC_CREAT | 0604), "semget");
    check(semctl(set, 1, SETVAL, 5), "SETVAL");

    wl_ready();
    wl_wait();

    if (check(shmget(0x71717171, SIZE, 0), "shmget again") != mapped || shmget(0x72727272, SIZE, 0) != loose)
        wl_fail("the segments have other ids");
    if (strcmp(at + 200000, "mapped") != 0 || strcmp(read_only + 200000, "mapped") != 0 || strcmp(last, "doomed") != 0)
        wl_fail("a mapped segment has another content");
    strcpy(at, "new");
    if (strcmp(read_only, "new") != 0)
        wl_fail("two mappings of a segment are not the same any more");
    struct shmid_ds segment;
    check(shmctl(mapped, IPC_STAT, &segment), "IPC_STAT");
    if (segment.shm_nattch != 2 || (segment.shm_perm.mode & 0777) != 0640)
        wl_fail("%lu attached, mode %o", (unsigned long)segment.shm_nattch, segment.shm_perm.mode);
    check(shmctl(doomed, IPC_STAT, &segment), "IPC_STAT doomed");
    if (!(segment.shm_perm.mode & SHM_DEST) || segment.shm_nattch != 1)
        wl_fail("the segment to be removed has mode %o", segment.shm_perm.mode);
    check(shmdt(last), "shmdt doomed");
    if (shmctl(doomed, IPC_STAT, &segment) == 0)
        wl_fail("the segment to be removed is still there");
    other = shmat(loose, NULL, 0);
    if (other == (void *)-1 || strcmp(other + 100, "loose") != 0 || other[SIZE - 1] != '!')
        wl_fail("a segment that was not mapped has another content");

    if (check(msgget(0x73737373, 0), "msgget again") != queue)
        wl_fail("the queue has another id");
    struct message got;
    check(msgrcv(queue, &got, sizeof got.text, 0, IPC_NOWAIT), "msgrcv");
    if (got.type != 7 || strcmp(got.text, "first") != 0)
        wl_fail("the first message is %ld %s", got.type, got.text);
    check(msgrcv(queue, &got, sizeof got.text, 3, IPC_NOWAIT), "msgrcv by type");
    if (strcmp(got.text, "second") != 0)
        wl_fail("the second message is %s", got.text);

    if (check(semget(0x74747474, 3, 0), "semget again") != set || semctl(set, 1, GETVAL) != 5 ||
        semctl(set, 0, GETVAL) != 0)
        wl_fail("the semaphores are others");
    check(shmctl(mapped, IPC_RMID, NULL), "clean up");
    check(shmctl(loose, IPC_RMID, NULL), "clean up");
    check(msgctl(queue, IPC_RMID, NULL), "clean up");
    check(semctl(set, 0, IPC_RMID), "clean up");
    wl_pass();
}
