"""A store over another one whose pages are compressed, and read at any place without what lies before it.

``pages-N.img`` is ``pages-N.img.zst`` there: frames of zstd, each of which can be read alone, and behind them one that
readers of zstd skip and that says how long each is, before and after (the seekable format of zstd's contrib).  So
``zstd -d`` makes the image of it.  Whatever else there is stays as it is; what lies uncompressed is read as well.

What a table says is a stranger's: a block that it calls longer than blocks are is refused, and what comes out of one is
as long as it says, or damaged.
"""

from __future__ import annotations

import _thread
import io
import struct
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from torpor.base.typed import TYPE_CHECKING, BinaryIO, cast
from torpor.images import zstd
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.store import ImageStore, PagesReader, PagesWriter, check_name
from torpor.images.stores.base import COMPRESSED, BaseStore, PagesStream

if TYPE_CHECKING:
    from torpor.images.manifest import Manifest

#: How much is compressed at once, and so read at once: as much as a dump copies in one piece.
_BLOCK = 1 << 19
#: The largest block that is read, in bytes: other programs make larger ones than we.
_MAX_BLOCK = 16 << 20
_N_CACHED = 4

#: zstd_seekable_compression_format.md: a skippable frame's head, an entry of the table, and what ends it.
_HEAD, _ENTRY, _ENTRY_WITH_SUM, _FOOT = struct.Struct("<II"), struct.Struct("<II"), struct.Struct("<II4x"), "<IBI"
_SKIPPABLE, _SEEKABLE = 0x184D2A5E, 0x8F92EAB1
_FOOT_BYTES = struct.calcsize(_FOOT)
_HAS_SUMS = 0x80


class ZstdPagesWriter:
    """PagesWriter that compresses whatever is written at once by whoever writes it, and puts it in order."""

    supports_write_at = True

    def __init__(self, below: PagesWriter) -> None:
        self._below = below
        self._lock = _thread.allocate_lock()
        self._tail = bytearray()
        self._end = self._done = 0
        #: Blocks that were compressed before those in front of them, by the offset at which they begin.
        self._early: dict[int, tuple[bytes, int]] = {}
        self._table: list[tuple[int, int]] = []

    def append(self, buffers: Sequence[memoryview]) -> None:
        for view in buffers:
            self._tail += view.cast("B")
            while len(self._tail) >= _BLOCK:
                self._put(self._take_tail(_BLOCK))

    def _take_tail(self, n_bytes: int) -> tuple[int, bytes]:
        data = bytes(self._tail[:n_bytes])
        del self._tail[:n_bytes]
        with self._lock:
            offset = self._end
            self._end += len(data)
        return offset, data

    def reserve(self, n_bytes: int) -> int:
        if self._tail:
            self._put(self._take_tail(_BLOCK))
        with self._lock:
            offset = self._end
            self._end += n_bytes
        return offset

    def write_at(self, offset: int, buffers: Sequence[memoryview]) -> None:
        data = b"".join(buffers)
        for at in range(0, len(data), _BLOCK):
            self._put((offset + at, data[at : at + _BLOCK]))

    def _put(self, block: tuple[int, bytes]) -> None:
        offset, data = block
        if not data:
            return
        frame = zstd.compress(data)
        with self._lock:
            self._early[offset] = (frame, len(data))
            while self._done in self._early:
                self._write(*self._early.pop(self._done))

    def _write(self, frame: bytes, n_bytes: int) -> None:
        self._below.append([memoryview(frame)])
        self._table.append((len(frame), n_bytes))
        self._done += n_bytes

    def close(self) -> None:
        if self._tail:
            self._put(self._take_tail(_BLOCK))
        while self._done < self._end:
            # Room that nobody has written to is of zeroes, as in a file.
            until = min((start for start in self._early), default=self._end)
            self._put((self._done, bytes(min(_BLOCK, until - self._done))))
        entries = b"".join(_ENTRY.pack(*entry) for entry in self._table)
        foot = struct.pack(_FOOT, len(self._table), 0, _SEEKABLE)
        self._below.append([memoryview(_HEAD.pack(_SKIPPABLE, len(entries) + len(foot)) + entries + foot)])
        self._below.close()


class ZstdPagesReader:
    """PagesReader of such an image; *below*, which becomes ours, reads it as it is.  ImageError for what is none."""

    def __init__(self, below: PagesReader, name: str) -> None:
        self._below, self._name = below, name
        try:
            packed, plain = self._read_table()
        except BaseException:
            below.close()
            raise
        #: Where each block begins, and behind the last.
        self._packed = array("Q", accumulate(packed, initial=0))
        self._plain = array("Q", accumulate(plain, initial=0))
        self.size = self._plain[-1]
        self._lock = _thread.allocate_lock()
        self._cached: dict[int, bytearray] = {}

    def _read_table(self) -> tuple[list[int], list[int]]:
        size = self._below.size
        n_blocks, flags, magic = struct.unpack(_FOOT, self._bytes(size - _FOOT_BYTES, _FOOT_BYTES))
        if magic != _SEEKABLE or flags & ~_HAS_SUMS:
            self._refuse("it has no table of its blocks")
        entry = _ENTRY_WITH_SUM if flags else _ENTRY
        n_bytes = n_blocks * entry.size + _FOOT_BYTES
        start = size - n_bytes - _HEAD.size
        if start < 0 or _HEAD.unpack(self._bytes(start, _HEAD.size)) != (_SKIPPABLE, n_bytes):
            self._refuse("the table of its blocks is not whole")
        found = list(entry.iter_unpack(self._bytes(start + _HEAD.size, n_bytes - _FOOT_BYTES)))
        packed, plain = [each[0] for each in found], [each[1] for each in found]
        if sum(packed) != start:
            self._refuse(f"its blocks are to be {sum(packed)} bytes, and are {start}")
        if max(plain, default=0) > _MAX_BLOCK or max(packed, default=0) > zstd.bound(_MAX_BLOCK):
            self._refuse(f"blocks of more than {_MAX_BLOCK} bytes are not believed")
        return packed, plain

    def _bytes(self, offset: int, n_bytes: int) -> bytes:
        if offset < 0:
            self._refuse("it is too short")
        piece = bytearray(n_bytes)
        self._below.read_at(offset, memoryview(piece))
        return bytes(piece)

    def _refuse(self, why: str) -> None:
        raise ImageError(f"{self._name}: damaged: {why}")

    def read_at(self, offset: int, into: memoryview) -> None:
        view = into.cast("B")
        end = offset + len(view)
        if offset < 0 or end > self.size:
            raise ImageError(f"{self._name}: truncated: {len(view)} bytes wanted at byte {offset} of {self.size}")
        index = bisect_right(self._plain, offset) - 1
        while offset < end:
            first, last = self._plain[index], self._plain[index + 1]
            until = min(last, end)
            piece = view[len(view) - (end - offset) : len(view) - (end - until)]
            if offset == first and until == last:
                self._unpack(index, piece)
            elif piece:
                piece[:] = memoryview(self._block(index))[offset - first : until - first]
            offset = until
            index += 1

    def _block(self, index: int) -> bytearray:
        with self._lock:
            found = self._cached.pop(index, None)
        if found is None:
            found = bytearray(self._plain[index + 1] - self._plain[index])
            self._unpack(index, memoryview(found))
        with self._lock:
            self._cached[index] = found
            while len(self._cached) > _N_CACHED:
                del self._cached[next(iter(self._cached))]
        return found

    def _unpack(self, index: int, into: memoryview) -> None:
        start = self._packed[index]
        frame = self._bytes(start, self._packed[index + 1] - start)
        if not zstd.decompress(frame, into):
            self._refuse(f"block {index}, at byte {start}, is not what it is to be")

    def close(self) -> None:
        self._below.close()


class ZstdStore(BaseStore):
    """ImageStore over *store*, which becomes ours unless it is *borrowed*."""

    def __init__(self, store: ImageStore, *, borrowed: bool = False) -> None:
        zstd.load_library()
        self._store, self._borrowed = store, borrowed
        self.path = store.path

    @property
    def manifest(self) -> Manifest | None:
        return self._store.manifest

    @property
    def size_bytes(self) -> int:
        return self._store.size_bytes

    def _is_packed(self, name: str) -> bool:
        return not self._store.exists(name) and self._store.exists(name + COMPRESSED)

    def _name_of(self, name: str) -> str:
        """What the image *name* is called below."""
        return name + COMPRESSED if self._is_packed(name) else name

    def names(self) -> list[str]:
        return sorted({name.removesuffix(COMPRESSED) for name in self._store.names()})

    def exists(self, name: str) -> bool:
        return self._store.exists(name) or self._store.exists(name + COMPRESSED)

    def fault_of(self, name: str) -> str:
        return self._store.fault_of(self._name_of(name))

    def open_read(self, name: str) -> BinaryIO:
        if not self._is_packed(name):
            return self._store.open_read(name)
        return cast(BinaryIO, io.BufferedReader(PagesStream(self.pages_reader(name)), _BLOCK))

    def pages_reader(self, name: str) -> PagesReader:
        if not self._is_packed(name):
            return self._store.pages_reader(name)
        return ZstdPagesReader(self._store.pages_reader(name + COMPRESSED), name)

    def open_write(self, name: str) -> BinaryIO:
        self._drop(name + COMPRESSED)
        return self._store.open_write(name)

    def pages_writer(self, name: str, n_bytes: int | None = None) -> PagesWriter:
        self._drop(check_name(name))
        return ZstdPagesWriter(self._store.pages_writer(name + COMPRESSED))

    def _drop(self, name: str) -> None:
        if self._store.exists(name):
            self._store.delete(name)

    def delete(self, name: str) -> None:
        if not self.exists(name):
            raise ImageMissing(f"{name}: there is none in {self.path}")
        self._store.delete(self._name_of(name))

    def parent(self) -> ImageStore | None:
        found = self._store.parent()
        return None if found is None else ZstdStore(found)

    def commit(self, made: Manifest | None = None) -> None:
        self._store.commit(made)

    def close(self) -> None:
        if not self._borrowed:
            self._store.close()
