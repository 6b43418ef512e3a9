"""Which store a place is: here alone a store is made of a path."""

from __future__ import annotations

import os

from torpor.base.typed import Literal
from torpor.images.store import ImageStore
from torpor.images.stores.directory import DirStore

#: Where images are: a path, or a store that somebody has made.
Location = str | os.PathLike[str] | ImageStore


def open_store(place: str | os.PathLike[str], mode: Literal["r", "w"] = "r") -> ImageStore:
    """The store at *place*; ImageMissing, ImageError, StoreError."""
    return open_directory(place, mode)


def open_directory(place: str | os.PathLike[str] | int, mode: Literal["r", "w"] = "r", path: str = "") -> DirStore:
    """The same for what is known to be a directory: its path, or a descriptor that stays the caller's and the *path*
    by which messages name it.
    """
    if isinstance(place, int):
        return DirStore.from_fd(place, mode, path or "images directory")
    return DirStore(place, mode)
