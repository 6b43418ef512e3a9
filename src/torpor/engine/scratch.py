"""Private directories for what is only needed for a while, on the file system where there is room for it.

What was left by those who died is removed by the next who makes one at the same place: a lock on each tells.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torpor.base.fds import OwnedFd

_PREFIX = ".torpor-scratch-"


@contextmanager
def directory(parent: Path) -> Iterator[Path]:
    """A new directory in *parent* (which is made if need be), readable by us alone and gone at the end."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(parent)
    path, fd = _make(parent)
    with fd:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _make(parent: Path) -> tuple[Path, OwnedFd]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        # Somebody may take it for a dead one's before it has its lock.
        try:
            fd = OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        except FileNotFoundError:
            continue
        fcntl.flock(fd.fileno(), fcntl.LOCK_EX)
        if path.exists():
            return path, fd
        fd.close()


def _sweep(parent: Path) -> None:
    with suppress(OSError):
        for name in os.listdir(parent):
            if name.startswith(_PREFIX):
                _remove_if_dead(parent / name)


def _remove_if_dead(path: Path) -> None:
    with (
        suppress(OSError),
        OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd,
    ):
        if os.fstat(fd.fileno()).st_uid == os.geteuid():
            fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
