"""pidfd_getfd(2); Python has pidfd_open and pidfd_send_signal itself."""

from __future__ import annotations

from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall


def getfd(pidfd: int, remote_fd: int) -> int:
    """A duplicate, here, of the descriptor *remote_fd* of the process behind *pidfd* (close-on-exec)."""
    return syscall("pidfd_getfd", nr.pidfd_getfd, pidfd, remote_fd, 0)
