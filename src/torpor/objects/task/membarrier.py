"""What a process has registered for with membarrier(2).

Kernel view
    MEMBARRIER_CMD_GET_REGISTRATIONS inside the task (Linux 6.3).
Image
    ``task_core_entry.membarrier_registration_mask``: the commands that register, or'ed.
Restore
    Each command again.
Limits
    A kernel that cannot tell has its processes restored without: the call then fails with EPERM in them.
"""

from __future__ import annotations

from torpor.kernel.arch import nr
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch

MEMBARRIER_CMD_GET_REGISTRATIONS = 1 << 9
_N_COMMANDS = 9


def dump(process: DumpProcess, batch: Batch) -> None:
    """Fill in the mask."""
    answer = batch.call(nr.membarrier, MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0, may_fail=True)

    def collect() -> None:
        if answer.value > 0:
            process.core.tc.membarrier_registration_mask = answer.value

    batch.then(collect)


def restore(process: RestoreProcess, batch: Batch) -> None:
    """Register the process for the commands of the image, by a call each."""
    mask = process.core.tc.membarrier_registration_mask
    for bit in range(_N_COMMANDS):
        if mask & 1 << bit:
            batch.call(nr.membarrier, 1 << bit, 0, 0)
