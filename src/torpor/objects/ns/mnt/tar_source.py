"""A compressed tar archive of somebody else's, as :mod:`tarfile` may read it.

What stands before a file (its extended headers, the map of a sparse one) is read into memory as a whole, whatever its
length is.  Here that has a limit.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from torpor.base.typed import BinaryIO
from torpor.images.errors import ImageError

#: Of the headers of one file.
_MAX_HEADERS = 64 << 20


class Archive(tarfile.TarFile):
    """Of what is said of each file no more is believed than has a limit."""

    def __init__(self, source: Source) -> None:
        self.source = source
        super().__init__(fileobj=source, errorlevel=2)

    def next(self) -> tarfile.TarInfo | None:
        """The next file of it; None at the end.  ImageError where numbers are none, or headers have headers."""
        self.source.n_left = _MAX_HEADERS
        try:
            return super().next()
        except (ValueError, OverflowError, RecursionError) as error:
            raise ImageError(f"the contents of a tmpfs are damaged: {error}") from error


class Source(gzip.GzipFile):
    """What ``read`` gives is of headers; what files hold is read by ``contents``."""

    n_left = _MAX_HEADERS

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes; ImageError where that is more than is believed."""
        if size is None or not 0 <= size <= self.n_left:
            raise ImageError("the contents of a tmpfs are damaged: a header of more bytes than are believed")
        self.n_left -= size
        return super().read(size)

    def contents(self, size: int) -> bytes:
        """Up to so many bytes of a file; none at the end of the archive."""
        return super().read(size)


@contextmanager
def opened(stream: BinaryIO) -> Iterator[Archive]:
    """The archive that *stream* holds; ImageError for what is damaged, also where it is read.

    What whoever reads it does wrong is no damage.
    """
    try:
        with Source(fileobj=stream, mode="rb") as source, Archive(source) as archive:
            yield archive
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImageError(f"the contents of a tmpfs are damaged: {error}") from error
