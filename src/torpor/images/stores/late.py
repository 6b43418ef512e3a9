"""A store over another one that keeps small images back until it is flushed.

For a dump that leaves the tree running: what it writes need not be written while the tree is stopped.  Large images
and pages go through at once.
"""

from __future__ import annotations

import io

from torpor.base.fds import Closing
from torpor.base.typed import BinaryIO, cast
from torpor.images.store import ImageStore, PagesReader, PagesWriter, check_name

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


class LateStore(Closing):
    """ImageStore that writes small images when flushed; the store beneath stays the caller's."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._kept: dict[str, bytes] = {}

    def flush(self) -> None:
        """Write what was kept back; StoreError."""
        for name, data in self._kept.items():
            with self._store.open_write(name) as stream:
                stream.write(data)
        self._kept.clear()

    def names(self) -> list[str]:
        return sorted({*self._store.names(), *self._kept})

    def exists(self, name: str) -> bool:
        return name in self._kept or self._store.exists(name)

    def open_read(self, name: str) -> BinaryIO:
        return io.BytesIO(self._kept[name]) if name in self._kept else self._store.open_read(name)

    def open_write(self, name: str) -> BinaryIO:
        self._kept.pop(check_name(name), None)
        return cast(BinaryIO, _Kept(name, self._store, self._kept))

    def pages_reader(self, name: str) -> PagesReader:
        return self._store.pages_reader(name)

    def pages_writer(self, name: str) -> PagesWriter:
        return self._store.pages_writer(name)

    def parent(self) -> ImageStore | None:
        return self._store.parent()

    def sync(self) -> None:
        self.flush()
        self._store.sync()

    def close(self) -> None:
        """Nothing: what was not flushed is dropped."""
