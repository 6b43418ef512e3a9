"""``torpor prune``: remove all but the newest checkpoints of jobs."""

from __future__ import annotations

import argparse
import sys

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.engine.jobs.generations import Generation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor prune``."""
    parser.description = (
        "Remove the older checkpoints of all jobs, or of some. What has a tag stays, and so does what a job sleeps in, "
        "and what is being restored just now."
    )
    parser.add_argument("--keep-last", type=int, required=True, metavar="N", help="so many of each job stay")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("names", nargs="*", metavar="NAME")


def main(args: argparse.Namespace) -> int:
    """Remove all but the newest checkpoints of the jobs named, or of all, and print what was removed; 0.

    UsageError where none would be kept; JobError where somebody is at work on a job that was named.
    """
    from contextlib import ExitStack

    from torpor.base.errors import JobError, UsageError
    from torpor.cli.progress import size
    from torpor.engine import jobs

    if args.keep_last < 1:
        raise UsageError("--keep-last: at least 1", hint="`torpor rm --all NAME` removes all")
    removed, freed = [], 0
    # Of all jobs, those of others are passed over, and those that somebody is at work on.
    for name in args.names or [name for name in jobs.generations.names() if jobs.generations.list_of(name)]:
        with ExitStack() as stack:
            try:
                stack.enter_context(jobs.locks.held(name, "pruned"))
            except JobError as error:
                if args.names:
                    raise
                sys.stderr.write(f"torpor: passed over: {error.describe()}\n")
                continue
            jobs.generations.sweep(name)
            for each in _superfluous(name, args.keep_last):
                n_bytes = each.size_bytes if each.is_ours else 0
                if args.dry_run or _remove(each):
                    removed.append(each.label)
                    freed += n_bytes
    if args.json:
        import json

        print(json.dumps({"removed": removed, "freed_bytes": freed, "dry_run": args.dry_run}))
        return 0
    for label in removed:
        print(f"{label} {'would be ' if args.dry_run else ''}removed")
    print(f"{len(removed)} checkpoints, {size(freed)}")
    return 0


def _superfluous(name: str, keep_last: int) -> list[Generation]:
    from torpor.engine import jobs

    job = jobs.find(name)
    return [
        each
        for each in jobs.generations.list_of(name)[:-keep_last]
        if not each.tags and not (job.status == jobs.CHECKPOINTED and job.sleeps_in == each.number)
    ]


def _remove(each: Generation) -> bool:
    from torpor.base.errors import JobError
    from torpor.engine.jobs import generations

    try:
        generations.remove(each)
    except JobError as error:
        sys.stderr.write(f"torpor: {error.describe()}\n")
        return False
    return True
