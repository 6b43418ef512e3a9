"""Where there is something in vast mappings, on kernels that do not go from one page that is there to the next.

Kernel view
    Without PAGEMAP_SCAN (before 6.7) each word of pagemap is read: seconds for a terabyte.
    smaps goes by page tables and takes no time over what is not there, but counts by mappings.  So the mappings are cut
    into pieces for a moment, by advice that means nothing to memory without a file (MADV_RANDOM for every other one),
    and those pieces in which nothing is counted are left out; what is left is cut again.
Dump
    One batch a cut, which waits while smaps is read, and takes the advice back by itself should we die: mappings that
    are alike are one again.
Image
    None of its own.
Restore
    Nothing.
Limits
    A mapping that is populated everywhere, if thinly, is read as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from torpor.base import log
from torpor.base.errors import KernelError, TorporError
from torpor.images.pages import Range, divide
from torpor.kernel.arch import nr
from torpor.kernel.procfs import maps
from torpor.kernel.procfs.maps import Vma
from torpor.kernel.uapi.mman import MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL
from torpor.objects.memory import room, vmas
from torpor.objects.memory.contents import VAST
from torpor.objects.model import DumpProcess
from torpor.objects.session import DumpContext
from torpor.tracee.batch import Batch
from torpor.tracee.borrow import BorrowedRunner, inject

#: As many pieces at a time, of all mappings together; the smallest is read in a millisecond.
_N_PIECES = 128
_FINE = 64 << 20
_MAX_ROUNDS = 4
#: What one page table of the lowest level but one covers: no huge page lies across.
_ALIGN = 2 << 20


def find(process: DumpProcess, context: DumpContext) -> list[Range] | None:
    """Where in the vast mappings of the stopped *process* something is present or swapped, at least: all else of them
    is empty.  None where there are none, or nothing more can be told.
    """
    pairs = zip(process.maps, process.mm.vmas, strict=True)
    vast = [vma for vma, entry in pairs if vma.length > VAST and vmas.has_contents(entry) and not vma.is_file]
    if not vast or len(process.maps) + 2 * _N_PIECES > room.max_map_count():
        return None
    populated = maps.read_populated(process.pid)
    left = divide([(vma.start, vma.end) for vma in vast], populated)[0]
    if not left:
        return populated
    try:
        with room.made(process, context), inject(
            process.tracee.leader, process.maps, process.leftovers, pending=process.pending
        ) as injection, injection.borrow(process.tracee.leader) as runner:  # fmt: skip
            for _ in range(_MAX_ROUNDS):
                n_before, cuts = _size(left), _cuts(vast, left)
                if not cuts:
                    break
                left = divide(left, _cut(runner, process, cuts))[0]
                if _size(left) > n_before // 2:
                    break
    except (KernelError, TorporError) as error:
        log.info(f"{process.describe()}: all of its vast mappings is looked through ({error})")
    others = divide(populated, [(vma.start, vma.end) for vma in vast])[1]
    return sorted(others + left)


def _cut(runner: BorrowedRunner, process: DumpProcess, cuts: Sequence[tuple[Range, int, int]]) -> list[Range]:
    """Where there is something while the pieces are mappings of their own."""
    batch = Batch()
    for (start, end), advice, _ in cuts:
        batch.call(nr.madvise, start, end - start, advice, may_fail=True)
    batch.call(nr.tkill, batch.call(nr.gettid), runner.stop_signal)
    for (start, end), _, before in cuts:
        batch.call(nr.madvise, start, end - start, before, may_fail=True)
    found: list[list[Range]] = []

    def look(results: list[int]) -> None:
        if not found:
            found.append(maps.read_populated(process.pid))

    try:
        runner.run_pausing(batch, look)
    finally:
        if not found:
            # The batch did not come to its end (a task may not send itself a signal, say): what it has cut is undone
            # here.
            batch = Batch()
            for (start, end), _, before in cuts:
                batch.call(nr.madvise, start, end - start, before, may_fail=True)
            runner.run(batch)
    return found[0]


def _cuts(vast: Sequence[Vma], left: Sequence[Range]) -> list[tuple[Range, int, int]]:
    """Every other piece of what is *left*, with the advice that makes it another mapping and that which it has."""
    size = max(_FINE, (_size(left) // _N_PIECES + _ALIGN) & -_ALIGN)
    found: list[tuple[Range, int, int]] = []
    for vma in vast:
        before = MADV_RANDOM if "rr" in vma.flags else MADV_SEQUENTIAL if "sr" in vma.flags else MADV_NORMAL
        other = MADV_SEQUENTIAL if before == MADV_RANDOM else MADV_RANDOM
        for start, end in divide([(vma.start, vma.end)], left)[0]:
            at = (start + size) & -_ALIGN
            while at < end:
                found.append(((at, min(at + size, end)), other, before))
                at += 2 * size
    return found if len(found) <= _N_PIECES else []


def _size(ranges: Sequence[Range]) -> int:
    return sum(end - start for start, end in ranges)
