/* Named POSIX semaphores and shared memory in /dev/shm: linked and unlinked, with a process that waits for one. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char names[3][40];

static const char *name(int index, const char *what)
{
    snprintf(names[index], sizeof(names[index]), "/torpor-%s-%d", what, getpid());
    return names[index];
}

static sem_t *make(int index, const char *what, unsigned value)
{
    sem_t *semaphore = sem_open(name(index, what), O_CREAT | O_EXCL, 0600, value);

    WL_CHECK(semaphore != SEM_FAILED, "sem_open: %s", strerror(errno));
    return semaphore;
}

int main(int argc, char **argv)
{
    int value, status;

    wl_init(argc, argv);
    sem_t *named = make(0, "named", 5), *gone = make(1, "gone", 0);
    WL_TRY(sem_unlink(names[1]));
    int memory = WL_TRY(shm_open(name(2, "memory"), O_RDWR | O_CREAT | O_EXCL, 0600));
    WL_TRY(ftruncate(memory, 4096));
    char *text = WL_TRY(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0));
    strcpy(text, "shared");
    pid_t waiter = WL_TRY(fork());
    if (waiter == 0)
        _exit(sem_wait(gone) == 0 ? 7 : 8);

    wl_ready();
    wl_wait();

    WL_TRY(sem_getvalue(named, &value));
    WL_CHECK(value == 5, "the semaphore is at %d", value);
    sem_t *again = sem_open(names[0], 0);
    WL_CHECK(again != SEM_FAILED, "its name is lost: %s", strerror(errno));
    WL_TRY(sem_post(again));
    WL_TRY(sem_getvalue(named, &value));
    WL_CHECK(value == 6, "the semaphore of that name is another");
    WL_TRY(sem_post(gone));
    WL_TRY(waitpid(waiter, &status, 0));
    WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "who waited ended with %#x", status);
    WL_CHECK(strcmp(text, "shared") == 0, "the memory holds %s", text);
    int same = WL_TRY(shm_open(names[2], O_RDWR, 0));
    WL_TRY(pwrite(same, "S", 1, 0));
    WL_CHECK(strcmp(text, "Shared") == 0, "the memory of that name is another");
    WL_TRY(sem_unlink(names[0]));
    WL_TRY(shm_unlink(names[2]));
    wl_pass();
}
