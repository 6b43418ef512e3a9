"""Several threads at work at once.

Between letting a thread run its batch and its stop lies the time of two context switches.  A pipeline prepares the next
threads' batches meanwhile, so that hundreds of threads cost what their preparation costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from torpor.base import log
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner

DEPTH = 8


class Pipeline:
    """Runs batches in the order in which they are submitted, up to ``DEPTH`` of them at once.

    Threads of one process share its scratch memory: each batch gets an eighth of it; one that needs more runs alone.
    Leaving the ``with`` waits for all; after an error the others are still waited for.
    """

    def __init__(self) -> None:
        self._running: deque[tuple[Runner, Callable[[], None] | None]] = deque()
        self._count = 0

    def next_part(self) -> int:
        """The number of the part that the next batch gets, free as soon as this returns."""
        if len(self._running) == DEPTH:
            self._finish_oldest()
        return self._count % DEPTH

    def submit(self, runner: Runner, batch: Batch, then: Callable[[], None] | None = None) -> None:
        """Start *batch* in *runner*; *then* is called when it has run."""
        if not len(batch):
            if then is not None:
                then()
            return
        scratch = runner.scratch.part(self.next_part(), DEPTH)
        if batch.size > scratch.size:
            self.drain()
            runner.run(batch)
            if then is not None:
                then()
            return
        runner.begin(batch, scratch)
        self._running.append((runner, then))
        self._count += 1

    def drain(self) -> None:
        """Wait for all that run."""
        while self._running:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        runner, then = self._running.popleft()
        runner.finish()
        if then is not None:
            then()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.drain()
            return
        while self._running:
            try:
                self._finish_oldest()
            except Exception as error:
                log.debug(f"while giving up: {error}")
