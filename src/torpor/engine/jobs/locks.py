"""One operation at a time on a job: a lock for as long as a checkpoint, a restore or a start lasts.

The lock is of an open file description (fcntl(2), F_OFD_SETLK): our death lets go of it, and whoever only wants to know
whether it is held can ask without taking it.  The file says in words who has it.

    STATE/locks/NAME      there as long as somebody is at work on NAME
    STATE/locks/.spare    becomes one where no new file can be made: what makes room (rm, prune) needs one, too
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torpor.base.errors import JobError, NotPermittedError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.engine.jobs.places import check_name, state_directory
from torpor.kernel import rename
from torpor.kernel.procfs.task import is_dying

#: struct flock: type, whence, start, length, pid.
_FLOCK = struct.Struct("=hhxxxxqqixxxx")
WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_NO_LOCK = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)
_MAX_TEXT = 200
_SPARE = ".spare"
_BY = re.compile(r"by pid (\d+)$")
#: So long is it waited for that a dead holder's lock is let go, or a new holder says who it is.
_PATIENCE_S, _LOOK_EVERY_S = 2.0, 0.01
AS_OWNER = "ask as that user, or as root"


@contextmanager
def held(name: str, doing: str) -> Iterator[None]:
    """Be the only one at work on the job *name*; JobError, with who it is, while somebody else is.

    *doing* completes "NAME is being ...".
    """
    path, deadline = state_directory() / "locks" / check_name(name), time.monotonic() + _PATIENCE_S
    while True:
        with OwnedFd(_open(path, name)) as fd:
            try:
                fcntl.fcntl(fd.fileno(), fcntl.F_OFD_SETLK, WHOLE_FILE)
            except (BlockingIOError, PermissionError):
                told = os.pread(fd.fileno(), _MAX_TEXT, 0).decode(errors="replace").strip()
                # Who has only just taken it has not said so yet.
                if (not told or _is_dead(told)) and time.monotonic() < deadline:
                    time.sleep(_LOOK_EVERY_S)
                    continue
                raise JobError(f"{name} is being {told or 'worked on'}", hint="wait until that is over") from None
            if not is_at(path, fd.fileno()):
                continue  # its last holder has removed it since we opened it
            os.ftruncate(fd.fileno(), 0)
            # On a full disk the lock holds without a word: what frees space (rm, prune) has to go on.
            with suppress(OSError):
                os.pwrite(fd.fileno(), f"{doing} by pid {os.getpid()}\n".encode(), 0)
            try:
                yield
            finally:
                _let_go(path, fd.fileno())
            return


def _is_dead(told: str) -> bool:
    """Whether the holder that *told* names is: what it had just forked may have the lock for a moment yet."""
    found = _BY.search(told)
    return found is not None and is_dying(Pid(int(found.group(1))))


def _let_go(path: Path, fd: int) -> None:
    """Whoever waits for the lock sees that it is not at its place any more; what we have forked does not keep it."""
    with suppress(OSError):
        os.ftruncate(fd, 0)
    try:
        with OwnedFd(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as home:
            rename.put(home.fileno(), path.name, _SPARE)
    except OSError:
        path.unlink(missing_ok=True)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _NO_LOCK)


def _open(path: Path, name: str) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return os.open(path, flags | os.O_CREAT, 0o600)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            with suppress(OSError), OwnedFd(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as home:
                rename.put(home.fileno(), _SPARE, path.name)
            with suppress(FileNotFoundError):
                return os.open(path, flags)
            raise
    except PermissionError:
        raise NotPermittedError(
            f"the jobs in {state_directory()} belong to another user; {name} is none of ours", hint=AS_OWNER
        ) from None


def holder(name: str) -> str:
    """What is being done to the job *name* just now, and by whom; nothing where nobody does anything."""
    path = state_directory() / "locks" / name
    try:
        with OwnedFd(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)) as fd:
            found = _FLOCK.unpack(fcntl.fcntl(fd.fileno(), fcntl.F_OFD_GETLK, WHOLE_FILE))
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
