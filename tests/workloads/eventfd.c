/* eventfds: a counter beyond 32 bits, a semaphore, and one that does not block. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LARGE 0x1234567890abULL

int main(int argc, char **argv)
{
    eventfd_t value;

    wl_init(argc, argv);
    int counter = WL_TRY(eventfd(0, EFD_CLOEXEC));
    WL_TRY(eventfd_write(counter, LARGE));
    int semaphore = WL_TRY(eventfd(3, EFD_SEMAPHORE));
    int empty = WL_TRY(eventfd(0, EFD_NONBLOCK));
    int shared = WL_TRY(dup(empty));

    wl_ready();
    wl_wait();

    WL_CHECK(WL_TRY(fcntl(counter, F_GETFD)) == FD_CLOEXEC, "the counter has lost FD_CLOEXEC");
    WL_CHECK((WL_TRY(fcntl(counter, F_GETFL)) & O_NONBLOCK) == 0, "the counter does not block any more");
    WL_TRY(eventfd_read(counter, &value));
    WL_CHECK(value == LARGE, "the counter was %llx", (unsigned long long)value);
    for (int i = 0; i < 3; i++) {
        WL_TRY(eventfd_read(semaphore, &value));
        WL_CHECK(value == 1, "the semaphore gave %llu", (unsigned long long)value);
    }
    WL_CHECK(eventfd_read(empty, &value) == -1 && errno == EAGAIN, "an empty eventfd does not say EAGAIN");
    WL_TRY(eventfd_write(shared, 7));
    WL_TRY(eventfd_read(empty, &value));
    WL_CHECK(value == 7, "the duplicate is another eventfd");
    wl_pass();
}
