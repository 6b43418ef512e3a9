"""Putting a job to sleep: what is written down when, so that its record is true at every instant.

The images are made whole first, then get their number; then the record says that the job sleeps in them as soon as its
process is gone; then it is killed; then the record says that it is.  Signals are held back from the record on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from torpor.base import log
from torpor.base.errors import JobError
from torpor.base.typed import TYPE_CHECKING
from torpor.engine.destination import going_to
from torpor.engine.jobs import generations, locks, note, registry
from torpor.engine.jobs.generations import New
from torpor.engine.jobs.registry import Job
from torpor.images.stores.opening import Location, is_stream
from torpor.kernel import interrupts

if TYPE_CHECKING:
    from torpor.engine.stats import DumpStats


@dataclass(frozen=True, slots=True)
class Commit:
    """What a dump calls when all is whole and nothing is killed yet, with a path to read it by.

    ``foresee``: does beforehand what of it takes its time; nothing counts before the commit.  It need not be called.
    """

    run: Callable[[str], None]
    foresee: Callable[[], None] = lambda: None

    def __call__(self, images: str) -> None:
        self.run(images)


#: Dumps into a directory or a store, with small files beside the images, and commits.
Dump = Callable[[Location, tuple[tuple[str, bytes], ...], Commit], "DumpStats"]


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it: its number and place, and what the dump tells (None if it failed at its very end)."""

    number: int
    place: Path
    stats: DumpStats | None


def checkpoint(
    job: Job,
    dump: Dump,
    *,
    output: Path | None = None,
    leave_running: bool = False,
    by: str = "",
    has_moved: Callable[[], bool] | None = None,
) -> Made:
    """Make the next checkpoint of *job* with *dump*; its images are kept by us, or go to *output*.

    *by* says what made it.  *has_moved* is asked when the job's process is gone: one that has come to run on another
    host is forgotten here, and so is the checkpoint.  JobError while somebody else is at work on the job; after any
    error it runs on as before.
    """
    with locks.held(job.name, "checkpointed"):
        job = registry.find(job.name)
        if job.status != registry.RUNNING:
            raise JobError(f"{job.name} does not run", hint="`torpor ps -a` shows what it does")
        return _Checkpoint(job, leave_running, by, has_moved).make(dump, output)


class _Checkpoint:
    """One in progress."""

    def __init__(self, job: Job, leave_running: bool, by: str, has_moved: Callable[[], bool] | None) -> None:
        self._job, self._leave_running, self._has_moved = job, leave_running, has_moved
        self._about = note.make(job.name, job.command, job.created, job.log, by)
        self._is_whole = False
        #: The record of the job that is on the disk already.
        self._foreseen: Job | None = None

    def make(self, dump: Dump, output: Path | None) -> Made:
        job, new = self._job, generations.begin(self._job.name)
        place = new.images if output is None else output if is_stream(output) else output.absolute()
        stats: DumpStats | None = None
        with ExitStack() as stack:
            try:
                room, finish = stack.enter_context(going_to(place, job.pid, leave_running=self._leave_running))
                notes = ((note.NAME, note.encode(self._about)),)
                commit = Commit(
                    lambda images: self._commit(stack, new, lambda: finish(images), output), lambda: self._foresee(new)
                )
                stats = dump(room, notes, commit)
            except BaseException as error:
                if self._leave_running or not self._is_whole or registry.is_alive(job):
                    self._undo(new)
                    raise
                log.warn(f"{job.name} sleeps in {job.name}@{new.number}, but: {error}")
            if self._has_moved is not None and self._has_moved():
                registry.discard(job)
                new.discard()
                return Made(new.number, place, stats)
            try:
                new.secure()
            except OSError as error:
                log.warn(f"{job.name}@{new.number} is whole, but perhaps not on the disk yet: {error}")
            if not self._leave_running:
                try:
                    registry.sleeping(job, new.number)
                except OSError as error:
                    # The record says that already, now that the process is gone.
                    log.warn(f"{job.name} sleeps in {job.name}@{new.number}; writing that down: {error}")
        return Made(new.number, place, stats)

    def _foresee(self, new: New) -> None:
        if not self._leave_running:
            self._foreseen = registry.foresee_sleep(self._job, new.number)

    def _commit(self, stack: ExitStack, new: New, finish: Callable[[], None], output: Path | None) -> None:
        finish()
        # From here on the record and what is true of the job change together.
        stack.enter_context(interrupts.held())
        new.commit(self._about, output)
        if not self._leave_running:
            registry.about_to_sleep(self._job, new.number, self._foreseen)
        self._is_whole = True

    def _undo(self, new: New) -> None:
        if not self._leave_running and self._is_whole:
            registry.settle(registry.find(self._job.name))
        if self._foreseen is not None:
            registry.foresee_nothing(self._job)
        new.discard()
