"""Restore: the network is held back while connections are being made, and let go when all are there.

What a dump has locked stays locked until ``let_go``, also over restores that fail: they can be tried again.  That comes
when the tree cannot be ended any more by our death: were it unlocked before, what peers have been told by then would be
lost.  So a caretaker knows how to unlock: before the tree is let go it ends it if we die, afterwards it unlocks.
"""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.errors import RefusedError
from torpor.base.fds import OwnedFd
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_one
from torpor.kernel import signal
from torpor.kernel.namespaces import CLONE_NEWNET, inside
from torpor.kernel.pidfd import open_pidfd

_TCP, _CLOSED = 6, 7
_IPTABLES, _SKIP = 0, 2


def hold_joined(session: RestoreSession) -> None:
    """``hold``, in a namespace that was made for the tree by others: packets find their way there already."""
    for joined in session.joined:
        if joined.flag == CLONE_NEWNET:
            inside(joined.fd.fileno(), CLONE_NEWNET, lambda: hold(session))


def hold(session: RestoreSession) -> None:
    """Where the dump's lock is not: lock the connections that are going to be made.

    To be called in the tree's network namespace.
    """
    if session.held is not None:
        return
    inventory = load_one(session.store, kinds.INVENTORY)
    connections = _reachable(session)
    if not connections or _method(inventory) == _SKIP:
        return
    from torpor.objects.files.socket import net_lock

    run_id = _run_id(session, inventory)
    if net_lock.has_table(run_id):
        return
    session.held = net_lock.NetLock(run_id, "")
    caretaker = session.get_caretaker()
    netns = OwnedFd(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    try:
        session.held.lock(netns, [net_lock.ends_of(sk) for sk in connections], lambda: caretaker)
    except RefusedError as error:
        # No reason to fail.  As long as the images lay there nothing was locked either, and any packet for one of the
        # connections was answered by a reset: the lock would only have spared them that during the restore itself.
        log.warn(error.describe())


def tell(session: RestoreSession) -> None:
    """Notify that a network namespace of the tree's own is being unlocked."""
    if _is_own(session, load_one(session.store, kinds.INVENTORY)):
        session.options.notify("network-unlock", session.root.pid)


def promise(session: RestoreSession) -> None:
    """Prepare the unlocking, and have our death be the end of the tree in silence: connections are about to live.

    A caretaker is there if connections are carried that anything can reach, or there is anything else to take back.
    """
    inventory = load_one(session.store, kinds.INVENTORY)
    method = _method(inventory)
    if method != _SKIP:
        from torpor.objects.files.socket import net_lock

        ends = None if _is_own(session, inventory) else [net_lock.ends_of(sk) for sk in _connections(session)]
        run_id = _run_id(session, inventory)
        if session.namespaces & CLONE_NEWNET:
            with OwnedFd(open_pidfd(session.root.pid)) as pidfd:
                session.left = inside(pidfd.fileno(), CLONE_NEWNET, lambda: net_lock.Left(run_id, method, ends))
        else:
            session.left = net_lock.Left(run_id, method, ends)
    if session.caretaker is None and (method == _SKIP or not _reachable(session)):
        session.unlock()
        return
    from torpor.tracee import caretaker

    # As late as can be: every page that we write to after the fork is copied.
    keeper = session.get_caretaker()
    pidfds = [OwnedFd(open_pidfd(process.pid)) for process in session.alive]
    try:
        ending = [caretaker.signal_to(pidfd.fileno(), signal.SIGKILL) for pidfd in pidfds]
        for each in session.context.promised:
            ending += each.steps_if_ended()
        session.ending = keeper.add(ending)
    finally:
        for pidfd in pidfds:
            pidfd.close()


def announce(session: RestoreSession) -> None:
    """Say what the caretaker has to do if we die once the tree has been let go."""
    keeper = session.caretaker
    if keeper is None:
        return
    steps = [*(session.held.steps if session.held is not None else ()), *(session.left.steps() if session.left else ())]
    for each in session.context.promised:
        steps += each.steps_if_let_go()
    keeper.announce(steps)


def let_go(session: RestoreSession) -> None:
    """Unlock; what is used for it is closed at the end, since that takes time."""
    if not session.is_unlocked:
        session.unlock()


def _is_own(session: RestoreSession, inventory: m.inventory_entry) -> bool:
    return inventory.HasField("root_ids") and session.root.ids.net_ns_id != inventory.root_ids.net_ns_id


def _connections(session: RestoreSession) -> list[m.inet_sk_entry]:
    if session.options.policies.network.tcp_close:
        return []
    return [
        entry.isk
        for entry in session.context.files.entries.values()
        if entry.HasField("isk") and entry.isk.proto == _TCP and entry.isk.dst_port and entry.isk.state != _CLOSED
    ]


def _reachable(session: RestoreSession) -> list[m.inet_sk_entry]:
    """Only those of the main network namespace: into the tree's other ones no packet can come yet."""
    home = session.root.ids.net_ns_id
    return [sk for sk in _connections(session) if sk.ns_id in (home, 0)]


def _method(inventory: m.inventory_entry) -> int:
    """How the dump locked the network; images from before the field say nothing, and mean iptables."""
    return inventory.network_lock_method if inventory.HasField("network_lock_method") else _IPTABLES


def _run_id(session: RestoreSession, inventory: m.inventory_entry) -> str:
    return inventory.dump_criu_run_id or str(session.root.ns_pid)
