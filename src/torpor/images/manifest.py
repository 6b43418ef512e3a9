"""The manifest of a set of images: what made it, when and where, and how each file of it reads.

A file of our own beside CRIU's, ``torpor-manifest.json``, which other readers do not know. One dump has one id: it
stands here and in the inventory, and images whose inventory has another are no set. Of each image its length and a sum
(xxh3, 64 bits) of each MiB: damage is found in what is read, without reading the rest. That is against accidents; who
may write images can write a manifest as well.

What a dump writes beside its images (stats, logs, the link `parent`) is not in it.
"""

from __future__ import annotations

import os
import time

from torpor.base.late import load as load_module
from torpor.base.records import dataclass, field
from torpor.base.typed import Any
from torpor.images.errors import ImageError, StoreError

NAME = "torpor-manifest.json"
#: Each so many bytes of a file have a sum of their own; the last ones what is left.
BLOCK_BYTES = 1 << 20
_SUM_BYTES = 8
_FORMAT = 1
_MAX_BYTES = 256 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Content:
    """One file of the set: its length, and the sums of its blocks; None where they are not known (yet)."""

    n_bytes: int
    sums: bytes | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a set beside its images.

    ``made_by`` are the words of the command; ``date`` is in seconds since 1970; ``boot`` is the id of the kernel's run
    (``/proc/sys/kernel/random/boot_id``).
    """

    ident: str
    made_by: str = ""
    torpor: str = ""
    host: str = ""
    kernel: str = ""
    architecture: str = ""
    date: float = 0
    boot: str = ""
    files: dict[str, Content] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """The length of all files together."""
        return sum(content.n_bytes for content in self.files.values())


_TEXTS = ("made_by", "torpor", "host", "kernel", "architecture", "boot")


def encode(manifest: Manifest) -> bytes:
    """As it is written."""
    files = {
        name: [content.n_bytes, None if content.sums is None else content.sums.hex()]
        for name, content in sorted(manifest.files.items())
    }
    told: dict[str, object] = {"format": _FORMAT, "id": manifest.ident, "date": manifest.date}
    told |= {name: getattr(manifest, name) for name in _TEXTS}
    told |= {"sum": "xxh3-64", "block": BLOCK_BYTES, "files": files}
    text: str = load_module("json").dumps(told, indent=0)
    return text.encode()


def parse(data: bytes, where: str = NAME) -> Manifest:
    """ImageError for what is no manifest, or one of a later format."""
    try:
        told = load_module("json").loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{where}: damaged: {error}") from None
    if not isinstance(told, dict) or told.get("format") != _FORMAT or told.get("block") != BLOCK_BYTES:
        raise ImageError(f"{where}: not a manifest that this torpor knows", hint="a newer torpor may have written it")
    try:
        texts = {name: _text(told.get(name, "")) for name in _TEXTS}
        files = {_text(name): _content(value) for name, value in told["files"].items()}
        return Manifest(ident=_text(told["id"]), date=float(told["date"]), files=files, **texts)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ImageError(f"{where}: damaged: {type(error).__name__}: {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _content(value: Any) -> Content:
    n_bytes, text = value
    if not isinstance(n_bytes, int) or n_bytes < 0:
        raise TypeError("not a length")
    sums = None if text is None else bytes.fromhex(text)
    if sums is not None and len(sums) != n_blocks(n_bytes) * _SUM_BYTES:
        raise ValueError("not as many sums as there are blocks")
    return Content(n_bytes, sums)


def n_blocks(n_bytes: int) -> int:
    """How many sums a file of that length has."""
    return -(-n_bytes // BLOCK_BYTES)


def read(directory: str | os.PathLike[str] | int) -> Manifest | None:
    """The manifest in a directory (a path or a descriptor); None where there is none."""
    try:
        own = directory if isinstance(directory, int) else os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fd = os.open(NAME, _READ, dir_fd=own)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{NAME}: cannot open: {error.strerror}") from error
    finally:
        if not isinstance(directory, int):
            os.close(own)
    with open(fd, "rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ImageError(f"{NAME}: more than {_MAX_BYTES} bytes are not believed")
    return parse(data)


def made_here(ident: str, made_by: str, torpor: str) -> Manifest:
    """A manifest of a set that is being made now on this machine, without files yet."""
    system = os.uname()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        boot = stream.read().strip()
    return Manifest(
        ident, made_by, torpor, system.nodename, system.release, system.machine, date=time.time(), boot=boot
    )


def sums_of(fd: int, n_bytes: int) -> bytes:
    """The sums of the first *n_bytes* behind *fd*; ImageError where there are less.  Releases the GIL."""
    block = memoryview(bytearray(min(BLOCK_BYTES, n_bytes)))
    digest = load_module("xxhash").xxh3_64_digest
    found = bytearray()
    for offset in range(0, n_bytes, BLOCK_BYTES):
        piece = block[: min(BLOCK_BYTES, n_bytes - offset)]
        done = 0
        while done < len(piece):
            n_read = os.preadv(fd, [piece[done:]], offset + done)
            if not n_read:
                raise ImageError(f"truncated: {n_bytes} bytes wanted, {offset + done} are there")
            done += n_read
        found += digest(piece)
    return bytes(found)


def is_right(content: Content, index: int, block: memoryview | bytes | bytearray) -> bool:
    """Whether *block* is what block *index* of that file was."""
    if content.sums is None:
        return True
    wanted = content.sums[index * _SUM_BYTES : (index + 1) * _SUM_BYTES]
    return bool(load_module("xxhash").xxh3_64_digest(block) == wanted)
