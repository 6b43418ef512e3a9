"""Large amounts of new memory filled without a page being cleared first.

Kernel view
    Whoever writes to memory that is not there yet has the kernel clear a page before.  UFFDIO_COPY of userfaultfd(2)
    makes pages of their contents at once: a third less of the processor for each.
Image
    None.
Restore
    Mappings that have just been made are registered while they are written, and by nobody else: whoever touched what
    is missing meanwhile would wait for ever.  The descriptor is closed before anything is cloned, and nothing is left.
Limits
    Private anonymous memory in small pages: where the program asked for huge ones, or this machine makes them of
    everything, faults do.
"""

from __future__ import annotations

import errno
import fcntl
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from torpor.base import log
from torpor.base.fds import Closing, OwnedFd
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.images.pagemap import Extent
from torpor.images.pages import Contents, Range
from torpor.images.store import PagesReader
from torpor.kernel import missing, userfaultfd, vm
from torpor.kernel.arch import nr
from torpor.kernel.pidfd import getfd, open_pidfd
from torpor.kernel.procfs.small import read_small
from torpor.kernel.uapi.mman import MAP_GROWSDOWN, MAP_HUGETLB, MAP_LOCKED
from torpor.kernel.uapi.userfaultfd import UFFD_API, UFFDIO_API
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory import contents
from torpor.objects.memory.areas import ANON_PRIVATE, AREA_AIORING, AREA_SHSTK, MAP_DROPPABLE
from torpor.objects.memory.inherited import overlay
from torpor.tracee.batch import Batch, RemoteCallError
from torpor.tracee.remote import Runner

#: Of one mapping, and of all together: what is less is as fast the other way.
_LEAST_BYTES, _WORTH_BYTES = 1 << 20, 4 << 20
_OTHERWISE = MAP_GROWSDOWN | MAP_HUGETLB | MAP_LOCKED
_ADVISED_HUGE = 1 << 14
_ALWAYS_HUGE = "/sys/kernel/mm/transparent_hugepage/enabled"
_MAP_TYPE = 0x0F


class Bulk(Closing):
    """Mappings of a puppet, new and empty, that are written here only until it is closed."""

    def __init__(self, pid: Pid, faults: OwnedFd, places: Sequence[Range]) -> None:
        self._pid, self._faults, self._places = pid, faults, places
        self._starts = [start for start, _ in places]

    def cut(self, extents: Iterable[Extent]) -> list[Extent]:
        """*extents*, none of which lies only in part in one of the mappings."""
        places = ((start, end, 0) for start, end in self._places)
        return [
            (start, end, extent[2] + start - extent[0])
            for start, end, extent, _ in overlay(extents, places)
            if extent is not None
        ]

    def write(self, ranges: Sequence[tuple[int, int]], data: memoryview) -> None:
        """As :func:`torpor.kernel.vm.write_from`; by any thread."""
        others: list[tuple[int, int]] = []
        rest: list[memoryview] = []
        at = 0
        for start, length in ranges:
            piece = data[at : at + length]
            at += length
            if self._has(start):
                self._copy(start, piece)
            else:
                others.append((start, length))
                rest.append(piece)
        if len(others) == len(ranges):
            vm.write_from(self._pid, ranges, data)
            return
        for (start, length), piece in zip(others, rest, strict=True):
            vm.write_from(self._pid, [(start, length)], piece)

    def _has(self, address: int) -> bool:
        index = bisect_right(self._starts, address) - 1
        return index >= 0 and address < self._places[index][1]

    def _copy(self, start: int, piece: memoryview) -> None:
        done = 0
        while done < piece.nbytes:
            try:
                n_bytes = missing.copy(self._faults.fileno(), start + done, piece[done:])
            except missing.Gone:
                raise ProcessLookupError(errno.ESRCH, "UFFDIO_COPY: the puppet is gone") from None
            if not n_bytes:
                # It is there already, so nobody waits.
                n_bytes = PAGE_SIZE
                vm.write_from(self._pid, [(start + done, n_bytes)], piece[done : done + n_bytes])
            done += n_bytes

    def close(self) -> None:
        self._faults.close()


def write(runner: Runner, entries: Iterable[m.vma_entry], extents: list[Extent], reader: PagesReader) -> int:
    """Write *extents* of the pages image into a puppet, whose new mappings *entries* are, in order; how many pages."""
    found = opened(runner, list(entries), extents)
    if found is None:
        return contents.restore(runner.thread.tgid, extents, reader)
    with found:
        return contents.restore(runner.thread.tgid, found.cut(extents), reader, found.write)


def opened(runner: Runner, entries: Iterable[m.vma_entry], extents: Iterable[Extent]) -> Bulk | None:
    """For the new mappings *entries* of a puppet, in order, into which *extents* are written; None where it is not
    worth it, or cannot be had.
    """
    places = _worth(entries, extents)
    if not places or "[always]" in read_small(_ALWAYS_HUGE):
        return None
    batch = Batch()
    try:
        made = batch.call(nr.userfaultfd, userfaultfd.FLAGS)
        runner.run(batch)
    except RemoteCallError as error:
        log.debug(f"memory is written page by page: userfaultfd: {error}")
        return None
    with OwnedFd(open_pidfd(runner.thread.tgid)) as pidfd:
        faults = OwnedFd(getfd(pidfd.fileno(), made.value))
    batch = Batch()
    batch.call(nr.close, made.value)
    runner.run(batch)
    try:
        fcntl.ioctl(faults.fileno(), UFFDIO_API, missing.API.pack(UFFD_API, 0, 0))
        for start, end in places:
            missing.register(faults.fileno(), start, end - start)
    except OSError as error:
        log.debug(f"memory is written page by page: userfaultfd: {error.strerror}")
        faults.close()
        return None
    return Bulk(runner.thread.tgid, faults, places)


def _worth(entries: Iterable[m.vma_entry], extents: Iterable[Extent]) -> list[Range]:
    """The mappings among *entries* into which much is written."""
    mappings = [entry for entry in entries if _can_be_bulk(entry)]
    if not mappings:
        return []
    sizes = [0] * len(mappings)
    numbered = ((entry.start, entry.end, number) for number, entry in enumerate(mappings))
    for start, end, extent, place in overlay(extents, numbered):
        if extent is not None and place is not None and not Contents.is_zero(extent):
            sizes[place[2]] += end - start
    found = [number for number, size in enumerate(sizes) if size >= _LEAST_BYTES]
    if sum(sizes[number] for number in found) < _WORTH_BYTES:
        return []
    return [(mappings[number].start, mappings[number].end) for number in found]


def _can_be_bulk(entry: m.vma_entry) -> bool:
    if not entry.status & ANON_PRIVATE or entry.status & (AREA_AIORING | AREA_SHSTK):
        return False
    if entry.flags & _OTHERWISE or entry.flags & _MAP_TYPE == MAP_DROPPABLE:
        return False
    return not entry.madv & _ADVISED_HUGE and entry.end - entry.start >= _LEAST_BYTES
