"""The kinds of namespaces, in the order in which they are restored; their modules are imported when one is met."""

from __future__ import annotations

from torpor.base.late import Late, late
from torpor.images import messages as m
from torpor.kernel import namespaces as ns
from torpor.objects.ns.model import NsKind


def _late(module: str, name: str) -> Late:
    return late(f"torpor.objects.ns.{module}", name)


NAMESPACES: tuple[NsKind, ...] = (
    # Owns all others of the tree; its restore stands in the phases by itself.
    NsKind("user_ns_id", "user", ns.CLONE_NEWUSER, _late("userns", "dump")),
    # Made by the clone alone.
    NsKind("pid_ns_id", "pid", ns.CLONE_NEWPID),
    NsKind("uts_ns_id", "uts", ns.CLONE_NEWUTS, _late("uts", "dump"), _late("uts", "restore")),
    NsKind("ipc_ns_id", "ipc", ns.CLONE_NEWIPC, _late("ipc", "dump"), _late("ipc", "restore"), _late("ipc", "finish")),
    # After ipc, to whose namespace a mount of mqueue belongs.
    NsKind(
        "mnt_ns_id", "mnt", ns.CLONE_NEWNS, _late("mnt", "dump"), restore_together=_late("mnt", "restore"), nests=True
    ),
    NsKind(
        "net_ns_id",
        "net",
        ns.CLONE_NEWNET,
        _late("net.look", "dump"),
        restore_together=_late("net.build", "restore"),
        in_images=_late("net", "in_images"),
        check=_late("net.look", "check"),
        losses=_late("net.look", "losses"),
        connect=_late("net.build", "connect"),
        look_foreign=_late("net.foreign", "look"),
        losses_foreign=_late("net.foreign", "losses"),
        dump_foreign=_late("net.foreign", "dump"),
        restore_foreign=_late("net.foreign", "restore"),
        nests=True,
    ),
    NsKind("time_ns_id", "time", ns.CLONE_NEWTIME, _late("timens", "dump")),
    # By the root puppet, once it is in the control groups that are to be the roots.
    NsKind("cgroup_ns_id", "cgroup", ns.CLONE_NEWCGROUP),
)


def own_kinds(ids: m.task_kobj_ids_entry, root_ids: m.task_kobj_ids_entry) -> list[NsKind]:
    """The kinds of which a task with *ids* has one that is not the dumper's."""
    return [
        kind
        for kind in NAMESPACES
        if ids.HasField(kind.id_field) and getattr(ids, kind.id_field) != getattr(root_ids, kind.id_field)
    ]
