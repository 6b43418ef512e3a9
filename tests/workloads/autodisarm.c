/* A handler on an alternate stack with SS_AUTODISARM: the kernel has taken the stack away until the handler returns. */
#define _GNU_SOURCE
#include "workload.h"

#include <signal.h>
#include <stdlib.h>

#define STACK_SIZE 65536

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static void on_usr2(int number)
{
    stack_t now;

    (void)number;
    wl_ready();
    wl_wait();
    WL_TRY(sigaltstack(NULL, &now));
    WL_CHECK((unsigned)now.ss_flags == SS_DISABLE, "in the handler, the stack has flags %#x", now.ss_flags);
}

int main(int argc, char **argv)
{
    stack_t stack = {.ss_size = STACK_SIZE, .ss_flags = (int)SS_AUTODISARM}, now;

    wl_init(argc, argv);
    stack.ss_sp = malloc(STACK_SIZE);
    WL_TRY(sigaltstack(&stack, NULL));
    WL_TRY(sigaction(SIGUSR2, &(struct sigaction){.sa_handler = on_usr2, .sa_flags = SA_ONSTACK}, NULL));
    raise(SIGUSR2);

    WL_TRY(sigaltstack(NULL, &now));
    WL_CHECK((unsigned)now.ss_flags == SS_AUTODISARM && now.ss_sp == stack.ss_sp, "the stack has flags %#x",
             now.ss_flags);
    wl_pass();
}
