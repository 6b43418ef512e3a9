"""Restore: one conductor, many puppets.  What comes when, and why, is in :mod:`torpor.engine.phases`."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from torpor.base import log
from torpor.base.errors import RestoreError, TorporError
from torpor.engine.options import RestoreOptions
from torpor.engine.phases import RESTORE
from torpor.engine.session import RestoreSession
from torpor.images.dirstore import DirStore
from torpor.images.errors import ImageError, StoreError


def restore(directory: str | os.PathLike[str], options: RestoreOptions | None = None) -> int:
    """Rebuild the tree in *directory*; the root's pid as we see it.  It runs when this returns.

    ImageError: the images are damaged.  RestoreError: this machine cannot.  Nothing is left of a restore that failed.
    """
    options = options or RestoreOptions()
    with DirStore(directory, "r") as store:
        session = RestoreSession(store, options)
        pid = run(session)
    try:
        with DirStore(options.stats_directory or directory, "w") as store:
            session.stats.write(store)
    except StoreError as error:
        # The tree runs by now; figures that cannot be written (read-only images) harm nobody.
        log.warn(error.describe())
    return pid


def run(session: RestoreSession) -> int:
    """Go through all phases; the root's pid as we see it."""
    try:
        for phase in RESTORE:
            log.debug(f"restore: {phase.name}")
            with _explained(phase.name), session.stats.watch.span(phase.span):
                phase.run(session)
    except BaseException:
        session.fail()
        raise
    finally:
        session.close()
    session.options.notify("post-resume", session.root.pid)
    log.info(f"Restored {len(session.everyone)} processes, {session.stats.pages_restored} pages")
    return session.root.pid


@contextmanager
def _explained(phase: str) -> Iterator[None]:
    """Make an error of ours out of whatever a phase raises, with the phase's name.

    Images are untrusted: a number that no check of its own foresaw ends in some call that refuses it.  The traceback is
    in the log at the debug level.
    """
    try:
        yield
    except TorporError as error:
        error.add_note(f"while restoring: {phase}")
        raise
    except OSError as error:
        _log_traceback()
        raise RestoreError(f"{error}; while restoring: {phase}") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError, struct.error) as error:
        _log_traceback()
        raise ImageError(
            f"the images contradict themselves ({type(error).__name__}: {error}); while restoring: {phase}",
            hint="they are damaged, or were not made by a dump",
        ) from error


def _log_traceback() -> None:
    if log.level() >= log.DEBUG:
        import traceback

        log.debug(traceback.format_exc())
