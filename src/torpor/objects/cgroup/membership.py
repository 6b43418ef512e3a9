"""Which control groups a task is in.

Kernel view
    ``/proc/PID/task/TID/cgroup``, a line a hierarchy, as the cgroup namespace of whoever reads it shows the paths.
Image
    ``cg_set_entry``: one for each combination that any task is in, with an id that ``thread_core_entry.cg_set`` of the
    tasks names; ``inventory_entry.root_cg_set`` is the one of the dumper.  Where a tree has a cgroup namespace of its
    own, ``cgns_prefix`` is the length of the path of that namespace's root.
Restore
    A task's number is written to ``cgroup.procs`` of its group, a thread's to ``tasks`` or ``cgroup.threads``; not
    where it is there already, because it was born there.  Tasks of the dumper's set stay where the restorer is.
Limits
    A group that our own cgroup namespace does not show is refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

from torpor.base.errors import RefusedError, RestoreError
from torpor.base.ids import Pid
from torpor.base.records import dataclass, replace
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.text import get_text, set_text
from torpor.kernel.procfs.small import read_bytes
from torpor.objects.cgroup import model
from torpor.objects.cgroup.model import describe_group
from torpor.objects.cgroup.yard import Yard

#: The dumper's own set.
OURS = 1


@dataclass(frozen=True, slots=True)
class Member:
    """A group of one hierarchy.  ``prefix`` is the length of the part of the path that a namespace hides."""

    hierarchy: str
    path: str
    prefix: int = 0

    @property
    def top(self) -> str:
        """The group that is the root of the tree's cgroup namespace."""
        return self.path[: self.prefix] or "/"


def read(path: str, only: Sequence[str] = ()) -> tuple[Member, ...]:
    """The groups that a ``cgroup`` file of /proc shows, by their hierarchies' names; of *only* these, if any."""
    return parse(read_bytes(path), only)


def parse(text: bytes, only: Sequence[str] = ()) -> tuple[Member, ...]:
    """The groups in the *text* of such a file, sorted by hierarchy; of *only* these hierarchies, if any."""
    found = []
    for line in text.decode(errors="surrogateescape").split("\n"):
        if line:
            _, hierarchy, path = line.split(":", 2)
            if not only or hierarchy in only:
                found.append(Member(hierarchy, path))
    return tuple(sorted(found, key=lambda member: member.hierarchy))


# -- dump ----------------------------------------------------------------------------------------------------


class Sets:
    """The sets met so far; 1 is ours."""

    def __init__(self, only: Sequence[str] = ()) -> None:
        self._only = only
        self._ids: dict[bytes, int] = {}
        self._sets: dict[tuple[Member, ...], int] = {}
        self.id_of("/proc/self/cgroup")

    def id_of(self, path: str) -> int:
        """The id of the set that the file *path* of /proc tells of."""
        text = read_bytes(path)
        if text not in self._ids:
            members = parse(text, self._only)
            self._ids[text] = self._sets.setdefault(members, len(self._sets) + 1)
        return self._ids[text]

    @property
    def others(self) -> dict[int, tuple[Member, ...]]:
        """The groups of each set met so far but ours, by its id."""
        return {number: members for members, number in self._sets.items() if number != OURS}

    @property
    def all(self) -> dict[int, tuple[Member, ...]]:
        """The groups of each set met so far, ours included, by its id."""
        return {number: members for members, number in self._sets.items()}


def check_reachable(members: Iterable[Member], who: str) -> None:
    """RefusedError for a group that our own cgroup namespace does not show."""
    for member in members:
        if member.path.startswith("/.."):
            where = describe_group(member.hierarchy, member.path)
            raise RefusedError(
                f"{who} is in a control group ({where}) outside of our own namespace",
                hint="run torpor outside of it, or with --manage-cgroups=ignore",
            )


def with_prefixes(members: Iterable[Member], tops: dict[str, str]) -> tuple[Member, ...]:
    """The same, with the lengths that belong to the namespace whose roots are *tops*."""
    found = []
    for member in members:
        top = tops.get(member.hierarchy, "/")
        is_inside = top != "/" and model.is_below(member.path, top)
        found.append(replace(member, prefix=len(top)) if is_inside else member)
    return tuple(found)


def dump_set(number: int, members: Iterable[Member]) -> m.cg_set_entry:
    """The image's entry for the set *number*, which is of these groups."""
    entry = m.cg_set_entry(id=number)
    for member in members:
        found = entry.ctls.add()
        set_text(found, "name", member.hierarchy)
        set_text(found, "path", member.path)
        if member.prefix:
            found.cgns_prefix = member.prefix
    return entry


# -- restore -------------------------------------------------------------------------------------------------


def load_set(entry: m.cg_set_entry) -> tuple[Member, ...]:
    """The groups of a set in the image.  ImageError for a path or a hierarchy that cannot be."""
    found = []
    for member in entry.ctls:
        path = get_text(member.path)
        if not path.startswith("/") or ".." in path.split("/") or member.cgns_prefix > len(path):
            raise ImageError(f"cgroup.img: {path} is no path of a control group")
        model.check_hierarchy(get_text(member.name))
        found.append(Member(get_text(member.name), path, member.cgns_prefix))
    return tuple(found)


def move(tid: Pid, wanted: Iterable[Member], current: dict[str, str], yard: Yard, *, thread: bool = False) -> None:
    """Put the process, or only the *thread*, into the groups *wanted*, where *current* says it is elsewhere."""
    for member in wanted:
        hierarchy, path = member.hierarchy, member.path
        if current.get(hierarchy) == path:
            continue
        _check_not_frozen(hierarchy, path, yard)
        name = "cgroup.procs" if not thread else "cgroup.threads" if hierarchy == model.V2 else "tasks"
        try:
            yard.write(hierarchy, path, name, str(tid))
        except OSError as error:
            raise RestoreError(
                f"pid {tid} cannot be moved into control group {describe_group(hierarchy, path)}: {error.strerror}",
                hint=_HINTS.get(error.errno or 0, "--manage-cgroups=ignore does without"),
            ) from None


_HINTS = {
    errno.ENOENT: "make that group first, or let --manage-cgroups=soft make it",
    errno.EBUSY: "it hands controllers on to groups below it, and so takes no tasks itself",
    errno.ENOSPC: "it has no processors or memory nodes: set its cpuset.cpus and cpuset.mems",
}


def _check_not_frozen(hierarchy: str, path: str, yard: Yard) -> None:
    """A task that is moved there would be frozen before it is restored."""
    if hierarchy == model.V2:
        name, sign = "cgroup.events", "frozen 1"
    elif "freezer" in hierarchy.split(","):
        name, sign = "freezer.state", "FR"
    else:
        return
    try:
        fd = os.open(f"{path.lstrip('/') or '.'}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=yard.root_fd(hierarchy))
    except FileNotFoundError:
        return  # a root, which cannot be frozen; or there is no such group, as moving there will tell
    try:
        state = os.read(fd, 4096).decode()
    finally:
        os.close(fd)
    if sign in state:
        raise RestoreError(f"control group {describe_group(hierarchy, path)} is frozen", hint="thaw it first")
