"""Errors of the image layer."""

from __future__ import annotations


class ImageError(Exception):
    """An image is damaged, missing, or does not hold what it must.

    The text names the file and, where known, the offset or entry; `hint` says what a user can do.
    """

    hint: str | None

    def __init__(self, text: str, *, hint: str | None = None) -> None:
        super().__init__(text)
        self.hint = hint


class ImageMissing(ImageError):
    """The store has no image of that name."""


class StoreError(ImageError):
    """The store itself failed: no space, no permission, a file that is not a plain file."""
