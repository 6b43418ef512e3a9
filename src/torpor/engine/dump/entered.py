"""Processes that entered a pid namespace of the tree's from outside, as ``podman exec`` and nsenter(1) make them.

They are not below the namespace's first process, and so not in the tree; but the kernel kills them with that first
process.  They are found by the namespace before anything is frozen, and looked for once more before the tree ends.
Carried, they are children of the first process in the images, as if their parent outside had died.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence

from torpor.base import log
from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.base.typed import TYPE_CHECKING
from torpor.engine.options import CARRY, LEAVE_OUT
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.status import read_status

if TYPE_CHECKING:
    from torpor.objects.model import DumpProcess

#: For so long a command that is about to end (a health check) is waited for.
_WAIT_S, _LOOK_EVERY_S = 1.0, 0.02
_N_NAMED = 5


def find(tree: Sequence[Pid]) -> dict[Pid, list[Pid]]:
    """Those processes, by the pid of their namespace's first process, which is one of *tree*.

    *tree*: the pids of all its processes.  Nothing is looked through unless one of them is such a first process.
    """
    return _find(tree, _iter_numbers(tree))


def _find(tree: Sequence[Pid], numbers: Iterable[tuple[Pid, Sequence[int]]]) -> dict[Pid, list[Pid]]:
    inits = dict(_iter_inits(numbers))
    if not inits:
        return {}
    known, found = set(tree), dict[Pid, list[Pid]]()
    for name in os.listdir("/proc"):
        if not name.isdigit() or (pid := Pid(int(name))) in known:
            continue
        init = inits.get(_namespace_of(name))
        if init is not None and _is_entered(pid, known):
            found.setdefault(init, []).append(pid)
    return found


def to_carry(tree: Sequence[Pid], mode: str) -> dict[Pid, list[Pid]]:
    """Those that are to be dumped with the *tree*.  RefusedError names them unless *mode* allows them.

    What is about to end by itself has a moment to do so.
    """
    found = find(tree)
    deadline = time.monotonic() + _WAIT_S
    while found and mode != CARRY and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
        found = find(tree)
    if mode == CARRY:
        return found
    _allow(found, mode)
    return {}


def look_again(processes: Sequence[DumpProcess], mode: str) -> None:
    """As ``to_carry``, of what has come since and can be carried no more: *processes*, the tree, are frozen.

    Meant for the last instant before it ends.  Those that are left out are named once more, with the new ones.
    """
    tree = [process.pid for process in processes]
    _allow(_find(tree, ((process.pid, process.status.ns_tgids) for process in processes)), mode)


def _allow(found: dict[Pid, list[Pid]], mode: str) -> None:
    for init, pids in found.items():
        if mode != LEAVE_OUT:
            raise refusal(init, pids)
        log.warn(loss(init, pids))


def loss(init: Pid, pids: Sequence[Pid]) -> str:
    """What is said of those that are left out."""
    return f"left out: {describe(pids)}, which entered the pid namespace of {describe([init])}"


def refusal(init: Pid, pids: Sequence[Pid]) -> RefusedError:
    """The error for those that entered the namespace of *init*."""
    return RefusedError(
        f"{describe(pids)} {'is' if len(pids) == 1 else 'are'} in the pid namespace of {describe([init])} but not "
        f"below it (podman exec, nsenter), and would be killed with it",
        hint="end what was started there and try again, or say --exec-processes=carry to take it along, or "
        "--exec-processes=leave-out to lose it; for a container as a line `exec-processes carry` in "
        "/etc/criu/runc.conf",
    )


def describe(pids: Sequence[Pid]) -> str:
    """``pid 123 (redis-server) and pid 130 (sh)``."""
    names = [f"pid {pid} ({name})" if (name := _comm(pid)) else f"pid {pid}" for pid in pids[:_N_NAMED]]
    if len(pids) > _N_NAMED:
        names.append(f"{len(pids) - _N_NAMED} more")
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _iter_numbers(tree: Sequence[Pid]) -> Iterator[tuple[Pid, Sequence[int]]]:
    """Each pid of *tree* with its numbers in all the namespaces that it is in, ours first."""
    for pid in tree:
        try:
            yield pid, read_status(pid).ns_tgids
        except (FileNotFoundError, ProcessLookupError):
            continue


def _iter_inits(numbers: Iterable[tuple[Pid, Sequence[int]]]) -> Iterator[tuple[str, Pid]]:
    """The pid namespaces, other than ours, of which one of the processes is the first."""
    ours = _namespace_of("self")
    for pid, inside in numbers:
        if len(inside) > 1 and inside[-1] == 1 and (namespace := _namespace_of(str(pid))) not in ("", ours):
            yield namespace, pid


def _namespace_of(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _is_entered(pid: Pid, tree: set[Pid]) -> bool:
    """Whether it lives, and is not a new descendant of the tree's, or below another one that entered."""
    at = pid
    while True:
        try:
            stat = read_stat(at)
        except (FileNotFoundError, ProcessLookupError):
            return False
        if at == pid and stat.state in "ZX":
            return False
        if stat.ppid in tree:
            return False
        if not stat.ppid or _namespace_of(str(stat.ppid)) != _namespace_of(str(pid)):
            return at == pid
        at = stat.ppid


def _comm(pid: Pid) -> str:
    try:
        return read_stat(pid).comm
    except (FileNotFoundError, ProcessLookupError):
        return ""
