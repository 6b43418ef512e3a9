"""One operation at a time on a job: a lock for as long as a checkpoint, a restore or a start lasts.

The lock is of an open file description (fcntl(2), F_OFD_SETLK): our death lets go of it, and whoever only wants to know
whether it is held can ask without taking it.  The file says in words who has it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torpor.base.errors import JobError, NotPermittedError
from torpor.base.fds import OwnedFd
from torpor.engine.jobs.places import check_name, state_directory

#: struct flock: type, whence, start, length, pid.
_FLOCK = struct.Struct("=hhxxxxqqixxxx")
_MAX_TEXT = 200
AS_OWNER = "ask as that user, or as root"


@contextmanager
def held(name: str, doing: str) -> Iterator[None]:
    """Be the only one at work on the job *name*; JobError, with who it is, while somebody else is.

    *doing* completes "NAME is being ...".
    """
    path = state_directory() / "locks" / check_name(name)
    while True:
        with OwnedFd(_open(path, name)) as fd:
            try:
                fcntl.fcntl(fd.fileno(), fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            except (BlockingIOError, PermissionError):
                told = os.pread(fd.fileno(), _MAX_TEXT, 0).decode(errors="replace").strip()
                raise JobError(f"{name} is being {told or 'worked on'}", hint="wait until that is over") from None
            if not is_at(path, fd.fileno()):
                continue  # its last holder has removed it since we opened it
            os.ftruncate(fd.fileno(), 0)
            os.pwrite(fd.fileno(), f"{doing} by pid {os.getpid()}\n".encode(), 0)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _open(path: Path, name: str) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except PermissionError:
        raise NotPermittedError(
            f"the jobs in {state_directory()} belong to another user; {name} is none of ours", hint=AS_OWNER
        ) from None


def holder(name: str) -> str:
    """What is being done to the job *name* just now, and by whom; nothing where nobody does anything."""
    path = state_directory() / "locks" / name
    try:
        with OwnedFd(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)) as fd:
            query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = _FLOCK.unpack(fcntl.fcntl(fd.fileno(), fcntl.F_OFD_GETLK, query))
            if found[0] == fcntl.F_UNLCK:
                return ""
            return os.pread(fd.fileno(), _MAX_TEXT, 0).decode(errors="replace").strip() or "worked on"
    except OSError:
        return ""


def is_at(path: os.PathLike[str], fd: int) -> bool:
    """Whether *fd* is what *path* leads to now."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False
