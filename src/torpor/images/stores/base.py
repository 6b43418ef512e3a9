"""What stores have in common: one that knows nothing of a set, and is for reading only."""

from __future__ import annotations

import io

from torpor.base.fds import Closing
from torpor.base.typed import TYPE_CHECKING, BinaryIO, NoReturn
from torpor.images.errors import StoreError
from torpor.images.store import ImageStore, PagesReader, PagesWriter, check_name

if TYPE_CHECKING:
    from torpor.images.manifest import Manifest

#: What the name of a compressed image ends with, behind its own.
COMPRESSED = ".zst"


class BaseStore(Closing):
    """What of ImageStore most have."""

    path = "images"

    @property
    def manifest(self) -> Manifest | None:
        return None

    @property
    def size_bytes(self: ImageStore) -> int:
        return sum(self.size_of(name) for name in self.names())

    def exists(self: ImageStore, name: str) -> bool:
        return check_name(name) in self.names()

    def size_of(self: ImageStore, name: str) -> int:
        reader = self.pages_reader(name)
        try:
            return reader.size
        finally:
            reader.close()

    def fault_of(self, name: str) -> str:
        return ""

    def open_write(self, name: str) -> BinaryIO:
        self._refuse_writing(name)

    def put(self, name: str, data: bytes) -> None:
        with self.open_write(name) as stream:
            stream.write(data)

    def pages_writer(self, name: str, n_bytes: int | None = None) -> PagesWriter:
        self._refuse_writing(name)

    def delete(self, name: str) -> None:
        self._refuse_writing(name)

    def _refuse_writing(self, name: str) -> NoReturn:
        raise StoreError(f"{check_name(name)}: the set in {self.path} is open for reading only")

    def parent(self) -> ImageStore | None:
        return None

    def commit(self, made: Manifest | None = None) -> None:
        pass


class PagesStream(io.RawIOBase):
    """A raw image as a file; the reader becomes its own."""

    def __init__(self, reader: PagesReader) -> None:
        super().__init__()
        self._reader = reader
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._reader.size}[whence])
        return self._at

    def readinto(self, into: memoryview, /) -> int:  # type: ignore[override]
        view = memoryview(into).cast("B")
        view = view[: max(0, self._reader.size - self._at)]
        if view:
            self._reader.read_at(self._at, view)
            self._at += len(view)
        return len(view)

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()
