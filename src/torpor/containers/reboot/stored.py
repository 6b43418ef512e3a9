"""Small files of ours below STATE/reboot that are whole at every instant, and on the disk when a call returns.

One process at a time works there (``held``); who only looks needs no lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torpor.base.errors import NotPermittedError, TorporError
from torpor.base.exchanging import exchange
from torpor.base.fds import OwnedFd, only_files
from torpor.engine.jobs.places import state_directory

_MAX_BYTES = 16 << 20


def directory() -> Path:
    """The directory of these files, STATE/reboot; it need not be there."""
    return state_directory() / "reboot"


def read(name: str) -> dict[str, object]:
    """The object in the file *name*; nothing in it where there is no such file, or it is not ours to read."""
    path = directory() / name
    try:
        with open(path, "rb", opener=only_files) as stream:
            found = json.loads(stream.read(_MAX_BYTES))
    except (FileNotFoundError, PermissionError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise TorporError(f"{path}: {error}", hint="it is torpor's; what was marked has to be marked again") from None
    return found if isinstance(found, dict) else {}


def write(name: str, told: dict[str, object]) -> None:
    """Exchange the file for one with *told*, on the disk; OSError."""
    exchange(directory() / name, (json.dumps(told, indent=1) + "\n").encode())


@contextmanager
def held(what: str) -> Iterator[None]:
    """Nobody else works there meanwhile; TorporError where somebody does.  *what*: the file that is going to change."""
    place = directory()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = OwnedFd(os.open(place / f".{what}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except PermissionError as error:
        raise NotPermittedError(f"{error.filename}: {error.strerror}", hint="ask as its owner, or as root") from None
    with fd:
        try:
            fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TorporError(f"somebody else is at work in {place}", hint="wait until that is over") from None
        yield
