"""What a process has registered for with membarrier(2).

Kernel view
    MEMBARRIER_CMD_GET_REGISTRATIONS inside the task (Linux 6.3).  Before that the private commands tell: they fail
    with EPERM in a process that has not registered.
Image
    ``task_core_entry.membarrier_registration_mask``: the commands that register, or'ed.
Restore
    Each command again.
Limits
    Before 6.3 nothing tells who is to be heard by MEMBARRIER_CMD_GLOBAL_EXPEDITED: every process is registered, which
    costs it an interrupt when another one calls that, where a lost registration would cost it the barrier.
"""

from __future__ import annotations

from torpor.kernel.arch import nr
from torpor.kernel.syscall import syscall
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch

_QUERY = 0
_REGISTER_GLOBAL_EXPEDITED = 1 << 2
#: Of the core's instructions, and of restartable sequences, among them.
_PRIVATE_COMMANDS = (1 << 3, 1 << 5, 1 << 7)
MEMBARRIER_CMD_GET_REGISTRATIONS = 1 << 9
_N_COMMANDS = 9


def dump(process: DumpProcess, batch: Batch) -> None:
    """Fill in the mask."""
    if _ask(MEMBARRIER_CMD_GET_REGISTRATIONS) < 0:
        _try_out(process, batch)
        return
    answer = batch.call(nr.membarrier, MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0, may_fail=True)

    def collect() -> None:
        if answer.value > 0:
            process.core.tc.membarrier_registration_mask = answer.value

    batch.then(collect)


def _try_out(process: DumpProcess, batch: Batch) -> None:
    known = max(_ask(_QUERY), 0)
    answers = [(command, batch.call(nr.membarrier, command, 0, 0, may_fail=True)) for command in _PRIVATE_COMMANDS]

    def collect() -> None:
        mask = known & _REGISTER_GLOBAL_EXPEDITED
        # The bit of what registers for a command is the next one.
        mask |= sum(command << 1 for command, answer in answers if answer.value == 0)
        if mask:
            process.core.tc.membarrier_registration_mask = mask

    batch.then(collect)


def _ask(command: int) -> int:
    try:
        return syscall("membarrier", nr.membarrier, command)
    except OSError:
        return -1


def restore(process: RestoreProcess, batch: Batch) -> None:
    """Register the process for the commands of the image, by a call each."""
    mask = process.core.tc.membarrier_registration_mask
    for bit in range(_N_COMMANDS):
        if mask & 1 << bit:
            batch.call(nr.membarrier, 1 << bit, 0, 0)
