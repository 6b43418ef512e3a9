"""The namespaces that a tree has for itself: which, checked before anything is done; dumped.

Image
    A task whose namespace id differs from ``inventory_entry.root_ids`` has a namespace of its own; each namespace's
    images bear that id.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from torpor.base.errors import RefusedError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.base.late import Late
from torpor.engine.dump import externals, nested
from torpor.images import messages as m
from torpor.kernel import idmap
from torpor.kernel.idmap import IdMaps
from torpor.kernel.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from torpor.kernel.pidfd import open_pidfd
from torpor.objects.memory.segments import SegmentDump
from torpor.objects.model import DumpProcess
from torpor.objects.ns.model import NsDump, NsKind
from torpor.objects.ns.table import NAMESPACES, own_kinds
from torpor.objects.policy import Policies
from torpor.objects.session import DumpContext, DumpStage

#: Those of which it matters which user namespace they belong to.
_OWNED = CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWCGROUP


def check(processes: Sequence[DumpProcess], root_ids: m.task_kobj_ids_entry, external: tuple[str, ...]) -> None:
    """RefusedError for namespaces that cannot be carried."""
    root = processes[0]
    for kind in own_kinds(root.ids, root_ids):
        if externals.key_of(kind, root.pid, external) is not None:
            continue
        if kind.refusal:
            raise RefusedError(f"{root.describe()}: {kind.refusal}", hint=f"a {kind.link} namespace as ours has")
        if kind.clone_flag == CLONE_NEWPID and root.ns_pid != 1:
            raise RefusedError(
                f"{root.describe()} is not the first process of its pid namespace", hint="checkpoint that one"
            )
    for process in processes:
        if process.is_zombie:
            continue
        _check_for_children(process)
        for kind in NAMESPACES:
            if not kind.nests and getattr(process.ids, kind.id_field) != getattr(root.ids, kind.id_field):
                raise RefusedError(
                    f"{process.describe()} has another {kind.link} namespace than {root.describe()}",
                    hint=f"all processes of a tree must share their {kind.link} namespace for now",
                )


def _has_user_namespace(ids: m.task_kobj_ids_entry, root_ids: m.task_kobj_ids_entry) -> bool:
    return any(kind.clone_flag == CLONE_NEWUSER for kind in own_kinds(ids, root_ids))


def read_idmaps(processes: Sequence[DumpProcess], root_ids: m.task_kobj_ids_entry) -> None:
    """Have each of *processes* know how its ids are seen in the tree's user namespace, if that is another than ours."""
    root = processes[0]
    if _has_user_namespace(root.ids, root_ids):
        maps = idmap.read_idmaps(root.pid)
        for process in processes:
            process.idmaps = maps


def _check_for_children(process: DumpProcess) -> None:
    """unshare(2) of a pid or time namespace puts only children into it, and no image says so."""
    for link in ("pid", "time"):
        try:
            own_one = os.readlink(f"/proc/{process.pid}/ns/{link}")
        except FileNotFoundError:
            continue  # a kernel without
        try:
            childrens = os.readlink(f"/proc/{process.pid}/ns/{link}_for_children")
        except FileNotFoundError:
            childrens = ""  # its first process is not born yet, or is dead
        if childrens != own_one:
            raise RefusedError(
                f"{process.describe()} has another {link} namespace for its children than its own",
                hint="checkpoint it before it unshares that, or checkpoint the children",
            )


def prepare(tree: Sequence[Pid], policies: Policies) -> None:
    """Before the freeze: import what dumps the namespaces that a *tree* does not share with us, and look at them.

    RefusedError where its user namespace does not own the others, or for what a kind's check refuses.
    """
    pid, external = tree[0], policies.external
    own_flags = 0
    links = []
    for kind in NAMESPACES:
        try:
            theirs, ours = os.readlink(f"/proc/{pid}/ns/{kind.link}"), os.readlink(f"/proc/self/ns/{kind.link}")
        except OSError:
            continue  # gone, or not ours to look at: told by whoever needs it
        if theirs != ours:
            own_flags |= kind.clone_flag
            if isinstance(kind.dump, Late):
                kind.dump.load()
            if externals.key_of(kind, pid, external) is None:
                if kind.clone_flag & _OWNED:
                    links.append(kind.link)
                if kind.check is not None:
                    kind.check(pid, policies)
    if own_flags & CLONE_NEWUSER:
        from torpor.objects.ns import userns

        userns.check(pid, links)
    if not own_flags & CLONE_NEWTIME:
        import torpor.objects.ns.timens  # noqa: F401
    nested.prepare(tree, policies)


def look_at_limits(pid: Pid, context: DumpContext) -> None:
    """Before the freeze, for it needs processes of ours: what confines *pid* in a user or pid namespace of its own."""
    flags = 0
    for kind in NAMESPACES:
        if kind.clone_flag not in (CLONE_NEWUSER, CLONE_NEWPID):
            continue
        with suppress(OSError):  # gone, or not ours to look at: told by whoever needs it
            if os.readlink(f"/proc/{pid}/ns/{kind.link}") == os.readlink(f"/proc/self/ns/{kind.link}"):
                continue
            if externals.key_of(kind, pid, context.policies.external) is None:
                flags |= kind.clone_flag
    if flags:
        from torpor.objects.ns import limits

        with OwnedFd(open_pidfd(pid)) as pidfd:
            limits.look(context, pidfd.fileno(), flags)
        context.at(DumpStage.COMPLETE, lambda: limits.dump(context.processes[0], context))


def look_at_foreign(pid: Pid, context: DumpContext) -> None:
    """Before the freeze, for it takes its time: what is carried of those of *pid* that whoever restores makes."""
    for kind in NAMESPACES:
        with suppress(OSError):  # gone, or not ours to look at: told by whoever needs it
            if kind.look_foreign is not None and _is_of_others(kind, pid, context.policies):
                with OwnedFd(open_pidfd(pid)) as pidfd:
                    kind.look_foreign(context, pid, pidfd.fileno())


def _is_of_others(kind: NsKind, pid: Pid, policies: Policies) -> bool:
    if os.readlink(f"/proc/{pid}/ns/{kind.link}") == os.readlink(f"/proc/self/ns/{kind.link}"):
        return False
    is_left_empty = kind.clone_flag == CLONE_NEWNET and policies.network.empty_net
    return is_left_empty or externals.key_of(kind, pid, policies.external) is not None


def dump(processes: Sequence[DumpProcess], root_ids: m.task_kobj_ids_entry, context: DumpContext) -> None:
    """The images of all namespaces of the tree's own, of a kind the root's first."""
    root = processes[0]
    alive = [process for process in processes if not process.is_zombie]
    for kind in NAMESPACES:
        done = {getattr(root_ids, kind.id_field)}
        for process in alive if kind.nests else alive[:1]:
            ident = getattr(process.ids, kind.id_field)
            if ident in done:
                continue
            done.add(ident)
            key = externals.key_of(kind, process.pid, context.policies.external)
            if key is not None:
                externals.dump(context.store, kind, ident, key)
                if kind.dump_foreign is not None and process is root:
                    assert process.pidfd is not None
                    kind.dump_foreign(_ns_dump(context, process.pid, process.pidfd.fileno(), ident, root.idmaps))
            elif kind.dump is not None:
                assert process.pidfd is not None
                kind.dump(_ns_dump(context, process.pid, process.pidfd.fileno(), ident, root.idmaps))
        for (flag, ident), fd in context.held.items():
            if flag == kind.clone_flag and kind.dump is not None:
                kind.dump(_ns_dump(context, root.pid, fd.fileno(), ident, root.idmaps))
    if root.ids.time_ns_id == root_ids.time_ns_id:
        from torpor.objects.ns import timens

        timens.dump_outer(context.store)


def look_at_mounts(context: DumpContext, root_ids: m.task_kobj_ids_entry) -> None:
    """RefusedError for mounts that the dump would refuse: they are told apart as in it, into the store of *context*.

    Of all namespaces this one can be looked at while its tree runs, for the contents of file systems come later.
    """
    root = context.processes[0]
    for kind in own_kinds(root.ids, root_ids):
        if kind.clone_flag == CLONE_NEWNS and kind.dump is not None:
            with OwnedFd(open_pidfd(root.pid)) as pidfd:
                kind.dump(_ns_dump(context, root.pid, pidfd.fileno(), root.ids.mnt_ns_id, root.idmaps))


def losses(pid: Pid, policies: Policies) -> list[str]:
    """What a dump would leave out of the namespaces that *pid* does not share with us."""
    found: list[str] = []
    for kind in NAMESPACES:
        with suppress(OSError):  # gone, or not ours to look at: told by whoever needs it
            if kind.losses_foreign is not None and _is_of_others(kind, pid, policies):
                with OwnedFd(open_pidfd(pid)) as pidfd:
                    found += kind.losses_foreign(pid, pidfd.fileno())
                continue
            if kind.losses is None or externals.key_of(kind, pid, policies.external) is not None:
                continue
            if os.readlink(f"/proc/{pid}/ns/{kind.link}") != os.readlink(f"/proc/self/ns/{kind.link}"):
                found += kind.losses(pid, policies)
    return found


def _ns_dump(context: DumpContext, pid: Pid, where: int, ident: int, idmaps: IdMaps) -> NsDump:
    segments = context.part(SegmentDump)
    return NsDump(context.store, segments, pid, where, ident, context.policies.external, idmaps, context)
