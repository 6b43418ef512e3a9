"""Waking a job: what is written down when, so that its record is true at every instant.

Its processes are built first.  Before they are let go the record says which one is the job's, and what the job is if
that never runs; a watcher that is there already sees to it if we die.  Signals are held back from then on until the
record says that the job runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress

from torpor.base import log
from torpor.base.errors import JobError
from torpor.engine.jobs import locks, registry
from torpor.engine.jobs.note import Note
from torpor.engine.jobs.registry import Job
from torpor.engine.jobs.watch import RestoreWatch
from torpor.engine.options import Notify
from torpor.images.stores.opening import Location
from torpor.kernel import interrupts

#: Restores a set, with other paths in place of some, and tells at each stage; the pid of the root.
Restore = Callable[[Location, tuple[tuple[str, str], ...], Notify], int]


def wake(images: Location, about: Note, restore: Restore, *, name: str | None = None) -> Job:
    """Restore the job that *about* tells of, or a copy of it called *name*, from *images*; the job as it runs.

    JobError while it runs, or somebody else is at work on it.  After an error nothing of it runs, and all is as before.
    """
    called = name or about.name
    with locks.held(called, "restored"):
        before = _known(called)
        if before is not None and before.status == registry.RUNNING:
            raise JobError(f"{called} runs already", hint="--name makes a copy beside it")
        is_new = before is None or name not in (None, about.name)
        if is_new:
            job = registry.create(called, about.command)
        elif before is not None and before.command != about.command:
            raise JobError(f"another job is called {called}", hint="--name calls this one otherwise")
        else:
            assert before is not None
            job = before
        with suppress(FileExistsError):
            job.log.touch(mode=0o600, exist_ok=False)
        return _Waking(job, before, is_new).run(images, about, restore)


def _known(name: str) -> Job | None:
    """The job as its record has it; None where there is none, or only checkpoints of it are left."""
    with suppress(JobError):
        job = registry.find(name)
        return job if job.directory.exists() else None
    return None


class _Waking:
    """One in progress."""

    def __init__(self, job: Job, before: Job | None, is_new: bool) -> None:
        self._job, self._before, self._is_new = job, before, is_new
        self._noted: Job | None = None

    def run(self, place: Location, about: Note, restore: Restore) -> Job:
        renames = ((about.log, str(self._job.log)),) if about.log != str(self._job.log) else ()
        with ExitStack() as stack:
            try:
                watch = stack.enter_context(RestoreWatch(self._job.name))
                restore(place, renames, lambda action, pid: self._notify(stack, watch, action, pid))
            except BaseException as error:
                if self._noted is None or not registry.is_alive(self._noted):
                    self._undo()
                    raise
                log.warn(f"{self._job.name} runs, but: {error}")
            assert self._noted is not None
            watch.runs()
            try:
                return registry.settle(self._noted)
            except OSError as error:
                # The record says which process it is; whoever looks next finds that nobody is at work on it any more.
                log.warn(f"{self._job.name} runs; writing that down: {error}")
                return self._noted

    def _notify(self, stack: ExitStack, watch: RestoreWatch, action: str, pid: int) -> None:
        """All is there and nothing runs yet: the last stage at which an error stops it."""
        if action != "post-restore":
            return
        stack.enter_context(interrupts.held())
        otherwise = registry.NEVER if self._is_new or self._before is None else self._before.status
        self._noted = registry.running(self._job, pid, otherwise)
        watch.tell(self._noted)

    def _undo(self) -> None:
        if self._is_new:
            registry.discard(self._job)
        elif self._noted is not None and self._before is not None:
            registry.save(self._before)
