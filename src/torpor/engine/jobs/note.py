"""A note beside the images: which job this is a checkpoint of, and what it takes to be that job again elsewhere.

Other readers of the directory ignore the file.  It may come from anybody: what it says is checked, and names are never
paths.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from torpor import __version__
from torpor.base.errors import JobError
from torpor.engine.jobs.places import check_name
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.store import ImageStore
from torpor.images.stores.opening import Location

NAME = "torpor-job.json"
_MAX_BYTES = 1 << 20
_MAX_WORDS = 4096
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Note:
    """``name`` and ``command`` are the job's, ``created`` its age, ``log`` its output's file as images have it.

    ``id`` is the checkpoint's own, ``made`` the time of it; ``host``, ``kernel`` and ``torpor`` (a version) say where,
    ``by`` what made it.
    """

    name: str
    command: tuple[str, ...]
    created: float
    log: str
    id: str
    made: float
    host: str
    kernel: str
    torpor: str
    by: str


def make(name: str, command: tuple[str, ...], created: float, log: Path, by: str) -> Note:
    """The note on a checkpoint that is made just now."""
    here, ident = os.uname(), os.urandom(16).hex()
    return Note(
        name, command, created, str(log), ident, time.time(), here.nodename, here.release, __version__, by
    )  # fmt: skip


def encode(note: Note) -> bytes:
    """What stands in the file."""
    return json.dumps(asdict(note), indent=1).encode() + b"\n"


def write(directory: Path, note: Note) -> None:
    """Leave the note beside the images in *directory*, at once or not at all; not on the disk yet."""
    temporary = directory / f".{NAME}"
    temporary.write_bytes(encode(note))
    temporary.replace(directory / NAME)


def read(images: Location) -> Note | None:
    """The note beside the images in a directory or a store, if there is one; ImageError if it makes no sense."""
    if not isinstance(images, str | os.PathLike):
        return _read_from(images)
    path = Path(images) / NAME
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    with os.fdopen(fd, "rb") as stream:
        return decode(stream.read(_MAX_BYTES), str(path))


def _read_from(store: ImageStore) -> Note | None:
    try:
        stream = store.open_read(NAME)
    except ImageMissing:
        return None
    with stream:
        return decode(stream.read(_MAX_BYTES), f"{store.path}: {NAME}")


def decode(data: bytes, where: str) -> Note:
    """What stands in the file *where*; ImageError if it makes no sense."""
    try:
        told = json.loads(data)
        values = {field.name: told[field.name] for field in fields(Note)}
        words = values["command"] = tuple(values["command"])
        texts = (*words, *(values[name] for name in ("log", "id", "host", "kernel", "torpor", "by")))
        check_name(values["name"])
        if not all(isinstance(text, str) and "\0" not in text for text in texts) or len(words) > _MAX_WORDS:
            raise ValueError("a text is none")
        if not all(isinstance(values[name], int | float) for name in ("created", "made")):
            raise ValueError("a time is none")
        if not values["log"].startswith("/") or not _ID.fullmatch(values["id"]):
            raise ValueError("its log or its id makes no sense")
        return Note(**values)
    except (ValueError, LookupError, TypeError, RecursionError, JobError) as error:
        raise ImageError(f"{where}: not a job's note: {error}") from None
