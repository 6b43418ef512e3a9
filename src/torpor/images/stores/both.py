"""A store that writes every image into two others: one that stays here, say, and one that leaves."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torpor.base.typed import TYPE_CHECKING, BinaryIO, cast
from torpor.images.errors import StoreError
from torpor.images.store import ImageStore, PagesReader, PagesWriter
from torpor.images.stores.base import BaseStore

if TYPE_CHECKING:
    from torpor.images.manifest import Manifest


class _Image(io.BytesIO):
    """An image that is written to both when it is closed."""

    def __init__(self, outs: tuple[BinaryIO, BinaryIO]) -> None:
        super().__init__()
        self._outs = outs

    def close(self) -> None:
        if self.closed:
            return
        data = self.getbuffer()
        try:
            for out in self._outs:
                with out:
                    out.write(data)
        finally:
            data.release()
            super().close()


class _Pages:
    """PagesWriter of both, in order."""

    supports_write_at = False

    def __init__(self, name: str, writers: tuple[PagesWriter, PagesWriter]) -> None:
        self._name, self._writers = name, writers

    def append(self, buffers: Sequence[memoryview]) -> None:
        for writer in self._writers:
            writer.append(buffers)

    def reserve(self, n_bytes: int) -> int:
        raise StoreError(f"{self._name}: two stores are written in order")

    def write_at(self, offset: int, buffers: Sequence[memoryview]) -> None:
        raise StoreError(f"{self._name}: two stores are written in order")

    def close(self) -> None:
        first, second = self._writers
        try:
            first.close()
        finally:
            second.close()


class BothStore(BaseStore):
    """ImageStore over *first*, which is also read, and *second*; both stay the caller's, who commits the second."""

    def __init__(self, first: ImageStore, second: ImageStore) -> None:
        self._first, self._second = first, second
        self.path = first.path
        self._told: set[str] = set()
        self._owed: list[str] | None = None

    def tell(self, name: str) -> BinaryIO:
        """An image that the second store is to have before the first: there it is not written again."""
        self._told.add(name)
        return self._second.open_write(name)

    @contextmanager
    def second_alone(self, owed: list[str]) -> Iterator[None]:
        """In the block images of pages go to the second store alone; *owed* gets the names of those."""
        self._owed = owed
        try:
            yield
        finally:
            self._owed = None

    def make_up(self, name: str) -> PagesWriter:
        """What writes an image of pages that the first store is owed."""
        return self._first.pages_writer(name)

    @property
    def manifest(self) -> Manifest | None:
        return self._first.manifest

    def names(self) -> list[str]:
        return self._first.names()

    def exists(self, name: str) -> bool:
        return self._first.exists(name)

    def size_of(self, name: str) -> int:
        return self._first.size_of(name)

    def open_read(self, name: str) -> BinaryIO:
        return self._first.open_read(name)

    def open_write(self, name: str) -> BinaryIO:
        if name in self._told:
            return self._first.open_write(name)
        return cast(BinaryIO, _Image((self._first.open_write(name), self._second.open_write(name))))

    def pages_reader(self, name: str) -> PagesReader:
        return self._first.pages_reader(name)

    def pages_writer(self, name: str, n_bytes: int | None = None) -> PagesWriter:
        if self._owed is not None:
            self._owed.append(name)
            return self._second.pages_writer(name, n_bytes)
        return _Pages(name, (self._first.pages_writer(name, n_bytes), self._second.pages_writer(name, n_bytes)))

    def delete(self, name: str) -> None:
        self._first.delete(name)
        self._second.delete(name)

    def parent(self) -> ImageStore | None:
        return self._first.parent()

    def commit(self, made: Manifest | None = None) -> None:
        """Commit the first store; the second one's commit is its owner's."""
        self._first.commit(made)

    def close(self) -> None:
        """Nothing: both are the caller's."""
