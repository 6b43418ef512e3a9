"""Segments: the contents of shared memory, whatever made it (shared anonymous mappings, memfd, System V).

Kernel view
    An inode of the kernel's own tmpfs or hugetlbfs mount, which a descriptor of ours reaches; SEEK_DATA and SEEK_HOLE
    tell what it holds.  The page tables of its users do not: each knows only the pages that it touched.
Image
    ``pagemap-shmem-SHMID.img``, addresses counted from the segment's start, and ``pages-N.img``.
Restore
    The pages are read straight into a mapping of ours of the new segment.
Limits
    Ids are given out from 2^31 on, where no System V id can be: their images have the same names.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator, Sequence

from torpor.base.fds import OwnedFd
from torpor.images import kinds
from torpor.images.errors import ImageError
from torpor.images.pagemap import load_pagemap
from torpor.images.pages import Contents, PageServer, PageSink, Piece, StoreSink, open_contents
from torpor.images.store import ImageStore, PagesReader
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory import contents
from torpor.objects.session import DumpContext

_FIRST_ID = 1 << 31
_WINDOW = 1 << 26


class DumpedPages:
    """Where the pages of one dump go, those of processes and those of segments.

    ``before``: the images that these lean on, if they do.
    """

    def __init__(self, context: DumpContext) -> None:
        self.sink: PageSink = StoreSink(context.store, PAGE_SIZE)
        self.before: ImageStore | None = None
        #: The sink, if it may lack images before that are here.
        self.server: PageServer | None = None


class SegmentDump:
    """The segments met so far in one dump."""

    def __init__(self, context: DumpContext) -> None:
        self._pages = context.part(DumpedPages)
        self._ids: dict[tuple[int, int], int] = {}
        self._pending: list[tuple[int, OwnedFd]] = []

    def add(self, path: str, info: os.stat_result) -> int:
        """Have the contents of what *path* opens (*info* is its fstat) dumped, once; the segment's id."""
        key = (info.st_dev, info.st_ino)
        if key not in self._ids:
            self._ids[key] = _FIRST_ID + len(self._ids) + 1
            self.add_as(self._ids[key], path)
        return self._ids[key]

    def add_as(self, shmid: int, path: str) -> None:
        """Have the contents of what *path* opens dumped as the segment *shmid*."""
        self._pending.append((shmid, OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))))

    def dump_contents(self) -> int:
        """Copy what was added and is not in the images before; the number of pages."""
        total = 0
        while self._pending:
            shmid, fd = self._pending.pop()
            with fd:
                total += _dump_contents(self._pages, fd.fileno(), shmid)
        return total


def _dump_contents(pages: DumpedPages, fd: int, shmid: int) -> int:
    found = list(_iter_data(fd))
    n_bytes = sum(end - start for start, end in found)

    def read(pieces: Sequence[Piece], into: memoryview) -> None:
        _read(fd, pieces, into)

    if (
        pages.before is not None
        and pages.before.exists(kinds.SHMEM_PAGEMAP.file_name(shmid))
        and (pages.server is None or pages.server.has_parent(kinds.SHMEM_PAGEMAP, shmid))
    ):
        # What writes to a segment, and by which of its mappings and descriptors, nobody can be asked.
        with (
            open_contents(pages.before, shmid, kinds.SHMEM_PAGEMAP, PAGE_SIZE) as before,
            pages.sink.open(kinds.SHMEM_PAGEMAP, shmid) as stream,
        ):
            return contents.copy_changed(found, read, before, stream) // PAGE_SIZE
    with pages.sink.open(kinds.SHMEM_PAGEMAP, shmid, n_bytes) as stream:
        contents.copy(found, read, stream)
    return n_bytes // PAGE_SIZE


def _read(fd: int, pieces: Sequence[Piece], into: memoryview) -> None:
    done = 0
    for start, length in pieces:
        part = into[done : done + length]
        n_bytes = os.preadv(fd, [part], start)
        if n_bytes < length:  # the last page lies only partly within the size
            part[n_bytes:] = bytes(length - n_bytes)
        done += length


def _iter_data(fd: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what the segment holds, in whole pages."""
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start & -PAGE_SIZE, (at + PAGE_SIZE - 1) & -PAGE_SIZE


def restore(store: ImageStore, shmid: int, fd: int, size: int) -> None:
    """Fill the new segment of *size* bytes behind *fd*; ImageError where the contents do not fit in."""
    if not store.exists(kinds.SHMEM_PAGEMAP.file_name(shmid)):
        return  # an empty one has none in CRIU's images
    with open_contents(store, shmid, kinds.SHMEM_PAGEMAP, PAGE_SIZE) as kept:
        _fill_all(kept, shmid, fd, size)


def _fill_all(kept: Contents, shmid: int, fd: int, size: int) -> None:
    if not kept.extents:
        return
    if kept.extents[-1][1] - PAGE_SIZE >= size:
        raise ImageError(f"{kinds.SHMEM_PAGEMAP.file_name(shmid)}: contents beyond the segment's {size} bytes")
    block = max(os.fstat(fd).st_blksize, PAGE_SIZE)  # that of hugetlbfs is the page's size
    for extent in kept.extents:
        if not kept.is_zero(extent):  # a new segment is
            start, end, offset = extent
            _fill(fd, block, start, min(end, size), kept.reader, offset)


def _fill(fd: int, block: int, at: int, end: int, reader: PagesReader, offset: int) -> None:
    while at < end:
        first = at & -block
        stop = min(first + _WINDOW, end)
        length = (stop - first + block - 1) & -block if block > PAGE_SIZE else stop - first
        # Not closed by a `with`: parts of it may be in use on the way up from an error, which BufferError would hide.
        part = memoryview(mmap.mmap(fd, length, offset=first))[at - first : stop - first]
        reader.read_at(offset, part)
        del part
        offset += stop - at
        at = stop


def size_of(store: ImageStore, shmid: int) -> int:
    """The end of the contents of *shmid* in the images, in bytes; 0 without any."""
    if not store.exists(kinds.SHMEM_PAGEMAP.file_name(shmid)):
        return 0
    runs = load_pagemap(store, shmid, kinds.SHMEM_PAGEMAP, page_bytes=PAGE_SIZE).runs
    return runs[-1].end if runs else 0
