"""``torpor checkpoints``: the checkpoints of jobs, and where each comes from."""

from __future__ import annotations

import argparse

from torpor.base.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.engine.jobs.generations import Generation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor checkpoints``."""
    parser.description = (
        "List the checkpoints of all jobs, or of some, the oldest first. NAME@NUMBER or NAME@TAG is what "
        "torpor restore, inspect, tag and rm take; NAME alone is the newest."
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("names", nargs="*", metavar="NAME")


def main(args: argparse.Namespace) -> int:
    """Print the checkpoints of the jobs named, or of all; 0.  JobError where there is no such job."""
    from torpor.cli.commands.ps import print_table
    from torpor.engine import jobs

    for name in args.names:
        jobs.find(name)
    found = [each for name in args.names or jobs.generations.names() for each in jobs.generations.list_of(name)]
    if args.json:
        import json

        print(json.dumps([_as_json(each) for each in found], indent=1))
    elif args.quiet:
        for each in found:
            print(each.label)
    else:
        print_table(
            [("CHECKPOINT", "TAGS", "DATE", "SIZE", "HOST", "KERNEL", "TORPOR", "MADE BY", "WHERE"), *map(_row, found)]
        )
    return 0


def _row(each: Generation) -> tuple[str, ...]:
    import time

    from torpor.cli.progress import size

    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.note.made))
    where = "" if each.is_ours else str(each.place)
    if not each.is_here:
        where += " (gone)"
    about = each.note
    return (
        each.label, ",".join(each.tags) or "-", date, size(each.size_bytes), about.host, about.kernel, about.torpor,
        about.by, where,
    )  # fmt: skip


def _as_json(each: Generation) -> dict[str, object]:
    about = each.note
    return {
        "checkpoint": each.label,
        "name": each.name,
        "number": each.number,
        "tags": each.tags,
        "date": about.made,
        "size_bytes": each.size_bytes,
        "host": about.host,
        "kernel": about.kernel,
        "torpor": about.torpor,
        "made_by": about.by,
        "command": about.command,
        "id": about.id,
        "path": str(each.place),
        "is_there": each.is_here,
    }
