"""Memory that several copies of one tree share: it lies parked in a template, from which the root of each is cloned.

Kernel view
    Anonymous memory is shared copy-on-write along fork alone.  mremap(2) of a parked mapping to its place moves page
    tables, whole ones where both places are alike modulo 2 MiB.
Image
    None of its own: mm-PID.img and the page maps.
Restore
    A template holds the private anonymous mappings of all processes of the images, each at an address that is free in
    all of them; every puppet inherits the lot, moves its own ones into place before its children are cloned, and drops
    the rest when they are.
Limits
    What a process has by fork from its parent stays a copy of that: pages that it has changed there are written for
    each copy, as are those of files mapped privately.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torpor.base.records import dataclass
from torpor.images import messages as m
from torpor.images.pagemap import Extent
from torpor.images.pages import Contents, open_contents
from torpor.images.store import ImageStore
from torpor.kernel.uapi.mman import MAP_GROWSDOWN, MAP_HUGETLB, MAP_LOCKED
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory import bulk, vmas
from torpor.objects.memory.areas import ANON_PRIVATE, AREA_AIORING, AREA_SHSTK, MAP_DROPPABLE
from torpor.objects.memory.inherited import keep, overlay
from torpor.objects.model import RestoreProcess
from torpor.tracee import stub
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner

#: What a page table of the lowest level maps: between places that are alike modulo this, whole tables are moved.
_ALIKE = 2 << 20
#: Smaller ones are written as fast as they are moved.
_LEAST_BYTES = 64 << 10
#: No template has more of them: the largest are taken.
_MOST = 20_000
_MAP_TYPE = 0x0F


@dataclass(frozen=True, slots=True)
class Parking:
    """Where mappings lie in the template, all of them between ``start`` and ``end``: of each space, by where they begin
    in the end.
    """

    start: int
    end: int
    places: dict[int, dict[int, int]]

    def of(self, process: RestoreProcess) -> dict[int, int]:
        """Those of one process: the start of a mapping, and where it is parked."""
        return self.places.get(process.ids.vm_id, {})


def plan(processes: Sequence[RestoreProcess], taken: Iterable[tuple[int, int]]) -> Parking | None:
    """What of the living *processes* (parents first) is parked, and where: nowhere where *taken* or any of them has
    something.  None where nothing is.
    """
    found: list[tuple[int, m.vma_entry]] = []
    for process in _owners(processes):
        found += [(process.ids.vm_id, entry) for entry in _own(process) if _can_be_parked(entry)]
    if len(found) > _MOST:
        found = sorted(found, key=lambda each: each[1].start - each[1].end)[:_MOST]
    if not found:
        return None
    offsets, end = [], 0
    for _, entry in found:
        at = end + (entry.start - end) % _ALIKE
        offsets.append(at)
        end = at + entry.end - entry.start + PAGE_SIZE
    mappings = [(vma.start, vma.end) for process in processes if process.mm for vma in process.mm.vmas]
    start = -(-stub.find_area([*mappings, *taken], end + _ALIKE) // _ALIKE) * _ALIKE
    places: dict[int, dict[int, int]] = {}
    for (ident, entry), offset in zip(found, offsets, strict=True):
        places.setdefault(ident, {})[entry.start] = start + offset
    return Parking(start, start + end, places)


def fill(parking: Parking, processes: Sequence[RestoreProcess], store: ImageStore, template: Runner) -> int:
    """Make the mappings in the *template*, and write their contents; the number of pages."""
    n_pages = 0
    for process in _owners(processes):
        parked = _parked(parking, process)
        batch = Batch()
        made: list[m.vma_entry] = []
        for entry, at in parked:
            moved = m.vma_entry(start=at, end=at + entry.end - entry.start, pgoff=0, shmid=0, prot=entry.prot,
                                flags=entry.flags, status=entry.status, fd=-1, madv=entry.madv)  # fmt: skip
            made.append(moved)
            vmas.restore_map(moved, None, True, batch)
            batch = template.flush(batch)
        template.run(batch)
        if parked:
            with open_contents(store, process.ns_pid, page_bytes=PAGE_SIZE) as kept:
                extents = sorted(_moved(kept.extents, parked))
                n_pages += bulk.write(template, sorted(made, key=lambda each: each.start), extents, kept.reader)
    return n_pages


def others(extents: Iterable[Extent], entries: Iterable[m.vma_entry]) -> list[Extent]:
    """*extents*, but for what lies in the *entries*, which ascend."""
    places = ((entry.start, entry.end, 0) for entry in entries)
    return [
        (start, end, extent[2] + start - extent[0])
        for start, end, extent, place in overlay(extents, places)
        if extent is not None and place is None
    ]


def _owners(processes: Iterable[RestoreProcess]) -> Iterator[RestoreProcess]:
    """The first of each space."""
    seen: set[int] = set()
    for process in processes:
        if process.mm is not None and process.ids.vm_id not in seen:
            seen.add(process.ids.vm_id)
            yield process


def _own(process: RestoreProcess) -> list[m.vma_entry]:
    """Mappings that it has not by fork from its parent."""
    assert process.mm is not None
    entries = [entry for entry in process.mm.vmas if vmas.is_made(entry)]
    parent = process.parent
    if parent is None or parent.mm is None or parent.ids.vm_id == process.ids.vm_id:
        return entries
    return keep([entry for entry in parent.mm.vmas if vmas.is_made(entry)], entries, []).made


def _can_be_parked(entry: m.vma_entry) -> bool:
    if not entry.status & ANON_PRIVATE or entry.status & (AREA_AIORING | AREA_SHSTK):
        return False
    if entry.flags & (MAP_HUGETLB | MAP_GROWSDOWN | MAP_LOCKED) or entry.flags & _MAP_TYPE == MAP_DROPPABLE:
        return False
    return entry.end - entry.start >= _LEAST_BYTES


def _parked(parking: Parking, process: RestoreProcess) -> list[tuple[m.vma_entry, int]]:
    assert process.mm is not None
    places = parking.of(process)
    return [(entry, places[entry.start]) for entry in process.mm.vmas if entry.start in places and vmas.is_made(entry)]


def _moved(extents: Iterable[Extent], parked: Iterable[tuple[m.vma_entry, int]]) -> Iterator[Extent]:
    """Where the *extents* of parked mappings are written; new memory is zeroes by itself."""
    places = ((entry.start, entry.end, at - entry.start) for entry, at in parked)
    for start, end, extent, place in overlay(extents, places):
        if extent is not None and place is not None and not Contents.is_zero(extent):
            yield start + place[2], end + place[2], extent[2] + start - extent[0]
