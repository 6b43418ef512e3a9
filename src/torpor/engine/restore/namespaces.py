"""The namespaces that a tree had for itself: which are to be made or joined; made again, filled, left."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from torpor.base.errors import RestoreError
from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid
from torpor.engine.options import nobody
from torpor.engine.restore import externals
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images.store import load_one
from torpor.kernel.arch import nr
from torpor.kernel.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    setns,
)
from torpor.kernel.pidfd import open_pidfd
from torpor.objects.model import RestoreProcess
from torpor.objects.ns.model import NsKind, NsRestore
from torpor.objects.ns.table import NAMESPACES, own_kinds
from torpor.objects.session import RestoreStage
from torpor.objects.task import creds, keyrings
from torpor.tracee import stub
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner


def plan(session: RestoreSession) -> None:
    """Which namespaces the root puppet is to be cloned with, and which it joins."""
    _plan_joins(session)
    wanted = sum(kind.clone_flag for kind in _wanted(session))
    if wanted & CLONE_NEWUSER:
        _plan_user(session)
    # The stub makes a time namespace before it clones: only then can the clocks still be set.
    session.root_clone_flags |= wanted & ~(CLONE_NEWTIME | CLONE_NEWCGROUP)
    session.new_time = bool(wanted & CLONE_NEWTIME)
    _plan_clocks(session)
    session.new_cgroup_ns = bool(wanted & CLONE_NEWCGROUP)
    if session.options.new_network and not session.namespaces & CLONE_NEWNET:
        session.root_clone_flags |= CLONE_NEWNET
    if session.root_clone_flags & CLONE_NEWPID and session.root.ns_pid != 1:
        raise RestoreError(
            f"pid {session.root.ns_pid} cannot be the first of a new pid namespace",
            hint="the images are of a part of a namespace",
        )


def _plan_clocks(session: RestoreSession) -> None:
    """A tree without a time namespace of its own gets one where its clocks would not go on."""
    if session.new_time:
        session.time_ident = session.root.ids.time_ns_id
        return
    from torpor.objects.ns import timens

    joined = next((each for each in session.joined if each.flag == CLONE_NEWTIME), None)
    if joined is None:
        session.new_time = timens.is_wanted(session.store)
        if timens.go_on_here(session.store):
            session.context.clock_shift_ns = 0
    else:
        timens.check_joined(session.store, session.root.ids.time_ns_id, joined.fd.fileno())


def _plan_joins(session: RestoreSession) -> None:
    named = {externals.join_named(session, each).link for each in session.options.join_ns}
    for kind in _in_images(session):
        key = externals.key_in_images(session.store, kind, getattr(session.root.ids, kind.id_field))
        if key is not None and kind.link not in named:
            externals.join(session, kind, key)


def _plan_user(session: RestoreSession) -> None:
    from torpor.objects.ns import userns

    maps, session.allows_setgroups = userns.load(session.store, session.root.ids.user_ns_id)
    session.idmaps = session.context.idmaps = maps
    for process in session.everyone:
        process.idmaps = maps


def prepare_stub(session: RestoreSession, runner: Runner) -> None:
    """In the stub, before the root puppet is cloned from it."""
    if session.new_time:
        from torpor.objects.ns import timens

        session.context.clock_shift_ns = timens.prepare(session.store, session.time_ident, runner)


def enter_time(session: RestoreSession) -> None:
    """The root puppet, cloned with CLONE_VM, goes where a clone without it is born: into what ``prepare_stub`` made.

    A time namespace is an address space's, for it shows in the vdso: whoever shares his cannot be born into another
    (copy_namespaces), and can enter one only when he has it for himself again (timens_install).
    """
    if session.new_time:
        from torpor.objects.ns import timens

        timens.enter(session.root.runner, session.channel)


def birth(session: RestoreSession) -> stub.Birth:
    """The stub that becomes the root itself."""
    maps = session.idmaps
    has_user = bool(session.root_clone_flags & CLONE_NEWUSER)

    def prepare() -> None:
        if has_user:
            from torpor.objects.ns import userns

            userns.prepare_thread(_groups_of_root(session), session.idmaps)
        if session.new_time:
            from torpor.objects.ns import timens

            session.context.clock_shift_ns = timens.prepare_thread(session.store, session.time_ident)

    def settle(pid: Pid) -> None:
        from torpor.objects.ns import userns

        userns.write_maps(pid, maps, setgroups=session.allows_setgroups)

    return stub.Birth(
        session.root_clone_flags, (session.root.ns_pid,), joins(session), session.options.sibling, prepare,
        settle if has_user else None,
        (maps.users.head, maps.groups.head),
    )  # fmt: skip


def joins(session: RestoreSession) -> list[stub.Join]:
    """What the stub joins."""
    return [stub.Join(each.fd.fileno(), each.flag) for each in session.joined]


def _groups_of_root(session: RestoreSession) -> tuple[int, ...]:
    return creds.outer_groups(session.root.core.thread_core.creds, session.idmaps)


def make_user(session: RestoreSession) -> None:
    """Fill the user namespace in which the root puppet now is, and work in the name of who is in charge there."""
    if not session.root_clone_flags & CLONE_NEWUSER:
        return
    from torpor.objects.ns import userns

    maps = session.idmaps
    userns.take_charge(session.root.runner, maps)
    batch = Batch()
    keyrings.reset(maps.users.head, batch)
    session.root.runner.run(batch)
    session.own_new_files(*maps.outside(maps.users.head, maps.groups.head))


def make(session: RestoreSession) -> None:
    """Make the namespaces of others than the root puppet, and fill them all."""
    notify = session.options.notify if session.namespaces else nobody
    notify("setup-namespaces", session.root.pid)
    _make_nested(session)
    for kind, places in _iter_places(session):
        if kind.restore_together is not None:
            kind.restore_together(places)
        elif kind.restore is not None:
            for place in places:
                kind.restore(place)
    _set_foreign(session)
    notify("post-setup-namespaces", 0)
    if session.namespaces & ~session.root_clone_flags & CLONE_NEWNS:  # joined, as it is
        root_fd = os.open(f"/proc/{session.root.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        session.context.files.enter_root(root_fd)


def _set_foreign(session: RestoreSession) -> None:
    """What the images have of those that we were given in place of the tree's."""
    named = {each.kind for each in session.options.join_ns}
    for kind in _in_images(session):
        ident = getattr(session.root.ids, kind.id_field)
        if kind.restore_foreign is None or kind.link in named:
            continue
        if externals.key_in_images(session.store, kind, ident) is not None:
            with OwnedFd(open_pidfd(session.root.pid)) as pidfd:
                kind.restore_foreign(_place(session, pidfd.fileno(), ident, pidfd.fileno(), is_nested=False))


def _make_nested(session: RestoreSession) -> None:
    """The root puppet makes them, for they belong to its user namespace, and goes back into its own."""
    inventory = load_one(session.store, kinds.INVENTORY)
    if not inventory.HasField("root_ids"):
        return
    root = session.root
    for kind in NAMESPACES:
        own_id = getattr(root.ids, kind.id_field)
        wanted = {getattr(process.ids, kind.id_field) for process in session.alive} if kind.nests else set()
        if kind.in_images is not None:
            wanted |= kind.in_images(session.store)
        wanted -= {own_id, 0}
        if not wanted:
            continue
        home = session.nested[kind.clone_flag, own_id] = _open_namespace(root.pid, kind)
        for ident in sorted(wanted):
            if ident == getattr(inventory.root_ids, kind.id_field):
                raise RestoreError(f"a process is in our {kind.link} namespace, the tree's root is not")
            batch = Batch()
            batch.call(nr.unshare, kind.clone_flag)
            root.runner.run(batch)
            fd = session.nested[kind.clone_flag, ident] = _open_namespace(root.pid, kind)
            if kind.clone_flag == CLONE_NEWNET:
                session.context.networks[ident] = fd.fileno()
        _enter(session, root, [(home, kind.clone_flag)])


def _open_namespace(pid: Pid, kind: NsKind) -> OwnedFd:
    return OwnedFd(os.open(f"/proc/{pid}/ns/{kind.link}", os.O_RDONLY | os.O_CLOEXEC))


def join(session: RestoreSession, process: RestoreProcess, origin: RestoreProcess) -> None:
    """Have *process*, just born into the namespaces of *origin*, enter those nested ones that it belongs to."""
    if not session.nested or process.is_zombie:
        return
    moves = []
    for kind in NAMESPACES:
        ident = getattr(process.ids, kind.id_field)
        if kind.nests and ident != getattr(origin.ids, kind.id_field):
            fd = session.nested.get((kind.clone_flag, ident))
            if fd is not None:
                moves.append((fd, kind.clone_flag))
    _enter(session, process, moves)


def _enter(session: RestoreSession, process: RestoreProcess, moves: Sequence[tuple[OwnedFd, int]]) -> None:
    if not moves:
        return
    channel, batch = session.channel, Batch()
    numbers = channel.give(batch, [fd.fileno() for fd, _ in moves], {channel.far_number})
    for number, (_, flag) in zip(numbers, moves, strict=True):
        batch.call(nr.setns, number, flag)
        batch.call(nr.close, number)
    process.runner.run(batch)


def enter_network(session: RestoreSession) -> None:
    """Go into the tree's network namespace, for sockets are born into that of the thread that makes them."""
    if not session.namespaces & CLONE_NEWNET:
        _check_devices(session)
        return
    session.network = OwnedFd(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    with OwnedFd(open_pidfd(session.root.pid)) as pidfd:
        setns(pidfd.fileno(), CLONE_NEWNET)
    if session.options.new_network and session.root_clone_flags & CLONE_NEWNET:
        from torpor.kernel.netdevice import loopback_up

        loopback_up()


def _check_devices(session: RestoreSession) -> None:
    """RestoreError for tun devices of a tree in our own network: they would be ours, made or taken by its images."""
    for entry in session.context.files.entries.values():
        if entry.tunf.HasField("netdev") and entry.tunf.ns_id in (0, session.root.ids.net_ns_id):
            raise RestoreError(
                f"files.img: tunf: netdev: {entry.tunf.netdev} would be an interface of this machine's own network",
                hint="a program with a tun device is restored into a network namespace of its own only",
            )


def leave(session: RestoreSession) -> None:
    """Back into our own network namespace, and to making files in our own name."""
    session.leave_network()
    session.own_new_files()


def finish(session: RestoreSession) -> None:
    """What can be done only with all memory in place, and what confines the tree when all is made."""
    if session.root.core.tc.torpor_confined:
        session.context.at(RestoreStage.TIDY, lambda: _confine(session))
    for kind, places in _iter_places(session):
        if kind.finish is not None:
            for place in places:
                kind.finish(place)


def _confine(session: RestoreSession) -> None:
    from torpor.objects.ns import limits

    with OwnedFd(open_pidfd(session.root.pid)) as pidfd:
        limits.restore(session.root, pidfd.fileno(), session.root_clone_flags & (CLONE_NEWUSER | CLONE_NEWPID))


def connect(session: RestoreSession) -> None:
    """Join what leads out of the tree's namespaces to what it leads to."""
    for kind, places in _iter_places(session):
        if kind.connect is not None:
            for place in places:
                kind.connect(place)


def _iter_places(session: RestoreSession) -> Iterator[tuple[NsKind, list[NsRestore]]]:
    """The kinds of which the tree has namespaces of its own, in their order, with these: the root's first."""
    wanted = _wanted(session)
    with OwnedFd(open_pidfd(session.root.pid)) as pidfd:
        for kind in NAMESPACES:
            places = _places(session, kind, pidfd.fileno(), own_one=kind in wanted)
            if places:
                yield kind, places


def _places(session: RestoreSession, kind: NsKind, pidfd: int, *, own_one: bool) -> list[NsRestore]:
    own_id = getattr(session.root.ids, kind.id_field)
    idents = [(own_id, pidfd)] if own_one else []
    for (flag, ident), fd in session.nested.items():
        if flag == kind.clone_flag and ident != own_id:
            idents.append((ident, fd.fileno()))
    return [_place(session, pidfd, ident, where, is_nested=ident != own_id) for ident, where in idents]


def _place(session: RestoreSession, pidfd: int, ident: int, where: int, *, is_nested: bool) -> NsRestore:
    policies = session.options.policies
    return NsRestore(
        session.store, session.root.runner, pidfd, ident, session.namespaces, policies.mounts.root or "/",
        policies.external, session.idmaps, where, is_nested, session.context,
    )  # fmt: skip


def _in_images(session: RestoreSession) -> list[NsKind]:
    """The kinds of which the images have a namespace that is not the dumper's."""
    inventory = load_one(session.store, kinds.INVENTORY)
    return own_kinds(session.root.ids, inventory.root_ids) if inventory.HasField("root_ids") else []


def _wanted(session: RestoreSession) -> list[NsKind]:
    """Those among them that are made again."""
    joined = sum(each.flag for each in session.joined)
    found = [kind for kind in _in_images(session) if not kind.clone_flag & joined]
    for kind in found:
        if kind.refusal:
            raise RestoreError(f"the images have a {kind.link} namespace: {kind.refusal}")
    return found
