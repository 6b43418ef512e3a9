"""The watcher of a job: a process of ours outside of it that records its exit status.

For a job that was started it is the parent; for one that was restored, whose parent has gone, a pidfd tells the exit
status (PIDFD_GET_INFO, 6.15); before that it is not known.
"""

from __future__ import annotations

import fcntl
import select
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.engine.jobs import registry
from torpor.engine.jobs.places import job_directory
from torpor.engine.jobs.registry import Job
from torpor.kernel.pidfd import open_pidfd
from torpor.tracee.detached import spawn

_PIDFD_INFO_EXIT = 1 << 3
_INFO_SIZE = 64
_MARKER = "watcher"
_MAX_TEXT = 200
#: So long may it take until the guardian of a restore that died has ended what was not let go.
_GUARDIAN_S = 2.0
_PIDFD_GET_INFO = 3 << 30 | _INFO_SIZE << 16 | 0xFF << 8 | 11


class RestoreWatch:
    """The watcher of a job that is being restored: there before the job is, so that it knows of it whenever we die.

    ``tell`` says which process it will be, ``runs`` that it has been let go.  Where our death comes first, the guardian
    of the restore ends what was not let go; what is there a moment later runs.
    """

    def __init__(self, name: str) -> None:
        self._near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            spawn(lambda: _watch(name, far), (far.fileno(),))

    def tell(self, job: Job) -> None:
        """The process of *job* is there, but does not run yet."""
        with OwnedFd(open_pidfd(Pid(job.pid))) as pidfd:
            mark(job)
            socket.send_fds(self._near, [f"{job.pid} {job.start_time}".encode()], [pidfd.fileno()])

    def runs(self) -> None:
        """Tell the watcher that the job has been let go: it goes on from now on, whatever becomes of us."""
        with suppress(OSError):  # the watcher has been killed: then nobody sees the job's end, and no more is lost
            self._near.send(b"runs")

    def close(self) -> None:
        """Nothing more is going to be said."""
        self._near.close()

    def __enter__(self) -> RestoreWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _watch(name: str, far: socket.socket) -> None:
    told, fds, _, _ = socket.recv_fds(far, _MAX_TEXT, 1)
    if not told or not fds:
        return
    pid, start_time = map(int, told.split())
    pidfd = fds[0]
    try:
        # Whatever comes first, it says whether that was let go: a word, or the end of whoever would have said it.
        is_let_go = bool(far.recv(_MAX_TEXT))
        if not is_let_go:
            is_let_go = not _ends_within(pidfd, _GUARDIAN_S) or exit_status_of(pidfd) not in (None, signal.SIGKILL)
        if is_let_go:
            registry.let_go(name, pid, start_time)
            _ends_within(pidfd, None)
            registry.ended(name, pid, start_time, exit_status_of(pidfd))
    finally:
        _marker_of(name, pid).unlink(missing_ok=True)


def _ends_within(pidfd: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def marker(job: Job) -> Path:
    """A file that is there while a watcher watches the job's process."""
    return _marker_of(job.name, job.pid)


def _marker_of(name: str, pid: int) -> Path:
    return job_directory(name) / f"{_MARKER}-{pid}"


def mark(job: Job) -> None:
    """A watcher watches; what others have left who were killed goes."""
    marker(job).touch()
    for path in job.directory.glob(f"{_MARKER}-*"):
        if path != marker(job):
            path.unlink(missing_ok=True)


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
