"""``--cgroup-root``: groups are put elsewhere than they were.

What is carried of a hierarchy has a *base*: the root of the tree's cgroup namespace, or else the directory that all its
heads lie in or below.  The base is replaced by the new root, in the paths of tasks and of directories alike.
"""

from __future__ import annotations

from torpor.base.records import replace
from torpor.images import messages as m
from torpor.images.text import get_text, set_text
from torpor.objects.cgroup.membership import Member
from torpor.objects.cgroup.model import CgroupPolicy, is_below, normal


def rewrite(
    controllers: list[m.cg_controller_entry], sets: dict[int, tuple[Member, ...]], policy: CgroupPolicy
) -> dict[int, tuple[Member, ...]]:
    """The sets with their new paths; the directories' names are changed in place."""
    if not policy.roots:
        return sets
    bases: dict[str, tuple[str, str]] = {}
    for controller in controllers:
        hierarchy = ",".join(controller.cnames)
        root = policy.root_of(hierarchy)
        if root is None:
            continue
        base = _base(controller, [member for members in sets.values() for member in members], hierarchy)
        bases[hierarchy] = base, root
        for head in controller.dirs:
            set_text(head, "dir_name", _moved(normal(get_text(head.dir_name)), base, root)[1:])
    return {number: tuple(_rewritten(member, bases) for member in members) for number, members in sets.items()}


def _base(controller: m.cg_controller_entry, members: list[Member], hierarchy: str) -> str:
    ours = [member for member in members if member.hierarchy == hierarchy]
    if tops := {member.top for member in ours if member.prefix}:
        return tops.pop()
    paths = [normal(get_text(head.dir_name)) for head in controller.dirs] or [member.path for member in ours] or ["/"]
    common = paths[0]
    while not all(is_below(path, common) for path in paths):
        common = common.rpartition("/")[0] or "/"
    return common


def _rewritten(member: Member, bases: dict[str, tuple[str, str]]) -> Member:
    if member.hierarchy not in bases:
        return member
    base, root = bases[member.hierarchy]
    prefix = (len(root) if root != "/" else 0) if member.prefix else 0
    return replace(member, path=_moved(member.path, base, root), prefix=prefix)


def _moved(path: str, base: str, root: str) -> str:
    if not is_below(path, base):
        return path
    return normal(root + "/" + path[len(base) :])
