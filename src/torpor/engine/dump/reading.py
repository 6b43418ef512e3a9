"""What is read of a stopped tree from outside: control groups, filters, descriptors, locks, namespaces."""

from __future__ import annotations

import os

from torpor.engine.dump import namespaces
from torpor.engine.dump.session import DumpSession
from torpor.kernel.namespaces import network_of
from torpor.objects.files import fdtable, locks
from torpor.objects.task import seccomp


def lock_network(session: DumpSession) -> None:
    """A network namespace of the tree's own is locked as a whole, if there are connections to carry.

    In the one that is ours too only the connections themselves are, when all are known.
    """
    root, notify, context = session.processes[0], session.options.notify, session.context
    if root.ids.net_ns_id == session.root_ids.net_ns_id:
        return
    notify("network-lock", root.pid)
    context.undo.add(lambda: notify("network-unlock", root.pid))
    policy = session.options.policies.network
    # Whoever names a method wants the namespace quiet, whatever is in it.
    is_wanted = policy.tcp_established and policy.network_lock in ("nftables", "iptables")
    if "connections" in context.noticed.marks or is_wanted or policy.holds_all:
        assert root.pidfd is not None
        from torpor.objects.files.socket import net_lock

        context.part(net_lock.DumpLock).lock_namespace(os.dup(root.pidfd.fileno()))


def enter_network(session: DumpSession) -> None:
    """Be in the tree's network namespace, to look at its sockets, until ``leave_network`` or an error."""
    session.visit.enter_context(network_of(session.pid))


def leave_network(session: DumpSession) -> None:
    """Be in our own again."""
    session.visit.close()


def ask_cgroups(session: DumpSession) -> None:
    """Which groups each process is in."""
    if session.cgroups is not None:
        session.cgroups.ask(session.alive, session.root_ids)


def read_filters(session: DumpSession) -> None:
    """The seccomp filters of all."""
    session.seccomp = seccomp.dump(session.alive)


def read_files(session: DumpSession) -> None:
    """Descriptors and directories, with the files behind them."""
    context = session.context
    for process in session.alive:
        if context.once(("table", process.ids.files_id)):
            fdtable.dump_table(process, context)
        fdtable.dump_fs(process, context)


def read_locks(session: DumpSession) -> None:
    """The locks on the files met."""
    locks.dump(session.context)


def read_namespaces(session: DumpSession) -> None:
    """The images of the tree's own."""
    namespaces.dump(session.processes, session.root_ids, session.context)
