"""pidfd_getfd(2), and pidfd_open(2) for the number by which we see a task; pidfd_send_signal Python has itself."""

from __future__ import annotations

import os

from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall


def open_pidfd(pid: Pid) -> int:
    """A descriptor, the caller's, for the process *pid* (close-on-exec)."""
    return os.pidfd_open(pid)


def getfd(pidfd: int, remote_fd: int) -> int:
    """A duplicate, here, of the descriptor *remote_fd* of the process behind *pidfd* (close-on-exec)."""
    return syscall("pidfd_getfd", nr.pidfd_getfd, pidfd, remote_fd, 0)
