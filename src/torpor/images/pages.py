"""Pages: how the contents of memory go into images, and how they come out of them again.

A sink takes them in: each address space (or segment) is a stream, which is told its runs and given their bytes, and
alone knows where they go: into a page map and a pages image (``StoreSink``).  What comes later is another
sink: one that sends both through a socket, one that looks whether it has the bytes already.

Contents give them out: a page map says of a run that its pages lie beside it, in the parent images, with a page server,
or that they are zeroes.  Here this is one list, and the pages images of all the stores in the chain are one reader:
each has a span of offsets of its own.  What the parent images should have and have not is an error, and so is what a
page server should send.
"""

from __future__ import annotations

from _thread import allocate_lock
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from types import TracebackType

from torpor.base.fds import Closing
from torpor.base.typed import BinaryIO, Protocol, Self
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError, ImageMissing
from torpor.images.kinds import ImageKind
from torpor.images.pagemap import (
    PAGE_BYTES,
    PE_LAZY,
    PE_PARENT,
    PE_PRESENT,
    Extent,
    Pagemap,
    PageRun,
    Source,
    encode_pagemap,
    load_pagemap,
    places,
)
from torpor.images.store import ImageStore, PagesReader, PagesWriter, load_one

#: How far apart the pages images of a chain lie in the offsets of its reader, and where those of zeroes begin.
_SPAN_BITS = 56
_SPAN = 1 << _SPAN_BITS
_ZEROES = 1 << 80
#: Where what nobody looks for begins: below zeroes, above whatever a chain may have.
_THERE = 1 << 79
#: How many sets of parent images may stand behind a set.  Of each a directory and a page map are read; no series of
#: pre-dumps is that long, so a longer chain is damage, or somebody's trap.
MAX_PARENTS = 128
Range = tuple[int, int]
#: (address, length) of pages that lie together.
Piece = tuple[int, int]


class PageStream(Protocol):
    """The pages of one address space or segment on their way into images.  A context manager.

    Those whose bytes come are told by ``room``, all others by ``run``; each of the two in ascending order of address,
    and a run before the room of pages behind it, so that what is sent as it comes can be sent in order.
    """

    @property
    def in_any_order(self) -> bool:
        """Whether many rooms may be asked for first, and filled then in any order and by several threads.

        Otherwise each is filled before the next one is asked for.
        """

    def run(self, run: PageRun) -> None:
        """Pages of which no bytes come: they are in the parent images, come later, or are zeroes."""

    def room(self, pieces: Sequence[Piece]) -> int:
        """Room for the bytes of some pages: what ``write_at`` is told."""

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
    """Where the pages of one checkpoint go.  Safe for several threads at once."""

    def open(
        self,
        kind: ImageKind[m.pagemap_head],
        ident: int,
        n_bytes: int | None = None,
        lazy: Sequence[Range] = (),
        runs: Callable[[], Sequence[PageRun]] | None = None,
    ) -> PageStream:
        """The stream of task (or segment) *ident*; *n_bytes* are going to come, and what *runs* gives, if it is known.

        *lazy*, ascending, is what a restore may leave for later: page maps say so of pages with bytes, too.
        """

    def settle(self) -> None:
        """All streams have been closed: whoever takes the pages has them, or this raises what he says."""


class PageServer(PageSink, Protocol):
    """A sink on the other side of a connection, which may have parent images of its own."""

    def has_parent(self, kind: ImageKind[m.pagemap_head], ident: int) -> bool:
        """Whether there are parent images there, and a page map of this task or segment among them."""


class BasePageStream:
    """What streams have in common: the end of a ``with`` closes or abandons them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self: PageStream, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()


class StoreSink:
    """PageSink of a store: a page map and a pages image for each stream.

    Gives out the numbers of pages images, from the one behind *last_id* on.  *first* opens an image of a stream to
    which *store* writes as well: where the runs are known it has the page map before the pages, and whoever reads it
    knows where they belong.
    """

    def __init__(
        self,
        store: ImageStore,
        page_bytes: int = PAGE_BYTES,
        last_id: int = 0,
        first: Callable[[str], BinaryIO] | None = None,
    ) -> None:
        self._store, self._page_bytes, self._first = store, page_bytes, first
        self._lock = allocate_lock()
        self._last_id = last_id

    def open(
        self,
        kind: ImageKind[m.pagemap_head],
        ident: int,
        n_bytes: int | None = None,
        lazy: Sequence[Range] = (),
        runs: Callable[[], Sequence[PageRun]] | None = None,
    ) -> StoreStream:
        with self._lock:
            self._last_id += 1
            pages_id = self._last_id
        told = None
        if self._first is not None and runs is not None:
            name, planned = kind.file_name(ident), runs()
            told = planned, encode_pagemap(name, pages_id, planned, kind)
            with self._first(name) as stream:
                stream.write(told[1])
        writer = self._store.pages_writer(kinds.PAGES.file_name(pages_id), n_bytes)
        return StoreStream(self._store, kind, ident, pages_id, writer, self._page_bytes, lazy, told)

    def settle(self) -> None:
        # Nobody takes the pages from us: it is the store's commit that makes them safe.
        pass


class PagesAlone(BasePageStream):
    """PageStream into a pages image, by *writer*, whose page map is somebody else's business."""

    def __init__(self, writer: PagesWriter) -> None:
        self._writer = writer
        self.in_any_order = writer.supports_write_at

    def run(self, run: PageRun) -> None:
        # Nothing of it is in the image.
        pass

    def room(self, pieces: Sequence[Piece]) -> int:
        return self._writer.reserve(sum(length for _, length in pieces)) if self.in_any_order else 0

    def write_at(self, room: int, buffers: Sequence[memoryview]) -> None:
        if self.in_any_order:
            self._writer.write_at(room, buffers)
        else:
            self._writer.append(buffers)

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        self._writer.close()


class StoreStream(PagesAlone):
    """PageStream into a pages image, whose page map is written at the end."""

    def __init__(
        self,
        store: ImageStore,
        kind: ImageKind[m.pagemap_head],
        ident: int,
        pages_id: int,
        writer: PagesWriter,
        page_bytes: int = PAGE_BYTES,
        lazy: Sequence[Range] = (),
        told: tuple[Sequence[PageRun], bytes] | None = None,
    ) -> None:
        """*told*: somebody has been told these runs, in a page map of these bytes, and no others are to come."""
        super().__init__(writer)
        self._store, self._kind, self._ident, self._pages_id = store, kind, ident, pages_id
        self._page_bytes, self._lazy, self._told = page_bytes, lazy, told
        self._runs: list[PageRun] = []
        #: (start, end) of what is in the pages image.
        self._here: list[Range] = []

    def run(self, run: PageRun) -> None:
        if run.present:
            raise ValueError(f"{run} is told without its bytes")
        self._runs.append(run)

    def room(self, pieces: Sequence[Piece]) -> int:
        here = self._here
        for start, length in pieces:
            if here and here[-1][1] == start:
                here[-1] = (here[-1][0], start + length)
            else:
                here.append((start, start + length))
        return super().room(pieces)

    def close(self) -> None:
        super().close()
        name = self._kind.file_name(self._ident)
        if self._told is None:
            runs = runs_of(self._here, self._runs, self._lazy, self._page_bytes)
            data = encode_pagemap(name, self._pages_id, runs, self._kind)
        else:
            told, data = self._told
            here = joined((run.vaddr, run.end) for run in told if run.present)
            if here != joined(self._here) or self._runs != [run for run in told if not run.present]:
                raise ImageError(f"{name}: other pages have come than had been told")
        with self._store.open_write(name) as stream:
            stream.write(data)


def runs_of(
    here: Iterable[Range], others: Sequence[PageRun], lazy: Sequence[Range], page_bytes: int = PAGE_BYTES
) -> list[PageRun]:
    """The runs of a page map of which the pages *here* have bytes, and the *others* have not; all ascend."""
    marked = marked_lazy(joined(here), lazy) if lazy else ((*each, PE_PRESENT) for each in joined(here))
    runs = [PageRun(start, (end - start) // page_bytes, flags, page_bytes) for start, end, flags in marked]
    return sorted([*runs, *others], key=attrgetter("vaddr")) if others else runs


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The *ranges*, which ascend; those that touch are one."""
    found: list[Range] = []
    for start, end in ranges:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def marked_lazy(here: Iterable[Range], lazy: Iterable[Range]) -> Iterator[tuple[int, int, int]]:
    """The ranges *here* cut where those that are *lazy* begin and end, both ascending: (start, end, flags of a run)."""
    rest = iter(lazy)
    late = next(rest, None)
    for first, end in here:
        start = first
        while start < end:
            while late is not None and late[1] <= start:
                late = next(rest, None)
            if late is None or late[0] >= end:
                yield start, end, PE_PRESENT
                break
            if late[0] > start:
                yield start, late[0], PE_PRESENT
            until = min(late[1], end)
            yield max(late[0], start), until, PE_PRESENT | PE_LAZY
            start = until


def divide(wanted: Iterable[Range], held: Iterable[Range]) -> tuple[list[Range], list[Range]]:
    """The parts of *wanted* that lie in *held* (both ascend), and those that do not."""
    there: list[Range] = []
    missing: list[Range] = []
    rest = iter(held)
    first, last = next(rest, (0, 0))
    for begin, end in wanted:
        start = begin
        while start < end:
            while last <= start and (more := next(rest, None)) is not None:
                first, last = more
            if first <= start < last:
                until, place = min(end, last), there
            else:
                until, place = min(end, first) if first > start else end, missing
            place.append((start, until))
            start = until
    return there, missing


class _Chain:
    """PagesReader of several pages images; the number of one is the upper part of its offsets."""

    #: More than any image has: who reads small images as a whole reads this one piece by piece.
    size = _ZEROES << 1

    def __init__(self, readers: list[PagesReader]) -> None:
        self._readers = readers

    def read_at(self, offset: int, into: memoryview) -> None:
        if offset < _ZEROES:
            reader, offset = self.locate(offset)
            reader.read_at(offset, into)
        else:
            into.cast("B")[:] = bytes(into.nbytes)

    def locate(self, offset: int) -> tuple[PagesReader, int]:
        """The reader of the image that has what lies there, and where in it; ValueError for what is in none."""
        if offset >= _THERE:
            raise ValueError("nobody has looked where these pages lie, for they were to be there already")
        return self._readers[offset >> _SPAN_BITS], offset & (_SPAN - 1)

    def close(self) -> None:
        while self._readers:
            self._readers.pop().close()


class Contents(Closing):
    """The pages of one address space or segment.  A context manager that closes its reader.

    *extents* are in ascending order, and say where in *reader* the pages lie.
    """

    def __init__(self, extents: list[Extent], reader: PagesReader) -> None:
        self.extents = extents
        self.reader = reader

    def read(self, vaddr: int, into: memoryview) -> bool:
        """Fill *into* from address *vaddr* on; not at all (False) unless all of it is there."""
        first = bisect_right(self.extents, (vaddr, _ZEROES, 0))
        found = places(islice(self.extents, max(first - 1, 0), None), vaddr, vaddr + into.nbytes)
        view, done = into.cast("B"), 0
        for begin, until in found:
            self.reader.read_at(begin, view[done : done + until - begin])
            done += until - begin
        return bool(found)

    def between(self, start: int, end: int) -> bytes | None:
        """What is at the addresses from *start* up to *end*; None unless all of it is there."""
        content = bytearray(max(end - start, 0))
        return bytes(content) if content and self.read(start, memoryview(content)) else None

    def locate(self, offset: int) -> tuple[PagesReader, int]:
        """The reader of the one image that has what lies there, and where in it; of pages that are in an image."""
        return self.reader.locate(offset) if isinstance(self.reader, _Chain) else (self.reader, offset)

    @staticmethod
    def is_zero(extent: Extent) -> bool:
        """Whether it is of zeroes, which take no room in any image: new memory need not be filled with them."""
        return extent[2] >= _ZEROES

    @staticmethod
    def is_of_parents(extent: Extent) -> bool:
        """Whether its pages lie in the images before these ones."""
        return _SPAN <= extent[2] < _ZEROES

    @staticmethod
    def is_there(extent: Extent) -> bool:
        """Whether it is of what had been *there*, and was not looked for."""
        return _THERE <= extent[2] < _ZEROES

    def close(self) -> None:
        self.reader.close()


def page_bytes_of(store: ImageStore) -> int:
    """Of a page in these images, as they say; ImageError for what no page can have."""
    try:
        told = load_one(store, kinds.INVENTORY).torpor_page_bytes or PAGE_BYTES
    except ImageMissing:
        return PAGE_BYTES
    if told < PAGE_BYTES or told & (told - 1):
        raise ImageError(f"{kinds.INVENTORY.file_name()}: pages of {told} bytes")
    return told


def open_contents(
    store: ImageStore,
    ident: int,
    kind: ImageKind[m.pagemap_head] = kinds.PAGEMAP,
    page_bytes: int = PAGE_BYTES,
    later: list[Range] | None = None,
    there: Iterable[Range] = (),
    found: Pagemap | None = None,
) -> Contents:
    """The contents of task (or segment) *ident*, whose pages have *page_bytes*.

    With *later*, what is marked as lazy is not among them, but put there.  *there*, ascending, is what whoever asks has
    of the parent images, and is not going to read: where it lies in them is not looked for.  *found*: the page map of
    *store*, if it has been read.

    Each page map of the chain is read once.  Raises ImageError where pages are with a page server, or where the parent
    images are not there or have not what they should; and what ``load_pagemap`` raises.
    """
    found = found or load_pagemap(store, ident, kind, page_bytes=page_bytes)
    extents, wanted, is_here = _of_set(found, kind.file_name(ident), later)
    readers = [store.pages_reader(found.pages_name)]
    if is_here:
        return Contents(extents, readers[0])
    try:
        known, wanted = divide(wanted, there)
        extents += [(start, end, _THERE + start) for start, end in known]
        _resolve(store, ident, kind, wanted, readers, page_bytes, extents)
        # Each set's extents are ascending, and stand one set behind the other: such lists Python's sort merges.
        extents.sort()
    except BaseException:
        _Chain(readers).close()
        raise
    return Contents(extents, _Chain(readers))


def _of_set(found: Pagemap, name: str, later: list[Range] | None) -> tuple[list[Extent], list[Range], bool]:
    """What *found* has itself, what its parent should have, and whether all that is wanted of it is among its pages.

    There may be a run for each page.  ImageError for what is with a page server.
    """
    extents: list[Extent] = []
    further: list[Range] = []
    offset, is_here = 0, True
    for run in found.runs:
        start, end, flags = run.vaddr, run.end, run.flags
        if flags & PE_PRESENT:
            here, offset = offset, offset + end - start
            if later is None or not flags & PE_LAZY:
                extents.append((start, end, here))
            else:
                later.append((start, end))
        elif later is not None and flags & PE_LAZY:
            later.append((start, end))
        elif flags & PE_PARENT:
            is_here = False
            further.append((start, end))
        elif flags & PE_LAZY:
            raise _left_to_a_page_server(run, name)
        else:
            is_here = False
            extents.append((start, end, _ZEROES + start))
    return extents, joined(further), is_here


def _resolve(
    store: ImageStore,
    ident: int,
    kind: ImageKind[m.pagemap_head],
    wanted: list[Range],
    readers: list[PagesReader],
    page_bytes: int,
    extents: list[Extent],
) -> None:
    """Add to *extents* where what is *wanted* of the parents lies, and their readers to *readers*."""
    name = kind.file_name(ident)
    while wanted:
        store = _parent_of(store, name, wanted[0][0], len(readers))
        found = _load_parent(store, ident, kind, wanted[0][0], page_bytes)
        readers.append(store.pages_reader(found.pages_name))
        wanted = _take(found, wanted, (len(readers) - 1) << _SPAN_BITS, f"{store.path}/{name}", extents)


def _take(found: Pagemap, wanted: list[Range], base: int, where: str, extents: list[Extent]) -> list[Range]:
    """Add to *extents* what *found*, whose pages image begins at *base*, has of the *wanted*; what its parent should
    have.  ImageError for what it should have and has not, or has with a page server.
    """
    further: list[Range] = []
    for run, offset, start, end in _look_up(found, wanted, where):
        if run.source is Source.HERE:
            _add(extents, start, end, base + offset + start - run.vaddr)
        elif run.source is Source.ZERO:
            _add(extents, start, end, _ZEROES + start)
        elif run.source is Source.PARENT:
            if further and further[-1][1] == start:
                further[-1] = (further[-1][0], end)
            else:
                further.append((start, end))
        else:
            raise _left_to_a_page_server(run, where)
    return further


def _left_to_a_page_server(run: PageRun, where: str) -> ImageMissing:
    return ImageMissing(
        f"{where}: {run.n_pages} pages at {run.vaddr:#x} are in no image: they were left to a page server",
        hint="criu restore --lazy-pages, with criu lazy-pages --page-server, while the dump gives them; those "
        "of a migration whose source has been killed are lost",
    )


def _add(extents: list[Extent], start: int, end: int, offset: int) -> None:
    if extents and extents[-1][1] == start and extents[-1][2] + start - extents[-1][0] == offset:
        extents[-1] = (extents[-1][0], end, extents[-1][2])
    else:
        extents.append((start, end, offset))


def _parent_of(store: ImageStore, name: str, at: int, n_stores: int) -> ImageStore:
    if n_stores > MAX_PARENTS:
        raise ImageError(f"{store.path}: more than {MAX_PARENTS} sets of parent images before the last one")
    parent = store.parent()
    if parent is None:
        raise ImageMissing(
            f"{store.path}/{name}: the pages at {at:#x} are in the parent images, and these images have no parent",
            hint="put the link `parent` back, which leads to the directory of the dump before this one",
        )
    return parent


def _load_parent(store: ImageStore, ident: int, kind: ImageKind[m.pagemap_head], at: int, page_bytes: int) -> Pagemap:
    name = kind.file_name(ident)
    if not store.exists(name):
        raise ImageMissing(
            f"{store.path}/{name}: the pages at {at:#x} are in the parent images, which have no such image"
        )
    try:
        return load_pagemap(store, ident, kind, page_bytes=page_bytes)
    except ImageError as error:
        error.add_note(f"in the parent images {store.path}")
        raise


def check_in_parent(
    parent: ImageStore | None, ident: int, kind: ImageKind[m.pagemap_head], wanted: Iterable[Range], page_bytes: int
) -> None:
    """ImageError unless the page map of *ident* in the *parent* images has all the *wanted* ranges (ascending)."""
    name = kind.file_name(ident)
    if parent is None or not parent.exists(name):
        raise ImageMissing(f"{name}: pages were left to parent images, of which there are none")
    found = load_pagemap(parent, ident, kind, page_bytes=page_bytes, check_pages=False)
    for _ in _look_up(found, wanted, f"{parent.path}/{name}"):
        pass


def _look_up(found: Pagemap, wanted: Iterable[Range], where: str) -> Iterator[tuple[PageRun, int, int, int]]:
    """The parts of runs that make up the ranges *wanted*, all in ascending order, as (run, where it lies in the pages
    image if it does, start, end); ImageError where one is missing.
    """
    rest = found.laid_out()
    run, offset = next(rest, (None, 0))
    for first, end in wanted:
        start = first
        while start < end:
            while run is not None and run.end <= start:
                run, offset = next(rest, (None, 0))
            if run is None or run.vaddr > start:
                raise ImageError(f"{where}: has not the pages at {start:#x}, which the dump after it left to it")
            until = min(end, run.end)
            yield run, offset, start, until
            start = until
