"""Where a checkpoint goes: a directory, or one file by its name (``.tar.zst``, ``.tar.gz``, ``.tar``); and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torpor.base.errors import UsageError
from torpor.base.fds import OwnedFd
from torpor.engine import scratch
from torpor.engine.options import nothing
from torpor.engine.sets.settling import settle_path
from torpor.engine.sets.writing import add_sums
from torpor.images import pack


@contextmanager
def going_to(output: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """The directory to dump into, and what is to be done once the images are whole, given where they are just then.

    An archive is made while the processes are still there: if there is no room for it, nothing is lost.
    """
    how = pack.compression_of(output)
    if how is None:
        yield output, nothing
        return
    if output.is_dir():
        raise UsageError(f"{output} is a directory", hint="an archive is a file; leave out the suffix, or another name")
    with scratch.directory(output.absolute().parent) as room:

        def finish(images: str) -> None:
            made = room / output.name
            with OwnedFd(os.open(images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as whole:
                add_sums(whole.fileno())
            pack.write(Path(images), made, how)
            made.replace(output)
            with OwnedFd(os.open(output.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
                os.fsync(fd.fileno())

        yield room / "images", finish


@contextmanager
def coming_from(place: Path, state: Path) -> Iterator[Path]:
    """The directory with the images of *place*; those of an archive are unpacked below *state* and gone afterwards."""
    if not place.is_file():
        # What lies beside the images is read before they are: it is to be of the same set.
        settle_path(place)
    if place.is_dir():
        yield place
        return
    with scratch.directory(state / "unpacked") as room:
        pack.unpack(place, room)
        yield room
