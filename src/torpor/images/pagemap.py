"""pagemap-*.img: which pages of a task (or shared segment) an image holds, and where in pages-*.img.

A pagemap_head names the pages image; each pagemap_entry is a run of pages, in ascending order of address.  Runs with
PE_PRESENT lie in the pages image one after the other; runs with PE_PARENT are to be looked up in the parent images;
PE_LAZY marks what may be fetched later: from a page server, where the pages are not present as well.  A run with none
of them is of zero pages.  ``pages.py`` finds the pages wherever they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torpor.base.records import dataclass
from torpor.base.typed import cast
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.format import U32, encode_image, read_messages
from torpor.images.kinds import ImageKind
from torpor.images.store import ImageStore

PE_PARENT = 1
PE_LAZY = 2
PE_PRESENT = 4
_BOTH = PE_PARENT | PE_PRESENT
#: Of a page in images that do not say otherwise.
PAGE_BYTES = 4096
#: (start, end, where it lies): a stretch of addresses, and an offset in what holds their pages.
Extent = tuple[int, int, int]
_TOP = 1 << 64
_MAX_COMPAT_PAGES = (1 << 32) - 1


class Source:
    """Where the pages of a run are."""

    HERE = "here"
    PARENT = "parent"
    LAZY = "lazy"
    ZERO = "zero"


@dataclass(frozen=True, slots=True)
class PageRun:
    """``n_pages`` pages of ``page_bytes`` from address ``vaddr`` (bytes).  Where they are is what ``source`` says."""

    vaddr: int
    n_pages: int
    flags: int
    page_bytes: int = PAGE_BYTES

    @property
    def n_bytes(self) -> int:
        return self.n_pages * self.page_bytes

    @property
    def end(self) -> int:
        """The address behind them."""
        return self.vaddr + self.n_pages * self.page_bytes

    @property
    def source(self) -> str:
        """One of Source: where a reader finds the pages."""
        if self.flags & PE_PRESENT:
            return Source.HERE
        if self.flags & PE_PARENT:
            return Source.PARENT
        return Source.LAZY if self.flags & PE_LAZY else Source.ZERO

    @property
    def in_parent(self) -> bool:
        return bool(self.flags & PE_PARENT)

    @property
    def lazy(self) -> bool:
        return bool(self.flags & PE_LAZY)

    @property
    def present(self) -> bool:
        return bool(self.flags & PE_PRESENT)


@dataclass(frozen=True, slots=True)
class Pagemap:
    """A whole pagemap.  ``n_present`` counts the pages in the pages image."""

    pages_id: int
    runs: tuple[PageRun, ...]
    n_present: int

    @property
    def pages_name(self) -> str:
        return kinds.PAGES.file_name(self.pages_id)

    def laid_out(self) -> Iterator[tuple[PageRun, int]]:
        """The runs, each with the offset in the pages image at which its pages lie if they are HERE."""
        offset = 0
        for run in self.runs:
            yield run, offset
            if run.present:
                offset += run.n_bytes

    def extents(self) -> Iterator[Extent]:
        """What is HERE, and where."""
        offset = 0
        for run in self.runs:
            if run.flags & PE_PRESENT:
                n_bytes = run.n_pages * run.page_bytes
                yield run.vaddr, run.vaddr + n_bytes, offset
                offset += n_bytes

    def places(self, start: int, end: int) -> list[tuple[int, int]]:
        """Where the bytes from address *start* up to *end* lie in the pages image; none unless all are there."""
        return places(self.extents(), start, end)


def places(extents: Iterable[Extent], start: int, end: int) -> list[tuple[int, int]]:
    """Where the bytes from address *start* up to *end* of *extents* lie; none unless all are there."""
    found = []
    at = start
    for first, last, offset in extents:
        if first <= at < last and at < end:
            until = min(end, last)
            found.append((offset + at - first, offset + until - first))
            at = until
        elif first >= end:
            break
    return found if at >= end else []


def _entry_flags(entry: m.pagemap_entry) -> int:
    # Before flags existed an entry was in the parent or, without a word, present.
    if (flags := entry.flags) and not entry.in_parent:
        return flags
    if entry.HasField("flags"):
        return entry.flags | (PE_PARENT if entry.in_parent else 0)
    return PE_PARENT if entry.in_parent else PE_PRESENT


def load_pagemap(
    store: ImageStore,
    ident: int,
    kind: ImageKind[m.pagemap_head] = kinds.PAGEMAP,
    *,
    page_bytes: int = PAGE_BYTES,
    check_pages: bool = True,
) -> Pagemap:
    """The pagemap of task (or segment) *ident*, whose pages have *page_bytes*.

    Raises ImageError where runs are empty, unaligned, out of order, overlapping or beyond the address space, contradict
    themselves, or say more pages than the pages image has (unless not *check_pages*).
    """
    name = kind.file_name(ident)
    with store.open_read(name) as stream:
        messages = read_messages(stream, kind, name)
    if not messages:
        raise ImageError(f"{name}: no pagemap_head")
    runs, n_present = _read_runs(name, cast("list[m.pagemap_entry]", messages[1:]), page_bytes)
    found = Pagemap(messages[0].pages_id, tuple(runs), n_present)
    if check_pages and n_present:
        _check_pages(store, name, found, page_bytes)
    return found


def _read_runs(name: str, entries: Iterable[m.pagemap_entry], page_bytes: int) -> tuple[list[PageRun], int]:
    runs: list[PageRun] = []
    n_present = 0
    end = 0
    for entry in entries:
        n_pages = entry.nr_pages or (0 if entry.HasField("nr_pages") else entry.compat_nr_pages)
        vaddr, flags = entry.vaddr, _entry_flags(entry)
        # There may be one for each page: what is sound is seen without a call.
        start, end = end, vaddr + n_pages * page_bytes
        if not n_pages or vaddr < start or vaddr % page_bytes or end > _TOP or flags & _BOTH == _BOTH:
            wrong = _run_fault(vaddr, n_pages, flags, start, page_bytes)
            raise ImageError(
                f"{name}: entry {len(runs) + 1}: {wrong} ({n_pages} pages at {vaddr:#x}, flags {flags:#x})"
            )
        runs.append(PageRun(vaddr, n_pages, flags, page_bytes))
        if flags & PE_PRESENT:
            n_present += n_pages
    return runs, n_present


def _run_fault(vaddr: int, n_pages: int, flags: int, end: int, page_bytes: int) -> str | None:
    if not n_pages:
        return "a run of no pages"
    if vaddr % page_bytes:
        return f"the address is not a multiple of {page_bytes}"
    if vaddr < end:
        return f"begins before the end of the run before it, {end:#x}"
    if vaddr + n_pages * page_bytes > _TOP:
        return "reaches beyond the address space"
    if flags & PE_PARENT and flags & PE_PRESENT:
        return "both in the parent and present"
    return None


def _check_pages(store: ImageStore, name: str, found: Pagemap, page_bytes: int) -> None:
    size = store.size_of(found.pages_name)
    if size < found.n_present * page_bytes:
        needed = found.n_present * page_bytes
        raise ImageError(f"{found.pages_name}: truncated: {name} needs {needed} bytes of it, it has {size}")


def store_pagemap(
    store: ImageStore,
    ident: int,
    pages_id: int,
    runs: Sequence[PageRun],
    kind: ImageKind[m.pagemap_head] = kinds.PAGEMAP,
) -> None:
    """Write a pagemap in one write.  The present runs must lie in the pages image in this order, without gaps.

    Raises ImageError where *runs* is what ``load_pagemap`` would refuse.
    """
    name = kind.file_name(ident)
    data = encode_pagemap(name, pages_id, runs, kind)
    with store.open_write(name) as stream:
        stream.write(data)


def encode_pagemap(
    name: str, pages_id: int, runs: Sequence[PageRun], kind: ImageKind[m.pagemap_head] = kinds.PAGEMAP
) -> bytes:
    """What ``store_pagemap`` writes, as *name*.  ImageError."""
    out = [encode_image(kind, (m.pagemap_head(pages_id=pages_id),))]
    entry = m.pagemap_entry()
    end = 0
    encode, pack = entry.SerializeToString, U32.pack
    for index, run in enumerate(runs, 1):
        vaddr, n_pages, flags = run.vaddr, run.n_pages, run.flags
        start, end = end, run.end
        if not n_pages or vaddr < start or vaddr % run.page_bytes or end > _TOP or flags & _BOTH == _BOTH:
            raise ImageError(f"{name}: entry {index}: {_run_fault(vaddr, n_pages, flags, start, run.page_bytes)}")
        entry.vaddr, entry.nr_pages, entry.flags = vaddr, n_pages, flags
        # Readers from before the 64-bit count know this one only.
        entry.compat_nr_pages = n_pages if n_pages <= _MAX_COMPAT_PAGES else 0
        data = encode()
        out += (pack(len(data)), data)
    return b"".join(out)
