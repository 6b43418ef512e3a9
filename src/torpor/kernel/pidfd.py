"""pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2) and kcmp(2)."""

from __future__ import annotations

from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall

KCMP_FILE = 0
KCMP_VM = 1
KCMP_FILES = 2
KCMP_FS = 3
KCMP_SIGHAND = 4
KCMP_IO = 5
KCMP_SYSVSEM = 6
KCMP_EPOLL_TFD = 7


def getfd(pidfd: int, remote_fd: int) -> int:
    """A duplicate, here, of the descriptor *remote_fd* of the process behind *pidfd* (close-on-exec)."""
    return syscall("pidfd_getfd", nr.pidfd_getfd, pidfd, remote_fd, 0)


def kcmp(pid1: int, pid2: int, what: int, a: int = 0, b: int = 0) -> int:
    """0 equal, 1 less, 2 greater, 3 different: whether two tasks share a kernel object."""
    return syscall("kcmp", nr.kcmp, pid1, pid2, what, a, b)
