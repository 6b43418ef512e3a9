"""Jobs: commands that run in pid, mount, uts and ipc namespaces of their own, under a name.

The embedded default where there is no container engine: ``start`` makes one, ``find`` and ``list_jobs`` know them,
``checkpoint`` puts one to sleep and ``wake`` wakes it; ``generations`` knows its checkpoints, which outlive it.
"""

from __future__ import annotations

from torpor.engine.jobs import generations, locks, note
from torpor.engine.jobs.control import follow_log, hears, kill, wait_ended
from torpor.engine.jobs.places import state_directory
from torpor.engine.jobs.registry import (
    CHECKPOINTED,
    ENDED,
    RUNNING,
    Job,
    find,
    find_by_pid,
    list_jobs,
    lost,
    remove,
)
from torpor.engine.jobs.sleeping import Commit, Made, checkpoint
from torpor.engine.jobs.start import start
from torpor.engine.jobs.waking import wake

__all__ = [
    "CHECKPOINTED",
    "ENDED",
    "RUNNING",
    "Commit",
    "Job",
    "Made",
    "checkpoint",
    "find",
    "find_by_pid",
    "follow_log",
    "generations",
    "hears",
    "kill",
    "list_jobs",
    "locks",
    "lost",
    "note",
    "remove",
    "start",
    "state_directory",
    "wait_ended",
    "wake",
]
