"""Contents of private memory: which pages a task has made its own, and moving them.

Kernel view
    PAGEMAP_SCAN; process_vm_readv, and ``/proc/PID/mem`` where it would do harm or a mapping may not be read.
Image
    ``pagemap-PID.img`` and ``pages-N.img``.
Restore
    process_vm_writev into fresh mappings.
Limits
    Shared memory is ``segments``' to copy.  Guard pages are found here, and have no contents.

Zero pages that were only read are not stored.  Both ways several threads move large vectors; all the calls release the
GIL.
"""

from __future__ import annotations

import mmap
import os
import stat
from _thread import LockType, allocate_lock, start_new_thread
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from torpor.base.errors import TorporError
from torpor.base.fds import Closing, OwnedFd
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field, replace
from torpor.images.pagemap import PE_PARENT, Extent, PageRun
from torpor.images.pages import Contents, PageStream, Piece, Range, divide
from torpor.images.store import PagesReader
from torpor.kernel import pagemap, vm
from torpor.kernel.procfs import maps
from torpor.kernel.procfs.maps import PROT_READ, Vma
from torpor.kernel.vm import PAGE_SIZE

#: What is moved in one go, and the length of the buffers that ``in_parallel`` gives out.
CHUNK_BYTES = 512 * 1024
_MAX_WORKERS = 4
_GAP = 1 << 24
_LARGE = 4 << 20
#: A larger mapping (in bytes) is first cut down to what smaps says is there, which passes over page tables that are not
#: there: to look at it page by page takes seconds.  Programs reserve a terabyte and touch none of it.
VAST = 1 << 30
_ANON = pagemap.PAGE_IS_PRESENT | pagemap.PAGE_IS_SWAPPED
_STATE = pagemap.PAGE_IS_WPALLOWED | pagemap.PAGE_IS_WRITTEN
_SWAPPED = pagemap.PAGE_IS_SWAPPED | _STATE
#: Of a mapping, the (start, end) that has the same categories.
Region = tuple[Vma, int, int, int]
#: Fills a buffer with the pages of some pieces, one behind the other.
Read = Callable[[Sequence[Piece], memoryview], None]
#: Write pieces likewise, by several threads.
Write = Callable[[Sequence[Piece], memoryview], None]


@dataclass(frozen=True, slots=True)
class Noted:
    """Which mappings, by their starts, are those whose writes are noted (:mod:`torpor.objects.memory.tracking`):
    *since* the last look at them, and *protected* (again) by this one.
    """

    since: frozenset[int]
    protected: frozenset[int]


@dataclass(frozen=True, slots=True)
class Found:
    """What page tables hold: pages of the task's own, and guard pages, as (start, end).

    Those that have not been written since the last look are not in ``ranges`` but in ``unwritten``.
    """

    ranges: list[Range]
    guards: list[Range]
    unwritten: list[Range] = field(default_factory=list)


def scan(pid: Pid, vmas: Sequence[Vma], noted: Noted | None = None, populated: Sequence[Range] | None = None) -> Found:
    """The pages in *vmas* that only this task has; *populated*, if it is known: all else of vast ones is empty."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as stream:
        scanner = pagemap.PagemapScanner(stream.fileno())
        if any([vma.end - vma.start > VAST for vma in vmas]) and not scanner.skips_holes():
            vmas = list(_without_holes(vmas, maps.read_populated(pid) if populated is None else populated))
        return _scan(pid, scanner, vmas, noted)


def _without_holes(vmas: Iterable[Vma], populated: Sequence[Range]) -> Iterator[Vma]:
    for vma in vmas:
        if vma.length <= VAST:
            yield vma
        else:
            for start, end in divide([(vma.start, vma.end)], populated)[0]:
                yield replace(vma, start=start, end=end)


def _scan(pid: Pid, scanner: pagemap.PagemapScanner, vmas: Sequence[Vma], noted: Noted | None = None) -> Found:
    found = Found([], [])
    # Of the vdso the task has touched some perhaps, and all of it is wanted; a ring's pages are those of a file.
    whole = [(vma.start, vma.end) for vma in vmas if vma.name and _is_whole(vma)]
    rest = [vma for vma in vmas if not (vma.name and _is_whole(vma))] if whole else vmas
    if noted is None:
        for group in _neighbours(rest):
            regions = scanner.iter_ranges(group[0].start, group[-1].end, files=not _is_large(group[0]))
            _sort_out(_within(regions, group), frozenset(), found)
    else:
        doubtful: list[Region] = []
        # A look that protects passes over all mappings that it cannot protect.
        for protect in (True, False):
            for group in _neighbours(vma for vma in rest if (vma.start in noted.protected) is protect):
                start, end, files = group[0].start, group[-1].end, not _is_large(group[0])
                regions = scanner.iter_written(start, end, protect=protect, files=files)
                _sort_out(_within(regions, group), noted.since, found, doubtful)
        for vma, start, last, _ in doubtful:
            end = _touch(pid, start, last)
            _sort_out(_within(scanner.iter_written(start, end, protect=False), [vma]), noted.since, found)
        if noted.protected or doubtful:
            for ranges in (found.ranges, found.guards, found.unwritten):
                ranges.sort()
    return replace(found, ranges=sorted(found.ranges + whole)) if whole else found


def _touch(pid: Pid, start: int, end: int) -> int:
    """Have pages of a mapped file come in, from the swap space or from the file; where those that can be there end.

    One that was protected and then dropped (MADV_DONTNEED) is kept in mind by the kernel as such, and looks like one
    that is swapped out and has not been written; when it is read it is a page of the file.
    """
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for at in range(start, end, PAGE_SIZE):
            try:
                os.pread(memory.fileno(), 1, at)
            except OSError as error:
                if not _is_behind_the_end(pid, at):
                    raise TorporError(f"memory of pid {pid} at {at:#x} cannot be read: {error.strerror}") from error
                return at
    return end


def _is_behind_the_end(pid: Pid, address: int) -> bool:
    """Whether the file that is mapped there is too short for it."""
    vma = next(vma for vma in maps.read_maps(pid) if vma.start <= address < vma.end)
    status = os.stat(f"/proc/{pid}/map_files/{vma.start:x}-{vma.end:x}")
    return stat.S_ISREG(status.st_mode) and vma.pgoff + address - vma.start >= status.st_size


def _sort_out(
    regions: Iterable[Region], since: frozenset[int], found: Found, doubtful: list[Region] | None = None
) -> None:
    """Put the pages where they belong; aside those of which it is *doubtful* whether they are there."""
    for region in regions:
        vma, start, end, kind = region
        if kind & pagemap.PAGE_IS_GUARD:
            found.guards.append((start, end))
        elif doubtful is not None and vma.is_file and kind & _SWAPPED == _SWAPPED ^ pagemap.PAGE_IS_WRITTEN:
            doubtful.append(region)
        elif not kind & _ANON or kind & pagemap.PAGE_IS_PFNZERO or (kind & pagemap.PAGE_IS_FILE and vma.is_file):
            continue
        else:
            is_written = kind & _STATE != pagemap.PAGE_IS_WPALLOWED or vma.start not in since
            ranges = found.ranges if is_written else found.unwritten
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((start, end))


def _neighbours(vmas: Iterable[Vma]) -> Iterator[list[Vma]]:
    """Mappings that are looked through in one call: whatever else lies in the small gaps between them is left out.

    Large ones without a file are by themselves, for of their pages less need be told.
    """
    group: list[Vma] = []
    end, was_large = 0, False
    for vma in vmas:
        is_large = vma.end - vma.start >= _LARGE and _is_large(vma)
        if group and (vma.start - end > _GAP or is_large is not was_large):
            yield group
            group = []
        group.append(vma)
        end, was_large = vma.end, is_large
    if group:
        yield group


def _is_whole(vma: Vma) -> bool:
    return vma.is_vdso or vma.is_aio_ring


def _is_large(vma: Vma) -> bool:
    """Whether one more call is worth it, not to be told which of the pages are a file's: there is no file."""
    return not vma.is_file and vma.length >= _LARGE


def _within(regions: Iterable[tuple[int, int, int]], vmas: Iterable[Vma]) -> Iterator[Region]:
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
    itself may not (*unreadable*: there are such pages) as well.  Of one that *runs* pages, or all of it, may be gone
    when they are read: they are zeroes then.
    """

    def __init__(self, pid: Pid, *, gentle: bool, unreadable: bool, runs: bool = False) -> None:
        # One that runs may end, and its pid become another's: it is read by the descriptor only, as *gentle* does.
        self._pid, self._gentle, self._unreadable, self._runs = pid, gentle or runs, unreadable, runs
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
            part = into[done : done + length]
            if self._runs:
                self._read_running(start, part)
            elif os.preadv(fd, [part], start) != length:
                raise TorporError(f"memory of pid {self._pid} at {start:#x} cannot be read")
            done += length

    def _read_running(self, start: int, part: memoryview) -> None:
        done, fd = 0, self._file.fileno()
        while done < len(part):
            try:
                n_bytes = os.preadv(fd, [part[done:]], start + done)
            except OSError:
                n_bytes = 0
            if n_bytes <= 0:
                n_bytes = min(PAGE_SIZE - (start + done) % PAGE_SIZE, len(part) - done)
                part[done : done + n_bytes] = bytes(n_bytes)
            done += n_bytes

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

        in_parallel(len(groups), one)
        # CONFIG_PROC_MEM_FORCE_PTRACE (6.12): what the task itself may not read, its tracer alone may, and that is a
        # thread, ours. What cannot be read at all fails once more.
        for index in left:
            _copy_group(groups[index], rooms[index], read, stream, memoryview(mmap.mmap(-1, CHUNK_BYTES)))
    elif groups:
        buffer = _buffer_for(groups)
        for group in groups:
            _copy_group(group, make_room(group), read, stream, buffer)
    while other is not None:
        stream.run(other)
        other = next(others, None)


def copy_changed(ranges: Iterable[Range], read: Read, before: Contents, stream: PageStream) -> int:
    """As ``copy``, but of pages that are as they are *before*, *stream* is told that they are in the parent images.

    How many bytes are not.
    """
    buffer, other = memoryview(mmap.mmap(-1, CHUNK_BYTES)), memoryview(mmap.mmap(-1, CHUNK_BYTES))
    held: list[Range] = []
    n_bytes = 0

    def tell_held() -> None:
        for start, end in held:
            stream.run(PageRun(start, (end - start) // PAGE_SIZE, PE_PARENT, PAGE_SIZE))
        held.clear()

    for group in _chunks(ranges):
        view = buffer[: sum(length for _, length in group)]
        read(group, view)
        at = 0
        for start, length in group:
            for first, last, is_same in _compare(view[at : at + length], start, before, other):
                if not is_same:
                    tell_held()
                    n_bytes += last - first
                    there = at + first - start
                    stream.write_at(stream.room([(first, last - first)]), [view[there : there + last - first]])
                elif held and held[-1][1] == first:
                    held[-1] = (held[-1][0], last)
                else:
                    held.append((first, last))
            at += length
    tell_held()
    return n_bytes


def _compare(piece: memoryview, start: int, before: Contents, buffer: memoryview) -> Iterator[tuple[int, int, bool]]:
    """The stretches (start, end, are they the same) of a *piece* of memory at *start*."""
    n_bytes = len(piece)
    if before.read(start, buffer[:n_bytes]) and bytes(piece) == bytes(buffer[:n_bytes]):
        yield start, start + n_bytes, True
        return
    begun, was_same = 0, False
    for at in range(0, n_bytes, PAGE_SIZE):
        page = buffer[at : at + PAGE_SIZE]
        is_same = before.read(start + at, page) and bytes(page) == bytes(piece[at : at + PAGE_SIZE])
        if at and is_same != was_same:
            yield start + begun, start + at, was_same
            begun = at
        was_same = is_same
    yield start + begun, start + n_bytes, was_same


def _copy_group(group: list[Piece], room: int, read: Read, stream: PageStream, buffer: memoryview) -> None:
    view = buffer[: sum(length for _, length in group)]
    read(group, view)
    stream.write_at(room, [view])


def _chunks(ranges: Iterable[Range], offset: int = 0) -> Iterator[list[Piece]]:
    """Group (start, length) pieces so that each group is about ``CHUNK_BYTES`` bytes and at most one vector.

    They begin at *offset* of the image; groups end at multiples of ``CHUNK_BYTES`` there, as blocks that have sums do.
    """
    group: list[Piece] = []
    room = CHUNK_BYTES - offset % CHUNK_BYTES
    for first, end in ranges:
        start = first
        while start < end:
            length = min(room, end - start)
            group.append((start, length))
            start += length
            room -= length
            if room == 0 or len(group) == vm.IOV_MAX:
                yield group
                group, room = [], room or CHUNK_BYTES
    if group:
        yield group


def in_parallel(count: int, work: Callable[[int, memoryview], None]) -> None:
    """Do *work* for 0..count-1 by several threads, each with a buffer of its own; the first error is raised.

    Bare threads: what the standard library makes of them costs more to import than a small copy takes.
    """
    pending = iter(range(count))
    errors: list[BaseException] = []

    def run(done: LockType | None) -> None:
        buffer = memoryview(mmap.mmap(-1, CHUNK_BYTES))
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


def restore(pid: Pid, extents: Sequence[Extent], reader: PagesReader, write: Write | None = None) -> int:
    """Write *extents* of the pages image into the task, by *write* if it has a way of its own; the number of pages."""
    groups = list(_groups(extents))

    def copy(index: int, buffer: memoryview) -> None:
        offset, ranges = groups[index]
        view = buffer[: sum(length for _, length in ranges)]
        reader.read_at(offset, view)
        if write is None:
            vm.write_from(pid, ranges, view)
        else:
            write(ranges, view)

    n_bytes = sum([length for _, ranges in groups for _, length in ranges])
    if n_bytes > CHUNK_BYTES:
        in_parallel(len(groups), copy)
    else:
        # Of most of a hundred processes: less than a thread costs.
        buffer = _buffer_for(ranges for _, ranges in groups)
        for index in range(len(groups)):
            copy(index, buffer)
    return n_bytes // PAGE_SIZE


def _buffer_for(groups: Iterable[Sequence[Piece]]) -> memoryview:
    """Room for each of *groups*, in memory that the process before has had: new pages cost more than to fill them."""
    return memoryview(bytearray(max((sum([length for _, length in group]) for group in groups), default=0)))


def _groups(extents: Sequence[Extent]) -> Iterator[tuple[int, list[Piece]]]:
    """What lies together in the pages image, as (offset, (start, length) pieces) of about ``CHUNK_BYTES`` bytes."""
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
