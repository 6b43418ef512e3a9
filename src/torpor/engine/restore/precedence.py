"""What an image may ask for at the cost of everybody else on the machine, beyond what we have ourselves.

Real-time and deadline scheduling, negative nice values, real-time input and output, reserves of memory, being spared
when memory ends; and the limits that would allow a task to take these later.  Whoever restores as root could give them.
Other limits only bound what their own task uses up, which any program can use up anyway; they vary with the machine.
"""

from __future__ import annotations

import os
import resource

from torpor.base.errors import TRUST_IT, NotPermittedError
from torpor.kernel.procfs.small import read_small
from torpor.kernel.uapi.ioprio import IOPRIO_CLASS_RT, IOPRIO_CLASS_SHIFT
from torpor.kernel.uapi.resource import RLIMIT_NICE, RLIMIT_RTPRIO
from torpor.kernel.uapi.sched import SCHED_DEADLINE, SCHED_FIFO, SCHED_RR
from torpor.objects.model import RestoreProcess, RestoreThread

_REALTIME = {SCHED_FIFO: "real-time", SCHED_RR: "real-time", SCHED_DEADLINE: "deadline"}
_RESET_ON_FORK = 0x40000000
_INFINITY = (1 << 64) - 1


def check_thread(thread: RestoreThread) -> None:
    """NotPermittedError for a thread that would go before others."""
    core, image = thread.core.thread_core, f"core-{thread.ns_tid}.img: thread_core"
    policy = core.sched_policy & ~_RESET_ON_FORK
    if policy in _REALTIME:
        raise _refusal(f"{image}: sched_policy: {_REALTIME[policy]} scheduling")
    if core.sched_nice < min(0, os.getpriority(os.PRIO_PROCESS, 0)):
        raise _refusal(f"{image}: sched_nice: a nice value of {core.sched_nice}")
    if core.torpor_ioprio >> IOPRIO_CLASS_SHIFT == IOPRIO_CLASS_RT:
        raise _refusal(f"{image}: torpor_ioprio: real-time priority at input and output")
    if core.torpor_io_flusher:
        raise _refusal(f"{image}: torpor_io_flusher: the reserves of memory")


def check_process(process: RestoreProcess) -> None:
    """NotPermittedError for a process that would be spared, or might go before others."""
    core, image = process.core.tc, f"core-{process.ns_pid}.img: tc"
    if core.oom_score_adj < min(0, int(read_small("/proc/self/oom_score_adj"))):
        raise _refusal(f"{image}: oom_score_adj: an OOM score of {core.oom_score_adj}")
    if core.torpor_autogroup_nice < 0:
        raise _refusal(f"{image}: torpor_autogroup_nice: a nice value of {core.torpor_autogroup_nice} for its session")
    for number, name in ((RLIMIT_NICE, "RLIMIT_NICE"), (RLIMIT_RTPRIO, "RLIMIT_RTPRIO")):
        limits, ours = core.rlimits.rlimits, resource.getrlimit(number)[1] & _INFINITY
        if len(limits) > number and limits[number].max > ours:
            raise _refusal(f"{image}: rlimits: {name} of {limits[number].max}, above ours of {ours},")


def _refusal(what: str) -> NotPermittedError:
    return NotPermittedError(f"{what} is asked for", hint=TRUST_IT)
