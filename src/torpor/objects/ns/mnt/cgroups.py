"""Control groups of a container that are bound into it from outside (cgroup v1 without a cgroup namespace).

A runtime names them by mount points alone, and at a restore by what its own groups are called.  What the container saw
before was its own group, and this is what it gets again, whatever the group is called now.
"""

from __future__ import annotations

from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_one
from torpor.images.text import get_text
from torpor.kernel.procfs.mountinfo import Mount, read_mountinfo
from torpor.kernel.procfs.small import read_small
from torpor.objects.files.paths import is_below
from torpor.objects.ns.mnt.tree import Node, Tree

_CGROUP = 12


class OwnGroups:
    """The groups that the root of the tree was in, and those that it is in now, by hierarchy."""

    def __init__(self, tree: Tree) -> None:
        self._before: dict[str, str] = {}
        self._now: dict[str, str] = {}
        self._host: list[Mount] = []
        context, store = tree.session.context, tree.session.store
        if all(node.entry.fstype != _CGROUP for node in tree.order) or not store.exists(kinds.CGROUP.file_name()):
            return
        root = context.processes[0].core if context is not None else m.core_entry()
        number = root.thread_core.cg_set or root.tc.cg_set
        for each in load_one(store, kinds.CGROUP).sets:
            if each.id == number:
                self._before = {get_text(member.name): get_text(member.path) for member in each.ctls}
        for line in read_small(f"/proc/{tree.session.pid}/cgroup").splitlines():
            _, hierarchy, path = line.split(":", 2)
            self._now[hierarchy] = path
        self._host = read_mountinfo("thread-self")

    def source_of(self, node: Node) -> str | None:
        """Where the host has what *node* is to show, if that is the tree's own group."""
        words = set(get_text(node.entry.options).split(","))
        hierarchy = next((name for name in self._now if name and words & set(name.split(","))), "")
        path = self._now.get(hierarchy)
        if node.entry.fstype != _CGROUP or not hierarchy or path is None or self._before.get(hierarchy) != node.root:
            return None
        for mount in self._host:
            if mount.fstype == "cgroup" and words & set(mount.super_options.split(",")) and is_below(path, mount.root):
                return mount.point + path[len(mount.root.rstrip("/")) :]
        return None
