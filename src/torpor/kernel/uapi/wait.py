"""``linux/wait.h``."""

P_PID = 1
WNOHANG = 1
WSTOPPED = 2
