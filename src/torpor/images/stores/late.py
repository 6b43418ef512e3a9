"""A store over another one that keeps small images back until it is flushed.

For a dump that leaves the tree running: what it writes need not be written while the tree is stopped.  Large images
and pages go through at once.
"""

from __future__ import annotations

import io

from torpor.base.typed import TYPE_CHECKING, BinaryIO, cast
from torpor.images.errors import ImageMissing
from torpor.images.store import ImageStore, PagesReader, PagesWriter, check_name
from torpor.images.stores.base import BaseStore
from torpor.images.stores.memory import MemPagesReader

if TYPE_CHECKING:
    from torpor.images.manifest import Manifest

_SMALL = 1 << 20


class _Kept(io.BytesIO):
    """An image that is kept, or is written through from the moment at which it is no longer small."""

    def __init__(self, name: str, store: ImageStore, kept: dict[str, bytes]) -> None:
        super().__init__()
        self._name, self._store, self._kept = name, store, kept
        self._through: BinaryIO | None = None

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self._through is None:
            if self.tell() + len(data) <= _SMALL:
                return super().write(data)
            self._through = self._store.open_write(self._name)
            self._through.write(self.getvalue())
        return self._through.write(data)

    def close(self) -> None:
        if self.closed:
            return
        if self._through is not None:
            self._through.close()
        else:
            self._kept[self._name] = self.getvalue()
        super().close()


class LateStore(BaseStore):
    """ImageStore that writes small images when flushed; the store beneath stays the caller's."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._kept: dict[str, bytes] = {}
        self.path = store.path

    def flush(self) -> None:
        """Write what was kept back; StoreError."""
        for name, data in self._kept.items():
            self._store.put(name, data)
        self._kept.clear()

    def names(self) -> list[str]:
        return sorted({*self._store.names(), *self._kept})

    def exists(self, name: str) -> bool:
        return check_name(name) in self._kept or self._store.exists(name)

    def open_read(self, name: str) -> BinaryIO:
        return io.BytesIO(self._kept[name]) if name in self._kept else self._store.open_read(name)

    def open_write(self, name: str) -> BinaryIO:
        self._kept.pop(check_name(name), None)
        return cast(BinaryIO, _Kept(name, self._store, self._kept))

    def put(self, name: str, data: bytes) -> None:
        self._kept.pop(check_name(name), None)
        if len(data) <= _SMALL:
            self._kept[name] = data
        else:
            self._store.put(name, data)

    def pages_reader(self, name: str) -> PagesReader:
        if name in self._kept:
            return MemPagesReader(bytearray(self._kept[name]), name)
        return self._store.pages_reader(name)

    def pages_writer(self, name: str, n_bytes: int | None = None) -> PagesWriter:
        self._kept.pop(name, None)
        return self._store.pages_writer(name, n_bytes)

    def delete(self, name: str) -> None:
        was_kept = self._kept.pop(check_name(name), None) is not None
        try:
            self._store.delete(name)
        except ImageMissing:
            if not was_kept:
                raise

    def parent(self) -> ImageStore | None:
        return self._store.parent()

    def commit(self, made: Manifest | None = None) -> None:
        self.flush()
        self._store.commit(made)

    def close(self) -> None:
        """Nothing: what was not flushed is dropped."""
