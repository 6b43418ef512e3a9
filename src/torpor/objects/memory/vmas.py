"""Mappings: what kind each is, and making them again.

Kernel view
    ``/proc/PID/smaps`` (for VmFlags) and ``/proc/PID/map_files`` for the files behind.
Image
    ``vma_entry`` in ``mm_entry.vmas``; ``shmid`` is the id of the file behind, or of the shared segment.
Restore
    mmap at the fixed address, writable until the contents are in; then mprotect, madvise and mlock.
"""

from __future__ import annotations

from collections.abc import Callable

from torpor.base.errors import RefusedError
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import PROT_WRITE, Vma
from torpor.objects.model import DumpProcess
from torpor.tracee.batch import Arg, Batch

AREA_REGULAR = 1 << 0
AREA_VSYSCALL = 1 << 2
AREA_VDSO = 1 << 3
AREA_HEAP = 1 << 5
FILE_PRIVATE = 1 << 6
FILE_SHARED = 1 << 7
ANON_SHARED = 1 << 8
ANON_PRIVATE = 1 << 9
AREA_SYSVIPC = 1 << 10
AREA_SOCKET = 1 << 11
AREA_VVAR = 1 << 12
AREA_AIORING = 1 << 13
AREA_MEMFD = 1 << 14

MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_GROWSDOWN = 0x0100
MAP_LOCKED = 0x2000
MAP_NORESERVE = 0x4000
MAP_HUGETLB = 0x40000

#: VmFlags and the advice of madvise(2) that sets each again.
MADVICE = {"sr": 2, "rr": 1, "dc": 10, "dd": 16, "mg": 12, "hg": 14, "nh": 15, "wf": 18}
_MADV_RANDOM = 1
_NO_FD = (1 << 64) - 1
_UNCARRIABLE = frozenset(("io", "pf"))


def dump_one(process: DumpProcess, vma: Vma, file_id: Callable[[Vma], int]) -> m.vma_entry:
    """The image of one mapping.  *file_id* gives the id of the file behind it.

    RefusedError for what cannot be made again: device memory, and the like.
    """
    entry = m.vma_entry(start=vma.start, end=vma.end, pgoff=vma.pgoff, shmid=0, prot=vma.prot, fd=-1, flags=0, status=0)
    entry.flags = MAP_SHARED if vma.shared else MAP_PRIVATE
    _add_flags(entry, vma)
    if vma.is_vsyscall:
        entry.status = AREA_VSYSCALL | ANON_PRIVATE
        entry.flags |= MAP_ANONYMOUS
    elif vma.is_vdso or vma.is_vvar:
        entry.status = AREA_REGULAR | ANON_PRIVATE | (AREA_VDSO if vma.is_vdso else AREA_VVAR)
        entry.flags |= MAP_ANONYMOUS
        entry.pgoff = 0
    elif vma.is_file:
        if vma.flags & _UNCARRIABLE:
            raise RefusedError(
                f"{process.describe()} maps device memory ({vma.name}) at {vma.start:#x}",
                hint="close the device before the checkpoint",
            )
        entry.status = AREA_REGULAR | (FILE_SHARED if vma.shared else FILE_PRIVATE)
        entry.shmid = file_id(vma)
        entry.fdflags = 2 if vma.shared and "mw" in vma.flags else 0
    else:
        entry.status = AREA_REGULAR | ANON_PRIVATE | (AREA_HEAP if vma.name == "[heap]" else 0)
        entry.flags |= MAP_ANONYMOUS
        entry.pgoff = 0
    return entry


def _add_flags(entry: m.vma_entry, vma: Vma) -> None:
    if "gd" in vma.flags:
        entry.flags |= MAP_GROWSDOWN
    if "lo" in vma.flags:
        entry.flags |= MAP_LOCKED
    if "nr" in vma.flags:
        entry.flags |= MAP_NORESERVE
    if "ht" in vma.flags:
        entry.flags |= MAP_HUGETLB
    advice = sum(1 << number for flag, number in MADVICE.items() if flag in vma.flags)
    if advice:
        entry.madv = advice


def is_made(entry: m.vma_entry) -> bool:
    """Whether the mapping is made by mmap (the vdso is moved, the vsyscall page is the kernel's)."""
    return not entry.status & (AREA_VSYSCALL | AREA_VDSO | AREA_VVAR)


def is_private(entry: m.vma_entry) -> bool:
    """Whether its changed pages are in the task's own pagemap."""
    return bool(entry.status & (FILE_PRIVATE | ANON_PRIVATE)) and is_made(entry)


def restore_map(entry: m.vma_entry, fd: Arg | None, batch: Batch) -> None:
    """Make the mapping, writable where contents will be put into it."""
    flags = entry.flags & ~(MAP_LOCKED) | MAP_FIXED
    prot = entry.prot | (PROT_WRITE if is_private(entry) else 0)
    if fd is not None:
        flags &= ~MAP_ANONYMOUS
    batch.call(nr.mmap, entry.start, entry.end - entry.start, prot, flags, _NO_FD if fd is None else fd, entry.pgoff)


def restore_attributes(entry: m.vma_entry, batch: Batch) -> None:
    """Protection, advice and locks, once the contents are in."""
    length = entry.end - entry.start
    if is_private(entry) and not entry.prot & PROT_WRITE:
        batch.call(nr.mprotect, entry.start, length, entry.prot)
    for number in MADVICE.values():
        if entry.madv & 1 << number:
            batch.call(nr.madvise, entry.start, length, number, may_fail=True)
    if entry.flags & MAP_LOCKED:
        batch.call(nr.mlock, entry.start, length)
