"""A new set of images in a store that is no directory of ours: a stream, memory, what somebody has opened."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from types import TracebackType

from torpor.base.typed import Self
from torpor.images import manifest
from torpor.images.errors import StoreError
from torpor.images.store import ImageStore, PagesWriter
from torpor.images.stores.opening import compressing


class StoreSet:
    """What NewSet is for a place, for *store*, which stays the caller's: what lies in it without a commit is no set."""

    def __init__(self, store: ImageStore, made_by: str = "", *, compress: bool = False) -> None:
        self.ident = os.urandom(10).hex()
        self.store = compressing(store, borrowed=True) if compress else store
        self._made_by = made_by
        self.is_sealed = False
        self.is_last = False
        self.has_pages = True

    #: The set lies in no directory.
    directory = ""

    @property
    def path(self) -> str:
        """How messages call it: there is nothing to be read by a path."""
        return self.store.path

    def sum_from_now_on(self) -> None:
        """A store that has sums makes them as it likes."""

    def seal(self) -> None:
        """All images are written, and the store has taken them.  StoreError."""
        from torpor import __version__

        made = manifest.made_here(self.ident, self._made_by, __version__, has_pages=self.has_pages)
        self.store.commit(made)
        self.is_sealed = True

    def pages_writer_over(self, room: int, name: str) -> PagesWriter | None:
        """None: no file becomes a part of a store."""

    def place(self) -> None:
        """Nothing: what the store has taken is where it is to be."""

    def finish(self) -> None:
        """Nothing: what the store has taken is where it is to be."""

    def amended(self) -> AbstractContextManager[ImageStore]:
        """StoreError: what has been given to a store stays as it is."""
        raise StoreError(f"{self.path}: nothing can be added to these images")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
