"""Contents of private memory: which pages a task has made its own, and moving them.

Kernel view
    PAGEMAP_SCAN; process_vm_readv, and ``/proc/PID/mem`` where it would do harm or a mapping may not be read.
Image
    ``pagemap-PID.img`` and ``pages-N.img``.
Restore
    process_vm_writev into fresh mappings.

Zero pages that were only read are not stored.  Both ways several threads move large vectors; all the calls release the
GIL.
"""

from __future__ import annotations

import mmap
import os
from _thread import LockType, allocate_lock, start_new_thread
from collections.abc import Callable, Iterable, Iterator, Sequence

from torpor.base.errors import TorporError
from torpor.base.records import dataclass
from torpor.images.pagemap import PE_PRESENT, PageRun
from torpor.images.store import PagesReader, PagesWriter
from torpor.kernel import pagemap, vm
from torpor.kernel.procfs.maps import PROT_READ, Vma
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory.inherited import Extent

_CHUNK = 512 * 1024
_MAX_WORKERS = 4
_GAP = 1 << 24
_ANON = pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PagesDumped:
    """What one address space came to, in pages."""

    n_scanned: int
    n_written: int


@dataclass(frozen=True, slots=True)
class Found:
    """What page tables hold: pages of the task's own, and guard pages, as (start, end)."""

    ranges: list[Range]
    guards: list[Range]


def scan(fd: int, vmas: Sequence[Vma]) -> Found:
    """The pages that only this task has, by its open ``/proc/PID/pagemap``."""
    scanner = pagemap.PagemapScanner(fd)
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


def dump(
    pid: int, vmas: Sequence[Vma], ranges: Sequence[Range], writer: PagesWriter, *, may_share: bool
) -> list[PageRun]:
    """Copy *ranges* into the pages image; the runs for the page map.

    *may_share*: another task that lives on may have some of these pages by fork.
    """
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unreadable = any(not vma.prot & PROT_READ for vma in vmas)
        read = _reader(pid, memory, gentle=may_share, unreadable=unreadable)
        _copy_out(list(_chunks(ranges)), read, writer)
    finally:
        os.close(memory)
    return [PageRun(start, (end - start) // PAGE_SIZE, PE_PRESENT) for start, end in ranges]


def _reader(pid: int, memory: int, *, gentle: bool, unreadable: bool) -> Callable[[list[Range], memoryview], None]:
    """How pieces are read.  process_vm_readv takes them in one call, but pins pages, and to pin one that is shared by
    fork the kernel first makes a copy (FAULT_FLAG_UNSHARE, since 6.0): *gentle* goes by ``/proc/PID/mem``, which reads
    what the task itself may not as well.
    """

    def read_pieces(group: list[Range], into: memoryview) -> None:
        done = 0
        for start, length in group:
            if os.preadv(memory, [into[done : done + length]], start) != length:
                raise TorporError(f"memory of pid {pid} at {start:#x} cannot be read")
            done += length

    def read(group: list[Range], into: memoryview) -> None:
        try:
            vm.read_into(pid, group, into)
        except OSError:
            if not unreadable:
                raise
            read_pieces(group, into)

    return read_pieces if gentle else read


def _chunks(ranges: Iterable[Range], offset: int = 0) -> Iterable[list[Range]]:
    """Group (start, length) pieces so that each group is about ``_CHUNK`` bytes and at most one vector.

    They begin at *offset* of the image; groups end at multiples of ``_CHUNK`` there, as blocks that have sums do.
    """
    group: list[Range] = []
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


def _copy_out(groups: list[list[Range]], read: Callable[[list[Range], memoryview], None], writer: PagesWriter) -> None:
    sizes = [sum(length for _, length in group) for group in groups]

    def copy(index: int, buffer: memoryview, at: int | None) -> None:
        view = buffer[: sizes[index]]
        read(groups[index], view)
        if at is None:
            writer.append([view])
        else:
            writer.write_at(at, [view])

    if writer.supports_write_at and len(groups) > 1:
        places = [writer.reserve(size) for size in sizes]
        _in_parallel(len(groups), lambda index, buffer: copy(index, buffer, places[index]))
    elif groups:
        with mmap.mmap(-1, _CHUNK) as memory, memoryview(memory) as buffer:
            for index in range(len(groups)):
                copy(index, buffer, None)


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


def extents_of(runs: Iterable[PageRun], left_out: Sequence[Range] = ()) -> list[Extent]:
    """Where the pages go, and where they lie in the pages image; without those in *left_out*."""
    extents: list[Extent] = []
    for run in runs:
        offset = run.pages_offset
        if offset is None or (left_out and any(start <= run.vaddr < end for start, end in left_out)):
            continue
        end = run.vaddr + run.n_pages * PAGE_SIZE
        if extents and extents[-1][1] == run.vaddr and extents[-1][2] + extents[-1][1] - extents[-1][0] == offset:
            extents[-1] = (extents[-1][0], end, extents[-1][2])
        else:
            extents.append((run.vaddr, end, offset))
    return extents


def restore(pid: int, extents: Sequence[Extent], reader: PagesReader) -> int:
    """Write *extents* of the pages image into the task; the number of pages."""
    groups = list(_groups(extents))

    def copy(index: int, buffer: memoryview) -> None:
        offset, ranges = groups[index]
        view = buffer[: sum(length for _, length in ranges)]
        reader.read_at(offset, view)
        vm.write_from(pid, ranges, view)

    _in_parallel(len(groups), copy)
    return sum(length for _, ranges in groups for _, length in ranges) // PAGE_SIZE


def _groups(extents: Sequence[Extent]) -> Iterator[tuple[int, list[Range]]]:
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


def _split(offset: int, together: list[Range]) -> Iterator[tuple[int, list[Range]]]:
    for group in _chunks(together, offset):
        yield offset, group
        offset += sum(length for _, length in group)
