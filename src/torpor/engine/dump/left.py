"""Pages that a dump has not copied: read from the stopped tree by who rebuilds it elsewhere, or copied after all."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator

from torpor.base import log
from torpor.base.errors import TorporError
from torpor.base.fds import Closing
from torpor.base.records import replace
from torpor.engine.dump.session import DumpSession
from torpor.images import kinds
from torpor.images.pagemap import PE_PRESENT, Pagemap, PageRun, Source, load_pagemap, store_pagemap
from torpor.images.pages import Range
from torpor.images.store import ImageStore, PagesReader
from torpor.images.stores.base import COMPRESSED
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory.contents import Memory, is_unreadable

_MOST_BYTES = 4 << 20
_TOP = 1 << 64


class Left(Closing):
    """``Remaining``: what is left of all processes, by their pids in the tree.  A context manager."""

    def __init__(self, session: DumpSession, never_again: Callable[[], None]) -> None:
        self._session, self.never_again = session, never_again
        self._room = memoryview(bytearray(_MOST_BYTES))
        self._ranges: dict[int, list[Range]] = {}
        self._memories: dict[int, Memory] = {}
        for process in session.alive:
            scanned = session.scans[process.pid]
            unreadable = any(is_unreadable(vma) for vma in scanned.private)
            self._ranges[process.ns_pid] = scanned.left
            self._memories[process.ns_pid] = Memory(process.pid, gentle=True, unreadable=unreadable)

    def read(self, ident: int, start: int, n_bytes: int, /) -> memoryview:
        """The pages of process *ident* from *start* on, as many of them as lie together; good until the next call.

        Who asks is a stranger: TorporError for a page that is not left of it.
        """
        ranges = self._ranges.get(ident, [])
        at = bisect_right(ranges, (start, _TOP))
        if not at or start >= ranges[at - 1][1] or start % PAGE_SIZE or n_bytes < PAGE_SIZE:
            raise TorporError(f"of pid {ident} no page is left at {start:#x}")
        n_bytes = min(n_bytes & -PAGE_SIZE, ranges[at - 1][1] - start, _MOST_BYTES)
        found = self._room[:n_bytes]
        self._memories[ident].read([(start, n_bytes)], found)
        return found

    def complete(self) -> None:
        """Nobody is going to ask any more: the set has these pages as well, at once or not at all.

        StoreError, OSError, TorporError where memory cannot be read.
        """
        with self._session.new.amended() as store:
            last = max(_page_images(store), default=0)
            for ident, ranges in self._ranges.items():
                if ranges:
                    last += 1
                    self._copy(store, ident, last)
        n_pages = sum(end - start for ranges in self._ranges.values() for start, end in ranges) // PAGE_SIZE
        log.info(f"{n_pages} pages that had been left are among the images now")

    def _copy(self, store: ImageStore, ident: int, pages_id: int) -> None:
        """Have the pages of process *ident* in an image of their own, with those that were copied before."""
        found = load_pagemap(store, ident, page_bytes=PAGE_SIZE)
        runs = [replace(run, flags=run.flags | PE_PRESENT) if run.source is Source.LAZY else run for run in found.runs]
        reader = store.pages_reader(found.pages_name)
        try:
            writer = store.pages_writer(
                kinds.PAGES.file_name(pages_id), sum(run.n_bytes for run in runs if run.present)
            )
            try:
                for content in self._contents(ident, found, reader):
                    writer.append([content])
            finally:
                writer.close()
        finally:
            reader.close()
        store_pagemap(store, ident, pages_id, runs)
        store.delete(found.pages_name)

    def _contents(self, ident: int, found: Pagemap, reader: PagesReader) -> Iterator[memoryview]:
        """Of all runs that are not in other images, in order; each piece is good until the next."""
        for run, offset in found.laid_out():
            done = 0
            while done < run.n_bytes and _is_wanted(run):
                if run.present:
                    piece = self._room[: min(run.n_bytes - done, _MOST_BYTES)]
                    reader.read_at(offset + done, piece)
                else:
                    piece = self.read(ident, run.vaddr + done, run.n_bytes - done)
                yield piece
                done += piece.nbytes

    def close(self) -> None:
        for memory in self._memories.values():
            memory.close()


def _is_wanted(run: PageRun) -> bool:
    return run.source in (Source.HERE, Source.LAZY)


def _page_images(store: ImageStore) -> Iterator[int]:
    """The numbers of the images with pages."""
    for name in store.names():
        found = kinds.by_file_name(name.removesuffix(COMPRESSED))
        if found is not None and found[0] is kinds.PAGES and isinstance(found[1], int):
            yield found[1]
