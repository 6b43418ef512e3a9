"""``torpor ps``: the jobs."""

from __future__ import annotations

import argparse
import os
import shlex
import time

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.engine.jobs import Job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.description = "List the jobs that run or sleep in a checkpoint."
    parser.add_argument("-a", "--all", action="store_true", help="those that have ended, too")
    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    parser.add_argument("--json", action="store_true", help="as JSON")


def main(args: argparse.Namespace) -> int:
    """Print the list."""
    from torpor.engine import jobs

    found = [job for job in jobs.list_jobs() if args.all or job.status != jobs.ENDED]
    if args.json:
        import dataclasses
        import json

        print(json.dumps([dataclasses.asdict(job) for job in found], indent=1))
    elif args.quiet:
        for job in found:
            print(job.name)
    else:
        rows = [("NAME", "STATUS", "PID", "CREATED", "COMMAND")]
        rows += [
            (job.name, _status(job), str(job.pid) if job.status == jobs.RUNNING else "-", _ago(job), _shown(job))
            for job in found
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]))
    return 0


def _status(job: Job) -> str:
    from torpor.engine.jobs import ENDED

    if job.status != ENDED or job.exit_status is None:
        return job.status
    code = os.waitstatus_to_exitcode(job.exit_status)
    return f"ended ({code})" if code >= 0 else f"killed ({-code})"


def _ago(job: Job) -> str:
    seconds = max(0, int(time.time() - job.created))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _shown(job: Job) -> str:
    text = shlex.join(job.command)
    return text if len(text) <= 60 else text[:57] + "..."
