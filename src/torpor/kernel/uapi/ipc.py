"""``linux/ipc.h``."""

IPC_STAT = 2
