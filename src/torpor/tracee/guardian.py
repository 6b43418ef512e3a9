"""A process that ends all puppets if we die while they are let go.

It is the stub, when that has borne the root puppet, or another one, where the root has the stub's memory.  It reads a
pipe of ours, untraced, by the same loop as everything, and kills what it was told to once the pipe closes, which our
death does.  To dismiss it is to kill it: one instant.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from torpor.base.errors import TargetGoneError
from torpor.base.ids import Pid
from torpor.kernel import signal
from torpor.kernel.arch import nr
from torpor.tracee.batch import Batch
from torpor.tracee.remote import kill_and_reap
from torpor.tracee.stub import Stub


class Guardian:
    """Traced and idle until ``watch``, without effect after ``dismiss``, gone after ``bury``."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._is_traced = True
        self._is_there = True
        self._is_dying = self._yields = False

    def watch(self, pids: Sequence[int]) -> None:
        """From now on our death kills *pids* (as the guardian's pid namespace has them), whoever traces them."""
        batch = Batch()
        batch.call(nr.read, 0, batch.out(16), 1)
        for pid in pids:
            batch.call(nr.kill, pid, signal.SIGKILL, may_fail=True)
        batch.call(nr.exit_group, 0)
        self._stub.runner.start(batch)
        self._stub.thread.detach()
        self._is_traced = False

    def dismiss(self, *, is_buried: bool = False) -> None:
        """From here on it does nothing any more: it ends, which takes longer the more memory it has (``bury``).

        *is_buried*: it is going to be, and until then yields to everybody else.
        """
        if not self._is_there:
            return
        self._is_there = False
        if self._is_traced:
            kill_and_reap([self._stub.thread])
        else:
            pid = self._stub.thread.tgid
            # Whoever is about to let the tree go is not to wait for a processor that gives back memory.
            self._yields = is_buried and os.geteuid() == 0 and _schedule(pid, os.SCHED_IDLE)
            os.kill(pid, signal.SIGKILL)
            self._is_dying = True
        self._stub.life.close()

    def bury(self) -> None:
        """It is gone, dismissed or not, and leaves nothing of it."""
        self.dismiss()
        if self._is_dying:
            self._is_dying = False
            if self._yields:
                _schedule(self._stub.thread.tgid, os.SCHED_OTHER)
            with suppress(TargetGoneError):
                self._stub.thread.wait()


def _schedule(pid: Pid, policy: int) -> bool:
    """Whether it could be done: only to a child of ours, whose number nobody else gets before we have waited for it."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.sched_setscheduler(pid, policy, os.sched_param(0))
    except OSError:
        return False
    return True
