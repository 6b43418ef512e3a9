"""``--persist``: what was last written of what has moved stays as a copy, wherever its user wants it.

DIRECTORY/images         what it was when it was stopped, which ``torpor restore`` takes
DIRECTORY/roundN         the rounds of its memory that the images build upon
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from torpor.base import log
from torpor.base.errors import UsageError
from torpor.images.errors import StoreError

_IMAGES, _PARENT = "images", "parent"


def check(directory: str, n_bytes: int) -> None:
    """UsageError, StoreError where there can be no copy of so many bytes of memory in *directory*."""
    place = Path(directory).absolute()
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        raise UsageError(
            f"--persist {directory}: there is something already", hint="name a directory that is new, or empty"
        )
    above = next(each for each in (place, *place.parents) if each.is_dir())
    about = os.statvfs(above)
    if (free := about.f_bavail * about.f_frsize) < n_bytes:
        raise StoreError(f"{above} has room for {free >> 20} MiB, and {n_bytes >> 20} MiB are to be kept there")
    if not os.access(above, os.W_OK):
        raise StoreError(f"{above} cannot be written to")


def keep(directory: str, images: Path, home: Path, rounds: Sequence[str]) -> str:
    """Copy *images*, and the *rounds* in *home* on which they depend; where they are.  OSError."""
    place = Path(directory).absolute()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in rounds:
        shutil.copytree(home / name, place / name, symlinks=True)
    made = place / _IMAGES
    shutil.copytree(images, made, symlinks=True)
    if (parent := made / _PARENT).is_symlink():
        target = f"../{rounds[-1]}"
        parent.unlink()
        parent.symlink_to(target)
    for path, _, names in os.walk(place):
        for each in (path, *(os.path.join(path, name) for name in names)):
            if not os.path.islink(each):
                _sync(each)
    return str(made)


def keep_if_possible(directory: str, images: Path, home: Path, rounds: Sequence[str]) -> str:
    """The same; "" where that fails, which is said: what has moved runs on another host already."""
    try:
        return keep(directory, images, home, rounds)
    except OSError as error:
        log.error(f"there is no copy in {directory} ({error.strerror}): the images stay in {images}")
        return ""


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
