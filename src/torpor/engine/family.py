"""The tree as :mod:`~torpor.engine.births` plans it: from a frozen tree, or from its images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from torpor.base.errors import RefusedError
from torpor.base.ids import TreePid
from torpor.engine.births import Member, PlanError, plan_births, plan_groups
from torpor.images import messages as m
from torpor.objects.model import DumpProcess, RestoreProcess

#: Tables that tasks can share by the flags of clone(2), as the ids image names them.
SHARED_KINDS = ("vm_id", "fs_id", "files_id", "sighand_id")


def family_of(everyone: Sequence[RestoreProcess]) -> list[Member]:
    """The members that stand for the processes, in the same order."""
    common = _common(process.ids for process in everyone if not process.is_zombie)
    members: dict[TreePid, Member] = {}
    for process in everyone:
        parent = members[process.parent.ns_pid] if process.parent else None
        shares = frozenset[tuple[str, int]]() if process.is_zombie else common & frozenset(_pairs(process.ids))
        entry = process.entry
        members[process.ns_pid] = Member(process.ns_pid, TreePid(entry.sid), TreePid(entry.pgid), parent, shares)
    return list(members.values())


#: Session and group of a process.
Belonging = tuple[TreePid, TreePid]


def belongings(processes: Sequence[DumpProcess], *, own_session: bool) -> dict[TreePid, Belonging]:
    """Session and group of each process, by its number in the namespace, as the images are to have them.

    With *own_session* a root whose session has its leader elsewhere (a shell's job) leads one of its own, and so does
    its group: whoever is in these two with it stays with it.  A leader outside of the pid namespace has the number 0.
    """
    found = {each.ns_pid: (TreePid(each.status.ns_sids[-1]), TreePid(each.status.ns_pgids[-1])) for each in processes}
    root = processes[0].ns_pid
    session, group = found[root]
    if not own_session or session in found:
        return found

    def moved(belonging: Belonging) -> Belonging:
        if belonging[0] != session:
            return belonging
        return root, belonging[1] if belonging[1] in found and belonging[1] != group else root

    return {pid: moved(belonging) for pid, belonging in found.items()}


def check(processes: Sequence[DumpProcess], belonging: dict[TreePid, Belonging], *, shell_job: bool) -> None:
    """RefusedError for a tree that could not be born again: its relations, or what it shares, are out of the ordinary.

    Without *shell_job* the session and the group of the root must be in the tree.
    """
    common = _common(process.ids for process in processes if not process.is_zombie)
    members: dict[TreePid, Member] = {}
    for process in processes:
        parent = members[process.parent.ns_pid] if process.parent else None
        shares = frozenset[tuple[str, int]]() if process.is_zombie else common & frozenset(_pairs(process.ids))
        members[process.ns_pid] = Member(process.ns_pid, *belonging[process.ns_pid], parent, shares)
    root = members[processes[0].ns_pid]
    for what, number in (("session", root.sid), ("process group", root.pgid)):
        if number and number not in members and not shell_job:
            raise RefusedError(
                f"{processes[0].describe()} is in {what} {number}, whose leader is outside of the tree",
                hint="use --shell-job for a command that was started from a shell",
            )
    try:
        plan_groups(root, plan_births(root))
    except PlanError as error:
        raise RefusedError(f"the tree of {processes[0].describe()} could not be rebuilt: {error}") from error


def _common(ids: Iterable[m.task_kobj_ids_entry]) -> frozenset[tuple[str, int]]:
    """What more than one process has."""
    counts: defaultdict[tuple[str, int], int] = defaultdict(int)
    for each in ids:
        for pair in _pairs(each):
            counts[pair] += 1
    return frozenset(pair for pair, count in counts.items() if count > 1)


def _pairs(ids: m.task_kobj_ids_entry) -> list[tuple[str, int]]:
    return [(name, number) for name in SHARED_KINDS if (number := getattr(ids, name))]
