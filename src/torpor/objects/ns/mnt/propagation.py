"""Shared subtrees: peer groups and masters, see mount_namespaces(7).

Kernel view
    ``shared:N`` and ``master:N`` among the optional fields of ``/proc/PID/mountinfo``.
Image
    ``shared_id`` and ``master_id``: numbers of groups, those with the same number belong together, in all namespaces.
    ``internal_sharing``: no mount of the host's is in the peer group.
Restore
    All mounts are private.  For each group a mount is made in the yard that shows at least what any member shows,
    masters before slaves, and the members join it (MOVE_MOUNT_SET_GROUP).  Where the group, or the master, is the
    host's, that mount is a copy of the host's.
Limits
    Without that call (before 5.15) there are no mounts that belong together: a dump that would end their tree refuses,
    and so does a restore, before any is made; a slave of the host's comes back private, with a warning.  So it does
    where the host has nothing of that group any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from torpor.base import log
from torpor.base.errors import RefusedError, RestoreError
from torpor.kernel import mount as mounts
from torpor.kernel.procfs.mountinfo import read_mountinfo
from torpor.objects.ns.mnt.external import mount_id
from torpor.objects.ns.mnt.tree import Node, Tree
from torpor.objects.ns.mnt.yard import Yard

_BaseOf = Callable[[Node], tuple[int, str] | None]
_Key = tuple[int, int]


def restore(trees: Sequence[Tree], yard: Yard, base_of: _BaseOf) -> None:
    """Give all mounts their groups.  The calling thread is in the yard."""
    groups = _groups_in(trees)
    if groups:
        _Groups(groups, yard, base_of).run()


def check(trees: Sequence[Tree]) -> None:
    """RestoreError, before anything is made, where this kernel cannot have the tree's mounts belong together."""
    if why := _why_not([(node.groups, node.point) for tree in trees for node in tree.order]):
        raise RestoreError(why, hint="restore it on Linux 5.15 or newer")


def check_found(found: Sequence[tuple[_Key, str]]) -> None:
    """RefusedError where this kernel could not have the mounts of a tree belong together once they have ended.

    *found*: of each mount its peer group and that of its master, and its point.
    """
    if why := _why_not(found):
        raise RefusedError(
            why,
            hint="make it private (mount --make-private) or leave one of them out with --skip-mnt; to restore it on "
            "Linux 5.15 or newer, checkpoint it with --leave-running and end it then",
        )


def _why_not(found: Sequence[tuple[_Key, str]]) -> str:
    times = Counter(groups for groups, _ in found)
    inner = {shared for shared, _ in times if shared}
    point = next((at for (own, master), at in found if master in inner or (own and times[own, master] > 1)), None)
    from torpor.kernel import features

    if point is None or features.probe("move_mount_set_group"):
        return ""
    return (
        f"the mount on {point} hands on what is mounted below it, or gets that from another mount of the tree, which "
        "needs MOVE_MOUNT_SET_GROUP of the kernel"
    )


def _groups_in(trees: Sequence[Tree]) -> dict[_Key, list[Node]]:
    groups: dict[_Key, list[Node]] = {}
    for tree in trees:
        for node in tree.order:
            if any(node.groups):
                groups.setdefault(node.groups, []).append(node)
    return groups


class _Groups:
    def __init__(self, groups: dict[_Key, list[Node]], yard: Yard, base_of: _BaseOf) -> None:
        self._groups = groups
        self._yard = yard
        self._base_of = base_of
        self._inner = {shared for shared, _ in groups if shared}
        #: The mount in the yard that leads a peer group.
        self._leaders: dict[int, int] = {}

    def run(self) -> None:
        """Make all groups, masters before their slaves; what depends on itself stays private, with a warning."""
        waiting = dict(self._groups)
        while waiting:
            ready = [key for key in waiting if key[1] not in self._inner or key[1] in self._leaders]
            if not ready:
                log.warn("the mounts' groups depend on each other; they stay private")
                return
            for key in ready:
                self._restore_group(key, waiting.pop(key))

    def _restore_group(self, key: _Key, members: list[Node]) -> None:
        leader = self._lead_from_host(key, members) or self._lead(key, members)
        if key[0]:
            self._leaders[key[0]] = leader
        if not any(_groups_of(leader)):
            log.warn(f"{members[0].point}: the mount's master is not to be found; it comes back without")
            return
        for node in members:
            try:
                mounts.join_group(leader, node.fd)
            except OSError as error:
                log.warn(f"{node.point} cannot join its group of mounts: {error.strerror}")

    def _lead_from_host(self, key: _Key, members: list[Node]) -> int | None:
        """A copy of the host's mount, where the group or its master is the host's."""
        shared, master = key
        if master in self._inner:
            return None
        node = next((node for node in members if node.peer >= 0 and not node.entry.internal_sharing), None)
        is_peer = node is not None and bool(shared)
        if node is None and master:
            node = next((node for node in members if node.peer >= 0), None)
        if node is None:
            return None
        leader, node.peer = self._yard.keep(node.peer), -1
        self._yard.put(leader)
        theirs = _groups_of(leader)
        if is_peer and theirs[0]:
            return leader
        if master and any(theirs):
            self._yard.set_propagation(leader, mounts.MS_SLAVE)
        else:
            self._yard.set_propagation(leader, mounts.MS_PRIVATE)
        if shared:
            self._yard.set_propagation(leader, mounts.MS_SHARED)
        return leader

    def _lead(self, key: _Key, members: list[Node]) -> int:
        shared, master = key
        leader = self._yard.keep(self._widest(members))
        self._yard.put(leader)
        self._yard.set_propagation(leader, mounts.MS_PRIVATE)
        if master in self._leaders:
            mounts.join_group(self._leaders[master], leader)
            self._yard.set_propagation(leader, mounts.MS_SLAVE)
        if shared:
            self._yard.set_propagation(leader, mounts.MS_SHARED)
        return leader

    def _widest(self, members: list[Node]) -> int:
        """A mount that shows at least what all *members* show."""
        for node in members:
            if node.peer >= 0:
                fd, node.peer = node.peer, -1
                return fd
        base = self._base_of(members[0])
        assert base is not None
        return mounts.open_tree(base[0], "")


def _groups_of(fd: int) -> tuple[int, int]:
    ident = mount_id(fd)
    return next((mount.shared, mount.master) for mount in read_mountinfo("thread-self") if mount.mount_id == ident)
