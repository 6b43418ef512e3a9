"""tar archives from somebody else, read once from the beginning to the end, and never unpacked.

:mod:`tarfile` reads extended headers of any size into memory; here a lie about a size costs nothing.  ustar, GNU long
names and pax paths and sizes are understood, which is what the archive writers of engines use.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, cast

from torpor.base.fds import only_files
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.zstd import ZstdReader

_BLOCK = 512
_CHUNK = 1 << 17
_MAX_HEADER = 1 << 20
_MAX_MEMBERS = 1 << 20
_MAX_SIZE = 1 << 50
#: What `xz -9` needs is half of it.
_MAX_XZ = 128 << 20
#: PATH_MAX: no file can have a longer name.  A number in an extended header, which has up to 20 digits.
_MAX_NAME, _MAX_DIGITS = 4096, 20
#: Of the year 6325; what is later is no time.
_MAX_TIME = 1 << 37
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"5": "directory", b"1": "link", b"2": "symlink"}


T = TypeVar("T", bytes, bytes | memoryview)
#: What readers of compressed streams raise.
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)


class Readable(Protocol):
    """A stream of which only the next bytes can be had.

    One may have ``view`` as well, which gives what is good only until more is read, and is not copied for that.
    """

    def read(self, n_bytes: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """One entry.  ``name`` is as the archive has it: it may lead anywhere.  ``kind``: file, directory, link, ..."""

    name: str
    kind: str
    size: int
    mtime: int

    @property
    def place(self) -> str | None:
        """The name below the archive's top, without ``./``; None where it leads out of it."""
        parts = [part for part in self.name.split("/") if part not in ("", ".")]
        if self.name.startswith("/") or ".." in parts or "\0" in self.name:
            return None
        return "/".join(parts)


class Content:
    """What one member holds; whoever is not interested reads nothing."""

    def __init__(self, source: _Source, size: int) -> None:
        self._source = source
        self.left = size

    def read(self, n_bytes: int, /) -> bytes:
        """Up to *n_bytes*, none at its end."""
        if not self.left:
            return b""
        data = self._source.some(min(n_bytes, self.left))
        self.left -= len(data)
        return data

    def view(self, n_bytes: int, /) -> bytes | memoryview:
        """As ``read``, but good only until more is read, of a stream that gives views of what it has."""
        if not self.left:
            return b""
        data = self._source.some_view(min(n_bytes, self.left))
        self.left -= len(data)
        return data

    def skip(self, n_bytes: int | None = None) -> None:
        """Pass over *n_bytes*, or all that is left."""
        until = self.left - min(self.left, n_bytes) if n_bytes is not None else 0
        while self.left > until:
            self.view(min(_CHUNK, self.left - until))


class _Source:
    """Exact reads."""

    def __init__(self, stream: Readable) -> None:
        self._read = stream.read
        self._view: Callable[[int], bytes | memoryview] = getattr(stream, "view", stream.read)
        self.n_read = 0

    def some(self, n_bytes: int) -> bytes:
        """One to *n_bytes* bytes."""
        return self._some(self._read, n_bytes)

    def some_view(self, n_bytes: int) -> bytes | memoryview:
        """The same, good only until more is read."""
        return self._some(self._view, n_bytes)

    def _some(self, read: Callable[[int], T], n_bytes: int) -> T:
        try:
            data = read(n_bytes)
        except DAMAGE as error:
            raise ImageError(f"damaged, or cut off: {error}") from None
        if not data:
            raise ImageError(f"cut off after {self.n_read} bytes")
        self.n_read += len(data)
        return data

    def exactly(self, n_bytes: int) -> bytes:
        data = self.some(n_bytes)
        while len(data) < n_bytes:
            data += self.some(n_bytes - len(data))
        return data


def iter_members(stream: Readable) -> Iterator[tuple[Member, Content]]:
    """Each member with its content, which must be read before the next is asked for.  ImageError for what is no tar."""
    source = _Source(stream)
    extended: dict[str, str] = {}
    for _ in range(_MAX_MEMBERS):
        block = source.exactly(_BLOCK)
        if not any(block):
            return
        flag, member = _parse(block)
        content = Content(source, member.size)
        if flag in (b"L", b"K", b"x", b"g"):
            extended |= _extended(flag, content)
        else:
            size = extended.get("size", "")
            name = extended.get("path", member.name)
            if size:
                member = Member(name, member.kind, _believed(_decimal(size.encode(errors="replace"))), member.mtime)
                content = Content(source, member.size)
            else:
                member = Member(name, member.kind, member.size, member.mtime)
            extended = {}
            yield member, content
        n_bytes = member.size
        content.skip()
        if n_bytes % _BLOCK:
            source.exactly(_BLOCK - n_bytes % _BLOCK)
    raise ImageError(f"more than {_MAX_MEMBERS} entries")


def _parse(block: bytes) -> tuple[bytes, Member]:
    """The type flag, and the member as far as this header tells."""
    told = _number(block[148:156])
    if told != sum(block[:148]) + 8 * 32 + sum(block[156:]):
        raise ImageError("not a tar archive: a header's checksum is wrong")
    flag = block[156:157]
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    if flag == b"S":
        raise ImageError(f"{name}: sparse entries are not understood")
    kind = _KINDS.get(flag, "special")
    size = _believed(_number(block[124:136]))
    mtime = _number(block[136:148])
    # Headers alone: a hard link's size is that of what it links to.
    size = 0 if kind in ("link", "symlink", "directory") else size
    return flag, Member(name, kind, size, mtime if 0 <= mtime < _MAX_TIME else 0)


def _believed(size: int) -> int:
    if not 0 <= size <= _MAX_SIZE:
        raise ImageError(f"an entry of {size} bytes is not believed")
    return size


def _decimal(text: bytes) -> int:
    """What decimal digits say."""
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise ImageError("a number in an extended header is none")
    return int(text)


def _number(field: bytes) -> int:
    """Octal text, or GNU's binary form."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.strip(b" \0")
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise ImageError("not a tar archive: a number in a header is none") from None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _extended(flag: bytes, content: Content) -> dict[str, str]:
    """What an extended header says of the member that follows it."""
    if content.left > _MAX_HEADER:
        raise ImageError(f"an extended header of {content.left} bytes is not believed")
    data = b""
    while content.left:
        data += content.read(content.left)
    if flag == b"L":
        return {"path": _name(_text(data))}
    if flag != b"x":
        return {}
    found = {}
    at = 0
    while at < len(data):
        digits = data[at : at + _MAX_DIGITS + 1].partition(b" ")[0]
        length = _decimal(digits)
        if not len(digits) < length <= len(data) - at:
            raise ImageError("a damaged extended header")
        key, _, value = data[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = _name(value.decode(errors="surrogateescape"))
        at += length
    return found


def _name(text: str) -> str:
    if len(text) > _MAX_NAME:
        raise ImageError(f"a name of {len(text)} characters is not believed")
    return text


@contextmanager
def open_compressed(path: Path) -> Iterator[tuple[Readable, str]]:
    """What *path* holds, whatever it is compressed with, and the name of that.  ImageMissing, ImageError."""
    try:
        file = open(path, "rb", opener=only_files)  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise ImageMissing(f"there is no {path}") from None
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    with file, decompressed(file) as found:
        yield found


@contextmanager
def decompressed(stream: Readable) -> Iterator[tuple[Readable, str]]:
    """What a stream holds, whatever it is compressed with, and the name of that."""
    whole = _Pushback(stream)
    begin = whole.begin
    if begin.startswith(b"\x28\xb5\x2f\xfd"):
        reader = ZstdReader(whole)
        try:
            yield reader, "zstd"
        finally:
            reader.close()
    elif begin.startswith(b"\x04\x22\x4d\x18"):
        from torpor.images.lz4 import Lz4Reader

        yield Lz4Reader(whole), "lz4"
    elif begin.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=whole, mode="rb") as unzipped:
            yield unzipped, "gzip"
    elif begin.startswith(b"\xfd7zXZ\0"):
        yield _XzReader(whole), "xz"
    elif begin.startswith(b"BZh"):
        with bz2.BZ2File(cast("BinaryIO", whole)) as unbzipped:
            yield unbzipped, "bzip2"
    else:
        yield whole, "none"


class _XzReader:
    """What a stream of xz holds.  Memory is bounded, which of :class:`lzma.LZMAFile` (up to 4 GiB) it is not."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._work: lzma.LZMADecompressor | None = None
        self._rest = b""

    def read(self, n_bytes: int, /) -> bytes:
        """Up to *n_bytes*; none at the end.  LZMAError, EOFError."""
        while True:
            if self._work is None:
                found = self._rest or self._stream.read(_CHUNK)
                if not found:
                    return b""
                self._rest = found.lstrip(b"\0")  # padding, between streams and behind the last
                if not self._rest:
                    continue
                self._work = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ)
            if self._work.needs_input and not self._rest:
                self._rest = self._stream.read(_CHUNK)
                if not self._rest:
                    raise EOFError("the xz stream is cut off")
            data, self._rest = self._work.decompress(self._rest, n_bytes), b""
            if self._work.eof:
                self._rest, self._work = self._work.unused_data, None
            if data:
                return data


class _Pushback:
    """A stream whose first bytes have been looked at."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.begin = self._left = stream.read(8)

    def view(self, n_bytes: int, /) -> bytes | memoryview:
        if self._left:
            return self.read(n_bytes)
        view: Callable[[int], bytes | memoryview] = getattr(self._stream, "view", self._stream.read)
        return view(n_bytes)

    def read(self, n_bytes: int = -1, /) -> bytes:
        if self._left:
            data, self._left = (self._left, b"") if n_bytes < 0 else (self._left[:n_bytes], self._left[n_bytes:])
            return data
        return self._stream.read(n_bytes)

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("this stream has no places")
