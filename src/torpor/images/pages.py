"""Pages: how the contents of memory go into images, and how they come out of them again.

A sink takes them in: each address space (or segment) is a stream, which is told its runs and given their bytes, and
alone knows where they go: into a page map and a pages image (``StoreSink``). What comes later is another
sink: one that sends both through a socket, one that looks whether it has the bytes already.

Contents give them out: a page map says of a run that its pages lie beside it, in the parent images, with a page server,
or that they are zeroes. Here this is one list, and the pages images of all the stores in the chain are one reader: each
has a span of offsets of its own. What the parent images should have and have not is an error, and so is what a page
server should send.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

from torpor.base.fds import Closing
from torpor.base.typed import Protocol, Self
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.kinds import ImageKind
from torpor.images.pagemap import (
    PAGE_BYTES,
    PE_PRESENT,
    Pagemap,
    PageRun,
    Source,
    load_pagemap,
    places,
    store_pagemap,
)
from torpor.images.store import ImageStore, PagesReader, PagesWriter

#: How far apart the pages images of a chain lie in the offsets of its reader.
_SPAN_BITS = 56
_SPAN = 1 << _SPAN_BITS
Range = tuple[int, int]
#: (address, length) of pages that lie together.
Piece = tuple[int, int]


class PageStream(Protocol):
    """The pages of one address space or segment on their way into images. A context manager.

    Those whose bytes come are told by `room`, all others by `run`; each of the two in ascending order of address, and a
    run before the room of pages behind it, so that what is sent as it comes can be sent in order.
    """

    @property
    def in_any_order(self) -> bool:
        """Whether many rooms may be asked for first, and filled then in any order and by several threads.

        Otherwise each is filled before the next one is asked for.
        """

    def run(self, run: PageRun) -> None:
        """Pages of which no bytes come: they are in the parent images, come later, or are zeroes."""

    def room(self, pieces: Sequence[Piece]) -> int:
        """Room for the bytes of some pages: what `write_at` is told."""

    def write_at(self, room: int, buffers: Sequence[memoryview]) -> None:
        """All the bytes of a room, whose length they have together."""

    def close(self) -> None:
        """All is there; errors held back until now are raised."""

    def abandon(self) -> None:
        """Not all is there, nor will be: nothing of it is to be found by a reader."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PageSink(Protocol):
    """Where the pages of one checkpoint go. Safe for several threads at once."""

    def open(self, kind: ImageKind[m.pagemap_head], ident: int, n_bytes: int | None = None) -> PageStream:
        """The stream of task (or segment) `ident`; `n_bytes` are going to come, if that is known."""


class BasePageStream:
    """What streams have in common: the end of a ``with`` closes or abandons them."""

    def close(self) -> None:
        raise NotImplementedError

    def abandon(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()


class StoreSink:
    """PageSink of a store: a page map and a pages image for each stream. Gives out the numbers of pages images."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._lock = allocate_lock()
        self._last_id = 0

    def open(self, kind: ImageKind[m.pagemap_head], ident: int, n_bytes: int | None = None) -> StoreStream:
        with self._lock:
            self._last_id += 1
            pages_id = self._last_id
        writer = self._store.pages_writer(kinds.PAGES.file_name(pages_id), n_bytes)
        return StoreStream(self._store, kind, ident, pages_id, writer)


class StoreStream(BasePageStream):
    """PageStream into a pages image, whose page map is written at the end."""

    def __init__(
        self, store: ImageStore, kind: ImageKind[m.pagemap_head], ident: int, pages_id: int, writer: PagesWriter
    ) -> None:
        self._store, self._kind, self._ident, self._pages_id = store, kind, ident, pages_id
        self._writer = writer
        self.in_any_order = writer.supports_write_at
        self._runs: list[PageRun] = []
        #: (start, end) of what is in the pages image.
        self._here: list[Range] = []

    def run(self, run: PageRun) -> None:
        if run.present:
            raise ValueError(f"{run} is told without its bytes")
        self._runs.append(run)

    def room(self, pieces: Sequence[Piece]) -> int:
        here, n_bytes = self._here, 0
        for start, length in pieces:
            if here and here[-1][1] == start:
                here[-1] = (here[-1][0], start + length)
            else:
                here.append((start, start + length))
            n_bytes += length
        return self._writer.reserve(n_bytes) if self.in_any_order else 0

    def write_at(self, room: int, buffers: Sequence[memoryview]) -> None:
        if self.in_any_order:
            self._writer.write_at(room, buffers)
        else:
            self._writer.append(buffers)

    def close(self) -> None:
        self._writer.close()
        runs = [PageRun(start, (end - start) // PAGE_BYTES, PE_PRESENT) for start, end in self._here]
        if self._runs:
            runs = sorted(runs + self._runs, key=lambda run: run.vaddr)
        store_pagemap(self._store, self._ident, self._pages_id, runs, self._kind)

    def abandon(self) -> None:
        self._writer.close()


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
