"""A note beside the images in a directory: whose container they are of, so that they can be restored by the path alone.

Engines that keep no record of a checkpoint (runc, LXC) or cannot start from another directory than their own (Docker)
need to be told again which container it was.  Other readers of the directory ignore the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from torpor.base.exchanging import exchanged
from torpor.base.fds import only_files
from torpor.containers.model import Container
from torpor.images.errors import ImageError

#: The name of the file.
NAME = "torpor-container.json"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Note:
    """``engine``, ``name``, ``id``, ``image`` and ``place`` are the Container's."""

    engine: str
    name: str
    id: str
    image: str = ""
    place: str = ""


def write(directory: Path, container: Container) -> None:
    """Write the note of whose checkpoint *directory* holds, in place of any that is there.  OSError."""
    with written(directory, container):
        pass


@contextmanager
def written(directory: Path, container: Container) -> Iterator[None]:
    """The same at the end of the block, in which the checkpoint is made.

    OSError where there is no room for it, before that: without a note nobody knows whose the checkpoint is.  After any
    error an earlier note is as it was.
    """
    note = Note(container.engine, container.name, container.id, container.image, container.place)
    with exchanged(directory / NAME, (json.dumps(asdict(note), indent=1) + "\n").encode()):
        yield


def read(directory: Path) -> Note | None:
    """The note, if there is one; ImageError if it makes no sense."""
    path = directory / NAME
    try:
        with open(path, "rb", opener=only_files) as stream:
            told = json.loads(stream.read(_MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(f"{path}: {error}") from None
    if not isinstance(told, dict):
        raise ImageError(f"{path}: not an object")
    values = {field.name: str(told.get(field.name, "")) for field in fields(Note)}
    try:
        is_text = b"\0" not in os.fsencode("".join(values.values()))
    except UnicodeEncodeError:
        is_text = False
    if not is_text or not values["engine"] or not values["name"] or values["name"].startswith("-"):
        raise ImageError(f"{path}: names no container")
    return Note(**values)
