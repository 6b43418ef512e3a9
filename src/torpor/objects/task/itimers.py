"""Interval timers: ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.

Kernel view
    getitimer(2) inside the task.
Image
    ``task_timers_entry.real``, ``virt``, ``prof``: interval, and what remains.  ``torpor_at_ns``: what the monotonic
    clock showed then.
Restore
    setitimer(2) as the very last call before the task goes on, the real one with what remains by the clock that the
    task sees.  A timer that has expired but whose signal was not yet taken starts again only when it is; restored, it
    starts with a whole interval.
Limits
    The real timer goes on while the task is stopped for the dump, as it does for any stopped task.
"""

from __future__ import annotations

import struct

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.objects import moment
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch

_FIELDS = ("real", "virt", "prof")  # in the order of the ITIMER_ numbers
_ITIMERVAL = struct.Struct("<4q")
_USEC = 1000000


def dump(process: DumpProcess, batch: Batch) -> None:
    """Fill in the three."""
    timers = process.core.tc.timers
    rooms = [batch.out(_ITIMERVAL.size) for _ in _FIELDS]
    for which, room in enumerate(rooms):
        batch.call(nr.getitimer, which, room)

    at = moment.ask(batch)

    def collect() -> None:
        for name, room in zip(_FIELDS, rooms, strict=True):
            entry: m.itimer_entry = getattr(timers, name)
            entry.isec, entry.iusec, entry.vsec, entry.vusec = _ITIMERVAL.unpack(room.bytes())
        if timers.real.vsec or timers.real.vusec:
            timers.torpor_at_ns = moment.told(at)

    batch.then(collect)


def restore(process: RestoreProcess, batch: Batch) -> None:
    """Arm those that were armed."""
    if not process.core.tc.HasField("timers"):
        return
    for which, name in enumerate(_FIELDS):
        entry: m.itimer_entry = getattr(process.core.tc.timers, name)
        interval, left = (entry.isec, entry.iusec), (entry.vsec, entry.vusec)
        if max(interval[1], left[1]) >= _USEC or max(interval[0], left[0]) >= 1 << 62:
            raise RestoreError(f"pid {process.ns_pid}: the image has an interval timer with impossible values")
        if left == (0, 0):
            left = interval
        if left != (0, 0):
            batch.call(nr.setitimer, which, batch.data(_ITIMERVAL.pack(*interval, *left)), 0)
