"""``asm-generic/resource.h``."""

RLIMIT_SIGPENDING = 11
