#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

int wl_argc;
char **wl_argv;

static char status_path[PATH_MAX];
static volatile sig_atomic_t term_came;

static void on_term(int signal_number)
{
    (void)signal_number;
    term_came = 1;
}

/* Write a file beside the status file and rename it: whoever watches sees a whole text, and no descriptor stays. */
static void report(const char *text)
{
    char temporary[PATH_MAX + 32];

    snprintf(temporary, sizeof(temporary), "%s.%ld", status_path, (long)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    size_t n_bytes = strlen(text);
    if (fd < 0 || write(fd, text, n_bytes) != (ssize_t)n_bytes || close(fd) != 0 || rename(temporary, status_path)) {
        fprintf(stderr, "workload: cannot report \"%s\" in %s: %s\n", text, status_path, strerror(errno));
        fflush(NULL);
        _exit(2);
    }
}

static bool failure_is_reported(void)
{
    char start[4] = "";

    int fd = open(status_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool failed = read(fd, start, sizeof(start)) == (ssize_t)sizeof(start) && memcmp(start, "fail", 4) == 0;
    close(fd);
    return failed;
}

static _Noreturn void usage(const char *name)
{
    fprintf(stderr, "usage: %s --status FILE [--dir DIR] [-- ARGS...]\n", name);
    exit(2);
}

void wl_init(int argc, char **argv)
{
    int i;

    for (i = 1; i + 1 < argc && strcmp(argv[i], "--") != 0; i += 2) {
        if (strcmp(argv[i], "--status") == 0) {
            /* Absolute, because the workload may change its directory. */
            if (argv[i + 1][0] != '/' || strlen(argv[i + 1]) >= sizeof(status_path))
                usage(argv[0]);
            strcpy(status_path, argv[i + 1]);
        } else if (strcmp(argv[i], "--dir") == 0) {
            WL_TRY(chdir(argv[i + 1]));
        } else {
            usage(argv[0]);
        }
    }
    if (status_path[0] == '\0' || (i < argc && strcmp(argv[i], "--") != 0))
        usage(argv[0]);
    wl_argc = i < argc ? argc - i - 1 : 0;
    wl_argv = i < argc ? argv + i + 1 : argv + argc;

    struct sigaction action = {.sa_handler = on_term};
    sigset_t term;

    sigemptyset(&action.sa_mask);
    WL_TRY(sigaction(SIGTERM, &action, NULL));
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    WL_TRY(sigprocmask(SIG_BLOCK, &term, NULL));
}

void wl_ready(void)
{
    fflush(NULL);
    report("ready");
}

void wl_wait(void)
{
    sigset_t mask;

    /* SIGTERM is blocked until sigsuspend lets it in, so it cannot slip by between the look at the flag and the sleep. */
    WL_TRY(sigprocmask(SIG_BLOCK, NULL, &mask));
    sigdelset(&mask, SIGTERM);
    while (!term_came)
        sigsuspend(&mask);
}

void wl_wait_busy(void (*step)(void *arg), void *arg)
{
    sigset_t before;

    WL_TRY(sigprocmask(SIG_BLOCK, NULL, &before));
    wl_unblock_term();
    while (!term_came)
        step(arg);
    WL_TRY(sigprocmask(SIG_SETMASK, &before, NULL));
}

bool wl_told_to_end(void)
{
    return term_came;
}

void wl_unblock_term(void)
{
    sigset_t term;

    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    errno = pthread_sigmask(SIG_UNBLOCK, &term, NULL);
    if (errno != 0)
        wl_fail("pthread_sigmask: %s", strerror(errno));
}

void wl_pass(void)
{
    fflush(NULL);
    if (failure_is_reported())
        _exit(1);
    report("pass");
    _exit(0);
}

void wl_fail(const char *format, ...)
{
    char text[1024] = "fail: ";
    size_t start = strlen(text);
    va_list args;

    va_start(args, format);
    vsnprintf(text + start, sizeof(text) - start, format, args);
    va_end(args);
    fprintf(stderr, "%s\n", text);
    fflush(NULL);
    if (status_path[0] != '\0' && !failure_is_reported())
        report(text);
    _exit(1);
}

void wl_log(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* splitmix64: any position's value can be computed by itself, which a mismatch deep inside a buffer needs. */
static uint64_t pattern(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void wl_fill(void *buffer, size_t n_bytes, uint64_t seed)
{
    for (size_t at = 0; at < n_bytes; at += sizeof(uint64_t)) {
        uint64_t word = pattern(seed, at / sizeof(word));
        size_t left = n_bytes - at;

        memcpy((char *)buffer + at, &word, left < sizeof(word) ? left : sizeof(word));
    }
}

void wl_check_fill(const void *buffer, size_t n_bytes, uint64_t seed, const char *what)
{
    for (size_t at = 0; at < n_bytes; at += sizeof(uint64_t)) {
        uint64_t word = pattern(seed, at / sizeof(word));
        size_t left = n_bytes - at;

        if (memcmp((const char *)buffer + at, &word, left < sizeof(word) ? left : sizeof(word)) != 0)
            wl_fail("%s: wrong contents in the 8 bytes at offset %zu of %zu", what, at, n_bytes);
    }
}

int wl_hold_terminals(int held[WL_N_HELD], int lowest)
{
    for (int n_held = 0;; n_held++) {
        unsigned int number;
        int master = WL_TRY(posix_openpt(O_RDWR | O_NOCTTY));

        WL_TRY(ioctl(master, TIOCGPTN, &number));
        if ((int)number >= lowest) {
            WL_TRY(close(master));
            return n_held;
        }
        WL_CHECK(n_held < WL_N_HELD, "%d masters, and terminal %u is free", n_held, number);
        held[n_held] = master;
    }
}

int wl_open_master(int flags)
{
    int held[WL_N_HELD];
    /* Another place for each of eight workloads that follow one another. */
    int n_held = wl_hold_terminals(held, 64 + getpid() % 8 * 32);
    int master = WL_TRY(posix_openpt(flags));

    while (n_held > 0)
        WL_TRY(close(held[--n_held]));
    return master;
}
