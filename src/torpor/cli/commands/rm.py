"""``torpor rm``: remove checkpoints of a job, or all that is left of one."""

from __future__ import annotations

import argparse

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.engine.jobs import Job
    from torpor.engine.jobs.generations import Generation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor rm``."""
    parser.description = (
        "Remove a checkpoint (NAME@NUMBER, NAME@TAG), or with --all a job that does not run: its checkpoints, its "
        "record and its log. What a job sleeps in is removed with --force only. A directory or an archive that was "
        "named with -o stays; it is only forgotten."
    )
    parser.add_argument("--all", action="store_true", help="all checkpoints of NAME, and the job itself")
    parser.add_argument("--force", action="store_true", help="what a job sleeps in, too: it cannot be woken any more")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("names", nargs="+", metavar="NAME[@NUMBER|@TAG]")


def main(args: argparse.Namespace) -> int:
    """Remove the checkpoints named, or with --all everything of the jobs named, and print what that frees; 0.

    JobError where there is no such thing or somebody is at work on it; UsageError for one checkpoint and --all.
    """
    from torpor.base.errors import UsageError
    from torpor.cli.progress import size
    from torpor.engine import jobs

    told: list[dict[str, object]] = []
    for word in args.names:
        name, which = jobs.generations.split(word)
        with jobs.locks.held(name, "removed"):
            job = jobs.find(name)
            if which and args.all:
                raise UsageError(f"{word} is one checkpoint, --all is for all", hint=f"torpor rm --all {name}")
            if which:
                found = [jobs.generations.find(name, which)]
            else:
                found = jobs.generations.list_of(name)
                _check_whole(job, found, args)
            _check_not_slept_in(job, found, args)
            told += _remove(job, found, whole=not which)
    if args.json:
        import json

        print(json.dumps(told, indent=1))
        return 0
    for each in told:
        amount = f" ({size(int(str(each['freed_bytes'])))})" if "freed_bytes" in each else ""
        print(f"{each['removed']} removed{amount}")
    return 0


def _check_whole(job: Job, found: list[Generation], args: argparse.Namespace) -> None:
    from torpor.base.errors import JobError, UsageError
    from torpor.engine import jobs

    if job.status == jobs.RUNNING:
        raise JobError(f"{job.name} is running", hint=f"`torpor kill {job.name}` first, or name a checkpoint")
    if found and not args.all:
        labels = ", ".join(each.label for each in found)
        raise UsageError(f"{job.name} has checkpoints: {labels}", hint="name one of them, or --all")


def _check_not_slept_in(job: Job, found: list[Generation], args: argparse.Namespace) -> None:
    from torpor.base.errors import JobError
    from torpor.engine import jobs

    if job.status == jobs.CHECKPOINTED and not args.force:
        for each in found:
            if each.number == job.sleeps_in:
                raise JobError(f"{job.name} sleeps in {each.label}", hint="--force removes it all the same")


def _remove(job: Job, found: list[Generation], *, whole: bool) -> list[dict[str, object]]:
    """Do it; what has been removed, and what room that makes."""
    from torpor.engine import jobs

    told: list[dict[str, object]] = []
    for each in found:
        told.append({"removed": each.label, "freed_bytes": each.size_bytes if each.is_ours else 0})
        if job.status == jobs.CHECKPOINTED and each.number == job.sleeps_in:
            jobs.lost(job)
        jobs.generations.remove(each)
    if whole and job.directory.exists():
        jobs.remove(job)
        told.append({"removed": job.name})
    return told
