"""The tree as :mod:`~torpor.engine.births` plans it: from a frozen tree, or from its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from torpor.base.errors import RefusedError
from torpor.engine.births import Member, PlanError, plan_births, plan_groups
from torpor.images import messages as m
from torpor.objects.model import DumpProcess, RestoreProcess

#: Tables that tasks can share by the flags of clone(2), as the ids image names them.
SHARED_KINDS = ("vm_id", "fs_id", "files_id", "sighand_id")


def family_of(everyone: Sequence[RestoreProcess]) -> list[Member]:
    """The members that stand for the processes, in the same order."""
    common = _common(process.ids for process in everyone if not process.is_zombie)
    members: dict[int, Member] = {}
    for process in everyone:
        entry = process.entry
        parent = members[process.parent.ns_pid] if process.parent else None
        shares = frozenset[tuple[str, int]]() if process.is_zombie else common & frozenset(_pairs(process.ids))
        members[entry.pid] = Member(entry.pid, entry.sid, entry.pgid, parent, shares)
    return list(members.values())


def check(processes: Sequence[DumpProcess], *, shell_job: bool) -> None:
    """RefusedError for a tree that could not be born again: its relations, or what it shares, are out of the ordinary.

    Without *shell_job* the session and the group of the root must be in the tree.
    """
    common = _common(process.ids for process in processes if not process.is_zombie)
    members: dict[int, Member] = {}
    for process in processes:
        parent = members[process.parent.ns_pid] if process.parent else None
        shares = frozenset[tuple[str, int]]() if process.is_zombie else common & frozenset(_pairs(process.ids))
        status = process.status
        members[process.ns_pid] = Member(process.ns_pid, status.ns_sids[-1], status.ns_pgids[-1], parent, shares)
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
    counts = Counter(pair for each in ids for pair in _pairs(each))
    return frozenset(pair for pair, count in counts.items() if count > 1)


def _pairs(ids: m.task_kobj_ids_entry) -> list[tuple[str, int]]:
    return [(name, number) for name in SHARED_KINDS if (number := getattr(ids, name))]
