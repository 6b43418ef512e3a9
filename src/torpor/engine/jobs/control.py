"""Signals to a job, waiting for its end, and its log."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator

from torpor.base.errors import JobError, NotPermittedError
from torpor.base.fds import only_files
from torpor.base.ids import Pid
from torpor.engine.jobs.registry import Job, find, is_alive
from torpor.engine.jobs.watch import marker
from torpor.kernel.arch import nr
from torpor.kernel.pidfd import open_pidfd
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.status import read_status
from torpor.tracee.remote import mask_bit

_CHUNK = 1 << 16


def kill(job: Job, number: int = signal.SIGTERM, *, timeout_s: float = 10.0) -> Job:
    """End a job: *number* first, SIGKILL after *timeout_s*; the job as it is afterwards.

    Where it would not hear that, SIGKILL at once.
    """
    with _Process(job) as process:
        if number != signal.SIGKILL and hears(job, number):
            process.send(number)
            if process.wait_ended(timeout_s):
                return _settled(job)
        process.send(signal.SIGKILL)
        process.wait_ended(None)
    return _settled(job)


def hears(job: Job, number: int) -> bool:
    """Whether the signal *number* does anything to the job's first process; False if it is gone.

    That of a pid namespace does not get one that it has no handler for (pid_namespaces(7)), unless it blocks it, to
    read it by sigwait(3) or signalfd(2).
    """
    try:
        status = read_status(Pid(job.pid))
        return bool((status.caught | status.blocked) & mask_bit(number)) or _reads_signals(job)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _reads_signals(job: Job) -> bool:
    """Whether it is in sigwait: what it waits for is not blocked meanwhile, as /proc says it (do_sigtimedwait)."""
    word = read_small(f"/proc/{job.pid}/syscall").partition(" ")[0]
    return word.isdigit() and int(word) == nr.rt_sigtimedwait


def wait_ended(job: Job, timeout_s: float | None = None) -> Job:
    """Wait until the job's process is gone (or has been put to sleep); the job as it is afterwards."""
    try:
        with _Process(job) as process:
            if not process.wait_ended(timeout_s):
                return find(job.name)
    except JobError:
        pass
    return _settled(job)


def _settled(job: Job) -> Job:
    """The record once the watcher has had its moment to write the exit status."""
    deadline = time.monotonic() + 1.0
    while marker(job).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return find(job.name)


def follow_log(job: Job, *, follow: bool = False) -> Iterator[bytes]:
    """The log so far; with *follow*, also what is added, until the job ends."""
    try:
        fd = only_files(str(job.log), os.O_RDONLY)
    except FileNotFoundError:
        raise JobError(f"{job.name} has no log") from None
    try:
        while True:
            ended = not is_alive(job)
            while chunk := os.read(fd, _CHUNK):
                yield chunk
            if ended or not follow:
                return
            with _Process(job) as process:
                process.wait_ended(0.1)
    except JobError:
        while chunk := os.read(fd, _CHUNK):
            yield chunk
    finally:
        os.close(fd)


class _Process:
    """The job's root process, by pidfd."""

    def __init__(self, job: Job) -> None:
        try:
            self._fd = open_pidfd(Pid(job.pid))
        except (ProcessLookupError, ValueError, OSError):
            raise JobError(f"{job.name} is not running") from None
        if not is_alive(job):
            os.close(self._fd)
            raise JobError(f"{job.name} is not running")

    def send(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return
        except PermissionError:
            raise NotPermittedError("it is the process of another user", hint="ask as that user, or as root") from None

    def wait_ended(self, timeout_s: float | None) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
