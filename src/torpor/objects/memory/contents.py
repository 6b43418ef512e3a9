"""Contents of private memory: which pages a task has made its own, and moving them.

Kernel view
    PAGEMAP_SCAN; process_vm_readv, and ``/proc/PID/mem`` where it would do harm or a mapping may not be read.
Image
    ``pagemap-PID.img`` and ``pages-N.img``.
Restore
    process_vm_writev into fresh mappings.
Limits
    Shared memory is ``segments``' to copy. Guard pages are found here, and have no contents.

Zero pages that were only read are not stored.  Both ways several threads move large vectors; all the calls release the
GIL.
"""

from __future__ import annotations

import mmap
import os
from _thread import LockType, allocate_lock, start_new_thread
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from torpor.base.errors import TorporError
from torpor.base.fds import Closing, OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass
from torpor.images.pagemap import Extent, PageRun
from torpor.images.pages import PageStream, Piece, Range
from torpor.images.store import PagesReader
from torpor.kernel import pagemap, vm
from torpor.kernel.procfs import maps
from torpor.kernel.procfs.maps import PROT_READ, Vma
from torpor.kernel.vm import PAGE_SIZE

_CHUNK = 512 * 1024
_MAX_WORKERS = 4
_GAP = 1 << 24
#: Where to look page by page takes seconds, and once more through smaps, whose kernel side skips page tables that are
#: not there, does not: programs reserve a terabyte and touch none of it.
_VAST = 1 << 30
_ANON = pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED
#: Fills a buffer with the pages of some pieces, one behind the other.
Read = Callable[[Sequence[Piece], memoryview], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What page tables hold: pages of the task's own, and guard pages, as (start, end)."""

    ranges: list[Range]
    guards: list[Range]


def scan(pid: Pid, vmas: Sequence[Vma]) -> Found:
    """The pages in *vmas* that only this task has."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as stream:
        scanner = pagemap.PagemapScanner(stream.fileno())
        if any(vma.length > _VAST for vma in vmas) and not scanner.skips_holes():
            empty = maps.read_empty(pid)
            vmas = [vma for vma in vmas if vma.length <= _VAST or vma.start not in empty]
        return _scan(scanner, vmas)


def _scan(scanner: pagemap.PagemapScanner, vmas: Sequence[Vma]) -> Found:
    ranges: list[Range] = []
    guards: list[Range] = []
    # Of the vdso the task has touched some perhaps, and all of it is wanted; a ring's pages are those of a file.
    whole = [(vma.start, vma.end) for vma in vmas if vma.is_vdso or vma.is_aio_ring]
    for group in _neighbours(vma for vma in vmas if not vma.is_vdso and not vma.is_aio_ring):
        regions = scanner.iter_ranges(group[0].start, group[-1].end)
        for vma, start, end, kind in _within(regions, group):
            if kind & pagemap.PAGE_IS_GUARD:
                guards.append((start, end))
            elif not kind & _ANON or kind & pagemap.PAGE_IS_PFNZERO or (kind & pagemap.PAGE_IS_FILE and vma.is_file):
                continue
            elif ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((start, end))
    return Found(sorted(ranges + whole) if whole else ranges, guards)


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


def _neighbours(vmas: Iterable[Vma]) -> Iterator[list[Vma]]:
    """Mappings that are looked through in one call: whatever else lies in the small gaps between them is left out."""
    group: list[Vma] = []
    for vma in vmas:
        if group and vma.start - group[-1].end > _GAP:
            yield group
            group = []
        group.append(vma)
    if group:
        yield group


def _within(regions: Iterable[tuple[int, int, int]], vmas: Iterable[Vma]) -> Iterator[tuple[Vma, int, int, int]]:
    """The parts of *regions* that lie in *vmas*, both in order: (mapping, start, end, categories)."""
    rest = iter(vmas)
    vma = next(rest, None)
    for start, end, kind in regions:
        while vma is not None and vma.end <= start:
            vma = next(rest, None)
        while vma is not None and vma.start < end:
            yield vma, max(start, vma.start), min(end, vma.end), kind
            if vma.end > end:
                break
            vma = next(rest, None)


class Memory(Closing):
    """The memory of *pid*, to be copied from.  A context manager; OSError where it cannot be opened.

    process_vm_readv takes many pieces in one call, but pins pages, and to pin one that is shared by fork the kernel
    first makes a copy (FAULT_FLAG_UNSHARE, since 6.0): *gentle* goes by ``/proc/PID/mem``, which reads what the task
    itself may not (*unreadable*: there are such pages) as well.
    """

    def __init__(self, pid: Pid, *, gentle: bool, unreadable: bool) -> None:
        self._pid, self._gentle, self._unreadable = pid, gentle, unreadable
        self._file = OwnedFd(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))

    def read(self, pieces: Sequence[Piece], into: memoryview) -> None:
        """The pieces, one behind the other; TorporError or OSError where there are no such pages."""
        if self._gentle:
            self._read_each(pieces, into)
            return
        try:
            vm.read_into(self._pid, pieces, into)
        except OSError:
            if not self._unreadable:
                raise
            self._read_each(pieces, into)

    def _read_each(self, pieces: Sequence[Piece], into: memoryview) -> None:
        done, fd = 0, self._file.fileno()
        for start, length in pieces:
            if os.preadv(fd, [into[done : done + length]], start) != length:
                raise TorporError(f"memory of pid {self._pid} at {start:#x} cannot be read")
            done += length

    def close(self) -> None:
        self._file.close()


class Aside:
    """Copies of some *ranges* of a task's memory, which *read* gives, for a time when they cannot be read any more."""

    def __init__(self, ranges: Sequence[Range], read: Read) -> None:
        self._places: list[tuple[int, int, memoryview]] = []
        for group in _chunks(ranges):
            view = memoryview(mmap.mmap(-1, sum(length for _, length in group)))
            read(group, view)
            at = 0
            for start, length in group:
                self._places.append((start, start + length, view[at : at + length]))
                at += length

    def over(self, read: Read) -> Read:
        """*read*, but for what is here."""
        if not self._places:
            return read
        starts = [place[0] for place in self._places]

        def read_both(pieces: Sequence[Piece], into: memoryview) -> None:
            done = 0
            for start, length in pieces:
                part, at = into[done : done + length], start
                while at < start + length:
                    index = bisect_right(starts, at) - 1
                    if index < 0 or self._places[index][1] <= at:
                        read([(at, start + length - at)], part[at - start :])
                        break
                    first, last, view = self._places[index]
                    until = min(last, start + length)
                    part[at - start : until - start] = view[at - first : until - first]
                    at = until
                done += length

        return read_both


def is_unreadable(vma: Vma) -> bool:
    """Whether the task itself may not read there, and ``Memory`` is to know."""
    return not vma.prot & PROT_READ


def copy(ranges: Iterable[Range], read: Read, stream: PageStream, elsewhere: Iterable[PageRun] = ()) -> None:
    """Have *stream* take what *read* gives of *ranges*, and be told which runs are *elsewhere*; both ascend.

    Whose memory it is, and whether that runs, is the business of *read*, by which several threads may read at once.
    """
    groups = list(_chunks(ranges))
    others = iter(elsewhere)
    other = next(others, None)

    def make_room(group: list[Piece]) -> int:
        nonlocal other
        start, length = group[-1]
        while other is not None and other.vaddr < start + length:
            stream.run(other)
            other = next(others, None)
        return stream.room(group)

    if stream.in_any_order and len(groups) > 1:
        rooms = [make_room(group) for group in groups]
        left: list[int] = []

        def one(index: int, buffer: memoryview) -> None:
            try:
                _copy_group(groups[index], rooms[index], read, stream, buffer)
            except (OSError, TorporError):
                left.append(index)

        _in_parallel(len(groups), one)
        # CONFIG_PROC_MEM_FORCE_PTRACE (6.12): what the task itself may not read, its tracer alone may, and that is a
        # thread, ours. What cannot be read at all fails once more.
        for index in left:
            _copy_group(groups[index], rooms[index], read, stream, memoryview(mmap.mmap(-1, _CHUNK)))
    elif groups:
        # Not closed by a `with`: parts of it may be in use on the way up from an error, which BufferError would hide.
        buffer = memoryview(mmap.mmap(-1, _CHUNK))
        for group in groups:
            _copy_group(group, make_room(group), read, stream, buffer)
    while other is not None:
        stream.run(other)
        other = next(others, None)


def _copy_group(group: list[Piece], room: int, read: Read, stream: PageStream, buffer: memoryview) -> None:
    view = buffer[: sum(length for _, length in group)]
    read(group, view)
    stream.write_at(room, [view])


def _chunks(ranges: Iterable[Range], offset: int = 0) -> Iterator[list[Piece]]:
    """Group (start, length) pieces so that each group is about ``_CHUNK`` bytes and at most one vector.

    They begin at *offset* of the image; groups end at multiples of ``_CHUNK`` there, as blocks that have sums do.
    """
    group: list[Piece] = []
    room = _CHUNK - offset % _CHUNK
    for first, end in ranges:
        start = first
        while start < end:
            length = min(room, end - start)
            group.append((start, length))
            start += length
            room -= length
            if room == 0 or len(group) == vm.IOV_MAX:
                yield group
                group, room = [], _CHUNK
    if group:
        yield group


def _in_parallel(count: int, work: Callable[[int, memoryview], None]) -> None:
    """Do *work* for 0..count-1 by several threads, each with a buffer of its own; the first error is raised.

    Bare threads: what the standard library makes of them costs more to import than a small copy takes.
    """
    pending = iter(range(count))
    errors: list[BaseException] = []

    def run(done: LockType | None) -> None:
        buffer = memoryview(mmap.mmap(-1, _CHUNK))
        try:
            for index in pending:
                work(index, buffer)
                if errors:
                    break
        except BaseException as error:
            errors.append(error)
        finally:
            if done is not None:
                done.release()

    others = [allocate_lock() for _ in range(min(_workers(), count // 2) - 1)]
    for lock in others:
        lock.acquire()
        start_new_thread(run, (lock,))
    if count:
        run(None)
    for lock in others:
        lock.acquire()
    if errors:
        raise errors[0]


def _workers() -> int:
    return min(max(len(os.sched_getaffinity(0)), 2), _MAX_WORKERS)


def without(extents: Iterable[Extent], left_out: Sequence[Range]) -> list[Extent]:
    """*extents*, but for what lies in the ranges *left_out*, which are few and ascend."""
    found: list[Extent] = []
    for start, end, offset in extents:
        at = start
        for first, last in left_out:
            if first < end and at < last:
                if at < first:
                    found.append((at, first, offset + at - start))
                at = last
        if at < end:
            found.append((at, end, offset + at - start))
    return found


def restore(pid: Pid, extents: Sequence[Extent], reader: PagesReader) -> int:
    """Write *extents* of the pages image into the task; the number of pages."""
    groups = list(_groups(extents))

    def copy(index: int, buffer: memoryview) -> None:
        offset, ranges = groups[index]
        view = buffer[: sum(length for _, length in ranges)]
        reader.read_at(offset, view)
        vm.write_from(pid, ranges, view)

    _in_parallel(len(groups), copy)
    return sum(length for _, ranges in groups for _, length in ranges) // PAGE_SIZE


def _groups(extents: Sequence[Extent]) -> Iterator[tuple[int, list[Piece]]]:
    """What lies together in the pages image, as (offset, (start, length) pieces) of about ``_CHUNK`` bytes."""
    together: list[Range] = []
    first = last = 0
    for start, end, offset in extents:
        if together and offset != last:
            yield from _split(first, together)
            together = []
        if not together:
            first = offset
        together.append((start, end))
        last = offset + end - start
    yield from _split(first, together)


def _split(offset: int, together: list[Range]) -> Iterator[tuple[int, list[Piece]]]:
    for group in _chunks(together, offset):
        yield offset, group
        offset += sum(length for _, length in group)
