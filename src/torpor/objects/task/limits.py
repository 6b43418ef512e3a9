"""Resource limits.

Kernel view
    ``/proc/PID/limits``, for everybody; prlimit(2) from outside, of another user's task, needs CAP_SYS_RESOURCE.
Image
    ``task_core_entry.rlimits``, in the kernel's order; all ones stand for no limit.
Restore
    By prlimit(2) inside, while the puppet still has our privileges.  The soft limit on queued signals comes last, since
    the pending signals that are queued again count against it.
Limits
    A hard limit above ours can be given only with CAP_SYS_RESOURCE: refused otherwise, as in CRIU.
"""

from __future__ import annotations

import functools
import os
import struct

from torpor.base.errors import RestoreError
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel import rlimits
from torpor.kernel.arch import nr
from torpor.kernel.idmap import IDENTITY
from torpor.kernel.procfs.status import read_status
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.resource import RLIMIT_SIGPENDING
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch

_RLIMIT = struct.Struct("<QQ")
CAP_SYS_RESOURCE = 24
_NAMES = (
    "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
    "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
)  # fmt: skip


def dump(process: DumpProcess) -> None:
    """Fill in ``task_core_entry.rlimits`` with all limits of the task, soft and hard, as they were when it stopped."""
    entries = process.core.tc.rlimits.rlimits
    for number, limit in enumerate(rlimits.read_limits(process.pid)):
        cur, top = process.limits.get(number, limit)
        entries.add(cur=cur, max=top)


def restore(process: RestoreProcess, batch: Batch) -> None:
    """All limits, that on queued signals at its hard limit for now.  RestoreError where ours are lower."""
    for number, limit in enumerate(process.core.tc.rlimits.rlimits):
        if number >= rlimits.N_LIMITS:
            break
        if limit.cur > limit.max:
            raise RestoreError(f"pid {process.ns_pid}: RLIMIT_{_NAMES[number]} has a soft limit above the hard one")
        ours = _own_hard_limits()[number]
        if limit.max > ours:
            raise RestoreError(
                f"pid {process.ns_pid}: its hard limit RLIMIT_{_NAMES[number]} of {_shown(limit.max)} is above ours,"
                f" {_shown(ours)}",
                hint="restore with CAP_SYS_RESOURCE or with a higher limit",
            )
        cur = limit.max if number == RLIMIT_SIGPENDING else limit.cur
        packed = _RLIMIT.pack(cur, limit.max)
        if process.idmaps is not IDENTITY and limit.max > _inherited()[number]:
            # In a user namespace nobody can raise a limit, whatever capabilities they have there; we can.
            content = bytearray(packed)
            syscall("prlimit", nr.prlimit64, process.pid, number, address_of(content), 0)
        else:
            batch.call(nr.prlimit64, 0, number, batch.data(packed), 0)


def restore_signal_limit(process: RestoreProcess, batch: Batch) -> None:
    """The soft limit on queued signals."""
    limits = process.core.tc.rlimits.rlimits
    if len(limits) > RLIMIT_SIGPENDING:
        limit: m.rlimit_entry = limits[RLIMIT_SIGPENDING]
        if limit.cur != limit.max:
            packed = batch.data(_RLIMIT.pack(limit.cur, limit.max))
            batch.call(nr.prlimit64, 0, RLIMIT_SIGPENDING, packed, 0)


@functools.cache
def _own_hard_limits() -> tuple[int, ...]:
    """Ours, which every puppet has inherited; none where we may raise them."""
    if read_status(Pid(os.getpid())).cap_effective >> CAP_SYS_RESOURCE & 1:
        return (rlimits.INFINITY,) * rlimits.N_LIMITS
    return _inherited()


def _inherited() -> tuple[int, ...]:
    """The hard limits that a puppet has from us."""
    import resource

    return tuple(resource.getrlimit(number)[1] & rlimits.INFINITY for number in range(rlimits.N_LIMITS))


def _shown(value: int) -> str:
    return "no limit" if value == rlimits.INFINITY else str(value)
