"""``torpor verify``: whether a checkpoint is still as it was written."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor verify``."""
    parser.description = (
        "Read every image of a checkpoint and compare it with the sums that were written beside it. Ends with 0 where "
        "all are as they were written; names those that are not otherwise. A checkpoint made by CRIU has no sums."
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "source",
        metavar="PATH|NAME",
        help="a checkpoint's directory or archive, or a job (NAME: its newest checkpoint, NAME@2, NAME@TAG)",
    )


def main(args: argparse.Namespace) -> int:
    """Do it, and say what is damaged."""
    import json

    from torpor.base.errors import UsageError
    from torpor.cli.commands.inspect import place_of
    from torpor.engine.destination import opened
    from torpor.engine.sets.reading import open_set
    from torpor.images.stores.opening import is_stream

    path = place_of(args.source)
    if not path.exists() and not is_stream(path):
        raise UsageError(f"there is no {path}")
    with opened(path) as place, open_set(place) as images:
        if images.manifest is None or not images.manifest.has_sums:
            raise UsageError(
                f"{args.source}: there are no sums to compare with",
                hint="a checkpoint made by CRIU, or one whose dump was killed before it had written them",
            )
        faults = {name: fault for name in sorted(images.manifest.files) if (fault := images.fault_of(name))}
        n_files, ident = len(images.manifest.files), images.manifest.ident
    if args.json:
        print(json.dumps({"id": ident, "files": n_files, "damaged": faults}, indent=1))
    else:
        for name, fault in faults.items():
            print(f"{name}: {fault}")
        result = f"{len(faults)} of {n_files} files are damaged" if faults else f"{n_files} files, all as written"
        print(f"{args.source}: {result}")
    return 1 if faults else 0
