"""At shutdown: everything marked is put to sleep, one after the other, as long as there is time.

By the commands that a user would type, each in a process of its own that is ended when its time is over: what it was at
runs on then, and goes down with the machine.  What became of each is asked of the job's record or of Podman, and is on
the disk before the next one is begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from torpor.base.errors import JobError, TorporError
from torpor.containers.commands import TookTooLongError
from torpor.containers.reboot import facts, ledger, planning, stored
from torpor.containers.reboot.ledger import LEFT, PENDING, SAVED, SAVING, WAITING, Entry, Ledger
from torpor.containers.reboot.marks import CHECKPOINT_OPTIONS
from torpor.engine.jobs import generations

_IN_THE_WAY = ": in the way: "
#: Runs a torpor command line for so long at most; what it prints.  EngineError where it fails.
Run = Callable[[Sequence[str], float | None], str]
#: Is told each entry whose state has changed.
Tell = Callable[[Entry], None]


def save(run: Run, tell: Tell, limit_s: float) -> Ledger:
    """Checkpoint what is marked and runs; what sleeps since an earlier shutdown is still to be restored.

    TorporError while somebody else is at it.
    """
    deadline = time.monotonic() + limit_s
    facts.be_patient()
    with stored.held("ledger"):
        before = ledger.load()
        planned = planning.plan()
        made = ledger.new(_with_older(planned, before))
        for entry in made.entries:
            now = _save(run, made, entry, deadline - time.monotonic()) if entry.state == WAITING else entry
            if now.state == SAVED and now != entry:
                _forget_older(before, now)
            tell(now)
    return made


def _with_older(planned: list[Entry], before: Ledger) -> list[Entry]:
    """With what sleeps since then: it has not been restored, and is now not what would be saved."""
    here = {entry.target for entry in planned if entry.state == WAITING}
    known = PENDING | {SAVING}
    older = [entry for entry in before.entries if entry.state in known and entry.target not in here]
    older = [_still(entry) for entry in older if facts.of(entry).state in (facts.ASLEEP, facts.UNKNOWN)]
    targets = {entry.target for entry in older}
    return [*(entry for entry in planned if entry.target not in targets), *older]


def _still(entry: Entry) -> Entry:
    """Who died while it was being saved has not written down that it was."""
    fact = facts.of(entry)
    is_saved = entry.state == SAVING and fact.state == facts.ASLEEP
    return replace(entry, state=SAVED, checkpoint=fact.checkpoint) if is_saved else entry


def _save(run: Run, made: Ledger, entry: Entry, left_s: float) -> Entry:
    if left_s <= 0:
        return made.update(
            entry, LEFT, why="no time was left for it", hint="torpor setup --survive-reboot --timeout SEC"
        )
    entry = made.update(entry, SAVING, began=time.time())
    limit_s = min(left_s, entry.timeout_s or left_s)
    words = ["checkpoint", spelling(entry), "--yes"]
    words += [f"--{option}" for option in entry.options if option in CHECKPOINT_OPTIONS]
    why, hint = "it did not go to sleep", ""
    try:
        run(words, limit_s)
    except TookTooLongError:
        why, hint = f"it took longer than {limit_s:g} s", f"torpor survive {entry.name} --timeout SEC"
    except TorporError as error:
        why, hint = str(error), error.hint or f"torpor check {entry.name}"
    return settle(made, entry, why, hint)


def settle(made: Ledger, entry: Entry, why: str, hint: str) -> Entry:
    """What has become of one that was being saved: SAVED, or LEFT for this reason; SAVING where nobody knows yet."""
    seconds = max(0.0, time.time() - entry.began)
    fact = facts.of(entry)
    if fact.state == facts.ASLEEP:
        return made.update(entry, SAVED, checkpoint=fact.checkpoint, seconds=seconds)
    if fact.state == facts.UNKNOWN:
        return made.update(entry, SAVING, why=fact.why, seconds=seconds)
    return made.update(entry, LEFT, why=why, hint=hint, seconds=seconds)


def spelling(entry: Entry) -> str:
    """What means this and nothing else."""
    return f"podman:{entry.id}" if entry.id else entry.target


def _forget_older(before: Ledger, entry: Entry) -> None:
    """The job's checkpoint of the last shutdown, which it has outlived; one with a tag stays."""
    older = next((each for each in before.entries if each.target == entry.target), None)
    if older is not None and entry.kind == "job" and older.checkpoint not in (0, entry.checkpoint):
        with suppress(JobError, OSError):
            generation = generations.find(entry.name, str(older.checkpoint))
            if not generation.tags and generation.is_ours:
                generations.remove(generation)


def look(run: Run) -> list[Entry]:
    """What ``save`` would do, without doing anything: entries that would fail are LEFT, with what is in the way."""
    return [_look(run, entry) if entry.state == WAITING else entry for entry in planning.plan()]


def _look(run: Run, entry: Entry) -> Entry:
    words = ["check", spelling(entry)]
    words += [f"--{option}" for option in entry.options if option in CHECKPOINT_OPTIONS]
    try:
        run(words, None)
    except TorporError as error:
        # The message says what was looked at and what would be lost as well: only what is in the way is wanted.
        said = [part for part in str(error).split("; ") if _IN_THE_WAY in part]
        why = "; ".join(part.partition(_IN_THE_WAY)[2] for part in said) or str(error)
        return replace(entry, state=LEFT, why=why, hint=error.hint or "")
    return entry
