/* Code that indirect branches may enter at landing pads only (aarch64's PROT_BTI): elsewhere they end by SIGILL. */
#define _GNU_SOURCE
#include "workload.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#ifndef PROT_BTI
#define PROT_BTI 0x10
#endif

enum { PAGE = 4096 };

/* bti c; nop; ret */
static const uint32_t CODE[] = {0xd503245f, 0xd503201f, 0xd65f03c0};
static uint32_t *code;
static sigjmp_buf caught;

static void on_illegal(int number)
{
    siglongjmp(caught, number);
}

static bool can_call(uint32_t *at)
{
    if (sigsetjmp(caught, 1) != 0)
        return false;
    ((void (*)(void))at)();
    return true;
}

static void check(void)
{
    WL_CHECK(can_call(code), "the landing pad is none");
    WL_CHECK(!can_call(code + 1), "a branch beside the landing pad was taken");
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    signal(SIGILL, on_illegal);
    code = WL_TRY(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memcpy(code, CODE, sizeof(CODE));
    __builtin___clear_cache((char *)code, (char *)code + sizeof(CODE));
    WL_TRY(mprotect(code, PAGE, PROT_READ | PROT_EXEC | PROT_BTI));
    check();

    wl_ready();
    wl_wait();

    check();
    wl_pass();
}
