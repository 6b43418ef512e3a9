"""``torpor survive``: which jobs and containers outlive a reboot, and what became of them at the last one."""

from __future__ import annotations

import argparse
import os
import sys

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torpor.containers.reboot.ledger import Entry, Ledger

_LIMIT_S = 300.0
#: What systemd makes of a line's beginning in the journal (sd-daemon(3)).
_JOURNAL_ERROR = "<3>"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor survive``."""
    from torpor.containers.reboot import marks

    parser.description = (
        "Mark jobs and Podman's containers to outlive a reboot: they are checkpointed at shutdown and restored at "
        "boot, in the order of their dependencies, once torpor setup --survive-reboot has been said. Without a name: "
        "list what is marked and what became of it at the last reboot. What cannot be checkpointed is reported, and "
        f"shut down as ever. A container with the label {marks.LABEL}=true is marked as well."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a job or a container of podman's")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--remove", action="store_true", help="forget the marks; nothing else is changed")
    what.add_argument("--save", action="store_true", help="checkpoint everything marked now, as at shutdown")
    what.add_argument("--restore", action="store_true", help="restore what sleeps since then, as at boot")
    parser.add_argument(
        "--after", action="append", default=[], metavar="NAME",
        help="restore it after this one, and save it before; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, metavar="SEC",
        help="how long its checkpoint may take at most; with --save and --restore, all of them together",
    )  # fmt: skip
    for name in marks.OPTIONS:
        parser.add_argument(f"--{name}", action="store_true", help=f"checkpoint or restore it with --{name}")
    parser.add_argument("--dry-run", action="store_true", help="with --save: say what would be, and what is in the way")
    parser.add_argument("--at-shutdown", action="store_true", help="with --save: only if the machine is going down")
    parser.add_argument("--json", action="store_true", help="as JSON")


def main(args: argparse.Namespace) -> int:
    """Mark, forget, list, save or restore, as the options say; the exit code.  UsageError for a wrong mixture."""
    from torpor.base.errors import UsageError

    if args.timeout is not None and args.timeout <= 0:
        raise UsageError(f"--timeout {args.timeout:g}: no time at all")
    if (args.save or args.restore) and args.names:
        raise UsageError("--save and --restore are about everything that is marked", hint="torpor checkpoint NAME")
    if (args.dry_run or args.at_shutdown) and not args.save:
        raise UsageError("--dry-run and --at-shutdown are words for --save")
    if args.save:
        return _save(args)
    if args.restore:
        return _restore(args)
    if args.remove:
        return _remove(args)
    return _mark(args) if args.names else _list(args)


def _mark(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from torpor.base import log
    from torpor.cli.telling import tell
    from torpor.containers import names
    from torpor.containers.reboot import marks, units

    after = tuple(marks.spelled(names.resolve(name)) for name in args.after)
    options = tuple(name for name in marks.OPTIONS if getattr(args, name.replace("-", "_")))
    made = [marks.Mark(marks.spelled(names.resolve(name)), after, args.timeout or 0.0, options) for name in args.names]
    marks.add(made)
    if args.json:
        tell(json.dumps({"marked": [asdict(mark) for mark in made]}, indent=1))
    else:
        tell("\n".join(f"{mark.target}: marked" for mark in made))
    if not units.are_there():
        log.warn("nothing is saved at shutdown yet: torpor setup --survive-reboot, as root")
    return 0


def _remove(args: argparse.Namespace) -> int:
    import json

    from torpor.base.errors import TorporError, UsageError
    from torpor.cli.telling import tell
    from torpor.containers import names
    from torpor.containers.reboot import marks, planning

    if not args.names:
        raise UsageError("torpor survive --remove: whose mark?", hint="torpor survive lists them")
    targets = []
    for name in args.names:
        known = [mark.target for mark in marks.all_marks() if name in (mark.target, mark.name)]
        # What is marked may be gone.
        targets += known or [marks.spelled(names.resolve(name))]
    gone = marks.remove(targets)
    for target in targets:
        if target not in gone and planning.is_marked_by_label(target.partition(":")[2]):
            raise TorporError(f"{target} has the label {marks.LABEL}", hint="a label is a container's for its life")
    if args.json:
        tell(json.dumps({"removed": gone}))
    else:
        said = {True: "not marked any more", False: "was not marked"}
        tell("\n".join(f"{target}: {said[target in gone]}" for target in targets))
    return 0


def _save(args: argparse.Namespace) -> int:
    from torpor.cli import itself
    from torpor.cli.telling import tell
    from torpor.containers import systemd
    from torpor.containers.reboot import ledger, saving

    if args.at_shutdown and not systemd.is_going_down():
        tell("the machine is not going down: nothing is saved")
        return 0
    if args.dry_run:
        found = saving.look(itself.run)
        _show(args, found, "nothing is marked")
        return 1 if any(entry.state == ledger.LEFT for entry in found) else 0
    made = saving.save(itself.run, _teller(args), args.timeout or _LIMIT_S)
    if args.at_shutdown:
        from torpor.containers.reboot import ending

        ending.end_deaf(lambda line: None if args.json else tell(line))
    return _ended(args, made)


def _restore(args: argparse.Namespace) -> int:
    from torpor.cli import itself
    from torpor.containers.reboot import waking

    def run(words: Sequence[str], timeout_s: float | None) -> str:
        return itself.run(words, timeout_s, waking.scope_words(list(words)))

    made = waking.wake(run, _teller(args), args.timeout)
    return _ended(args, made)


def _ended(args: argparse.Namespace, made: Ledger) -> int:
    if args.json:
        from torpor.cli.telling import tell

        tell(_as_json(made.entries, made))
    return 1 if made.missing else 0


class _teller:
    """Prints each entry as it comes: nobody is left unsaved because that cannot be written."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._is_silent = args.json
        self._is_journal = "JOURNAL_STREAM" in os.environ

    def __call__(self, entry: Entry) -> None:
        from torpor.cli.telling import tell
        from torpor.containers.reboot.ledger import MISSING

        if self._is_silent:
            return
        is_bad = entry.state in MISSING
        sign = _JOURNAL_ERROR if is_bad and self._is_journal else ""
        tell(f"{sign}{line_of(entry)}", sys.stderr if is_bad else sys.stdout)


def line_of(entry: Entry) -> str:
    """What has become of it, in a line."""
    from torpor.cli.progress import time_of
    from torpor.containers.reboot import ledger

    took = f" (after {time_of(entry.seconds)})" if entry.seconds else ""
    said = {
        ledger.WAITING: "will be saved",
        ledger.SAVING: "is being saved",
        ledger.SAVED: f"sleeps{took}",
        ledger.LEFT: "NOT SAVED",
        ledger.IDLE: "does not run",
        ledger.RESTORING: "is being restored",
        ledger.RESTORED: f"runs again{took}",
        ledger.FAILED: "NOT RESTORED, sleeps on",
        ledger.GONE: "NOT RESTORED",
    }[entry.state]
    why = f": {entry.why}" if entry.why else ""
    hint = f" ({entry.hint})" if entry.hint else ""
    return f"{entry.target}: {said}{why}{hint}"


def _list(args: argparse.Namespace) -> int:
    """What is marked, and the last reboot; its user has seen it then."""
    from contextlib import suppress

    from torpor.cli.commands.ps import ago, print_table
    from torpor.containers.reboot import ledger, planning, units

    last = ledger.load()
    planned = planning.plan()
    if args.json:
        print(_as_json(planned, last))
        return 0
    if planned:
        rows: list[tuple[str, ...]] = [("MARKED", "NOW", "AFTER", "TIME LIMIT")]
        for entry in planned:
            limit = f"{entry.timeout_s:g} s" if entry.timeout_s else "-"
            state = {ledger.IDLE: "does not run", ledger.LEFT: "CANNOT BE SAVED"}.get(entry.state, "runs")
            rows.append((entry.target, state, " ".join(entry.after) or "-", limit))
        print_table(rows)
    else:
        print("nothing is marked: torpor survive NAME...")
    if not units.are_there():
        print("nothing is saved at shutdown: torpor setup --survive-reboot, as root")
    if last.entries:
        when = (
            f"restored {ago(last.restored_at)} under {last.restored_under}" if last.restored_at else "not restored yet"
        )
        print(f"\nsaved {ago(last.saved_at)} under {last.kernel}, {when}")
        for entry in last.entries:
            print(f"  {line_of(entry)}")
        if not last.is_seen and last.restored_at:
            last.is_seen = True
            with suppress(OSError):
                last.write()
    return 0


def _show(args: argparse.Namespace, entries: Sequence[Entry], nothing: str) -> None:
    if args.json:
        print(_as_json(entries, None))
        return
    for entry in entries:
        print(line_of(entry))
    if not entries:
        print(nothing)


def _as_json(entries: Sequence[Entry], last: Ledger | None) -> str:
    import json
    from dataclasses import asdict

    told: dict[str, object] = {"entries": [asdict(entry) for entry in entries]}
    if last is not None:
        told["last"] = asdict(last)
    return json.dumps(told, indent=1)
