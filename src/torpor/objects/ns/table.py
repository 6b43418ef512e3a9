"""The kinds of namespaces, in the order in which they are restored."""

from __future__ import annotations

from torpor.kernel import namespaces as ns
from torpor.objects.ns import ipc, mnt, net, timens, uts
from torpor.objects.ns.model import NsKind

NAMESPACES: tuple[NsKind, ...] = (
    # Made by the clone alone.
    NsKind("pid_ns_id", "pid", ns.CLONE_NEWPID),
    NsKind("uts_ns_id", "uts", ns.CLONE_NEWUTS, uts.dump, uts.restore),
    NsKind("ipc_ns_id", "ipc", ns.CLONE_NEWIPC, ipc.dump, ipc.restore, ipc.finish),
    # After ipc, to whose namespace a mount of mqueue belongs.
    NsKind("mnt_ns_id", "mnt", ns.CLONE_NEWNS, mnt.dump, mnt.restore),
    NsKind("net_ns_id", "net", ns.CLONE_NEWNET, net.dump, net.restore),
    NsKind("user_ns_id", "user", ns.CLONE_NEWUSER, refusal="user namespaces of its own are not carried yet"),
    NsKind("time_ns_id", "time", ns.CLONE_NEWTIME, timens.dump),
    NsKind("cgroup_ns_id", "cgroup", ns.CLONE_NEWCGROUP, refusal="cgroup namespaces of its own are not carried yet"),
)
