"""``linux/signalfd.h``."""

SFD_CLOEXEC = 0o2000000
