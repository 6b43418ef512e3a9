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
    from torpor.base.errors import UsageError
    from torpor.engine import jobs

    if args.keep_last < 1:
        raise UsageError("--keep-last: at least 1", hint="`torpor rm --all NAME` removes all")
    removed: list[tuple[str, int]] = []
    is_done = False
    try:
        # Of all jobs, those of others are passed over, and those that somebody is at work on.
        for name in args.names or [name for name in jobs.generations.names() if jobs.generations.list_of(name)]:
            _prune(name, args, removed)
        is_done = True
    finally:
        # What an error comes after is gone all the same.
        if is_done or removed:
            _say(removed, args)
    return 0


def _prune(name: str, args: argparse.Namespace, removed: list[tuple[str, int]]) -> None:
    """What has been removed of the job *name* is added to *removed*, with what that frees."""
    from contextlib import ExitStack

    from torpor.base.errors import JobError
    from torpor.cli.telling import tell
    from torpor.engine import jobs

    with ExitStack() as stack:
        try:
            stack.enter_context(jobs.locks.held(name, "pruned"))
        except JobError as error:
            if args.names:
                raise
            tell(f"torpor: passed over: {error.describe()}", sys.stderr)
            return
        jobs.generations.sweep(name)
        for each in _superfluous(name, args.keep_last):
            n_bytes = each.size_bytes if each.is_ours else 0
            if args.dry_run or _remove(each):
                removed.append((each.label, n_bytes))


def _say(removed: list[tuple[str, int]], args: argparse.Namespace) -> None:
    from torpor.cli.progress import size
    from torpor.cli.telling import tell

    say = print if args.dry_run else tell
    freed = sum(n_bytes for _, n_bytes in removed)
    if args.json:
        import json

        labels = [label for label, _ in removed]
        say(json.dumps({"removed": labels, "freed_bytes": freed, "dry_run": args.dry_run}))
        return
    lines = [f"{label} {'would be ' if args.dry_run else ''}removed" for label, _ in removed]
    say("\n".join([*lines, f"{len(removed)} checkpoints, {size(freed)}"]))


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
    from torpor.cli.telling import tell
    from torpor.engine.jobs import generations

    try:
        generations.remove(each)
    except JobError as error:
        tell(f"torpor: {error.describe()}", sys.stderr)
        return False
    return True
