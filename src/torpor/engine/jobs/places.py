"""Where the files of jobs lie.

    STATE/jobs/NAME/            a job's record and log, as long as it is remembered
    STATE/checkpoints/NAME/     its checkpoints, until they are removed themselves
    STATE/locks/NAME            who is at work on it just now

STATE is ``$TORPOR_STATE``; else ``/var/lib/torpor`` for root, and for anybody else ``torpor`` below
``$XDG_STATE_HOME``, by default ``~/.local/state``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from torpor.base.errors import JobError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def state_directory() -> Path:
    """STATE, the directory of all that is kept of jobs, as an absolute path; it need not be there."""
    if given := os.environ.get("TORPOR_STATE"):
        # Whoever we start for a job works in another directory.
        os.environ["TORPOR_STATE"] = os.path.abspath(given)
        return Path(os.environ["TORPOR_STATE"])
    if os.geteuid() == 0:
        return Path("/var/lib/torpor")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state").absolute() / "torpor"


def job_directory(name: str) -> Path:
    """Where the record and the log of the job *name* lie; it need not be there."""
    return state_directory() / "jobs" / name


def checkpoints_directory(name: str) -> Path:
    """Where the checkpoints of the job *name* lie; it need not be there."""
    return state_directory() / "checkpoints" / name


def check_name(name: str) -> str:
    """*name*, if it may name a job; JobError otherwise."""
    if not _NAME.fullmatch(name):
        raise JobError(f"{name!r} cannot name a job", hint="letters, digits, and . _ - after the first")
    return name


def names_in(kind: str) -> list[str]:
    """The names below STATE/*kind* that can be names of jobs; none where that is not ours to read."""
    try:
        found = os.listdir(state_directory() / kind)
    except (FileNotFoundError, PermissionError):
        return []
    return sorted(name for name in found if _NAME.fullmatch(name))
