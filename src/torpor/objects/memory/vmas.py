"""Mappings: what kind each is, and making them again.

Kernel view
    ``/proc/PID/smaps`` (for VmFlags) and ``/proc/PID/map_files`` for the files behind.
Image
    ``vma_entry`` in ``mm_entry.vmas``; ``shmid`` is the id of the file behind, or of the shared segment.
Restore
    mmap at the fixed address, writable until the contents are in; then mprotect, madvise and mlock.
"""

from __future__ import annotations

from collections.abc import Iterable

from torpor.base.errors import RefusedError
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import PROT_WRITE, Vma
from torpor.objects.files.model import FileDump
from torpor.objects.memory import mapped
from torpor.objects.memory.areas import (
    ANON_PRIVATE,
    AREA_GUARD,
    AREA_VDSO,
    AREA_VSYSCALL,
    AREA_VVAR,
    FILE_PRIVATE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_HUGE_SHIFT,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
)
from torpor.objects.model import DumpProcess
from torpor.tracee.batch import Arg, Batch

#: VmFlags and the advice of madvise(2) that sets each again.
MADVICE = {"sr": 2, "rr": 1, "dc": 10, "dd": 16, "mg": 12, "hg": 14, "nh": 15, "wf": 18}
_MADV_GUARD_INSTALL = 102
_NO_FD = (1 << 64) - 1
#: VmFlags that nothing can be made of again, with what they mean and what to do.
_REFUSED = {
    "um": ("memory registered with userfaultfd", "let its handler unregister the memory first"),
    "uw": ("memory registered with userfaultfd", "let its handler unregister the memory first"),
    "ui": ("memory registered with userfaultfd", "let its handler unregister the memory first"),
    "ss": ("a shadow stack", "shadow stacks are not carried yet"),
}


def dump_one(process: DumpProcess, vma: Vma, session: FileDump) -> m.vma_entry:
    """The image of one mapping.  RefusedError for what cannot be made again: device memory, and the like."""
    for flag, (why, hint) in _REFUSED.items():
        if flag in vma.flags:
            raise RefusedError(f"{process.describe()} has {why} at {vma.start:#x}", hint=hint)
    entry = m.vma_entry(start=vma.start, end=vma.end, pgoff=vma.pgoff, shmid=0, prot=vma.prot, fd=-1, flags=0, status=0)
    entry.flags = MAP_SHARED if vma.shared else MAP_PRIVATE
    _add_flags(entry, vma)
    mapped.fill(process, vma, entry, session)
    return entry


def _add_flags(entry: m.vma_entry, vma: Vma) -> None:
    if "gd" in vma.flags:
        entry.flags |= MAP_GROWSDOWN
    if "lo" in vma.flags:
        entry.flags |= MAP_LOCKED
    if "nr" in vma.flags:
        entry.flags |= MAP_NORESERVE
    if "ht" in vma.flags:
        entry.flags |= MAP_HUGETLB | (vma.page_size.bit_length() - 1) << MAP_HUGE_SHIFT
    advice = sum(1 << number for flag, number in MADVICE.items() if flag in vma.flags)
    if advice:
        entry.madv = advice


def is_made(entry: m.vma_entry) -> bool:
    """Whether the mapping is made by mmap (the vdso is moved, the vsyscall page is the kernel's)."""
    return not entry.status & (AREA_VSYSCALL | AREA_VDSO | AREA_VVAR | AREA_GUARD)


def is_private(entry: m.vma_entry) -> bool:
    """Whether its changed pages are in the task's own pagemap."""
    return bool(entry.status & (FILE_PRIVATE | ANON_PRIVATE)) and is_made(entry)


def has_contents(entry: m.vma_entry) -> bool:
    """Whether its pages are looked for: those of private mappings, and the vdso's code."""
    return is_private(entry) or bool(entry.status & AREA_VDSO)


def restore_map(entry: m.vma_entry, fd: Arg | None, batch: Batch) -> None:
    """Make the mapping, writable where contents will be put into it."""
    flags = entry.flags & ~MAP_LOCKED | MAP_FIXED
    prot = entry.prot | (PROT_WRITE if is_private(entry) else 0)
    if fd is not None:
        flags &= ~(MAP_ANONYMOUS | MAP_HUGETLB | 0x3F << MAP_HUGE_SHIFT)
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


def add_guards(mm: m.mm_entry, ranges: Iterable[tuple[int, int]]) -> None:
    """Entries for the ranges of guard pages (MADV_GUARD_INSTALL), behind all mappings."""
    for start, end in ranges:
        mm.vmas.add(start=start, end=end, pgoff=0, shmid=0, prot=0, flags=0, status=AREA_GUARD, fd=-1)


def restore_guards(mm: m.mm_entry, batch: Batch) -> None:
    """Install them, once contents are in."""
    for entry in mm.vmas:
        if entry.status & AREA_GUARD:
            batch.call(nr.madvise, entry.start, entry.end - entry.start, _MADV_GUARD_INSTALL)
