"""A thread that works for us, whenever we are broken off.

Our signals raise in the main thread, also in the midst of what the standard library does there.  The conditions of
``threading`` (its events, the start of its threads), of ``queue.Queue`` and of ``concurrent.futures`` are taken by code
in Python: an exception in the instant after that leaves one taken for good, and whoever wants it next waits for ever:
the thread, or we as we end it.  So it is not by these that a thread and one who may be broken off talk to each other.
Locks of the interpreter's own and ``queue.SimpleQueue`` are taken, or not, in one step of it.  (Seen in Python 3.11: of
600 senders that were broken off by a signal, ten could not be closed.)
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable


class Worker:
    """*work*, done by a thread of its own once it is begun.  Whoever ends the program need not wait for it."""

    __slots__ = ("_is_done", "_work", "has_begun", "has_ended")

    def __init__(self, work: Callable[[], object]) -> None:
        self._work, self._is_done = work, allocate_lock()
        self.has_begun = self.has_ended = False

    def begin(self) -> None:
        """Once; RuntimeError where there can be no more threads."""
        self._is_done.acquire()
        # Before, since it may be broken off right after it: whoever waits for it then does not miss it.
        self.has_begun = True
        try:
            start_new_thread(self._run, ())
        except RuntimeError:
            self.has_begun = False
            raise

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self.has_ended = True
            self._is_done.release()

    def wait(self, timeout_s: float = -1.0) -> bool:
        """Whether its work is done, or was never begun, after at most so many seconds (-1: as long as it takes)."""
        if self.has_begun and not self.has_ended and self._is_done.acquire(timeout=timeout_s):
            self._is_done.release()
        return not self.has_begun or self.has_ended
