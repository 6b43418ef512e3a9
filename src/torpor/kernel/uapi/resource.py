"""``asm-generic/resource.h``."""

RLIMIT_NICE = 13
RLIMIT_RTPRIO = 14
RLIMIT_SIGPENDING = 11
