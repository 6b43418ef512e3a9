"""A snapshot: a child of a borrowed task that holds its private memory as it is now, and never runs a step of its own.

Its memory is the task's by copy-on-write, so the task may go on while it is read.  Nobody is told of it and wait(2)
does not see it: its exit_signal is 0 (``__WALL`` would see it, once it has ended; that is why it stays traced until
all threads of its parent are stopped, in the moment in which it is reaped).  It shares no descriptor: it lets go the
table of its parent as soon as that runs again.

We may die at any instant.  The batch in which it is born ends it, as with a :mod:`~torpor.tracee.twin`, and has its
parent wait for it, until it dies with us (PTRACE_O_EXITKILL) and a caretaker knows of it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress

from torpor.base import log
from torpor.base.errors import KernelError, TargetGoneError, TorporError
from torpor.base.ids import Pid
from torpor.kernel import ptrace, vm
from torpor.kernel.arch import nr
from torpor.kernel.procfs.maps import read_maps
from torpor.kernel.procfs.stat import read_stat
from torpor.kernel.procfs.status import read_status
from torpor.kernel.signal import SIGKILL, pidfd_send_signal
from torpor.kernel.uapi.sched import CLONE_FILES
from torpor.tracee import tree, twin
from torpor.tracee.batch import Batch
from torpor.tracee.borrow import BorrowedRunner, Covered, call_once
from torpor.tracee.puppet import event_message
from torpor.tracee.remote import Runner, Scratch
from torpor.tracee.thread import WALL, Thread

_ALL = (1 << 32) - 1
_CLOSE_RANGE_UNSHARE = 1 << 1
_WORD = 8
_LOOK_EVERY_S = 0.001
_PATIENCE_S = 10.0

#: Told the child's pid, and its number for its parent: whoever reaps it, should we die.
Told = Callable[[Pid, int], None]


class Snapshot:
    """Made by ``take``; ``kill`` and ``reap`` must follow when its parent runs again."""

    def __init__(self, thread: Thread, parent: Pid, number: int, scratch: Scratch, stop_signal: int) -> None:
        #: By which its memory and page tables can be read.
        self.pid = thread.tid
        self.parent = parent
        self._thread, self._number = thread, number
        self._scratch, self._stop_signal = scratch, stop_signal

    def settle(self, covered: Covered) -> None:
        """Once its parent runs: its memory is as that of its parent was, and it has no descriptors and no directory."""
        address, before = covered
        vm.write(self.pid, address, before)
        runner = Runner(self._thread, self._scratch, stop_signal=self._stop_signal)
        runner.start_from(self._thread.get_regs())
        batch = Batch()
        # Of a table that it closes as a whole nothing is copied: no file notices.
        batch.call(nr.close_range, 0, _ALL, _CLOSE_RANGE_UNSHARE, may_fail=True)
        batch.call(nr.chdir, batch.path("/"), may_fail=True)
        runner.run(batch)

    def kill(self) -> None:
        """Its memory is given back, which takes its time, and its parent runs meanwhile."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, SIGKILL)
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | WALL)

    def has_ended(self) -> bool:
        """Whether it has been killed, as the kernel does it where memory runs out; what it held is lost then.

        Seen before the kernel takes any of its memory: nobody who is to die can be traced.
        """
        try:
            self._thread.get_regs()
        except TargetGoneError:
            return True
        return False

    def reap(self) -> None:
        """It is gone, of which its parent, stopped for a moment, notices nothing.

        TorporError where the parent cannot be stopped: a zombie is left.
        """
        try:
            with tree.freeze_alone(self.parent) as stopped:
                self._reap()
                if not stopped.root.is_zombie:
                    wait_for(stopped.root.leader, self._number)
        except TargetGoneError:
            self._reap()

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self.pid, WALL)


def wait_for(leader: Thread, number: int) -> None:
    """Have a stopped process wait for its child *number*, if that has ended."""
    try:
        call_once(leader, read_maps(leader.tgid), nr.wait4, number, 0, WALL | os.WNOHANG, 0)
    except KernelError as error:
        if error.errno != errno.ECHILD:
            raise


def take(runner: BorrowedRunner, told: Told) -> Snapshot:
    """A snapshot of the process of the thread that *runner* has borrowed; of its other threads none runs.

    KernelError where it can have no child: limits on processes or memory.  *told* must not raise.
    """
    taken: list[Snapshot] = []
    runner.on_event = lambda: taken.append(_keep(runner, told))
    # Not the directories: to share those would be seen (a set-uid program is not executed as such then).
    twin.bear(runner, runner.scratch, CLONE_FILES)
    return taken[0]


def _keep(runner: BorrowedRunner, told: Told) -> Snapshot:
    """While its parent is stopped at its birth."""
    pid, at = event_message(runner.tid), twin.to_wait_for(runner.scratch)
    thread = Thread(pid, pid)
    thread.wait_interrupted()
    twin.trace(thread, ptrace.PTRACE_O_TRACESYSGOOD | ptrace.PTRACE_O_EXITKILL)
    number = int.from_bytes(vm.read(runner.tid, at, _WORD), "little") & 0xFFFFFFFF
    told(pid, number)
    with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as adjustment:
        adjustment.write("1000")  # where memory ends, it is to end, and not its parent, which runs in a moment
    vm.write(runner.tid, at, twin.NOBODY.to_bytes(_WORD, "little"))
    return Snapshot(thread, runner.thread.tgid, number, runner.scratch, runner.stop_signal)


def reap_left(pidfd: int, parent: Pid, pid: Pid, number: int) -> None:
    """Have *parent* (behind *pidfd*) wait for its snapshot *pid*, whose maker has died or is about to."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        pidfd_send_signal(pidfd, 0)  # still the same process
        try:
            stat, status = read_stat(pid), read_status(pid)
        except (FileNotFoundError, ProcessLookupError):
            return
        if stat.ppid != parent:
            return
        if stat.state == "Z" and not status.tracer:
            try:
                with tree.freeze_alone(parent) as stopped:
                    if not stopped.root.is_zombie:
                        wait_for(stopped.root.leader, number)
                return
            except TorporError as error:  # whoever traces the parent may be about to die, too
                log.debug(f"the snapshot of pid {parent}: {error}")
        time.sleep(_LOOK_EVERY_S)
