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
        self._is_dying = False

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

    def dismiss(self) -> None:
        """From here on it does nothing any more: it ends (``bury``)."""
        if not self._is_there:
            return
        self._is_there = False
        if self._is_traced:
            kill_and_reap([self._stub.thread])
        else:
            os.kill(self._stub.thread.tgid, signal.SIGKILL)
            self._is_dying = True
        self._stub.life.close()

    def bury(self) -> None:
        """It is gone, dismissed or not, and leaves nothing of it."""
        self.dismiss()
        if self._is_dying:
            self._is_dying = False
            with suppress(TargetGoneError):
                self._stub.thread.wait()
