"""Whether a process adopts the orphans below it (PR_SET_CHILD_SUBREAPER).

Kernel view
    prctl(2) in the process itself.
Image
    ``task_core_entry.child_subreaper``.
Restore
    Once the tree stands: what died in making it must not have been adopted by the wrong one.
Limits
    None: whose children orphans are by now is the tree's shape, and carried with it.
"""

from __future__ import annotations

from torpor.kernel.arch import nr
from torpor.kernel.uapi.prctl import PR_GET_CHILD_SUBREAPER, PR_SET_CHILD_SUBREAPER
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch


def dump(process: DumpProcess, batch: Batch) -> None:
    """Ask for the flag."""
    room = batch.out(4)
    batch.call(nr.prctl, PR_GET_CHILD_SUBREAPER, room)

    def collect() -> None:
        process.core.tc.child_subreaper = any(room.bytes())

    batch.then(collect)


def restore(process: RestoreProcess, batch: Batch) -> None:
    """Have the process adopt orphans below it, if it did (PR_SET_CHILD_SUBREAPER)."""
    if process.core.tc.child_subreaper:
        batch.call(nr.prctl, PR_SET_CHILD_SUBREAPER, 1)
