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
from collections.abc import Iterator

from torpor.base.fds import OwnedFd
from torpor.images import kinds
from torpor.images.errors import ImageError
from torpor.images.pagemap import PE_PRESENT, PageRun, load_pagemap, store_pagemap
from torpor.images.pages import Contents, open_contents
from torpor.images.store import ImageStore, PagesReader, PagesWriter
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.files.model import FileDump

_FIRST_ID = 1 << 31
_CHUNK = 1 << 20
_WINDOW = 1 << 26


class SegmentDump:
    """The segments met so far in one dump, and the numbers of pages images."""

    def __init__(self, session: FileDump) -> None:
        self._store = session.store
        self._ids: dict[tuple[int, int], int] = {}
        self._pending: list[tuple[int, OwnedFd]] = []
        self._last_pages_id = 0

    def new_pages_id(self) -> int:
        """An unused N for a pages-N.img."""
        self._last_pages_id += 1
        return self._last_pages_id

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
        """Copy what was added; the number of pages."""
        total = 0
        while self._pending:
            shmid, fd = self._pending.pop()
            with fd:
                total += _dump_contents(self._store, fd.fileno(), shmid, self.new_pages_id())
        return total


def _dump_contents(store: ImageStore, fd: int, shmid: int, pages_id: int) -> int:
    found = list(_iter_data(fd))
    writer = store.pages_writer(kinds.PAGES.file_name(pages_id), sum(end - start for start, end in found))
    runs: list[PageRun] = []
    try:
        with mmap.mmap(-1, _CHUNK) as buffer, memoryview(buffer) as view:
            for start, end in found:
                _copy(fd, start, end, view, writer)
                runs.append(PageRun(start, (end - start) // PAGE_SIZE, PE_PRESENT))
    finally:
        writer.close()
    store_pagemap(store, shmid, pages_id, runs, kinds.SHMEM_PAGEMAP)
    return sum(run.n_pages for run in runs)


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


def _copy(fd: int, start: int, end: int, view: memoryview, writer: PagesWriter) -> None:
    while start < end:
        part = view[: min(end - start, len(view))]
        n_bytes = os.preadv(fd, [part], start)
        if n_bytes < len(part):  # the last page lies only partly within the size
            part[n_bytes:] = bytes(len(part) - n_bytes)
        writer.append([part])
        start += len(part)


def restore(store: ImageStore, shmid: int, fd: int, size: int) -> None:
    """Fill the new segment of *size* bytes behind *fd*; ImageError where the contents do not fit in."""
    if not store.exists(kinds.SHMEM_PAGEMAP.file_name(shmid)):
        return  # an empty one has none in CRIU's images
    with open_contents(store, shmid, kinds.SHMEM_PAGEMAP) as contents:
        _fill_all(contents, shmid, fd, size)


def _fill_all(contents: Contents, shmid: int, fd: int, size: int) -> None:
    runs = [run for run in contents.runs if run.pages_offset is not None]
    if not runs:
        return
    if runs[-1].vaddr + (runs[-1].n_pages - 1) * PAGE_SIZE >= size:
        raise ImageError(f"{kinds.SHMEM_PAGEMAP.file_name(shmid)}: contents beyond the segment's {size} bytes")
    block = max(os.fstat(fd).st_blksize, PAGE_SIZE)  # that of hugetlbfs is the page's size
    for run in runs:
        assert run.pages_offset is not None
        end = min(run.vaddr + run.n_pages * PAGE_SIZE, size)
        _fill(fd, block, run.vaddr, end, contents.reader, run.pages_offset)


def _fill(fd: int, block: int, at: int, end: int, reader: PagesReader, offset: int) -> None:
    while at < end:
        first = at & -block
        stop = min(first + _WINDOW, end)
        window = mmap.mmap(fd, (stop - first + block - 1) & -block if block > PAGE_SIZE else stop - first, offset=first)
        with window, memoryview(window) as view, view[at - first : stop - first] as part:
            reader.read_at(offset, part)
        offset += stop - at
        at = stop


def size_of(store: ImageStore, shmid: int) -> int:
    """The end of the contents of *shmid* in the images, in bytes; 0 without any."""
    if not store.exists(kinds.SHMEM_PAGEMAP.file_name(shmid)):
        return 0
    runs = load_pagemap(store, shmid, kinds.SHMEM_PAGEMAP).runs
    return runs[-1].vaddr + runs[-1].n_pages * PAGE_SIZE if runs else 0
