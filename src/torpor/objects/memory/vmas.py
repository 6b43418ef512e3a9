"""Mappings: what kind each is, and making them again.

Kernel view
    ``/proc/PID/smaps`` (for VmFlags) and ``/proc/PID/map_files`` for the files behind.
Image
    ``vma_entry`` in ``mm_entry.vmas``; ``shmid`` is the id of the file behind, or of the shared segment.
Restore
    mmap at the fixed address, writable until the contents are in; then mprotect, madvise and mlock.
Limits
    Refused: memory that is registered with userfaultfd, shadow stacks, protection keys, and what ``mapped`` refuses.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache, lru_cache

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.images.pages import Range
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_WRITE, Vma, read_smaps
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_HUGE_SHIFT,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    MLOCK_ONFAULT,
)
from torpor.kernel.uapi.prctl import PR_SET_VMA, PR_SET_VMA_ANON_NAME
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory import mapped
from torpor.objects.memory.areas import (
    ANON_PRIVATE,
    AREA_AIORING,
    AREA_GUARD,
    AREA_VDSO,
    AREA_VSYSCALL,
    AREA_VVAR,
    FILE_PRIVATE,
    MAP_DROPPABLE,
)
from torpor.objects.model import DumpProcess
from torpor.objects.session import DumpContext
from torpor.tracee.batch import Arg, Batch

#: VmFlags and the advice of madvise(2) that sets each again.
MADVICE = {"sr": 2, "rr": 1, "dc": 10, "dd": 16, "mg": 12, "hg": 14, "nh": 15, "wf": 18}
_MADV_GUARD_INSTALL = 102
_MAP_FLAGS = {"gd": MAP_GROWSDOWN, "lo": MAP_LOCKED, "nr": MAP_NORESERVE, "ht": MAP_HUGETLB, "dp": MAP_DROPPABLE}
#: Protection that maps(5) has no letter for: PROT_BTI (indirect branches lead to landing pads only), where it exists.
_PROT_FLAGS = {"bt": 0x10}
#: What no mmap makes: the vdso is moved, the vsyscall page is the kernel's.
_NOT_MADE = AREA_VSYSCALL | AREA_VDSO | AREA_VVAR | AREA_GUARD
_NOT_INHERITED = frozenset(("dc", "wf", "ht"))
#: What the kernel writes for a flag of which it has no name.
_NAMELESS = "??"
_NAMED = "[anon:"
_NO_FD = (1 << 64) - 1
#: VmFlags that nothing can be made of again, with what they mean and what to do.
_REFUSED = {
    "um": ("memory registered with userfaultfd", "let its handler unregister the memory first"),
    "uw": ("memory registered with userfaultfd", "let its handler unregister the memory first"),
    "ui": ("memory registered with userfaultfd", "let its handler unregister the memory first"),
    "ss": ("a shadow stack", "shadow stacks are not carried yet"),
    "mt": ("memory with tags (MTE)", "its tags are not carried yet"),
}


def dump_one(process: DumpProcess, vma: Vma, context: DumpContext) -> m.vma_entry:
    """The image of one mapping.  RefusedError for what cannot be made again: device memory, and the like."""
    flags, advice, guard, refused = _meaning(vma.flags)
    if refused:
        why, hint = _REFUSED[refused]
        raise RefusedError(f"{process.describe()} has {why} at {vma.start:#x}", hint=hint)
    # The kernel itself gives one to memory that may only be executed, and will do so again.
    if vma.protection_key and vma.prot != PROT_EXEC:
        raise RefusedError(
            f"{process.describe()} has memory with protection key {vma.protection_key} at {vma.start:#x}",
            hint="protection keys are not carried yet",
        )
    entry = m.vma_entry(
        start=vma.start, end=vma.end, pgoff=vma.pgoff, shmid=0, prot=vma.prot | guard, fd=-1, status=0,
        flags=flags | (MAP_SHARED if vma.shared else 0 if flags & MAP_DROPPABLE else MAP_PRIVATE),
    )  # fmt: skip
    if advice:
        entry.madv = advice
    if flags & MAP_HUGETLB:
        entry.flags |= (vma.page_size.bit_length() - 1) << MAP_HUGE_SHIFT
    if flags & MAP_LOCKED and is_locked_on_fault(vma.flags):
        entry.torpor_lock_on_fault = True
    if "sl" in vma.flags:
        entry.torpor_sealed = True
    if vma.name.startswith(_NAMED):
        entry.torpor_name = vma.name[len(_NAMED) : -1]
    mapped.fill(process, vma, entry, context)
    return entry


@lru_cache(maxsize=256)
def _meaning(flags: frozenset[str]) -> tuple[int, int, int, str]:
    """The MAP_*, the bits of ``madv`` and the PROT_* that VmFlags stand for, and a flag that is refused."""
    mapping = sum(bit for flag, bit in _MAP_FLAGS.items() if flag in flags)
    advice = sum(1 << number for flag, number in MADVICE.items() if flag in flags)
    guard = sum(bit for flag, bit in _PROT_FLAGS.items() if flag in flags)
    return mapping, advice, guard, next((flag for flag in _REFUSED if flag in flags), "")


def is_locked_on_fault(flags: frozenset[str]) -> bool:
    """Whether VmFlags say that pages are locked once they are touched, and not before (mlock2(2)).

    Kernels before 6.11 or so do so by the two letters that they have for a flag without a name.
    """
    if "lo" not in flags or "lf" in flags:
        return "lf" in flags
    return _NAMELESS in flags and _lock_on_fault_is_nameless()


@cache
def _lock_on_fault_is_nameless() -> bool:
    """How this kernel shows it, seen of a page of ours; where we may lock none it is taken for what has no name."""
    memory = bytearray(2 * PAGE_SIZE)
    page = (address_of(memory) + PAGE_SIZE - 1) & -PAGE_SIZE
    try:
        syscall("mlock2", nr.mlock2, page, PAGE_SIZE, MLOCK_ONFAULT)
    except OSError:
        return True
    try:
        shown = next(vma.flags for vma in read_smaps(Pid(os.getpid())) if vma.start <= page < vma.end)
        return "lf" not in shown and _NAMELESS in shown
    finally:
        syscall("munlock", nr.munlock, page, PAGE_SIZE)


def is_made(entry: m.vma_entry) -> bool:
    """Whether the mapping is made by mmap."""
    return not entry.status & _NOT_MADE


def has_contents(entry: m.vma_entry) -> bool:
    """Whether its pages are looked for: those of private mappings but droppable ones, and the vdso's code."""
    status = entry.status
    if not status & _NOT_MADE and status & (FILE_PRIVATE | ANON_PRIVATE | AREA_AIORING):
        return not entry.flags & MAP_DROPPABLE
    return bool(status & AREA_VDSO)


def can_wait(entry: m.vma_entry) -> bool:
    """Whether its pages may come after the restore, by userfaultfd: as CRIU has it, which may restore it."""
    if entry.status & (_NOT_MADE | AREA_AIORING):
        return False
    return entry.flags & (MAP_ANONYMOUS | MAP_PRIVATE | MAP_LOCKED | MAP_HUGETLB) == MAP_ANONYMOUS | MAP_PRIVATE


def waiting(mm: m.mm_entry, stack_pointers: Iterable[int]) -> list[Range]:
    """The memory whose pages may come after the restore: all that can wait but the page that each stack ends in."""
    found: list[Range] = []
    needed = iter(sorted({at & -PAGE_SIZE for at in stack_pointers}))
    at = next(needed, None)
    for entry in mm.vmas:
        if not can_wait(entry):
            continue
        start = entry.start
        while at is not None and at < entry.end:
            if at >= start:
                if at > start:
                    found.append((start, at))
                start = at + PAGE_SIZE
            at = next(needed, None)
        if start < entry.end:
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], entry.end)
            else:
                found.append((start, entry.end))
    return found


def is_inherited(vma: Vma) -> bool:
    """Whether a child made by fork has the same pages, of a private mapping, whatever happens to the parent.

    It has not where the program asked for that (MADV_DONTFORK, MADV_WIPEONFORK), of a ring, which is a file's, and of
    the vdso.  Huge pages of hugetlbfs are taken from the child when the parent writes and there are no more.
    """
    return not (vma.flags & _NOT_INHERITED or vma.is_aio_ring or vma.is_vdso)


def restore_map(entry: m.vma_entry, fd: Arg | None, writable: bool, batch: Batch) -> None:
    """Make the mapping, *writable* at any rate if contents will be put into it."""
    if entry.status & AREA_AIORING:
        from torpor.objects.memory import aio

        aio.add_placeholder(entry, batch)
        return
    flags = entry.flags & ~MAP_LOCKED | MAP_FIXED
    prot = entry.prot | PROT_WRITE if writable else entry.prot
    if fd is not None:
        flags &= ~(MAP_ANONYMOUS | MAP_HUGETLB | 0x3F << MAP_HUGE_SHIFT)
    start = entry.start
    batch.call(nr.mmap, start, entry.end - start, prot, flags, _NO_FD if fd is None else fd, entry.pgoff)


def restore_attributes(entry: m.vma_entry, raised: bool, batch: Batch) -> None:
    """Protection where it was *raised*, advice, locks and name, once the contents are in."""
    start, length = entry.start, entry.end - entry.start
    if raised:
        batch.call(nr.mprotect, start, length, entry.prot)
    if entry.madv:
        for number in MADVICE.values():
            if entry.madv & 1 << number:
                batch.call(nr.madvise, start, length, number, may_fail=True)
    if entry.flags & MAP_LOCKED:
        # Locked it is at any rate; that not all its pages can be had (PROT_NONE, behind a file's end) is an error too.
        may_fail = not entry.prot or not entry.flags & MAP_ANONYMOUS
        batch.call(nr.mlock2, start, length, MLOCK_ONFAULT if entry.torpor_lock_on_fault else 0, may_fail=may_fail)
    if entry.torpor_name:
        name = batch.path(entry.torpor_name)
        batch.call(nr.prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, start, length, name, may_fail=True)
    if entry.HasField("torpor_mempolicy"):
        from torpor.objects.memory import placement

        placement.restore(entry, batch)


def restore_seals(mm: m.mm_entry, batch: Batch) -> None:
    """mseal(2): nothing can be changed in a sealed mapping afterwards."""
    for entry in mm.vmas:
        if entry.torpor_sealed and is_made(entry):
            batch.call(nr.mseal, entry.start, entry.end - entry.start, 0)


def add_guards(mm: m.mm_entry, ranges: Iterable[tuple[int, int]]) -> None:
    """Entries for the ranges of guard pages (MADV_GUARD_INSTALL), behind all mappings."""
    for start, end in ranges:
        mm.vmas.add(start=start, end=end, pgoff=0, shmid=0, prot=0, flags=0, status=AREA_GUARD, fd=-1)


def restore_guards(mm: m.mm_entry, batch: Batch) -> None:
    """Install them, once contents are in."""
    for entry in mm.vmas:
        if entry.status & AREA_GUARD:
            batch.call(nr.madvise, entry.start, entry.end - entry.start, _MADV_GUARD_INSTALL)
