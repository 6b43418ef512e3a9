"""Dump: stop, ask, read, let go.  What comes when, and why, is in :mod:`torpor.engine.dump.phases`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

from torpor.base import log
from torpor.base.errors import TorporError, UsageError
from torpor.base.explain import explained
from torpor.base.ids import Pid
from torpor.base.records import replace
from torpor.engine.dump import deaths
from torpor.engine.dump.phases import AFTER, BEFORE, DUMP, FROZEN, LAST, PRE_DUMP, DumpPhase
from torpor.engine.dump.session import DumpSession, begin
from torpor.engine.options import DumpOptions, nobody
from torpor.engine.sets.places import place_inside, place_whole
from torpor.engine.sets.streaming import StoreSet
from torpor.engine.sets.writing import NewSet
from torpor.engine.stats import DumpStats
from torpor.images.stores.opening import Location, open_store
from torpor.kernel import interrupts
from torpor.objects.undo import do_all


@explained
def dump(pid: int, place: Location, options: DumpOptions | None = None) -> DumpStats:
    """Checkpoint *pid* and everything below it into *place*: a directory, which must exist unless it is ours, or a
    store that somebody has opened, whose it stays.

    TargetGoneError, NotPermittedError, RefusedError, StoreError; the tree runs on after any of them, and what images
    there were in a directory are there still.
    """
    return _dump(pid, place, options or DumpOptions(), DUMP)


@explained
def pre_dump(pid: int, place: Location, options: DumpOptions | None = None) -> DumpStats:
    """Copy the memory of *pid* and everything below it into *place*; the tree runs on.

    As ``dump``.  What is there can be the parent of a dump that follows, and cannot be restored by itself.  The tree is
    stopped only to look through its page tables: memory is copied when it runs again, and what it writes from then on
    is noted (``options.tracker``, or a process that keeps that until it ends).
    """
    options = replace(options or DumpOptions(), leave_running=True, leave_stopped=False, track=True, notify=nobody)
    return _dump(pid, place, options, PRE_DUMP)


def _dump(pid: int, place: Location, options: DumpOptions, table: Sequence[DumpPhase]) -> DumpStats:
    with interrupts.as_python_has_them(), _new_set(place, options) as new, ExitStack() as hold:
        session = begin(Pid(pid), new, options, hold, is_pre_dump=table is PRE_DUMP)
        run(session, table)
        try:
            if not options.unsettled:
                new.finish()
        except TorporError as error:
            if not new.is_last:
                raise
            # The tree is gone and the set is whole: whoever comes next does the rest.
            log.warn(f"the images are complete, but perhaps not on the disk yet: {error}")
        if options.dedup and options.parent:
            _dedup(new.directory)
        stats_place = options.stats_directory or place
        if isinstance(stats_place, str | os.PathLike):
            try:
                with open_store(stats_place, "w") as store:
                    session.stats.write(store)
            except TorporError as error:
                log.warn(f"the images are complete, but their statistics cannot be written: {error}")
    return session.stats


def _dedup(directory: str) -> None:
    from torpor.engine.sets.dedup import dedup

    try:
        log.info(f"{dedup(directory)} bytes of the images before are free")
    except (TorporError, OSError) as error:
        log.warn(f"the images are complete, but pages could not be taken out of those before: {error}")


@contextmanager
def _frozen(session: DumpSession) -> Iterator[None]:
    """While the tree is stopped: it goes on at the end, if it has not ended, and what was changed is undone before."""
    frozen = session.stats.watch.span("frozen")
    with session.tree, deaths.told(session.processes), session.context, session.visit, frozen:
        yield


_STAGES: dict[int, Callable[[DumpSession], AbstractContextManager[None]]] = {
    BEFORE: lambda session: nullcontext(),
    FROZEN: _frozen,
    AFTER: lambda session: nullcontext(),
}


def run(session: DumpSession, table: Sequence[DumpPhase]) -> None:
    """Go through all phases of *table*, stage by stage.  Signals are heard between them, and in those that break."""
    failed: BaseException | None = None
    with interrupts.put_off():
        try:
            for stage, lasting in _STAGES.items():
                with lasting(session):
                    for step in _steps(session, table, stage):
                        interrupts.look()
                        step()
        except BaseException as error:
            failed = error
            raise
        finally:
            try:
                do_all(_steps(session, table, LAST), failed)
            except (TorporError, OSError) as error:
                if not session.new.is_last:
                    raise
                # The tree is gone and the set is whole: a failure told now would be taken for one of the dump.
                log.warn(f"the checkpoint is complete, but afterwards: {error}")


def _steps(session: DumpSession, table: Sequence[DumpPhase], stage: int) -> Iterator[Callable[[], None]]:
    for phase in table:
        if phase.stage == stage:
            log.debug(f"dump: {phase.name}")
            breaks = stage in (BEFORE, AFTER) if phase.breaks is None else phase.breaks
            yield partial(_breakable, phase, session) if breaks else partial(phase.run, session)


def _breakable(phase: DumpPhase, session: DumpSession) -> None:
    with interrupts.allowed():
        phase.run(session)


def _new_set(place: Location, options: DumpOptions) -> NewSet | StoreSet:
    if not isinstance(place, str | os.PathLike):
        if options.parent:
            raise UsageError("images that lean on others by a path need a directory")
        return StoreSet(place, options.made_by, compress=options.compress)
    where = place_whole(place, force=options.force) if options.owns_directory else place_inside(place)
    return NewSet(where, options.made_by, compress=options.compress, parent=options.parent)
