"""Running, or stopped by job control (SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU), all threads together.

Kernel view
    The stop that PTRACE_SEIZE reports; waitid(2) with WNOWAIT tells its parent of it until that has waited.  (So does
    the last field of ``/proc/PID/stat``, but not on 5.10.)
Image
    ``task_core_entry.task_state`` and ``stop_signo``; ``torpor_stop_reported`` once the parent has waited.
Restore
    The puppet is stopped for good while we still trace it, so that its parent's SIGCHLD comes early enough to be taken
    away again.  A stop that the parent had waited for is waited for once more.
Limits
    Where the stopping signal no longer stops (it has a handler by now), SIGSTOP does it.
"""

from __future__ import annotations

from torpor.images.errors import ImageError
from torpor.kernel import signal
from torpor.kernel.arch import nr
from torpor.kernel.uapi.wait import P_PID, WNOHANG, WNOWAIT, WSTOPPED
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch
from torpor.tracee.fate import STOP_SIGNALS, stop_group
from torpor.tracee.thread import WALL

ALIVE, STOPPED = 1, 3
#: ``siginfo_t``, and where a child's pid stands in it: 0 where there is nothing to tell.
_SIGINFO_SIZE, _PID_OFFSET = 128, 16


def ask_parent(process: DumpProcess) -> None:
    """If it is stopped, have its parent say, with the other questions to that, whether it has waited for the stop."""
    if process.tracee.leader.group_stop and process.parent is not None:
        process.parent.questions.append(lambda batch: _ask(process, batch))


def _ask(process: DumpProcess, batch: Batch) -> None:
    told = batch.out(_SIGINFO_SIZE)
    how = WSTOPPED | WNOHANG | WNOWAIT | WALL
    asked = batch.call(nr.waitid, P_PID, process.ns_pid, told, how, 0, may_fail=True)

    def take() -> None:
        if not asked.errno and not int.from_bytes(told.bytes()[_PID_OFFSET : _PID_OFFSET + 4], "little"):
            process.core.tc.torpor_stop_reported = True

    batch.then(take)


def dump(process: DumpProcess, batch: Batch) -> None:
    """Fill in the state."""
    core = process.core.tc
    number = process.tracee.leader.group_stop
    core.task_state = STOPPED if number else ALIVE
    if number:
        core.stop_signo = number


def is_stopped(process: RestoreProcess) -> bool:
    """Whether the image says so."""
    return process.core.tc.task_state == STOPPED


def restore(process: RestoreProcess, number: int = 0) -> None:
    """Stop all threads of the puppet by *number*, or by the signal that the image has."""
    core = process.core.tc
    number = number or (core.stop_signo if core.HasField("stop_signo") else signal.SIGSTOP)
    if number not in STOP_SIGNALS:
        raise ImageError(f"pid {process.ns_pid} cannot have been stopped by signal {number}")
    stop_group([thread.runner.thread for thread in process.threads], number)
    if process.parent is not None:
        process.parent.got_sigchld = True


def restore_waited(process: RestoreProcess, batch: Batch) -> None:
    """Wait for those stopped children whose stop *process* had waited for."""
    for child in process.children:
        if not child.is_zombie and is_stopped(child) and child.core.tc.torpor_stop_reported:
            batch.call(nr.waitid, P_PID, child.ns_pid, 0, WSTOPPED | WNOHANG, 0, may_fail=True)
