"""Memory that lies in the stub before the last images come: the root puppet, to whom its address space goes, has it.

Kernel view
    Private anonymous mappings at other addresses, whole multiples of 2 MiB away from their own, so that mremap(2) moves
    page tables and no pages; the puppet that moves them to where they belong has the stub's whole address space.
Image
    Those of the rounds of a migration: page maps, and in ``mm-PID.img`` the mappings alone.  Pages that come after both
    are written as they come, and lie in no image then.
Restore
    What the last images have of it in the images before them is there; the rest is written as ever.
Limits
    The tree's root only, and private anonymous memory that is neither locked nor huge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

from torpor.base.records import dataclass, field
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.pagemap import Extent, Pagemap, load_pagemap
from torpor.images.pages import Contents, Range, open_contents
from torpor.images.store import ImageStore, load_one
from torpor.kernel import vm
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import PROT_READ, PROT_WRITE
from torpor.kernel.uapi.mman import (
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_FIXED_NOREPLACE,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
)
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory import contents, vmas
from torpor.objects.memory.areas import ANON_PRIVATE
from torpor.objects.memory.inherited import Call, overlay, run_all
from torpor.tracee import stub
from torpor.tracee.remote import Runner

_NO_FD = (1 << 64) - 1
_READ_WRITE = PROT_READ | PROT_WRITE
_HUGE = 2 << 20
#: What is left free at both ends of each, for what it may grow by: of all of them together, at most so much.
_SLACK, _MOST_SLACK = 1 << 30, 1 << 36
_PLAIN = MAP_PRIVATE | MAP_ANONYMOUS
_TOP = 1 << 64


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a mapping lies, *shift* away from its own address; its neighbourhood is free from *low* to *high*."""

    entry: m.vma_entry
    shift: int
    low: int
    high: int

    @property
    def start(self) -> int:
        return self.entry.start + self.shift

    @property
    def end(self) -> int:
        return self.entry.end + self.shift

    @property
    def noreserve(self) -> int:
        return self.entry.flags & MAP_NORESERVE

    def has_room_for(self, entry: m.vma_entry) -> bool:
        """Whether it can become that mapping, which may have grown, or be a part of it."""
        is_near = self.low <= entry.start + self.shift and entry.end + self.shift <= self.high
        return is_near and entry.flags & MAP_NORESERVE == self.noreserve


@dataclass(slots=True)
class Parked:
    """The memory of the process *ident* in the stub whose own is at *area*.  TargetGoneError when that has died.

    ``there``: the pages that are in it, at their own addresses, in order.
    """

    ident: int
    area: Range
    there: list[Extent] = field(default_factory=list)
    #: By the addresses of the mappings.
    _places: list[_Place] = field(default_factory=list)
    #: The last set that was taken, or is being: some of its pages, and of those of the sets before, may be only here.
    _last: ImageStore | None = None
    #: The set whose pages have been written, or are being, as they come.
    _begun: ImageStore | None = None

    def begin(self, runner: Runner, store: ImageStore, name: str) -> list[Extent]:
        """The pages image *name* of the set *store* is about to come: which of its pages are to be written where, by
        their offsets in it.  None unless all that is told of them is there.

        As of :meth:`take`, which has nothing left to do then.
        """
        told = self._told(store, name)
        if told is None:
            return []
        missing = self._prepare(runner, store, told, Contents.is_of_parents)
        self._begun = store
        return sorted(filter(_is_new, missing), key=lambda each: each[2])

    def _told(self, store: ImageStore, name: str) -> Pagemap | None:
        """The page map of the process, if *name* is what it is about, and there is no other process in its tree: others
        look at what they share.
        """
        spaces = [each for each in store.names() if kinds.MM.parse_file_name(each) is not None]
        if spaces != [kinds.MM.file_name(self.ident)] or not store.exists(kinds.PAGEMAP.file_name(self.ident)):
            return None
        found = load_pagemap(store, self.ident, page_bytes=PAGE_SIZE)
        return found if found.pages_name == name else None

    def take(self, runner: Runner, store: ImageStore) -> None:
        """Have what *store* and those before it say of the process, all of which but *store* have been taken before."""
        if self._begun is not store:
            self._prepare(runner, store, load_pagemap(store, self.ident, page_bytes=PAGE_SIZE), lambda each: True)

    def _prepare(
        self, runner: Runner, store: ImageStore, told: Pagemap, is_wanted: Callable[[Extent], bool]
    ) -> list[Extent]:
        """Have the mappings that are needed for what *store* has of the process: what of it is missing, at the
        addresses that it has here; what of that *is_wanted* is written.
        """
        entries = load_one(store, kinds.MM, self.ident).vmas
        numbered = _numbered(entries)
        with ExitStack() as stack:
            kept = stack.enter_context(self._open(store, told))
            filled = {number for start, end, number in numbered if _inside(kept.extents, start, end)}
            wanted = [entries[number] for _, _, number in numbered if number in filled]
            calls: list[Call] = []
            places = self._places
            known = self._lay_out(wanted, calls, entries)
            if any(map(Contents.is_there, _rest(kept.extents, known))):
                kept = stack.enter_context(open_contents(store, self.ident, page_bytes=PAGE_SIZE, found=told))
                self._copy_back(runner, places, kept, _rest(self._old(kept), known))
            inside = _clipped(kept.extents, self._places)
            missing = difference(_moved(known, self._places), _moved(inside, self._places), calls)
            run_all(runner, calls)
            self.there = _joined(each for each in inside if not Contents.is_zero(each))
            self._last = store
            contents.restore(runner.tid, [each for each in missing if is_wanted(each)], kept.reader)
        return missing

    def _open(self, store: ImageStore, told: Pagemap | None = None, later: list[Range] | None = None) -> Contents:
        """The contents of the process; where in the sets before that lies which is here is not looked for.

        After some rounds that would take as long as there are pieces of it.
        """
        there = [(start, end) for start, end, _ in self.there]
        return open_contents(store, self.ident, page_bytes=PAGE_SIZE, later=later, there=there, found=told)

    def _old(self, kept: Contents) -> list[Extent]:
        """What is here, and lies in images before the last ones, perhaps without its bytes."""
        old = [each for each in kept.extents if Contents.is_of_parents(each)]
        return [each for start, end, _ in self.there for each in _inside(old, start, end)]

    def put_all_back(self, runner: Runner) -> None:
        """Nothing is only here any more: whoever reads the images finds it there."""
        if self._last is None:
            return
        with open_contents(self._last, self.ident, page_bytes=PAGE_SIZE) as kept:
            held = [each for each in kept.extents if not Contents.is_zero(each)]
            self._copy_back(runner, self._places, kept, held)

    def _copy_back(self, runner: Runner, places: Sequence[_Place], kept: Contents, extents: Iterable[Extent]) -> None:
        """Of the *extents* of *kept*, which lie at *places*, those that were left out of the images are put there."""
        from torpor.images.stores.spooled import Part

        shifts = [(place.entry.start, place.entry.end, place.shift) for place in places]
        for first, last, extent, shift in overlay(extents, shifts):
            if extent is None or shift is None:
                continue
            reader, offset = kept.locate(extent[2] + first - extent[0])
            for at in range(first, last, contents.CHUNK_BYTES):
                n_bytes = min(last - at, contents.CHUNK_BYTES)
                if isinstance(reader, Part) and reader.is_absent(offset + at - first, n_bytes):
                    buffer = memoryview(bytearray(n_bytes))
                    vm.read_into(runner.tid, [(at + shift[2], n_bytes)], buffer)
                    reader.put_back(offset + at - first, buffer)

    def fit(self, runner: Runner, entries: Sequence[m.vma_entry], store: ImageStore) -> None:
        """Have the mappings as they are among the last *entries*, as far as they are there.  *store*: the last set.

        What has grown is one mapping again, for nothing here has come by fork (is_mergeable_anon_vma).
        """
        calls: list[Call] = []
        places = self._places
        known = self._lay_out([entries[number] for _, _, number in _numbered(entries)], calls)
        # The tree is stopped meanwhile: the images are looked into only where something has no place any more.
        if _rest(self.there, known):
            self._put_lost_back(runner, store, places, known)
        self.there = _joined(known)
        run_all(runner, calls)

    def _put_lost_back(
        self, runner: Runner, store: ImageStore, places: Sequence[_Place], known: Sequence[Extent]
    ) -> None:
        """What the last set *store* leaves to those before it, and is not *known* to stay, is found in these."""
        with self._open(store, later=[]) as kept:
            if not any(map(Contents.is_there, _rest(kept.extents, known))):
                return
        with open_contents(store, self.ident, page_bytes=PAGE_SIZE, later=[]) as kept:
            self._copy_back(runner, places, kept, _rest(self._old(kept), known))

    def bring(self, runner: Runner) -> None:
        """Move all to where it belongs, in the puppet that has the stub's address space."""
        flags = MREMAP_MAYMOVE | MREMAP_FIXED
        run_all(runner, [
            (nr.mremap, place.start, *[place.end - place.start] * 2, flags, place.entry.start)
            for place in self._places
        ])  # fmt: skip

    def stays(self, kept: Iterable[Extent]) -> list[Extent]:
        """The pages that are in it, as far as they lie in the mappings *kept*."""
        return list(_shared(self.there, kept))

    @property
    def entries(self) -> list[m.vma_entry]:
        """The mappings, in order."""
        return [place.entry for place in self._places]

    @property
    def raised(self) -> set[int]:
        """The starts of those that are to have another protection than they have."""
        return {place.entry.start for place in self._places if place.entry.prot != _READ_WRITE}

    def _lay_out(
        self, wanted: Sequence[m.vma_entry], calls: list[Call], entries: Iterable[m.vma_entry] | None = None
    ) -> list[Extent]:
        """Have places for the *wanted* mappings, and no others: those that there are, or, beside all *entries* of the
        process, new ones.  *calls* map and unmap; the pages that are there still.
        """
        before = self._places
        chosen = self._chosen(wanted)
        new = [entry for number, entry in enumerate(wanted) if number not in chosen]
        places = [*chosen.values(), *(self._new(new, entries) if entries is not None else ())]
        self._places = sorted(places, key=lambda place: place.entry.start)
        old, now = (sorted((each.start, each.end, each.noreserve) for each in side) for side in (before, self._places))
        for start, end, was, is_now in overlay(old, now):
            if is_now is None:
                calls.append((nr.munmap, start, end - start))
            elif was is None:
                flags = _PLAIN | MAP_FIXED_NOREPLACE | is_now[2]
                calls.append((nr.mmap, start, end - start, _READ_WRITE, flags, _NO_FD, 0))
        shifts = [(place.entry.start, place.entry.end, place.shift) for place in before]
        stays = [(start, end, 0) for start, end, one, other in overlay(shifts, self._shifts())
                 if one is not None and other is not None and one[2] == other[2]]  # fmt: skip
        return [(start, end, 0) for start, end, _ in _shared(self.there, stays)]

    def _shifts(self) -> list[Extent]:
        return [(place.entry.start, place.entry.end, place.shift) for place in self._places]

    def _chosen(self, wanted: Sequence[m.vma_entry]) -> dict[int, _Place]:
        """What can become each of the *wanted*, by their numbers: where most of it lies."""
        mappings = [(entry.start, entry.end, number) for number, entry in enumerate(wanted)]
        places = [(place.entry.start, place.entry.end, number) for number, place in enumerate(self._places)]
        most: dict[int, tuple[int, _Place]] = {}
        for start, end, one, other in overlay(mappings, places):
            if one is not None and other is not None:
                place, entry = self._places[other[2]], wanted[one[2]]
                if end - start > most.get(one[2], (0, place))[0] and place.has_room_for(entry):
                    most[one[2]] = end - start, place
        return {
            number: _Place(wanted[number], place.shift, place.low, place.high) for number, (_, place) in most.items()
        }

    def _new(self, new: Sequence[m.vma_entry], entries: Iterable[m.vma_entry]) -> Iterator[_Place]:
        """Where neither the process nor we have anything."""
        if not new:
            return
        taken = [self.area, *((entry.start, entry.end) for entry in entries)]
        taken += [(place.low, place.high) for place in self._places]
        slack = min(_SLACK, _MOST_SLACK // len(new)) & -_HUGE
        sizes = [(entry.end - entry.start + 2 * slack + 2 * _HUGE) & -_HUGE for entry in new]
        low = (stub.find_area(taken, sum(sizes) + _HUGE) + _HUGE - 1) & -_HUGE
        for entry, size in zip(new, sizes, strict=True):
            yield _Place(entry, low + slack - (entry.start & -_HUGE), low, low + size)
            low += size


def _is_new(extent: Extent) -> bool:
    """Whether its pages lie in the pages image of the set itself."""
    return not Contents.is_zero(extent) and not Contents.is_of_parents(extent)


def _can_be_parked(entry: m.vma_entry) -> bool:
    is_sound = entry.start < entry.end and not (entry.start | entry.end) % PAGE_SIZE
    is_plain = entry.flags & ~MAP_NORESERVE == _PLAIN and bool(entry.status & ANON_PRIVATE)
    return is_sound and is_plain and vmas.is_made(entry)


def _numbered(entries: Iterable[m.vma_entry]) -> list[Extent]:
    """The mappings that can be parked, in order: where they lie, and their numbers; none that overlaps one before."""
    found: list[Extent] = []
    mappings = [(entry.start, entry.end, number) for number, entry in enumerate(entries) if _can_be_parked(entry)]
    for each in sorted(mappings):
        if not found or found[-1][1] <= each[0]:
            found.append(each)
    return found


def _shared(extents: Iterable[Extent], places: Iterable[Extent]) -> Iterator[Extent]:
    """The parts of *extents* that lie in *places*, with what the former say of them as it stands."""
    for start, end, extent, place in overlay(extents, places):
        if extent is not None and place is not None:
            yield start, end, extent[2]


def _inside(extents: Sequence[Extent], start: int, end: int) -> list[Extent]:
    """The parts of *extents*, which ascend, that lie between two addresses; there may be one for each page."""
    first = bisect_left(extents, (start,))
    if first and extents[first - 1][1] > start:
        first -= 1
    found = list(extents[first : bisect_left(extents, (end,), first)])
    if found and found[0][0] < start:
        at, until, offset = found[0]
        found[0] = (start, until, offset + start - at)
    if found and found[-1][1] > end:
        at, _, offset = found[-1]
        found[-1] = (at, end, offset)
    return found


def _rest(extents: Sequence[Extent], places: Iterable[Extent]) -> list[Extent]:
    """The parts of *extents* that lie in none of the *places*; both ascend."""
    found: list[Extent] = []
    at = 0
    for start, end, _ in places:
        found += _inside(extents, at, start)
        at = end
    return found + _inside(extents, at, _TOP)


def _joined(extents: Iterable[Extent]) -> list[Extent]:
    """Where *extents* are, wherever their pages came from: after some rounds each page may be from another one."""
    found: list[Extent] = []
    for start, end, _ in extents:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end, 0)
        else:
            found.append((start, end, 0))
    return found


def _clipped(extents: Sequence[Extent], places: Iterable[_Place]) -> list[Extent]:
    """The parts of *extents* that lie in one of *places*, cut where that ends."""
    return [each for place in places for each in _inside(extents, place.entry.start, place.entry.end)]


def _moved(extents: Sequence[Extent], places: Iterable[_Place]) -> list[Extent]:
    """*extents*, which lie in *places*, where they lie by now, in order of that."""
    return sorted(
        (start + place.shift, end + place.shift, offset)
        for place in places
        for start, end, offset in _inside(extents, place.entry.start, place.entry.end)
    )


def difference(known: Iterable[Extent], wanted: Sequence[Extent], calls: list[Call]) -> list[Extent]:
    """What of the *wanted* is to be written where the pages of the sets before are *known*; *calls* drop all others."""
    found: list[Extent] = []
    until = 0

    def drop(start: int, end: int) -> None:
        if start < end:
            calls.append((nr.madvise, start, end - start, MADV_DONTNEED))

    for start, end, _ in known:
        found += [each for each in _inside(wanted, until, start) if not Contents.is_zero(each)]
        at = start
        for each in _inside(wanted, start, end):
            drop(at, each[0])
            if Contents.is_zero(each):
                drop(each[0], each[1])
            elif not Contents.is_of_parents(each):
                found.append(each)
            at = each[1]
        drop(at, end)
        until = end
    return found + [each for each in _inside(wanted, until, _TOP) if not Contents.is_zero(each)]


def still_missing(
    parked: Parked, kept: Sequence[Extent], extents: Sequence[Extent], lazy: Sequence[Range], calls: list[Call]
) -> list[Extent]:
    """What of the last set's *extents* is to be written where the mappings *kept* are those that were parked.

    Where *lazy* pages come later there is to be nothing, not even what a huge page has beside those that were written.
    """
    for start, end, _ in _shared(((start, end, 0) for start, end in lazy), kept):
        calls.append((nr.madvise, start, end - start, MADV_DONTNEED))
    return difference(parked.stays(kept), extents, calls)
