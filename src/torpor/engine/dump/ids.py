"""Numbers for kernel objects that tasks share: address spaces, descriptor tables, namespaces.

Image
    ``task_kobj_ids_entry`` of each task, and of the dumper itself as ``inventory_entry.root_ids``; a task whose
    namespace id differs from the latter has a namespace of its own.
"""

from __future__ import annotations

import os

from torpor.base.ids import Pid
from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.kernel.kcmp import KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_VM, KcmpIndex

_SHARED = (("vm_id", KCMP_VM), ("files_id", KCMP_FILES), ("fs_id", KCMP_FS), ("sighand_id", KCMP_SIGHAND))
#: Image field and the name of the link in /proc/PID/ns.
NAMESPACES = (
    ("pid_ns_id", "pid"), ("net_ns_id", "net"), ("ipc_ns_id", "ipc"), ("uts_ns_id", "uts"), ("time_ns_id", "time"),
    ("mnt_ns_id", "mnt"), ("user_ns_id", "user"), ("cgroup_ns_id", "cgroup"),
)  # fmt: skip


@dataclass(slots=True)
class IdAllocator:
    """Hands out ids: the same for the same object, counted from 1."""

    _namespaces: dict[tuple[str, str], int] = field(default_factory=dict)
    _owners: dict[str, KcmpIndex] = field(default_factory=dict)

    def namespaces_of(self, pid: Pid | str, ids: m.task_kobj_ids_entry) -> None:
        """Fill in the namespace ids of *pid* (or ``"self"``)."""
        for name, link in NAMESPACES:
            try:
                target = os.readlink(f"/proc/{pid}/ns/{link}")
            except FileNotFoundError:
                continue  # a namespace kind that this kernel does not have
            setattr(ids, name, self.namespace(link, target))

    def namespace(self, link: str, target: str) -> int:
        """The id of the namespace that a link of that name below /proc/PID/ns says *target* of."""
        return self._namespaces.setdefault((link, target), len(self._namespaces) + 1)

    def ids_of(self, pid: Pid) -> m.task_kobj_ids_entry:
        """All ids of the stopped process *pid*."""
        ids = m.task_kobj_ids_entry()
        for name, what in _SHARED:
            index = self._owners.setdefault(name, KcmpIndex(what))
            same, place = index.find(pid)
            if same is None:
                # 1 stands for the dumper's own objects, as CRIU counts.
                same = len(index) + 2
                index.insert(place, pid, 0, same)
            setattr(ids, name, same)
        self.namespaces_of(pid, ids)
        return ids
