"""The watcher of a job: a process of ours outside of it that records its exit status.

For a job that was started it is the parent; for one that was restored, whose parent has gone, a pidfd tells the exit
status (PIDFD_GET_INFO, 6.15); before that it is not known.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
from collections.abc import Callable
from pathlib import Path

from torpor.engine.jobs import registry
from torpor.engine.jobs.registry import Job

_PIDFD_INFO_EXIT = 1 << 3
_INFO_SIZE = 64
_PIDFD_GET_INFO = 3 << 30 | _INFO_SIZE << 16 | 0xFF << 8 | 11


def spawn(work: Callable[[], None], keep: tuple[int, ...] = ()) -> None:
    """Run *work* in a detached process of ours that holds no descriptors but *keep* and is nobody's child for long."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    status = 1
    try:
        os.setsid()
        if os.fork() == 0:
            _detach(keep)
            work()
        status = 0
    finally:
        os._exit(status)


def _detach(keep: tuple[int, ...]) -> None:
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        if number not in keep:
            os.dup2(null, number)
    wanted = sorted({0, 1, 2, *keep})
    for low, high in zip(wanted, [*wanted[1:], 1 << 16], strict=True):
        os.closerange(low + 1, high)


def watch_restored(job: Job) -> None:
    """Have the end of a restored job recorded."""
    try:
        pidfd = os.pidfd_open(job.pid)
    except ProcessLookupError:
        return
    os.set_inheritable(pidfd, False)
    marker(job).touch()
    try:
        spawn(lambda: _wait_restored(job, pidfd), (pidfd,))
    finally:
        os.close(pidfd)


def marker(job: Job) -> Path:
    """A file that is there while a watcher watches."""
    return job.directory / "watcher"


def _wait_restored(job: Job, pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    registry.ended(job.name, job.pid, job.start_time, exit_status_of(pidfd))
    finish(job)


def finish(job: Job) -> None:
    """The watcher has written what it knows."""
    marker(job).unlink(missing_ok=True)


def exit_status_of(pidfd: int) -> int | None:
    """The exit status of the process behind *pidfd*, once it has been reaped; None where the kernel does not tell."""
    poll = select.poll()
    poll.register(pidfd, 0)
    # POLLHUP comes when it has been reaped, and only then is the status there.
    poll.poll(1000)
    room = bytearray(_INFO_SIZE)
    struct.pack_into("=Q", room, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, room)
    except OSError:
        return None
    mask = int.from_bytes(room[:8], "little")
    return int.from_bytes(room[60:64], "little", signed=True) if mask & _PIDFD_INFO_EXIT else None
