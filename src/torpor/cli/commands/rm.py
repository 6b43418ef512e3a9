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
    told: list[dict[str, object]] = []
    try:
        _remove_all(args, told)
    finally:
        # What an error comes after is gone all the same.
        if told or args.json:
            _say(told, as_json=args.json)
    return 0


def _say(told: list[dict[str, object]], *, as_json: bool) -> None:
    from torpor.cli.progress import size
    from torpor.cli.telling import tell

    if as_json:
        import json

        tell(json.dumps(told, indent=1))
        return
    amounts = (f" ({size(int(str(each['freed_bytes'])))})" if "freed_bytes" in each else "" for each in told)
    tell("\n".join(f"{each['removed']} removed{amount}" for each, amount in zip(told, amounts, strict=True)))


def _remove_all(args: argparse.Namespace, told: list[dict[str, object]]) -> None:
    """Whatever has been removed is added to *told*."""
    from torpor.base.errors import UsageError
    from torpor.engine import jobs

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
            _remove(job, found, told, whole=not which)


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


def _remove(job: Job, found: list[Generation], told: list[dict[str, object]], *, whole: bool) -> None:
    """Do it, and add to *told* what has been removed, and what room that makes."""
    from torpor.engine import jobs

    for each in found:
        freed = each.size_bytes if each.is_ours else 0
        is_last_sleep = job.status == jobs.CHECKPOINTED and each.number == job.sleeps_in
        is_noted = is_last_sleep and _note_loss(job)
        jobs.generations.remove(each)
        told.append({"removed": each.label, "freed_bytes": freed})
        if is_last_sleep and not is_noted:
            jobs.lost(job)
    if whole and job.directory.exists():
        jobs.remove(job)
        told.append({"removed": job.name})


def _note_loss(job: Job) -> bool:
    """Have the record say beforehand that the job has ended; not where only what is removed makes room for that."""
    import errno

    from torpor.engine import jobs

    try:
        jobs.lost(job)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True
