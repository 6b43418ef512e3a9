"""What is read of a stopped tree from outside: control groups, filters, descriptors, locks, namespaces."""

from __future__ import annotations

import os

from torpor.engine.dump import namespaces
from torpor.engine.dump.session import DumpSession
from torpor.kernel.namespaces import network_of
from torpor.kernel.pidfd import open_pidfd
from torpor.objects.files import fdtable, locks
from torpor.objects.task import seccomp


def lock_network(session: DumpSession, *, is_ajar: bool = False) -> None:
    """A network namespace of the tree's own is locked as a whole, if there are connections to carry; once.

    One that *is_ajar* keeps out new connections alone, until it is locked once more.  In the one that is ours too only
    the connections themselves are, when all are known.
    """
    if session.is_network_seen:
        if session.is_network_ajar != is_ajar and is_lock_wanted(session):
            from torpor.objects.files.socket import net_lock

            session.context.part(net_lock.DumpLock).shut(is_ajar=is_ajar)
        session.is_network_ajar = is_ajar
        return
    session.is_network_ajar = is_ajar
    session.is_network_seen = True
    pid, notify, context = session.pid, session.options.notify, session.context
    if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        return
    notify("network-lock", pid)
    context.undo.add(lambda: notify("network-unlock", pid))
    if is_lock_wanted(session):
        from torpor.objects.files.socket import net_lock

        context.part(net_lock.DumpLock).lock_namespace(open_pidfd(pid), is_ajar=is_ajar)


def is_lock_wanted(session: DumpSession) -> bool:
    """Whether a network namespace of the tree's own is to be locked as a whole."""
    policy = session.options.policies.network
    # Whoever names a method wants the namespace quiet, whatever is in it.
    is_named = policy.tcp_established and policy.network_lock in ("nftables", "iptables")
    return "connections" in session.context.noticed.marks or is_named or policy.holds_all


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
