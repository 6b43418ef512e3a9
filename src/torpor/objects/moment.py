"""When timers were read, by the monotonic clock of the tree: what remained of them counts from there.

The clock that the tree sees goes on from a later moment of the dump (:mod:`torpor.objects.ns.timens`), and runs while
it is restored; a timer that had all the same remaining then would be late by that clock.
"""

from __future__ import annotations

import struct
import time

from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.objects.session import DumpContext, RestoreContext
from torpor.tracee.batch import Batch, Data

_TIMESPEC = struct.Struct("<2q")
_SECOND = 1_000_000_000
_MICROSECOND = 1000
#: Of timers: CLOCK_REALTIME, BOOTTIME, the _ALARM forms of both, TAI.  Those of CPU time stand still, and those of the
#: monotonic clock are armed by it.
_GO_ON = frozenset((0, 7, 8, 9, 11))


def offsets(pid: Pid | str) -> dict[str, int]:
    """By how many nanoseconds the clocks of *pid*'s time namespace differ from the machine's own; none without any."""
    try:
        with open(f"/proc/{pid}/timens_offsets", encoding="ascii") as stream:
            rows = [line.split() for line in stream]
    except FileNotFoundError:
        return {}
    return {name: int(seconds) * _SECOND + int(nanoseconds) for name, seconds, nanoseconds in rows}


def ask(batch: Batch) -> Data:
    """Have the task read its clock now."""
    room = batch.out(_TIMESPEC.size)
    batch.call(nr.clock_gettime, time.CLOCK_MONOTONIC, room)
    return room


def told(room: Data) -> int:
    """What the task has read, in nanoseconds."""
    seconds, nanoseconds = _TIMESPEC.unpack(room.bytes())
    return int(seconds) * _SECOND + int(nanoseconds)


class Clock:
    """The monotonic clock as the tree sees it: a part of a dump, for which its difference from ours is asked once."""

    def __init__(self, context: DumpContext) -> None:
        (pid, *_) = (process.pid for process in context.processes)
        self._ahead_ns = offsets(pid).get("monotonic", 0) - offsets("self").get("monotonic", 0)

    def now_ns(self) -> int:
        """What it shows."""
        return time.monotonic_ns() + self._ahead_ns


def gone_ns(context: RestoreContext, at_ns: int) -> int:
    """How long ago *at_ns* was by the tree's clock; 0 where that is not known, or its clock has jumped."""
    if not at_ns or context.clock_shift_ns is None:
        return 0
    return max(0, time.monotonic_ns() + context.clock_shift_ns - at_ns)


def left_ns(remained_ns: int, gone: int) -> int:
    """What remains now; a timer that should have expired does so at once."""
    return max(1, remained_ns - gone)


def let_go_on(timers: m.task_timers_entry, context: RestoreContext) -> None:
    """Have the interval timer and POSIX timers that run remain what they would now.

    Those of the monotonic clock stay as they are; ``torpor_at_ns`` is left out where that has jumped.
    """
    if context.clock_shift_ns is None:
        timers.ClearField("torpor_at_ns")
    gone = gone_ns(context, timers.torpor_at_ns)
    if not gone:
        return
    real = timers.real
    if real.vsec or real.vusec:
        left = left_ns(real.vsec * _SECOND + real.vusec * _MICROSECOND, gone)
        real.vsec, real.vusec = divmod(max(1, left // _MICROSECOND), _SECOND // _MICROSECOND)
    for each in timers.posix:
        if (each.vsec or each.vnsec) and each.clock_id in _GO_ON:
            each.vsec, each.vnsec = divmod(left_ns(each.vsec * _SECOND + each.vnsec, gone), _SECOND)
