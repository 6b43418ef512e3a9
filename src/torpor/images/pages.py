"""Contents of memory: where each page of a task (or shared segment) comes from, the images of earlier dumps included.

A pagemap says of a run that its pages lie beside it, in the parent images, with a page server, or that they are zeroes.
Here this is one list, and the pages images of all the stores in the chain are one reader: each has a span of offsets of
its own. What the parent images should have and have not is an error, and so is what a page server should send.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torpor.base.fds import Closing
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.kinds import ImageKind
from torpor.images.pagemap import PAGE_BYTES, Pagemap, PageRun, Source, load_pagemap, places
from torpor.images.store import ImageStore, PagesReader

#: How far apart the pages images of a chain lie in the offsets of its reader.
_SPAN_BITS = 56
_SPAN = 1 << _SPAN_BITS
Range = tuple[int, int]


class _Chain:
    """PagesReader of several pages images; the number of one is the upper part of its offsets."""

    #: More than any image: it is not to be read as a whole.
    size = 1 << 62

    def __init__(self, readers: list[PagesReader]) -> None:
        self._readers = readers

    def read_at(self, offset: int, into: memoryview) -> None:
        self._readers[offset >> _SPAN_BITS].read_at(offset & (_SPAN - 1), into)

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        while self._readers:
            self._readers.pop().close()


class _Zeroes:
    """PagesReader of nothing but zeroes."""

    size = _SPAN

    def read_at(self, offset: int, into: memoryview) -> None:
        into.cast("B")[:] = bytes(into.nbytes)

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        pass


class Contents(Closing):
    """The pages of one address space or segment. A context manager that closes its reader.

    `runs` are in ascending order; each has a ``pages_offset``, where it lies in `reader`.
    """

    def __init__(self, runs: tuple[PageRun, ...], reader: PagesReader) -> None:
        self.runs = runs
        self.reader = reader

    def read(self, start: int, end: int) -> bytes | None:
        """What is at the addresses from `start` up to `end`; None unless all of it lies in pages images."""
        content = bytearray()
        for begin, until in places(self.runs, start, end):
            piece = bytearray(until - begin)
            self.reader.read_at(begin, memoryview(piece))
            content += piece
        return bytes(content) if content else None

    def close(self) -> None:
        self.reader.close()


def open_contents(store: ImageStore, ident: int, kind: ImageKind[m.pagemap_head] = kinds.PAGEMAP) -> Contents:
    """The contents of task (or segment) `ident`.

    Raises ImageError where pages are with a page server, or where the parent images are not there or have not what
    they should; and what ``load_pagemap`` raises.
    """
    found = load_pagemap(store, ident, kind)
    _refuse_lazy(kind.file_name(ident), found)
    reader = store.pages_reader(found.pages_name)
    if all(run.present for run in found.runs):
        return Contents(found.runs, reader)
    readers = [reader]
    try:
        runs = _resolve(store, ident, kind, found, readers)
    except BaseException:
        _Chain(readers).close()
        raise
    return Contents(tuple(runs), _Chain(readers))


def _refuse_lazy(name: str, found: Pagemap) -> None:
    for run in found.runs:
        if run.source is Source.LAZY:
            raise ImageMissing(
                f"{name}: {run.n_pages} pages at {run.vaddr:#x} are in no image: they were left to a page server",
                hint="dump again without --lazy-pages",
            )


def _resolve(
    store: ImageStore, ident: int, kind: ImageKind[m.pagemap_head], found: Pagemap, readers: list[PagesReader]
) -> list[PageRun]:
    """The runs of `found`, those in the parent images looked up there, each with its place in a chain of `readers`, to
    which the further ones are appended.
    """
    readers.append(_Zeroes())
    done = [_part(run, *_range(run), 0) for run in found.runs if not run.in_parent]
    wanted = [_range(run) for run in found.runs if run.in_parent]
    opened: list[ImageStore] = []
    try:
        while wanted:
            store = _parent_of(store, kind.file_name(ident), wanted[0][0])
            opened.append(store)
            found = _load_parent(store, ident, kind, wanted[0][0])
            readers.append(store.pages_reader(found.pages_name))
            base = (len(readers) - 1) << _SPAN_BITS
            further: list[Range] = []
            for run, start, end in _look_up(found.runs, wanted, kind.file_name(ident)):
                if run.in_parent:
                    further.append((start, end))
                else:
                    done.append(_part(run, start, end, base))
            wanted = further
    finally:
        for each in opened:
            each.close()
    return sorted(done, key=lambda run: run.vaddr)


def _range(run: PageRun) -> Range:
    return run.vaddr, run.vaddr + run.n_pages * PAGE_BYTES


def _part(run: PageRun, start: int, end: int, base: int) -> PageRun:
    """A part of `run`, whose pages image begins at `base` in the chain; the zeroes are the second there."""
    offset = _SPAN if run.pages_offset is None else base + run.pages_offset + start - run.vaddr
    return PageRun(start, (end - start) // PAGE_BYTES, run.flags, offset)


def _parent_of(store: ImageStore, name: str, at: int) -> ImageStore:
    parent = store.parent()
    if parent is None:
        raise ImageMissing(
            f"{name}: the pages at {at:#x} are in the parent images, and these images have no parent",
            hint="put the link `parent` back, which leads to the directory of the dump before this one",
        )
    return parent


def _load_parent(store: ImageStore, ident: int, kind: ImageKind[m.pagemap_head], at: int) -> Pagemap:
    name = kind.file_name(ident)
    if not store.exists(name):
        raise ImageMissing(f"{name}: the pages at {at:#x} are in the parent images, which have no such image")
    found = load_pagemap(store, ident, kind)
    _refuse_lazy(f"parent/{name}", found)
    return found


def _look_up(runs: Iterable[PageRun], wanted: Iterable[Range], name: str) -> Iterator[tuple[PageRun, int, int]]:
    """The parts of `runs` that make up the ranges `wanted`, all in ascending order; ImageError where one is missing."""
    rest = iter(runs)
    run = next(rest, None)
    for first, end in wanted:
        start = first
        while start < end:
            while run is not None and _range(run)[1] <= start:
                run = next(rest, None)
            if run is None or run.vaddr > start:
                raise ImageError(f"{name}: the pages at {start:#x} are to be in the parent images, which have them not")
            until = min(end, _range(run)[1])
            yield run, start, until
            start = until
