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

_REST_WITHIN_S, _N_LOOKS, _LOOK_EVERY_S = 1, 100, 0.0005


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

    A TCP connection that waits to be accepted is taken up by a server in less time than it takes to say so.  One
    that comes when the tree is stopped is like those that come when it is gone; but where the network is locked nobody
    would tell its client so: there the lock comes first, and what has come before it is waited for once more.
    """
    outside, pid = session.outside, session.pid
    if session.options.policies.network.tcp_close:
        return _stop(session)
    _is_waited_for(session, [pid])  # once while nothing is frozen yet
    deadline = time.monotonic() + _REST_WITHIN_S
    while True:
        tree = _stop(session)
        pids = [process.pid for process in tree.processes]
        try:
            was_locked = session.is_network_seen
            outside.was_at_rest = not _is_waited_for(session, pids)
            is_late = was_locked or time.monotonic() > deadline
            if (outside.was_at_rest or is_late) and not was_locked and _may_be_met(session, tree):
                reading.lock_network(session)
                outside.was_at_rest = not _is_waited_for(session, pids)
        except BaseException as error:
            tree.release()
            session.context.undo.undo(End.FAILED, error)
            raise
        if outside.was_at_rest or is_late:
            return tree
        tree.release()
        interrupts.look()
        for _ in range(_N_LOOKS):
            time.sleep(_LOOK_EVERY_S)
            if not _is_waited_for(session, pids):
                break


def _may_be_met(session: DumpSession, tree: FrozenTree) -> bool:
    """Whether a client may come between the stop and the lock of the network, if that is to be locked as a whole."""
    if tree.root.is_zombie or tree.root.leader.group_stop or not reading.is_lock_wanted(session):
        return False
    if os.readlink(f"/proc/{tree.root.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        return False  # not locked but for its connections: the kernel tells clients that come late
    with network_of(tree.root.pid):
        from torpor.objects.files.socket import listeners

        return listeners.are_there()


def _stop(session: DumpSession) -> FrozenTree:
    if session.freezer is not None:
        return session.freezer.stop(session.pid, entered=session.entered)
    return freeze(session.pid, entered=session.entered)


def _is_waited_for(session: DumpSession, pids: Sequence[Pid]) -> bool:
    with network_of(pids[0]):
        from torpor.objects.files.socket import listeners

        is_waited_for = listeners.waited_for(pids)
    return is_waited_for or session.context.noticed.is_restless()


def check_root(session: DumpSession) -> None:
    """TargetGoneError for a root that is dead."""
    if session.tree.root.is_zombie:
        raise TargetGoneError(f"pid {session.pid} has ended", hint="its parent has not waited for it yet")
