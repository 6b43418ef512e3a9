"""Which store a place is: here alone a store is made of a path.

``-``, ``/dev/fd/63`` and a FIFO by an archive's name are streams: one tar archive, from its beginning to its end.
A file is an archive, for reading.  Anything else is a directory, as CRIU has it.
"""

from __future__ import annotations

import os
import stat
import sys

from torpor.base.errors import UsageError
from torpor.base.fds import closed_at_first
from torpor.base.late import load
from torpor.base.typed import Literal
from torpor.images.errors import StoreError
from torpor.images.store import ImageStore
from torpor.images.stores.base import COMPRESSED
from torpor.images.stores.directory import DirStore

#: Where images are: a path, or a store that somebody has made.
Location = str | os.PathLike[str] | ImageStore
#: Our standard input or output.
STANDARD = "-"


def open_store(
    place: str | os.PathLike[str], mode: Literal["r", "w"] = "r", *, spool: str | os.PathLike[str] | None = None
) -> ImageStore:
    """The store at *place*; ImageMissing, ImageError, StoreError, UsageError for a terminal.

    *spool* is a directory for what of an archive has to wait.  A stream is read as a whole before this returns, and one
    that is written waits here until somebody reads it.
    """
    path = os.fspath(place)
    if is_stream(path):
        return _open_stream(path, mode, spool)
    if mode == "r" and os.path.isfile(path):
        return _read(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC), spool)
    return open_directory(path, mode)


def open_directory(place: str | os.PathLike[str] | int, mode: Literal["r", "w"] = "r", path: str = "") -> DirStore:
    """The same for what is known to be a directory: its path, or a descriptor that stays the caller's and the *path*
    by which messages name it.
    """
    if isinstance(place, int):
        return DirStore.from_fd(place, mode, path or "images directory")
    return DirStore(place, mode)


def compressing(store: ImageStore, *, borrowed: bool = False) -> ImageStore:
    """A store over *store*, which becomes its own unless it is *borrowed*, that compresses pages."""
    from torpor.images.stores import compressed

    return compressed.ZstdStore(store, borrowed=borrowed)


def plain(store: ImageStore) -> ImageStore:
    """*store* as who reads images wants it, whether some of them are compressed or not."""
    is_packed = any(name.endswith(f".img{COMPRESSED}") for name in store.names())
    return compressing(store) if is_packed else store


def is_stream(place: str | os.PathLike[str]) -> bool:
    """Whether *place* is read, or written, from its beginning to its end only.

    A FIFO is one by its name, as an archive is: nobody waits for what merely lies where a directory was meant.
    """
    if os.fspath(place) == STANDARD:
        return True
    try:
        if not stat.S_ISFIFO(os.stat(place).st_mode):
            return False
    except OSError:
        return False
    has_no_name = os.path.basename(os.path.realpath(place)).startswith("pipe:[")  # as /dev/stdin, /dev/fd/63
    from torpor.images import pack

    return has_no_name or pack.compression_of(place) is not None


def _open_stream(path: str, mode: Literal["r", "w"], spool: str | os.PathLike[str] | None) -> ImageStore:
    name = {"r": "standard input", "w": "standard output"}[mode] if path == STANDARD else path
    number = 0 if mode == "r" else 1
    if path == STANDARD and (number in closed_at_first or (sys.stdin, sys.stdout)[number] is None):
        # It was closed when we began, and another file may have its number by now.
        raise StoreError(f"{name} is closed")
    try:
        if path == STANDARD:
            fd = os.dup(number)
        else:
            fd = os.open(path, (os.O_RDONLY if mode == "r" else os.O_WRONLY) | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise StoreError(f"{name}: cannot open: {error.strerror}") from error
    if mode == "r":
        return _read(name, fd, spool)
    from torpor.images import pack
    from torpor.images.stores import stream as writing

    how = pack.compression_of(path) or "none"
    found: ImageStore = writing.TarStore(writing.Pipe(fd, name), name, how, os.fspath(spool) if spool else None)
    return found


def _read(path: str, fd: int, spool: str | os.PathLike[str] | None) -> ImageStore:
    with open(fd, "rb") as stream:
        if stream.isatty():
            raise UsageError(
                f"{path} is a terminal", hint="< FILE.tar, or torpor checkpoint ... -o - | torpor restore -"
            )
        from torpor.images.stores import spooled as reading

        found: ImageStore = reading.SpooledStore(stream, path, reading.Spool(spool or load("tempfile").gettempdir()))
        return found
