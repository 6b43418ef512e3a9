"""Processes that have ended and wait for their parent; the signal by which a process's end is told.

Kernel view
    State Z in ``/proc/PID/stat``, whose last fields are the exit signal and the wait status.
Image
    ``task_core_entry.task_state`` TASK_DEAD and ``exit_code``; ``torpor_exit_signal`` where it is not SIGCHLD.
Restore
    A puppet ends as the original did.  Its parent waits for it as it would have; the SIGCHLD that it gets once more is
    taken away again (see ``signals.flush_sigchld``).
Limits
    Death with a core dump is restored as death without one: nobody wants a second core file.
"""

from __future__ import annotations

from contextlib import suppress

from torpor.base.errors import RestoreError, TargetGoneError, TorporError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.arch import nr
from torpor.kernel.uapi.prctl import PR_SET_DUMPABLE, PR_SET_NAME
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.objects.task import creds
from torpor.tracee.batch import Batch
from torpor.tracee.fate import die_by

DEAD = 2
SIGCHLD = 17
_NSIG = 64


def dump(process: DumpProcess) -> None:
    """Fill in the core image of a zombie."""
    core = process.core.tc
    core.task_state = DEAD
    core.exit_code = process.stat.exit_code
    core.personality = 0
    core.blk_sigset = 0
    thread = process.core.thread_core
    creds.fill(thread.creds, process.status, process.idmaps)
    # What the format demands and a zombie has no more.
    thread.creds.secbits = 0
    thread.futex_rla = thread.futex_rla_len = 0
    dump_exit_signal(process)


def dump_exit_signal(process: DumpProcess) -> None:
    """The signal that the parent gets, where it is not the usual one."""
    if process.stat.exit_signal != SIGCHLD:
        process.core.tc.torpor_exit_signal = process.stat.exit_signal


def exit_signal_of(core: m.core_entry) -> int:
    """The signal with which to clone the process."""
    if not core.tc.HasField("torpor_exit_signal"):
        return SIGCHLD
    number = core.tc.torpor_exit_signal
    if not 0 <= number <= _NSIG:
        raise ImageError(f"there is no signal {number} to end by")
    return number


def restore(process: RestoreProcess) -> None:
    """Let the puppet end; its parent has a zombie afterwards."""
    code = process.core.tc.exit_code
    number, status = code & 0x7F, code >> 8 & 0xFF
    runner = process.runner
    batch = Batch()
    batch.call(nr.prctl, PR_SET_NAME, batch.path(process.core.tc.comm))
    if process.core.thread_core.HasField("creds"):
        creds.restore_ids(process.core.thread_core.creds, process.threads[0].status, process.idmaps, batch)
    runner.run(batch)
    if process.parent is not None:
        process.parent.got_sigchld = True
    if number:
        _leave_no_core(process)
        try:
            die_by(runner.thread, number)
        except TorporError as error:
            raise ImageError(f"pid {process.ns_pid} cannot have ended with wait status {code:#x}") from error
        return
    batch = Batch()
    batch.call(nr.exit_group, status)
    try:
        runner.run(batch)
    except TargetGoneError:
        return
    raise TorporError(f"pid {process.ns_pid} did not end")


def _leave_no_core(process: RestoreProcess) -> None:
    """Its death is to write no file, which a limit does not keep a program behind core_pattern from doing.

    From there on not even we may look into it, unless we may trace anybody.
    """
    batch = Batch()
    batch.call(nr.prctl, PR_SET_DUMPABLE, 0)
    try:
        process.runner.begin(batch)
    except PermissionError as error:
        raise RestoreError(f"pid {process.ns_pid} cannot be kept from leaving a core file: {error}") from error
    with suppress(PermissionError):
        process.runner.finish()
