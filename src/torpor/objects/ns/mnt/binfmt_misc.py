"""binfmt_misc: what is registered in it.

Kernel view
    A file for each interpreter; since 6.7 each user namespace has its own, before there is one for all.
Image
    ``binfmt_misc_entry`` with the text of the file taken apart.
Restore
    Written to ``register``, unless there is one of that name (there is where the file system is the host's).
Limits
    An interpreter that is to be opened at once (``F``) is found by its path on the host, with a warning.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import ImageStore, load_all, store_all
from torpor.images.text import get_text, set_text
from torpor.kernel.idmap import IdMaps

_NO_ENTRIES = ("register", "status")


def dump(store: ImageStore, places: Sequence[tuple[int, str]], device: int, idmaps: IdMaps) -> None:
    """All that is registered in the file system that the first of *places* shows."""
    directory = f"/proc/self/fd/{places[0][0]}"
    entries = []
    for name in sorted(os.listdir(directory)):
        if name not in _NO_ENTRIES:
            with open(f"{directory}/{name}", encoding="utf-8", errors="surrogateescape") as stream:
                entries.append(parse(name, stream.read()))
    store_all(store, "BINFMT_MISC", entries)


def parse(name: str, text: str) -> m.binfmt_misc_entry:
    """What the file *name* says."""
    lines = text.splitlines()
    words = dict(line.partition(" ")[::2] for line in lines[1:])
    entry = m.binfmt_misc_entry(enabled=lines[0] == "enabled")
    fields = {
        "name": name, "interpreter": words["interpreter"], "flags": words.get("flags:", ""),
        "extension": words.get("extension", ""), "magic": words.get("magic", ""), "mask": words.get("mask", ""),
    }  # fmt: skip
    for field, value in fields.items():
        if value or field in ("name", "interpreter"):
            set_text(entry, field, value)
    if "offset" in words:
        entry.offset = int(words["offset"])
    return entry


def restore(
    store: ImageStore, directory: int, device: int, idmaps: IdMaps, may_be_special: bool, labels: object = None
) -> None:
    """Register what is missing in the file system behind the descriptor *directory*."""
    if not store.exists(kinds.BINFMT_MISC.file_name()):
        return
    there = set(os.listdir(f"/proc/self/fd/{directory}"))
    for entry in load_all(store, kinds.BINFMT_MISC):
        name = get_text(entry.name)
        if name in there:
            continue
        if "F" in get_text(entry.flags):
            log.warn(f"binfmt_misc: {name}: its interpreter is opened where the host has it")
        try:
            _write(directory, "register", line_of(entry))
            if not entry.enabled:
                _write(directory, name, "0")
        except OSError as error:
            raise RestoreError(f"binfmt_misc: {name} cannot be registered: {error.strerror}") from error


def line_of(entry: m.binfmt_misc_entry) -> str:
    """The line that registers the interpreter when it is written to ``register``."""
    tail = f"{get_text(entry.interpreter)}:{get_text(entry.flags)}"
    if entry.HasField("extension"):
        return f":{get_text(entry.name)}:E::{get_text(entry.extension).removeprefix('.')}::{tail}"
    magic, mask = (
        "".join(f"\\x{text[at : at + 2]}" for at in range(0, len(text), 2))
        for text in (get_text(entry.magic), get_text(entry.mask))
    )
    return f":{get_text(entry.name)}:M:{entry.offset}:{magic}:{mask}:{tail}"


def _write(directory: int, name: str, text: str) -> None:
    with OwnedFd(os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)) as fd:
        os.write(fd.fileno(), os.fsencode(text))
