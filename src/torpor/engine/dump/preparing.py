"""What is done for a dump while its tree still runs: looked at, imported, made ready."""

from __future__ import annotations

from torpor.base import log
from torpor.base.late import load
from torpor.engine.dump import namespaces, preflight, reading, warming
from torpor.engine.dump.session import DumpSession
from torpor.kernel.procfs.task import read_tree
from torpor.objects.arch import cpu
from torpor.objects.cgroup.model import IGNORE


def find_entered(session: DumpSession) -> None:
    """Those who have entered a namespace of the tree's, if they are to be carried; else they are refused."""
    from torpor.engine.dump import entered

    session.seen = read_tree(session.pid)
    session.entered = entered.to_carry(session.seen, session.options.entered)


def check(session: DumpSession) -> None:
    """The quick pass over the tree; what it noticed is kept.

    Of a round that follows another one nobody wants it: that has refused already, and the dump will.
    """
    options = session.options
    if session.is_pre_dump and options.tracker is not None and options.tracker.ident:
        return
    by_freezer = bool(options.cgroups.freezer)
    session.context.noticed = preflight.check(
        session.pid, options, by_freezer=by_freezer, entered=session.entered, tree=session.seen
    )
    if not session.is_pre_dump:
        for loss in session.context.noticed.undo:
            log.warn(loss)


def look_at_namespaces(session: DumpSession) -> None:
    """What dumps those that the tree does not share with us."""
    namespaces.prepare(session.seen, session.options.policies)
    namespaces.look_at_limits(session.pid, session.context)
    if not session.is_pre_dump:  # from its images nothing is restored, and a round is to be short
        namespaces.look_at_foreign(session.pid, session.context)


def warm_up(session: DumpSession) -> None:
    """What every dump would make when first asked for."""
    warming.warm_up()
    if not session.options.unsettled and (not session.options.leave_running or session.is_pre_dump):
        # Nobody waits for the tree to run, or it does when memory is copied.
        session.new.sum_from_now_on()


def fork_caretaker(session: DumpSession) -> None:
    """Who undoes what we change outside, if we are going to change anything."""
    is_connected = "connections" in session.context.noticed.marks
    is_locked = reading.is_lock_wanted(session)
    if is_connected:
        load("resource")  # each connection takes descriptors of ours
    if is_locked:
        load("torpor.objects.files.socket.net_lock")
    if is_connected or is_locked or not session.options.leave_running:
        _ = session.outside.caretaker


def read_cgroups(session: DumpSession) -> None:
    """The control groups of the root and what is below them, if they are managed."""
    if session.options.cgroups.mode != IGNORE:
        from torpor.engine.dump import cgroups

        session.cgroups = cgroups.CgroupDump(session.options.cgroups, session.pid)


def once_more(session: DumpSession) -> None:
    """Whoever wants to copies what has been written since, while it still runs."""
    session.options.once_more()


def read_processor(session: DumpSession) -> None:
    """What the processor can do."""
    cpu.dump(session.store)


def notify(session: DumpSession) -> None:
    """Tell whoever wants to know that it begins."""
    session.options.notify("pre-dump", session.pid)
