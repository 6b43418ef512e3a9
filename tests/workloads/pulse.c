/*
 * Every page of its memory holds the same number, which it raises page by page, with what it has reached in registers:
 * whatever is put together from two moments runs apart at once.
 */
#define _GNU_SOURCE
#include "workload.h"

#include <sys/mman.h>

enum { N_PAGES = 2048, WORDS = 4096 / 8, N_ROUNDS_AT_END = 3 };

static uint64_t *memory;
static uint64_t round_number;

static void beat(void *unused)
{
    register uint64_t number = round_number;

    (void)unused;
    for (register unsigned page = 0; page < N_PAGES; page++) {
        volatile uint64_t *word = memory + (size_t)page * WORDS;
        if (*word != number)
            wl_fail("page %u is of round %llu, and this is round %llu", page, (unsigned long long)*word,
                    (unsigned long long)number);
        *word = number + 1;
    }
    round_number = number + 1;
}

int main(int argc, char **argv)
{
    wl_init(argc, argv);
    memory = WL_TRY(mmap(NULL, N_PAGES * WORDS * sizeof(*memory), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    beat(NULL);
    wl_ready();
    wl_wait_busy(beat, NULL);
    for (int i = 0; i < N_ROUNDS_AT_END; i++)
        beat(NULL);
    wl_pass();
}
