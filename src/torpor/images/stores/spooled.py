"""A set of images that came as one archive, by a pipe or in a file: read once, from the beginning to its end.

Small images stay in memory, as far as that is little; all else waits in a file without a name, which is gone with us.
The archive may be a stranger's: a size that it says is believed as far as there is room for it, a name if an image may
have it, and an archive that has no end is none.
"""

from __future__ import annotations

import io
import os
import tempfile
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from torpor.base.fds import Closing
from torpor.base.typed import BinaryIO, Protocol, cast
from torpor.images import kinds, pack
from torpor.images.errors import ImageError, ImageMissing, StoreError
from torpor.images.pagemap import Extent
from torpor.images.pages import Piece
from torpor.images.store import ImageStore, PagesReader, check_name
from torpor.images.stores.base import BaseStore, PagesStream
from torpor.images.stores.directory import DirPagesReader
from torpor.images.stores.memory import MemPagesReader
from torpor.images.tarstream import Content, Readable, decompressed, iter_members

_CHUNK = 1 << 20
_SMALL, _MAX_KEPT = 1 << 20, 64 << 20
_MAX_IMAGES = 1 << 18


class Spool(Closing):
    """A file without a name in *directory*, to which is appended as long as others have room there, too; or, with
    None, one in memory, to which *most* bytes are.

    ``give_back``, once it is set, is called with the descriptor, start and length of what has been read of images of
    pages and is not going to be read again.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, most: int = 0, *, opened: int = -1) -> None:
        """*opened*: a descriptor, which becomes ours, of such a file that somebody else has filled."""
        self._most = most
        #: (start, end) of what has gone elsewhere, and is not here; ascending.
        self._absent: list[tuple[int, int]] = []
        self.give_back: Callable[[int, int, int], None] | None = None
        if opened >= 0:
            self._file: BinaryIO = cast(BinaryIO, open(opened, "r+b", buffering=0))  # noqa: SIM115
            self._directory, self.size = "memory", os.fstat(opened).st_size
            return
        try:
            if directory is None:
                made = os.memfd_create("torpor-spool", os.MFD_CLOEXEC)
                self._file = cast(BinaryIO, open(made, "w+b", buffering=0))  # noqa: SIM115
            else:
                self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=directory, buffering=0))  # noqa: SIM115
        except OSError as error:
            raise StoreError(f"{directory or 'memory'}: cannot make a file: {error.strerror}") from error
        self._directory = os.fspath(directory or "memory")
        self.size = 0

    def check_room(self, name: str, n_bytes: int) -> None:
        """StoreError where *n_bytes* do not fit in."""
        if self._most:
            left = self._most - self.size
        else:
            room = os.fstatvfs(self._file.fileno())
            left = room.f_bavail * room.f_frsize - pack.RESERVE
        if n_bytes > left:
            raise StoreError(
                f"no room in {self._directory} for {name} ({n_bytes} bytes)",
                hint="TORPOR_STATE names another place for it",
            )

    def warm_up(self, n_bytes: int) -> None:
        """Have so much memory at hand, if it is in memory: to find it takes longer than to write to it.  OSError."""
        if self._most:
            zeroes = bytes(_CHUNK)
            for at in range(self.size, min(self.size + n_bytes, self._most), _CHUNK):
                os.pwrite(self._file.fileno(), zeroes, at)

    def append(self, name: str, data: bytes | memoryview) -> None:
        """Write all of *data*, of the image *name*, at the end.  StoreError."""
        view = memoryview(data)
        while view:
            try:
                n_bytes = os.pwrite(self._file.fileno(), view, self.size)
            except OSError as error:
                raise StoreError(f"cannot keep {name} in {self._directory}: {error.strerror}") from error
            self.size += n_bytes
            view = view[n_bytes:]

    def leave_out(self, n_bytes: int) -> None:
        """What would be appended next has gone elsewhere: who reads it here is told so, until it is put back."""
        self._absent.append((self.size, self.size + n_bytes))
        self.size += n_bytes

    def put_back(self, start: int, data: memoryview) -> None:
        """What had been left out from *start* on.  StoreError."""
        end, at = start + data.nbytes, start
        while at < end:
            try:
                at += os.pwrite(self._file.fileno(), data[at - start :], at)
            except OSError as error:
                raise StoreError(f"cannot keep pages in {self._directory}: {error.strerror}") from error
        kept = []
        for first, last in self._absent:
            kept += [each for each in ((first, min(last, start)), (max(first, end), last)) if each[0] < each[1]]
        self._absent = kept

    def is_absent(self, start: int, n_bytes: int) -> bool:
        """Whether something of that is not here."""
        index = bisect_left(self._absent, (start + n_bytes, 0)) - 1
        return index >= 0 and self._absent[index][1] > start

    def reader(self, name: str) -> DirPagesReader:
        """Of all that is in it."""
        return DirPagesReader(os.dup(self._file.fileno()), name)

    def was_read(self, start: int, n_bytes: int) -> None:
        """So much from *start* has been."""
        if self.give_back is not None:
            self.give_back(self._file.fileno(), start, n_bytes)

    def fileno(self) -> int:
        """The descriptor of the file, which stays the spool's."""
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


class Part:
    """PagesReader of *size* bytes from *start* of a spool."""

    def __init__(self, spool: Spool, name: str, start: int, size: int) -> None:
        self._spool, self._reader = spool, spool.reader(name)
        self._name, self._start = name, start
        self._is_pages = kinds.PAGES.parse_file_name(name) is not None
        self.size = size

    def read_at(self, offset: int, into: memoryview) -> None:
        if offset < 0 or offset + into.nbytes > self.size:
            raise ImageError(f"{self._name}: truncated: {into.nbytes} bytes wanted at byte {offset} of {self.size}")
        if self._spool.is_absent(self._start + offset, into.nbytes):
            raise StoreError(f"{self._name}: what is wanted at byte {offset} has gone to where it belongs")
        self._reader.read_at(self._start + offset, into)
        if self._is_pages:
            self._spool.was_read(self._start + offset, into.nbytes)

    def is_absent(self, offset: int, n_bytes: int) -> bool:
        """Whether some of that has been left out."""
        return self._spool.is_absent(self._start + offset, n_bytes)

    def put_back(self, offset: int, data: memoryview) -> None:
        """What had been left out from there on.  StoreError."""
        self._spool.put_back(self._start + offset, data)

    def close(self) -> None:
        self._reader.close()


class PlacedStore(BaseStore):
    """ImageStore, for reading, of images that lie in a spool, which is ours, at *places* (start and length).

    *parent*, the set before this one, stays the caller's.
    """

    def __init__(
        self, path: str, spool: Spool, places: dict[str, tuple[int, int]], *, parent: ImageStore | None = None
    ) -> None:
        self.path = path
        self._parent = parent
        self._spool = spool
        self._kept: dict[str, bytes] = {}
        self._places = places

    def parent(self) -> ImageStore | None:
        return self._parent

    @property
    def n_spooled(self) -> int:
        """How many bytes of large images there are, here or where they belong."""
        return self._spool.size

    def fileno(self) -> int:
        """Of the file in which large images wait: a process that reads them needs it."""
        return self._spool.fileno()

    def read_once(self, give_back: Callable[[int, int, int], None]) -> None:
        """From now on all that is read of images of pages, here and in the parents, is read for the last time."""
        self._spool.give_back = give_back
        if isinstance(self._parent, PlacedStore):
            self._parent.read_once(give_back)

    def names(self) -> list[str]:
        return sorted({*self._kept, *self._places})

    def exists(self, name: str) -> bool:
        return check_name(name) in self._kept or name in self._places

    def pages_reader(self, name: str) -> PagesReader:
        if not self.exists(name):
            raise ImageMissing(f"{name}: there is none in {self.path}")
        if name in self._kept:
            return MemPagesReader(bytearray(self._kept[name]), name)
        return Part(self._spool, name, *self._places[name])

    def open_read(self, name: str) -> BinaryIO:
        if check_name(name) in self._kept:
            return io.BytesIO(self._kept[name])
        return cast(BinaryIO, io.BufferedReader(PagesStream(self.pages_reader(name)), _CHUNK))

    def close(self) -> None:
        self._spool.close()


class Placing(Protocol):
    """Who takes pages as they come, to where they belong."""

    def wanted(self, store: PlacedStore, name: str) -> Sequence[Extent]:
        """Which pages of the image *name* are, and where: (start, end, offset in the image), by offset.

        All images that have come before it are in *store*, where its reader is a ``Part`` without those pages.
        ImageError.
        """

    def put(self, pieces: Sequence[Piece], data: memoryview) -> None:
        """The bytes of some pieces (start, length) of these pages, as much of them as has come.  OSError."""


def _together(wanted: Iterable[Extent]) -> Iterator[tuple[int, deque[Piece]]]:
    """What of it lies together in the image: its offset there, and the pieces."""
    pieces: deque[Piece] = deque()
    first = last = 0
    for start, end, offset in wanted:
        if pieces and offset != last:
            yield first, pieces
            pieces = deque()
        if not pieces:
            first = offset
        pieces.append((start, end - start))
        last = offset + end - start
    if pieces:
        yield first, pieces


def _cut_off(pieces: deque[Piece], n_bytes: int) -> list[Piece]:
    """The first *n_bytes* of the *pieces*, which they have no more."""
    found = []
    while n_bytes:
        start, length = pieces.popleft()
        if length > n_bytes:
            pieces.appendleft((start + n_bytes, length - n_bytes))
            length = n_bytes
        found.append((start, length))
        n_bytes -= length
    return found


class SpooledStore(PlacedStore):
    """ImageStore, for reading, of the archive that *stream* gives, whatever it is compressed with.

    *spool* becomes ours; *parent*, the set before this one, stays the caller's.  ImageError for what is no archive of
    images, StoreError where there is no room.  *placing* is asked for pages that need not be kept.
    """

    def __init__(
        self,
        stream: Readable,
        path: str,
        spool: Spool,
        *,
        parent: ImageStore | None = None,
        placing: Placing | None = None,
    ) -> None:
        super().__init__(path, spool, {}, parent=parent)
        self._n_kept, self._placing = 0, placing
        try:
            with decompressed(stream) as (plain, _):
                for member, content in iter_members(plain):
                    name = pack.image_name(path, member)
                    if name is not None:
                        self._take(name, content)
                pack.read_to_end(plain)
        except ImageError as error:
            spool.close()
            raise pack.named(path, error) from None
        except BaseException:
            spool.close()
            raise

    def _take(self, name: str, content: Content) -> None:
        if name in self._kept or name in self._places:
            raise ImageError(f"{name} is there twice")
        if len(self._kept) + len(self._places) >= _MAX_IMAGES:
            raise ImageError(f"more than {_MAX_IMAGES} files are not believed")
        n_bytes = content.left
        if n_bytes <= _SMALL and self._n_kept + n_bytes <= _MAX_KEPT:
            parts = []
            while content.left:
                parts.append(content.read(content.left))
            self._kept[name] = b"".join(parts)
            self._n_kept += n_bytes
            return
        self._spool.check_room(name, n_bytes)
        start = self._spool.size
        self._places[name] = (start, n_bytes)
        if self._placing is not None:
            for offset, pieces in _together(self._placing.wanted(self, name)):
                self._keep(name, content, offset - (self._spool.size - start))
                self._place(self._placing, content, pieces)
        self._keep(name, content, content.left)

    def _keep(self, name: str, content: Content, n_bytes: int) -> None:
        """What comes next goes into the spool."""
        until = content.left - n_bytes
        while content.left > until:
            self._spool.append(name, content.view(min(_CHUNK, content.left - until)))

    def _place(self, placing: Placing, content: Content, pieces: deque[Piece]) -> None:
        """What comes next goes to these pieces, and not into the spool."""
        left = sum(length for _, length in pieces)
        self._spool.leave_out(left)
        while left:
            data = content.view(min(_CHUNK, left))
            left -= len(data)
            placing.put(_cut_off(pieces, len(data)), memoryview(data))

    def hand_over(self) -> tuple[int, dict[str, tuple[int, int]]]:
        """The descriptor of the spool, in which all images lie then, and where: of them another process can make a
        ``PlacedStore``.
        """
        for name, data in self._kept.items():
            self._spool.check_room(name, len(data))
            self._places[name] = (self._spool.size, len(data))
            self._spool.append(name, data)
        self._kept.clear()
        return self._spool.fileno(), self._places
