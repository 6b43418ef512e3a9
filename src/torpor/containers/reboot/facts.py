"""What is true of a job or container now, whatever the ledger says: its own record's word, or Podman's."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torpor.base.errors import EngineError, JobError
from torpor.containers.commands import command_of, run
from torpor.containers.model import LIST_TIMEOUT_VARIABLE, RUNNING
from torpor.containers.reboot.ledger import Entry
from torpor.engine import jobs

ASLEEP, RUNS, ANEW, ENDED, ABSENT, UNKNOWN = "asleep", "runs", "anew", "ended", "absent", "unknown"
#: How long Podman may take to answer: a machine that goes down, or comes up, has much to do.
ASK_TIMEOUT_S = 120.0
#: Files of a checkpoint that Podman keeps beside its images, and removes after a restore.
_BESIDE = ("devshm-checkpoint.tar", "network.status", "config.dump", "spec.dump")
_CLOCK_S = 2.0


@dataclass(frozen=True, slots=True)
class Fact:
    """``state`` is one of this module's; ANEW: it runs, but not from its checkpoint; UNKNOWN, and ``why``.

    ``checkpoint`` is the number of a job's, ``id`` a container's.
    """

    state: str
    checkpoint: int = 0
    id: str = ""
    why: str = ""


def be_patient() -> None:
    """Have what is called from here on wait so long for engines, too."""
    os.environ.setdefault(LIST_TIMEOUT_VARIABLE, f"{ASK_TIMEOUT_S:g}")


def of(entry: Entry) -> Fact:
    """What is true of it."""
    if entry.kind == "job":
        return _of_job(entry)
    try:
        return _of_container(entry)
    except (EngineError, ValueError, LookupError, TypeError, AttributeError) as error:
        return Fact(UNKNOWN, id=entry.id, why=f"podman does not say what it does: {error}")


def _of_job(entry: Entry) -> Fact:
    try:
        job = jobs.find(entry.name)
    except JobError:
        return Fact(ABSENT)
    if job.status == jobs.RUNNING:
        return Fact(RUNS)
    return Fact(ASLEEP, job.sleeps_in) if job.status == jobs.CHECKPOINTED else Fact(ENDED)


def _of_container(entry: Entry) -> Fact:
    told = inspect(entry.id or entry.name)
    if told is None:
        return Fact(ABSENT)
    state, ident = told.get("State") or {}, str(told.get("Id", ""))
    if str(state.get("Status")) in RUNNING:
        return Fact(RUNS if state.get("Restored") or not entry.began else ANEW, id=ident)
    images = Path(str(told.get("StaticDir", "")), "checkpoint", "inventory.img")
    with suppress(OSError):
        # What is left of an earlier checkpoint is not this one.
        if images.stat().st_mtime >= entry.began - _CLOCK_S:
            return Fact(ASLEEP, id=ident)
    return Fact(ENDED, id=ident)


def inspect(word: str) -> dict[str, Any] | None:
    """``podman container inspect`` of one; None if there is none."""
    if not command_of("podman"):
        return None
    try:
        found = json.loads(run("podman", "container", "inspect", word, timeout_s=ASK_TIMEOUT_S))
    except EngineError as error:
        if "no such" in str(error).lower():
            return None
        raise
    return found[0] if found else None


def forget_checkpoint(entry: Entry) -> None:
    """Remove what Podman keeps of a checkpoint whose container runs again."""
    told = inspect(entry.id or entry.name)
    place = Path(str((told or {}).get("StaticDir") or "/nowhere"))
    with suppress(FileNotFoundError):
        aside = place / "checkpoint.restored"
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(place / "checkpoint", aside)
        shutil.rmtree(aside, ignore_errors=True)
    for name in _BESIDE:
        with suppress(OSError):
            (place / name).unlink()
