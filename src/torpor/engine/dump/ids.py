"""Numbers for kernel objects that tasks share: address spaces, descriptor tables, namespaces.

Image
    ``task_kobj_ids_entry`` of each task, and of the dumper itself as ``inventory_entry.root_ids``; a task whose
    namespace id differs from the latter has a namespace of its own.
Limits
    The images have one of each for all threads of a process.  unshare(2), setns(2) and clone(2) let single threads have
    others; such a one would come back with its process's, in another network, say, and is refused.  A working
    directory, root and umask of its own that are the same are shared afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.base.records import dataclass, field
from torpor.images import messages as m
from torpor.kernel.kcmp import KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_VM, KcmpIndex, kcmp
from torpor.kernel.procfs.status import read_status
from torpor.kernel.uapi.fcntl import O_PATH

_SHARED = (("vm_id", KCMP_VM), ("files_id", KCMP_FILES), ("fs_id", KCMP_FS), ("sighand_id", KCMP_SIGHAND))
#: Image field and the name of the link in /proc/PID/ns.
NAMESPACES = (
    ("pid_ns_id", "pid"), ("net_ns_id", "net"), ("ipc_ns_id", "ipc"), ("uts_ns_id", "uts"), ("time_ns_id", "time"),
    ("mnt_ns_id", "mnt"), ("user_ns_id", "user"), ("cgroup_ns_id", "cgroup"),
)  # fmt: skip

_TABLE, _PLACES = "a descriptor table", "a working directory, root or umask"
#: Links in /proc/TID/ns.  Threads cannot differ in their pid, user and time namespaces.
_THREADS_NAMESPACES = (
    ("mnt", "a mount namespace"),
    ("net", "a network namespace"), ("uts", "a uts namespace"), ("ipc", "an ipc namespace"),
    ("cgroup", "a cgroup namespace"), ("pid_for_children", "a pid namespace for its children"),
    ("time_for_children", "a time namespace for its children"),
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


def check_threads(who: str, leader: Pid, tids: Sequence[Pid]) -> None:
    """RefusedError that names the first of the threads *tids* of the process *who* that differs from its *leader*.

    A thread that ends meanwhile has nothing; FileNotFoundError if that is the leader.
    """
    if not tids or list(tids) == [leader]:
        return
    theirs = _namespaces_of(leader)
    for tid in tids:
        try:
            found = _TABLE if kcmp(leader, tid, KCMP_FILES) else ""
            has_places = kcmp(leader, tid, KCMP_FS) != 0
            if not found:
                # A mount namespace of its own goes with places of its own (unshare(2), setns(2)).
                first = 0 if has_places else 1
                pairs = zip(_THREADS_NAMESPACES[first:], theirs[first:], _namespaces_of(tid, first), strict=True)
                found = next((name for (_, name), one, other in pairs if one != other), "")
            if not found and has_places and _places_of(leader) != _places_of(tid):
                found = _PLACES
        except (FileNotFoundError, ProcessLookupError):
            continue
        if found:
            raise RefusedError(
                f"{who}: its thread {tid} has {found} of its own (unshare(2), setns(2))",
                hint="the images have one for all threads; checkpoint it when that thread has ended or gone back",
            )


def _places_of(tid: Pid) -> list[tuple[str, int]]:
    """Working directory, root and umask: of its own, but the same, they are shared after a restore."""
    paths = (f"/proc/{tid}/cwd", f"/proc/{tid}/root")
    return [*((os.readlink(path), os.stat(path).st_ino) for path in paths), ("umask", read_status(tid).umask)]


def _namespaces_of(tid: Pid, first: int = 0) -> list[str]:
    directory = os.open(f"/proc/{tid}/ns", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return [_link(directory, name) for name, _ in _THREADS_NAMESPACES[first:]]
    finally:
        os.close(directory)


def _link(directory: int, name: str) -> str:
    try:
        return os.readlink(name, dir_fd=directory)
    except FileNotFoundError:
        return ""  # a kernel without; or the first process of that pid namespace is not born yet
