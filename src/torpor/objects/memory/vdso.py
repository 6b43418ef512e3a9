"""The vdso and its data mappings ([vvar], [vvar_vclock], ...): any number of them.

Kernel view
    Mappings by name in maps.  Their contents are the running kernel's and are not stored, but for the vdso's code,
    which is, so that a different vdso can be recognised.
Image
    ``vma_entry`` with the VDSO or VVAR status.
Restore
    The puppet's own, moved by mremap to where the image had them.
"""

from __future__ import annotations

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.objects.memory.areas import AREA_VDSO, AREA_VVAR
from torpor.tracee.batch import Batch
from torpor.tracee.stub import ParkedVdso

_MREMAP_MAYMOVE_FIXED = 3


def join_vvar(mm: m.mm_entry) -> None:
    """Make one entry of the neighbours [vvar], [vvar_vclock], ...: CRIU knows one, and has it end at the vdso."""
    for index in range(len(mm.vmas) - 1, 0, -1):
        entry, before = mm.vmas[index], mm.vmas[index - 1]
        if entry.status & before.status & AREA_VVAR and before.end == entry.start:
            before.end = entry.end
            del mm.vmas[index]


def restore(entries: list[m.vma_entry], parked: ParkedVdso, batch: Batch) -> None:
    """Move the parked mappings to where *entries* (the image's vdso and vvar mappings, in address order) say.

    RestoreError where this kernel's do not fit into the room that the image has for them.
    """
    if not entries:
        for vma in parked.mappings:
            batch.call(nr.munmap, vma.start, vma.length)
        return
    wanted_vdso = next((entry for entry in entries if entry.status & AREA_VDSO), None)
    if wanted_vdso is None or parked.vdso is None:
        raise RestoreError("the image and this kernel differ in having a vdso")
    delta = wanted_vdso.start - parked.vdso.start
    low = min(entry.start for entry in entries)
    high = max(entry.end for entry in entries)
    if parked.mappings[0].start + delta < low or parked.mappings[-1].end + delta > high:
        raise RestoreError("this kernel's vdso does not fit where the image had its own")
    for vma in parked.mappings:
        batch.call(nr.mremap, vma.start, vma.length, vma.length, _MREMAP_MAYMOVE_FIXED, vma.start + delta)


def entries_of(mm: m.mm_entry) -> list[m.vma_entry]:
    """The image's vdso and vvar mappings."""
    return [entry for entry in mm.vmas if entry.status & (AREA_VDSO | AREA_VVAR)]
