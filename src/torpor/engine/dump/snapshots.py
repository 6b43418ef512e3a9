"""Snapshots of the large processes of a tree that runs on: their memory is copied when it runs again.

Which processes are worth it, and what becomes of one whose snapshot cannot be taken: its memory is copied while it is
stopped, as that of all others.
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from torpor.base import log
from torpor.base.errors import KernelError, RefusedError, TargetGoneError, TorporError
from torpor.base.ids import Pid
from torpor.engine.dump.earlier import is_large, iter_large, own_bytes
from torpor.engine.dump.session import DumpSession
from torpor.engine.options import ALWAYS, nobody
from torpor.images.store import store_one
from torpor.kernel import interrupts
from torpor.objects.memory.headroom import Headroom
from torpor.objects.memory.space import Halved, PagesDumped
from torpor.objects.model import DumpProcess
from torpor.objects.undo import do_all
from torpor.tracee import caretaker
from torpor.tracee.borrow import BorrowedRunner, Covered
from torpor.tracee.snapshot import Snapshot, take
from torpor.tracee.tree import freeze_alone

#: A snapshot is taken only where so much memory is free: one 16th of what the process has, and so many bytes.
_SHARE, _RESERVE = 16, 64 << 20
_LOOK_EVERY_S = 0.01
#: The VmFlags that a snapshot's mappings do not show of its process's: locks, and what is registered for userfaultfd.
UNSEEN = frozenset(("lo", "lf", "um", "uw", "ui"))
#: Namespaces that a child would begin, or be the first to enter, and which the process means for another one.
_FOR_CHILDREN = ("pid", "time")


def plan(session: DumpSession) -> Snapshots | None:
    """Those of this dump, if there may be any.

    Unless they are asked for, there are none of small processes, nor where a hook may rely on the tree being stopped.
    """
    options = session.options
    if options.snapshot != ALWAYS and (options.notify is not nobody or next(iter_large(session.seen), None) is None):
        return None
    _ = session.outside.caretaker  # forked while it costs nobody anything
    return Snapshots(session)


class _Taken:
    """Of one process."""

    def __init__(self, process: DumpProcess, snapshot: Snapshot, covered: Covered, keys: list[int]) -> None:
        self.process, self.snapshot, self.covered, self.keys = process, snapshot, covered, keys
        self.halved: Halved | None = None
        #: Ends the watch over its process, if there is one.
        self.watching = ExitStack()


class Snapshots:
    """The snapshots of one dump: which processes get one, those that were taken, and copying from them."""

    def __init__(self, session: DumpSession) -> None:
        self._session = session
        self._wanted: dict[Pid, bool] = {}
        self._taken: dict[Pid, _Taken] = {}
        self._room: dict[Pid, Headroom] = {}

    def _confirm(self, taken: _Taken) -> None:
        """RefusedError where the flags of a process's mappings, but for locks and userfaultfd, are not what they were
        before the freeze: the snapshot shows them.
        """
        if self._session.earlier is not None:
            self._session.earlier.confirm(taken.process, taken.snapshot.pid)

    def wants(self, process: DumpProcess) -> bool:
        """Whether one of *process*, which is stopped, is to be taken."""
        if process.pid not in self._wanted:
            self._wanted[process.pid] = self._wants(process)
        return self._wanted[process.pid]

    def _wants(self, process: DumpProcess) -> bool:
        own, freezer = own_bytes(process.pid), self._session.freezer
        if self._session.options.snapshot != ALWAYS and not is_large(own, len(process.maps)):
            return False
        if freezer is not None and freezer.was_frozen:
            return False  # it does not run on
        if _is_set_apart(process.pid):
            return False
        room = self._room.setdefault(process.pid, Headroom(process.pid))
        if room.n_bytes() < own // _SHARE + _RESERVE:
            log.info(f"{process.describe()} is near a limit on memory: it is copied while it is stopped")
            return False
        return True

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

    def watch(self) -> None:
        """The tree is about to run: from now on what it writes is looked at, until its snapshots have been copied."""
        for each in self._taken.values():
            each.watching.enter_context(watched(each.process, self._room[each.process.pid]))

    def copy(self) -> None:
        """The tree runs: copy what they hold, and end each."""
        for each in self._taken.values():
            with _told(each):
                each.snapshot.settle(each.covered)
        session = self._session
        for each in list(self._taken.values()):
            with each.watching:
                dumped = self._copy(each)
                # Until its memory is given back: while it dies it is none that the kernel could end instead.
                each.snapshot.kill()
            session.stats.pages_written += dumped.n_written
            session.stats.pages_scanned += dumped.n_scanned
            store_one(session.store, "MM", each.process.mm, each.process.ns_pid)
            self._end(each)

    def _copy(self, taken: _Taken) -> PagesDumped:
        assert taken.halved is not None
        with _told(taken):
            self._confirm(taken)
            return taken.halved.dump_contents(taken.snapshot.pid, self._session.context)

    def end(self) -> None:
        """End those that are left."""
        do_all([partial(self._end, each) for each in list(self._taken.values())])

    def _end(self, taken: _Taken) -> None:
        with interrupts.put_off():
            # Whoever has stopped its process again must let that go first.
            do_all([taken.watching.close, partial(self._reap, taken)])

    def _reap(self, taken: _Taken) -> None:
        taken.snapshot.kill()
        with self._session.stats.watch.span("frozen"):
            taken.snapshot.reap()
        self._session.outside.caretaker.drop(taken.keys)
        del self._taken[taken.process.pid]


@contextmanager
def _told(taken: _Taken) -> Iterator[None]:
    """RefusedError where the kernel has ended it: what it held is nowhere else, for its process has gone on.

    Also where nothing has failed: what has no memory any more reads as having none.
    """
    try:
        yield
    except (TorporError, OSError):
        if not taken.snapshot.has_ended():
            raise
    else:
        if not taken.snapshot.has_ended():
            return
    raise RefusedError(
        f"{taken.process.describe()} runs on, and its snapshot has been ended, which the kernel does first where "
        "memory runs out",
        hint="give it more memory, or let it be copied while it is stopped: --snapshot never",
    )


@contextmanager
def watched(process: DumpProcess, room: Headroom) -> Iterator[None]:
    """While its snapshot is copied in here, stop *process* again if what it writes meanwhile uses up the memory.

    By a thread of its own, which alone can let go what it has stopped.  Where it cannot be stopped, for it is being let
    go just now, that is tried again.
    """
    is_over, is_through = allocate_lock(), allocate_lock()
    is_over.acquire()
    is_through.acquire()
    failed: list[BaseException] = []

    def watch() -> None:
        try:
            before, is_short = room.n_bytes(), False
            while not is_over.acquire(timeout=_LOOK_EVERY_S):
                left = room.n_bytes()
                # As much again may go before the next look, which may be late, and once more while it is stopped.
                if left < _RESERVE // 2 + 2 * max(before - left, 0):
                    if not is_short:
                        log.warn(f"{process.describe()}: memory is short, it is stopped until its snapshot is copied")
                    is_short = True
                    try:
                        stopped = freeze_alone(process.pid)
                    except TargetGoneError:
                        return
                    except (TorporError, OSError) as error:
                        log.debug(f"{process.describe()}: cannot be stopped yet: {error}")
                    else:
                        with stopped:
                            is_over.acquire()
                        return
                before = left
        except BaseException as error:
            failed.append(error)
        finally:
            is_through.release()

    start_new_thread(watch, ())
    try:
        yield
    finally:
        is_over.release()
        is_through.acquire()
    if failed and not isinstance(failed[0], TargetGoneError):
        raise failed[0]


def _is_set_apart(pid: Pid) -> bool:
    """Whether children of the process would be in a namespace that it is not in."""
    return any(
        os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/{pid}/ns/{kind}_for_children")
        for kind in _FOR_CHILDREN
        if os.path.exists(f"/proc/{pid}/ns/{kind}_for_children")
    )
