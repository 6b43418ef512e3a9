"""The manifest of a set of images: what made it, when and where, and how each file of it reads.

A file of our own beside CRIU's, ``torpor.manifest``, which other readers do not know: lines of a word and what it is,
so that a restore need not import what reads more.  One dump has one id: it
stands here and in the inventory, and images whose inventory has another are no set.  Of each image its length and a sum
(xxh3, 64 bits) of each 256 KiB: damage is found in what is read, without reading the rest.  That is against accidents;
who may write images can write a manifest as well.

What a dump writes beside its images (stats, logs, the link ``parent``) is not in it.
"""

from __future__ import annotations

import os
import time

from torpor.base.late import load as load_module
from torpor.base.records import dataclass, field
from torpor.base.typed import TYPE_CHECKING, BinaryIO
from torpor.images.errors import ImageError, ImageMissing, StoreError
from torpor.images.store import check_name

if TYPE_CHECKING:
    from torpor.images.store import ImageStore

NAME = "torpor.manifest"
#: Each so many bytes of a file have a sum of their own; the last ones what is left.
BLOCK_BYTES = 1 << 18
_SUM_BYTES = 8
#: What a manifest says of pages that are not among the files of its set.
ELSEWHERE = "elsewhere"
_FIRST_LINE = "torpor manifest 1: xxh3-64 of each 256 KiB"
_LAST_LINE = "end"
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
    (``/proc/sys/kernel/random/boot_id``).  ``pages``: ELSEWHERE, where a page server has got them; their images, if
    they are brought here, have no lengths and sums in ``files``.
    """

    ident: str
    made_by: str = ""
    torpor: str = ""
    host: str = ""
    kernel: str = ""
    architecture: str = ""
    date: float = 0
    boot: str = ""
    pages: str = ""
    files: dict[str, Content] = field(default_factory=dict)

    @property
    def has_sums(self) -> bool:
        """Whether those of all files are known: they are not until the dump has come to its end."""
        return all(content.sums is not None for content in self.files.values())

    @property
    def n_bytes(self) -> int:
        """The length of all files together."""
        return sum(content.n_bytes for content in self.files.values())


_TEXTS = ("ident", "made_by", "torpor", "host", "kernel", "architecture", "boot", "pages")


def encode(manifest: Manifest) -> bytes:
    """As it is written."""
    lines = [_FIRST_LINE, f"date {manifest.date!r}"]
    lines += [f"{name} {_escaped(text)}" for name in _TEXTS if (text := getattr(manifest, name)) or name != "pages"]
    for name, content in sorted(manifest.files.items()):
        sums = "-" if content.sums is None else content.sums.hex()
        lines.append(f"file {content.n_bytes} {sums} {_escaped(name)}")
    return "\n".join([*lines, _LAST_LINE, ""]).encode()


def _escaped(text: str) -> str:
    """Without what would end the line."""
    return text.encode("unicode_escape").decode()


def parse(data: bytes, where: str = NAME) -> Manifest:
    """ImageError for what is no manifest, or one of a later format."""
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        lines = [""]
    if lines[0] != _FIRST_LINE:
        raise ImageError(f"{where}: not a manifest that this torpor knows", hint="a newer torpor may have written it")
    if lines[-2:] != [_LAST_LINE, ""]:
        raise ImageError(f"{where}: damaged: it is not whole")
    texts = dict.fromkeys(_TEXTS, "")
    files: dict[str, Content] = {}
    date = 0.0
    try:
        for line in lines[1:-2]:
            word, _, rest = line.partition(" ")
            if word == "file":
                length, sums, name = rest.split(" ", 2)
                files[check_name(_plain(name))] = _content(length, sums)
            elif word == "date":
                date = float(rest)
            elif word in texts:
                texts[word] = _plain(rest)
        return Manifest(date=date, files=files, **texts)
    except ValueError as error:
        raise ImageError(f"{where}: damaged: {error}") from None


def _plain(text: str) -> str:
    return text.encode().decode("unicode_escape")


def _content(length: str, text: str) -> Content:
    n_bytes = int(length)
    if not 0 <= n_bytes < 1 << 63:
        raise ValueError(f"a file of {n_bytes} bytes")
    sums = None if text == "-" else bytes.fromhex(text)
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
        return _parsed(stream)


def load(store: ImageStore) -> Manifest | None:
    """The manifest in a store; None where there is none."""
    try:
        stream = store.open_read(NAME)
    except ImageMissing:
        return None
    with stream:
        return _parsed(stream)


def _parsed(stream: BinaryIO) -> Manifest:
    data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ImageError(f"{NAME}: more than {_MAX_BYTES} bytes are not believed")
    return parse(data)


def made_here(ident: str, made_by: str, torpor: str, *, has_pages: bool = True) -> Manifest:
    """A manifest of a set that is being made now on this machine, without files yet."""
    system = os.uname()
    return Manifest(
        ident, made_by, torpor, system.nodename, system.release, system.machine, date=time.time(), boot=boot_id(),
        pages="" if has_pages else ELSEWHERE,
    )  # fmt: skip


def boot_id() -> str:
    """What names the run of this kernel."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def sums_of(stream: BinaryIO, n_bytes: int) -> bytes:
    """The sums of the next *n_bytes* of *stream*; ImageError where there are less.  Releases the GIL."""
    block = memoryview(bytearray(min(BLOCK_BYTES, n_bytes)))
    digest = load_module("xxhash").xxh3_64_digest
    found = bytearray()
    for offset in range(0, n_bytes, BLOCK_BYTES):
        piece = block[: min(BLOCK_BYTES, n_bytes - offset)]
        done = 0
        while done < len(piece):
            n_read = stream.readinto(piece[done:])  # type: ignore[attr-defined]
            if not n_read:
                raise ImageError(f"truncated: {n_bytes} bytes wanted, {offset + done} are there")
            done += n_read
        found += digest(piece)
    return bytes(found)


class BlockSums:
    """The sums of a file whose pieces are written in any order, each byte once, by several threads perhaps.

    Of blocks that a piece has as a whole they are made when it is written, while it is in the processor's cache.
    """

    def __init__(self) -> None:
        self._digest = load_module("xxhash").xxh3_64_digest
        self._found: dict[int, bytes] = {}
        #: The sums of blocks that a piece has the beginning of, by the offset at which the piece ends: of a file's last
        #: block, that is all there is.
        self._short: dict[int, bytes] = {}

    def add(self, offset: int, data: memoryview) -> None:
        """*data* is what lies at *offset*.  Releases the GIL."""
        end = offset + len(data)
        last = end // BLOCK_BYTES
        for index in range(-(-offset // BLOCK_BYTES), last):
            start = index * BLOCK_BYTES - offset
            self._found[index] = self._digest(data[start : start + BLOCK_BYTES])
        if last * BLOCK_BYTES >= offset and end % BLOCK_BYTES:
            self._short[end] = self._digest(data[last * BLOCK_BYTES - offset :])

    def end(self, fd: int) -> Content:
        """All has been written to the file *fd*, of which blocks that came in parts are read; OSError."""
        n_bytes = os.fstat(fd).st_size
        if n_bytes % BLOCK_BYTES and n_bytes in self._short:
            self._found[n_bytes // BLOCK_BYTES] = self._short[n_bytes]
        for index in range(n_blocks(n_bytes)):
            if index not in self._found:
                self._found[index] = self._digest(os.pread(fd, BLOCK_BYTES, index * BLOCK_BYTES))
        return Content(n_bytes, b"".join([self._found[index] for index in range(n_blocks(n_bytes))]))


class Summing:
    """The sums of what is written, piece by piece."""

    def __init__(self) -> None:
        self._new = load_module("xxhash").xxh3_64
        self._work = self._new()
        self._found = bytearray()
        self._n_bytes = 0

    def add(self, data: bytes | memoryview) -> None:
        """Count *data*, which is written next, behind all that came before."""
        view = memoryview(data).cast("B")
        while view.nbytes:
            piece = view[: BLOCK_BYTES - self._n_bytes % BLOCK_BYTES]
            self._work.update(piece)
            self._n_bytes += len(piece)
            if self._n_bytes % BLOCK_BYTES == 0:
                self._end_block()
            view = view[len(piece) :]

    def _end_block(self) -> None:
        self._found += self._work.digest()
        self._work = self._new()

    def end(self) -> Content:
        """The length and the sums of all that was added; nothing may be added afterwards."""
        if self._n_bytes % BLOCK_BYTES:
            self._end_block()
        return Content(self._n_bytes, bytes(self._found))


class Counting:
    """As ``Summing``, but of the length alone."""

    def __init__(self) -> None:
        self._n_bytes = 0

    def add(self, data: bytes | memoryview) -> None:
        """Count *data*, of which nothing else is looked at."""
        self._n_bytes += memoryview(data).nbytes

    def end(self) -> Content:
        """The length of all that was added."""
        return Content(self._n_bytes)


def is_right(content: Content, index: int, block: memoryview | bytes | bytearray) -> bool:
    """Whether *block* is what block *index* of that file was."""
    if content.sums is None:
        return True
    wanted = content.sums[index * _SUM_BYTES : (index + 1) * _SUM_BYTES]
    return bool(load_module("xxhash").xxh3_64_digest(block) == wanted)
