"""Directories for the images of what moves, here, until it is known to run elsewhere: below STATE/migrating.

Each is locked by its migration.  One that has no owner any more and is of no use is removed by the next who comes: its
process runs, or it holds no whole set.  What may be all that there is of a process is left to the user.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.engine import jobs
from torpor.engine.sets.places import WHOLE
from torpor.images import manifest
from torpor.kernel.procfs.stat import read_stat

_HOME, IMAGES = "migrating", "images"
#: Whoever has just been killed may have its tree killed still: so long its images are left alone.
_SETTLED_S = 60.0


def home() -> Path:
    """Where they all are."""
    return jobs.state_directory() / _HOME


def of_process(pid: int) -> str:
    """A name for that of a process, which is told from a later one with its number."""
    start_time = 0
    with suppress(OSError):  # who asks finds out that it is gone
        start_time = read_stat(Pid(pid)).start_time
    return f"{pid}-{start_time}-{os.urandom(4).hex()}"


@contextmanager
def held(directory: Path) -> Iterator[Path]:
    """Make the directory; it is ours within the block, and stays afterwards unless it has been removed."""
    directory.mkdir(mode=0o700, parents=True)
    with OwnedFd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        fcntl.flock(fd.fileno(), fcntl.LOCK_EX)
        yield directory


def is_left(directory: Path) -> bool:
    """Whether that has no owner, and has had none for a while; nobody removes one that is being made."""
    try:
        with OwnedFd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
            about = os.fstat(fd.fileno())
            fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return about.st_uid == os.geteuid() and time.time() - about.st_mtime > _SETTLED_S


def sweep() -> None:
    """Remove what the killed have left, and nobody needs."""
    with suppress(FileNotFoundError):
        for name in os.listdir(home()):
            place = home() / name
            if not name.startswith(".") and is_left(place) and _is_useless(place):
                shutil.rmtree(place, ignore_errors=True)


def _is_useless(place: Path) -> bool:
    words = place.name.split("-")
    if len(words) == 3 and all(word.isdecimal() for word in words[:2]) and _runs(int(words[0]), int(words[1])):
        return True
    if any(name.endswith((".tar", ".tar.new")) for name in os.listdir(place)):
        return False  # a container that its engine has forgotten, also if who would have said it is whole was killed
    try:
        # One that is whole, and not in its place yet, is called so.
        is_whole = any(name == manifest.NAME or name.endswith(WHOLE) for name in os.listdir(place / IMAGES))
    except FileNotFoundError:
        return True
    return not is_whole


def _runs(pid: int, start_time: int) -> bool:
    try:
        found = read_stat(Pid(pid))
    except (OSError, ValueError):
        return False
    return found.start_time == start_time and found.state not in "ZX"
