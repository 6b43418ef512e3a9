"""A store in memory: for tests, and the shortest example of a store that is no directory."""

from __future__ import annotations

import _thread
import io
from collections.abc import Sequence

from torpor.base.typed import BinaryIO
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.store import ImageStore, check_name
from torpor.images.stores.base import BaseStore


class _Growing(io.BytesIO):
    """A file that becomes an image when it is closed."""

    def __init__(self, store: MemStore, name: str) -> None:
        super().__init__()
        self._store = store
        self._name = name

    def close(self) -> None:
        if not self.closed:
            self._store.images[self._name] = bytearray(self.getbuffer())
        super().close()


class MemPagesReader:
    """PagesReader of the bytes of an image in memory."""

    def __init__(self, data: bytearray, name: str) -> None:
        self._data = data
        self._name = name
        self.size = len(data)

    def read_at(self, offset: int, into: memoryview) -> None:
        view = into.cast("B")
        piece = memoryview(self._data)[offset : offset + len(view)]
        if offset < 0 or len(piece) < len(view):
            raise ImageError(f"{self._name}: truncated: {len(view)} bytes wanted at byte {offset}")
        view[:] = piece

    def close(self) -> None:
        pass


class MemPagesWriter:
    """PagesWriter into the bytes of an image in memory."""

    supports_write_at = True

    def __init__(self, data: bytearray) -> None:
        self._data = data
        self._lock = _thread.allocate_lock()

    def reserve(self, n_bytes: int) -> int:
        with self._lock:
            offset = len(self._data)
            self._data.extend(bytes(n_bytes))
        return offset

    def write_at(self, offset: int, buffers: Sequence[memoryview]) -> None:
        with self._lock:
            for view in buffers:
                self._data[offset : offset + view.nbytes] = view.cast("B")
                offset += view.nbytes

    def append(self, buffers: Sequence[memoryview]) -> None:
        self.write_at(self.reserve(sum(view.nbytes for view in buffers)), buffers)

    def close(self) -> None:
        pass


class MemStore(BaseStore):
    """ImageStore over a dictionary of byte arrays."""

    path = "memory"

    def __init__(self, parent: ImageStore | None = None) -> None:
        self.images: dict[str, bytearray] = {}
        self._parent = parent

    def names(self) -> list[str]:
        return sorted(self.images)

    def exists(self, name: str) -> bool:
        return check_name(name) in self.images

    def _image(self, name: str) -> bytearray:
        try:
            return self.images[check_name(name)]
        except KeyError:
            raise ImageMissing(f"{name}: no such image") from None

    def open_read(self, name: str) -> BinaryIO:
        return io.BytesIO(self._image(name))

    def open_write(self, name: str) -> BinaryIO:
        return _Growing(self, check_name(name))

    def pages_reader(self, name: str) -> MemPagesReader:
        return MemPagesReader(self._image(name), name)

    def pages_writer(self, name: str, n_bytes: int | None = None) -> MemPagesWriter:
        data = self.images[check_name(name)] = bytearray()
        return MemPagesWriter(data)

    def delete(self, name: str) -> None:
        self._image(name)
        del self.images[name]

    def parent(self) -> ImageStore | None:
        return self._parent
