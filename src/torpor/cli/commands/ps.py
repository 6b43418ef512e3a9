"""``torpor ps``: the jobs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.engine.jobs import Job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor ps``."""
    parser.description = "List the jobs that run, sleep in a checkpoint, or have ended and have a checkpoint."
    parser.add_argument("-a", "--all", action="store_true", help="those that have ended without a checkpoint, too")
    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    parser.add_argument("--json", action="store_true", help="as JSON")


def main(args: argparse.Namespace) -> int:
    """Print the jobs, as a table, as names or as JSON, those that have left nothing but with --all only; 0."""
    from torpor.engine import jobs

    found = [(job, jobs.generations.list_of(job.name)) for job in jobs.list_jobs()]
    found = [(job, kept) for job, kept in found if args.all or kept or job.status != jobs.ENDED]
    if args.json:
        import dataclasses
        import json

        told = [dataclasses.asdict(job) | {"checkpoints": [each.number for each in kept]} for job, kept in found]
        print(json.dumps(told, indent=1))
    elif args.quiet:
        for job, _ in found:
            print(job.name)
    else:
        rows: list[tuple[str, ...]] = [("NAME", "STATUS", "PID", "CREATED", "CHECKPOINTS", "COMMAND")]
        rows += [
            (
                job.name, _status(job), str(job.pid) if job.status == jobs.RUNNING else "-", ago(job.created),
                str(len(kept) or "-"), _shown(job),
            )
            for job, kept in found
        ]  # fmt: skip
        print_table(rows)
        _tell_of_reboot()
    return 0


def _tell_of_reboot() -> None:
    """In a line, what did not make it through the last one, until ``torpor survive`` has shown it."""
    from contextlib import suppress

    from torpor.base.errors import TorporError
    from torpor.containers.reboot import ledger

    with suppress(TorporError, OSError):
        last = ledger.load()
        if last.restored_at and last.missing and not last.is_seen:
            names = ", ".join(entry.target for entry in last.missing)
            what = f"{len(last.missing)} of {len(last.entries)} did not make it through the reboot"
            sys.stderr.write(f"torpor: {what}: {names} (torpor survive shows why)\n")


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they must be."""
    from torpor.cli.telling import printable

    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))


def _status(job: Job) -> str:
    from torpor.engine.jobs import ENDED

    if job.status != ENDED or job.exit_status is None:
        return job.status
    code = os.waitstatus_to_exitcode(job.exit_status)
    return f"ended ({code})" if code >= 0 else f"killed ({-code})"


def ago(moment: float) -> str:
    """How long ago *moment* (seconds since the epoch) was, in one unit: ``3 h ago``."""
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _shown(job: Job) -> str:
    text = shlex.join(job.command)
    return text if len(text) <= 60 else text[:57] + "..."
