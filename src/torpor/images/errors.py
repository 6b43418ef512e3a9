"""Errors of the image layer."""

from __future__ import annotations

from torpor.base.errors import TorporError


class ImageError(TorporError):
    """An image is damaged, missing, or does not hold what it must.

    The text names the file and, where known, the offset or entry; ``hint`` says what a user can do.
    """


class ImageMissing(ImageError):
    """The store has no image of that name."""


class StoreError(ImageError):
    """The store itself failed: no space, no permission, a file that is not a plain file."""
