"""Shared anonymous mappings.

Kernel view
    MAP_SHARED|MAP_ANONYMOUS and a shared mapping of /dev/zero are the same: an inode that maps show as ``/dev/zero
    (deleted)``.
Image
    ANON_SHARED, with the segment's id as ``shmid``.
Restore
    The conductor makes the memory, opens it by its own map_files and sends it to all that map it.
Limits
    The size is that of what is mapped or has contents.
"""

from __future__ import annotations

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.kernel import sharedmem
from torpor.kernel.uapi.mman import MAP_HUGE_SHIFT, MAP_HUGETLB, MAP_NORESERVE
from torpor.objects.memory import segments
from torpor.objects.memory.areas import ANON_SHARED
from torpor.objects.session import RestoreContext

_KEPT = MAP_NORESERVE | MAP_HUGETLB | 0x3F << MAP_HUGE_SHIFT


def is_segment(entry: m.vma_entry) -> bool:
    """Whether ``shmid`` is a segment's id, not a file's."""
    return bool(entry.status & ANON_SHARED)


def open_segment(entry: m.vma_entry, context: RestoreContext) -> int:
    """The segment that *entry* maps, as a descriptor of ours, borrowed; made and filled by the first who asks."""
    return context.files.shared(("segment", entry.shmid), lambda: _make(entry, context))


def _make(entry: m.vma_entry, context: RestoreContext) -> int:
    size = max(segments.size_of(context.store, entry.shmid), _mapped_size(entry.shmid, context))
    try:
        fd = sharedmem.create_anonymous(size, entry.flags & _KEPT)
    except (OSError, ValueError, OverflowError) as error:
        raise RestoreError(f"{size} bytes of shared memory cannot be made: {error}", hint=_hint(entry)) from error
    segments.restore(context.store, entry.shmid, fd, size)
    return fd


def _hint(entry: m.vma_entry) -> str | None:
    return "reserve huge pages (vm.nr_hugepages)" if entry.flags & MAP_HUGETLB else None


def _mapped_size(shmid: int, context: RestoreContext) -> int:
    return max(
        entry.pgoff + entry.end - entry.start
        for process in context.processes
        if process.mm is not None
        for entry in process.mm.vmas
        if entry.shmid == shmid and is_segment(entry)
    )
