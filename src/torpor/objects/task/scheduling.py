"""How a thread is scheduled: policy, priority, nice, deadline, CPU affinity, I/O priority, timer slack.

Kernel view
    sched_getattr(2), sched_getaffinity(2) and ioprio_get(2) from outside; PR_GET_TIMERSLACK inside.
Image
    ``thread_core_entry.sched_policy``, ``sched_prio``, ``sched_nice``; what CRIU does not carry is in ``torpor_sched``
    (flags, deadline parameters, the slice of a fair thread that has chosen one, utilisation clamps), ``torpor_cpus``
    (only where it is not all CPUs), ``torpor_ioprio``, ``torpor_timer_slack`` (only where they are not the default).
Restore
    By the conductor, whose capabilities count everywhere, only where the puppet differs; before an affinity is set,
    since a deadline task must be allowed on all CPUs at that moment.
Limits
    An affinity, I/O priority or timer slack that this machine refuses is a warning, not a failure.  Core scheduling
    cookies are not carried.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import isolated
from torpor.kernel.procfs.small import read_small
from torpor.kernel.syscall import address_of, syscall
from torpor.kernel.uapi.ioprio import IOPRIO_CLASS_SHIFT, IOPRIO_WHO_PROCESS
from torpor.kernel.uapi.prctl import PR_GET_TIMERSLACK, PR_SCHED_CORE, PR_SET_TIMERSLACK
from torpor.kernel.uapi.sched import (
    SCHED_DEADLINE,
    SCHED_FIFO,
    SCHED_FLAG_RESET_ON_FORK,
    SCHED_FLAG_UTIL_CLAMP,
    SCHED_IDLE,
    SCHED_RR,
)
from torpor.objects.model import DumpThread, RestoreThread
from torpor.tracee.batch import Batch

_REALTIME = (SCHED_FIFO, SCHED_RR, SCHED_DEADLINE)
_SCHED_FLAGS_CARRIED = 0x7  # RESET_ON_FORK, RECLAIM, DL_OVERRUN
_FAIR = (0, 3, 5)
_SCHED_ATTR = struct.Struct("<IIQiIQQQII")
#: What a thread is asked to be that has no clamps, and what it says then, or where the kernel has none.
_NO_CLAMP = 0xFFFFFFFF
_UNCLAMPED = ((0, 1024), (0, 0))
_IOPRIO_BEST_EFFORT = 2 << IOPRIO_CLASS_SHIFT
DEFAULT_SLACK_NS = 50000
_CPU_MASK_BYTES = 1024


def look(thread: DumpThread) -> None:
    """Fill in what can be seen from outside."""
    core = thread.core.thread_core
    policy, flags, nice, priority, *deadline, low, high = _get_attr(thread.tid)
    if policy in _REALTIME:
        nice = os.getpriority(os.PRIO_PROCESS, thread.tid)
    if policy in _FAIR and deadline[0] != base_slice():
        core.torpor_sched.runtime = deadline[0]
    if _has_cookie(thread.tid):
        log.warn(f"{thread.process.describe()}: who shares a core with it (core scheduling) is not carried")
    if (low, high) not in _UNCLAMPED:
        core.torpor_sched.util_min, core.torpor_sched.util_max = low, high
    core.sched_policy, core.sched_nice, core.sched_prio = policy, nice, priority
    if flags & _SCHED_FLAGS_CARRIED:
        core.torpor_sched.flags = flags & _SCHED_FLAGS_CARRIED
    if policy == SCHED_DEADLINE:
        core.torpor_sched.runtime, core.torpor_sched.deadline, core.torpor_sched.period = deadline
    cpus = _get_affinity(thread.tid)
    if cpus != _online_cpus():
        core.torpor_cpus = cpus
    ioprio = _get_ioprio(thread.tid)
    # Who has chosen none has no class, but on 5.10 a level; until 5.18 some kernels told the effective one.
    if ioprio >> IOPRIO_CLASS_SHIFT and ioprio != _IOPRIO_BEST_EFFORT | (nice + 20) // 5:
        core.torpor_ioprio = ioprio


def ask(thread: DumpThread, batch: Batch) -> None:
    """Ask for the rest."""
    slack = batch.call(nr.prctl, PR_GET_TIMERSLACK)

    def collect() -> None:
        if slack.value not in (0, DEFAULT_SLACK_NS):  # a realtime thread has none
            thread.core.thread_core.torpor_timer_slack = slack.value

    batch.then(collect)


def restore(thread: RestoreThread, batch: Batch) -> None:
    """Set what differs.  RestoreError where the policy or the nice value is not ours to give."""
    core, tid = thread.core.thread_core, thread.runner.tid
    if core.HasField("sched_policy"):
        _restore_attr(core, tid)
    if core.HasField("torpor_ioprio"):
        _try("I/O priority", tid, nr.ioprio_set, IOPRIO_WHO_PROCESS, tid, core.torpor_ioprio)
    if core.HasField("torpor_cpus"):
        mask = bytearray(core.torpor_cpus[:_CPU_MASK_BYTES])
        mask += bytes(-len(mask) % 8 or (0 if mask else 8))
        _try("CPU affinity", tid, nr.sched_setaffinity, tid, len(mask), address_of(mask))
    if core.HasField("torpor_timer_slack"):
        batch.call(nr.prctl, PR_SET_TIMERSLACK, core.torpor_timer_slack, may_fail=True)


def _restore_attr(core: m.thread_core_entry, tid: Pid) -> None:
    more = core.torpor_sched
    policy, nice, priority = core.sched_policy & ~0x40000000, core.sched_nice, core.sched_prio
    flags = more.flags & _SCHED_FLAGS_CARRIED
    if core.sched_policy & 0x40000000:  # as sched_getscheduler(2) tells it
        flags |= SCHED_FLAG_RESET_ON_FORK
    if not -20 <= nice <= 19:
        raise RestoreError(f"thread {tid}: the image has a nice value of {nice}")
    current = _get_attr(tid)
    clamps = (more.util_min, more.util_max) if more.HasField("util_max") else _UNCLAMPED[0]
    if current[7:] not in (clamps, _UNCLAMPED[1]):
        _clamp(tid, clamps)
    if policy in _FAIR and current[:5] == (policy, flags, nice, 0, more.runtime or base_slice()):
        return
    deadline = (more.runtime, more.deadline, more.period) if policy == SCHED_DEADLINE else (more.runtime, 0, 0)
    if policy not in (*_FAIR, SCHED_DEADLINE):
        deadline = (0, 0, 0)
    # A realtime or idle thread keeps its nice value for later; sched_setattr does not set it there.
    plans = [(0, 0, nice, 0, 0, 0, 0)] if policy in (*_REALTIME, SCHED_IDLE) and current[2] != nice else []
    plans.append((policy, flags, nice, priority if policy in _REALTIME else 0, *deadline))
    for plan in plans:
        try:
            _set_attr(tid, *plan)
        except OSError as error:
            raise RestoreError(
                f"thread {tid}: scheduling policy {policy}, priority {priority}, nice {nice}: {error.strerror}",
                hint="needs CAP_SYS_NICE" if error.errno == errno.EPERM else None,
            ) from error


def reset(tid: Pid) -> None:
    """Of the root puppet, by us: any processor, the usual slice, no clamps, whatever was inherited.  Best effort."""
    policy, flags, nice, _, runtime, _, _, low, high = _get_attr(tid)
    everywhere = bytearray(b"\xff" * _CPU_MASK_BYTES)
    with suppress(OSError):
        syscall("sched_setaffinity", nr.sched_setaffinity, tid, len(everywhere), address_of(everywhere))
    with suppress(OSError):
        syscall("ioprio_set", nr.ioprio_set, IOPRIO_WHO_PROCESS, tid, 0)
    if policy in _FAIR and runtime != base_slice():
        with suppress(OSError):
            _set_attr(tid, policy, flags & SCHED_FLAG_RESET_ON_FORK, nice, 0, 0, 0, 0)
    if (low, high) not in _UNCLAMPED:
        _clamp(tid, _UNCLAMPED[0])


def _clamp(tid: Pid, clamps: tuple[int, int]) -> None:
    low, high = (_NO_CLAMP, _NO_CLAMP) if clamps in _UNCLAMPED else clamps
    keep = 0x18  # SCHED_FLAG_KEEP_POLICY, SCHED_FLAG_KEEP_PARAMS
    try:
        _set_attr(tid, 0, keep | SCHED_FLAG_UTIL_CLAMP, 0, 0, 0, 0, 0, low, high)
    except OSError as error:
        log.warn(f"thread {tid} does not get its utilisation clamps: {error.strerror}")


def _try(what: str, tid: Pid, number: int, *args: int) -> None:
    try:
        syscall(what, number, *args)
    except OSError as error:
        log.warn(f"thread {tid} does not get its {error.strerror}")


def _get_attr(tid: Pid) -> tuple[int, int, int, int, int, int, int, int, int]:
    """policy, flags, nice, priority, runtime, deadline, period, lowest and highest utilisation."""
    buffer = bytearray(_SCHED_ATTR.size)
    syscall("sched_getattr", nr.sched_getattr, tid, address_of(buffer), len(buffer), 0)
    _, policy, flags, nice, priority, runtime, deadline, period, low, high = _SCHED_ATTR.unpack(buffer)
    return policy, flags, nice, priority, runtime, deadline, period, low, high


def _set_attr(tid: Pid, *words: int) -> None:
    """The same values; the clamps may be left out."""
    buffer = bytearray(_SCHED_ATTR.pack(_SCHED_ATTR.size, *words, *([0] * (9 - len(words)))))
    syscall("sched_setattr", nr.sched_setattr, tid, address_of(buffer), 0)


_OURSELVES = Pid(0)


@functools.cache
def base_slice() -> int:
    """The slice of a thread that has chosen none; 0 on kernels (before 6.12) that know no choice."""

    def ask() -> int:
        policy, flags, nice, *_ = _get_attr(_OURSELVES)
        if policy in _FAIR:
            _set_attr(_OURSELVES, policy, flags & SCHED_FLAG_RESET_ON_FORK, nice, 0, 0, 0, 0)
        else:
            _set_attr(_OURSELVES, 0, 0, 0, 0, 0, 0, 0)
        return _get_attr(_OURSELVES)[4]

    try:
        return isolated(ask)
    except OSError:
        return _get_attr(_OURSELVES)[4]


def _has_cookie(tid: Pid) -> bool:
    """Whether the thread is kept apart from others by core scheduling."""
    return _has_core_scheduling() and any(_read_cookie(tid))


@functools.cache
def _has_core_scheduling() -> bool:
    try:
        _read_cookie(Pid(os.getpid()))
    except OSError:
        return False  # a kernel or processor without
    return True


def _read_cookie(tid: Pid) -> bytearray:
    cookie = bytearray(8)
    syscall("prctl(PR_SCHED_CORE)", nr.prctl, PR_SCHED_CORE, 0, tid, 0, address_of(cookie))
    return cookie


def _get_affinity(tid: Pid) -> bytes:
    buffer = bytearray(_CPU_MASK_BYTES)
    syscall("sched_getaffinity", nr.sched_getaffinity, tid, len(buffer), address_of(buffer))
    return bytes(buffer).rstrip(b"\0")


@functools.cache
def _online_cpus() -> bytes:
    mask = 0
    for part in read_small("/sys/devices/system/cpu/online").strip().split(","):
        first, _, last = part.partition("-")
        for cpu in range(int(first), int(last or first) + 1):
            mask |= 1 << cpu
    return mask.to_bytes(_CPU_MASK_BYTES, "little").rstrip(b"\0")


def _get_ioprio(tid: Pid) -> int:
    try:
        return syscall("ioprio_get", nr.ioprio_get, IOPRIO_WHO_PROCESS, tid)
    except OSError:
        return 0  # a kernel without block layer
