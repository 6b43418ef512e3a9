/*
 * A workload is a small program with one behaviour, which checks itself:
 *
 *     int main(int argc, char **argv)
 *     {
 *         wl_init(argc, argv);
 *         ... prepare the state ...
 *         wl_ready();
 *         wl_wait();                  (here it may be dumped, killed and restored)
 *         ... check that the state is still right ...
 *         wl_pass();
 *     }
 *
 * It is started with `--status FILE [--dir DIR] [-- ARGS...]`, in a session of its own, with /dev/null as its standard
 * input and a regular file as its standard output and error: nothing outside of it is attached to it. It tells how
 * far it is by putting another file in the place of FILE, so that it holds no descriptor open for that.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What follows `--` on the command line; wl_argv[0] is the first argument. */
extern int wl_argc;
extern char **wl_argv;

/*
 * Read the command line, go to DIR (an empty directory for the workload's own files, which becomes the working
 * directory) and arrange for SIGTERM: it is blocked from here on, and so it is in threads and children made later.
 */
void wl_init(int argc, char **argv);

/* Say that the state is prepared. To be called once, by the main thread of the root process, before wl_wait. */
void wl_ready(void);

/* Sleep until SIGTERM comes. Other signals are handled as usual and do not end the wait. */
void wl_wait(void);

/* Call step(arg) over and over until SIGTERM comes: for what must be computing while it is dumped. */
void wl_wait_busy(void (*step)(void *arg), void *arg);

/* Whether SIGTERM has come, for loops that cannot be written as a step; see wl_unblock_term. */
bool wl_told_to_end(void);

/* Let SIGTERM through to the calling thread. wl_wait and wl_wait_busy do it themselves. */
void wl_unblock_term(void);

/* Report and end the calling process. A failure that another process of the workload reported is never overwritten. */
_Noreturn void wl_pass(void);
_Noreturn void wl_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line in the log, which is shown when the test fails. */
void wl_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Fail unless the condition holds: WL_CHECK(n == 3, "read %d bytes, not 3", n). */
#define WL_CHECK(condition, ...)                                                                                       \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            wl_fail(__VA_ARGS__);                                                                                      \
    } while (0)

/* The value of a call that returns -1 and sets errno when it fails: int fd = WL_TRY(open(...)). */
#define WL_TRY(call)                                                                                                   \
    ({                                                                                                                 \
        __typeof__(call) wl_result_ = (call);                                                                          \
        if (wl_result_ == (__typeof__(call))-1)                                                                        \
            wl_fail("%s:%d: %s: %s", __FILE__, __LINE__, #call, strerror(errno));                                      \
        wl_result_;                                                                                                    \
    })

/* The same for the pthread_ calls, which return the error's number. */
#define WL_TRY_PTHREAD(call)                                                                                           \
    do {                                                                                                               \
        int wl_error_ = (call);                                                                                        \
        if (wl_error_ != 0)                                                                                            \
            wl_fail("%s:%d: %s: %s", __FILE__, __LINE__, #call, strerror(wl_error_));                                  \
    } while (0)

/*
 * posix_openpt, but with a number that few others get. The machine's terminals get the lowest one that is free: whoever is
 * dumped gives his back, and another program, started meanwhile, may have it.
 */
int wl_open_master(int flags);

/* Open masters until all terminals below that number are in use; their descriptors, to be closed, are in HELD. */
#define WL_N_HELD 512
int wl_hold_terminals(int held[WL_N_HELD], int lowest);

/* Fill memory with bytes that depend on the seed and on their position in the buffer, and compare. */
void wl_fill(void *buffer, size_t n_bytes, uint64_t seed);
void wl_check_fill(const void *buffer, size_t n_bytes, uint64_t seed, const char *what);

#endif
