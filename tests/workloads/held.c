/* Memory whose contents tell of which moment they are: SIGUSR1 fills it anew. At the end it is compared. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define N_BYTES (6u << 20)

static char *memory;
static volatile uint64_t moment = 1;

static void tell(const char *name)
{
    char text[2] = {(char)('0' + moment), '\n'};
    int fd = WL_TRY(open("new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));

    WL_CHECK(write(fd, text, 2) == 2, "cannot write");
    WL_TRY(close(fd));
    WL_TRY(rename("new", name));
}

/* Only while the main thread sleeps in wl_wait. */
static void refill(int number)
{
    (void)number;
    moment++;
    wl_fill(memory, N_BYTES, moment);
    tell("moment");
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    memory = WL_TRY(mmap(NULL, N_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    wl_fill(memory, N_BYTES, moment);
    WL_TRY(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = refill}, NULL));
    wl_ready();
    wl_wait();
    wl_check_fill(memory, N_BYTES, moment, "memory");
    tell("came-back");
    wl_pass();
}
