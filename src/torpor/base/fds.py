"""Descriptors that somebody owns."""

from __future__ import annotations

import errno
import os
import stat
import sys
from types import TracebackType

from torpor.base.typed import Self

_NULL = os.makedev(1, 3)
#: Of 0, 1 and 2: what nobody gave us, and ``open_standard`` has opened.
closed_at_first: set[int] = set()


def open_output(path: str, flags: int = os.O_TRUNC, mode: int = 0o600) -> int:
    """A file that we write to (made if need be), which the caller owns (close-on-exec).  OSError.

    A plain name lies in the work directory, which often is that of the images, where strangers may have put a link by
    that name: none is followed.  Nor is a FIFO waited for, until somebody reads it.
    """
    wanted = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | flags
    fd = os.open(path, wanted if "/" in path else wanted | os.O_NOFOLLOW, mode)
    os.set_blocking(fd, True)
    return fd


def put_new(path: str, content: bytes, mode: int = 0o600) -> OwnedFd | None:
    """A file that is not there yet, with *content* from its first instant on; None where something is there.

    It is written beside and renamed, as ``base/exchanging.py`` does it, but not for ever: whoever waits for it never
    finds it empty.  None as well where nothing can be made beside.  OSError where it cannot be written.
    """
    directory, name = os.path.split(path)
    beside = os.path.join(directory, f".{name}.new")
    if not name or os.path.lexists(path):
        return None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
    try:
        if os.path.lexists(beside):
            os.unlink(beside)  # of somebody who was killed; or a stranger's link, which is not followed
        fd = OwnedFd(os.open(beside, flags, mode))
    except OSError:
        return None
    try:
        os.write(fd.fileno(), content)
        os.rename(beside, path)
    except BaseException:
        fd.close()
        os.unlink(beside)
        raise
    return fd


def only_files(path: str, flags: int) -> int:
    """For ``open(..., opener=only_files)``: OSError for what is no regular file, which is not even opened.

    A FIFO would have us wait for whoever writes to it, and a tape winds back.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", path)
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return fd


def only_given(path: str, flags: int) -> int:
    """As ``only_files``, for what the caller names on a command line: also /dev/null, and a pipe without a name.

    The shell's ``<(command)`` is such a pipe; whoever writes to it is at work already.
    """
    with OwnedFd(os.open(path, os.O_PATH | os.O_CLOEXEC)) as fd:
        info, own = os.fstat(fd.fileno()), f"/proc/self/fd/{fd.fileno()}"
        is_null = stat.S_ISCHR(info.st_mode) and info.st_rdev == _NULL
        is_pipe = stat.S_ISFIFO(info.st_mode) and os.readlink(own).startswith("pipe:[")
        if not (stat.S_ISREG(info.st_mode) or is_null or is_pipe):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        return os.open(own, flags | os.O_NOCTTY | os.O_CLOEXEC)


def open_standard() -> None:
    """Have none of 0, 1 and 2 closed, where a command begins: what is opened next would be taken for them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest that is free, which is this one.
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
            closed_at_first.add(number)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


class Closing:
    """Something with a ``close`` that the end of a ``with`` calls, whatever has happened in it."""

    __slots__ = ()

    def close(self) -> None:
        """Let go of what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class OwnedFd(Closing):
    """A descriptor of this process that is closed exactly once, by ``close`` or at the end of a ``with``."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The number; ValueError after ``close``."""
        if self._fd < 0:
            raise ValueError("descriptor is closed")
        return self._fd

    def release(self) -> int:
        """Give the number away; the caller closes it."""
        fd, self._fd = self.fileno(), -1
        return fd

    def close(self) -> None:
        """Close; twice is harmless."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        self.close()
