"""Address spaces: mappings, pages, shared memory, the vdso, and the numbers in ``mm_struct``."""
