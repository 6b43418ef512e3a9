"""Restore: one conductor, many puppets.  What comes when, and why, is in :mod:`torpor.engine.restore.phases`."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torpor.base import log
from torpor.base.errors import RestoreError, TargetGoneError, TorporError
from torpor.base.explain import explain, explained
from torpor.engine.options import RestoreOptions
from torpor.engine.restore.phases import LAST, RESTORE, Phase
from torpor.engine.restore.session import RestoreSession
from torpor.engine.sets.reading import open_set
from torpor.images.errors import ImageError
from torpor.images.store import ImageStore
from torpor.images.stores.opening import Location, open_store
from torpor.kernel import interrupts
from torpor.objects.undo import do_all


@explained
def restore(place: Location, options: RestoreOptions | None = None) -> int:
    """Rebuild the tree in *place*; the root's pid as we see it.  It runs when this returns.

    *place* is a directory, an archive, a stream, or a store that somebody has opened, whose it stays.

    ImageError: the images are damaged.  RestoreError: this machine cannot.  Nothing is left of a restore that failed.
    """
    options = options or RestoreOptions()
    where = os.path.abspath(place) if isinstance(place, str | os.PathLike) else place.path
    with interrupts.as_python_has_them(), _named(where), open_set(place, verify=options.verify) as store:
        session = RestoreSession(store, options)
        pid = run(session)
    stats_directory = options.stats_directory or (where if os.path.isdir(where) else "")
    if not stats_directory:
        return pid
    try:
        with open_store(stats_directory, "w") as store:
            session.stats.write(store)
    except ImageError as error:
        # The tree runs by now; figures that cannot be written (read-only images) harm nobody.
        log.warn(error.describe())
    return pid


def run(session: RestoreSession) -> int:
    """Go through all phases; the root's pid as we see it."""
    failed: BaseException | None = None
    with interrupts.put_off(), session.hold:
        try:
            for phase in RESTORE:
                log.debug(f"restore: {phase.name}")
                interrupts.look()
                with _explained(phase, session.store), session.stats.watch.span(phase.span):
                    if phase.breaks:
                        with interrupts.allowed():
                            phase.run(session)
                    else:
                        phase.run(session)
        except BaseException as error:
            failed = error
            session.fail(error)
            raise
        finally:
            do_all([partial(phase.run, session) for phase in LAST], failed)
    try:
        session.options.notify("post-resume", session.root.pid)
    except TorporError as error:
        # The tree runs: as with CRIU, a no is logged and no more.
        log.warn(error.describe())
    log.info(f"Restored {len(session.everyone)} processes, {session.stats.pages_restored} pages")
    return session.root.pid


@contextmanager
def _named(place: str) -> Iterator[None]:
    """An error about an image says where it is."""
    try:
        yield
    except ImageError as error:
        if place not in error.describe():
            error.add_note(f"in {place}")
        raise


@contextmanager
def _explained(phase: Phase, store: ImageStore) -> Iterator[None]:
    """Make an error of ours out of what a phase raises, with the phase's name; a bug of ours stays one.

    Images are untrusted: a number that no check of its own foresaw ends in some call that refuses it.  So, in a phase
    that goes by the images, such an error is theirs, unless they are known to be as torpor has written them.  The
    traceback is in the log at the debug level.
    """
    try:
        yield
    except TorporError as error:
        error.add_note(f"while restoring: {phase.name}")
        raise
    except OSError as error:
        _log_traceback()
        known = explain(error)
        if isinstance(known, TargetGoneError):
            known = RestoreError("a process that was being made has been killed")
        made = RestoreError(str(known or error), hint=known.hint if known else None)
        made.add_note(f"while restoring: {phase.name}")
        raise made from error
    except (ValueError, TypeError, LookupError, ArithmeticError, struct.error) as error:
        _log_traceback()
        if not phase.by_images or _is_as_written(store):
            error.add_note(f"while restoring: {phase.name}")
            raise
        raise ImageError(
            f"the images contradict themselves ({type(error).__name__}: {error}); while restoring: {phase.name}",
            hint="they are damaged, or were not made by a dump",
        ) from error
    except (MemoryError, BufferError) as error:
        known = explain(error)
        if known is None:
            raise
        known.add_note(f"while restoring: {phase.name}")
        raise known from error


def _is_as_written(store: ImageStore) -> bool:
    """Whether all images but those of memory are, by the manifest, what a dump of ours wrote."""
    if store.manifest is None or not store.manifest.has_sums:
        return False
    try:
        return not any(store.fault_of(name) for name in store.manifest.files if not name.startswith("pages-"))
    except (TorporError, OSError):
        return False


def _log_traceback() -> None:
    if log.level() >= log.DEBUG:
        import traceback

        log.debug(traceback.format_exc())
