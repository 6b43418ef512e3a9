"""``linux/wait.h``."""

P_PID = 1
WNOHANG = 1
WSTOPPED = 2
WNOWAIT = 0x01000000
