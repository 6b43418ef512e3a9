"""``linux/ioprio.h``."""

IOPRIO_WHO_PROCESS = 1
