"""Contents of private memory: which pages a task has made its own, and moving them.

Kernel view
    PAGEMAP_SCAN; process_vm_readv, and ``/proc/PID/mem`` where a mapping may not be read.
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
from collections.abc import Callable, Iterable, Iterator, Sequence

from torpor.base.errors import TorporError
from torpor.base.records import dataclass
from torpor.images.pagemap import PE_PRESENT, Pagemap, PageRun
from torpor.images.store import PagesReader, PagesWriter
from torpor.kernel import pagemap, vm
from torpor.kernel.procfs.maps import PROT_READ, Vma
from torpor.kernel.vm import PAGE_SIZE

_CHUNK = 2 * 1024 * 1024
_WORKERS = 2
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


def scan(fd: int, vmas: Iterable[Vma]) -> Found:
    """The pages that only this task has, by its open ``/proc/PID/pagemap``."""
    scanner = pagemap.PagemapScanner(fd)
    ranges: list[Range] = []
    guards: list[Range] = []
    for vma in vmas:
        if vma.is_vdso:  # the task has touched some of it perhaps, and all of it is wanted
            ranges.append((vma.start, vma.end))
            continue
        for start, end, kind in scanner.iter_ranges(vma.start, vma.end):
            if kind & pagemap.PAGE_IS_GUARD:
                guards.append((start, end))
            elif not kind & _ANON or kind & pagemap.PAGE_IS_PFNZERO or (vma.is_file and kind & pagemap.PAGE_IS_FILE):
                continue
            elif ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((start, end))
    return Found(ranges, guards)


def dump(pid: int, vmas: Sequence[Vma], ranges: Sequence[Range], writer: PagesWriter) -> list[PageRun]:
    """Copy *ranges* into the pages image; the runs for the page map."""
    unreadable = [vma for vma in vmas if not vma.prot & PROT_READ]
    _copy_out(pid, list(_chunks(ranges)), unreadable, writer)
    return [PageRun(start, (end - start) // PAGE_SIZE, PE_PRESENT) for start, end in ranges]


def _chunks(ranges: Iterable[Range]) -> Iterable[list[Range]]:
    """Group (start, length) pieces so that each group is about ``_CHUNK`` bytes and at most one vector."""
    group: list[Range] = []
    room = _CHUNK
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


def _copy_out(pid: int, groups: list[list[Range]], unreadable: Sequence[Vma], writer: PagesWriter) -> None:
    sizes = [sum(length for _, length in group) for group in groups]

    def copy(index: int, buffer: memoryview, at: int | None) -> None:
        view = buffer[: sizes[index]]
        _read(pid, groups[index], unreadable, view)
        if at is None:
            writer.append([view])
        else:
            writer.write_at(at, [view])

    if writer.supports_write_at and len(groups) > 1:
        places = [writer.reserve(size) for size in sizes]
        _in_parallel(len(groups), lambda index, buffer: copy(index, buffer, places[index]))
    else:
        with _Buffer() as buffer:
            for index in range(len(groups)):
                copy(index, buffer, None)


class _Buffer:
    """Memory for one chunk, page-aligned and touched only once."""

    def __enter__(self) -> memoryview:
        self._memory = mmap.mmap(-1, _CHUNK)
        self._view = memoryview(self._memory)
        return self._view

    def __exit__(self, *_: object) -> None:
        import contextlib

        self._view.release()
        with contextlib.suppress(BufferError):  # a failing worker may still be named by its traceback
            self._memory.close()


def _in_parallel(count: int, work: Callable[[int, memoryview], None]) -> None:
    """Do *work* for 0..count-1 by several threads, each with a buffer of its own; the first error is raised."""

    def run(first: int) -> None:
        with _Buffer() as buffer:
            for index in range(first, count, _WORKERS):
                work(index, buffer)

    if count < 2:
        run(0)
        return
    # Late: it brings logging and threading with it, which a small dump does without.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_WORKERS) as pool:
        for future in [pool.submit(run, first) for first in range(min(_WORKERS, count))]:
            future.result()


def _read(pid: int, group: list[Range], unreadable: Sequence[Vma], into: memoryview) -> None:
    try:
        vm.read_into(pid, group, into)
    except OSError:
        if not unreadable:
            raise
        _read_forced(pid, group, into)


def _read_forced(pid: int, group: list[Range], into: memoryview) -> None:
    """By ``/proc/PID/mem``, which ptrace's rights let read what the task itself may not."""
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = 0
        for start, length in group:
            part = into[done : done + length]
            if os.preadv(fd, [part], start) != length:
                raise TorporError(f"memory of pid {pid} at {start:#x} cannot be read")
            done += length
    finally:
        os.close(fd)


def restore(pid: int, found: Pagemap, reader: PagesReader, left_out: Sequence[Range] = ()) -> int:
    """Write all present runs of *found* into the task, but for those in *left_out*; the number of pages."""
    groups = list(_groups(found, left_out))

    def copy(index: int, buffer: memoryview) -> None:
        offset, ranges = groups[index]
        view = buffer[: sum(length for _, length in ranges)]
        reader.read_at(offset, view)
        vm.write_from(pid, ranges, view)

    if len(groups) == 1:
        with _Buffer() as buffer:
            copy(0, buffer)
    else:
        _in_parallel(len(groups), copy)
    return sum(length for _, ranges in groups for _, length in ranges) // PAGE_SIZE


def _groups(found: Pagemap, left_out: Sequence[Range]) -> Iterator[tuple[int, list[Range]]]:
    """What lies together in the pages image, as (offset, (start, length) pieces) of about ``_CHUNK`` bytes."""
    together: list[Range] = []
    offset = end = 0
    for run in found.runs:
        if run.pages_offset is None or any(start <= run.vaddr < stop for start, stop in left_out):
            continue
        if together and run.pages_offset != end:
            yield from _split(offset, together)
            together = []
        if not together:
            offset = run.pages_offset
        together.append((run.vaddr, run.vaddr + run.n_pages * PAGE_SIZE))
        end = run.pages_offset + run.n_pages * PAGE_SIZE
    yield from _split(offset, together)


def _split(offset: int, together: list[Range]) -> Iterator[tuple[int, list[Range]]]:
    for group in _chunks(together):
        yield offset, group
        offset += sum(length for _, length in group)
