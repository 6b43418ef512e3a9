"""Adjustments of System V semaphores that wait for a process to end: SEM_UNDO of semop(2).

A restore does not bring them back, and what the process holds is not given back when it ends then.  The kernel tells
nobody what they are.  It does tell by kcmp(2) whether two tasks have the same list of them, and a task without one has
the same as any other without.  Whoever has, or had, threads has a list in any case: of these only those are told of
that were the last to change a semaphore.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.kernel import sysvipc
from torpor.kernel.kcmp import KCMP_SYSVSEM, kcmp
from torpor.kernel.namespaces import CLONE_NEWIPC, isolated, setns, unshare
from torpor.kernel.uapi.sched import CLONE_SYSVSEM
from torpor.objects.model import DumpProcess


def losses(processes: Iterable[DumpProcess]) -> list[str]:
    """What is said of each of the running *processes* that may have such adjustments; none where it cannot be told."""
    by_namespace: dict[str, list[DumpProcess]] = {}
    for process in processes:
        try:
            by_namespace.setdefault(os.readlink(f"/proc/{process.pid}/ns/ipc"), []).append(process)
        except OSError:
            continue  # it ended meanwhile, or is not ours to look at, which is said elsewhere
    own = os.readlink("/proc/self/ns/ipc")
    found: list[str] = []
    for namespace, members in by_namespace.items():
        try:
            if namespace != own or sysvipc.changed_sets():
                found += isolated(partial(_look, members, is_own=namespace == own))
        except OSError:
            continue  # it ended meanwhile, or a filter that we are under forbids it, or this kernel has no semaphores
    return found


def _look(members: Sequence[DumpProcess], *, is_own: bool) -> list[str]:
    """In a thread that is made for it."""
    if not is_own:
        with OwnedFd(os.open(f"/proc/{members[0].pid}/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)) as theirs:
            setns(theirs.fileno(), CLONE_NEWIPC)
    sets = sysvipc.changed_sets()
    if not sets:
        return []
    unshare(CLONE_SYSVSEM)  # a thread has its process's list
    return list(_with_lists(members, sets))


def _with_lists(members: Sequence[DumpProcess], sets: Sequence[tuple[int, int]]) -> Iterator[str]:
    me = Pid(_thread.get_native_id())
    users: set[int] | None = None
    for process in members:
        try:
            if kcmp(me, process.pid, KCMP_SYSVSEM) == 0:
                continue
        except OSError:
            continue
        if process.status.n_threads > 1:
            if users is None:
                users = {user for ident, count in sets for user in sysvipc.last_users(ident, count)}
            if process.pid not in users:
                continue
        yield (
            f"{process.describe()}: semaphores that it may have changed with SEM_UNDO"
            " are not given back any more when it ends"
        )
