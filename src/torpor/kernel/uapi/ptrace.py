"""``linux/ptrace.h``."""

PTRACE_GETEVENTMSG = 0x4201
