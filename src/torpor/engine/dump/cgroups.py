"""Control groups during a dump: looked at before the freeze, told by the stopped tasks.

Image
    cgroup.img, which is written only where some task is in other groups than the dumper.
"""

from __future__ import annotations

from collections.abc import Iterable

from torpor.base.errors import RefusedError, UsageError
from torpor.base.fds import only_given
from torpor.base.ids import Pid
from torpor.base.typed import TYPE_CHECKING
from torpor.images import messages as m
from torpor.images.store import ImageStore, store_one
from torpor.kernel.procfs.small import read_bytes
from torpor.objects.cgroup import membership, model
from torpor.objects.cgroup.membership import OURS, Member
from torpor.objects.cgroup.model import CgroupPolicy, describe_group
from torpor.objects.cgroup.yard import Yard
from torpor.objects.model import DumpProcess

if TYPE_CHECKING:
    from torpor.objects.cgroup.directories import Snapshot
    from torpor.objects.cgroup.freezer import Freezer
    from torpor.objects.cgroup.properties import Table

#: Bytes of a file of properties.
_MAX_PROPS = 1 << 20


class CgroupDump:
    """What is read of control groups during one dump.

    Made before the freeze, when the groups of *pid* and what is below them are read.  RefusedError.
    """

    def __init__(self, policy: CgroupPolicy, pid: Pid) -> None:
        self._policy = policy
        self._yard = Yard(policy.yard)
        # What the user says is checked before the freeze; the built-in table is made when it is needed.
        self._table = _table_of(policy) if policy.props or policy.props_file else None
        self._sets = membership.Sets(policy.controllers)
        self._snapshots: dict[str, Snapshot] = {}
        self._tops: dict[str, str] = {}
        self._freezer_state = ""

        self._look(pid)

    def _look(self, pid: Pid) -> None:
        try:
            text = read_bytes(f"/proc/{pid}/cgroup")
        except (FileNotFoundError, ProcessLookupError):
            return  # told by whoever stops it
        members = membership.parse(text, self._policy.controllers)
        membership.check_reachable(members, f"pid {pid}")
        if text == read_bytes("/proc/self/cgroup"):
            return
        self._read_heads([members])

    def stopped_by(self, freezer: Freezer) -> None:
        """A paused tree: v1's freezer is in the image as it was met, v2's thawed, for CRIU would freeze its puppets."""
        self._freezer_state = freezer.state
        if freezer.was_frozen and not freezer.state:
            self._snapshots.pop(model.V2, None)

    def ask(self, processes: Iterable[DumpProcess], root_ids: m.task_kobj_ids_entry) -> None:
        """The sets of stopped tasks.  RefusedError."""
        for process in processes:
            for thread in process.threads:
                number = self._sets.id_of(f"/proc/{process.pid}/task/{thread.tid}/cgroup")
                thread.core.thread_core.cg_set = number
        root = next(iter(processes))
        if root.ids.cgroup_ns_id != root_ids.cgroup_ns_id and root.pidfd is not None:
            from torpor.objects.cgroup import namespace

            self._tops = namespace.read_tops(root.pid, root.pidfd.fileno(), self._policy.controllers)

    def write(self, store: ImageStore, inventory: m.inventory_entry) -> None:
        """The image, unless all tasks are where we are ourselves.  RefusedError."""
        inventory.root_cg_set = OURS
        others = self._sets.others
        has_namespace = any(top != "/" for top in self._tops.values())
        if not others and not has_namespace:
            return
        sets = others or self._sets.all
        for members in sets.values():
            membership.check_reachable(members, "a task")
        self._refresh(list(sets.values()))
        self._leave_out_others([member for members in sets.values() for member in members])
        entry = m.cgroup_entry()
        for number, members in sets.items():
            entry.sets.append(membership.dump_set(number, membership.with_prefixes(members, self._tops)))
        for snapshot in self._snapshots.values():
            controller = entry.controllers.add(
                cnames=snapshot.hierarchy.split(","), is_threaded=snapshot.is_threaded, dirs=snapshot.heads.values()
            )
            if self._freezer_state and "freezer" in controller.cnames:
                for head in controller.dirs:
                    if head.dir_name:
                        head.properties.add(name="freezer.state", value=self._freezer_state)
        store_one(store, "CGROUP", entry)

    def _refresh(self, sets: list[tuple[Member, ...]]) -> None:
        """Read what was not there yet when we looked."""
        for hierarchy, snapshot in list(self._snapshots.items()):
            try:
                is_old = snapshot.has_changed(self._yard)
            except OSError:
                is_old = True
            if is_old:
                del self._snapshots[hierarchy]
        self._read_heads(sets)

    def _leave_out_others(self, members: list[Member]) -> None:
        for snapshot in self._snapshots.values():
            paths = [member.path for member in members if member.hierarchy == snapshot.hierarchy]
            try:
                snapshot.leave_out_others(paths, self._yard)
            except OSError as error:
                raise _unreadable(snapshot.hierarchy, "what is below the tree's", error) from None

    def _read_heads(self, sets: list[tuple[Member, ...]]) -> None:
        from torpor.objects.cgroup.directories import domain_of, topmost

        paths: dict[str, list[str]] = {}
        for members in sets:
            for member in members:
                root = self._policy.root_of(member.hierarchy)
                if root is None and member.hierarchy == model.V2:
                    # It hands the controllers on, and has the limits of what no threaded group has.
                    root = domain_of(member.path, self._yard)
                paths.setdefault(member.hierarchy, []).append(member.path if root is None else root)
        for hierarchy, found in paths.items():
            wanted = topmost(found)
            snapshot = self._snapshots.get(hierarchy)
            if snapshot is None or list(snapshot.heads) != wanted:
                self._snapshots[hierarchy] = self._read(hierarchy, wanted)

    def _read(self, hierarchy: str, paths: list[str]) -> Snapshot:
        from torpor.objects.cgroup.directories import Snapshot

        if self._table is None:
            self._table = _table_of(self._policy)
        snapshot = Snapshot(hierarchy)
        for path in paths:
            try:
                snapshot.read(path, self._yard, self._table)
            except OSError as error:
                raise _unreadable(hierarchy, path, error) from None
        return snapshot


def _unreadable(hierarchy: str, path: str, error: OSError) -> RefusedError:
    return RefusedError(
        f"control group {describe_group(hierarchy, path)} cannot be read: {error.strerror}",
        hint="--manage-cgroups=ignore does without control groups",
    )


def _table_of(policy: CgroupPolicy) -> Table:
    from torpor.objects.cgroup.properties import Table

    text = ""
    if policy.props_file:
        try:
            with open(policy.props_file, encoding="utf-8", errors="surrogateescape", opener=only_given) as stream:
                text = stream.read(_MAX_PROPS)
        except OSError as error:
            raise UsageError(f"--cgroup-props-file {policy.props_file}: {error.strerror}") from None
    return Table(policy.props, text)
