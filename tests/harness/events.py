"""Waiting for other processes and for files without sleeping: pidfd, inotify, poll.

A process is watched by pidfd and not by `wait`, because a restored one need not be our child.
"""

import ctypes
import os
import select
import signal
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

IN_MOVED_TO = 0x80  # linux/inotify.h
IN_MODIFY = 0x02
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def time_limit_s(seconds: float) -> float:
    """A limit for a machine of ordinary speed, stretched by $TORPOR_SLOW (a factor) on slower ones."""
    return seconds * float(os.environ.get("TORPOR_SLOW", "1"))


def become_subreaper() -> None:
    """Have orphans of our descendants reparented to us, so that `ProcessWatch.reap` can free their pids.

    Nobody else does it where pid 1 of a test container is not an init, and a pid held by a zombie cannot be restored.
    """
    _checked(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


class ProcessWatch:
    """A pidfd: signals to, and the end of, exactly this process, whoever has its pid later."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if there is no such process (a zombie still counts as one)."""
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def fileno(self) -> int:
        return self._fd

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False if the process is gone."""
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return False
        return True

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the process, with all its threads, has ended; False if it has not within the time."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def has_ended(self) -> bool:
        return self.wait_ended(0)

    def reap(self) -> None:
        """Free the pid of a process that has ended, if it is (or has become) our child and nobody has done so yet."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._fd, os.WEXITED)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class RenameWatch:
    """An inotify watch for files that are renamed into a directory."""

    def __init__(self, directory: Path) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), IN_MOVED_TO), "inotify_add_watch")
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        return self._fd

    def take_names(self) -> list[str]:
        """The names renamed into the directory since the last call."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        names = []
        header = struct.Struct("iIII")
        while data:
            *_, n_bytes = header.unpack_from(data)
            names.append(os.fsdecode(data[header.size : header.size + n_bytes].rstrip(b"\0")))
            data = data[header.size + n_bytes :]
        return names

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FileWatch:
    """An inotify watch of one file."""

    def __init__(self, path: Path, mask: int) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), mask), "inotify_add_watch")
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        return self._fd

    def drain(self) -> None:
        """Forget the events so far."""
        with suppress(BlockingIOError):
            while os.read(self._fd, 65536):
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._fd)


def wait_said(path: Path, words: str, is_over: Callable[[], bool] = lambda: False, timeout_s: float = 30) -> bool:
    """Wait until *words* are in the file, looking again after each write; False once it *is_over* or time is up.

    What it is over by is asked for each second as well.
    """
    deadline = time.monotonic() + time_limit_s(timeout_s)
    path.touch()
    with FileWatch(path, IN_MODIFY) as watch:
        while words not in path.read_text(errors="replace"):
            if is_over() or time.monotonic() > deadline:
                return words in path.read_text(errors="replace")
            select.select([watch], [], [], 1)
            watch.drain()
    return True


def wait_renamed(watch: RenameWatch, process: ProcessWatch, is_there: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `is_there` says so, asking again after every rename; False once the process ended or time is up."""
    deadline = time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    poll.register(process, select.POLLIN)
    while not is_there():
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        events = poll.poll(left_s * 1000)
        watch.take_names()
        if any(fd == process.fileno() for fd, _ in events):
            # It may have reported between the look and its end.
            return is_there()
    return True
