"""``torpor logs``: what a job wrote."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.description = "Show what a job wrote to its standard output and error."
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument("--path", action="store_true", help="print the name of the file instead")
    parser.add_argument("name", metavar="NAME")


def main(args: argparse.Namespace) -> int:
    """Print the log."""
    from torpor.engine import jobs
    from torpor.kernel import interrupts

    if args.path:
        print(jobs.find(args.name).log)
        return 0
    try:
        for chunk in jobs.follow_log(jobs.find(args.name), follow=args.follow):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    except (interrupts.Interrupted, BrokenPipeError):
        return 0
    return 0
