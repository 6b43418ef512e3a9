"""The tree is stopped: by a freezer or task by task, at a moment when nothing is on its way to it if there is one."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from torpor.base.errors import TargetGoneError
from torpor.base.ids import Pid
from torpor.engine.dump import reading
from torpor.engine.dump.session import DumpSession
from torpor.engine.time_limit import time_limit
from torpor.kernel import interrupts
from torpor.kernel.namespaces import network_of
from torpor.objects.undo import End
from torpor.tracee.tree import FrozenTree, freeze

_REST_WITHIN_S, _N_LOOKS, _LOOK_EVERY_S = 1, 20, 0.0005
#: So often a tree whose network lets in nobody new is stopped in vain.
_N_LOCKED = 3
#: Whoever has so few descriptors has all of them looked at when stopped: a connection may be new, to an unknown port.
_FEW_FILES = 30


def find_freezer(session: DumpSession) -> None:
    """Find the freezer that stops the tree, if it is named; what it does is undone by a caretaker."""
    path = session.options.cgroups.freezer
    if not path:
        return
    from torpor.objects.cgroup.freezer import Freezer

    freezer = session.freezer = Freezer(path, session.outside.caretaker)
    session.outside.add(freezer)
    if session.cgroups is not None:
        session.cgroups.stopped_by(freezer)


def stop(session: DumpSession) -> None:
    """Stop the tree, at rest if possible."""
    limit = time_limit(session.options.timeout_s, f"stopping pid {session.pid} and all below it")
    with session.stats.watch.span("freezing"), limit:
        try:
            session.stopped = _stop_at_rest(session)
        finally:
            # They hold descriptors of the tree's: a listener that we keep open outlives the tree.
            session.context.noticed.restless.clear()


def _stop_at_rest(session: DumpSession) -> FrozenTree:
    """Stop the tree at a moment when nothing waits for it that cannot be carried, if there is one soon.

    A TCP connection that waits to be accepted is taken up by a server in less time than it takes to say so, and one
    that would be refused ends, as a rule, when its request is answered.  One that comes when the tree is stopped is
    like those that come when it is gone; but where the network is locked nobody would tell its client so: there the
    lock comes first, and what has come before it is waited for again, while nothing new comes in: which also brings to
    rest a server for which somebody waits at all times.  Nobody is waited for where connections are to be closed.  Of
    whom memory alone is copied nothing is lost, and he is to be stopped for as short as can be.
    """
    outside, pid = session.outside, session.pid
    if session.is_pre_dump:
        return _stop(session)
    waits = not session.options.policies.network.tcp_close
    # Once while nothing is frozen yet: what is imported for it is not in the freeze.
    if waits:
        _n_waited_for(session, [pid])
    if _has_own_network(pid):
        import torpor.objects.files.socket.goodbyes
        import torpor.objects.files.socket.listeners  # noqa: F401
    deadline = time.monotonic() + _REST_WITHIN_S
    n_locked, is_locked, is_at_rest = 0, False, True
    tree: FrozenTree | None = None
    try:
        while True:
            tree = _stop(session)
            pids = [process.pid for process in tree.processes]
            outside.was_at_rest = waits and not _n_waited_for(session, pids)
            n_locked += is_locked
            is_late = not waits or n_locked == _N_LOCKED
            is_late = is_late or (not is_at_rest if n_locked else time.monotonic() > deadline)
            if outside.was_at_rest or is_late:
                if waits and not outside.was_at_rest and session.options.policies.network.tcp_established:
                    # A server that lets go of each client at once had none when it was looked at before the freeze.
                    session.context.noticed.marks.add("connections")
                is_locked = _shut(session, tree)
                if is_locked and waits:
                    outside.was_at_rest = not _n_waited_for(session, pids)
                    if not n_locked:
                        is_late = False
            if outside.was_at_rest or is_late:
                return tree
            if is_locked:
                reading.lock_network(session, is_ajar=True)
            tree.release()
            is_at_rest = _let_it_work(session, pids, is_locked=is_locked)
    except BaseException as error:
        if tree is not None:
            tree.release()
        session.context.undo.undo(End.FAILED, error)
        raise


def _let_it_work(session: DumpSession, pids: Sequence[Pid], *, is_locked: bool) -> bool:
    """Until nothing waits for *pids*: for an instant, or, where nobody new is let in, while they get on; whether so."""
    n_looks, n_left, moved = 0, _n_waited_for(session, pids), time.monotonic()
    while time.monotonic() - moved < _REST_WITHIN_S if is_locked else n_looks < _N_LOOKS:
        interrupts.look()
        time.sleep(_LOOK_EVERY_S)
        n_looks, n_before, n_left = n_looks + 1, n_left, _n_waited_for(session, pids)
        if not n_left:
            return True
        if n_left < n_before:
            moved = time.monotonic()
    return False


def _shut(session: DumpSession, tree: FrozenTree) -> bool:
    """What the stopped tree has said before is delivered, then its network is locked if a client may come; whether so.

    Not where the network is ours too: there only the connections are locked, the kernel tells clients that come late,
    and goes on delivering.  That it does as well, once it is unlocked, for a tree that is left running.
    """
    root = tree.root
    if root.is_zombie or root.leader.group_stop or not _has_own_network(root.pid):
        return False
    from torpor.objects.files.socket import goodbyes, listeners

    with network_of(root.pid):
        left = [] if session.options.leave_running else goodbyes.read()
        is_met = reading.is_lock_wanted(session) and listeners.are_there()
    if left:
        if is_met:
            reading.lock_network(session, is_ajar=True)
        with network_of(root.pid):
            goodbyes.wait(left)
    if is_met:
        reading.lock_network(session)
    return is_met


def _has_own_network(pid: Pid) -> bool:
    """Whether the network namespace of *pid*, if he is still there, is another than ours."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except FileNotFoundError:
        return False


def _stop(session: DumpSession) -> FrozenTree:
    if session.freezer is not None:
        return session.freezer.stop(session.pid, entered=session.entered)
    return freeze(session.pid, entered=session.entered)


def _n_waited_for(session: DumpSession, pids: Sequence[Pid]) -> int:
    """How many connections wait for *pids*; 1 where it is none, but something else that cannot be carried now."""
    with network_of(pids[0]):
        from torpor.objects.files.socket import listeners

        noticed, peer_ports = session.context.noticed, session.context.noticed.peer_ports
        is_refused = not session.options.policies.network.tcp_established
        if is_refused and len(noticed.sockets) + noticed.n_other_files <= _FEW_FILES:
            peer_ports = {0} if listeners.have_other_sockets(pids, noticed.sockets) else peer_ports
        n_waiting = listeners.n_waiting(pids) or listeners.are_connected(pids, noticed.ports, peer_ports)
    return n_waiting or noticed.is_restless()


def check_root(session: DumpSession) -> None:
    """TargetGoneError for a root that is dead."""
    if session.tree.root.is_zombie:
        raise TargetGoneError(f"pid {session.pid} has ended", hint="its parent has not waited for it yet")
