"""``torpor logs``: what a job wrote."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the description, the arguments and the options of ``torpor logs``."""
    parser.description = "Show what a job wrote to its standard output and error."
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument("--path", action="store_true", help="print the name of the file instead")
    parser.add_argument("name", metavar="NAME")


def main(args: argparse.Namespace) -> int:
    """Print what a job wrote, or the name of its log; 0, also where the reader has gone or Ctrl-C ends it."""
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
