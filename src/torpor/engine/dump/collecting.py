"""What the processes of a stopped tree are, by /proc alone, and whether they can be carried."""

from __future__ import annotations

import time

from torpor.base.fds import OwnedFd
from torpor.base.ids import Pid, TreePid
from torpor.engine import family
from torpor.engine.dump import namespaces
from torpor.engine.dump.ids import check_threads
from torpor.engine.dump.session import DumpSession
from torpor.engine.options import nobody
from torpor.images import messages as m
from torpor.kernel.pidfd import open_pidfd
from torpor.kernel.procfs.maps import Vma, read_smaps
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.status import Status, read_status
from torpor.objects.arch import core as image
from torpor.objects.arch import uncarried
from torpor.objects.model import DumpProcess, DumpThread
from torpor.tracee.borrow import split_leftovers
from torpor.tracee.tree import Process

#: For how long the flags of mappings that a round has read are good for the dump after it.
_RECENT_S = 1.0


def look_before(session: DumpSession) -> None:
    """At the flags of mappings, where somebody looks whether they are still the same when nobody waits for that.

    For a pre-dump nobody does: from its images nothing is restored, and those of the look before are as good.  Those
    that a round has just read serve the dump as well: what they take to be read, which grows with the memory there is,
    the tree would write until its stop.
    """
    unseen: frozenset[str] = frozenset()
    if session.snapshots is not None:
        from torpor.engine.dump.snapshots import UNSEEN

        unseen = UNSEEN
    elif not session.is_pre_dump and (session.options.also is None or session.options.leave_running):
        return
    from torpor.engine.dump.earlier import Earlier

    tracker, known = session.tracker, {}
    if tracker is not None:
        since = 0.0 if session.is_pre_dump else time.monotonic() - _RECENT_S
        known = {pid: maps for pid, maps in tracker.maps.items() if tracker.flags_s.get(pid, 0.0) >= since}
    session.earlier = Earlier(session.seen, unseen, known)
    if tracker is not None:
        tracker.flags_s.update(session.earlier.read_s)


def look_again(session: DumpSession) -> None:
    """At the flags that were taken to be what they were before the tree was stopped; RefusedError if they are not.

    Those of a process with a snapshot are looked at in that, when nothing is stopped any more.
    """
    if session.earlier is None:
        return
    for process in session.alive:
        if session.snapshots is None or not session.snapshots.has(process):
            session.earlier.confirm(process, process.pid)


def collect(session: DumpSession) -> None:
    """All processes and threads."""
    known: dict[int, DumpProcess] = {}
    for tracee in session.tree.root.iter_tree():
        parent = None if tracee.parent is None else known[tracee.parent.pid]
        known[tracee.pid] = _collect_one(session, tracee, parent)


def _collect_one(session: DumpSession, tracee: Process, parent: DumpProcess | None) -> DumpProcess:
    pid = tracee.pid
    status = read_status(pid)
    core = image.new()
    process = DumpProcess(
        tracee=tracee, parent=parent, pid=pid, ns_pid=TreePid(status.ns_tgids[-1]), stat=read_stat(pid), status=status,
        pidfd=None if tracee.is_zombie else OwnedFd(open_pidfd(pid)),
        core=core, mm=m.mm_entry(), ids=m.task_kobj_ids_entry(),
    )  # fmt: skip
    session.processes.append(process)
    if not tracee.is_zombie:
        process.ids = session.ids.ids_of(pid)
        process.maps, process.leftovers = split_leftovers(_read_maps(session, pid, status), tracee.threads)
        for thread in tracee.threads:
            # What is told of a process is told of its leader.
            thread_status = status if thread.tid == pid else read_status(pid, thread.tid)
            thread_core = core if thread.tid == pid else image.new()
            process.threads.append(
                DumpThread(process, thread, TreePid(thread_status.ns_pids[-1]), thread_status, thread_core)
            )
    session.stats.n_processes += 1
    return process


def _read_maps(session: DumpSession, pid: Pid, status: Status) -> list[Vma]:
    return read_smaps(pid) if session.earlier is None else session.earlier.read(pid, status)


def relieve(session: DumpSession) -> None:
    """What an earlier dump, which left the tree stopped, keeps as it is until the tree goes on: it is ours now."""
    for process in session.alive:
        if process.tracee.leader.group_stop:
            from torpor.tracee import vigil

            vigil.relieve(process.pid)


def check(session: DumpSession) -> None:
    """RefusedError for what could not be made again, when nothing can change any more."""
    options, everyone = session.options, session.processes
    namespaces.check(everyone, session.root_ids, options.policies.external)
    session.belongings = family.belongings(everyone, own_session=options.own_session)
    family.check(everyone, session.belongings, shell_job=options.policies.terminals.shell_job)
    for process in everyone:
        for problem in uncarried.problems(process.describe(), process.status) if not process.is_zombie else ():
            raise problem
        for thread in process.threads:
            uncarried.check(thread)
        # To ask for each of thousands takes its time: of those that were there before, that has been seen.
        tids, known = [thread.tid for thread in process.threads], session.context.noticed.threads
        check_threads(process.describe(), process.pid, [tid for tid in tids if tid not in known])


def read_idmaps(session: DumpSession) -> None:
    """Have each process know how its ids are seen in the tree's user namespace."""
    namespaces.read_idmaps(session.processes, session.root_ids)


def look_for_entered(session: DumpSession) -> None:
    """Whoever has entered a namespace of the tree's by now dies with its first process."""
    from torpor.engine.dump import entered

    entered.look_again(session.processes, session.options.entered)


def look_after_hook(session: DumpSession) -> None:
    """The same once more, if anybody has been told."""
    if session.options.notify is not nobody:
        look_for_entered(session)
