"""Snapshots of the large processes of a tree that runs on: their memory is copied when it runs again.

Which processes are worth it, and what becomes of one whose snapshot cannot be taken: its memory is copied while it is
stopped, as that of all others.
"""

from __future__ import annotations

import os
from functools import partial

from torpor.base import log
from torpor.base.errors import KernelError
from torpor.base.ids import Pid
from torpor.engine.dump.session import DumpSession
from torpor.engine.options import ALWAYS, nobody
from torpor.images.store import store_one
from torpor.kernel.procfs.small import read_small
from torpor.kernel.procfs.task import read_children
from torpor.kernel.vm import PAGE_SIZE
from torpor.objects.memory.space import Halved
from torpor.objects.model import DumpProcess
from torpor.objects.undo import do_all
from torpor.tracee import caretaker
from torpor.tracee.borrow import BorrowedRunner, Covered
from torpor.tracee.snapshot import Snapshot, take

#: Below so many bytes of its own a process is copied in less time than it takes to have it forked and to stop it again.
WORTH_IT = 4 << 20
#: Namespaces that a child would begin, or be the first to enter, and which the process means for another one.
_FOR_CHILDREN = ("pid", "time")


def plan(session: DumpSession) -> Snapshots | None:
    """Those of this dump, if there may be any.

    Unless they are asked for, there are none of small processes, nor where a hook may rely on the tree being stopped.
    """
    options = session.options
    if options.snapshot != ALWAYS and (options.notify is not nobody or not _is_any_large(session.pid)):
        return None
    _ = session.outside.caretaker  # forked while it costs nobody anything
    return Snapshots(session)


def _is_any_large(root: Pid) -> bool:
    pids = [root]
    for pid in pids:
        try:
            if _own_bytes(pid) >= WORTH_IT:
                return True
            pids += read_children(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


def _own_bytes(pid: Pid) -> int:
    """About how much private memory it has."""
    words = read_small(f"/proc/{pid}/statm").split()
    return (int(words[1]) - int(words[2])) * PAGE_SIZE


class _Taken:
    """Of one process."""

    def __init__(self, process: DumpProcess, snapshot: Snapshot, covered: Covered, keys: list[int]) -> None:
        self.process, self.snapshot, self.covered, self.keys = process, snapshot, covered, keys
        self.halved: Halved | None = None


class Snapshots:
    """Of one dump."""

    def __init__(self, session: DumpSession) -> None:
        self._session = session
        self._wanted: dict[Pid, bool] = {}
        self._taken: dict[Pid, _Taken] = {}

    def wants(self, process: DumpProcess) -> bool:
        """Whether one of *process*, which is stopped, is to be taken."""
        if process.pid not in self._wanted:
            is_large = self._session.options.snapshot == ALWAYS or _own_bytes(process.pid) >= WORTH_IT
            self._wanted[process.pid] = is_large and not _is_set_apart(process.pid)
        return self._wanted[process.pid]

    def take(self, process: DumpProcess, runner: BorrowedRunner, covered: Covered) -> None:
        """Take one, if it is wanted and can be had; in the task borrowed, when that has said all."""
        if not self.wants(process):
            return
        assert process.pidfd is not None
        keeper, pidfd, keys = self._session.outside.caretaker, process.pidfd.fileno(), []

        def told(child: Pid, number: int) -> None:
            keys.extend(keeper.add([caretaker.reap(pidfd, process.pid, child, number)]))

        try:
            taken = take(runner, told)
        except KernelError as error:
            log.info(f"{process.describe()} cannot fork ({error}): its memory is copied while it is stopped")
            self._wanted[process.pid] = False
            return
        log.debug(f"{process.describe()}: a snapshot of it is pid {taken.pid}")
        self._taken[process.pid] = _Taken(process, taken, covered, keys)

    def has(self, process: DumpProcess) -> bool:
        """Whether one of *process* has been taken."""
        return process.pid in self._taken

    def halve(self, process: DumpProcess) -> None:
        """Put aside, while *process* is stopped, what its snapshot has not."""
        self._taken[process.pid].halved = Halved(process)

    def copy(self) -> None:
        """The tree runs: copy what they hold, and end each."""
        for each in self._taken.values():
            each.snapshot.settle(each.covered)
        session = self._session
        for each in list(self._taken.values()):
            assert each.halved is not None
            dumped = each.halved.dump_contents(each.snapshot.pid, session.context)
            session.stats.pages_written += dumped.n_written
            session.stats.pages_scanned += dumped.n_scanned
            store_one(session.store, "MM", each.process.mm, each.process.ns_pid)
            self._end(each)

    def end(self) -> None:
        """End those that are left."""
        do_all([partial(self._end, each) for each in list(self._taken.values())])

    def _end(self, taken: _Taken) -> None:
        del self._taken[taken.process.pid]
        taken.snapshot.kill()
        with self._session.stats.watch.span("frozen"):
            taken.snapshot.reap()
        self._session.outside.caretaker.drop(taken.keys)


def _is_set_apart(pid: Pid) -> bool:
    """Whether children of the process would be in a namespace that it is not in."""
    return any(
        os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/{pid}/ns/{kind}_for_children")
        for kind in _FOR_CHILDREN
        if os.path.exists(f"/proc/{pid}/ns/{kind}_for_children")
    )
