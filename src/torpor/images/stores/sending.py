"""What stores that send images away have in common: nothing is read back, and nothing is sent twice.

An image that is sent in one piece waits until it is whole; the inventory, by which a set is told from the rest of one,
waits for the commit.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from typing import BinaryIO, cast

from torpor.base.records import replace
from torpor.base.typed import NoReturn
from torpor.images import kinds, manifest
from torpor.images.errors import ImageMissing, StoreError
from torpor.images.manifest import Content, Manifest, Summing
from torpor.images.store import PagesReader, check_name
from torpor.images.stores.base import BaseStore

INVENTORY = kinds.INVENTORY.file_name()
_IN_MEMORY = 1 << 20


class KeptImage(io.RawIOBase):
    """An image of *store*, which takes it when it is closed."""

    def __init__(self, store: SendingStore, name: str) -> None:
        super().__init__()
        self._store, self._name = store, name
        self._kept = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=store.spool)  # noqa: SIM115 - closed when it is sent

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        try:
            return self._kept.write(data)
        except OSError as error:
            raise StoreError(f"{self._name}: cannot keep it until it is whole: {error.strerror}") from error

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._kept.seek(offset, whence)
        return self._kept.tell()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._store.add(self._name, cast("BinaryIO", self._kept))


class KeptPages:
    """PagesWriter of an image whose length is known when it is closed."""

    supports_write_at = False

    def __init__(self, image: KeptImage, name: str) -> None:
        self._image, self._name = image, name

    def append(self, buffers: Sequence[memoryview]) -> None:
        for view in buffers:
            self._image.write(view)  # type: ignore[arg-type]

    def reserve(self, n_bytes: int) -> int:
        raise StoreError(f"{self._name}: a stream is written in order")

    def write_at(self, offset: int, buffers: Sequence[memoryview]) -> None:
        raise StoreError(f"{self._name}: a stream is written in order")

    def close(self) -> None:
        self._image.close()


class SendingStore(BaseStore):
    """ImageStore, for writing, whose images go away; who makes one of it says how (``send``, ``pages_writer``).

    *spool*: a directory for images that wait.
    """

    def __init__(self, path: str, spool: str | None = None) -> None:
        self.path, self.spool = path, spool
        #: Of the images that have gone out, or are about to.
        self.sent: dict[str, Content] = {}
        self._inventory: BinaryIO | None = None
        self._is_committed = False

    def send(self, name: str, kept: BinaryIO) -> None:
        """Send a whole image, which is read from where it stands; *kept* stays the caller's.  StoreError."""
        raise NotImplementedError

    def add(self, name: str, kept: BinaryIO) -> None:
        """The whole image *name*, which becomes ours."""
        if name == INVENTORY:
            self._inventory = kept
            return
        with kept:
            kept.seek(0)
            self.send(name, kept)

    @property
    def size_bytes(self) -> int:
        return sum(content.n_bytes for content in self.sent.values())

    def names(self) -> list[str]:
        return sorted({*self.sent, *([INVENTORY] if self._inventory else [])})

    def exists(self, name: str) -> bool:
        return check_name(name) in self.sent or name in self.names()

    def size_of(self, name: str) -> int:
        if name not in self.sent:
            raise ImageMissing(f"{check_name(name)}: has not been sent")
        return self.sent[name].n_bytes

    def open_read(self, name: str) -> BinaryIO:
        self._refuse_reading(name)

    def pages_reader(self, name: str) -> PagesReader:
        self._refuse_reading(name)

    def _refuse_reading(self, name: str) -> NoReturn:
        raise StoreError(f"{check_name(name)}: a stream is not read back")

    def open_write(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self.keep(name))

    def keep(self, name: str) -> KeptImage:
        """A new image that waits until it is whole."""
        self.refuse_again(name)
        return KeptImage(self, name)

    def refuse_again(self, name: str) -> None:
        """StoreError for an image that has gone."""
        if self.exists(name) or self._is_committed:
            raise StoreError(f"{name}: has been sent, or the stream has ended")

    def delete(self, name: str) -> None:
        if self.exists(name):
            raise StoreError(f"{name}: has been sent")
        raise ImageMissing(f"{name}: has not been sent")

    def send_last(self, made: Manifest | None) -> None:
        """The manifest and the inventory, which end a set; StoreError where there is none."""
        if self._inventory is None:
            raise StoreError(f"{self.path}: not all of it has been written")
        sums = Summing()
        self._inventory.seek(0)
        sums.add(self._inventory.read())
        if made is not None:
            files = {**self.sent, INVENTORY: sums.end()}
            self.send(manifest.NAME, io.BytesIO(manifest.encode(replace(made, files=files))))
        self._inventory.seek(0)
        self.send(INVENTORY, self._inventory)
        self._is_committed = True

    def close(self) -> None:
        if self._inventory is not None:
            self._inventory.close()
