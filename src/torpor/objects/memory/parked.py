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

from collections.abc import Iterable, Iterator, Sequence

from torpor.base.records import dataclass, field
from torpor.base.typed import TYPE_CHECKING
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.pagemap import Extent, load_pagemap
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

if TYPE_CHECKING:
    from torpor.images.stores.spooled import Spool

_NO_FD = (1 << 64) - 1
_READ_WRITE = PROT_READ | PROT_WRITE
_HUGE = 2 << 20
#: What is left free at both ends of each, for what it may grow by: of all of them together, at most so much.
_SLACK, _MOST_SLACK = 1 << 30, 1 << 36
_PLAIN = MAP_PRIVATE | MAP_ANONYMOUS


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


@dataclass(frozen=True, slots=True)
class _OnlyHere:
    """Pages, at their own addresses, that have been written here as they came, and what would have been their place in
    the images.
    """

    start: int
    end: int
    spool: Spool
    offset: int


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
    #: In order.
    _only_here: list[_OnlyHere] = field(default_factory=list)
    #: The set whose pages have been written, or are being, as they come.
    _begun: ImageStore | None = None

    def begin(self, runner: Runner, store: ImageStore, name: str, spool: Spool, start: int) -> list[Extent]:
        """The pages image *name* of the set *store* is about to come, and would lie from *start* on in *spool*: which
        of its pages are to be written where, by their offsets in it.  None unless all that is told of them is there.

        As of :meth:`take`, which has nothing left to do then.
        """
        if not self._is_told(store, name):
            return []
        with open_contents(store, self.ident, page_bytes=PAGE_SIZE) as kept:
            missing, inside = self._prepare(runner, store, kept)
            contents.restore(runner.tid, [each for each in missing if Contents.is_of_parents(each)], kept.reader)
        new = [_OnlyHere(first, end, spool, start + offset) for first, end, offset in filter(_is_new, inside)]
        self._only_here = sorted(self._only_here + new, key=lambda each: each.start)
        self._begun = store
        return sorted(filter(_is_new, missing), key=lambda each: each[2])

    def _is_told(self, store: ImageStore, name: str) -> bool:
        """Whether these are the pages of the process, and the only one of its tree: others look at what they share."""
        spaces = [each for each in store.names() if kinds.MM.parse_file_name(each) is not None]
        if spaces != [kinds.MM.file_name(self.ident)] or not store.exists(kinds.PAGEMAP.file_name(self.ident)):
            return False
        return load_pagemap(store, self.ident, page_bytes=PAGE_SIZE).pages_name == name

    def take(self, runner: Runner, store: ImageStore) -> None:
        """Have what *store* and those before it say of the process, all of which but *store* have been taken before."""
        if self._begun is store:
            return
        with open_contents(store, self.ident, page_bytes=PAGE_SIZE) as kept:
            missing, _ = self._prepare(runner, store, kept)
            contents.restore(runner.tid, missing, kept.reader)

    def _prepare(self, runner: Runner, store: ImageStore, kept: Contents) -> tuple[list[Extent], list[Extent]]:
        """Have the mappings that are needed for what is *kept*: what of it is missing, at the addresses that it has
        here, and all of it that can lie here, at its own.
        """
        entries = load_one(store, kinds.MM, self.ident).vmas
        numbered = _numbered(entries)
        filled = {number for _, _, number in _shared(numbered, kept.extents)}
        wanted = [entries[number] for _, _, number in numbered if number in filled]
        calls: list[Call] = []
        places = self._places
        known = self._lay_out(wanted, calls, entries)
        inside = _clipped(kept.extents, self._places)
        missing = difference(_moved(known, self._places), _moved(inside, self._places), calls)
        self._put_back(runner, places, known, kept)
        run_all(runner, calls)
        self.there = _joined(each for each in inside if not Contents.is_zero(each))
        return missing, inside

    def _put_back(self, runner: Runner, places: Sequence[_Place], known: Sequence[Extent], kept: Contents) -> None:
        """Of the pages that are only here those that are among the *kept*, and not *known* any more, are copied to
        where they are looked for then; the *places* are those where they lie.
        """
        needed = [each for each in kept.extents if Contents.is_of_parents(each)]
        lost = [
            (start, end, 0) for start, end, one, other in overlay(needed, known) if one is not None and other is None
        ]
        self._copy_back(runner, places, lost)
        self._only_here = self._parts(list(_shared(needed, known)))

    def put_all_back(self, runner: Runner) -> None:
        """Nothing is only here any more: whoever reads the images finds it there."""
        self._copy_back(runner, self._places, [(each.start, each.end, 0) for each in self._only_here])
        self._only_here = []

    def _copy_back(self, runner: Runner, places: Sequence[_Place], ranges: Sequence[Extent]) -> None:
        shifts = [(place.entry.start, place.entry.end, place.shift) for place in places]
        for part in self._parts(ranges):
            for start, end, _, shift in overlay([(part.start, part.end, 0)], shifts):
                if shift is None or not part.start <= start < part.end:
                    continue
                for at in range(start, end, contents.CHUNK_BYTES):
                    buffer = memoryview(bytearray(min(end - at, contents.CHUNK_BYTES)))
                    vm.read_into(runner.tid, [(at + shift[2], len(buffer))], buffer)
                    part.spool.put_back(part.offset + at - part.start, buffer)

    def _parts(self, ranges: Sequence[Extent]) -> list[_OnlyHere]:
        """Of the pages that are only here those in *ranges*."""
        held = [(each.start, each.end, number) for number, each in enumerate(self._only_here)]
        found = []
        for start, end, number in _shared(held, ranges):
            each = self._only_here[number]
            found.append(_OnlyHere(start, end, each.spool, each.offset + start - each.start))
        return found

    def fit(self, runner: Runner, entries: Sequence[m.vma_entry], store: ImageStore) -> None:
        """Have the mappings as they are among the last *entries*, as far as they are there.  *store*: the last set.

        What has grown is one mapping again, for nothing here has come by fork (is_mergeable_anon_vma).
        """
        calls: list[Call] = []
        places, there = self._places, self.there
        self.there = _joined(self._lay_out([entries[number] for _, _, number in _numbered(entries)], calls))
        # The tree is stopped meanwhile: the images are looked into only where something has no place any more.
        if self._only_here and self.there != there:
            with open_contents(store, self.ident, page_bytes=PAGE_SIZE, later=[]) as kept:
                self._put_back(runner, places, self.there, kept)
        run_all(runner, calls)

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


def _joined(extents: Iterable[Extent]) -> list[Extent]:
    """Where *extents* are, wherever their pages came from: after some rounds each page may be from another one."""
    found: list[Extent] = []
    for start, end, _ in extents:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end, 0)
        else:
            found.append((start, end, 0))
    return found


def _clipped(extents: Iterable[Extent], places: Iterable[_Place]) -> list[Extent]:
    """The parts of *extents* that lie in one of *places*, cut where that ends."""
    whole = [(place.entry.start, place.entry.end, 0) for place in places]
    return [(start, end, extent[2] + start - extent[0]) for start, end, extent, place in overlay(extents, whole)
            if extent is not None and place is not None]  # fmt: skip


def _moved(extents: Iterable[Extent], places: Iterable[_Place]) -> list[Extent]:
    """*extents*, which lie in *places*, where they lie by now, in order of that."""
    shifts = [(place.entry.start, place.entry.end, place.shift) for place in places]
    return sorted(
        (start + place[2], end + place[2], extent[2] + start - extent[0])
        for start, end, extent, place in overlay(extents, shifts)
        if extent is not None and place is not None
    )


def difference(known: Iterable[Extent], wanted: Iterable[Extent], calls: list[Call]) -> list[Extent]:
    """What of the *wanted* is to be written where the pages of the sets before are *known*; *calls* drop all others."""
    found: list[Extent] = []
    for start, end, old, new in overlay(known, wanted):
        if new is None or Contents.is_zero(new):
            if old is not None:
                calls.append((nr.madvise, start, end - start, MADV_DONTNEED))
        elif old is None or not Contents.is_of_parents(new):
            found.append((start, end, new[2] + start - new[0]))
    return found


def still_missing(
    parked: Parked, kept: Sequence[Extent], extents: Iterable[Extent], lazy: Sequence[Range], calls: list[Call]
) -> list[Extent]:
    """What of the last set's *extents* is to be written where the mappings *kept* are those that were parked.

    Where *lazy* pages come later there is to be nothing, not even what a huge page has beside those that were written.
    """
    for start, end, _ in _shared(((start, end, 0) for start, end in lazy), kept):
        calls.append((nr.madvise, start, end - start, MADV_DONTNEED))
    return difference(parked.stays(kept), extents, calls)
