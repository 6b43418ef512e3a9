"""Room for what we need in a task for a while: our loop in one that has used up its limits, a few mappings more.

Kernel view
    RLIMIT_AS and RLIMIT_DATA count what is mapped; ``vm.max_map_count`` how many mappings there are, and mremap(2)
    wants some to be free, whatever it does.
Dump
    The two limits are raised for as long as the loop is there; a caretaker sets them back if we die.
Image
    None: the limits themselves are ``task.limits``'.
Restore
    Limits are set when everything is there.
Limits
    A hard limit is raised only with CAP_SYS_RESOURCE: refused otherwise, as too many mappings are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.kernel import rlimits
from torpor.kernel.procfs.small import read_small
from torpor.objects.model import DumpProcess
from torpor.objects.session import DumpContext, Noticed

_NAMES = {rlimits.DATA: ("RLIMIT_DATA", "data", "VmData"), rlimits.AS: ("RLIMIT_AS", "as", "VmSize")}
_NEEDED = 512 << 10
#: With less than that to spare the limit is raised in any case: more may have been mapped since we looked.
_PLENTY = 64 << 20
_N_MAPPINGS = 6


def check(process: DumpProcess, n_mappings: int, noticed: Noticed) -> Iterator[RefusedError]:
    """Refuse a running process in which there will not be room; take note of one whose limits must be raised."""
    top = max_map_count()
    if n_mappings + _N_MAPPINGS > top:
        yield RefusedError(
            f"{process.describe()} has {n_mappings} mappings, and this machine allows {top}: none is left for torpor",
            hint=f"sysctl vm.max_map_count={n_mappings + 1000}",
        )
    used = None
    limits = rlimits.read_limits(process.pid)
    for number, (name, option, field) in _NAMES.items():
        soft, hard = limits[number]
        if soft == rlimits.INFINITY:
            continue
        used = used or _read_sizes(process.pid)
        if soft - used[field] >= _PLENTY:
            continue
        noticed.marks.add(_note(process))
        if hard - used[field] < _NEEDED and not rlimits.may_raise():
            yield RefusedError(
                f"{process.describe()} has used up its hard limit {name} of {hard} bytes",
                hint=f"prlimit --pid {process.pid} --{option}={used[field] + _NEEDED}, or CAP_SYS_RESOURCE for torpor",
            )


def max_map_count() -> int:
    """How many mappings a process may have."""
    return int(read_small("/proc/sys/vm/max_map_count"))


def is_enough(n_mappings: int) -> bool:
    """Whether a process with so many mappings can be made."""
    return n_mappings + _N_MAPPINGS <= max_map_count()


@contextmanager
def made(process: DumpProcess, context: DumpContext) -> Iterator[None]:
    """Room, while the block lasts, in a stopped process of which ``check`` has taken note."""
    if _note(process) not in context.noticed.marks:
        yield
        return
    from torpor.tracee.caretaker import limit

    caretaker = context.outside.caretaker
    uid, gid = process.status.uids[0], process.status.gids[0]
    assert process.pidfd is not None
    raised: list[tuple[int, int, int]] = []
    keys = []
    try:
        limits = rlimits.read_limits(process.pid)
        for number in _NAMES:
            soft, hard = limits[number]
            if soft == rlimits.INFINITY:
                continue
            top = rlimits.INFINITY if rlimits.may_raise() else hard
            keys += caretaker.add([limit(process.pidfd.fileno(), process.pid, number, soft, hard, uid, gid)])
            rlimits.set_limit(process.pid, number, top, max(hard, top), uid, gid)
            process.limits[number] = (soft, hard)
            raised.append((number, soft, hard))
        yield
    finally:
        for number, soft, hard in raised:
            rlimits.set_limit(process.pid, number, soft, hard, uid, gid)
        caretaker.drop(keys)


def _note(process: DumpProcess) -> str:
    return f"limits of {process.pid}"


def _read_sizes(pid: Pid) -> dict[str, int]:
    lines = (line.partition(":") for line in read_small(f"/proc/{pid}/status").splitlines())
    return {name: int(value.split()[0]) << 10 for name, _, value in lines if name in ("VmSize", "VmData")}
