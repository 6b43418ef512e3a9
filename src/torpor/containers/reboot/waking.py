"""At boot: what sleeps is restored, each once, what others need before them.

A call that is killed is gone on with by the next one; one more does nothing.  No checkpoint is removed before what it
holds is seen to run.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace

from torpor.base.errors import EngineError, TorporError
from torpor.containers.commands import TookTooLongError, command_of
from torpor.containers.commands import run as run_engine
from torpor.containers.reboot import facts, ledger, sharing, stored
from torpor.containers.reboot.ledger import FAILED, GONE, LEFT, RESTORED, RESTORING, SAVING, WAITING, Entry, Ledger
from torpor.containers.reboot.marks import RESTORE_OPTIONS
from torpor.containers.reboot.saving import Run, Tell, settle, spelling
from torpor.containers.systemd import scope_of

#: What systemd says to a service, and what Podman would take for its own: conmon would stay in our control group.
_OF_SERVICES = ("INVOCATION_ID", "NOTIFY_SOCKET", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID", "SYSTEMD_EXEC_PID")
_NOT_ITS_TURN = "the machine went down before its turn came"
_NOT_WHOLE = "the machine went down before its checkpoint was whole"
_MORE_TIME = "torpor setup --survive-reboot --timeout SEC"


def wake(run: Run, tell: Tell, limit_s: float | None = None) -> Ledger:
    """Restore what sleeps since the last shutdown; what cannot be is said, and sleeps on.

    TorporError while somebody else is at it.
    """
    deadline = time.monotonic() + limit_s if limit_s is not None else None
    facts.be_patient()
    for name in _OF_SERVICES:
        os.environ.pop(name, None)
    with stored.held("ledger"):
        made = ledger.load()
        was_missing = {entry.target for entry in made.missing}
        for entry in list(made.entries):
            if entry.state == WAITING:
                tell(made.update(entry, LEFT, why=_NOT_ITS_TURN, hint=_MORE_TIME))
            elif entry.state == SAVING:
                now = settle(made, entry, _NOT_WHOLE, _MORE_TIME)
                if now.state == SAVING:
                    # It is asked again below.
                    made.update(now, FAILED, why=now.why)
        for entry in made.pending:
            left_s = max(1.0, deadline - time.monotonic()) if deadline is not None else None
            tell(_wake(run, made, entry, left_s))
        if made.entries and (not made.restored_at or was_missing != {entry.target for entry in made.missing}):
            made.restored_at, made.restored_under = time.time(), ledger.kernel_release()
            made.is_seen = not made.missing
            made.write()
    return made


def _wake(run: Run, made: Ledger, entry: Entry, left_s: float | None) -> Entry:
    fact = facts.of(entry)
    if fact.state != facts.ASLEEP:
        return _is_not_asleep(made, entry, fact)
    entry = made.update(entry, RESTORING, checkpoint=fact.checkpoint, id=fact.id)
    began, why, hint = time.time(), "it does not run", ""
    try:
        _start_others(entry)
        run(_words(entry), left_s)
    except TookTooLongError:
        why, hint = f"its restore took longer than {left_s:.0f} s", "torpor survive --restore"
    except TorporError as error:
        why, hint = str(error), error.hint or ""
    fact = facts.of(entry)
    if fact.state != facts.ASLEEP:
        return _is_not_asleep(made, replace(entry, seconds=time.time() - began), fact)
    again = f"{hint}; then torpor survive --restore" if hint else "torpor survive --restore tries again"
    return made.update(entry, FAILED, why=why, hint=again, seconds=time.time() - began)


def _is_not_asleep(made: Ledger, entry: Entry, fact: facts.Fact) -> Entry:
    """It runs, as it should, or something else has become of it."""
    if fact.state == facts.UNKNOWN:
        return made.update(entry, FAILED, why=fact.why, hint="torpor survive --restore, when podman answers")
    if fact.state == facts.RUNS:
        entry = made.update(entry, RESTORED)
        if entry.kind == "podman":
            with suppress(OSError, EngineError):
                facts.forget_checkpoint(entry)
        return entry
    if fact.state == facts.ANEW:
        why, hint = "somebody has started it anew before it could be restored", "torpor-restore.service comes first"
    elif fact.state == facts.ENDED:
        why, hint = "it has ended since, or its checkpoint is gone", f"torpor checkpoints {entry.name}"
    else:
        why, hint = "there is no such job or container any more", f"torpor survive --remove {entry.name}"
    return made.update(entry, GONE, why=why, hint=hint)


def _words(entry: Entry) -> list[str]:
    options = [f"--{option}" for option in entry.options if option in RESTORE_OPTIONS]
    if entry.kind == "job":
        return ["restore", f"job:{entry.name}@{entry.checkpoint}", *options]
    return ["restore", spelling(entry), "--keep", *options]


def _start_others(entry: Entry) -> None:
    """What it needs and nobody has marked: the first container of its pod, those of --requires."""
    for ident in entry.starts:
        if command_of("podman"):
            run_engine("podman", "start", ident, to_its_end=True)
    if entry.shares:
        sharing.find_again(entry.id, entry.shares)


def scope_words(words: list[str]) -> list[str]:
    """What to begin a command line with, so that a job that it restores is in a scope of systemd's of its own.

    Where systemd is: a service's processes end with it, and so would a job in that of ours.
    """
    if words[:1] == ["restore"] and words[1].startswith("job:"):
        return scope_of(words[1].removeprefix("job:").partition("@")[0])
    return []
