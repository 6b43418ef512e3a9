"""What a task has from its parent, and the root puppet from us and from whoever has called us.

A restorer may run with signals ignored (nohup), on one processor (taskset), at an idle I/O priority, in a sandbox.
The root puppet is made a process like any other before it bears children (``reset``): the aspects then set what the
images say, and what they leave out is the default.  What cannot be taken back is told (``tell``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.ids import Pid
from torpor.kernel.arch import nr
from torpor.kernel.procfs.status import read_status
from torpor.kernel.syscall import syscall
from torpor.kernel.uapi.prctl import PR_SET_TIMERSLACK
from torpor.objects.memory import mm
from torpor.objects.model import RestoreProcess, RestoreThread
from torpor.objects.task import keyrings, landlock, mempolicy, scheduling, signals, switches
from torpor.tracee.batch import Batch

#: MMF_DUMP_FILTER_DEFAULT: for images that do not say.
_COREDUMP_FILTER = 0x33


def reset(root: RestoreProcess) -> None:
    """Give the root puppet the defaults of everything that it has inherited."""
    status = root.threads[0].status
    batch = Batch()
    signals.reset(status.ignored, batch)
    mempolicy.reset(batch)
    switches.reset(batch)
    batch.call(nr.prctl, PR_SET_TIMERSLACK, scheduling.DEFAULT_SLACK_NS)
    keyrings.reset(root.idmaps.users.inside(status.uids[1]), batch)
    root.runner.run(batch)
    scheduling.reset(root.runner.tid)
    mm.set_coredump_filter(root.pid, _COREDUMP_FILTER)


def check() -> None:
    """RestoreError where we could make nothing."""
    if _may_make_no_code():
        raise RestoreError(
            "torpor itself may not make code of what was writable (MDWE), and what it restores could not either",
            hint="call it from elsewhere than a service with MemoryDenyWriteExecute=",
        )


def _may_make_no_code() -> bool:
    try:
        return syscall("prctl(PR_GET_MDWE)", nr.prctl, switches.PR_GET_MDWE, 0, 0, 0, 0) & 1 == 1
    except OSError:
        return False  # a kernel without


def tell(threads: Iterable[RestoreThread]) -> None:
    """Warn of what *threads* will have of ours that they had not."""
    ours = read_status(Pid(os.getpid()))
    gained = sum(1 for each in threads if not each.core.thread_core.creds.no_new_privs)
    if ours.no_new_privs and gained:
        log.warn(
            f"torpor runs with no_new_privs, so {gained} restored threads that had it not get it as well:"
            " set-uid programs give them nothing any more"
        )
    if ours.seccomp_mode:
        log.warn("torpor runs under a seccomp filter, which the restored processes get as well")
    if landlock.confines_us():
        log.warn("torpor is confined by Landlock, and so is what it restores, which was not")
