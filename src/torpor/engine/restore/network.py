"""Restore: the network is held back while connections are being made, and let go when all are there.

What a dump has locked stays locked until ``let_go``, also over restores that fail: they can be tried again.
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
    # Only those of the main network namespace: into the tree's other ones no packet can come yet.
    home = session.root.ids.net_ns_id
    connections = [sk for sk in _connections(session) if sk.ns_id in (home, 0)]
    if not connections or _method(inventory) == _SKIP:
        return
    from torpor.objects.files.socket import net_lock

    run_id = _run_id(session, inventory)
    if net_lock.has_table(run_id):
        return
    session.held = net_lock.NetLock(run_id, "")
    from torpor.tracee.caretaker import Caretaker

    caretaker = session.caretaker = Caretaker()
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


def let_go(session: RestoreSession) -> None:
    """Unlock; that the connections go on is next.

    What comes then is acknowledged: were we killed between this and the tree's going on, the images would be stale.
    So nothing that takes time is done in between: what is used for it is closed at the end.
    """
    inventory = load_one(session.store, kinds.INVENTORY)
    root = session.root
    is_own = _is_own(session, inventory)
    session.unlock()
    method = _method(inventory)
    if method != _SKIP:
        from torpor.objects.files.socket import net_lock

        ends = None if is_own else [net_lock.ends_of(sk) for sk in _connections(session)]
        run_id = _run_id(session, inventory)
        with OwnedFd(open_pidfd(root.pid)) as pidfd:
            used = inside(pidfd.fileno(), CLONE_NEWNET, lambda: net_lock.unlock_dumped(run_id, method, ends))
        session.used_to_unlock += used


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


def _method(inventory: m.inventory_entry) -> int:
    """How the dump locked the network; images from before the field say nothing, and mean iptables."""
    return inventory.network_lock_method if inventory.HasField("network_lock_method") else _IPTABLES


def _run_id(session: RestoreSession, inventory: m.inventory_entry) -> str:
    return inventory.dump_criu_run_id or str(session.root.ns_pid)
