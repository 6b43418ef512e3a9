"""``linux/inotify.h``."""

IN_DONT_FOLLOW = 0x02000000
