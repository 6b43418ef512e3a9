"""Jobs: commands that run in pid, mount, uts and ipc namespaces of their own, under a name.

The embedded default where there is no container engine: ``start`` makes one, ``find`` and ``list_jobs`` know them,
``checkpointed`` and ``restored`` take note of what a dump or a restore made of one.
"""

from __future__ import annotations

from torpor.engine.jobs.control import follow_log, kill, wait_ended
from torpor.engine.jobs.registry import (
    CHECKPOINTED,
    ENDED,
    RUNNING,
    Job,
    checkpointed,
    discard,
    find,
    find_by_pid,
    list_jobs,
    prepare_copy,
    remove,
    renames,
    restored,
    state_directory,
)
from torpor.engine.jobs.start import start

__all__ = [
    "CHECKPOINTED",
    "ENDED",
    "RUNNING",
    "Job",
    "checkpointed",
    "discard",
    "find",
    "find_by_pid",
    "follow_log",
    "kill",
    "list_jobs",
    "prepare_copy",
    "remove",
    "renames",
    "restored",
    "start",
    "state_directory",
    "wait_ended",
]
