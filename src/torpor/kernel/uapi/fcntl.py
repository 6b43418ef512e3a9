"""``linux/fcntl.h``."""

AT_FDCWD = -100
