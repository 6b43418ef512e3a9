"""``linux/fanotify.h``."""

FAN_MARK_IGNORE = 0x400
