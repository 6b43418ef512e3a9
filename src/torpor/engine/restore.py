"""Restore: one conductor, many puppets.  What comes when, and why, is in :mod:`torpor.engine.phases`."""

from __future__ import annotations

import os
from pathlib import Path

from torpor.base import log
from torpor.engine.options import RestoreOptions
from torpor.engine.phases import RESTORE
from torpor.engine.session import RestoreSession
from torpor.images.dirstore import DirStore


def restore(directory: str | os.PathLike[str], options: RestoreOptions | None = None) -> int:
    """Rebuild the tree in *directory*; the root's pid as we see it.  It runs when this returns.

    ImageError: the images are damaged.  RestoreError: this machine cannot.  Nothing is left of a restore that failed.
    """
    with DirStore(Path(directory), "r") as store:
        return run(RestoreSession(store, options or RestoreOptions()))


def run(session: RestoreSession) -> int:
    """Go through all phases; the root's pid as we see it."""
    try:
        for phase in RESTORE:
            log.debug(f"restore: {phase.name}")
            try:
                with session.stats.watch.span(phase.span):
                    phase.run(session)
            except Exception as error:
                error.add_note(f"while restoring: {phase.name}")
                raise
    except BaseException:
        session.fail()
        raise
    finally:
        session.close()
    log.info(f"Restored {len(session.everyone)} processes, {session.stats.pages_restored} pages")
    return session.root.pid
