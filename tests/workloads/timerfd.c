/*
 * timerfds: a periodic one that expires while nobody reads it, expired ones with ticks, one far in the future by the
 * wall clock, one that is not armed but has an interval.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <poll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int make(int clock, int flags, long value_ms, long interval_ms)
{
    struct itimerspec spec = {
        .it_value = {value_ms / 1000, value_ms % 1000 * 1000000},
        .it_interval = {interval_ms / 1000, interval_ms % 1000 * 1000000},
    };
    int fd = WL_TRY(timerfd_create(clock, TFD_NONBLOCK));

    if (flags & TFD_TIMER_ABSTIME) {
        struct timespec now;

        WL_TRY(clock_gettime(clock, &now));
        spec.it_value.tv_sec += now.tv_sec;
    }
    WL_TRY(timerfd_settime(fd, flags, &spec, NULL));
    return fd;
}

static void wait_readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};

    WL_CHECK(WL_TRY(poll(&poller, 1, 20000)) == 1, "a timer does not tick");
}

static uint64_t read_ticks(int fd)
{
    uint64_t ticks;

    WL_CHECK(read(fd, &ticks, sizeof(ticks)) == sizeof(ticks), "read of a timerfd: %s", strerror(errno));
    return ticks;
}

static long remaining_s(int fd)
{
    struct itimerspec spec;

    WL_TRY(timerfd_gettime(fd, &spec));
    return spec.it_value.tv_sec;
}

int main(int argc, char **argv)
{
    struct itimerspec spec;
    uint64_t ticks;

    wl_init(argc, argv);
    int periodic = make(CLOCK_MONOTONIC, 0, 1, 20);
    int once = make(CLOCK_BOOTTIME, 0, 1, 0);
    int later = make(CLOCK_MONOTONIC, 0, 3600 * 1000, 5000);
    int wall = make(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, 7200 * 1000, 0);
    int absolute = make(CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, 5400 * 1000, 0);
    int idle = make(CLOCK_MONOTONIC, 0, 0, 3000);
    wait_readable(periodic);
    wait_readable(once);

    wl_ready();
    wl_wait();

    WL_CHECK(read_ticks(periodic) >= 1, "no ticks");
    for (int i = 0; i < 3; i++) {
        wait_readable(periodic);
        WL_CHECK(read_ticks(periodic) >= 1, "no ticks");
    }
    ticks = read_ticks(once);
    WL_CHECK(ticks == 1, "%llu expirations, not 1", (unsigned long long)ticks);
    WL_CHECK(read(once, &ticks, sizeof(ticks)) == -1 && errno == EAGAIN, "it expires again");
    WL_CHECK(remaining_s(later) > 3000 && remaining_s(later) <= 3600, "%ld s remain of 3600", remaining_s(later));
    WL_CHECK(remaining_s(wall) > 6600 && remaining_s(wall) <= 7200, "%ld s remain of 7200", remaining_s(wall));
    WL_CHECK(remaining_s(absolute) > 4800 && remaining_s(absolute) <= 5400, "%ld s of 5400", remaining_s(absolute));
    WL_TRY(timerfd_gettime(idle, &spec));
    WL_CHECK(spec.it_value.tv_sec == 0 && spec.it_value.tv_nsec == 0, "a timer is armed that was not");
    WL_TRY(timerfd_gettime(later, &spec));
    WL_CHECK(spec.it_interval.tv_sec == 5, "the interval is lost");
    wl_pass();
}
