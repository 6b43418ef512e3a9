"""Copy-on-write sharing between parent and child, kept: pages that are equal in both images are not written again.

A child's puppet is a clone of its parent's, with the parent's memory in it.  What of the parent's mappings the child
has too stays; of the pages in them, only those are written that differ, and those dropped that the child has not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.pagemap import Extent
from torpor.images.store import PagesReader
from torpor.kernel.arch import nr
from torpor.kernel.uapi.mman import MADV_DONTNEED, MAP_GROWSDOWN, MAP_HUGETLB
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory.areas import ANON_PRIVATE
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner

_CHUNK = 1 << 19
_WHOLE = 8 << 20

#: The number and the arguments of a call that the child is to make.
Call = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inheritance:
    """``kept``: ranges of mappings that stay, in order.  ``made``: the child's entries that are still to be made."""

    kept: list[Extent]
    made: list[m.vma_entry]


class PageSource:
    """A pages image to be compared piece by piece; a small one is read at once."""

    def __init__(self, reader: PagesReader) -> None:
        self._reader = reader
        self._whole = self._read(0, reader.size) if reader.size <= _WHOLE else None

    def close(self) -> None:
        """Close the reader of the image, which has become the source's."""
        self._reader.close()

    def _read(self, offset: int, length: int) -> bytearray:
        buffer = bytearray(length)
        self._reader.read_at(offset, memoryview(buffer))
        return buffer

    def piece(self, offset: int, length: int) -> bytearray:
        """*length* bytes at *offset*."""
        if self._whole is not None:
            return self._whole[offset : offset + length]
        return self._read(offset, length)


def keep(parent: Sequence[m.vma_entry], child: Sequence[m.vma_entry], calls: list[Call]) -> Inheritance:
    """What of the parent's mappings stays; *calls* unmap the others, and fit what has grown or shrunk."""
    wanted = {entry.start: entry for entry in child}
    ends = {entry.end: entry for entry in child if entry.flags & MAP_GROWSDOWN}
    kept: list[Extent] = []
    grown: list[tuple[int, int, int]] = []
    for entry in parent:
        mine = wanted.get(entry.start) or ends.get(entry.end)
        if mine is None or not _is_same(entry, mine) or (entry.start, entry.end) != (mine.start, mine.end):
            fits = mine is not None and _is_same(entry, mine) and _fit(entry, mine, calls, grown)
            if not fits:
                calls.append((nr.munmap, entry.start, entry.end - entry.start))
                continue
        assert mine is not None
        del wanted[mine.start]
        kept.append((max(entry.start, mine.start), min(entry.end, mine.end), 0))
    for start, old, new in grown:
        calls.append((nr.mremap, start, old, new, 0))
    return Inheritance(kept, list(wanted.values()))


def _is_same(one: m.vma_entry, other: m.vma_entry) -> bool:
    return not one.flags & MAP_HUGETLB and (
        (one.status, one.flags, one.prot, one.shmid, one.pgoff, one.fdflags)
        == (other.status, other.flags, other.prot, other.shmid, other.pgoff, other.fdflags)
    )


def _fit(entry: m.vma_entry, mine: m.vma_entry, calls: list[Call], grown: list[tuple[int, int, int]]) -> bool:
    """Cut off what the child's has not at its movable end, or have it grow there once all else is unmapped."""
    if not entry.status & ANON_PRIVATE:
        return False
    if entry.start != mine.start:
        if mine.start < entry.start:
            return False
        calls.append((nr.munmap, entry.start, mine.start - entry.start))
        return True
    if mine.end < entry.end:
        calls.append((nr.munmap, mine.end, entry.end - mine.end))
    else:
        grown.append((entry.start, entry.end - entry.start, mine.end - mine.start))
    return True


def overlay(
    first: Iterable[Extent], second: Iterable[Extent]
) -> Iterator[tuple[int, int, Extent | None, Extent | None]]:
    """Where two sorted lists of extents lie, alone or over each other: (start, end, of the first, of the second)."""
    ones, others = iter(first), iter(second)
    one, other = next(ones, None), next(others, None)
    at = 0
    while one is not None or other is not None:
        start = max(at, min(each[0] for each in (one, other) if each is not None))
        here = one if one is not None and one[0] <= start else None
        there = other if other is not None and other[0] <= start else None
        ends = [each[1] for each in (here, there) if each is not None]
        ends += [each[0] for each in (one, other) if each is not None and each[0] > start]
        at = min(ends)
        yield start, at, here, there
        if one is not None and one[1] <= at:
            one = next(ones, None)
        if other is not None and other[1] <= at:
            other = next(others, None)


def differing(
    parent: Iterable[Extent],
    child: Iterable[Extent],
    kept: Iterable[Extent],
    sources: tuple[PageSource, PageSource],
    calls: list[Call],
) -> list[Extent]:
    """The child's extents that must be written; *calls* drop the parent's pages that the child has not."""
    inherited = [
        (start, end, extent[2] + start - extent[0])
        for start, end, extent, place in overlay(parent, kept)
        if extent is not None and place is not None
    ]
    found: list[Extent] = []
    for start, end, theirs, mine in overlay(inherited, child):
        if mine is None:
            calls.append((nr.madvise, start, end - start, MADV_DONTNEED))
        elif theirs is None:
            _add(found, start, end, mine[2] + start - mine[0])
        else:
            offset = mine[2] + start - mine[0]
            for first, last in _unequal(sources, theirs[2] + start - theirs[0], offset, end - start):
                _add(found, start + first, start + last, offset + first)
    return found


def _add(found: list[Extent], start: int, end: int, offset: int) -> None:
    if found and found[-1][1] == start and found[-1][2] + found[-1][1] - found[-1][0] == offset:
        found[-1] = (found[-1][0], end, found[-1][2])
    else:
        found.append((start, end, offset))


def _unequal(sources: tuple[PageSource, PageSource], theirs: int, mine: int, length: int) -> Iterator[tuple[int, int]]:
    """(first, last) byte of the pages that differ, counted from the start of the piece."""
    for at in range(0, length, _CHUNK):
        size = min(_CHUNK, length - at)
        one, other = sources[0].piece(theirs + at, size), sources[1].piece(mine + at, size)
        if one == other:
            continue
        for page in range(0, size, PAGE_SIZE):
            if one[page : page + PAGE_SIZE] != other[page : page + PAGE_SIZE]:
                yield at + page, at + page + PAGE_SIZE


def run_all(runner: Runner, calls: Iterable[Call]) -> None:
    """Make the calls, in order, by as few stops as batches need.  RemoteCallError where one fails."""
    batch = Batch()
    for call in calls:
        batch.call(*call)
        batch = runner.flush(batch)
    runner.run(batch)
