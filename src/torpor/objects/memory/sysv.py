"""System V segments where they are attached.  The segments themselves are their IPC namespace's.

Kernel view
    A shared mapping of ``/SYSVKEY (deleted)`` whose inode number is the segment's id.
Image
    AREA_SYSVIPC, with the id as ``shmid``; ``fdflags`` says whether it may be written, apart from its protection.
Restore
    shmat(2) by the task, so that it counts as an attachment and shmdt(2) works; then what was unmapped is again, and
    parts get their protection.  Before any other mapping is made, for the whole segment must have room.
Limits
    Segments in the host's IPC namespace are refused: nobody else's could be brought back with its id.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_READ, PROT_WRITE
from torpor.kernel.sysvipc import SHM_EXEC, SHM_RDONLY
from torpor.kernel.uapi.ipc import IPC_STAT
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory.areas import AREA_SYSVIPC
from torpor.tracee.batch import Batch, RemoteCallError
from torpor.tracee.remote import Runner

_SHMID_DS_SIZE = 112
_SEGSZ_OFFSET = 48


def is_attached(entry: m.vma_entry) -> bool:
    """Whether it is (part of) an attached segment."""
    return bool(entry.status & AREA_SYSVIPC)


def attach(runner: Runner, entries: Sequence[m.vma_entry]) -> set[int]:
    """Attach the segments among *entries*; the starts of the mappings that are made thereby.

    RestoreError where a segment is not there or does not fit.
    """
    parts: dict[tuple[int, int], list[m.vma_entry]] = {}
    for entry in entries:
        if is_attached(entry):
            parts.setdefault((entry.shmid, entry.start - entry.pgoff), []).append(entry)
    for (shmid, base), group in parts.items():
        try:
            _attach_one(runner, shmid, base, group)
        except RemoteCallError as error:
            raise RestoreError(f"the System V segment {shmid} cannot be attached at {base:#x}: {error}") from error
    return {entry.start for group in parts.values() for entry in group}


def _attach_one(runner: Runner, shmid: int, base: int, group: list[m.vma_entry]) -> None:
    batch = Batch()
    room = batch.out(_SHMID_DS_SIZE)
    batch.call(nr.shmctl, shmid, IPC_STAT, room)
    runner.run(batch)
    size = int.from_bytes(room.bytes()[_SEGSZ_OFFSET : _SEGSZ_OFFSET + 8], "little")
    end = base + (size + PAGE_SIZE - 1 & -PAGE_SIZE)
    if group[-1].end > end:
        raise RestoreError(f"the System V segment {shmid} has {size} bytes, and more of it was mapped")
    # CRIU's images do not say whether a segment that is only read was attached for reading only.
    writable = any(entry.fdflags & os.O_RDWR or entry.prot & PROT_WRITE for entry in group)
    execute = any(entry.prot & PROT_EXEC for entry in group)
    prot = PROT_READ | (PROT_WRITE if writable else 0) | (PROT_EXEC if execute else 0)
    batch = Batch()
    batch.call(nr.shmat, shmid, base, (0 if writable else SHM_RDONLY) | (SHM_EXEC if execute else 0))
    at = base
    for entry in group:
        if at < entry.start:
            batch.call(nr.munmap, at, entry.start - at)
        if entry.prot != prot:
            batch.call(nr.mprotect, entry.start, entry.end - entry.start, entry.prot)
        at = entry.end
    if at < end:
        batch.call(nr.munmap, at, end - at)
    runner.run(batch)
