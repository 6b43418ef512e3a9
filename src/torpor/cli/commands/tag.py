"""``torpor tag``: give a checkpoint of a job a name."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor tag``."""
    parser.description = (
        "Call a checkpoint NAME@TAG, too. Another one of the job that was called so is not any more. What has a tag is "
        "not removed by torpor prune."
    )
    parser.add_argument("--remove", action="store_true", help="forget the tag; the checkpoint stays")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("source", metavar="NAME[@NUMBER|@TAG]", help="the checkpoint; NAME alone is the newest")
    parser.add_argument("tag", nargs="?", metavar="TAG", help="what to call it")


def main(args: argparse.Namespace) -> int:
    """Give a checkpoint a tag, or take one away; 0.  UsageError without a tag, JobError without a checkpoint."""
    import json

    from torpor.base.errors import UsageError
    from torpor.cli.telling import tell
    from torpor.engine.jobs import generations

    name, which = generations.split(args.source)
    if args.remove:
        if not which or args.tag:
            raise UsageError("torpor tag --remove: which tag?", hint="torpor tag --remove NAME@TAG")
        generations.untag(name, which)
        if args.json:
            tell(json.dumps({"name": name, "removed": which}))
        return 0
    if not args.tag:
        raise UsageError("torpor tag: a tag is missing", hint="torpor tag NAME@2 before-upgrade")
    generation = generations.find(name, which)
    generations.tag(generation, args.tag)
    if args.json:
        tell(json.dumps({"checkpoint": generation.label, "tag": args.tag}))
    else:
        tell(f"{generation.label} is {name}@{args.tag}")
    return 0
